"""The GPU's losses: against their definitions, in every order of threads, with every access in its tensor."""

import math

import pytest
import torch
from calls import DTYPES
from emulated import ORDERS
from loss_definitions import COMPARED, LEAST_CLASSES, NAMES, arguments, check, rows

from sat_kernels.ops import attack_loss, attack_loss_and_grad

LOSSES = pytest.mark.parametrize("name", NAMES)
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def run(name, z, y, targets, clean):
    return attack_loss_and_grad(z, **arguments(name, y, targets, clean), clean_grad=name in COMPARED)


def compare(name, given):
    check(name, run(name, *given), *given[:3], given[3] if name in COMPARED else None)


# A warp, all slots of several, the largest block, and rows that registers do not hold.
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 129, 2048, 2049, 4096, 4097])
@TYPES
@LOSSES
def test_definitions(losses, name, dtype, classes):
    if classes < LEAST_CLASSES.get(name, 2):
        pytest.skip("too few classes")
    compare(name, rows(5 if classes < 1000 else 2, classes, dtype, classes))


@LOSSES
def test_equal_logits(losses, name):
    z, y, targets, clean = rows(100, 40, torch.float32, scale=1.0)
    compare(name, (z.round(), y, targets, clean))


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@LOSSES
def test_order_of_threads(losses, name, order, seed):
    losses.settings = {"order": order, "seed": seed}
    for classes in (100, 5000):
        compare(name, rows(3, classes, torch.float32))


@pytest.mark.parametrize("offset", [1, 3])
@TYPES
def test_misaligned_rows(losses, dtype, offset):
    losses.offset = offset
    for name in NAMES:
        compare(name, rows(3, 11, dtype))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@LOSSES
def test_rows_without_finite_logits(losses, name, value):
    z, y, targets, clean = rows(4, 100, torch.float32)
    z[1, 40] = z[2, 7] = value
    y[1:3] = 40
    found = run(name, z, y, targets, clean)
    assert found.loss.isnan().tolist() == found.margin.isnan().tolist() == [False, True, True, False]
    assert found.grad.isnan().all(1).tolist() == [False, True, True, False]
    assert torch.equal(found.correct, z.argmax(1) == y)


@pytest.mark.parametrize("classes", [10, 5000])
@LOSSES
def test_labels_that_are_no_class(losses, name, classes):
    """Nothing is read where they point to."""
    z, y, targets, clean = rows(5, classes, torch.float32)
    y[0], y[2] = -(2**40), classes
    targets[3] = -1
    found = run(name, z, y, targets, clean)
    without = [True, False, True, name == "dlr_targeted", False]
    assert found.loss.isnan().tolist() == found.margin.isnan().tolist() == without
    assert (found.grad == 0).all(1).tolist() == without
    assert not found.correct[without].any()


@LOSSES
def test_without_gradient(losses, name):
    z, y, targets, clean = rows(3, 100, torch.float32)
    loss, correct, margin = attack_loss(z, **arguments(name, y, targets, clean))
    wanted = run(name, z, y, targets, clean)
    assert torch.equal(loss, wanted.loss)
    assert torch.equal(correct, wanted.correct)
    assert torch.equal(margin, wanted.margin)


# What is read of each row of logits: once for the rival, then for exponentials or once to be held; y once.
READS = {"ce": 2, "odds": 2, "cw": 2, "dlr": 2, "dlr_targeted": 2, "kl": 4}


@pytest.mark.parametrize("name", READS)
def test_accesses(losses, name):
    """The gradient is written once, or once and its few other numbers again."""
    size, classes = 4, 1000
    z, y, targets, clean = rows(size, classes, torch.float32)
    run(name, z, y, targets, clean)
    loads = losses.memory["logits"].counts["loads"]
    each = sum(loads.values()) / (size * classes)
    assert READS[name] <= each < READS[name] + 0.6
    written = sum(losses.memory["grad"].counts["stores"].values())
    few = {"cw": 2, "dlr": 5, "dlr_targeted": 5}.get(name, 0)
    assert written == size * (classes + few)
