"""torch.func transforms and torch.autograd.functional, alone and nested."""

import pytest
import torch
from torch.autograd import functional as AF
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]


def ours(row):
    return getattr(nn, row.module)(**row.module_arguments)


def plain(row):
    """torch's module, or the formula."""
    if hasattr(torch.nn, row.module):
        return getattr(torch.nn, row.module)(**row.module_arguments)
    numbers = [torch.tensor(v) if row.learnable else v for v in row.defaults]
    return lambda x: row.reference(x, *numbers)


def scalar(f):
    # Not linear in f, so that the gradient which enters the backward depends on x, too.
    return lambda x: f(x).sin().sum()


FUNC = {
    "grad": lambda f, x: grad(scalar(f))(x),
    "vjp": lambda f, x: vjp(f, x)[1](x.cos()),
    "jvp": lambda f, x: jvp(f, (x,), (x.cos(),)),
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "hessian": lambda f, x: hessian(scalar(f))(x),
    "vmap": lambda f, x: vmap(f)(x),
    "vmap 1": lambda f, x: vmap(f, in_dims=1)(x),
    "vmap -1 to 1": lambda f, x: vmap(f, in_dims=-1, out_dims=1)(x),
    "vmap chunked": lambda f, x: vmap(f, chunk_size=2)(x),
    "vmap of vmap": lambda f, x: vmap(vmap(f), in_dims=1)(x),
    "vmap of grad": lambda f, x: vmap(grad(scalar(f)))(x),
    "vmap of jacrev": lambda f, x: vmap(jacrev(f))(x),
    "vmap of jvp": lambda f, x: vmap(lambda x, t: jvp(f, (x,), (t,)))(x, x.cos()),
    "jvp of vmap": lambda f, x: jvp(vmap(f), (x,), (x.cos(),)),
    "grad of vmap": lambda f, x: grad(scalar(vmap(f)))(x),
    "grad of grad": lambda f, x: grad(scalar(grad(scalar(f))))(x),
    "jvp of grad": lambda f, x: jvp(grad(scalar(f)), (x,), (x.cos(),)),
    "grad of jvp": lambda f, x: grad(scalar(lambda x: jvp(f, (x,), (x.cos(),))[1]))(x),
    "jvp of jvp": lambda f, x: jvp(lambda x: jvp(f, (x,), (x.cos(),)), (x,), (x.sin(),)),
    "jacfwd of jacrev": lambda f, x: jacfwd(jacrev(f))(x[0]),
    "jacrev of jacfwd": lambda f, x: jacrev(jacfwd(f))(x[0]),
    "jacrev of jacrev": lambda f, x: jacrev(jacrev(f))(x[0]),
    "functionalize": lambda f, x: functionalize(f)(x),
    "functionalize of grad": lambda f, x: functionalize(grad(scalar(f)))(x),
    "linearize": lambda f, x: (lambda y, push: (y, push(x.cos())))(*linearize(f, x)),
    "AF.hessian": lambda f, x: AF.hessian(scalar(f), x),
    "AF.hvp": lambda f, x: AF.hvp(scalar(f), x, x.cos()),
    "AF.vhp": lambda f, x: AF.vhp(scalar(f), x, x.cos()),
    "AF.jvp": lambda f, x: AF.jvp(f, x, x.cos()),
    "AF.vjp": lambda f, x: AF.vjp(f, x, x.cos()),
    "AF.jacobian, vectorized": lambda f, x: AF.jacobian(f, x, vectorize=True),
    "AF.jacobian, forward mode": lambda f, x: AF.jacobian(f, x, vectorize=True, strategy="forward-mode"),
    "AF.hessian, vectorized": lambda f, x: AF.hessian(scalar(f), x, vectorize=True),
    "AF.hessian, forward mode": lambda f, x: AF.hessian(
        scalar(f), x, vectorize=True, outer_jacobian_strategy="forward-mode"
    ),
}


def points(*shape):
    """Away from 0, where some have no second derivative; also where a great sharpness makes none of it negligible."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64, generator=generator) * 3 + 0.01
    return x * torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)


@pytest.mark.parametrize("transform", FUNC)
@pytest.mark.parametrize("row", ALL)
def test_transform(row, transform):
    x = points(3, 4)
    found, expected = (FUNC[transform](make(row), x) for make in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
