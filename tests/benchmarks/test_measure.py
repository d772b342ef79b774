"""What is computed from times, bytes and counts, with clocks that make up times."""

import pytest
import torch
import torch.nn.functional as F
from measuring import counting, machine, measure, memory
from measuring.case import Case, Side
from measuring.clock import HostClock
from measuring.measure import Rounds

from sat_kernels import attacks, nn

CPU = torch.device("cpu")


def test_sides_take_turns_over_buffers_larger_than_the_cache(clock, make_case):
    seen = []
    rows = measure.measure(make_case(seen), clock, CPU, Rounds(3, 3), cache=5000)
    assert seen == list(range(8))  # 8 times 2000 bytes: three times the cache
    names = ["sat_kernels", "theirs", "copy"]
    assert clock.calls == {name: list(range(8)) for name in names}
    assert clock.order == names + names[::-1] + names
    ours, theirs, copied = rows
    assert [row["side"] for row in rows] == names
    assert [row["ours"] for row in rows] == [1, 0, 0]
    assert ours["median_us"] == pytest.approx(4.0)
    assert [ours[k] for k in ("low_us", "high_us", "min_us")] == pytest.approx([2.8, 5.2, 2.0])
    assert ours["rounds"] == 3
    assert ours["noisy"] == 1
    assert ours["gb_per_s"] == pytest.approx(2000 / 4e-6 * 1e-9)
    assert copied["gb_per_s"] == pytest.approx(1000 / 2e-6 * 1e-9)
    assert ours["percent_of_copy"] == pytest.approx(100.0)
    assert theirs["ours_over_side"] == pytest.approx(0.5)
    assert "ours_over_side" not in copied
    assert "percent_of_copy" not in copied


def test_warm_cases_have_one_set_of_buffers(clock, make_case):
    seen = []
    (row, *_) = measure.measure(make_case(seen, cold=False), clock, CPU, Rounds(1, 1), cache=5000)
    assert seen == [0]
    assert row["cache"] == "warm"


@pytest.mark.parametrize(("spread", "noisy"), [(0.19, 0), (0.21, 1)])
def test_noisy(make_case, spread, noisy):
    seconds = [1.0 - spread / 2] * 3 + [1.0] * 4 + [1.0 + spread / 2] * 3
    assert measure.figures(make_case(), "theirs", "host", seconds)["noisy"] == noisy


def test_rounds_end_when_time_is_up_but_not_before_the_fewest(clock, make_case, monkeypatch):
    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(measure.time, "monotonic", lambda: next(times))
    rows = measure.measure(make_case(), clock, CPU, Rounds(100, 3, seconds=5.0), cache=0)
    assert {row["rounds"] for row in rows} == {3}
    clock.order.clear()
    rows = measure.measure(make_case(), clock, CPU, Rounds(100, 1, seconds=45.0), cache=0)
    assert {row["rounds"] for row in rows} == {5}


def test_one_sides_failure_is_not_the_others(clock, make_case):
    def broken(*_):
        raise ValueError("no such kernel")

    case = make_case()
    case = case.having(sides={**case.sides, "theirs": Side(broken)})
    rows = measure.measure(case, clock, CPU, Rounds(2, 2), cache=0)
    assert [row["side"] for row in rows] == ["sat_kernels", "theirs", "copy"]
    assert rows[1]["error"] == "ValueError: no such kernel"
    assert "median_us" in rows[0]
    assert "median_us" not in rows[1]


def test_the_garbage_collector_waits(clock, make_case, monkeypatch):
    import gc

    on = []
    sample = clock.sample
    clock.sample = lambda prepared: (on.append(gc.isenabled()), sample(prepared))[1]
    measure.measure(make_case(), clock, CPU, Rounds(1, 1), cache=0)
    assert not any(on)
    assert gc.isenabled()


def test_the_hosts_clock_makes_no_second_call_of_what_takes_long(monkeypatch):
    import time

    made = []
    clock = HostClock(least=0.02)
    monkeypatch.setattr("measuring.clock.LONG", 0.01)
    prepared = clock.prepare([lambda: (made.append(1), time.sleep(0.02))])
    assert (prepared.repeats, len(made)) == (1, 1)


def test_counts():
    x, w = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3)

    def call():
        y = F.conv2d(x, w)  # no bytes
        y.add_(1)  # read, written
        z = y.view(-1)[:10].detach()  # nothing at all
        return z.sum().item()  # 40 bytes and 4; then one for the host

    counts, result = counting.count(call)
    assert isinstance(result, float)
    assert counts.syncs == 1
    assert counts.kernels == 4  # convolution, add_, sum, item
    assert counts.bytes == 2 * 2 * 4 * 36 * 4 + 40 + 4 + 4


def test_our_own_operators_are_counted_as_they_run():
    """Under a mode our functions would leave plain formulas."""
    net = torch.nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    attack, x, y = attacks.PGD(net, steps=3), torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    expected = attack(x, y, sample_ids=torch.arange(2))
    seen = []

    class Names(counting.Counter):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function._schema.name)
            return super().__torch_dispatch__(function, types, args, kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "Counter", Names)
        counts, result = counting.count(lambda: attack(x, y, sample_ids=torch.arange(2)))
    assert torch.equal(result, expected)
    assert seen.count("sat_kernels::pgd_step_linf_") == 3
    assert seen.count("sat_kernels::affine_act_") == 3
    assert "aten::silu" not in seen
    assert 3 * 5 < counts.kernels < len(seen)


