"""The driver's settings: what they mean, their defaults, and what values they take."""

import dataclasses
import math
from dataclasses import dataclass, field

from .datasets import DATASETS
from .methods import METHODS
from .models import ACTIVATION_NAMES


class ConfigurationError(ValueError):
    """A setting has a value that it can't have. The message names it, its value and what was expected."""


def setting(default, help: str):
    """A field with its help text. Fields that hold settings themselves become ``--<field>.<setting>``."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class AttackConfig:
    """The attack that makes the training examples."""

    eps: float = setting(0.15, "radius of the Linf ball, in pixel values of 0..1")
    alpha: float | None = setting(
        None, "step size, in pixel values of 0..1; null: 2.5 * eps / steps, with method=free: eps"
    )
    steps: int = setting(5, "gradient steps per image; not with method=free")

    def __post_init__(self):
        check_attack(self, "attack.")

    @property
    def step_size(self) -> float:
        return step_size(self.alpha, self.eps, self.steps)


@dataclass(frozen=True)
class MonitorConfig:
    """Accuracy on the held-out images while training goes on. It changes no weight."""

    every: int = setting(10, "epochs between evaluations, and one after the last epoch; 0: none")
    steps: int = setting(10, "PGD steps, with the radius of the training attack")

    def __post_init__(self):
        _check("monitor.every", self.every, self.every >= 0, "an integer >= 0")
        _check("monitor.steps", self.steps, self.steps >= 1, "an integer >= 1")


@dataclass(frozen=True)
class TrainConfig:
    """Adversarial training of a small residual network."""

    output: str = setting("runs/train", "folder of the run: configuration, checkpoint, metrics, TensorBoard events")
    data: str = setting("digits", f"data set: {', '.join(DATASETS)}")
    method: str = setting("pgd", f"training method: {', '.join(METHODS)}")
    beta: float | None = setting(None, "trades, mart: weight of the divergence from the clean prediction; null: 6")
    replays: int = setting(4, "free: updates of the weights per batch, in a row")
    activation: str = setting("silu", f"activation: {', '.join(ACTIVATION_NAMES)}")
    width: int = setting(16, "channels of the network's first stage")
    epochs: int = setting(12, "passes over the training images")
    batch_size: int = setting(32, "images per step")
    lr: float = setting(0.3, "peak learning rate of SGD")
    momentum: float = setting(0.9, "Nesterov momentum; 0: plain SGD")
    weight_decay: float = setting(5e-4, "L2 penalty on weights; never on biases, norm layers and activation parameters")
    warmup: float = setting(
        0.1, "fraction of all steps in which the learning rate rises linearly; then it falls as cosine"
    )
    label_smoothing: float = setting(0.0, "pgd, free: share of the target spread evenly over all classes")
    seed: int = setting(0, "seed of initial weights, data order and attack starts; never of the split of the data")
    device: str = setting("auto", "where to run, such as cpu or cuda:0; auto: a GPU if there is one")
    threads: int = setting(
        0, "CPU threads; 0: as PyTorch chooses. Results are the same bit for bit for the same number"
    )
    attack: AttackConfig = field(
        default_factory=AttackConfig, metadata={"help": "The attack that makes the training examples"}
    )
    monitor: MonitorConfig = field(
        default_factory=MonitorConfig, metadata={"help": "Accuracy on held-out images while training"}
    )

    def __post_init__(self):
        _check("data", self.data, self.data in DATASETS, f"one of {', '.join(DATASETS)}")
        _check("method", self.method, self.method in METHODS, f"one of {', '.join(METHODS)}")
        if self.beta is not None:
            _check("beta", self.beta, 0 <= self.beta < math.inf, "a number >= 0")
        _check(
            "activation", self.activation, self.activation in ACTIVATION_NAMES, f"one of {', '.join(ACTIVATION_NAMES)}"
        )
        for name in ("replays", "width", "epochs", "batch_size"):
            value = getattr(self, name)
            _check(name, value, value >= 1, "an integer >= 1")
        _check("lr", self.lr, 0 < self.lr < math.inf, "a number > 0")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "a number in [0, 1)")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "a number >= 0")
        _check("warmup", self.warmup, 0 <= self.warmup < 1, "a number in [0, 1)")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "a number in [0, 1)")
        _check("seed", self.seed, self.seed >= 0, "an integer >= 0")
        _check("threads", self.threads, self.threads >= 0, "an integer >= 0")
        self._check_that_all_are_used()

    def _check_that_all_are_used(self) -> None:
        unused = frozenset().union(*(method.settings for method in METHODS.values())) - METHODS[self.method].settings
        for name, default, value in differences({}, self):
            expected = f"{'null' if default is None else default} with method={self.method}"
            _check(name, value, name not in unused, expected)


@dataclass(frozen=True)
class EvaluationConfig:
    """Clean and robust accuracy on the held-out images."""

    eps: float | None = setting(None, "radius of the Linf ball, in pixel values of 0..1; null: as in training")
    alpha: float | None = setting(None, "step size, in pixel values of 0..1; null: 2.5 * eps / steps")
    steps: int = setting(50, "PGD steps per restart")
    restarts: int = setting(5, "random starts per image; an image counts as robust if none of them fools the model")
    seed: int = setting(0, "seed of the random starts")
    batch_size: int = setting(350, "images per batch")
    device: str = setting("auto", "where to run, such as cpu or cuda:0; auto: a GPU if there is one")
    threads: int = setting(0, "CPU threads; 0: as PyTorch chooses")

    def __post_init__(self):
        check_attack(self, "")
        for name in ("restarts", "batch_size"):
            value = getattr(self, name)
            _check(name, value, value >= 1, "an integer >= 1")
        for name in ("seed", "threads"):
            value = getattr(self, name)
            _check(name, value, value >= 0, "an integer >= 0")


def step_size(alpha: float | None, eps: float, steps: int) -> float:
    """``alpha``, or 2.5 * eps / steps: enough to cross the ball, and to turn round (arXiv 1706.06083, appendix)."""
    return 2.5 * eps / steps if alpha is None else alpha


def differences(old: dict, new, free: frozenset[str] = frozenset()) -> list[tuple[str, object, object]]:
    """(dotted name, old value, new value) of every setting that differs, but for those in ``free``.

    Args:
        old: nested dictionaries, as ``dataclasses.asdict`` makes them. Settings that it lacks had their default: those
            of an earlier version, which did what is the default of what has been added since.
        new: a dataclass of settings.
    """
    old, new = _flat(_defaults(type(new))) | _flat(old), _flat(dataclasses.asdict(new))
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if name not in free and old.get(name) != new.get(name)
    ]


def _defaults(kind: type) -> dict:
    """As ``asdict(kind())``, which checks of ``kind`` itself can't ask for."""
    values = {
        f.name: f.default_factory() if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(kind)
    }
    return {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in values.items()}


