import sys

import pytest

from sat_kernels import build_info, cli
from sat_kernels.activations import ACTIVATIONS


def test_info_needs_only_torch(capsys, monkeypatch):
    for package in cli._TRAIN_EXTRA:
        monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["info"]) == 0
    output = capsys.readouterr().out
    assert all(key in output for key in build_info())
    assert all(name in output for name in ACTIVATIONS)


def test_missing_extra_is_one_sentence(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("sat_kernels.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert cli.main(["train"]) == 2
    assert "pip install 'sat_kernels[train]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fly"], "'fly' is not a command: expected one of info, train"),
        (["info", "x"], "info takes no arguments"),
        (["train", "--epochs", "0"], "epochs=0: expected an integer >= 1"),
        (["train", "--config", "missing.yaml"], "missing.yaml"),
        (["evaluate"], "checkpoint"),
        (["evaluate", "missing"], "missing: no such file"),
        (["compare", "--seeds", "0"], "seeds=0: expected an integer >= 1"),
        (["bench"], "the benchmarks come with the source tree"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert errors.startswith("sat-kernels: error: ")
    assert errors.count("\n") == 1


def test_bugs_keep_their_traceback(monkeypatch):
    def bug(_):
        raise ValueError("a bug")

    monkeypatch.setitem(cli._COMMANDS, "info", bug)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["info"])


@pytest.mark.parametrize("command", [[], ["info"], ["train"], ["evaluate"], ["compare"]])
def test_help(command, capsys):
    try:
        code = cli.main([*command, "--help"])
    except SystemExit as done:
        code = done.code
    assert code == 0
    assert "usage: sat-kernels" in capsys.readouterr().out


def test_unwritable_output_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["train", "--output", str(tmp_path / "file" / "run")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
