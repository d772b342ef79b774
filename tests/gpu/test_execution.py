"""Streams, CUDA graphs, autocast and several devices."""

import pytest
import torch
from accuracy import NUMBERS
from raw import LEARNABLE, calls, operator, tensors

from sat_kernels import functional, nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import pgd_step_
from sat_kernels.ops.activation import activate
from sat_kernels.testing import check_feasible

EVERY = pytest.mark.parametrize("name", ACTIVATIONS)


def outputs(result):
    return result if isinstance(result, tuple) else (result,)


@EVERY
def test_kernels_run_on_the_current_stream(name, cuda):
    """The input is late: a kernel on another stream reads what was there before."""
    parameters, expected = tensors(name, NUMBERS[name], device=cuda), torch.randn(1 << 20, device=cuda)
    stream, late = torch.cuda.Stream(), torch.zeros_like(expected)
    torch.cuda.synchronize()
    for call, arguments in calls(name, expected, expected):
        right = outputs(operator(call)(*arguments, *parameters))  # first, so that nothing is left to be compiled
        with torch.cuda.stream(stream):
            late.zero_()
            torch.cuda._sleep(20_000_000)
            late.add_(expected)
            found = operator(call)(*(late for _ in arguments), *parameters)
        stream.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(outputs(found), right, strict=True)), call


def test_a_step_runs_on_the_current_stream(cuda):
    x, grad = torch.rand(1 << 10, 1 << 10, device=cuda), torch.randn(1 << 10, 1 << 10, device=cuda)
    stream, x_adv, late = torch.cuda.Stream(), x.clone(), torch.zeros_like(grad)
    right = pgd_step_(x.clone(), grad, x, eps=0.1, alpha=0.1)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        late.add_(grad)
        pgd_step_(x_adv, late, x, eps=0.1, alpha=0.1)
    stream.synchronize()
    assert torch.equal(x_adv, right)


def captured(run):
    """A CUDA graph of ``run``, and what it returns."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


@EVERY
def test_operators_in_a_graph(name, cuda):
    parameters = tensors(name, NUMBERS[name], device=cuda)
    x, grad = (torch.randn(10_007, device=cuda) for _ in range(2))
    for call, arguments in calls(name, x, grad):
        graph, result = captured(lambda call=call, arguments=arguments: operator(call)(*arguments, *parameters))
        for _ in range(3):
            x.normal_()
            grad.normal_()
            for output in outputs(result):
                output.fill_(torch.nan)
            graph.replay()
            for one, other in zip(outputs(result), outputs(operator(call)(*arguments, *parameters)), strict=True):
                assert torch.equal(one, other), call


@pytest.mark.parametrize("name", ["silu", "smooth_relu"])
def test_autograd_in_a_graph(name, cuda):
    x, grad = torch.randn(5, 6, 77, device=cuda, requires_grad=True), torch.randn(5, 6, 77, device=cuda)
    parameters = tensors(name, NUMBERS[name], channels=6, device=cuda)
    leaves = [x]
    if name in LEARNABLE:
        leaves += [p.requires_grad_() for p in parameters]

    def run():
        return torch.autograd.grad(activate(ACTIVATIONS[name], x, parameters), leaves, grad)

    graph, result = captured(run)
    with torch.no_grad():
        x.normal_()
        grad.normal_()
    graph.replay()
    assert all(torch.equal(one, other) for one, other in zip(result, run(), strict=True))


def attack(model, x, y, steps=3):
    x_adv = x.clone()
    for _ in range(steps):
        leaf = x_adv.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(leaf), y, reduction="sum")
        pgd_step_(x_adv, torch.autograd.grad(loss, leaf)[0], x, eps=8 / 255, alpha=2 / 255)
    return x_adv


def linear_model(device):
    """Without convolutions, whose algorithms may differ from call to call."""
    torch.manual_seed(1)
    layers = [nn.Flatten(), nn.Linear(108, 32), nn.SiLU(), nn.Linear(32, 32), nn.SmoothReLU(), nn.Linear(32, 10)]
    return torch.nn.Sequential(*layers).to(device)


def test_an_attack_in_a_graph(cuda):
    """Its forward and backward passes and steps; PGD itself looks at its input's range, which waits for the device."""
    model, x, y = linear_model(cuda), torch.rand(16, 3, 6, 6, device=cuda), torch.randint(10, (16,), device=cuda)
    graph, x_adv = captured(lambda: attack(model, x, y))
    x.uniform_()
    graph.replay()
    expected = attack(model, x, y)
    assert check_feasible(x_adv, x, 8 / 255).violations == 0
    # A gradient of 0 up to rounding may have either sign.
    assert (x_adv != expected).float().mean() < 0.01
    assert (x_adv != x).float().mean() > 0.9


def test_the_attack_without_a_graph(device):
    model, x, y = linear_model(device), torch.rand(16, 3, 6, 6, device=device), torch.randint(10, (16,), device=device)
    x_adv = attack(model, x, y)
    assert check_feasible(x_adv, x, 8 / 255).violations == 0
    assert torch.nn.functional.cross_entropy(model(x_adv), y) > torch.nn.functional.cross_entropy(model(x), y)


@EVERY
def test_autocast(name, device):
    """16-bit inputs stay 16 bits, with parameters in float32; float32 inputs are not cast, as with torch's own."""
    row = ACTIVATIONS[name]
    linear, module = torch.nn.Linear(12, 12).to(device), getattr(nn, row.module)(**row.module_arguments).to(device)
    x = torch.randn(5, 12, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        hidden = linear(x)
        y = module(hidden)
        wide = module(x)
    assert hidden.dtype == y.dtype == torch.bfloat16
    assert wide.dtype == torch.float32
    assert torch.equal(y, module(hidden))
    leaves = [p for p in (*linear.parameters(), *module.parameters()) if p.requires_grad]
    grads = torch.autograd.grad(y.float().sum(), leaves)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)


def test_the_tensors_device_is_used_and_the_current_one_kept(cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = torch.randn(1000, device="cuda:1")
    y = functional.silu(x)
    x_adv = pgd_step_(torch.rand_like(x), x, torch.rand_like(x), eps=0.1, alpha=0.1)
    assert torch.cuda.current_device() == 0
    assert y.device == x_adv.device == x.device
    torch.testing.assert_close(y.cpu(), torch.nn.functional.silu(x.cpu()))
    with pytest.raises(ValueError, match="expected x_adv's device"):
        pgd_step_(torch.rand_like(x), x.to("cuda:0"), torch.rand_like(x), eps=0.1, alpha=0.1)
