"""Arguments by other libraries' names, and by names with a typo."""

import copy
import inspect
import pickle

import pytest
from torch import nn

from sat_kernels import attacks
from sat_kernels.attacks.foreign_names import FOREIGN

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
