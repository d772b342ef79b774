"""Ways to damage an attack, by the property that must notice."""

import itertools
import random

import numpy
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

DAMAGES: list[tuple[str, object]] = []


def breaks(*properties: str):
    """Registers a function of (attack, model, x, y, options), which the properties must catch."""

    def register(damage):
        DAMAGES.extend((name, damage) for name in properties)
        return damage

    return register


def changes_result(*properties: str):
    """Registers a function of (x_adv, x) that makes another result."""

    def register(change):
        def damage(attack, model, x, y, options):
            x_adv = attack(model, x, y, **options)
            return change(x_adv, x)

        damage.__name__ = change.__name__
        breaks(*properties)(damage)
        return change

    return register


def changes_options(*properties: str):
    """Registers a function of (options, x) that changes the options in place."""

    def register(change):
        def damage(attack, model, x, y, options):
            change(options, x)
            return attack(model, x, y, **options)

        damage.__name__ = change.__name__
        breaks(*properties)(damage)
        return change

    return register


# Results.


@changes_result("ball")
def one_percent_too_far(x_adv: Tensor, x: Tensor):
    return x + 1.01 * (x_adv - x)


@changes_result("ball_exact", "zero_eps")
def a_few_units_in_the_last_place_too_far(x_adv: Tensor, x: Tensor):
    outwards = torch.where(x_adv >= x, torch.inf, -torch.inf)
    for _ in range(4):  # an L2 step ends 1e-6 inside of the ball, which one does not cross
        x_adv = x_adv.nextafter(outwards)
    return x_adv


@changes_result("box")
def one_unit_above_one(x_adv: Tensor, x: Tensor):
    return torch.where(x_adv == 1, x_adv.nextafter(torch.tensor(2.0)), x_adv)


@changes_result("other_box")
def box_is_always_0_1(x_adv: Tensor, x: Tensor):
    return x_adv.clamp(0, 1)


@changes_result("other_box")
def box_is_left(x_adv: Tensor, x: Tensor):
    return 1.001 * x_adv


@changes_result("plain_result")
def requires_grad(x_adv: Tensor, x: Tensor):
    return x_adv.requires_grad_()


@changes_result("plain_result")
def other_dtype(x_adv: Tensor, x: Tensor):
    return x_adv.double()


@changes_result("plain_result")
def returns_x_where_nothing_moves(x_adv: Tensor, x: Tensor):
    return x if torch.equal(x_adv, x) else x_adv


@changes_result("inputs_untouched")
def writes_into_x(x_adv: Tensor, x: Tensor):
    return x.copy_(x_adv).clone()


@changes_result("inputs_untouched")
def leaves_x_requiring_grad(x_adv: Tensor, x: Tensor):
    x.requires_grad_()
    return x_adv


@breaks("inputs_untouched")
def writes_into_y(attack, model, x, y, options):
    x_adv = attack(model, x, y, **options)
    y.zero_()
    return x_adv


@changes_result("channels_last", "strided")
def confuses_strides(x_adv: Tensor, x: Tensor):
    return torch.as_strided(x_adv, x.shape, x.contiguous().stride())


@breaks("channels_last", "strided")
def views_x(attack, model, x, y, options):
    x.view(len(x), -1)
    return attack(model, x, y, **options)


@breaks("float64")
def rounds_to_float32(attack, model, x, y, options):
    return attack(model, x, y, **options).float().double()


@breaks("float64")
def refuses_float64(attack, model, x, y, options):
    return attack(model.float(), x.float(), y, **options)


@changes_result("any_shape")
def images_only(x_adv: Tensor, x: Tensor):
    return x_adv if x.dim() == 4 else x.clone()


@changes_result("zero_gradient")
def divides_by_the_norm(x_adv: Tensor, x: Tensor):
    norm = torch.linalg.vector_norm((x_adv - x).flatten(1), dim=1)
    return x + (x_adv - x) / norm.reshape(-1, 1, 1, 1) * norm.reshape(-1, 1, 1, 1)