def test_peak_memory():
    x = torch.rand(1000)

    def call():
        y = x + 1
        z = y + 1
        del y
        return z + 1  # beside z

    result, held, peak = memory.allocations(call, CPU)
    assert torch.equal(result, x + 1 + 1 + 1)
    assert (held, peak) == (pytest.approx(4000, abs=200), pytest.approx(8000, abs=200))


def test_what_the_first_call_keeps_counts_as_memory():
    kept = []

    def make(x):
        def call():
            if not kept:
                kept.append(torch.ones(10_000))
            return x + 1

        return call

    case = Case(
        "attacks", "n", "attack", "float32", (10_000,), lambda i: (torch.ones(10_000),), {"a": Side(make)}, whole=True
    )
    (row,) = measure.measure(case, HostClock(), CPU, Rounds(2, 2), cache=0)
    assert row["peak_mb"] == pytest.approx(0.08, abs=0.001)


def test_what_a_whole_attack_does_is_observed():
    def judge(call, x):
        x.fill_(2.0)  # another batch
        return {"loss": float(call().sum()), "robust_percent": 10.0}

    def make(x):
        return lambda: x * 2 + 1

    sides = {"a": Side(make), "b": Side(make, visible=False)}
    case = Case(
        "attacks", "n", "attack", "float32", (1000,), lambda i: (torch.ones(1000),), sides, whole=True, judge=judge
    )
    seen, hidden = measure.measure(case, HostClock(), CPU, Rounds(2, 2), cache=0)
    assert (seen["kernels"], seen["passes"], seen["syncs"], seen["loss"], seen["robust_percent"]) == (
        2,
        4.0,
        0,
        5000.0,
        10.0,
    )
    assert seen["peak_mb"] == 0.008
    assert "kernels" not in hidden
    assert "passes" not in hidden
    assert hidden["robust_percent"] == 10.0


def test_extras_are_columns_and_no_rows(make_case):
    """A copy that is as cold as the case, of its own tensors, and the canary; counts are not of them."""
    sides = {"sat_kernels": Side(lambda x: lambda: x + 1)}
    made = make_case(sides=sides).having(buffers=lambda i: (torch.ones(250),))
    for case, limit in ((made, "copy"), (made.having(in_place=True), "product in place")):
        beside = measure.with_canary(measure.with_copy(case))
        assert beside.sides["copy"].own == 1000
        rows = measure.measure(beside, HostClock(least=0.0), CPU, Rounds(2, 2), cache=2000)
        copied = next(row for row in rows if row["side"] == "copy")
        (row,) = measure.without_extras(case, rows)
        assert row["side"] == "sat_kernels"
        assert row["canary_us"] > 0
        assert row["limit"] == limit
        assert row["percent_of_copy"] == pytest.approx(100 * row["gb_per_s"] / copied["gb_per_s"])
    whole = measure.with_canary(made.having(whole=True, moved=0, cold=False))
    (row,) = measure.without_extras(made, measure.measure(whole, HostClock(least=0.0), CPU, Rounds(2, 2), cache=0))
    assert row["canary_us"] > 0
    assert (row["kernels"], "limit" in row) == (1, False)


def test_versions_of_what_is_importable_by_path_only(monkeypatch):
    monkeypatch.syspath_prepend(str(machine.ROOT / "benchmarks"))
    assert machine.version("torch") == torch.__version__
    assert machine.version("measuring") == "unknown"
    assert machine.version("no_such_package") == ""


def test_caches(tmp_path, monkeypatch):
    for i, (level, kind, size) in enumerate([(1, "Data", "32K"), (1, "Instruction", "64K"), (2, "Unified", "2M")]):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, text in (("level", str(level)), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    monkeypatch.setattr(memory, "CACHES", tmp_path)
    assert memory.caches() == {"L1": 32 << 10, "L2": 2 << 20}
    assert memory.last_cache(CPU) == 2 << 20
    monkeypatch.setattr(memory, "CACHES", tmp_path / "none")
    assert memory.last_cache(CPU) == memory.USUAL_CACHE


@pytest.mark.parametrize(
    ("cpu", "family", "model", "expected"),
    [
        ("AMD EPYC", 25, 17, "epyc-zen4"),
        ("AMD EPYC", 25, 1, "epyc-zen3"),
        ("AMD EPYC 7763 64-Core Processor", 25, 1, "epyc-7763-zen3"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", 6, 143, "intel-xeon-platinum-8481c"),
        ("Neoverse-N1", 0, 0, "neoverse-n1"),
    ],
)
def test_names_of_machines(cpu, family, model, expected, monkeypatch):
    facts = {"cpu": cpu, "cpu_family": family, "cpu_model": model, "cores": 2}
    assert machine.cpu_slug(facts) == expected
    monkeypatch.setattr(machine, "cpu", lambda: facts)
    assert machine.name() == f"{expected}-2cores"
    assert machine.name("NVIDIA H200") == "nvidia-h200-2cores"
