"""The cost model: what it counts, what it must not do, and the figures it had before, from shapes written by hand."""

import graphlib
import importlib.util
from dataclasses import replace

import cost_model
import pytest
import synthetic_rows
import torch
from cost import ideas, limits, networks
from cost.machine import H200
from cost.trace import pgd_step
from report.rows import Results

# Read off the architectures; torchvision and timm publish the same.
GMAC = {"ResNet-18": 0.556, "PreActResNet-18": 0.555, "WRN-28-10": 5.24, "ResNet-50": 4.09, "ConvNeXt-T": 4.46}
# Activations: calls, and elements per image: 64x32x32 five times, 128x16x16 four times, and so on.
ACTIVATIONS = 17, 5 * 65536 + 4 * 32768 + 4 * 16384 + 4 * 8192
# docs/performance.md and the model that it quotes: ms of an eager step, and what ideas are worth.
KNOWN_MS = {("PreActResNet-18", 128): 2.15, ("PreActResNet-18", 512): 5.44, ("PreActResNet-18", 1024): 9.83}
KNOWN_MS |= {("WRN-28-10", 128): 9.90, ("WRN-28-10", 512): 34.6}
KNOWN = {
    "frozen weights (over .backward())": (1.33, 1.40),
    "one kernel for the step": (1.03, 1.02),
    "batch norm, activation, residual fused": (1.53, 1.36),
    "batch norm folded": (1.11, 1.06),
    "CUDA graph": (1.38, 1.12),
    "step and blocks fused": (1.61, 1.39),
}


def total(name: str, batch: int = 2, **how) -> float:
    return sum(op.flops for op in pgd_step(name, batch, **how))


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_multiplications(name):
    ops = pgd_step(name, 2)
    forward = sum(op.flops for op in ops if not op.backward) / 2 / 2
    assert forward == pytest.approx(GMAC[name] * 1e9, rel=3e-3)
    assert total(name) == pytest.approx(2 * forward * 2 * 2, rel=1e-3)  # the input gradient is as much again
    assert total(name, frozen=False) == pytest.approx(3 * forward * 2 * 2, rel=1e-3)  # and so are the weights'
    assert total(name, 4) == 2 * total(name)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")
@pytest.mark.parametrize(("name", "theirs"), [("ResNet-50", "resnet50"), ("ConvNeXt-T", "convnext_tiny")])
def test_parameters_are_torchvisions(name, theirs):
    import torchvision

    with torch.device("meta"):
        known = getattr(torchvision.models, theirs)()
    assert sum(p.numel() for p in networks.make(name).parameters()) == sum(p.numel() for p in known.parameters())


@pytest.mark.parametrize("name", ["ResNet-18", "PreActResNet-18"])
def test_activations(name):
    for kind in ("silu", "silu_backward"):
        found = [op for op in pgd_step(name, 2) if op.name == kind]
        elements = sum(next(iter(op.writes.values())) for op in found) / 2 / 2  # bfloat16, two images
        assert (len(found), elements) == ACTIVATIONS


def test_bytes_of_a_block():
    """Bytes per element of bfloat16, eager to fused, of batch norm and activation: 8 to 4 forward, 10 to 6 backward."""
    ops = pgd_step("PreActResNet-18", 2)
    fused = [op for op in ideas.fused_blocks(ops) if op.name == "fused"]
    size = 2 * 64 * 32 * 32
    inner = [op.bytes / size for op in fused if op.bytes < 6.5 * size and max(op.writes.values()) == 2 * size]
    assert {round(b) for b in inner} == {4, 6}
    names = ("native_batch_norm", "silu", "silu_backward", "native_batch_norm_backward")
    eager = [next(round(op.bytes / size) for op in ops if op.name == name) for name in names]
    assert eager[:2] == [4, 4]
    last = next(op for op in reversed(ops) if op.name == "silu_backward")
    assert round(last.bytes / size) == 6
    # Neither reads the forward pass's input.
    for op in ops:
        if op.name == "native_batch_norm_backward":
            assert op.bytes == pytest.approx(2 * max(op.writes.values()), rel=0.1)
        elif op.name == "data_gradient":
            m, n, _ = op.gemm
            assert len(op.reads) == 2
            assert sum(op.writes.values()) == 2 * m * n


def test_bytes_of_the_step():
    """16 per pixel in place of 104: reads a bfloat16 gradient, x and x_adv; writes x_adv and the bfloat16 input."""
    ops = pgd_step("ResNet-18", 4)
    pixels = 4 * 3 * 32 * 32
    assert sum(op.bytes for op in ops if op.part == "image") == (36 + 68 + 0) * pixels
    assert ideas.fused_step(ops)[-1].bytes == 16 * pixels


def test_folding_leaves_no_batch_norm_behind_a_convolution():
    folded = ideas.folded(pgd_step("ResNet-50", 2), bias_pass=True)
    assert not any("norm" in op.name for op in folded)
    assert sum(op.name == "bias" for op in folded) == 53
    bare = ideas.folded(pgd_step("ResNet-50", 2), bias_pass=False)
    assert len(bare) == len(folded) - 53
    pre_act = [op.name for op in ideas.folded(pgd_step("PreActResNet-18", 2), bias_pass=True)]
    assert pre_act.count("native_batch_norm") == pre_act.count("native_batch_norm_backward") == 8


