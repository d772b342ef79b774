"""What an attack may change of a model, and what goes wrong on the way."""

import torch
from torch import nn


def snapshot(model):
    modules = dict(model.named_modules())
    return {
        "training": {name: m.training for name, m in modules.items()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "identity": {name: id(t) for name, t in [*model.named_parameters(), *model.named_buffers()]},
        "grad": {name: p.grad if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "values": {name: t.clone() for name, t in model.state_dict(keep_vars=False).items()},
        "hooks": {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in modules.items()},
        "rng": torch.get_rng_state(),
    }


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
