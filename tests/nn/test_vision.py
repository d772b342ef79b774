"""nn.replace_activations on the models of torchvision and timm."""

import copy
import warnings

import pytest
import torch

from sat_kernels import functional, nn
from sat_kernels.nn import replace_activations

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# Residual blocks of torchvision call self.relu twice and the stem once; timm's blocks have a module per place.
SITES = {"resnet18": 17, "resnet50": 49}


def build(library, name, **arguments):
    module = pytest.importorskip(library)
    torch.manual_seed(0)
    if library == "timm":
        return module.create_model(name, num_classes=10, **arguments)
    return module.models.get_model(name, num_classes=10, **arguments)


def replaced(model, to):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return replace_activations(model, to)


def sharpnesses(model):
    return [m.raw_beta for m in model.modules() if isinstance(m, nn.SmoothReLU)]


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("to", ["silu", "smooth_relu"])
def test_trains_and_evaluates(library, to):
    model = replaced(build(library, "resnet18"), to)
    assert not any(isinstance(m, torch.nn.ReLU) for m in model.modules())
    for training in (True, False):
        model.train(training).zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(IMAGES).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("name", SITES)
def test_one_learnable_instance_per_call_site(library, name):
    model = replaced(build(library, name), "smooth_relu")
    found = sharpnesses(model)
    assert len({id(raw) for raw in found}) == len(found) == SITES[name]


def test_torchvision_computes_what_it_should():
    """A block, call site by call site."""
    block = replaced(build("torchvision", "resnet18"), "smooth_relu").layer1[0].eval()
    block.relu[0].raw_beta.data.fill_(1.0)
    block.relu[1].raw_beta.data.fill_(3.0)
    x = torch.randn(2, 64, 8, 8)
    inner = functional.smooth_relu(block.bn1(block.conv1(x)), 1.0)
    expected = functional.smooth_relu(block.bn2(block.conv2(inner)) + x, 9.0)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_round_trips(library):
    model = replaced(build(library, "resnet18"), "smooth_relu").eval()
    for i, raw in enumerate(sharpnesses(model)):
        raw.data.fill_(1.0 + i)
    expected = model(IMAGES)
    other = replaced(build(library, "resnet18"), "smooth_relu").eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(IMAGES), expected)
    assert torch.equal(copy.deepcopy(model)(IMAGES), expected)


def test_torchvision_feature_extraction():
    from_graph = pytest.importorskip("torchvision").models.feature_extraction
    model = replaced(build("torchvision", "resnet18"), "smooth_relu").eval()
    extractor = from_graph.create_feature_extractor(model, ["layer2", "fc"])
    found = extractor(IMAGES)
    torch.testing.assert_close(found["fc"], model(IMAGES))
    assert found["layer2"].shape == (2, 128, 4, 4)
    assert sum(node.target is functional.smooth_relu for node in extractor.graph.nodes) == SITES["resnet18"]
    late = from_graph.create_feature_extractor(build("torchvision", "resnet18").eval(), ["fc"])
    assert len(sharpnesses(replaced(late, "smooth_relu"))) == SITES["resnet18"]
    torch.testing.assert_close(late(IMAGES)["fc"], found["fc"])


def test_timm_features_and_intermediates():
    model = replaced(build("timm", "resnet18"), "smooth_relu").eval()
    features = replaced(build("timm", "resnet18", features_only=True), "smooth_relu").eval()
    assert len(sharpnesses(features)) == SITES["resnet18"]
    last, intermediates = model.forward_intermediates(IMAGES)
    for a, b in zip(features(IMAGES), intermediates, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(last, model.forward_features(IMAGES))


@pytest.mark.parametrize(
    ("library", "name", "named"),
    [
        ("torchvision", "densenet121", "DenseNet.forward calls F.relu"),
        ("torchvision", "googlenet", "BasicConv2d.forward"),
    ],
)
def test_functional_calls_are_named(library, name, named):
    with torch.device("meta"):
        model = build(library, name, **({"init_weights": False} if name == "googlenet" else {}))
    with pytest.warns(UserWarning, match=named):
        replace_activations(model, "silu")
