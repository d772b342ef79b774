"""AutoAttack's rules for APGD, one sample after the other in plain Python, and a driver for random sequences."""

import math

import torch

from sat_kernels.ops import APGDState, apgd_checkpoints, apgd_update_


class Sample:
    """One sample of APGD. Points and gradients are known by the number of the step that they come from."""

    def __init__(self, loss, fooled, eps, norm, size):
        self.norm, self.size, self.eps = norm, size, eps
        self.losses, self.best_loss = [loss], loss
        self.best = self.point = self.fooling = 0
        self.success = fooled
        self.step_size = eps if norm == "L1" else 2 * eps
        self.reduced, self.best_at_checkpoint, self.last_checkpoint = True, loss, 0
        self.top_k, self.sparsity = math.ceil(0.2 * size - 1e-9), size

    def update(self, loss, fooled, at_checkpoint, moved):
        """``moved``: how many coordinates the point of a step has moved, by the step's number."""
        step = len(self.losses)
        self.losses.append(loss)
        self.point = step
        if fooled:
            self.success, self.fooling = True, step
        if loss > self.best_loss or (math.isnan(self.best_loss) and not math.isnan(loss)):
            self.best, self.best_loss = step, loss
        if not at_checkpoint:
            return
        if self.check_sparsity(moved[self.best]) if self.norm == "L1" else self.check_rises(step):
            self.point = self.best

    def check_rises(self, step):
        k = step - self.last_checkpoint
        rises = sum(self.losses[j] > self.losses[j - 1] for j in range(self.last_checkpoint + 1, step + 1))
        before, now = self.best_at_checkpoint, self.best_loss
        unchanged = not (now > before or (math.isnan(before) and not math.isnan(now)))
        self.reduced = rises <= 0.75 * k or (not self.reduced and unchanged)
        self.best_at_checkpoint, self.last_checkpoint = now, step
        if self.reduced:
            self.step_size /= 2
        return self.reduced

    def check_sparsity(self, moved):
        restart = self.sparsity > 0 and moved / self.sparsity < 0.95
        self.step_size = self.eps if restart else max(self.step_size / 1.5, self.eps / 10)
        # The place in the ascending gradients from which on they are moved.
        self.top_k = self.size - min(math.floor((1 - moved / self.size / 1.5) * self.size + 1e-9), self.size - 1)
        self.sparsity = moved
        return restart


def run(losses, fooled, norm, eps, shape, seed, update=apgd_update_, lay_out=lambda t: t, grad_dtype=torch.float32):
    """Runs both on given (steps + 1, B) losses and successes, and compares them after every step."""
    steps, batch = losses.shape[0] - 1, losses.shape[1]
    generator, dtype, size = torch.Generator().manual_seed(seed), losses.dtype, math.prod(shape)
    x = lay_out(torch.rand(batch, *shape, generator=generator).to(dtype))

    def point():
        moved = torch.rand(batch, *shape, generator=generator) < torch.rand(
            batch, *[1] * len(shape), generator=generator
        )
        made = torch.where(moved, torch.rand(batch, *shape, generator=generator).to(dtype) + 2, x)
        return lay_out(made), lay_out(torch.randn(batch, *shape, generator=generator).to(grad_dtype))

    points, counts = [], []
    for _ in range(steps + 1):
        points.append(point())
        counts.append((points[-1][0] != x).flatten(1).sum(1).tolist())
    state = APGDState.start(*(lay_out(t.clone()) for t in points[0]), losses[0], fooled[0], eps=eps, norm=norm)
    radii = eps.tolist() if isinstance(eps, torch.Tensor) else [eps] * batch
    samples = [Sample(*s, e, norm, size) for *s, e in zip(losses[0].tolist(), fooled[0].tolist(), radii, strict=True)]
    checkpoints, last = apgd_checkpoints(steps, norm), 0
    for step in range(1, steps + 1):
        x_adv, grad = (lay_out(t.clone()) for t in points[step])
        now = step in checkpoints
        update(state, x_adv, grad, losses[step], fooled[step], x=x, checkpoint=step - last if now else 0)
        last = step if now else last
        for b, sample in enumerate(samples):
            sample.update(losses[step, b].item(), fooled[step, b].item(), now, [c[b] for c in counts])
            compare(state, x_adv, grad, sample, points, b)
    return state


def compare(state, x_adv, grad, sample, points, b):
    def same(found, expected):
        return torch.equal(found[b], expected[b])

    assert same(state.best, points[sample.best][0])
    assert same(state.best_grad, points[sample.best][1])
    assert same(state.fooling, points[sample.fooling][0])
    assert same(x_adv, points[sample.point][0])
    assert same(grad, points[sample.point][1])
    assert state.best_loss[b].item() == sample.best_loss or math.isnan(sample.best_loss)
    assert state.success[b].item() == sample.success
    assert math.isclose(state.step_size[b].item(), sample.step_size, rel_tol=1e-6)
    if sample.norm == "L1":
        assert state.top_k[b].item() == sample.top_k
        assert state.sparsity[b].item() == sample.sparsity
