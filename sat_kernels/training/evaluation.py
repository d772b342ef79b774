"""The evaluation of a checkpoint, as a file next to it."""

import json
import os
import time
from pathlib import Path

from .checkpoints import CheckpointError, load_checkpoint
from .config import ConfigurationError, EvaluationConfig, TrainConfig, differences, from_dict, step_size
from .datasets import DATASETS
from .devices import prepare
from .files import write_atomic
from .loop import FREE
from .models import make_model
from .robustness import measure

RESULT = "evaluation.json"


def evaluate(checkpoint: str | os.PathLike, config: EvaluationConfig, *, progress: bool = True) -> dict:
    """Evaluates a checkpoint on its held-out images, and writes the result next to it as evaluation.json.

    Returns:
        What was written: train (its configuration), epoch, attack (settings), images (their number),
        clean_accuracy and robust_accuracy (0..1), violations (must be 0), max_excess, seconds, and
        clean_correct and robust_correct (a 0 or 1 per image, in the order of the data set).

    Raises:
        CheckpointError: the file is not a checkpoint of this program.
        OSError: the result can't be written.
    """
    start = time.perf_counter()
    state = load_checkpoint(checkpoint)
    device = prepare(config.device, config.threads)
    try:
        train = from_dict(TrainConfig, state["config"])
        data = DATASETS[train.data]()
        model = make_model(train, data).to(device)
        model.load_state_dict(state["model"])
    except (ConfigurationError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{checkpoint}: of another version of this program ({error})") from error
    attack = attack_settings(config, train)
    found = measure(model, data.test, device, **attack, batch_size=config.batch_size, progress=progress)
    result = {
        "train": state["config"],
        "epoch": state["epoch"],
        "attack": attack,
        "images": len(found.clean),
        "clean_accuracy": found.clean.double().mean().item(),
        "robust_accuracy": found.robust.double().mean().item(),
        "violations": found.violations,
        "max_excess": found.max_excess,
        "seconds": time.perf_counter() - start,
        "clean_correct": found.clean.int().tolist(),
        "robust_correct": found.robust.int().tolist(),
    }
    # A line per entry: the lists of images would otherwise take one per image.
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in result.items())
    write_atomic(Path(checkpoint).with_name(RESULT), f"{{\n{lines}\n}}\n")
    return result


def attack_settings(config: EvaluationConfig, train: TrainConfig) -> dict:
    """The numbers of the attack, with what ``config`` leaves open filled in."""
    eps = train.attack.eps if config.eps is None else config.eps
    alpha = step_size(config.alpha, eps, config.steps)
    return {"eps": eps, "alpha": alpha, "steps": config.steps, "restarts": config.restarts, "seed": config.seed}


def find_result(folder: str | os.PathLike, config: EvaluationConfig, train: TrainConfig) -> dict | None:
    """The evaluation in ``folder``, if it is of a complete run with these settings."""
    try:
        result = json.loads((Path(folder) / RESULT).read_text())
        current = result["epoch"] == train.epochs and result["attack"] == attack_settings(config, train)
        return result if current and not differences(result["train"], train, FREE) else None
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
