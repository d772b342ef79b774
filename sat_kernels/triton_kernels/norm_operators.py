"""The steps that need sums over a sample, as csrc/step_operators.h has them."""

import torch

from . import l1, l2
from .steps import PreparedStep

# Four elements for each thread: there are few samples, and each is one program's.
TILE, LAUNCH = 2048, {"num_warps": 16, "enable_fp_fusion": False}


def _run(kernel, step: PreparedStep, before: tuple, between: tuple = (), **constants) -> None:
    if step.empty:
        return
    (alpha, alpha_sample, _, one_alpha), (eps, eps_sample, _, one_eps) = step.alpha, step.eps
    with torch.cuda.device_of(step.target):
        kernel[(step.samples,)](
            step.target, step.grad, step.x, *before, step.mask, step.active, alpha, alpha_sample, eps, eps_sample,
            *step.box, *between, step.out, step.mean, step.deviation, *step.out_strides, step.sample_size,
            step.channels, step.inner, ALPHA=min(one_alpha, 1), EPS=min(one_eps, 1), IN_ORDER=step.in_order, SIZE=TILE,
            **constants, **LAUNCH,
        )  # fmt: skip
    step.finish()


def pgd_step_l2_(x_adv, *arguments) -> None:
    _run(l2.step_l2, PreparedStep(x_adv, *arguments), (None,), FIRST=True)


def apgd_step_l2_(x_adv, x_prev, grad, x, eps, eps_of, step_size, first, clip_min, clip_max, *options) -> None:
    step = PreparedStep(x_adv, grad, x, eps, 0.0, eps_of, step_size, clip_min, clip_max, None, *options)
    _run(l2.step_l2, step, (step.changed("x_prev", x_prev),), FIRST=first)


def _l1(step: PreparedStep, name: str, top_k: int, of, skip_faces: bool) -> None:
    number = (top_k, 0) if of is None else step.size(name, 0, of, torch.int64)[:2]
    _run(l1.step_l1, step, (), number, TOP_K=of is not None, SKIP_FACES=skip_faces)


def pgd_step_l1_(x_adv, *arguments) -> None:
    *arguments, top_k, top_k_of = arguments
    _l1(PreparedStep(x_adv, *arguments), "top_k_of", top_k, top_k_of, True)


def apgd_step_l1_(x_adv, grad, x, eps, eps_of, step_size, top_k, clip_min, clip_max, *options) -> None:
    step = PreparedStep(x_adv, grad, x, eps, 0.0, eps_of, step_size, clip_min, clip_max, None, *options)
    # AutoAttack's step does not look at the box's faces.
    _l1(step, "top_k", 0, top_k, False)