@pytest.mark.parametrize("change", ["fused_blocks", "fused_step", "lowered"])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_kernels_can_be_put_in_an_order(name, change):
    """None needs what only comes of it, but for the step, which makes the next pass's input."""
    ops = pgd_step(name, 2)
    changed = cost_model.lowered(ops, H200) if change == "lowered" else getattr(ideas, change)(ops)
    network = [op for op in changed if op.part == "network"]
    writer = {value: i for i, op in enumerate(network) for value in op.writes}
    needs = {i: {writer[value] for value in op.reads if value in writer} for i, op in enumerate(network)}
    assert len(list(graphlib.TopologicalSorter(needs).static_order())) == len(network)
    read = {value for op in changed for value in op.reads}
    known = {value for op in changed for value in op.writes}
    original = {value for op in ops for value in op.writes}
    assert not (read & original) - known
    if change != "fused_blocks":
        assert sum(op.part == "image" for op in changed) == 1
    assert sum(op.flops for op in changed) == sum(op.flops for op in ops)


@pytest.mark.parametrize(("network", "batch"), KNOWN_MS)
def test_the_step_of_an_h200_is_what_it_was(network, batch):
    us = cost_model.step_us(pgd_step(network, batch), H200, "bf16")
    assert us / 1e3 == pytest.approx(KNOWN_MS[network, batch], rel=0.15)


@pytest.mark.parametrize("position", [0, 1])
def test_ideas_on_an_h200_are_worth_what_they_were(position):
    worth = cost_model.worth("PreActResNet-18", (128, 512)[position], H200, "bf16")
    for idea, values in KNOWN.items():
        assert worth[idea] == pytest.approx(values[position], rel=0.05), idea


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_ideas_are_never_slower(name):
    for machine in (H200, replace(H200, launch=0.0, graph=0.0, ramp=0.0)):
        worth = cost_model.worth(name, 4, machine, "bf16")
        assert worth.pop("Winograd's convolutions") is None  # which only CPUs have
        assert all(value >= 1 for value in worth.values()), worth
        assert worth["all of these"] >= max(worth["step and blocks fused"], worth["batch norm folded"])


@pytest.mark.parametrize("limit", ["copy", "cached", "matmul", "conv", "depthwise"])
def test_faster_machines_are_not_slower(limit):
    value = getattr(H200, limit)
    faster = {k: 1.5 * v for k, v in value.items()} if isinstance(value, dict) else 1.5 * value
    ops = pgd_step("ConvNeXt-T", 64)
    before, after = (cost_model.step_us(ops, m, "bf16") for m in (H200, replace(H200, **{limit: faster})))
    assert 0.6 * before < after < before


def test_slower_launches_are_slower():
    ops = pgd_step("ConvNeXt-T", 64)
    before, after = (cost_model.step_us(ops, m, "bf16") for m in (H200, replace(H200, launch=5.0)))
    assert after - before == pytest.approx(sum(H200.kernels(op) for op in ops))


def test_a_measured_machine(tmp_path, capsys):
    folder = synthetic_rows.write(tmp_path)
    machine = limits.measured(Results(folder))
    assert machine.conv["fp32"] == pytest.approx(96e9)
    assert machine.launch == 1.4
    assert machine.copy < machine.cached
    assert cost_model.main(["--rows", str(folder), "--networks", "ResNet-18", "--batches", "32"]) == 0
    text = capsys.readouterr().out
    # 10 steps of 4 x 0.5554 GMAC x 32 images at 96 GFLOP/s are 7.41 s; with gradients of weights 11.1; with a quarter
    # of the 0.4907 GMAC of 3x3 convolutions that have a stride of 1 and more than 3 channels 2.5.
    times = {
        line.split("|")[1]: float(line.split("|")[4].split()[0]) for line in text.splitlines() if "|fp32|32|" in line
    }
    assert 2.5 < times["sat_kernels"] < 3.2
    assert 7.4 < times["sat_kernels, lower=False"] <= times["torchattacks"] < 8.9
    assert 11.1 < times["foolbox"] < 13.5
    assert "|CUDA graph|-|" in text


def test_limits_that_are_missing_are_named(tmp_path):
    rows = [row for row in synthetic_rows.rows() if not row["case"].startswith(("launch", "conv"))]
    with pytest.raises(ValueError, match="conv3x3, launch"):
        limits.measured(Results(synthetic_rows.write(tmp_path, rows)))


def test_errors_name_what_was_expected(tmp_path, capsys):
    with pytest.raises(ValueError, match="network='VGG': expected one of ResNet-18"):
        networks.make("VGG")
    with pytest.raises(ValueError, match="fp8"):
        cost_model.step_us([], H200, "fp8")
    assert cost_model.main(["--rows", str(tmp_path)]) == 2
    assert "rows.csv" in capsys.readouterr().err
