"""sat_kernels.nn and sat_kernels.nn.functional stand in for torch's."""

import subprocess
import sys

import pytest
import torch

from sat_kernels import functional, nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.nn import functional as F

OVERRIDDEN = {row.module for row in ACTIVATIONS.values()} | {"functional"}


def public(namespace):
    return [name for name in dir(namespace) if not name.startswith("_")]


@pytest.mark.parametrize("name", sorted(set(public(torch.nn)) - OVERRIDDEN))
def test_module_names_are_torchs(name):
    assert getattr(nn, name) is getattr(torch.nn, name)
    assert name in dir(nn)


@pytest.mark.parametrize("name", sorted(set(public(torch.nn.functional)) - set(functional.__all__)))
def test_functional_names_are_torchs(name):
    assert getattr(F, name) is getattr(torch.nn.functional, name)
    assert name in dir(F)


@pytest.mark.parametrize("name", functional.__all__)
def test_functional_names_are_ours(name):
    assert getattr(F, name) is getattr(functional, name)
    assert getattr(F, name) is not getattr(torch.nn.functional, name, None)


@pytest.mark.parametrize("name", sorted(OVERRIDDEN - {"functional"}))
def test_module_names_are_ours(name):
    assert getattr(nn, name).__module__.startswith("sat_kernels.")


def test_functional_submodule_is_ours():
    assert nn.functional is F
    assert sys.modules["sat_kernels.nn.functional"] is F


def test_star_import_brings_ours():
    scope = {}
    exec("from sat_kernels.nn import *", scope)
    assert scope["SiLU"] is nn.SiLU
    assert scope["Conv2d"] is torch.nn.Conv2d
    assert scope["functional"] is F


@pytest.mark.parametrize("namespace", [nn, F])
def test_unknown_name_is_an_attribute_error(namespace):
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = namespace.no_such_name


@pytest.mark.parametrize("statement", ["import sat_kernels.nn.functional", "from sat_kernels.nn import Conv2d, SiLU"])
def test_imports_first(statement):
    subprocess.run([sys.executable, "-W", "ignore", "-c", statement], check=True)
