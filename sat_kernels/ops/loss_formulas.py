"""The losses of :mod:`losses` in plain PyTorch, differentiable to every order: for devices without kernels, compilers
and transforms. csrc/formulas/losses.h, which defines them, explains how they stay finite."""

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_loss(
    loss: str, logits: Tensor, y: Tensor, targets: Tensor | None, clean_logits: Tensor | None, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, whether y is the largest, and margin."""
    z = _computed(logits)
    labels = (y,) if targets is None else (y, targets)
    known = torch.stack([(v >= 0) & (v < z.shape[1]) for v in labels]).all(0)
    y, *others = (v.where(known, 0) for v in labels)
    row = _Row(z, y)
    if loss in ("ce", "odds"):
        value = _saturated(row.half_odds) if loss == "odds" else row.minus_log_truth
    elif loss == "cw":
        value = _saturated(row.at(row.rival) / 2 - row.at(y) / 2)
    elif loss in ("dlr", "dlr_targeted"):
        value = _ratio(row, *others).to(z.dtype)
    else:
        clean = _Row(_computed(clean_logits), y)
        value = _divergence(row, clean)
        if loss == "mart":
            top = torch.exp(row.log_probabilities()).gather(1, row.rival[:, None]).squeeze(1)
            wrong = torch.exp(F.logsigmoid(_saturated(clean.half_odds)))
            value = row.minus_log_truth - torch.log(1.0001 - top + 1e-12) + beta * value * (wrong + 1e-7)
            value = _finite(value)
    finite = z.isfinite().all(1)
    if clean_logits is not None:
        finite = finite & clean_logits.isfinite().all(1)
    with torch.no_grad():
        margin = _saturated(row.at(y) / 2 - row.at(row.rival) / 2)
        margin = margin.where(known & finite, torch.nan)
    return value.where(known & finite, torch.nan), (z.argmax(1) == y) & known, margin


def _computed(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _finite(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``value`` cut to the finite numbers of a dtype, by default its own; its gradient where it is finite itself."""
    largest = torch.finfo(dtype or value.dtype).max
    return value.detach().clamp(-largest, largest) + (value - value.detach()).nan_to_num()


def _saturated(half: Tensor) -> Tensor:
    """2 ``half``, at most the largest number."""
    limit = torch.finfo(half.dtype).max / 2
    return 2 * (half.detach().clamp(-limit, limit) + (half - half.detach()).nan_to_num())


class _Row:
    """Logits and their labels."""

    def __init__(self, z: Tensor, y: Tensor):
        self.z, self.y = z, y
        self.is_y = torch.arange(z.shape[1], device=z.device) == y[:, None]
        wrong = z.masked_fill(self.is_y, -torch.inf)
        self.rival = wrong.argmax(1)
        self.half_odds = wrong.logsumexp(1) / 2 - self.at(y) / 2
        self.half_log_sum = z.logsumexp(1) / 2
        self.minus_log_truth = -F.logsigmoid(-_saturated(self.half_odds))

    def at(self, index: Tensor) -> Tensor:
        return self.z.gather(1, index[:, None]).squeeze(1)

    def log_probabilities(self) -> Tensor:
        wrong = _saturated(self.z / 2 - self.half_log_sum[:, None])
        return torch.where(self.is_y, -self.minus_log_truth[:, None], wrong)


def _divergence(row: _Row, clean: _Row) -> Tensor:
    """KL(clean || row)."""
    half = (clean.z / 2 - row.z / 2) - (clean.half_log_sum - row.half_log_sum)[:, None]
    at_y = (row.minus_log_truth - clean.minus_log_truth)[:, None]
    ratio = torch.where(row.is_y, at_y, _saturated(half))
    probability = clean.log_probabilities().exp()
    total = _finite((probability * ratio).sum(1))
    return total + (-total.detach()).clamp(min=0)


def _ratio(row: _Row, targets: Tensor | None = None) -> Tensor:
    """DLR, in float64: with three equal logits, 1e-12 divides."""
    order = row.z.argsort(dim=1, descending=True, stable=True)
    first, third, fourth = (row.at(order[:, k]).double() for k in (0, 2, 2 if targets is None else 3))
    other = row.at(row.rival if targets is None else targets).double()
    share, spread = row.at(row.y).double() / 4 - other / 4, first / 4 - (third / 8 + fourth / 8) + 0.25e-12
    return _finite(-share / spread, row.z.dtype)
