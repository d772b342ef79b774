"""Steps fused with activations, float32, all threads: latent steps, the first layer, and YOPO's inner loop.

``eager``: ATen's activation backward into a buffer, its convolution backward, and the shortest in-place step; with
tensors in channels_last, too, where there are convolutions. Memory that the rivals need is not given back between
calls: fresh pages for the 32 MiB of the first layer's output would cost them as much as the convolution.
"""

import ctypes

import pytest
import torch
import torch.nn.functional as F

from sat_kernels import ops

EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 3
LATENT = {"norm": "Linf", "eps": EPS, "alpha": ALPHA}


@pytest.fixture(autouse=True, scope="module")
def kept_memory():
    """The C library keeps what is freed, however large."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def latent_rivals(norm: str) -> dict:
    """Each returns the perturbation that it has changed."""
    torch.manual_seed(0)
    z, grad = torch.randn(2048, 3072), torch.randn(2048, 3072)
    delta, kept = torch.zeros_like(z).uniform_(-EPS, EPS), torch.empty_like(z)
    moved = z + delta  # what a forward pass has saved
    eps, alpha = (EPS, ALPHA) if norm == "Linf" else (1.0, 0.25)
    step = {"activation": "silu", "eps": eps, "alpha": alpha, "norm": norm}

    def eager():
        torch.ops.aten.silu_backward.grad_input(grad, moved, grad_input=kept)
        if norm == "Linf":
            delta.add_(kept.sign_(), alpha=alpha).clamp_(-eps, eps)
        else:
            delta.addcdiv_(kept, kept.norm(dim=1, keepdim=True).add_(1e-10), value=alpha)
            delta.mul_((eps / delta.norm(dim=1, keepdim=True)).clamp_(max=1))
        return delta

    return {"sat_kernels": lambda: ops.act_backward_pgd_step_(grad, z, delta, **step), "eager": eager}


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", ["sat_kernels", "eager"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_latent_step(benchmark, norm, rival):
    benchmark.group = f"act_backward_pgd_step_ {norm} 2048x3072"
    run = latent_rivals(norm)[rival]
    run()
    benchmark(run)


class FirstLayer:
    """A CIFAR batch at a 3x3 convolution with 64 filters, in one memory format, and the eager forms."""

    def __init__(self, batch: int, layout: torch.memory_format):
        torch.manual_seed(0)
        self.x = torch.rand(batch, 3, 32, 32).contiguous(memory_format=layout)
        self.x_adv = self.x.clone(memory_format=torch.preserve_format)
        self.weight = (torch.randn(64, 3, 3, 3) * 0.2).contiguous(memory_format=layout)
        self.low, self.high = (self.x - EPS).clamp_(min=0), (self.x + EPS).clamp_(max=1)
        self.z = F.conv2d(self.x, self.weight, padding=1)
        self.p, self.kept = torch.randn_like(self.z), torch.empty_like(self.z)

    def step(self, grad):
        torch.minimum(self.x_adv.add_(grad.sign_(), alpha=ALPHA), self.high, out=self.x_adv)
        torch.maximum(self.x_adv, self.low, out=self.x_adv)

    def backward(self):
        """From a saved z."""
        torch.ops.aten.silu_backward.grad_input(self.p, self.z, grad_input=self.kept)
        needed = (True, False, False)
        geometry = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        self.step(torch.ops.aten.convolution_backward(self.kept, self.x, self.weight, None, *geometry, needed)[0])

    def inner_loop(self):
        for _ in range(STEPS):
            x_adv = self.x_adv.detach().requires_grad_()
            y = F.silu(F.conv2d(x_adv, self.weight, padding=1))
            self.step(torch.autograd.grad(y, x_adv, self.p)[0])

    def ours(self, **how):
        sizes = {"eps": EPS, "alpha": ALPHA, "padding": 1, "activation": "silu"}
        ops.conv_act_backward_pgd_step_(self.p, self.x_adv, self.x, self.weight, **sizes, **how)


LAYOUTS = {"": torch.contiguous_format, " channels_last": torch.channels_last}
RIVALS = [f"{name}{layout}" for name in ("sat_kernels", "eager") for layout in LAYOUTS]


def first_layer(rival: str, batch: int) -> tuple[FirstLayer, bool]:
    name, _, layout = rival.partition(" ")
    return FirstLayer(batch, LAYOUTS[f" {layout}" if layout else ""]), name == "sat_kernels"


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("z", ["saved", "computed"])
def test_first_layer_step(benchmark, z, rival):
    """The eager form goes from a saved z; ours from that, or from x_adv, for which nothing need be saved."""
    benchmark.group = f"conv_act_backward_pgd_step_ z {z} 128x3x32x32"
    layer, ours = first_layer(rival, 128)
    how = {"z": layer.z} if z == "saved" else {}
    run = (lambda: layer.ours(**how)) if ours else layer.backward
    run()
    benchmark(run)


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", RIVALS)
def test_inner_loop(benchmark, rival):
    benchmark.group = f"conv_act_backward_pgd_step_ steps={STEPS} 128x3x32x32"
    layer, ours = first_layer(rival, 128)
    run = (lambda: layer.ours(steps=STEPS)) if ours else layer.inner_loop
    run()
    benchmark(run)


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", RIVALS)
def test_forward(benchmark, rival):
    benchmark.group = "conv_act 128x3x32x32"
    layer, ours = first_layer(rival, 128)
    how = {"activation": "silu", "padding": 1}
    run = (
        (lambda: ops.conv_act(layer.x, layer.weight, **how))
        if ours
        else (lambda: F.silu(F.conv2d(layer.x, layer.weight, padding=1)))
    )
    run()
    benchmark(run)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
@pytest.mark.parametrize("how", ["saved", "computed", "loop"])
def test_same_results(layout, how):
    """What is timed does the same, but where the gradient is about 0."""
    ours, eager = FirstLayer(2, layout), FirstLayer(2, layout)
    ours.ours(**{"saved": {"z": ours.z}, "computed": {}, "loop": {"steps": STEPS}}[how])
    (eager.inner_loop if how == "loop" else eager.backward)()
    assert not torch.equal(ours.x_adv, ours.x)
    assert (ours.x_adv - eager.x_adv).abs().gt(1e-6).double().mean() < 0.01


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_same_latent_step(norm):
    ours, eager = (run() for run in (latent_rivals(norm)["sat_kernels"], latent_rivals(norm)["eager"]))
    assert (ours - eager).abs().gt(1e-6).double().mean() < 1e-4
