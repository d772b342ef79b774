"""Adversarial training that can be cut off at any moment and goes on."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .checkpoints import CheckpointError, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from .config import ConfigurationError, TrainConfig, differences, step_size
from .datasets import DATASETS, batches
from .devices import prepare
from .files import write_atomic
from .methods import METHODS
from .models import make_model
from .robustness import measure
from .seeding import derive, generator

CHECKPOINT, METRICS, CONFIG, EVENTS = "checkpoint.safetensors", "metrics.jsonl", "config.yaml", "tensorboard"

# Settings that may change between the parts of a run: none of them is part of what is learned.
FREE = frozenset(("output", "device", "threads", "monitor.every", "monitor.steps"))


class Run:
    """One training run and its folder.

    Order of the data, random state and starts of the attack are functions of (seed, epoch, image), so a run
    that was killed and goes on ends with the weights of one that was not, bit for bit (same machine, device
    and number of threads).

    Args:
        config: the settings. If their folder holds a checkpoint, the run continues from it.

    Attributes:
        epoch: number of complete epochs.
        metrics: one dictionary per complete epoch.

    Raises:
        ConfigurationError: the checkpoint in the folder was trained with other settings.
        CheckpointError: the file in the folder is not a checkpoint.
        OSError: the folder can't be written to.
    """

    def __init__(self, config: TrainConfig):
        self.config, self.folder = config, Path(config.output)
        self.device = prepare(config.device, config.threads)
        self.data = DATASETS[config.data]()
        torch.manual_seed(derive(config.seed, "weights"))
        self.model = make_model(config, self.data).to(self.device)
        self.optimizer = torch.optim.SGD(
            _parameter_groups(self.model, config.weight_decay),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
        )
        self.starts = torch.Generator()
        self.method = METHODS[config.method](self.model, config, self.starts)
        steps = config.epochs * math.ceil(len(self.data.train) / config.batch_size) * self.method.updates
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _warmup_cosine(steps, config.warmup))
        self.epoch, self.metrics = 0, []
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / CHECKPOINT).exists():
            self._restore(load_checkpoint(self.folder / CHECKPOINT))
        write_atomic(self.folder / CONFIG, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
        self._write_metrics()

    @property
    def finished(self) -> bool:
        return self.epoch >= self.config.epochs

    def fit(self, *, progress: bool = True, on_epoch: Callable[[], None] = lambda: None) -> None:
        """Trains to the last epoch; a checkpoint after each.

        Args:
            progress: whether to show a bar.
            on_epoch: called after each checkpoint.

        Raises:
            ConfigurationError: the loss is no longer finite. The checkpoint is that of the epoch before.
        """
        if self.finished:
            return
        name = self.config.activation
        if self.config.method != "pgd":
            name += f", {self.config.method}"
        bar = tqdm(
            total=self.config.epochs,
            initial=self.epoch,
            unit="epoch",
            desc=name,
            disable=not progress,
        )
        # purge_step hides what a killed process had logged of the epochs that are done again.
        with SummaryWriter(self.folder / EVENTS, purge_step=self.epoch) as writer, bar:
            while not self.finished:
                metrics = self._train_epoch()
                self.metrics.append(metrics)
                self.epoch += 1
                for name, value in metrics.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, metrics["epoch"])
                writer.flush()
                save_checkpoint(self.folder / CHECKPOINT, self._state())
                self._write_metrics()
                bar.update()
                bar.set_postfix(loss=f"{metrics['train_loss']:.3f}", robust=f"{metrics['train_robust_accuracy']:.1%}")
                on_epoch()

    def _train_epoch(self) -> dict:
        config, start = self.config, time.perf_counter()
        torch.manual_seed(derive(config.seed, "epoch", self.epoch))
        order = torch.randperm(len(self.data.train), generator=generator(config.seed, "order", self.epoch))
        self.starts.manual_seed(derive(config.seed, "attack", self.epoch))
        total_loss = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.model.train()
        for batch in batches(self.data.train, config.batch_size, order):
            x, y, index = (tensor.to(self.device) for tensor in batch)
            for loss, logits in self.method.losses(x, y, index):
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
                total_loss += loss.detach() * len(y)
                correct += (logits.detach().argmax(1) == y).sum()
        images = len(order) * self.method.updates
        mean_loss = total_loss.item() / images
        if not math.isfinite(mean_loss):
            raise ConfigurationError(
                f"lr={config.lr}: the loss became {mean_loss} in epoch {self.epoch}; expected a smaller one"
            )
        metrics = {
            "epoch": self.epoch,
            "lr": self.scheduler.get_last_lr()[0],
            "train_loss": mean_loss,
            "train_robust_accuracy": correct.item() / images,
            "seconds": time.perf_counter() - start,
        }
        return metrics | self._monitor()

    def _monitor(self) -> dict:
        done, every = self.epoch + 1, self.config.monitor.every
        if not every or (done % every and done < self.config.epochs):
            return {}
        eps, steps = self.config.attack.eps, self.config.monitor.steps
        result = measure(
            self.model, self.data.test, self.device, eps=eps, alpha=step_size(None, eps, steps), steps=steps, restarts=1
        )
        return {
            "test_clean_accuracy": result.clean.float().mean().item(),
            "test_robust_accuracy": result.robust.float().mean().item(),
        }

    def _state(self) -> dict:
        return {
            "config": dataclasses.asdict(self.config),
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "method": self.method.state_dict(),
            "rng": rng_state(),
            "metrics": self.metrics,
        }

    def _restore(self, state: dict) -> None:
        path = self.folder / CHECKPOINT
        changed = differences(state["config"], self.config, FREE)
        if changed:
            settings = "; ".join(f"{name}={old} then, {name}={new} now" for name, old, new in changed)
            raise ConfigurationError(
                f"{path} was trained with other settings ({settings}): expected the same, or another --output"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.method.load_state_dict(state.get("method", {}))  # checkpoints from before there were methods have none
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: of another version of this program ({error})") from error
        set_rng_state(state["rng"])
        self.epoch, self.metrics = state["epoch"], state["metrics"]

    def _write_metrics(self) -> None:
        # Written whole from the checkpoint's own list: one line per epoch, wherever the process was killed.
        write_atomic(self.folder / METRICS, "".join(json.dumps(metrics) + "\n" for metrics in self.metrics))


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Decay for matrices and filters only: biases, norm layers and activation parameters have fewer dimensions."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at each step: up linearly, then down to 0 as a cosine (arXiv 1608.03983)."""
    rising = int(warmup * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return factor
