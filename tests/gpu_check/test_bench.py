"""The GPU benchmarks without a GPU: every suite runs, and what is computed from times and bytes is right."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch
from gpu import bench, build, machine, measure, sides, step
from gpu.clock import EventClock, HostClock
from gpu.machine import ROOT
from gpu.measure import Case, Side

from sat_kernels._extension import extension
from sat_kernels.activations import ACTIVATIONS

pytestmark = pytest.mark.skipif(extension is None, reason="the extension is not built")
BENCHMARKS = ROOT / "benchmarks"
CPU = torch.device("cpu")
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
    assert set(SUITES) == set(bench.SUITES)
    result, rows = run(suite, tmp_path / "rows.jsonl", *SUITES[suite])
    assert result.returncode == 0, result.stdout + result.stderr
    assert not [row for row in rows if "error" in row]
    names = {row["case"] for row in rows}
    if suite == "bandwidth":
        assert names == {*ACTIVATIONS, "pgd_step_linf"}
        assert {row["case"] for row in rows if row["side"] == "aten"} == {
            *("silu", "gelu", "gelu_tanh", "softplus", "elu", "celu", "mish")
        }
    if suite == "passes":
        assert {row["pass"] for row in rows} >= {"double_backward", "parameter_backward", "forward", "backward"}
        assert {row["side"] for row in rows} == {"cpu", "composition", "copy"}
    if suite == "step":
        assert {row["side"] for row in rows} == {
            *("cpu", "addcmul", "sign, add, clamp", "torchattacks", "inductor", "copy")
        }
    if suite == "attacks":
        steps = {"pgd_step L2", "pgd_step L1", "momentum_step", "random_start Linf"}
        assert names == {*steps, "attack_loss ce", "attack_loss dlr"}
        assert {row["side"] for row in rows} == {"cpu", "eager", "copy"}
    if suite == "backends":
        assert {row["side"] for row in rows} == {"cpu", "reference", "copy"}
    for row in rows:
        assert 0 < row["low_us"] <= row["median_us"] <= row["high_us"]
    if suite == "sizes":  # called again, it makes no comparison twice
        again, rows_again = run(suite, tmp_path / "rows.jsonl", *SUITES[suite])
        assert (again.returncode, again.stdout, rows_again) == (0, "", rows)


@pytest.mark.parametrize(
    ("kind", "dtype", "per_element"),
    [
        ("forward", "float32", 8),
        ("forward", "bfloat16", 4),
        ("backward", "float32", 12),
        ("double_backward", "float16", 10),
        ("parameter_backward", "bfloat16", 6),
    ],
)
def test_bytes_of_activations(kind, dtype, per_element):
    made = sides.activation_cases("s", CPU, "cpu", kinds=[kind], dtypes=[dtype], sizes=[1.0], rivals=())
    for case in made:
        elements = case.buffers(0)[0].numel()
        assert elements * sides.DTYPES[dtype].itemsize == 1 << 20
        assert case.moved == per_element * elements
        assert case.facts["moved_by"]["copy"] == 2 * elements * sides.DTYPES[dtype].itemsize


def test_bytes_of_the_step():
    full, narrow = step.step_cases("s", CPU, "cpu", sizes=[1.0], rivals=False)
    pixels = (1 << 20) // 4
    assert [full.moved, narrow.moved] == [16 * pixels, 14 * pixels]


@pytest.mark.parametrize("kind", ["forward", "backward", "double_backward"])
def test_sides_do_the_same(kind):
    for case in sides.activation_cases(
        "s", CPU, "cpu", kinds=[kind], dtypes=["float32"], sizes=[1 / 256], rivals=("aten", "composition")
    ):
        buffers = case.buffers(0)
        expected = case.sides["cpu"].make(*buffers)()
        for name in case.sides.keys() - {"cpu", "copy"}:
            found = case.sides[name].make(*buffers)()
            found = found[0] if isinstance(found, tuple) else found
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_compiled_sides_do_the_same():
    """Derivatives that the compiler makes, by its front end alone."""
    for name in ("silu", "gelu_tanh", "smooth_relu", "relu_smooth_backward"):
        row, x = ACTIVATIONS[name], [torch.randn(100) for _ in range(3)]
        parameters = sides.parameters_of(row, CPU)
        for kind, count in (("forward", 1), ("backward", 2), ("double_backward", 3)):
            found = sides.inductor(row, kind, parameters, "aot_eager").make(*x[:count])()
            expected = sides.ours(row, kind, parameters).make(*x[:count])()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class Recorder:
    """A clock that notes the order of what it is asked, and makes up times."""

    def __init__(self):
        self.order, self.calls = [], {}

    def prepare(self, calls, graph=True):
        name = calls[0]()[0]
        self.calls[name] = [call()[1] for call in calls]
        return type("Prepared", (), {"name": name, "timed": "made up"})

    def sample(self, prepared):
        self.order.append(prepared.name)
        return {"ours": 2e-6, "copy": 1e-6, "theirs": 4e-6}[prepared.name] * (1 + self.order.count(prepared.name))


def made_up(moved, seen):
    def buffers(i):
        seen.append(i)
        return (i,)

    names = ("ours", "theirs", "copy")
    some = {name: Side(lambda i, name=name: lambda: (name, i)) for name in names}
    return Case("s", "c", "k", "d", 1.0, moved, buffers, some, "ours", facts={"moved_by": {"copy": 1000}})


def test_sides_take_turns_over_buffers_larger_than_the_cache(monkeypatch):
    monkeypatch.setattr(measure, "cache_bytes", lambda device: 5000)
    clock, seen = Recorder(), []
    rows = measure.measure(made_up(2000, seen), clock, CPU, 3)
    assert seen == list(range(8))  # 8 times 2000 bytes: three times the cache
    assert clock.calls == {name: list(range(8)) for name in ("ours", "theirs", "copy")}
    assert clock.order == ["ours", "theirs", "copy"] * 3
    ours, theirs, copied = rows
    assert [row["side"] for row in rows] == ["ours", "theirs", "copy"]
    assert ours["median_us"] == pytest.approx(6.0)
    assert ours["gb_per_s"] == pytest.approx(2000 / 6e-6 * 1e-9)
    assert copied["gb_per_s"] == pytest.approx(1000 / 3e-6 * 1e-9)
    assert ours["percent_of_copy"] == pytest.approx(100.0)
    assert theirs["ours_over_side"] == pytest.approx(0.5)
    assert "ours_over_side" not in copied
    assert "percent_of_copy" not in copied
    assert [ours[k] for k in ("low_us", "high_us")] == pytest.approx([4.8, 7.2])


def test_one_sides_failure_is_not_the_others():
    def broken(*_):
        raise ValueError("no such kernel")

    case = made_up(2000, [])
    case.sides["theirs"] = Side(broken)
    rows = measure.measure(case, Recorder(), CPU, 2)
    assert [row["side"] for row in rows] == ["ours", "theirs", "copy"]
    assert rows[1]["error"] == "ValueError: no such kernel"
    assert "median_us" in rows[0]


def test_comparisons_that_failed_are_made_again(tmp_path):
    case = Case("s", "silu", "forward", "float32", 1.0, 8, lambda i: (), {}, "cuda")
    done = Case("s", "gelu", "forward", "float32", 1.0, 8, lambda i: (), {}, "cuda")
    rows = measure.Rows(tmp_path / "rows.jsonl")
    rows.add([{**case.key, "side": "cuda", "median_us": 1.0}, {**case.key, "side": "aten", "error": "none left"}])
    rows.add([{**done.key, "side": "cuda", "median_us": 1.0}])
    again = measure.Rows(tmp_path / "rows.jsonl")
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
