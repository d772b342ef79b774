"""Command line and YAML file for the dataclasses of settings."""

import contextlib
import dataclasses
import io
import re
from argparse import ArgumentError

from jsonargparse import ArgumentParser

from .config import ConfigurationError, from_dict


def make_parser(kind: type, prog: str, description: str, skip: tuple[str, ...] = ()) -> ArgumentParser:
    """A parser with one option per field of the dataclass ``kind``, ``--config`` and ``--print_config``.

    Args:
        skip: dotted names of fields that get no option.
    """
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of these settings; options after it override it")
    _add(parser, parser, kind(), "", skip)
    return parser


def parse(parser: ArgumentParser, kind: type, arguments: list[str], positional: tuple[str, ...] = ()):
    """The settings in ``arguments`` as a ``kind``, and the list of the values of the positional arguments.

    Raises:
        ConfigurationError: an option is unknown, or has a value that it can't have.
    """
    try:
        # jsonargparse prints its usage on errors; one sentence is enough.
        with contextlib.redirect_stderr(io.StringIO()):
            values = parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        raise ConfigurationError(_readable(str(error))) from error
    values.pop("config", None)
    extra = [values.pop(name) for name in positional]
    return from_dict(kind, values), extra


def _readable(message: str) -> str:
    message = re.sub(r"<class '(\w+)'>", r"value of type \1", " ".join(message.split()))
    return message.replace("Parser key", "setting")


def _add(parser, target, settings, prefix: str, skip: tuple[str, ...]) -> None:
    for field in dataclasses.fields(settings):
        name, value = prefix + field.name, getattr(settings, field.name)
        if name in skip:
            continue
        if dataclasses.is_dataclass(value):
            _add(parser, parser.add_argument_group(field.metadata["help"]), value, f"{name}.", skip)
        else:
            target.add_argument(f"--{name}", type=field.type, default=value, help=field.metadata["help"])
