"""rows.csv: columns, resuming, never two states in one file, what a slow machine has measured."""

import csv
import json

import pytest
from bench.folder import locked, opened
from bench.rows import COLUMNS, KEY, BenchError, key_of

WHO = {"machine": "m-2cores", "torch": "2.13.0", "python": "3.11.7", "commit": "abc"}
WANTED = (
    "machine,torch,python,commit,time,suite,case,pass,dtype,shape,layout,threads,cache,side,ours,rounds,median_us,low_us,"
    "high_us,min_us,noisy,bytes,gb_per_s,percent_of_copy,limit,flops,gflop_per_s,ours_over_side,kernels,passes,syncs,peak_mb,"
    "loss,robust_percent,images,canary_us,side_version"
)


def row(side="sat_kernels", **more):
    key = {"suite": "steps", "case": "c", "pass": "step", "dtype": "float32", "shape": "4x256", "layout": "contiguous"}
    return {**key, "threads": 1, "cache": "warm", "side": side, "ours": 1, "median_us": 1.5, **more}


@pytest.fixture
def make(tmp_path):
    """As a call of the command gets them; ``now``: of machine.json."""

    def made(who=WHO, fresh=False, **now):
        folder, now = tmp_path / "out", {"threads": 2, "level": "default", **now}
        with locked(folder):
            rows = opened(folder, who, now, fresh)
        (folder / "machine.json").write_text(json.dumps(now))
        return rows

    return made


def lines(rows):
    with open(rows.path, newline="") as file:
        return list(csv.DictReader(file))


def test_columns(make):
    rows = make()
    assert rows.path.read_text() == WANTED + "\n"
    assert ",".join(COLUMNS) == WANTED
    rows.add([row(timed="host", loss=0.1234567)])
    (written,) = lines(rows)
    assert list(written) == list(COLUMNS)
    assert {name: written[name] for name in WHO} == WHO
    assert (written["median_us"], written["loss"], written["kernels"], written["threads"]) == (
        "1.5",
        "0.123457",
        "",
        "1",
    )


def test_what_is_there_is_not_measured_again(make):
    rows = make()
    rows.add([row(), row("theirs")])
    again, key = make(), key_of(row())
    assert len(again.rows) == 2
    assert again.has(key, {"sat_kernels", "theirs"})
    assert not again.has(key, {"sat_kernels", "theirs", "newly installed"})
    assert not again.has(key_of(row(threads=2)), {"sat_kernels"})
    assert not make(fresh=True).has(key, {"sat_kernels"})


@pytest.mark.parametrize("column", KEY)
def test_a_comparison_is_another_if_one_of_these_is(make, column):
    rows = make()
    rows.add([row()])
    assert not rows.has(key_of(row(**{column: "3" if column == "threads" else "other"})), {"sat_kernels"})


def test_a_comparison_that_is_made_again_replaces_its_rows(make):
    rows = make()
    rows.add([row(median_us=1.0)])
    rows.add([row(case="another")])
    rows.add([row(median_us=2.0), row("theirs", median_us=3.0)])
    assert [(r["case"], r["median_us"]) for r in lines(rows)] == [("another", "1.5"), ("c", "2"), ("c", "3")]


@pytest.mark.parametrize(("name", "other"), [*((name, "other") for name in WHO), ("threads", 1), ("level", "quick")])
def test_rows_of_another_state_are_put_aside(make, name, other, capsys):
    first = make()
    first.add([row()])
    before = first.path.read_text()
    again = make({**WHO, name: other}) if name in WHO else make(**{name: other})
    assert again.rows == []
    told = capsys.readouterr().out
    (aside,) = (again.path.parent / "earlier").iterdir()
    assert (aside / "rows.csv").read_text() == before
    assert json.loads((aside / "machine.json").read_text()) == {"threads": 2, "level": "default"}
    assert aside.name == "abc-torch-2.13.0-2-threads-default-1"
    assert f"{name} {WHO.get(name, {'threads': 2, 'level': 'default'}.get(name))} (now {other})" in told
    assert str(aside) in told
    again.add([row()])
    make().add([row()])
    assert len(list((again.path.parent / "earlier").iterdir())) == 2  # nothing is overwritten


@pytest.mark.parametrize("text", ["nothing\n1\n", b"\xff\xfe\x00", "cut off"])
def test_a_file_of_something_else_is_left_alone(make, text):
    rows = make()
    rows.add([row()])
    content = rows.path.read_bytes().replace(b",1.5,", b",fast,") if text == "cut off" else text
    rows.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = rows.path.read_bytes()
    with pytest.raises(BenchError, match=r"rows\.csv: expected a file that this command has written"):
        make()
    assert rows.path.read_bytes() == before


def test_one_call_at_a_time(tmp_path):
    with locked(tmp_path / "out"):
        with pytest.raises(BenchError, match="another sat-kernels bench writes there"), locked(tmp_path / "out"):
            pass
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "out"):
        pass


def test_a_row_that_was_cut_off_is_forgotten(make):
    rows = make()
    rows.add([row(), row("theirs")])
    text = rows.path.read_text()
    rows.path.write_text(text[:-40])
    assert [r["side"] for r in make().rows] == ["sat_kernels"]
    assert rows.path.read_text() == "".join(text.splitlines(keepends=True)[:2])


def test_comparisons_that_a_slow_machine_measured_are_noisy(make):
    """Of canaries with as many threads."""
    rows = make()
    for case, threads, canary in (("a", 1, 10.0), ("b", 1, 11.0), ("c", 1, 15.0), ("d", 2, 5.0), ("e", 2, 5.1)):
        rows.add(
            [row(case=case, threads=threads, canary_us=canary, noisy=0), row("theirs", case=case, threads=threads)]
        )
    assert rows.slow() == {key_of(row(case="c"))}
    rows.mark_slow()
    assert {r["case"] for r in lines(rows) if r["noisy"] == "1"} == {"c"}


def test_sorted(make):
    rows = make()
    for case, threads in (("second", 2), ("first", 2), ("second", 1), ("unknown", 1)):
        rows.add([row(case=case, threads=threads), row("theirs", case=case, threads=threads)])
    order = {(*key_of(row(case=case))[:6], "warm"): place for place, case in enumerate(("first", "second"))}
    rows.sort(order)
    places = [(r["case"], r["threads"], r["side"]) for r in lines(rows)]
    sides = ("sat_kernels", "theirs")
    expected = [("first", "2"), ("second", "1"), ("second", "2"), ("unknown", "1")]
    assert places == [(*place, side) for place in expected for side in sides]
