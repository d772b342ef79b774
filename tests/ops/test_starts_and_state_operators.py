"""The raw operators for starts and state, as torch's machinery sees them."""

import torch
from raw import needs_extension
from torch.library import opcheck

from sat_kernels.ops import APGDState

pytestmark = needs_extension
OPERATORS = torch.ops.sat_kernels


def test_random_start():
    eps, integer = torch.tensor([0.1, 0.2, 0.3]), torch.tensor(4)
    for x in (torch.rand(3, 2, 4, 5), torch.rand(3, 2, 5, 4).mT, torch.rand(3, 2, 4, 10)[..., ::2]):
        for numbers in ((None, None, None, None), (eps, eps, integer, integer)):
            scale_of, eps_of, seed_of, restart_of = numbers
            arguments = (x, 2, 3, 1, 0.1, 0.1, scale_of, eps_of, 0.0, 1.0, 7, seed_of, 1, restart_of, torch.arange(3))
            opcheck(OPERATORS.random_start.default, arguments)


def test_state():
    x, grad, loss = torch.rand(3, 4, 5), torch.rand(3, 4, 5).bfloat16(), torch.rand(3)
    fooled = torch.tensor([True, False, False])
    opcheck(OPERATORS.keep_best_.default, (x.clone(), loss.clone(), ~fooled, x, loss + 1, fooled))
    for norm in ("Linf", "L1"):
        s = APGDState.start(x, grad, loss, fooled, eps=0.1, norm=norm)
        changed = (x.clone(), grad.clone(), s.best, s.best_grad, s.fooling, s.best_loss, s.previous_loss)
        changed += (s.checkpoint_loss, s.step_size, s.rises, s.reduced, s.success, s.top_k, s.sparsity)
        rest = (s.largest_step, loss + 1, fooled, x if norm == "L1" else None, 2, 1)
        opcheck(OPERATORS.apgd_update_.default, (*changed, *rest))
