"""docs/numerics.md and the script that measures its tables; examples in other pages. Needs the source tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sat_kernels._extension import extension
from sat_kernels.activations import ACTIVATIONS

ROOT = Path(__file__).parents[1]
SCRIPT, PAGE = ROOT / "benchmarks" / "numerics.py", ROOT / "docs" / "numerics.md"
pytestmark = pytest.mark.skipif(not (SCRIPT.exists() and PAGE.exists()), reason="no source tree")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_documented(name):
    text = PAGE.read_text()
    section = text[text.index(f"\n## `{name}`") :].split("\n## `")[1]
    table = section.split(f"<!-- measured: {name} -->\n")[1].split("<!-- end -->")[0]
    for row in ("|float32|", "|float64|", "|bfloat16|", "|float16|", "|f, f', f''|x = 0|inf|-inf|nan|", "|ours|"):
        assert row in table
    for parameter in ACTIVATIONS[name].parameters:
        assert parameter.name in section.split("<!--")[0]


def test_the_readme_names_every_module():
    text = (ROOT / "README.md").read_text()
    assert [row.module for row in ACTIVATIONS.values() if f"`{row.module}" not in text] == []


@pytest.mark.skipif(extension is None, reason="the extension is not built")
def test_the_tables_can_be_measured():
    command = [sys.executable, str(SCRIPT), "silu", "squareplus", "--points", "20"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    page = PAGE.read_text()
    for name in ("silu", "squareplus"):
        lines = result.stdout.split(f"### {name}\n")[1].split("###")[0].strip().splitlines()
        documented = page.split(f"<!-- measured: {name} -->\n")[1].split("<!-- end -->")[0].strip().splitlines()
        assert [line.split("|")[:2] for line in lines] == [line.split("|")[:2] for line in documented]
        for line in lines:
            if line.startswith(("|float", "|bfloat")):
                ours = [float(cell) for cell in line.strip("|").split("|")[1::2]]
                assert ours[0] < (8 if line.startswith("|float32|") or line.startswith("|float64|") else 1)
                assert max(ours[1:]) < (1e-6 if "float32" in line else 1e-2)


@pytest.mark.parametrize("page", ["perturbation", "attacks"])
def test_the_examples(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    names = {}
    exec("\n".join(blocks), names)
    x_adv, x = names["x_adv"], names["x"]
    assert 0 < (x_adv - x).abs().max() < 8 / 255 + 1e-6
