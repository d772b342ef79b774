"""The models of torchvision and timm: lowered, they are what they were."""

import warnings

import pytest
import torch
from zoo import frozen

from sat_kernels.attacks.engine import Replica, Rest
from sat_kernels.nn import replace_activations

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MODELS = [
    ("torchvision", "resnet18", "silu"), ("torchvision", "mobilenet_v2", None), ("torchvision", "densenet121", "gelu"),
    ("torchvision", "convnext_tiny", None), ("timm", "resnet18", "mish"), ("timm", "resnetv2_50", None),
    ("timm", "convnext_atto", None), ("timm", "vit_tiny_patch16_224", None), ("timm", "efficientnet_b0", None),
]  # fmt: skip


def make(library, name, to):
    module = pytest.importorskip(library)
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in name else {}
    build = module.create_model if library == "timm" else module.models.get_model
    model = build(name, num_classes=10, **size).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model if to is None else replace_activations(model, to)
    with torch.no_grad():
        model(IMAGES.repeat(4, 1, 1, 1))  # running statistics
    return frozen(model.eval())


@pytest.mark.parametrize(("library", "name", "to"), MODELS)
def test_gradients(library, name, to):
    model = make(library, name, to)
    replica = Replica(model, True, "fp32", False)
    replica.refresh(IMAGES)
    assert ", lowered" in replica.explain(), replica.explain()
    found = []
    for function in (model, replica):
        x = IMAGES.clone().requires_grad_()
        logits = function(x)
        found.append((logits.detach(), torch.autograd.grad(logits.square().sum(), x)[0]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8 * float(one.abs().max()))


@pytest.mark.parametrize(("library", "name", "to"), MODELS)
def test_gradients_after_the_first_layer(library, name, to):
    model, found = make(library, name, to), []
    for lower in (True, False):
        rest = Rest(model, None, lower, "fp32", False)
        with torch.enable_grad():
            leaf, logits = rest(IMAGES)
            found.append((leaf.detach(), logits.detach(), torch.autograd.grad(logits.square().sum(), leaf)[0]))
        assert (", lowered" in rest.explain()) == lower, rest.explain()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8 * float(one.abs().max()))
