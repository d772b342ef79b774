"""The GPU's L2 and L1 steps, on the emulator, against the CPU's."""

import torch
from attack_steps import result, run_step
from step_samples import bits

from sat_kernels.testing import check_feasible

RAW = torch.ops.sat_kernels


def by_cpu(function, tensors, first=False, lowest=0.0, highest=1.0):
    given = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in tensors.items()}
    x_adv, grad, x = (given.get(k) for k in ("x_adv", "grad", "x"))
    number = {k: v if isinstance(v, float) else 0.0 for k, v in given.items() if k in ("eps", "alpha", "top_k")}
    of = {k: None if isinstance(given[k], float) else given[k] for k in number}
    box, mask = (lowest, highest), given.get("mask")
    rest = [given.get(k) for k in ("active", "out", "mean", "deviation")]
    if function in ("l2", "l1"):
        common = (x_adv, grad, x, number["eps"], number["alpha"], of["eps"], of["alpha"], *box, mask, *rest)
        if function == "l2":
            RAW.pgd_step_l2_(*common)
        else:
            RAW.pgd_step_l1_(*common, int(number["top_k"]), of["top_k"])
        return given
    steps, top_k = (
        torch.full((1, 1), number.get(k, 0), dtype=dtype) if of.get(k) is None else of[k]
        for k, dtype in (("alpha", x.dtype), ("top_k", torch.int64))
    )
    if function == "apgd_l2":
        RAW.apgd_step_l2_(x_adv, given["x_prev"], grad, x, number["eps"], of["eps"], steps, first, *box, *rest)
    else:
        RAW.apgd_step_l1_(x_adv, grad, x, number["eps"], of["eps"], steps, top_k, *box, *rest)
    return given


def run(attack_steps, function, tensors, **settings):
    if function == "apgd_l1":
        function, settings["skip_faces"] = "l1", False
    return run_step(attack_steps, function, tensors, **settings)


def check(attack_steps, function, tensors, **settings):
    """Within the bound; feasible; the rest exact."""
    if function != "apgd_l2":
        tensors = {k: v for k, v in tensors.items() if k != "x_prev"}
    memory = run(attack_steps, function, tensors, **settings)
    passed = {k: v for k, v in settings.items() if k in ("first", "lowest", "highest")}
    expected, found = by_cpu(function, tensors, **passed), result(memory, tensors, "x_adv")
    x, size = tensors["x"], found[0].numel()
    eps = torch.as_tensor(tensors["eps"], dtype=x.dtype).double().expand(len(x), 1)
    # 16 roundings of the radius; of double, whose sums are rounded as it is, one for each element. And x + delta's.
    # What L1 reduces all moves by is rounded as they are. Least numbers, as many as l2_scale() allows for.
    u, least = torch.finfo(x.dtype).eps, torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
    scale = (16 + size * (x.dtype == torch.float64)) * u * eps + 2 * u * expected["x_adv"].flatten(1).double().abs()
    scale += (4 + 4 * size**0.5) * least
    if function == "apgd_l2":  # pixels are rounded on the way, which the length feels
        moved = (expected["x_adv"] - x).flatten(1).double().abs().nan_to_num()
        scale += 4 * u * x.flatten(1).double().norm(dim=1, keepdim=True) * moved / eps.clamp(min=least)
    if "l1" in function:
        far = (tensors["x_adv"] - x).flatten(1).double().abs().nan_to_num(posinf=0).amax(1, keepdim=True)
        scale += 4 * u * (far + torch.as_tensor(tensors["alpha"], dtype=torch.float64).abs())
    off = (found.flatten(1).double() - expected["x_adv"].flatten(1).double()).abs()
    same = bits(found.flatten(1)) == bits(expected["x_adv"].flatten(1))
    bad = ~(same | (off <= scale))
    assert not bad.any(), (bad.nonzero()[:4], found.flatten(1)[bad][:4], expected["x_adv"].flatten(1)[bad][:4])
    if "x_prev" in tensors:
        assert torch.equal(bits(result(memory, tensors, "x_prev")), bits(expected["x_prev"]))
    if "out" in tensors:
        check_out(found, tensors, result(memory, tensors, "out"))
    active = tensors.get("active", torch.ones(len(x), dtype=torch.bool))
    assert torch.equal(bits(found[~active]), bits(tensors["x_adv"][~active]))
    whole = active & found.flatten(1).isfinite().all(1)
    box = settings.get("lowest", 0.0), settings.get("highest", 1.0)
    norm = "L2" if "l2" in function else "L1"
    assert check_feasible(found[whole], x[whole], eps.flatten()[whole], norm, *box).violations == 0
    return memory


def check_out(found, tensors, out):
    shape = (-1, *(1,) * (found.dim() - 2))
    wanted = (found.float() - tensors["mean"].view(shape)) / tensors["deviation"].view(shape)
    wanted = wanted.to(out.dtype).where(tensors["active"].view(-1, *(1,) * (found.dim() - 1)), tensors["out"])
    assert torch.equal(bits(out), bits(wanted))
