"""Other attack libraries, called as their documentation says."""

import math

import numpy
import torch
from adapters import Adapter
from torch import Tensor

ORDERS = {"Linf": math.inf, "L2": 2, "L1": 1}


class TorchAttacks(Adapter):
    name = "torchattacks"
    norms = ("Linf", "L2")
    lacks = {
        "no_label": "labels are required",
        "per_sample_eps": "eps is documented as a float",
        "restarts": "PGD has none",
        "box": "images must have range [0, 1]",
        "any_shape": "documented for (N, C, H, W)",
    }
    causes = {
        "channels_last": "`.view` of the gradient",
        "strided": "`.view` of the gradient",
        "modes_restored": "`model.train()` also reaches frozen layers",
        "exception_safe": "no try: the model stays in eval mode",
        "under_no_grad": "grad mode is the caller's",
    }

    def attack(self, model, x, y, *, eps, alpha, steps, norm, random_start, targeted=False):
        import torchattacks

        make = {"Linf": torchattacks.PGD, "L2": torchattacks.PGDL2}[norm]
        attack = make(model, eps=eps, alpha=alpha, steps=steps, random_start=random_start)
        if targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        return attack(x, y)


class Foolbox(Adapter):
    name = "foolbox"
    norms = ("Linf", "L2", "L1")
    lacks = {
        "no_label": "labels are required",
        "per_sample_eps": "a list of epsilons holds for all samples",
        "training_mode": "asks for model.eval() by a warning",
    }
    causes = {
        "gradients_untouched": "eagerpy calls `.backward()`",
        "no_weight_gradients": "eagerpy calls `.backward()`",
        "exception_safe": "gradients of the passes before it",
        "under_no_grad": "the loss is computed in the caller's grad mode",
        "linear_optimum": "L1 steps follow the dense gradient, and the projection rescales",
        "success": "L1 steps follow the dense gradient, and the projection rescales",
    }

    def attack(self, model, x, y, *, eps, alpha, steps, norm, random_start, targeted=False, box=(0.0, 1.0), restarts=1):
        import foolbox

        make = {"Linf": foolbox.attacks.LinfPGD, "L2": foolbox.attacks.L2PGD, "L1": foolbox.attacks.L1PGD}[norm]
        attack = make(abs_stepsize=alpha, steps=steps, random_start=random_start)
        attack = attack.repeat(restarts) if restarts > 1 else attack
        criterion = (foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification)(y)
        _, clipped, _ = attack(foolbox.PyTorchModel(model, bounds=box, device=x.device), x, criterion, epsilons=eps)
        return clipped


class ART(Adapter):
    name = "adversarial-robustness-toolbox"
    norms = ("Linf", "L2", "L1")
    lacks = {"float64": "a setting of its configuration file decides the dtype"}
    causes = {
        "under_autocast": "logits go through NumPy, which has no bfloat16",
        "modes_restored": "`eval()` without a way back",
        "gradients_untouched": "`.backward()`",
        "no_weight_gradients": "`.backward()`",
        "exception_safe": "gradients and eval mode stay",
        "under_no_grad": "grad mode is the caller's",
        "random_state_untouched": "its DataLoader draws a seed",
        "lowers_accuracy": "every L1 step takes the one pixel of largest gradient, also when that is at the box's face",
        "targeted": "every L1 step takes the one pixel of largest gradient, also when that is at the box's face",
    }

    def attack(self, model, x, y, *, eps, alpha, steps, norm, random_start, targeted=False, box=(0.0, 1.0), restarts=1):
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        if isinstance(eps, Tensor):  # both or none, in a shape that broadcasts against x
            eps = eps.reshape(-1, *(1,) * (x.dim() - 1)).numpy()
            alpha = numpy.full_like(eps, alpha)
        classifier = PyTorchClassifier(
            model, torch.nn.CrossEntropyLoss(), x.shape[1:], model.classes, clip_values=box, device_type="cpu"
        )
        attack = ProjectedGradientDescent(
            classifier,
            norm=ORDERS[norm],
            eps=eps,
            eps_step=alpha,
            max_iter=steps,
            targeted=targeted,
            num_random_init=restarts if random_start else 0,
            batch_size=len(x),
            verbose=False,
        )
        return torch.from_numpy(attack.generate(x.detach().numpy(), None if y is None else y.numpy()))


class CleverHans(Adapter):
    name = "cleverhans"
    norms = ("Linf", "L2")
    lacks = {"per_sample_eps": "eps is compared with numbers", "restarts": "there are none"}
    causes = {
        "plain_result": "the last step's graph hangs on it",
        "float64": "the gradient step casts x to float32",
        "nan_sample": "a sanity check of the step's norm",
        "statistics_untouched": "the model's mode is the caller's",
        "gradients_untouched": "`.backward()`",
        "no_weight_gradients": "`.backward()`",
        "exception_safe": "gradients of the passes before it",
        "under_no_grad": "grad mode is the caller's",
    }

    def attack(self, model, x, y, *, eps, alpha, steps, norm, random_start, targeted=False, box=(0.0, 1.0)):
        from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

        options = {"clip_min": box[0], "clip_max": box[1], "y": y, "targeted": targeted, "rand_init": random_start}
        return projected_gradient_descent(model, x, eps, alpha, steps, ORDERS[norm], **options)


class AdvLib(Adapter):
    """PGD for Linf; for L2 and L1 it has APGD, which chooses its own steps."""

    name = "adv-lib"
    norms = ("Linf", "L2", "L1")
    lacks = {
        "no_label": "labels are required",
        "box": "inputs should be in [0, 1]",
        "fixed_start L2": "APGD starts at random",
        "fixed_start L1": "APGD starts at random",
    }
    causes = {
        "statistics_untouched": "the model's mode is the caller's",
        "under_no_grad": "grad mode is the caller's",
    }

    def attack(self, model, x, y, *, eps, alpha, steps, norm, random_start, targeted=False, restarts=1):
        from adv_lib.attacks import apgd, pgd_linf

        options = {"targeted": targeted, "loss_function": "ce"}
        if norm != "Linf":
            return apgd(model, x, y, eps, ORDERS[norm], n_iter=steps, n_restarts=restarts, **options)
        options |= {"random_init": random_start, "absolute_step_size": alpha, "restarts": restarts}
        return pgd_linf(model, x, y, eps, steps=steps, **options)


PEERS = (TorchAttacks, Foolbox, ART, CleverHans, AdvLib)
