"""What activations keep for backward: their input, by reference, and nothing else of its size."""

import pytest
import torch

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]
FLOATS = [torch.float32, torch.bfloat16]
# Parameters, what is computed from them alone, and the like.
NUMBERS = 256


def kept(function):
    """Bytes by storage that the graph of what ``function`` returns keeps, and that result."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        # The storage itself, too: were it freed, another could get its address.
        storages[storage.data_ptr()] = (storage.nbytes(), storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    return {pointer: size for pointer, (size, _) in storages.items()}, result


def ours(row):
    return getattr(nn, row.module)(**row.module_arguments)


def plain(row):
    """torch's module, or the formula as a composition of torch's operators."""
    if hasattr(torch.nn, row.module):
        return getattr(torch.nn, row.module)(**row.module_arguments)
    parameters = [torch.tensor(v, requires_grad=True) if row.learnable else v for v in row.defaults]
    return lambda x: row.reference(x, *parameters)


def bytes_per_element(function, dtype, order=1, n=1 << 14):
    x, g = (torch.randn(n, dtype=dtype, requires_grad=True) for _ in range(2))

    def run():
        y = function(x)
        return y if order == 1 else torch.autograd.grad(y, x, g, create_graph=True)

    sizes, _ = kept(run)
    return sum(size for size in sizes.values() if size > NUMBERS) / n


def table(dtype=torch.float32):
    """Rows of (name, first order ours, plain, second order ours, plain), in bytes per element."""
    return [
        (row.name, *(bytes_per_element(f(row), dtype, order) for order in (1, 2) for f in (ours, plain)))
        for row in ACTIVATIONS.values()
    ]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("row", ALL)
def test_the_input_by_reference_and_nothing_else(row, dtype):
    x = torch.randn(1 << 14, dtype=dtype, requires_grad=True)
    sizes, _ = kept(lambda: ours(row)(x))
    assert sizes.pop(x.data_ptr()) == x.nbytes
    assert sum(sizes.values()) <= NUMBERS


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("row", ALL)
def test_not_more_than_torch_or_the_formula(row, dtype):
    assert bytes_per_element(ours(row), dtype) == dtype.itemsize <= bytes_per_element(plain(row), dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("row", ALL)
def test_second_order_keeps_input_and_gradient(row, dtype):
    # A trained parameter's second derivatives are the formula's, and keep what that keeps.
    module = ours(row).requires_grad_(False)
    x, g = (torch.randn(1 << 14, dtype=dtype, requires_grad=True) for _ in range(2))
    sizes, _ = kept(lambda: torch.autograd.grad(module(x), x, g, create_graph=True))
    assert (sizes.pop(x.data_ptr()), sizes.pop(g.data_ptr())) == (x.nbytes, g.nbytes)
    assert sum(sizes.values()) <= NUMBERS


@pytest.mark.parametrize("row", ALL)
def test_between_convolutions(row):
    """What the first puts out, kept for the activation, and what the second takes in: nothing twice."""
    first, second, act = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 3, 3), ours(row)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    sizes, _ = kept(lambda: second(act(first(x))))
    between = first(x).nbytes
    large = [size for size in sizes.values() if size > NUMBERS]
    assert sorted(large) == sorted([x.nbytes, first.weight.nbytes, between, between, second.weight.nbytes])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_table(dtype):
    rows = table(dtype)
    print(f"\n|{dtype}, bytes/element|backward: ours|torch or formula|double backward: ours|torch or formula|")
    print("|-|-|-|-|-|")
    for name, *figures in rows:
        print(f"|{name}|" + "".join(f"{v:g}|" for v in figures))
    assert [row[0] for row in rows] == list(ACTIVATIONS)