def from_dict(kind: type, values: dict):
    """The dataclass ``kind`` from nested dictionaries, as ``dataclasses.asdict`` makes them; defaults for the rest.

    Raises:
        ConfigurationError: a key is unknown or a value is not allowed.
    """
    return _updated(kind(), values)


def _updated(settings, values: dict):
    known = [f.name for f in dataclasses.fields(settings)]
    for name in values:
        if name not in known:
            raise ConfigurationError(f"unknown setting {name!r}: expected one of {', '.join(known)}")
    changes = {
        name: _updated(getattr(settings, name), value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return dataclasses.replace(settings, **changes)


def check_attack(config, prefix: str) -> None:
    if config.eps is not None:
        _check(f"{prefix}eps", config.eps, 0 <= config.eps <= 1, "a number in [0, 1]: pixels are in [0, 1]")
    if config.alpha is not None:
        _check(f"{prefix}alpha", config.alpha, 0 <= config.alpha < math.inf, "a number >= 0")
    _check(f"{prefix}steps", config.steps, config.steps >= 1, "an integer >= 1")


def _check(name: str, value, allowed: bool, expected: str) -> None:
    if not allowed:
        raise ConfigurationError(f"{name}={value}: expected {expected}")


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _demo_training() -> TrainConfig:
    # One thread per process: the network is too small for more, and for a GPU.
    return TrainConfig(device="cpu", threads=1, monitor=MonitorConfig(every=0))


@dataclass(frozen=True)
class CompareConfig:
    """Adversarial training of the same network with several activations and seeds, evaluated side by side."""

    output: str = setting("runs/demo", "folder of all runs (<activation>/seed<k>/), the table and the plot")
    activations: list[str] = field(
        default_factory=lambda: ["relu", "silu", "gelu", "smooth_relu"],
        metadata={"help": "activations, such as [relu, mish]; the first is what the others are compared to"},
    )
    seeds: int = setting(3, "runs per activation, with seeds 0, 1, ...")
    workers: int = setting(0, "processes, each with one run at a time; 0: as many as CPU cores")
    resamples: int = setting(10_000, "bootstrap resamples of the 95 % intervals")
    train: TrainConfig = field(default_factory=_demo_training, metadata={"help": "Training, the same for all"})
    evaluation: EvaluationConfig = field(
        default_factory=lambda: EvaluationConfig(restarts=3, device="cpu", threads=1),
        metadata={"help": "Evaluation on the held-out images"},
    )

    def __post_init__(self):
        for name in ("seeds", "resamples"):
            value = getattr(self, name)
            _check(name, value, value >= 1, "an integer >= 1")
        _check("workers", self.workers, self.workers >= 0, "an integer >= 0")
        unknown = [name for name in self.activations if name not in ACTIVATION_NAMES]
        distinct = len(set(self.activations)) == len(self.activations) > 0
        _check(
            "activations",
            self.activations,
            distinct and not unknown,
            f"different ones of {', '.join(ACTIVATION_NAMES)}",
        )
