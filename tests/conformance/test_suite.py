"""Each property catches an attack that lacks it: ours, damaged. And the suite's own machinery."""

import findings
import pytest
from adapters import Adapter, SatKernels, load
from damages import DAMAGES
from properties import PROPERTIES
from suite import evaluate


class Damaged(SatKernels):
    def __init__(self, damage):
        self.damage = damage

    def attack(self, model, x, y, **options):
        return self.damage(super().attack, model, x, y, options)


# Those that measure in the norm; the others would only do the same again.
IN_EVERY_NORM = ("ball", "ball_exact", "zero_gradient", "linear_optimum", "success", "lowers_accuracy", "restarts")
CASES = [
    pytest.param(name, damage, norm, id=f"{name}-{damage.__name__}-{norm}")
    for name, damage in DAMAGES
    for norm in (SatKernels.norms if name in IN_EVERY_NORM else SatKernels.norms[:1])
]


@pytest.mark.parametrize(("name", "damage", "norm"), CASES)
def test_a_damage_is_noticed(name, damage, norm):
    assert evaluate(PROPERTIES[name], Damaged(damage), norm).status == "fail"


def test_every_property_has_a_damage():
    assert {name for name, _ in DAMAGES} == set(PROPERTIES)


class Modest(SatKernels):
    """Cannot do everything."""

    lacks = {"targeted": "not there", "restarts Linf": "not for Linf"}


def test_what_a_library_lacks_is_not_asked():
    outcome = evaluate(PROPERTIES["targeted"], Modest(), "Linf")
    assert (outcome.status, outcome.reason) == ("skip", "not there")
    assert evaluate(PROPERTIES["restarts"], Modest(), "Linf").reason == "not for Linf"


def test_adapters_are_found_by_name():
    assert isinstance(load("sat_kernels"), SatKernels)
    assert isinstance(load("adapters:Adapter"), Adapter)
    with pytest.raises(ValueError, match="expected 'module:Class' or one of sat_kernels, torchattacks"):
        load("nothing")


def test_a_library_that_does_not_run_is_no_failure_of_properties(capsys):
    with pytest.raises(NotImplementedError):
        findings.main(["adapters:Adapter"])
    assert capsys.readouterr().out == ""


class Pacifist(SatKernels):
    """Never moves; in one norm, to be quick."""

    name, norms, lacks = "pacifist", ("L1",), {"targeted": "not there", "box": "not there"}
    causes = {"success": "it does not move"}

    def version(self):
        return "1.0"

    def attack(self, model, x, y, **options):
        return x.clone()


def test_the_report_replaces_its_part_of_a_page(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- measured -->\nold\n<!-- end -->\nAfter.\n")
    monkeypatch.setattr(findings, "load", lambda name: Pacifist())
    findings.main(["pacifist", "--write", str(page)])
    text = page.read_text()
    assert text.startswith("Before.\n<!-- measured -->\n")
    assert text.endswith("<!-- end -->\nAfter.\n")
    assert "old" not in text.splitlines()
    assert "|property|pacifist 1.0|" in text
    assert "|`ball_exact`|yes|" in text
    assert "|`success`|**no**|" in text
    assert "|`targeted`|-|" in text
    assert "- `success` L1: found for 0% of the samples (it does not move)" in text
    assert "- `targeted` L1: not there" in text


def test_a_page_without_a_place_for_the_report(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("Before.\n")
    monkeypatch.setattr(findings, "load", lambda name: Pacifist())
    with pytest.raises(SystemExit):
        findings.main(["pacifist", "--write", str(page)])
    assert page.read_text() == "Before.\n"
