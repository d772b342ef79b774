"""Building and installing, as users do it. Needs the source tree."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="no source tree")

# Runs setup.py as if torch were missing, or of another version.
PRETEND = """
import importlib.util, runpy, sys, types
version = sys.argv[1]
find = importlib.util.find_spec
if version:
    sys.modules["torch"] = types.SimpleNamespace(__version__=version)
    importlib.util.find_spec = lambda name, *rest: sys if name == "torch" else find(name, *rest)
else:
    sys.modules["torch"] = None
    importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
sys.argv = ["setup.py", *sys.argv[2:]]
runpy.run_path("setup.py", run_name="__main__")
"""


def run(*command, cwd=ROOT, timeout=280, **environment):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def run_installed(site, code):
    """Runs ``code`` with the package in ``site``. -S keeps an editable installation of it from joining in."""
    paths = os.pathsep.join([str(site), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]])
    return run(sys.executable, "-S", "-c", code, cwd=site, PYTHONPATH=paths)


def assert_one_sentence(result, *fragments):
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("sat_kernels: ")
    assert "Traceback" not in result.stderr
    for fragment in fragments:
        assert fragment in last


def test_missing_torch(tmp_path):
    result = run(sys.executable, "-c", PRETEND, "", "build_ext", "--build-temp", str(tmp_path))
    assert_one_sentence(result, "--no-build-isolation", "SAT_KERNELS_EXTENSION=0")


def test_old_torch(tmp_path):
    result = run(sys.executable, "-c", PRETEND, "2.6.0+cpu", "build_ext", "--build-temp", str(tmp_path))
    assert_one_sentence(result, "torch 2.6.0+cpu is too old", "torch >= 2.11")


def test_missing_compiler(tmp_path):
    result = run(sys.executable, "setup.py", "build_ext", "--build-temp", str(tmp_path), CXX="no-c++", PATH="/nowhere")
    assert_one_sentence(result, "no C++ compiler (no-c++)", "apt install g++", "SAT_KERNELS_EXTENSION=0")


@pytest.mark.parametrize("name", ["SAT_KERNELS_EXTENSION", "SAT_KERNELS_CUDA"])
def test_bad_flag(name):
    assert_one_sentence(run(sys.executable, "setup.py", "--version", **{name: "yes"}), f"{name}='yes'", "0 or 1")


def test_cuda_demanded_without_a_toolkit():
    code = (
        "import pathlib, runpy, sys; exists = pathlib.Path.exists\n"
        "pathlib.Path.exists = lambda self: self.name != 'nvcc' and exists(self)\n"
        "sys.argv = ['setup.py', '--version']; runpy.run_path('setup.py', run_name='__main__')"
    )
    result = run(sys.executable, "-c", code, SAT_KERNELS_CUDA="1")
    assert_one_sentence(result, "SAT_KERNELS_CUDA=1, but no CUDA toolkit was found", "set CUDA_HOME")


@pytest.mark.parametrize(
    ("told", "fragment"),
    [("release 11.4, V11.4", "is 11.4: expected 12.8 or newer"), ("", "does not tell its version")],
)
def test_cuda_demanded_with_an_unsuitable_toolkit(tmp_path, told, fragment):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho '{told}'\n")
    nvcc.chmod(0o755)
    result = run(sys.executable, "setup.py", "--version", SAT_KERNELS_CUDA="1", CUDA_HOME=str(tmp_path))
    assert_one_sentence(result, "SAT_KERNELS_CUDA=1", fragment)


def test_missing_pybind11():
    code = (
        "import runpy, sys; sys.modules['pybind11'] = None\n"
        "sys.argv = ['setup.py', '--version']; runpy.run_path('setup.py', run_name='__main__')"
    )
    assert_one_sentence(
        run(sys.executable, "-c", code), "pybind11 is not installed", "pip install --no-build-isolation"
    )


def test_package_without_extension(tmp_path):
    """Installs, warns once, and works through plain PyTorch."""
    # From a copy: setuptools' build folder would still hold an extension from before.
    sources = tmp_path / "source"
    result = run("git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard")
    names = result.stdout.split() if result.returncode == 0 else [p for p in ROOT.rglob("*") if p.is_file()]
    for name in names:
        target = sources / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    site = tmp_path / "site"
    command = (sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--quiet")
    result = run(*command, "--target", str(site), str(sources), SAT_KERNELS_EXTENSION="0")
    assert result.returncode == 0, result.stderr
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import torch, sat_kernels as sk\n"
        "assert sk.__file__.startswith(PREFIX), sk.__file__\n"
        "ours = [w for w in caught if 'sat_kernels' in str(w.message)]\n"
        "assert len(ours) == 1 and 'plain PyTorch' in str(ours[0].message), caught\n"
        "assert sk.build_info()['backends'] == ['reference']\n"
        "model = sk.nn.Sequential(sk.nn.Flatten(), sk.nn.Linear(12, 8), sk.nn.SmoothReLU(), sk.nn.Linear(8, 3))\n"
        "x = torch.rand(5, 3, 2, 2)\n"
        "x_adv = sk.attacks.PGD(model, steps=3)(x, torch.tensor([0, 1, 2, 0, 1]))\n"
        "assert sk.testing.check_feasible(x_adv, x, 8 / 255).violations == 0\n"
    )
    result = run_installed(site, f"PREFIX = {str(site)!r}\n{code}")
    assert result.returncode == 0, result.stderr


@pytest.mark.timeout(1000)  # a build, on a machine that may be busy
@pytest.mark.slow
def test_sdist_builds_a_wheel_that_works(tmp_path):
    result = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), timeout=900, SAT_KERNELS_CUDA="0"
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (sdist,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for part in (
        "LICENSE",
        "csrc/ops.cpp",
        "csrc/cuda/launch.cuh",
        "tests/emulation/emulator.h",
        "tests/machine_code/vector_path.cu",
        "csrc/formulas/activations.h",
        "tests/gpu/test_short.py",
    ):
        assert part in names
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        assert not [name for name in archive.namelist() if name.split("/")[0] in ("tests", "benchmarks", "csrc")]
    code = (
        "import torch, sat_kernels as sk\n"
        f"assert sk.__file__.startswith({str(site)!r}), sk.__file__\n"
        "assert 'cpu' in sk.build_info()['backends']\n"
        "x = torch.randn(1000, dtype=torch.float64)\n"
        "torch.testing.assert_close(sk.functional.silu(x), torch.nn.functional.silu(x))\n"
    )
    result = run_installed(site, code)
    assert result.returncode == 0, result.stderr
