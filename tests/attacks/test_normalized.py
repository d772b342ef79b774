"""Models of normalised input, attacked in pixels."""

import pytest
import torch
from torch import nn

from sat_kernels.attacks import PGD, YOPO, Normalized
from sat_kernels.testing import check_feasible

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_manual_normalisation(net, batch, dtype):
    net.eval().to(dtype)
    x = batch[0].to(dtype)
    mean, std = (torch.tensor(v, dtype=dtype).reshape(3, 1, 1) for v in (MEAN, STD))
    assert torch.equal(Normalized(net, MEAN, STD)(x), net((x - mean) / std))
    assert torch.equal(Normalized(net, 0.5, 0.25)(x), net((x - 0.5) / 0.25))
    assert torch.equal(Normalized(net, mean, std)(x), net((x - mean) / std))


def test_eps_is_in_pixels(net, batch):
    x, y = batch
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    x_adv = PGD(Normalized(net, MEAN, STD), eps=8 / 255, steps=3)(x, y)
    assert check_feasible(x_adv, x, 8 / 255).violations == 0
    assert (x_adv - x).abs().max() > 7.9 / 255
    net.eval()
    assert torch.equal(x_adv, PGD(lambda x: net((x - mean) / std), eps=8 / 255, steps=3)(x, y))


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, nn.DataParallel])
def test_a_wrapper_within_is_not_attacked(net, batch, one_process, wrap):
    """As DistributedDataParallel is not outside: its forward pass may wait for other processes."""
    wrapped, calls = wrap(net), []
    model, plain = Normalized(wrapped, MEAN, STD), Normalized(net, MEAN, STD)
    wrapped.register_forward_hook(lambda *_: calls.append(1))
    for attack in (PGD(model, steps=2, restarts=2), YOPO(model, m=2)):
        x_adv = attack(*batch)
        assert "Normalized, lowered" in attack.explain()
        assert not calls
        assert model.model is wrapped
    assert torch.equal(x_adv, YOPO(plain, m=2)(*batch))


def test_is_a_module_without_state_of_its_own(net):
    model = Normalized(net, MEAN, STD)
    assert model.model is net
    assert set(model.state_dict()) == {f"model.{name}" for name in net.state_dict()}
    model.double()
    assert model.mean.dtype == torch.float64
    assert "0.229" in repr(Normalized(net, MEAN, STD))
    assert not model.eval().model.training


def test_follows_the_models_device_and_never_rounds_to_half():
    assert Normalized(nn.Linear(3, 2, device="meta"), MEAN, STD).mean.is_meta
    assert Normalized(nn.Linear(3, 2, dtype=torch.bfloat16), MEAN, STD).mean.dtype == torch.float32
    assert Normalized(lambda x: x.flatten(1), MEAN, STD)(torch.rand(2, 3, 1, 1)).shape == (2, 3)


def test_errors(net):
    with pytest.raises(ValueError, match="mean has 3 numbers and std 1"):
        Normalized(net, MEAN, 0.5)
    with pytest.raises(ValueError, match="expected numbers > 0"):
        Normalized(net, MEAN, (0.2, 0.0, 0.2))
    with pytest.raises(ValueError, match=r"x has shape \(2, 4, 8, 8\): expected \(B, 3, \.\.\.\)"):
        Normalized(net, MEAN, STD)(torch.rand(2, 4, 8, 8))
    with pytest.raises(ValueError, match="expected \\(B, 3"):
        Normalized(net, MEAN, STD)(torch.rand(3))
