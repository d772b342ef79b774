"""How strong PGD is beside that of other libraries. Libraries that are not installed are named and left out.

    python benchmarks/strength.py --networks 3 --seeds 6

robust accuracy on the networks of `make demo`, paired by image: held-out images, eps 0.15, 10 steps of 2.5 eps / 10.

    python benchmarks/strength.py --random

the loss reached on 256 images by the ResNet-18 of `make bench`, whose weights are random but for the last layer: eps
4/255, 10 steps of 1/255.
"""

import argparse
import warnings

import torch
from cases import models
from cases.setting import Setting
from yopo import EPS, trained

from sat_kernels import attacks
from sat_kernels.attacks.engine import has_bf16
from sat_kernels.training.config import CompareConfig, TrainConfig

STEPS = 10


def ours(model, eps, alpha, **options):
    return lambda x, y: attacks.PGD(model, eps, alpha, STEPS, **options)(x, y)


def torchattacks_pgd(model, eps, alpha):
    import torchattacks

    return torchattacks.PGD(model, eps, alpha, STEPS)


def foolbox_pgd(model, eps, alpha):
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=STEPS)
    return lambda x, y: attack(wrapped, x, y, epsilons=eps)[1]


def art_pgd(model, eps, alpha):
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    # The shape is not looked at.
    wrapped = PyTorchClassifier(model, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1))
    attack = ProjectedGradientDescent(
        wrapped, eps=eps, eps_step=alpha, max_iter=STEPS, num_random_init=1, batch_size=1024, verbose=False
    )
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


LIBRARIES = {
    "sat_kernels": ours,
    "sat_kernels, bf16": lambda *case: ours(*case, precision="bf16"),
    "sat_kernels, the model as it is": lambda *case: ours(*case, lower=False),
    "torchattacks": torchattacks_pgd,
    "foolbox": foolbox_pgd,
    "adversarial-robustness-toolbox": art_pgd,
}


def usable(models, eps, alpha):
    """(library, the attack on each of the models) of those that are here."""
    for library, make in LIBRARIES.items():
        if "bf16" in library and not has_bf16(torch.device("cpu")):
            print(f"left out: {library}: this machine has no bf16 arithmetic")
            continue
        try:
            yield library, [make(model, eps, alpha) for model in models]
        except ImportError as error:
            print(f"left out: {library}: {error}")


def robust(model, attack, x, y, seed: int) -> torch.Tensor:
    """Per image whether the model withstands the attack."""
    torch.manual_seed(seed)
    x_adv = attack(x, y)
    with torch.no_grad():
        return (model.eval()(x_adv).argmax(1) == y).double()


def on_networks(networks: int, seeds: int, folder: str) -> None:
    names = CompareConfig().activations
    configs = [
        TrainConfig(activation=a, seed=s, output=f"{folder}/{a}/seed{s}") for a in names for s in range(networks)
    ]
    cases = [trained(config) for config in configs]
    found = {}
    for library, made in usable([model for model, _ in cases], EPS, 2.5 * EPS / STEPS):
        found[library] = torch.cat(
            [
                robust(model, attack, *data, seed)
                for (model, data), attack in zip(cases, made, strict=True)
                for seed in range(seeds)
            ]
        )
    print(f"{len(cases)} networks ({', '.join(names)}), {len(cases[0][1][1])} images, {seeds} seeds\n")
    print("|library|robust accuracy, %|ours less it, points|")
    print("|-|-|-|")
    for library, withstood in found.items():
        difference = 100 * (found["sat_kernels"] - withstood)
        error = difference.std() / len(difference) ** 0.5
        print(f"|{library}|{100 * withstood.mean():.2f}|{difference.mean():+.2f} +- {error:.2f}|")


def on_random_weights(count: int = 256, batch: int = 32) -> None:
    setting = Setting()
    model, (x, y) = models.trained(models.RESNET18, "silu", "ours", setting), models.batch(setting, count)
    with torch.no_grad():
        found = {"no attack": models.strength(model, x, y)["loss"]}
    for library, (attack,) in usable([model], 4 / 255, 1 / 255):
        torch.manual_seed(0)
        x_adv = torch.cat([attack(*part) for part in zip(x.split(batch), y.split(batch), strict=True)])
        found[library] = models.strength(model, x_adv, y)["loss"]
    print("|library|mean loss|ours over it|")
    print("|-|-|-|")
    for library, loss in found.items():
        print(f"|{library}|{loss:.4f}|{found['sat_kernels'] / loss:.4f}|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=3, help="of each activation (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=6, help="of the attacks (default: %(default)s)")
    parser.add_argument("--folder", default="runs/yopo", help="where networks are kept (default: %(default)s)")
    parser.add_argument("--random", action="store_true", help="losses on a ResNet-18 with random weights")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.random:
        on_random_weights()
    else:
        on_networks(given.networks, given.seeds, given.folder)


if __name__ == "__main__":
    main()
