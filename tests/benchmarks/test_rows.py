"""rows.csv: columns, resuming, refusing to mix, shares of the machine's limits."""

import csv

import pytest
from bench.rows import COLUMNS, KEY, OtherRowsError, Rows, key_of

WHO = {"machine": "m-2cores", "torch": "2.13.0", "python": "3.11.7", "commit": "abc"}
WANTED = (
    "machine,torch,python,commit,time,suite,case,pass,dtype,shape,layout,threads,cache,side,ours,rounds,median_us,low_us,"
    "high_us,min_us,noisy,bytes,gb_per_s,percent_of_copy,flops,gflop_per_s,ours_over_side,kernels,passes,syncs,peak_mb,"
    "loss,robust_percent,side_version"
)


def row(side="sat_kernels", **more):
    key = {"suite": "steps", "case": "c", "pass": "step", "dtype": "float32", "shape": "4x256", "layout": "contiguous"}
    return {**key, "threads": 1, "cache": "warm", "side": side, "ours": 1, "median_us": 1.5, **more}


def copy(size, rate, **more):
    limits = {"suite": "limits", "case": "copy", "pass": "copy", "shape": str(size // 4), "bytes": 2 * size}
    return row("torch", **{**limits, "gb_per_s": rate, "ours": 0, **more})


@pytest.fixture
def make(tmp_path):
    return lambda who=WHO, **more: Rows(tmp_path / "out" / "rows.csv", who, **more)


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


@pytest.mark.parametrize("name", WHO)
def test_rows_of_another_state_are_refused(make, name):
    make().add([row()])
    other = {**WHO, name: "other"}
    with pytest.raises(OtherRowsError, match=rf"has rows of {name} {WHO[name]}, and this is {name} other.*--fresh"):
        make(other)
    assert len(make().rows) == 1  # nothing is lost
    assert make(other, fresh=True).rows == []


def test_a_row_that_was_cut_off_is_forgotten(make):
    rows = make()
    rows.add([row(), row("theirs")])
    text = rows.path.read_text()
    rows.path.write_text(text[:-40])
    assert [r["side"] for r in make().rows] == ["sat_kernels"]
    assert rows.path.read_text() == "".join(text.splitlines(keepends=True)[:2])


def test_shares_are_of_the_copy_of_that_size(make):
    rows = make()
    for size, rate in ((1 << 10, 10.0), (1 << 12, 20.0), (1 << 20, 40.0)):
        rows.add([copy(size, rate)])
    rows.add([copy(1 << 12, 5.0, cache="cold")])
    rows.add([copy(1 << 12, 30.0, threads=2)])
    shares = {}
    for number, (cache, threads, shape) in enumerate(
        [
            ("warm", 1, "4x256"),
            ("cold", 1, "4x256"),
            ("warm", 2, "4x256"),
            ("warm", 1, "300"),
            ("cold", 2, "4"),
            ("warm", 1, "9999999999"),
        ]
    ):
        (made,) = rows.add([row(case=str(number), cache=cache, threads=threads, shape=shape, gb_per_s=10.0)])
        shares[cache, threads, shape] = made["percent_of_copy"]
    assert list(shares.values()) == ["50", "200", "33.3333", "100", "", ""]


def test_shares_are_of_the_same_type_where_there_is_one(make):
    rows = make()
    rows.add([copy(1 << 12, 10.0)])
    rows.add([copy(1 << 12, 20.0, dtype="bfloat16")])
    made = [rows.add([row(dtype=dtype, shape=shape, gb_per_s=10.0)])[0] for dtype, shape in
            (("float32", "1024"), ("bfloat16", "2048"), ("float32, gradient bfloat16", "1024"))]  # fmt: skip
    assert [r["percent_of_copy"] for r in made] == ["100", "50", "100"]


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
