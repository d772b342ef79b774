"""Arguments that are not what they should be: an error says which, and what was expected, when an attack is made."""

import pickle

import numpy
import pytest
import torch
from torch import nn

from sat_kernels import attacks
from sat_kernels.nn import PerturbedActivation

FLAGS = ("random_start", "targeted", "early_stop", "feasible", "compile")


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("PGD", {"generator": 3}, TypeError, "generator=3: expected a torch.Generator or None"),
        ("PGD", {"clip_min": "a"}, ValueError, "clip_min='a': expected a number"),
        ("PGD", {"clip_max": None}, ValueError, "clip_max=None: expected a number"),
        ("PGD", {"clip_min": torch.zeros(3)}, ValueError, r"clip_min=tensor\(\[0., 0., 0.\]\): expected a number"),
        ("Free", {"clip_min": "a"}, ValueError, "clip_min='a': expected a number"),
        ("PGD", {"lower": [[]]}, ValueError, r"lower=\[\[\]\]: expected True, False or some of 'layers'"),
        ("APGD", {"eps": None}, ValueError, "eps=None: expected a number >= 0"),
        ("APGD", {"norm": ["Linf"]}, ValueError, r"norm=\['Linf'\]: expected 'Linf' or 'L2' or 'L1'"),
        ("SLAT", {"eps": "a"}, ValueError, "eps='a': expected a number >= 0"),
        ("FGSM", {"eps": [0.1], "random_start": True}, ValueError, r"eps=\[0.1\]: expected a number >= 0"),
        ("YOPO", {"m": 1.5}, ValueError, "m=1.5: expected an integer >= 0"),
        *(("PGD", {flag: "yes"}, ValueError, f"{flag}='yes': expected True or False") for flag in FLAGS),
        *(("PGD", {flag: 0}, ValueError, f"{flag}=0: expected True or False") for flag in FLAGS),
        ("MART", {"targeted": 1}, ValueError, "targeted=1: expected True or False"),
    ],
)
def test_settings(net, name, options, error, words):
    net[2] = PerturbedActivation("silu", eps=0.1)
    with pytest.raises(error, match=words):
        getattr(attacks, name)(net, **options)


def test_integers_of_numpy(net, batch):
    attack = attacks.PGD(net, steps=numpy.int64(2), restarts=numpy.int64(2))
    assert "steps=2, " in repr(attack)
    assert torch.equal(attack(*batch), attacks.PGD(net, steps=2, restarts=2)(*batch))
    attack = attacks.YOPO(net, m=numpy.int64(2), n=numpy.int64(1))
    assert torch.equal(attack(*batch), attacks.YOPO(net, m=2, n=1)(*batch))


@pytest.mark.parametrize("feasible", [True, False])
@pytest.mark.parametrize("label", [-100, -1, 5])
def test_labels_are_classes(net, batch, feasible, label):
    y = batch[1].clone()
    y[2] = label
    with pytest.raises(ValueError, match=rf"y\[2\] is {label}: expected 0 <= y < 5, the number of classes"):
        attacks.PGD(net, steps=1, feasible=feasible)(batch[0], y)


def test_labels_are_real(net, batch):
    with pytest.raises(ValueError, match=r"y is torch.complex64 \(6,\): expected 6 integers"):
        attacks.PGD(net)(batch[0], batch[1] + 0j)


@pytest.mark.parametrize("options", [{}, {"feasible": False}])
def test_pickles(batch, options):
    attack = attacks.PGD(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), steps=2, **options)
    assert torch.equal(pickle.loads(pickle.dumps(attack))(*batch), attack(*batch))


@pytest.mark.parametrize(
    ("model", "x"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float64), (torch.float64, torch.float32)]
)
def test_dtypes_of_model_and_images(net, batch, model, x):
    with pytest.raises(RuntimeError) as error:
        attacks.PGD(net.to(model))(batch[0].to(x), batch[1])
    if hasattr(error.value, "add_note"):  # Python 3.11
        assert error.value.__notes__ == [f"x is {x}, and the model's parameters are {model}: expected the same dtype"]
    with pytest.raises(RuntimeError) as error:
        attacks.PGD(net.to(x))(batch[0].to(x)[:, :1], batch[1])
    assert not hasattr(error.value, "__notes__")


def test_other_errors_of_a_model_of_another_dtype(batch):
    class Casting(nn.Linear):
        def forward(self, x):
            super().forward(x.double())
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory") as error:
        attacks.PGD(nn.Sequential(nn.Flatten(), Casting(192, 5)).double())(*batch)
    assert not hasattr(error.value, "__notes__")
