"""What every operator of the attacks makes of some inputs, saved to a file: for processes with other kernels.

python attack_results.py FILE
"""

import math
import sys

import torch

from sat_kernels import build_info, ops


def inputs(dtype):
    generator = torch.Generator().manual_seed(5)
    # No multiple of a vector.
    x, x_adv, before = torch.rand(3, 6, 3, 9, 7, generator=generator, dtype=torch.float64)
    grad = torch.randn(6, 3, 9, 7, generator=generator, dtype=torch.float64)
    grad[0, 0, 0, 0], grad[1, 0, 1, 1], grad[2], grad[3] = math.inf, math.nan, 0.0, grad[3] * 1e-42
    near = (x + 0.1 * (2 * x_adv - 1)).clamp(0, 1), (x + 0.1 * (2 * before - 1)).clamp(0, 1)
    return [t.to(dtype) for t in (x, *near, grad)]


def results(dtype) -> dict:
    """By name; those of Linf, which are the same bits on every machine, begin with it."""
    x, x_adv, before, grad = inputs(dtype)
    found = {}
    options = {"mask": x > 0.2, "active": torch.arange(6) != 4}
    for norm, eps, size in (("Linf", 0.05, 0.02), ("L2", 0.9, 0.4), ("L1", 9.0, 3.0)):
        for kind in (dtype, torch.bfloat16):
            out, g = torch.zeros(x.shape), grad.to(kind)
            step = {"eps": eps, "norm": norm, "out": out, "mean": 0.5, "std": 0.25}
            found[f"{norm} pgd {kind}"] = ops.pgd_step_(x_adv.clone(), g, x, alpha=size, **step, **options)
            found[f"{norm} pgd out {kind}"] = out.clone()
            found[f"{norm} apgd {kind}"] = ops.apgd_step_(x_adv.clone(), before.clone(), g, x, step_size=size, **step)
        each = torch.linspace(0.1, 1, 6, dtype=dtype) * eps
        found[f"{norm} projection"] = ops.project_(x_adv.clone(), x, eps=each, norm=norm)
        for init in ("uniform", "sphere", "normal(0.1)"):
            exact = norm == "Linf" and init == "uniform"
            name = f"{norm if exact else 'near ' + norm} start {init}"
            found[name] = ops.random_start(x, eps=eps, init=init, seed=1, norm=norm)
    momentum = torch.zeros_like(x)
    found["moved by momentum"] = ops.momentum_step_(x_adv.clone(), momentum, grad, x, eps=0.05, alpha=0.01)
    found["momentum"] = momentum
    logits, clean = grad[4:].reshape(2, -1)[:, :37].contiguous(), before[4:].reshape(2, -1)[:, :37].contiguous()
    y, targets = torch.tensor([3, 36]), torch.tensor([5, 0])
    for loss in ("ce", "odds", "cw", "dlr", "dlr_targeted", "kl", "mart"):
        more = {"targets": targets} if loss == "dlr_targeted" else {}
        more |= {"clean_logits": clean} if loss in ("kl", "mart") else {}
        row = logits.clone().requires_grad_()
        value = ops.attack_loss(row, y, loss, **more)
        found[f"{loss} loss"], found[f"{loss} margin"] = value.loss.detach(), value.margin.detach()
        (found[f"{loss} gradient"],) = torch.autograd.grad(value.loss.sum(), row)
    best, best_loss, success = x.clone(), torch.zeros(6, dtype=dtype), torch.arange(6) == 1
    ops.keep_best_(best, best_loss, success, x_adv, x_adv[:, 0, 0, 0].clone(), torch.arange(6) == 2)
    found |= {"Linf best": best, "Linf best loss": best_loss, "Linf success": success}
    for norm in ("Linf", "L1"):
        fooled, losses = torch.arange(6) == 2, x_adv[:, 0, 0, :3].T.contiguous()
        state = ops.APGDState.start(before, grad, losses[0], fooled, eps=0.1, norm=norm)
        point, slope = x_adv.clone(), grad.flip(0)
        ops.apgd_update_(state, point, slope, losses[1], ~fooled, x=x, checkpoint=2)
        changed = {"point": point, "slope": slope, "best": state.best, "step": state.step_size, "rises": state.rises}
        found |= {f"Linf state of {norm}: {name}": tensor for name, tensor in changed.items()}
    return found


if __name__ == "__main__":
    kept = {str(dtype): results(dtype) for dtype in (torch.float32, torch.float64)}
    torch.save({"capability": build_info()["cpu_capability"], "results": kept}, sys.argv[1])
