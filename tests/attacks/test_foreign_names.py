"""Arguments by other libraries' names, and by names with a typo."""

import copy
import inspect
import pickle

import pytest
from torch import nn

from sat_kernels import attacks
from sat_kernels.attacks.foreign_names import FOREIGN, FOREIGN_IN_CALLS
from sat_kernels.nn import PerturbedActivation

ATTACKS = [getattr(attacks, name) for name in attacks.__all__ if name != "Normalized"]


@pytest.mark.parametrize(
    ("attack", "name", "words"),
    [
        ("PGD", "epsilon", "'eps'"),
        ("PGD", "step_size", "'alpha'"),
        ("PGD", "eps_iter", "'alpha'"),
        ("PGD", "eps_step", "'alpha'"),
        ("PGD", "nb_iter", "'steps'"),
        ("PGD", "n_iter", "'steps'"),
        ("PGD", "max_iter", "'steps'"),
        ("PGD", "rand_init", "'random_start'"),
        ("PGD", "n_restarts", "'restarts'"),
        ("PGD", "num_random_init", "'restarts' and 'random_start'"),
        ("PGD", "ord", "'norm'"),
        ("PGD", "loss_fn", "'loss'"),
        ("PGD", "bounds", "'clip_min' and 'clip_max'"),
        ("PGD", "predict", "'model'"),
        ("PGD", "seed", "'generator'"),
        ("PGD", "restart", "'restarts'"),
        ("PGD", "EPS", "'eps'"),
        ("PGD", "epsilom", "'eps'"),
        ("MIFGSM", "decay_factor", "'decay'"),
        ("APGD", "thr_decr", "'rho'"),
        ("SLAT", "eps_iter", "'alpha'"),
        ("YOPO", "epsilon", "'eps'"),
        ("TRADES", "perturb_steps", "'steps'"),
        ("FGSM", "nb_iter", "one of model, eps, random_start, alpha,"),  # it has none
        ("APGD", "alpha", "one of model, eps, steps,"),
        ("PGD", "verbose", "one of model, eps, alpha, steps, random_start,"),
    ],
)
def test_the_right_name_is_named(net, attack, name, words):
    with pytest.raises(TypeError) as error:
        getattr(attacks, attack)(net, **{name: 1})
    assert str(error.value).startswith(f"{attack}() has no argument {name!r}: expected {words}")


