"""How strong PGD is beside that of other libraries, on the networks of `make demo`: robust accuracy, paired by image.

    python benchmarks/strength.py --networks 2 --seeds 6

All held-out images, eps 0.15, 10 steps of 2.5 eps / 10. Libraries that are not installed are named and left out.
"""

import argparse
import warnings

import torch
from yopo import EPS, trained

from sat_kernels import attacks
from sat_kernels.attacks.engine import has_bf16
from sat_kernels.training.config import TrainConfig

STEPS = 10
ALPHA = 2.5 * EPS / STEPS


def ours(model, **options):
    return lambda x, y: attacks.PGD(model, EPS, ALPHA, STEPS, **options)(x, y)


def torchattacks_pgd(model):
    import torchattacks

    return torchattacks.PGD(model, EPS, ALPHA, STEPS)


def foolbox_pgd(model):
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=STEPS)
    return lambda x, y: attack(wrapped, x, y, epsilons=EPS)[1]


def art_pgd(model):
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(model, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1))
    attack = ProjectedGradientDescent(
        wrapped, eps=EPS, eps_step=ALPHA, max_iter=STEPS, num_random_init=1, batch_size=1024, verbose=False
    )
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


LIBRARIES = {
    "sat_kernels": ours,
    "sat_kernels, bf16": lambda model: ours(model, precision="bf16"),
    "sat_kernels, the model as it is": lambda model: ours(model, lower=False),
    "torchattacks": torchattacks_pgd,
    "foolbox": foolbox_pgd,
    "adversarial-robustness-toolbox": art_pgd,
}


def robust(model, attack, x, y, seed: int) -> torch.Tensor:
    """Per image whether the model withstands the attack."""
    torch.manual_seed(seed)
    x_adv = attack(x, y)
    with torch.no_grad():
        return (model.eval()(x_adv).argmax(1) == y).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=2, help="of each activation (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=6, help="of the attacks (default: %(default)s)")
    parser.add_argument("--folder", default="runs/yopo", help="where networks are kept (default: %(default)s)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    networks = [
        trained(TrainConfig(activation=name, seed=s, output=f"{given.folder}/{name}/seed{s}"))
        for name in ("relu", "silu")
        for s in range(given.networks)
    ]
    found = {}
    for library, make in LIBRARIES.items():
        if "bf16" in library and not has_bf16(torch.device("cpu")):
            print(f"left out: {library}: this machine has no bf16 arithmetic")
            continue
        try:
            made = [(model, make(model), *data) for model, data in networks]
        except ImportError as error:
            print(f"left out: {library}: {error}")
            continue
        found[library] = torch.cat([robust(*case, seed) for case in made for seed in range(given.seeds)])
    print("|library|robust accuracy, %|ours less it, points|")
    print("|-|-|-|")
    for library, withstood in found.items():
        difference = 100 * (found["sat_kernels"] - withstood)
        error = difference.std() / len(difference) ** 0.5
        print(f"|{library}|{100 * withstood.mean():.2f}|{difference.mean():+.2f} +- {error:.2f}|")


if __name__ == "__main__":
    main()