@breaks("nan_sample")
def stops_at_nan(attack, model, x, y, options):
    return x.clone() if model(x).isnan().any() else attack(model, x, y, **options)


@changes_result("under_autocast")
def keeps_the_dtype_of_autocast(x_adv: Tensor, x: Tensor):
    return x_adv.bfloat16() if torch.is_autocast_enabled("cpu") else x_adv


@changes_options("negative_eps")
def sign_of_eps_is_lost(options, x):
    options["eps"] = abs(options["eps"])


# Side effects.


@breaks("modes_restored", "statistics_untouched")
def attacks_in_training_mode(attack, model, x, y, options):
    model.train()
    with torch.no_grad():
        model(x)
    return attack(model, x, y, **options)


@breaks("modes_restored")
def stays_in_eval_mode(attack, model, x, y, options):
    return attack(model.eval(), x, y, **options)


@breaks("modes_restored")
def thaws_frozen_layers(attack, model, x, y, options):
    x_adv = attack(model, x, y, **options)
    model.train(model.training)
    return x_adv


@breaks("weights_untouched")
def changes_a_weight(attack, model, x, y, options):
    weight = next(model.parameters()).data
    weight.copy_(weight.nextafter(torch.tensor(9.0)))
    return attack(model, x, y, **options)


@breaks("weights_untouched")
def changes_a_buffer(attack, model, x, y, options):
    next(model.buffers()).add_(1)
    return attack(model, x, y, **options)


@breaks("gradients_untouched")
def leaves_gradients(attack, model, x, y, options):
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    return attack(model, x, y, **options)


@breaks("gradients_untouched")
def clears_gradients(attack, model, x, y, options):
    model.zero_grad()
    return attack(model, x, y, **options)


@breaks("gradients_untouched")
def adds_to_gradients(attack, model, x, y, options):
    for p in model.parameters():
        if p.grad is not None:
            p.grad += 1
    return attack(model, x, y, **options)


@breaks("gradients_untouched")
def thaws_parameters(attack, model, x, y, options):
    x_adv = attack(model, x, y, **options)
    model.requires_grad_(True)
    return x_adv


@breaks("no_weight_gradients")
def computes_weight_gradients(attack, model, x, y, options):
    torch.autograd.grad(cross_entropy(model(x), y), [*model.parameters()])
    return attack(model, x, y, **options)


@breaks("exception_safe")
def swallows_errors(attack, model, x, y, options):
    try:
        return attack(model, x, y, **options)
    except Exception:
        return x.clone()


@breaks("exception_safe")
def wraps_errors(attack, model, x, y, options):
    try:
        return attack(model, x, y, **options)
    except Exception as error:
        raise RuntimeError("attack failed") from error


@breaks("exception_safe")
def stays_in_another_mode_after_an_error(attack, model, x, y, options):
    training = model.training
    x_adv = attack(model.train(not training), x, y, **options)
    model.train(training)
    return x_adv


@breaks("exception_safe")
def stays_frozen_after_an_error(attack, model, x, y, options):
    x_adv = attack(model.requires_grad_(False), x, y, **options)
    model.requires_grad_(True)
    return x_adv


@breaks("exception_safe")
def leaves_grad_mode_after_an_error(attack, model, x, y, options):
    torch.set_grad_enabled(False)
    x_adv = attack(model, x, y, **options)
    torch.set_grad_enabled(True)
    return x_adv


@breaks("under_no_grad")
def needs_grad_mode(attack, model, x, y, options):
    return attack(model, x, y, **options) if torch.is_grad_enabled() else x.clone()


@breaks("under_no_grad")
def switches_grad_mode_on(attack, model, x, y, options):
    torch.set_grad_enabled(True)
    return attack(model, x, y, **options)


@changes_options("random_state_untouched")
def draws_from_torch(options, x):
    torch.rand(1)


