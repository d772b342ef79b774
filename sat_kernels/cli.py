"""The command ``sat-kernels``."""

import subprocess
import sys
from pathlib import Path

_USAGE = """\
usage: sat-kernels COMMAND ...

commands:
  info                  what this installation runs on, operator by operator
  train                 adversarial training; goes on where an earlier run was cut off
  evaluate CHECKPOINT   clean and robust accuracy of a checkpoint on its held-out images
  compare               the demo: ReLU and smooth activations side by side, as a table and a plot
  bench                 limits, kernels, attacks and training, measured beside others (from a source tree)

sat-kernels COMMAND --help lists a command's settings.
"""

# What "pip install 'sat_kernels[train]'" brings.
_TRAIN_EXTRA = ("jsonargparse", "matplotlib", "safetensors", "sklearn", "tensorboard", "tqdm", "yaml")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0: done. 1: an evaluation found attacked images outside the ball. 2: the user can put it right; one
    sentence says how. 130: Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in _COMMANDS:
        return _fail(f"{name!r} is not a command: expected one of {', '.join(_COMMANDS)}")
    try:
        return _COMMANDS[name](rest)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Complete epochs and evaluations are kept; the same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _TRAIN_EXTRA:
            raise
        return _fail(f"{name} needs {package}, which is not installed: pip install 'sat_kernels[train]'")
    except OSError as error:
        return _fail(str(error))
    except ValueError as error:
        # Only what the driver raises on purpose; another ValueError is a bug, and its traceback is of use.
        if not type(error).__module__.startswith("sat_kernels.training."):
            raise
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"sat-kernels: error: {message}", file=sys.stderr)
    return 2


def _info(arguments: list[str]) -> int:
    if arguments:
        if arguments[0] in ("-h", "--help"):
            print(
                "usage: sat-kernels info\n\nPrints what this installation was built with, and what runs each operator."
            )
            return 0
        return _fail(f"info takes no arguments: got {' '.join(arguments)}")
    from .info import build_info, operator_table

    facts = {key: ", ".join(value) if isinstance(value, list) else value for key, value in build_info().items()}
    _print_pairs({key: "none" if value in (None, "") else value for key, value in facts.items()}.items())
    print("\noperators")
    _print_pairs(operator_table(), indent="  ")
    return 0


def _print_pairs(pairs, indent: str = "") -> None:
    pairs = list(pairs)
    width = max(len(key) for key, _ in pairs)
    for key, value in pairs:
        print(f"{indent}{key:<{width}}  {value}")


def _train(arguments: list[str]) -> int:
    from .training.config import TrainConfig
    from .training.options import make_parser, parse

    parser = make_parser(
        TrainConfig,
        "sat-kernels train",
        "Adversarial training: PGD's (Madry et al., arXiv 1706.06083), TRADES, MART or free adversarial "
        "training. The same command goes on where an earlier run was cut off.",
    )
    config, _ = parse(parser, TrainConfig, arguments)
    from .training.loop import CHECKPOINT, Run

    run = Run(config)
    if run.finished:
        print(f"{run.folder}: finished, {run.epoch} of {config.epochs} epochs are done; nothing to do.")
        return 0
    if run.epoch:
        print(f"{run.folder}: going on after epoch {run.epoch} of {config.epochs}.")
    run.fit()
    for key, value in run.metrics[-1].items():
        if key.endswith("accuracy"):
            print(f"{key.replace('_', ' ')}: {value:.1%}")
    print(f"Written: {run.folder / CHECKPOINT}. Next: sat-kernels evaluate {run.folder / CHECKPOINT}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    from .training.config import EvaluationConfig
    from .training.options import make_parser, parse

    parser = make_parser(
        EvaluationConfig,
        "sat-kernels evaluate",
        "Clean and robust accuracy of a checkpoint on its held-out images, under PGD from several random starts. "
        "Writes evaluation.json next to the checkpoint.",
    )
    parser.add_argument("checkpoint", type=str, help="checkpoint.safetensors of a run")
    config, [checkpoint] = parse(parser, EvaluationConfig, arguments, positional=("checkpoint",))
    from .training.evaluation import RESULT, evaluate

    result = evaluate(checkpoint, config)
    attack = ", ".join(f"{name} {value:.4g}" for name, value in result["attack"].items())
    _print_pairs(
        {
            "images": result["images"],
            "attack": f"PGD, Linf, {attack}",
            "clean accuracy": f"{result['clean_accuracy']:.2%}",
            "robust accuracy": f"{result['robust_accuracy']:.2%}",
            "violations": f"{result['violations']} (pixels outside the ball or the box)",
            "written": Path(checkpoint).with_name(RESULT),
        }.items()
    )
    return 1 if result["violations"] else 0


def _compare(arguments: list[str]) -> int:
    from .training.config import CompareConfig
    from .training.options import make_parser, parse

    own = ("train.output", "train.activation", "train.seed", "train.threads", "evaluation.threads")
    parser = make_parser(
        CompareConfig,
        "sat-kernels compare",
        "Trains the same network with several activations and seeds, evaluates every run under PGD, and writes a "
        "table and a plot. The same command goes on where an earlier one was cut off.",
        skip=own,
    )
    config, _ = parse(parser, CompareConfig, arguments)
    from .training.compare import compare, report
    from .training.report import format_table

    baseline = config.activations[0]
    try:
        rows = compare(config)
    except KeyboardInterrupt:
        rows = report(config)
        if rows:
            print(f"\nComplete runs so far:\n{format_table(rows, baseline)}")
        raise
    if config.train.method != "pgd":
        print(f"Training method: {config.train.method}")
    print(format_table(rows, baseline))
    violations = sum(row["violations"] for row in rows)
    print(f"\nPixels of attacked images outside the ball or the box: {violations}.")
    print(f"Written to {config.output}: results.json, results.csv, results.png.")
    return 1 if violations else 0


def _bench(arguments: list[str]) -> int:
    if not Path("benchmarks").is_dir():
        return _fail("no folder 'benchmarks' here: the benchmarks come with the source tree; run this in its root")
    import sklearn  # noqa: F401 - what it brings is said at once, not after minutes
    import tqdm  # noqa: F401

    process = subprocess.Popen([sys.executable, "benchmarks", *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it has got that, too, and says how to go on
            continue


_COMMANDS = {"info": _info, "train": _train, "evaluate": _evaluate, "compare": _compare, "bench": _bench}

if __name__ == "__main__":
    sys.exit(main())
