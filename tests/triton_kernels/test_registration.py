"""Schemas, and which backend tensors are sent to."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from raw import needs_extension

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops.schemas import schemas


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_extension
def test_schemas_are_those_of_the_extension():
    found = {schema.split("(")[0]: torch._C.parse_schema(f"sat_kernels::{schema}") for schema in schemas()}
    for name, schema in found.items():
        assert getattr(torch.ops.sat_kernels, name).default._schema == schema
    compiled = {
        name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("sat_kernels::")
    }
    assert set(found) == {name.split(".")[0] for name in compiled}


# As if there were no extension.
WITHOUT = (
    "import importlib.util, warnings; find = importlib.util.find_spec\n"
    "importlib.util.find_spec = lambda name, *rest: None if name == MISSING else find(name, *rest)\n"
    "warnings.simplefilter('ignore'); import sys, torch, sat_kernels as sk\n"
)


def test_operators_exist_without_the_extension():
    code = (
        f"MISSING = 'sat_kernels._C'\n{WITHOUT}"
        "assert sk._extension.extension is None and 'triton' not in sys.modules\n"
        "from torch._subclasses import FakeTensorMode\n"
        "with FakeTensorMode():\n"
        "    x = torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last)\n"
        "    y = torch.ops.sat_kernels.silu_backward(x, x)\n"
        "assert y.stride() == x.stride()\n"
        "x = torch.randn(5, requires_grad=True)\n"
        "sk.functional.silu(x).sum().backward()\n"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_is_imported_by_the_first_call():
    code = (
        "import sys, torch, sat_kernels as sk\n"
        "assert sk.build_info()['backends'] == ['triton', 'reference']\n"
        "assert sk.info.operator_table()[0] == ('silu', 'cpu tensors: Triton kernel; others: plain PyTorch')\n"
        "assert 'triton' not in sys.modules\n"
        "x = torch.randn(5)\n"
        "torch.testing.assert_close(sk.functional.silu(x), torch.nn.functional.silu(x))\n"
        "assert 'triton' in sys.modules\n"
    )
    result = python(code, SAT_KERNELS_BACKEND="triton", TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stderr


def test_without_the_interpreter_cpu_tensors_have_no_triton_kernels():
    code = (
        "import sys, torch, sat_kernels as sk; sk.functional.silu(torch.randn(5))\n"
        "assert sk._extension.KERNELS == {'cuda': 'triton'} and 'triton' not in sys.modules\n"
    )
    result = python(code, SAT_KERNELS_BACKEND="triton", TRITON_INTERPRET="0")
    assert result.returncode == 0, result.stderr


def test_triton_demanded_but_not_installed():
    result = python(f"MISSING = 'triton'\n{WITHOUT}", SAT_KERNELS_BACKEND="triton")
    assert "RuntimeError: SAT_KERNELS_BACKEND=triton: triton is not installed" in result.stderr


@pytest.mark.parametrize(
    ("cuda", "installed", "expected"),
    [("13.0", True, {"cuda": "triton"}), ("13.0", False, {}), (None, True, {})],
    ids=["CUDA and Triton", "no Triton", "no CUDA"],
)
def test_choice_without_the_extension(monkeypatch, cuda, installed, expected):
    from sat_kernels import _extension

    monkeypatch.setattr(_extension, "backend", "auto")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(_extension, "_has_triton", lambda: installed)
    assert _extension.backends(None) == expected
    monkeypatch.setattr(_extension.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="plain PyTorch") as caught:
        assert _extension._load() is None
    assert ("Triton" in str(caught[0].message)) == bool(expected)
    monkeypatch.setattr(_extension, "backend", "cpu")
    with pytest.raises(RuntimeError, match=r"SAT_KERNELS_BACKEND=cpu: .* without its compiled extension; use auto"):
        _extension._load()


def test_choice_with_the_extension(monkeypatch):
    from sat_kernels import _extension

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(_extension, "_has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    class Built:
        def __init__(self, cuda):
            self.cuda = cuda

        def build_info(self):
            return {"cuda": self.cuda}

    for choice, cuda, expected in (
        ("auto", "13.0", {"cpu": "cpu", "cuda": "cuda"}),
        ("auto", None, {"cpu": "cpu", "cuda": "triton"}),
        ("cpu", "13.0", {"cpu": "cpu"}),
        ("cuda", "13.0", {"cuda": "cuda"}),
        ("triton", "13.0", {"cuda": "triton"}),
        ("reference", "13.0", {}),
    ):
        monkeypatch.setattr(_extension, "backend", choice)
        assert _extension.backends(Built(cuda)) == expected


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_every_activation_has_its_formulas():
    from sat_kernels.triton_kernels.formulas import formula

    for row in ACTIVATIONS.values():
        for part in ("value", "derivative", "second", *["parameters"] * row.learnable):
            assert formula(row.name, part).__name__ == f"{row.name}_{part}"
