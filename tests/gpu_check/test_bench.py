"""The GPU benchmarks without a GPU: every suite runs, and what is computed from times and bytes is right."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch
from cases.setting import Setting
from gpu import bench, build, machine, suites
from gpu.rows import Rows
from measuring.case import Case
from measuring.clock import EventClock, HostClock
from measuring.machine import ROOT
from measuring.measure import key_of

from sat_kernels._extension import extension
from sat_kernels.activations import ACTIVATIONS

pytestmark = pytest.mark.skipif(extension is None, reason="the extension is not built")
BENCHMARKS = ROOT / "benchmarks"
SUITES = {
    "bandwidth": ("--dtypes", "bfloat16"),
    "step": (),
    "sizes": ("--dtypes", "float32", "--only", "elu"),
    "compiled": ("--dtypes", "float32", "--only", "smooth_relu"),
    "passes": ("--dtypes", "float32", "--only", "smooth_relu"),
    "overhead": (),
    "backends": ("--dtypes", "float32", "--only", "silu"),
    "attacks": (),
    "fused": ("--dtypes", "float32"),
}


def run(suite, output, *arguments):
    command = [
        sys.executable,
        "-m",
        "gpu.bench",
        suite,
        "--device",
        "cpu",
        "--smoke",
        "--output",
        str(output),
        *arguments,
    ]
    path = os.pathsep.join([str(BENCHMARKS.parent), str(BENCHMARKS)])
    result = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=280
    )
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    return result, rows


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite(suite, tmp_path):
    assert set(SUITES) == {*bench.SUITES, "backends"}
    result, rows = run(suite, tmp_path / "rows.jsonl", *SUITES[suite])
    assert result.returncode == 0, result.stdout + result.stderr
    assert not [row for row in rows if "error" in row]
    names = {row["case"] for row in rows}
    if suite == "bandwidth":
        assert names == {*ACTIVATIONS, "pgd_step_ Linf"}
        assert {row["case"] for row in rows if row["side"] == "aten"} == {
            *("silu", "gelu", "gelu_tanh", "softplus", "elu", "celu", "mish")
        }
    if suite == "passes":
        assert {row["pass"] for row in rows} >= {"double_backward", "parameter_backward", "forward", "backward"}
        assert {row["side"] for row in rows} == {"cpu", "composition", "copy"}
    if suite == "step":
        assert {row["side"] for row in rows} == {
            *("cpu", "addcmul (the limit)", "eager", "torchattacks' sequence", "torch.compile", "copy")
        }
    if suite == "attacks":
        steps = {"pgd_step_ L2", "pgd_step_ L1", "momentum_step_", "random_start Linf"}
        assert names == {*steps, "attack_loss ce", "attack_loss dlr"}
        assert {row["side"] for row in rows} == {
            *("cpu", "eager", "eager, topk", "copy", "torch's generator", "sat_kernels, autograd")
        }
    if suite == "backends":
        assert {row["side"] for row in rows} == {"cpu", "reference", "copy"}
    for row in rows:
        assert 0 < row["low_us"] <= row["median_us"] <= row["high_us"]
    if suite == "sizes":  # called again, it makes no comparison twice
        again, rows_again = run(suite, tmp_path / "rows.jsonl", *SUITES[suite])
        assert (again.returncode, again.stdout, rows_again) == (0, "", rows)


def test_sizes_are_of_tensors():
    """At 256 MiB each, in every number type."""
    setting, options = Setting(level="full"), bench.parse(["bandwidth", "--output", "x", "--mib", "256"])
    for case in suites.SUITES["bandwidth"](setting, options):
        assert case.size == 256 << 20
        named = bench.named(case, "cuda")
        assert named.cold
        assert next(iter(named.sides)) == "cuda"
        assert named.sides["copy"].moved == 512 << 20


def test_every_kernel_of_the_table_is_asked_for():
    options = bench.parse(["compiled", "--output", "x"])
    cases = list(suites.SUITES["compiled"](Setting(level="full"), options))
    assert {case.name for case in cases} == set(ACTIVATIONS)
    assert all("torch.compile" in case.sides for case in cases)
    assert len(cases) == len(ACTIVATIONS) * 3 * 2 * 3


def test_comparisons_that_failed_are_made_again(tmp_path):
    case, done = (Case("s", name, "forward", "float32", (4,), lambda i: (), {}) for name in ("silu", "gelu"))
    rows = Rows(tmp_path / "rows.jsonl")
    rows.add([{**key_of(case), "side": "cuda", "median_us": 1.0}, rows.failure(case, "aten", "none left")])
    rows.add([{**key_of(done), "side": "cuda", "median_us": 1.0}])
    again = Rows(tmp_path / "rows.jsonl")
    assert (again.has(case), again.has(done)) == (False, True)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1


def test_the_hosts_clock():
    clock = HostClock(least=0.02)
    prepared = clock.prepare([lambda: time.sleep(0.002)] * 2)
    assert prepared.repeats >= 1
    assert 0.002 <= clock.sample(prepared) < 0.05


class Pretended:
    """Stands in for torch.cuda's events, streams and graphs: every run takes 8 ms."""

    def __init__(self, **_):
        self.replayed = 0

    def record(self):
        pass

    synchronize = record

    def wait_stream(self, other):
        assert isinstance(other, Pretended)

    def elapsed_time(self, end):
        return 8.0

    def replay(self):
        self.replayed += 1


def test_the_devices_clock(monkeypatch):
    """Calls are made three times, to warm up and to be captured, and not again when time is taken."""
    for name in ("Event", "Stream", "CUDAGraph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Pretended)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    made = []
    clock = EventClock(least=0.05)
    prepared = clock.prepare([lambda: made.append(1), lambda: made.append(2)])
    assert (prepared.timed, prepared.repeats, prepared.calls) == ("graph", 6, 2)  # 6 runs of 8 ms
    assert made == [1, 2] * 3
    assert clock.sample(prepared) == pytest.approx(8e-3 / 12)
    assert made == [1, 2] * 3
    launched = clock.prepare([lambda: made.append(3)], graph=False)
    assert launched.timed == "launches"
    made.clear()
    clock.sample(launched)
    assert made == [3] * launched.repeats


def test_the_build_is_for_the_device_that_is_here(monkeypatch):
    run = {}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(machine, "nvcc", lambda: "13.0")
    monkeypatch.setattr(machine, "cuda_home", lambda: "/toolkit")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(
        subprocess, "run", lambda command, env: run.update(env, command=command) or subprocess.CompletedProcess([], 0)
    )
    assert build.main() == 0
    wanted = {"SAT_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0", "CUDA_HOME": "/toolkit"}
    assert {key: run[key] for key in wanted} == wanted
    assert run["command"][1:] == ["setup.py", "build_ext", "--inplace"]
    monkeypatch.setattr(machine, "nvcc", lambda: "")
    assert build.main() == 0
    assert run["SAT_KERNELS_CUDA"] == "0"