# What is called so elsewhere, and what it is called here.
ELSEWHERE = {
    "torchattacks": {"eps": "eps", "alpha": "alpha", "steps": "steps", "random_start": "random_start", "decay": "decay",
                     "n_restarts": "restarts", "loss": "loss", "rho": "rho", "seed": "generator", "norm": "norm",
                     "eot_iter": "", "verbose": "", "n_classes": "n_target_classes"},
    "foolbox": {"abs_stepsize": "alpha", "rel_stepsize": "alpha", "epsilons": "eps", "bounds": "clip_min clip_max",
                "fmodel": "model", "momentum": "decay", "criterion": "loss", "distance": "norm"},
    "AutoAttack": {"predict": "model", "n_iter": "steps", "n_target_classes": "n_target_classes", "thr_decr": "rho",
                   "device": "", "eot": ""},
    "advertorch": {"loss_fn": "loss", "nb_iter": "steps", "eps_iter": "alpha", "rand_init": "random_start",
                   "decay_factor": "decay", "ord": "norm", "clip_min": "clip_min", "targeted": "targeted"},
    "ART": {"estimator": "model", "eps_step": "alpha", "max_iter": "steps", "num_random_init": "restarts random_start",
            "clip_values": "clip_min clip_max", "batch_size": "", "random_eps": ""},
    "training codes": {"epsilon": "eps", "step_size": "alpha", "num_steps": "steps", "perturb_steps": "steps",
                       "attack_iters": "steps", "order": "norm", "delta_init": "init", "lamda": "beta",
                       "attack_eps": "eps",
                       "attack_step": "alpha", "attack_iter": "steps", "early_stopping": "early_stop"},
    "mistyped": {"stpes": "steps", "step": "steps", "ESP": "eps", "restart": "restarts", "aplha": "alpha",
                 "moddel": "model", "modle": "model", "targetted": "targeted", "precison": "precision",
                 "comiple": "compile", "clipmin": "clip_min", "clip_mx": "clip_max", "lowers": "lower",
                 "earlystop": "early_stop"},
}  # fmt: skip
# What an attack has in place of what others have.
INSTEAD = {
    "YOPO": {"steps": "m"},
    "NFGSM": {"alpha": "eps", "random_start": "k"},
    "TRADES": {"random_start": "init"},
    "MART": {"random_start": "init"},
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_calls(net, batch, attack):
    """As of FGSM()(images=x, labels=y)."""
    x, y = batch
    net[2] = PerturbedActivation("silu", eps=0.1)
    made, title = attack(net), f"the call of {attack.__name__}"
    wrong = [({"images": x}, "images", "'x'"), ({"eps": 1}, "eps", "one of x")]
    if attack is not attacks.Free:
        wrong += [({"x": x, "label": y}, "label", "'y'"), ({"x": x, "smaple_ids": y}, "smaple_ids", "'sample_ids'")]
        assert made(y=y, x=x).shape == x.shape
    for named, name, words in wrong:
        with pytest.raises(TypeError, match=f"^{title} has no argument '{name}': expected {words}"):
            made(**named)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        made()


def test_names_in_calls():
    own = {name for attack in ATTACKS for name in inspect.signature(attack.__call__).parameters}
    assert {name for names in FOREIGN_IN_CALLS.values() for name in names} == own - {"self"}
    assert not own & set(FOREIGN_IN_CALLS)


@pytest.mark.parametrize("library", ELSEWHERE)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_every_attack_names_what_it_has(net, attack, library):
    known = list(inspect.signature(attack).parameters)
    for name, ours in ELSEWHERE[library].items():
        if name in known:
            continue
        instead = INSTEAD.get(attack.__name__, {})
        meant = [own for own in (instead.get(own, own) for own in ours.split()) if own in known]
        expected = " and ".join(map(repr, meant)) if meant else f"one of {', '.join(known)}"
        with pytest.raises(TypeError) as error:
            attack(net, **{name: 1})
        assert str(error.value) == f"{attack.__name__}() has no argument {name!r}: expected {expected}"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_typos(net, attack):
    """Two letters exchanged, one doubled, one left out."""
    known = list(inspect.signature(attack).parameters)
    for own in known:
        for i in range(len(own) - 1) if len(own) > 4 else ():
            for typo in {
                own[:i] + own[i + 1] + own[i] + own[i + 2 :],
                own[:i] + own[i] + own[i:],
                own[:i] + own[i + 1 :],
            }:
                if typo not in known:
                    with pytest.raises(TypeError, match=f"has no argument '{typo}': expected '{own}'"):
                        attack(net, **{typo: 1})


def test_names_are_those_of_arguments():
    """What the table names exists, and what exists is no foreign name."""
    own = {name for attack in ATTACKS for name in inspect.signature(attack).parameters}
    assert {name for names in FOREIGN.values() for name in names} <= own
    assert not own & set(FOREIGN)


@pytest.mark.parametrize("attack", ATTACKS)
def test_signatures_are_shown_as_they_are(attack):
    parameters = inspect.signature(attack).parameters
    assert next(iter(parameters)) == "model"
    assert "eps" in parameters
    assert not {"arguments", "named", "self"} & set(parameters)


def test_other_ways_to_be_made(net):
    class Mine(attacks.PGD):
        def __init__(self, model, strength, **others):
            super().__init__(model, eps=strength, **others)

    assert Mine(net, strength=0.5, steps=3).eps == 0.5
    with pytest.raises(TypeError, match="unexpected keyword argument 'epsilon'"):
        Mine(net, 0.5, epsilon=3)
    attack = attacks.PGD(nn.Linear(3, 2), 0.5, steps=3)
    assert copy.deepcopy(attack).steps == pickle.loads(pickle.dumps(attack)).steps == 3
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'model'"):
        attacks.PGD()
