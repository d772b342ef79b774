"""The losses: against their definitions, and as the CPU has them."""

import math

import pytest
import torch
from loss_definitions import COMPARED, LEAST_CLASSES, NAMES, arguments, check, rows

from sat_kernels.ops import attack_loss, attack_loss_and_grad

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LOSSES = pytest.mark.parametrize("name", NAMES)
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def run(name, given, device):
    found = attack_loss_and_grad(
        given[0].to(device),
        **arguments(name, *(t.to(device) for t in given[1:])),
        clean_grad=name in COMPARED,
    )
    return type(found)(*(None if t is None else t.cpu() for t in found))


@pytest.mark.parametrize("classes", [2, 10, 1000, 4097, 21841])
@TYPES
@LOSSES
def test_definitions(name, dtype, classes, device):
    if classes < LEAST_CLASSES.get(name, 2):
        pytest.skip("too few classes")
    given = rows(64 if classes <= 1000 else 5, classes, dtype, classes)
    check(name, run(name, given, device), *given[:3], given[3] if name in COMPARED else None)


@LOSSES
def test_many_classes(name, device, room):
    room(4)
    given = rows(300, 200_000, torch.float32)
    check(name, run(name, given, device), *given[:3], given[3] if name in COMPARED else None)


@LOSSES
def test_labels_that_are_no_class(name, cuda):
    """Nobody waits for the labels to be looked at; nothing is read where they point to."""
    z, y, targets, clean = rows(5, 10, torch.float32)
    y[0], y[2] = -(2**40), 10
    found = run(name, (z, y, targets, clean), cuda)
    assert found.loss.isnan().tolist() == [True, False, True, False, False]
    assert not found.grad[[0, 2]].any()


@LOSSES
def test_extreme_logits(name, device):
    z, y, targets, clean = rows(400, 10, torch.float32)
    z = (z * 1e38).clamp(-3.4e38, 3.4e38)
    found = run(name, (z, y, targets, clean), device)
    assert all(part is None or part.isfinite().all() for part in found)
    z[::2, 3] = math.nan
    assert run(name, (z, y, targets, clean), device).loss.isnan().tolist() == [True, False] * 200


def test_in_a_graph_of_the_network(device):
    layer = torch.nn.Linear(20, 10).to(device)
    x, y = torch.randn(8, 20, device=device, requires_grad=True), torch.randint(10, (8,), device=device)
    losses = [attack_loss(layer(x), y).loss, torch.nn.functional.cross_entropy(layer(x), y, reduction="none")]
    found, wanted = (torch.autograd.grad(loss.sum(), x)[0] for loss in losses)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