@changes_options("random_state_untouched")
def draws_from_numpy(options, x):
    numpy.random.rand()  # noqa: NPY002


@changes_options("random_state_untouched")
def draws_from_python(options, x):
    random.random()


@changes_options("random_state_not_reset", "starts_are_random")
def reseeds(options, x):
    torch.manual_seed(0)


@breaks("interrupt_safe")
def takes_ctrl_c_for_an_error(attack, model, x, y, options):
    try:
        return attack(model, x, y, **options)
    except KeyboardInterrupt:
        return x.clone()


@breaks("interrupt_safe")
def stays_frozen_after_an_interrupt(attack, model, x, y, options):
    x_adv = attack(model.requires_grad_(False), x, y, **options)
    model.requires_grad_(True)
    return x_adv


@breaks("under_inference_mode")
def stops_in_inference_mode(attack, model, x, y, options):
    return x.clone() if torch.is_inference_mode_enabled() else attack(model, x, y, **options)


@breaks("hooks_count")
def leaves_hooks_out(attack, model, x, y, options):
    for module in model.modules():
        module._forward_hooks.clear()
    return attack(model, x, y, **options)


@breaks("compiled_model")
def looks_only_at_plain_modules(attack, model, x, y, options):
    compiled = isinstance(model, torch._dynamo.OptimizedModule)
    return x.clone() if compiled else attack(model, x, y, **options)


@breaks("reduced_precision")
def keeps_the_dtype_of_the_weights(attack, model, x, y, options):
    dtype = next(model.parameters()).dtype
    return attack(model, x, y, **options).to(dtype)


@breaks("reduced_precision")
def goes_by_way_of_the_dtype_of_the_weights(attack, model, x, y, options):
    dtype = next(model.parameters()).dtype
    return attack(model, x, y, **options).to(dtype).float()


# Strength.


@changes_options("linear_optimum", "success")
def half_of_eps(options, x):
    options["eps"] = options["eps"] / 2


@changes_options("linear_optimum", "success", "lowers_accuracy", "targeted")
def step_is_a_hundredth(options, x):
    options["alpha"] = options["alpha"] / 100


@changes_result("loss_does_not_fall")
def one_sample_goes_downhill(x_adv: Tensor, x: Tensor):
    return torch.cat([(2 * x - x_adv)[:1], x_adv[1:]])


@changes_options("alone_as_in_batch")
def step_depends_on_the_batch_size(options, x):
    options["alpha"] = options["alpha"] * (1 - 0.1 / len(x))


@changes_options("vector_eps", "vector_eps_ball")
def largest_eps_for_all(options, x):
    if isinstance(options["eps"], Tensor):
        options["eps"] = options["eps"].max().item()


@changes_options("vector_eps", "vector_eps_ball")
def eps_in_another_order(options, x):
    if isinstance(options["eps"], Tensor):
        options["eps"] = options["eps"].flip(0)


@breaks("no_label")
def takes_class_0_for_the_label(attack, model, x, y, options):
    return attack(model, x, torch.zeros(len(x), dtype=torch.int64) if y is None else y, **options)


@changes_options("targeted")
def ignores_targeted(options, x):
    options["targeted"] = False


@changes_options("restarts")
def ignores_restarts(options, x):
    options["restarts"] = 1


@changes_options("restarts")
def the_last_restart_wins(options, x):
    torch.manual_seed(options.get("restarts", 1))
    options["restarts"] = 1


calls = itertools.count()


@changes_result("reproducible")
def something_else_decides(x_adv: Tensor, x: Tensor):
    return x_adv - 1e-6 * (next(calls) % 2)


@changes_options("starts_are_random")
def starts_at_the_input(options, x):
    options["random_start"] = False


@changes_result("starts_are_random")
def one_start_for_all_samples(x_adv: Tensor, x: Tensor):
    return x + (x_adv - x)[:1]
