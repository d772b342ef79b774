"""Whole attacks on a CIFAR-size ResNet-18 with SiLU, batch 32, all threads: PGD-10, and a TRADES-10 training iteration.

``compiled``: the strongest form that we know without other kernels: a frozen copy in channels_last, its loss and the
step compiled by torch.compile. ``published``: what the original code of TRADES computes. Libraries that are not
installed are left out.
"""

import copy
import ctypes

import pytest
import torch
import torch.nn.functional as F

from sat_kernels import attacks, nn
from sat_kernels.attacks.engine import has_bf16
from sat_kernels.training.models import ResidualNetwork

EPS, ALPHA, STEPS, BATCH = 8 / 255, 2 / 255, 10, 32
PRECISIONS = ["fp32"] + ["bf16"] * has_bf16(torch.device("cpu"))


@pytest.fixture(autouse=True, scope="module")
def kept_memory():
    """The C library keeps what is freed, however large, for every rival."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def network():
    torch.manual_seed(0)
    return ResidualNetwork(3, 10, 64, nn.SiLU, blocks=(2, 2, 2, 2)).eval()


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(BATCH, 3, 32, 32, generator=generator), torch.randint(10, (BATCH,), generator=generator)


def compiled(model, precision):
    copied = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    if precision == "bf16":
        for module in copied.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                module.to(torch.bfloat16)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def loss(x, y):
        return F.cross_entropy(copied(x.to(dtype)).float(), y, reduction="sum")

    def step(x_adv, grad, low, high):
        return torch.minimum(torch.maximum(x_adv + ALPHA * grad.sign(), low), high)

    options = {"fullgraph": True, "dynamic": False}
    loss, step = torch.compile(loss, **options), torch.compile(step, **options)

    def attack(x, y):
        torch._foreach_copy_(list(copied.parameters()), list(model.parameters()))
        x = x.contiguous(memory_format=torch.channels_last)
        low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
        x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(STEPS):
            x_adv = x_adv.detach().requires_grad_()
            (grad,) = torch.autograd.grad(loss(x_adv, y), x_adv)
            x_adv = step(x_adv.detach(), grad, low, high)
        return x_adv

    return attack


def foolbox_attack(model):
    foolbox = pytest.importorskip("foolbox")
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=STEPS)
    return lambda x, y: attack(wrapped, x, y, epsilons=EPS)


def pgd_rivals(model, precision):
    ours = {"eps": EPS, "alpha": ALPHA, "steps": STEPS, "precision": precision}
    return {
        "sat_kernels": lambda: attacks.PGD(model, **ours),
        "model as it is": lambda: attacks.PGD(model, lower=False, **ours),
        "sat_kernels, compiled": lambda: attacks.PGD(model, compile=True, **ours),
        "compiled": lambda: compiled(model, precision),
        "torchattacks": lambda: pytest.importorskip("torchattacks").PGD(model, EPS, ALPHA, STEPS),
        "foolbox": lambda: foolbox_attack(model),
    }


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", pgd_rivals(None, "fp32"))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_pgd(benchmark, precision, rival):
    benchmark.group = f"PGD-10, ResNet-18, {precision}"
    x, y = data()
    attack = pgd_rivals(network(), precision)[rival]()
    benchmark.pedantic(attack, (x, y), rounds=3, warmup_rounds=1)


def published_trades(model, optimizer, x, y, beta=6.0):
    divergence = torch.nn.KLDivLoss(reduction="sum")
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        x_adv = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            loss = divergence(F.log_softmax(model(x_adv), 1), F.softmax(model(x), 1))
        (grad,) = torch.autograd.grad(loss, [x_adv])
        x_adv = x_adv.detach() + ALPHA * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    model.train()
    optimizer.zero_grad()
    natural = F.cross_entropy(model(x), y)
    robust = divergence(F.log_softmax(model(x_adv), 1), F.softmax(model(x), 1)) / len(x)
    (natural + beta * robust).backward()
    optimizer.step()


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", ["sat_kernels", "published"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_trades(benchmark, precision, rival):
    benchmark.group = f"TRADES-10 iteration, ResNet-18, {precision}"
    model, (x, y) = network().train(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trades = attacks.TRADES(model, EPS, ALPHA, STEPS, precision=precision)

    def iteration():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = trades.loss(x, y)
        loss.backward()
        optimizer.step()

    run = iteration if rival == "sat_kernels" else lambda: published_trades(model, optimizer, x, y)
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
