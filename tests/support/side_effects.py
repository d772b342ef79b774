"""What an attack may change of a model, and what goes wrong on the way."""

import random

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


def snapshot(model):
    modules = dict(model.named_modules())
    return {
        "training": {name: m.training for name, m in modules.items()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "identity": {name: id(t) for name, t in [*model.named_parameters(), *model.named_buffers()]},
        "grad": {name: p.grad if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "values": {name: t.clone() for name, t in model.state_dict(keep_vars=False).items()},
        "hooks": {name: [list(getattr(m, kind)) for kind in _HOOKS] for name, m in modules.items()},
        "attributes": {name: sorted(vars(m)) for name, m in modules.items()},
        "latent": {name: [vars(m).get(key) for key in ("delta", "_steps")] for name, m in modules.items()},
        "rng": torch.get_rng_state(),
        "python's rng": random.getstate(),
        "modes": {
            "grad": torch.is_grad_enabled(),
            "inference": torch.is_inference_mode_enabled(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "dtype": torch.get_default_dtype(),
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        },
    }


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def changes(before, after, path=""):
    if isinstance(before, dict):
        assert before.keys() == after.keys()
        return [c for key in before for c in changes(before[key], after[key], f"{path}/{key}")]
    same = torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after
    return [] if same else [path]


def customise(model):
    """What a fine-tuning script may have done to its model."""
    model.train()
    model[1].eval()  # frozen batch norm in a training model
    model[0].weight.requires_grad_(False)
    model[8].weight.grad = torch.ones_like(model[8].weight)
    model[3].register_forward_hook(lambda module, args, output: None)
    return model


class Interrupting(nn.Module):
    """Raises in the forward pass number ``at``, after the model has run."""

    def __init__(self, model, at, error):
        super().__init__()
        self.model, self.at, self.error, self.calls = model, at, error, 0

    def forward(self, x):
        result = self.model(x)
        self.calls += 1
        torch.rand(3)
        if self.calls == self.at:
            raise self.error
        return result


class Demanding(nn.Module):
    """A network in the middle of somebody's training: batch norms, of which one is frozen, dropout, a module and a
    weight that are used twice, a frozen parameter, a gradient that is still to be used, and hooks.
    """

    def __init__(self, activation=nn.SiLU):
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), activation()
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU())
        self.tied, self.last = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6, momentum=None)
        self.tied.weight = self.block[0].weight
        self.middle, self.drop, self.pool = nn.Identity(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(24, 5)
        self.train()
        self(torch.rand(16, 3, 8, 8))  # running statistics that are not the initial ones
        self.norm.eval()
        self.stem.weight.requires_grad_(False)
        self.head.weight.grad = torch.ones_like(self.head.weight)

    def forward(self, x):
        h = self.middle(self.block(self.act(self.norm(self.stem(x)))))
        h = self.drop(self.block(h) + self.last(self.tied(h)))
        return self.head(self.pool(h).flatten(1))

    def hook(self, watch):
        """``watch`` is called at every forward and every backward pass through the middle."""

        def seen(module, arguments, output):
            watch()
            if output.requires_grad:
                output.register_hook(lambda grad: watch())

        self.middle.register_forward_hook(seen)
        self.act.register_forward_pre_hook(lambda module, arguments: None)
        return self


class Alarm:
    """Counts what happens, and raises ``error`` when it happens for the time number ``at``."""

    def __init__(self, error=None):
        self.at, self.count, self.error = None, 0, error

    def __call__(self):
        self.count += 1
        if self.count == self.at:
            raise self.error


class Alarmed(TorchDispatchMode):
    """Tells ``alarm`` of every operator, other than what writes to ``kept``: the model's state, when it is restored."""

    def __init__(self, alarm, kept=()):
        super().__init__()
        self.alarm, self.kept = alarm, {t.untyped_storage().data_ptr() for t in kept}

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        restores = str(function) == "aten.copy_.default" and arguments[0].untyped_storage().data_ptr() in self.kept
        if not restores:
            self.alarm()
        return function(*arguments, **(named or {}))
