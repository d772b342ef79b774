"""More than 2^31 elements, in memory of which only the pages that are touched exist; few blocks of each grid run."""

import mmap

import numpy as np
import pytest
import torch
from affine_act import added, run_affine
from affine_act import expected as affine_expected
from attack_steps import run_step
from calls import PASSES, close, expected, values

from sat_kernels.ops import pgd_step_

# At both ends there are numbers, and outputs are NaN; in between there is nothing but zeros.
EDGE = 3 << 20
NORESERVE = 0x4000  # mmap has the name since Python 3.13


class Sparse:
    """Like Memory, of ``size`` elements."""

    def __init__(self, size: int, dtype: torch.dtype, seed: int | None, writable: bool = False):
        self.size, self.writable = size * dtype.itemsize, writable
        self.map = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
        self.tensor = torch.from_numpy(np.frombuffer(self.map, np.uint8)).view(dtype)
        self.address = self.tensor.data_ptr()
        self.counts = {}
        for k, edge in enumerate(self.edges()):
            edge.copy_(torch.full_like(edge, torch.nan) if seed is None else values(EDGE, dtype, 2 * seed + k))

    def edges(self):
        return self.tensor[:EDGE], self.tensor[-EDGE:]

    def check(self):
        pass


def stored_elements(memory):
    return sum(w * n for w, n in memory.counts["stores"].items()) // memory.tensor.element_size()


# Outer, channels, inner: flat, or in blocks and threads that go by rows or by columns. Past 2^31 there is something for
# every block, which comes by every 2 million elements.
SHAPES = {
    "flat": (1, 1, 2**32 + 1029),
    "one row": (1, 1, 2**31 + 2**22 + 1029),
    "long rows": (1, 3, 2**30),
    "rows": (44_830_000, 3, 16),
    "columns": (89_660_000, 24, 1),
}


@pytest.mark.parametrize("layout", SHAPES)
def test_activations(kernels, layout):
    outer, channels, inner = SHAPES[layout]
    kind = "backward" if layout == "flat" else "parameter_backward"
    size, dtype = outer * channels * inner, torch.bfloat16
    numbers = (torch.linspace(2.5, 0.5, channels, dtype=torch.float64),)
    memory = {k: Sparse(size, dtype, seed) for seed, k in enumerate(PASSES[kind][0])}
    memory["out"] = Sparse(size, dtype, None, writable=True)
    kernels.run("swish", kind, memory, numbers, inner=inner, edge_blocks=2)
    whole = 2 * 2 * 128 * 8 if layout == "flat" else 4 * size // 2048
    assert whole / 2 < stored_elements(memory["out"]) < whole * 2
    for k in range(2):
        found = memory["out"].edges()[k]
        written = (~found.isnan()).nonzero().flatten()
        assert written.numel() > 500, f"{written.numel()} at the {('beginning', 'end')[k]}"
        start = k * (size - EDGE)
        channel = (written + start) // inner % channels
        tensors = {name: memory[name].edges()[k][written] for name in PASSES[kind][0]}
        # Each element is a channel of its own, with that channel's number.
        close(found[written], expected("swish", "backward", tensors, (numbers[0][channel],))["out"])


@pytest.mark.parametrize(("samples", "each"), [(1, 2**32 + 1024), (3, 2**30 + 1024)])
def test_step(attack_steps, samples, each):
    size = samples * each
    x_adv, grad, x = (Sparse(size, t, i, i == 0) for i, t in enumerate([torch.float32, torch.bfloat16, torch.float32]))
    for image in (x_adv, x):
        for edge in image.edges():
            edge.abs_().div_(5)
    before = [edge.clone() for edge in x_adv.edges()]
    memory = {"x_adv": x_adv, "grad": grad, "x": x}
    # A size for each sample takes the kernel that knows samples.
    sizes = {"eps": 0.25, "alpha": torch.full((samples, 1), 0.125) if samples > 1 else 0.125}
    run_step(attack_steps, "linf", memory | sizes, samples=samples, edge_blocks=2)
    assert stored_elements(x_adv) == 4 * 128 * 4
    for k in range(2):
        found = x_adv.edges()[k]
        moved = (found != before[k]).nonzero().flatten()
        assert moved.numel() > 500
        wanted = before[k][moved].clone()
        pixels = x.edges()[k][moved].contiguous()
        pgd_step_(wanted, grad.edges()[k][moved].contiguous(), pixels, eps=0.25, alpha=0.125)
        assert torch.equal(found[moved], wanted)


# Channels, inner: two channels in an access, neighbouring channels, and element for element.
LOOKUPS = {"rows": (3, 9), "long rows": (3, 2**30 + 1), "columns": (24, 1), "each": (3, 1)}


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("layout", LOOKUPS)
def test_affine_act(affine_act, layout, kind):
    """More than 2^32 elements, of which an index has more than 32 bits."""
    channels, inner = LOOKUPS[layout]
    size, dtype = (2**32 // (channels * inner) + 2) * channels * inner, torch.bfloat16
    names = ("sum", "residual") if kind == "forward" else ("sum", "grad")
    memory = {k: Sparse(size, dtype, seed, k == "sum") for seed, k in enumerate(names)}
    vectors = ("bias", "scale", "shift") if kind == "forward" else ("scale", "shift")
    numbers = {k: values(channels, torch.float32, 9 + i) for i, k in enumerate(vectors)}
    before = [{k: memory[k].edges()[end].clone() for k in names} for end in range(2)]
    memory["out"] = Sparse(size, dtype, None, writable=True)
    run_affine(affine_act, kind, memory | numbers, "silu", layout=(channels, inner), edge_blocks=2)
    assert stored_elements(memory["out"]) > 3 * 1024
    for end, tensors in enumerate(before):
        found, total = (memory[k].edges()[end] for k in ("out", "sum"))
        written = (~found.isnan()).nonzero().flatten()
        assert written.numel() > 1024
        channel = (written + end * (size - EDGE)) // inner % channels
        # Each element is a channel of its own, with that channel's numbers.
        tensors = {k: t[written].unsqueeze(0) for k, t in tensors.items()}
        tensors |= {k: t[channel] for k, t in numbers.items()}
        stored = total[written].unsqueeze(0)
        close(stored.flatten(), added(tensors).flatten(), "sum")
        close(found[written], affine_expected(kind, tensors, stored, "silu", ()).flatten(), "out")
