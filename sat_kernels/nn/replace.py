"""Swapping the activations of a model."""

import torch


def replace_activations(model: torch.nn.Module, to, *, kinds=(torch.nn.ReLU,)) -> torch.nn.Module:
    raise NotImplementedError
