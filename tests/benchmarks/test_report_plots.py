"""The plots show what rows.csv has; where rows are missing there is no plot, and the summary says why."""

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import synthetic_rows
from report import write_report
from report.plots import PLOTS, draw_all
from report.plots.bandwidth import bandwidth
from report.plots.bars import attack_memory, attack_throughput
from report.plots.costs import activation_costs
from report.plots.roofline import roofline
from report.rows import Results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path):
    return Results(synthetic_rows.write(tmp_path))


def points(axes) -> dict[str, np.ndarray]:
    """Lines and markers that are drawn, by label: (n, 2)."""
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    lines = {label: getattr(handle, "lines", [handle])[0] for label, handle in found.items()}
    return {label: line.get_xydata() for label, line in lines.items() if hasattr(line, "get_xydata")}


def test_bandwidth(results):
    made = bandwidth(results)
    panel = next(axes for axes in made.axes if axes.get_title() == "SiLU, forward, bf16")
    rows = [r for r in results.rows if (r.suite, r.case, r.kind, r.dtype) == ("activations", "silu", "forward", "bf16")]
    for cache, words in (("warm", "in cache"), ("cold", "from memory")):
        for side, name in (("sat_kernels", "sat_kernels (ours)"), ("aten", "PyTorch (ATen)")):
            wanted = sorted((r.tensor_bytes, r.gb_per_s) for r in rows if (r.side, r.cache) == (side, cache))
            np.testing.assert_allclose(points(panel)[f"{name}, {words}"], wanted)
    assert points(panel)["copy, from memory, 2 threads"][-1, 1] == pytest.approx(11, rel=0.01)
    assert panel.get_xscale() == panel.get_yscale() == "log"


def test_roofline(results):
    fp32, _ = made = roofline(results).axes
    found = points(fp32)
    rows = [r for r in results.rows if r.case.startswith("convolution") and r.dtype == "fp32"]
    np.testing.assert_allclose(found["3x3 convolutions, PyTorch"], [(r.flops / r.bytes, r.gflop_per_s) for r in rows])
    assert found["activations, in cache"].shape[0] == sum(
        r.suite == "activations" and r.cache == "warm" and r.dtype == "fp32" for r in results.rows if r.ours and r.flops
    )
    roof = found["limit, data from memory"]
    assert roof[0, 1] / roof[0, 0] == pytest.approx(11, rel=0.01)
    assert roof[1, 1] == roof[2, 1] == pytest.approx(120)
    assert "GFLOP/s: matrix product 55, 3x3 convolution 44;" in made[1].get_title()


def test_no_point_is_above_the_roof(tmp_path):
    """Where convolutions are faster than matrix products."""
    rows = [r | {"gflop_per_s": 150.0} if r["case"].startswith("conv") else r for r in synthetic_rows.rows()]
    fp32, _ = roofline(Results(synthetic_rows.write(tmp_path, rows))).axes
    assert points(fp32)["limit, data in cache"][-1, 1] == pytest.approx(150)


def bars_of(axes) -> dict[str, list[float]]:
    """Lengths from top to bottom, by the label of the tick."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    found = {name: [] for name in names}
    for bar in sorted(axes.patches, key=lambda bar: bar.get_y()):
        found[names[round(bar.get_y() + bar.get_height() / 2)]].append(bar.get_width())
    return found


def test_attack_throughput_and_memory(results):
    rows = {(r.side, r.dtype): r for r in results.rows if r.case == "PGD-10, ResNet-18"}
    speed, memory = attack_throughput(results).axes[0], attack_memory(results).axes[0]
    for side, name in (("torchattacks", "torchattacks 3.5.1"), ("sat_kernels", "sat_kernels (ours)")):
        both = [rows[side, precision] for precision in ("fp32", "bf16")]
        assert bars_of(speed)[name] == pytest.approx([32e6 / row.median_us for row in both])
        assert bars_of(memory)[name] == pytest.approx([row.peak_mb / 32 for row in both])
    assert len(bars_of(speed)["foolbox 3.3.4"]) == 1
    assert any("bf16: not measured" in text.get_text() for text in speed.texts)
    # Colour is not the only cue: ours is in bold, and bf16 is hatched.
    assert speed.get_yticklabels()[0].get_fontweight() == "bold"
    assert {bar.get_hatch() for bar in speed.patches} == {"", "////"}


def test_costs(results):
    made = activation_costs(results)
    time, memory = made.axes[2], made.axes[3]  # the second line: PGD-10
    assert time.get_ylabel().startswith("PGD-10")
    names = [label.get_text() for label in made.axes[-1].get_xticklabels()]  # shared
    assert names == ["ReLU", "silu", "gelu", "softplus", "mish"]
    np.testing.assert_allclose(points(time)["PyTorch eager"][:, 1], [1, 1.03, 1.05, 1.12, 1.35], rtol=1e-6)
    np.testing.assert_allclose(points(memory)["our activation and attack"][:, 1], [0.97, 0.9, 0.9, 0.9, 0.9], rtol=1e-6)


def test_pictures_and_page(tmp_path):
    page = write_report(synthetic_rows.write(tmp_path)).read_text()
    for name in PLOTS:
        assert f"]({name})" in page
        picture = matplotlib.image.imread(tmp_path / name)
        assert picture.shape[1] == 1800  # twice a README's 900
        assert picture[..., :3].std() > 0.05


SOURCES = {
    "bandwidth.png": "activations",
    "attacks.png": "attacks",
    "memory.png": "attacks",
    "activations.png": "training",
}


@pytest.mark.parametrize("name", [*SOURCES, "roofline.png"])
def test_no_rows_no_plot(name, tmp_path):
    (synthetic_rows.write(tmp_path) / name).write_bytes(b"of an earlier call")
    rows = [row for row in synthetic_rows.rows() if row["suite"] != SOURCES.get(name, "limits")]
    page = write_report(synthetic_rows.write(tmp_path, rows)).read_text()
    assert not (tmp_path / name).exists()
    assert f"]({name})" not in page
    assert f"No plot of {PLOTS[name][0]}: " in page


def test_nothing_at_all(tmp_path):
    told = draw_all(Results(synthetic_rows.write(tmp_path, [])))
    assert all(why for _, why in told.values())


def test_command_line(tmp_path):
    rows = [row for row in synthetic_rows.rows() if row["suite"] == "limits"]

    def run(*how):
        command = [sys.executable, *map(str, how)]
        return subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, timeout=120)

    done = run("-m", "report", synthetic_rows.write(tmp_path, rows))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "summary.md").exists()
    wrong = run(ROOT / "benchmarks" / "report", tmp_path / "no")
    assert wrong.returncode == 2
    assert "rows.csv" in wrong.stderr
    assert "Traceback" not in wrong.stderr
