"""What other libraries call the arguments of attacks, and an error that says what they are called here."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ClassVar

# Of torchattacks, Foolbox, AutoAttack, advertorch, CleverHans, ART, robustness, adversarial-library and training codes.
_ALIASES = {
    "model": "predict fmodel net network classifier estimator",
    "eps": "epsilon epsilons max_norm radius attack_eps clip_eps",
    "alpha": "step_size stepsize eps_iter eps_step abs_stepsize rel_stepsize lr attack_step sigma fgsm_step",
    "steps": "nb_iter n_iter n_iters num_iter max_iter iters iterations attack_iters perturb_steps num_steps niter "
    "attack_steps attack_iter",
    "random_start": "rand_init random_init rand_start use_rs",
    "norm": "ord order p norm_type lp_norm distance constraint",
    "targeted": "is_targeted",
    "clip_min": "min_val lower_limit",
    "clip_max": "max_val upper_limit",
    "clip_min clip_max": "bounds clip_values clip_range clip_bounds box",
    "restarts": "n_restarts num_restarts nb_restarts random_restarts",
    "restarts random_start": "num_random_init",
    "loss": "loss_fn loss_func loss_function criterion loss_type",
    "init": "init_type random_type delta_init start",
    "replays": "n_repeats minibatch_replays replay_m",
    "decay": "decay_factor momentum mu",
    "n_target_classes": "num_target_classes num_classes n_classes",
    "rho": "thr_decr",
    "early_stop": "early_stopping",
    "generator": "seed rng random_seed",
    "beta": "lamda lambda_ reg_weight",
    "k": "unif",
    "n": "inner_steps inner_iters",
    # Nothing here is like these, whatever they look like.
    "": "eot_iter eot random_eps verbose device batch_size",
}
# Of what an attack is called with.
_CALL_ALIASES = {
    "x": "images image imgs inputs input data xs x_nat x_natural clean",
    "y": "labels label target targets ys y_true criterion",
    "sample_ids": "ids indices index",
}


FOREIGN = {alias: names.split() for names, aliases in _ALIASES.items() for alias in aliases.split()}


FOREIGN_IN_CALLS = {alias: [name] for name, aliases in _CALL_ALIASES.items() for alias in aliases.split()}


class NamesArguments:
    """A base class whose constructors name the right argument where they are given a wrong one."""

    # What an attack has in place of an argument that most have.
    _called: ClassVar[Mapping[str, str]] = {}

    # Not __init__: what is defined there is what signatures and help show. Nor a metaclass, whose call would hide both.
    def __new__(cls, *arguments, **named):
        if named:
            known = _names(cls.__init__)
            _check_names(f"{cls.__name__}()", known, named, FOREIGN, cls._called)
        return super().__new__(cls)

    def __init_subclass__(cls):
        super().__init_subclass__()
        if "__call__" in vars(cls):
            cls.__call__ = _naming(cls.__call__)


def _naming(call: Callable) -> Callable:
    """The call of an attack, of which names that it does not know are the concern of :func:`_check_names`."""
    known = _names(call)

    @functools.wraps(call)
    def named_call(self, *arguments, **named):
        if named:
            _check_names(f"the call of {type(self).__name__}", known, named, FOREIGN_IN_CALLS, {})
        return call(self, *arguments, **named)

    return named_call


def _names(function: Callable) -> list[str] | None:
    """Those of its arguments; None, if it takes others, too."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return None if takes_all else [name for name in parameters if name != "self"]


def _check_names(title: str, known: list[str] | None, named, foreign: dict, called: Mapping[str, str]) -> None:
    """Raises a TypeError for the first of the names that is not known."""
    for name in named if known is not None else ():
        if name not in known:
            meant = [own for own in _meant(name, known, foreign, called) if own in known]
            expected = " and ".join(map(repr, meant)) if meant else f"one of {', '.join(known)}"
            raise TypeError(f"{title} has no argument {name!r}: expected {expected}")


def _meant(name: str, known: list[str], foreign: dict[str, list[str]], called: Mapping[str, str]) -> list[str]:
    ours = {own for names in foreign.values() for own in names}
    every = {own: [own] for own in (*ours, *known)} | foreign
    # Letters in the wrong order first, since modle is more like mode by what they have in common.
    near = [own for own in known if sorted(own) == sorted(name.lower())]
    near = near or difflib.get_close_matches(name.lower(), every, 1, 0.75)
    return [called.get(own, own) for own in every[near[0]]] if near else []
