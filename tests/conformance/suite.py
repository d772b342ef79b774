"""What a property is, and how one is checked against a library."""

import random
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy
import torch
from adapters import CAPABILITIES, Adapter
from scenarios import Linear, images, labels

# eps and alpha for 192 values in [0, 1]. float32 numbers, so that nobody is blamed for how eps is rounded.
SIZES = {"Linf": (torch.tensor(8 / 255).item(), torch.tensor(2 / 255).item()), "L2": (0.5, 0.125), "L1": (4.0, 1.0)}


class Case:
    """An adapter's attack for one norm, with sizes that suit the norm unless others are given."""

    def __init__(self, adapter: Adapter, norm: str):
        self.adapter, self.norm = adapter, norm
        self.eps, self.alpha = SIZES[norm]

    def can(self, capability: str) -> bool:
        return not self.reason(capability)

    def reason(self, capability: str) -> str | None:
        """Why the library cannot do it for this norm; None if it can."""
        assert capability in CAPABILITIES
        lacks = self.adapter.lacks
        return lacks.get(capability) or lacks.get(f"{capability} {self.norm}")

    def __call__(self, model, x, y, **options) -> torch.Tensor:
        sizes = {"eps": self.eps, "alpha": self.alpha, "steps": 4, "random_start": not self.can("fixed_start")}
        return self.adapter.attack(model, x, y, norm=self.norm, **(sizes | options))


@dataclass(frozen=True)
class Property:
    name: str
    statement: str
    check: Callable[[Case], None]
    needs: tuple[str, ...]

    def skip_reason(self, case: Case) -> str | None:
        return next((reason for need in self.needs if (reason := case.reason(need))), None)


PROPERTIES: dict[str, Property] = {}


def expect(statement: str, *needs: str):
    """Registers a function of a :class:`Case`; it raises AssertionError, with what it measured, where it fails."""

    def register(check):
        PROPERTIES[check.__name__] = Property(check.__name__, statement, check, needs)
        return check

    return register


def seed(number: int) -> None:
    torch.manual_seed(number)
    numpy.random.seed(number)  # noqa: NPY002 - the global state is what attacks draw from
    random.seed(number)


def random_state() -> dict[str, object]:
    name, keys, *rest = numpy.random.get_state()  # noqa: NPY002
    return {"torch": torch.get_rng_state().tolist(), "numpy": [name, keys.tolist(), *rest], "random": random.getstate()}


@contextmanager
def own_random_state():
    torch_state, numpy_state, python_state = (
        torch.get_rng_state(),
        numpy.random.get_state(),  # noqa: NPY002
        random.getstate(),
    )
    grad_enabled = torch.is_grad_enabled()
    try:
        seed(0)
        yield
    finally:
        torch.set_rng_state(torch_state)
        numpy.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        torch.set_grad_enabled(grad_enabled)


def check_that_it_runs(adapter: Adapter) -> None:
    """A plain call must work, or the library is not installed or the adapter wrong: no property would tell."""
    with own_random_state():
        for norm in adapter.norms:
            Case(adapter, norm)(Linear(), images(), labels())


@dataclass(frozen=True)
class Outcome:
    status: str  # "pass", "fail" or "skip"
    reason: str = ""


def evaluate(prop: Property, adapter: Adapter, norm: str) -> Outcome:
    """What comes of a property; an exception of the library's is a failure, too."""
    case = Case(adapter, norm)
    if norm not in adapter.norms:
        return Outcome("skip", f"no {norm}")
    if reason := prop.skip_reason(case):
        return Outcome("skip", reason)
    try:
        with own_random_state():
            prop.check(case)
    except AssertionError as error:
        # A library's own assertions say what it found; bare ones say where.
        return Outcome("fail", str(error).strip().split("\n")[0] or _where(sys.exc_info()[2]))
    except Exception as error:
        return Outcome("fail", f"raises {type(error).__name__}: {str(error).strip().splitlines()[0][:80]}")
    return Outcome("pass")


def _where(traceback) -> str:
    while traceback.tb_next:
        traceback = traceback.tb_next
    return f"an assertion fails in {traceback.tb_frame.f_code.co_name}()"
