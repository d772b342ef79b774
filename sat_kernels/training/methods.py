"""Training methods. Another one is a class here and a row in METHODS; settings of its own are fields in config.py."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import attacks


class Method:
    """What training makes of a batch.

    Args:
        model: what is trained.
        config: a :class:`.config.TrainConfig`.
        starts: where attacks have the seed of their starts from; another one in every epoch.

    Attributes:
        settings: dotted names of those that it uses, among settings that some methods don't.
        updates: of the weights, per batch.
    """

    settings: frozenset[str] = frozenset()
    updates = 1

    def __init__(self, model: torch.nn.Module, config, starts: torch.Generator):
        raise NotImplementedError

    def losses(self, x: Tensor, y: Tensor, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each update the loss to minimise, 0-d, and the logits of the attacked images, (B, classes).

        The caller makes one backward pass and one update before it asks for the next one. ``index``: which images of
        the data set ``x`` are.
        """
        raise NotImplementedError

    def state_dict(self) -> dict:
        """What goes from epoch to epoch, for checkpoints."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class PGDTraining(Method):
    """Cross-entropy of images attacked by PGD (Madry et al., arXiv 1706.06083)."""

    settings = frozenset(("attack.steps", "label_smoothing"))

    def __init__(self, model, config, starts):
        self.model, self.label_smoothing = model, config.label_smoothing
        attack = config.attack
        self.attack = attacks.PGD(model, attack.eps, attack.step_size, attack.steps, generator=starts)

    def losses(self, x, y, index):
        logits = self.model(self.attack(x, y, sample_ids=index))
        yield F.cross_entropy(logits, y, label_smoothing=self.label_smoothing), logits


class TRADESTraining(Method):
    """Clean cross-entropy + beta KL(clean || attacked) (Zhang et al., arXiv 1901.08573)."""

    settings = frozenset(("attack.steps", "beta"))
    kind = attacks.TRADES

    def __init__(self, model, config, starts):
        attack, beta = config.attack, {} if config.beta is None else {"beta": config.beta}
        self.attack = self.kind(model, attack.eps, attack.step_size, attack.steps, generator=starts, **beta)

    def losses(self, x, y, index):
        yield self.attack.loss_and_logits(x, y, sample_ids=index)


class MARTTraining(TRADESTraining):
    """Attacked cross-entropy with a margin, and beta KL of the images that the model is unsure of (ICLR 2020)."""

    kind = attacks.MART


class FreeTraining(Method):
    """Several updates per batch, whose backward passes make the attack's steps, too (arXiv 1904.12843)."""

    settings = frozenset(("replays", "label_smoothing"))

    def __init__(self, model, config, starts):
        self.model, self.label_smoothing, self.updates = model, config.label_smoothing, config.replays
        self.attack = attacks.Free(model, config.attack.eps, config.attack.alpha, config.replays)

    def losses(self, x, y, index):
        for x_adv in self.attack(x):
            logits = self.model(x_adv)
            yield F.cross_entropy(logits, y, label_smoothing=self.label_smoothing), logits

    def state_dict(self):
        return self.attack.state_dict()

    def load_state_dict(self, state):
        self.attack.load_state_dict(state)


METHODS: dict[str, type[Method]] = {
    "pgd": PGDTraining,
    "trades": TRADESTraining,
    "mart": MARTTraining,
    "free": FreeTraining,
}
