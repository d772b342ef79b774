"""What other libraries call the arguments of attacks, and an error that says what they are called here."""

import difflib
import inspect
from collections.abc import Mapping
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
FOREIGN = {alias: names.split() for names, aliases in _ALIASES.items() for alias in aliases.split()}


_OURS = {name for names in FOREIGN.values() for name in names}


class NamesArguments:
    """A base class whose constructors name the right argument where they are given a wrong one."""

    # What an attack has in place of an argument that most have.
    _called: ClassVar[Mapping[str, str]] = {}

    # Not __init__: what is defined there is what signatures and help show. Nor a metaclass, whose call would hide both.
    def __new__(cls, *arguments, **named):
        if named:
            check_names(cls, named)
        return super().__new__(cls)


def check_names(attack: type[NamesArguments], named) -> None:
    """Raises a TypeError for the first of the names that ``attack`` has no argument of."""
    parameters = inspect.signature(attack.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [name for name in parameters if name != "self"]
    for name in named:
        if name not in known:
            meant = [own for own in _meant(name, known, attack._called) if own in known]
            expected = " and ".join(map(repr, meant)) if meant else f"one of {', '.join(known)}"
            raise TypeError(f"{attack.__name__}() has no argument {name!r}: expected {expected}")


def _meant(name: str, known: list[str], called: Mapping[str, str]) -> list[str]:
    every = {own: [own] for own in (*_OURS, *known)} | FOREIGN
    # Letters in the wrong order first, since modle is more like mode by what they have in common.
    near = [own for own in known if sorted(own) == sorted(name.lower())]
    near = near or difflib.get_close_matches(name.lower(), every, 1, 0.75)
    return [called.get(own, own) for own in every[near[0]]] if near else []
