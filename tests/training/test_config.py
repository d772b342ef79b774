import dataclasses
import re
import subprocess
import sys

import pytest
import yaml

from sat_kernels.training.config import (
    CompareConfig,
    ConfigurationError,
    EvaluationConfig,
    TrainConfig,
    differences,
    from_dict,
)
from sat_kernels.training.methods import METHODS
from sat_kernels.training.options import make_parser, parse


def parse_train(*arguments):
    return parse(make_parser(TrainConfig, "train", ""), TrainConfig, list(arguments))[0]


def test_no_arguments_are_the_defaults():
    assert parse_train() == TrainConfig()
    assert parse(make_parser(CompareConfig, "compare", ""), CompareConfig, [])[0] == CompareConfig()


def test_command_line_sets_plain_and_nested_settings():
    config = parse_train("--lr", "1", "--activation=mish", "--attack.eps", "0.1", "--attack.alpha", "null")
    assert (config.lr, config.activation, config.attack.eps, config.attack.alpha) == (1.0, "mish", 0.1, None)
    assert dataclasses.replace(config, lr=0.3, activation="silu", attack=TrainConfig().attack) == TrainConfig()


def test_file_round_trip_and_override(tmp_path):
    config = from_dict(
        TrainConfig, {"lr": 5e-4, "weight_decay": 1e-7, "attack": {"eps": 0.2, "alpha": 0.01}, "monitor": {"every": 3}}
    )
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(dataclasses.asdict(config)))
    assert parse_train("--config", str(file)) == config
    overridden = parse_train("--config", str(file), "--attack.eps", "0.1")
    assert overridden.attack.eps == 0.1
    assert overridden.attack.alpha == 0.01


def test_settings_without_an_option_keep_their_default():
    parser = make_parser(CompareConfig, "compare", "", skip=("train.threads",))
    config, _ = parse(parser, CompareConfig, ["--train.epochs", "3"])
    assert (config.train.epochs, config.train.threads, config.train.device) == (3, 1, "cpu")
    with pytest.raises(ConfigurationError, match=r"--train\.threads"):
        parse(parser, CompareConfig, ["--train.threads", "2"])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", "0", "an integer >= 1"),
        ("batch_size", "-4", "an integer >= 1"),
        ("lr", "0", "a number > 0"),
        ("momentum", "1.0", r"a number in \[0, 1\)"),
        ("label_smoothing", "-0.1", r"a number in \[0, 1\)"),
        ("activation", "rleu", "one of relu, silu"),
        ("data", "mnist", "one of digits"),
        ("method", "fgsm", "one of pgd, trades, mart, free"),
        ("beta", "-1.0", "a number >= 0"),
        ("replays", "0", "an integer >= 1"),
        ("attack.eps", "8.0", r"a number in \[0, 1\]"),
        ("attack.alpha", "-1.0", "a number >= 0"),
        ("attack.steps", "0", "an integer >= 1"),
        ("monitor.every", "-1", "an integer >= 0"),
    ],
)
def test_message_names_setting_value_and_what_was_expected(name, value, expected):
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'{name}={value}')}.*: expected {expected}"):
        parse_train(f"--{name}", value)


@pytest.mark.parametrize(
    ("method", "name", "value", "expected"),
    [
        ("pgd", "beta", 3.0, "null"),
        ("free", "beta", 6.0, "null"),
        ("pgd", "replays", 3, "4"),
        ("mart", "replays", 3, "4"),
        ("trades", "label_smoothing", 0.1, "0.0"),
        ("mart", "label_smoothing", 0.1, "0.0"),
        ("free", "attack.steps", 7, "5"),
    ],
)
def test_settings_that_the_method_does_not_use_are_refused(method, name, value, expected):
    with pytest.raises(ConfigurationError) as error:
        parse_train("--method", method, f"--{name}", str(value))
    assert str(error.value) == f"{name}={value}: expected {expected} with method={method}"
    assert parse_train("--method", method, f"--{name}", expected) == TrainConfig(method=method)


def test_settings_that_the_method_uses():
    assert parse_train("--method=trades", "--beta=3", "--attack.steps=2").beta == 3
    assert parse_train("--method=mart", "--beta=0").beta == 0
    assert parse_train("--method=free", "--replays=8", "--label_smoothing=0.1", "--attack.alpha=0.1").replays == 8
    assert parse_train("--method=pgd", "--attack.steps=2", "--label_smoothing=0.1").attack.steps == 2
    config = parse(make_parser(CompareConfig, "compare", ""), CompareConfig, ["--train.method=mart", "--train.beta=5"])[
        0
    ]
    assert (config.train.method, config.train.beta) == ("mart", 5)


def test_every_setting_of_a_method_exists():
    help = make_parser(TrainConfig, "train", "").format_help()
    for method in METHODS.values():
        for name in method.settings:
            assert f"--{name} " in help


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", "abc"), ("epochs", "2.5"), ("attack.eps", "big"), ("lr", "nan")]
)
def test_message_of_a_wrong_type_names_setting_and_value(name, value):
    with pytest.raises(ConfigurationError) as error:
        parse_train(f"--{name}", value)
    message = str(error.value)
    assert name in message
    assert value in message
    assert "xpected" in message
    assert "\n" not in message


def test_unknown_settings_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="learning_rate"):
        parse_train("--learning_rate", "1")
    file = tmp_path / "config.yaml"
    file.write_text("learning_rate: 1\n")
    with pytest.raises(ConfigurationError, match="learning_rate"):
        parse_train("--config", str(file))


def test_activations_of_a_comparison_are_checked():
    for wrong in ([], ["relu", "relu"], ["relu", "foo"]):
        with pytest.raises(ConfigurationError, match="activations"):
            CompareConfig(activations=wrong)


def test_differences_are_dotted_and_leave_out_what_is_free():
    old, new = (
        dataclasses.asdict(TrainConfig()),
        from_dict(TrainConfig, {"attack": {"eps": 0.2}, "output": "elsewhere"}),
    )
    assert differences(old, new, frozenset({"output"})) == [("attack.eps", 0.15, 0.2)]
    assert differences(old, TrainConfig()) == []


def test_settings_that_old_ones_lack_had_their_default():
    old = dataclasses.asdict(TrainConfig())
    del old["method"], old["beta"], old["attack"]["steps"]
    old["gone"] = 1
    assert differences(old, TrainConfig()) == [("gone", 1, None)]
    assert differences(old, TrainConfig(method="mart")) == [("gone", 1, None), ("method", "pgd", "mart")]


@pytest.mark.parametrize("kind", [TrainConfig, EvaluationConfig])
def test_settings_have_an_option_each(kind):
    help = make_parser(kind, "command", "").format_help()
    for field in dataclasses.fields(kind):
        assert f"--{field.name}" in help
    assert kind is EvaluationConfig or "training method: pgd, trades, mart, free" in help


def test_printed_configuration_can_be_read_back(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "sat_kernels.training", "--lr", "0.25", "--print_config"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (tmp_path / "config.yaml").write_text(printed)
    assert parse_train("--config", str(tmp_path / "config.yaml")) == from_dict(TrainConfig, {"lr": 0.25})
