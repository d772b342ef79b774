"""What an attack must leave as it was: the model, global state, the random generators."""

import torch
from scenarios import Failing, Failure, Network, images, labels
from suite import Case, expect, random_state, seed


def modes(model) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def changed(before: dict, after: dict) -> list[str]:
    def equal(a, b):
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    return [name or "the model" for name in before if not equal(before[name], after[name])]


def settings(model) -> dict[str, object]:
    """requires_grad, and .grad by identity and by value."""
    found = {}
    for name, p in model.named_parameters():
        found[f"{name}.requires_grad"] = p.requires_grad
        found[f"{name}.grad"] = None if p.grad is None else (id(p.grad), p.grad.tolist())
    return found


def fine_tuned() -> Network:
    """A model in the middle of fine-tuning: a frozen layer, and a gradient that waits for the optimizer."""
    model = Network()
    model[0].weight.requires_grad_(False)
    model[8].weight.grad = torch.ones_like(model[8].weight)
    return model


@expect("Training flags are as before, also where a training model has a frozen batch norm.", "training_mode")
def modes_restored(case: Case):
    for model in (Network().train(), Network()):
        if model.training:
            model[1].eval()
        before = modes(model)
        case(model, images(), labels())
        found = changed(before, modes(model))
        assert not found, f"{'train' if before[''] else 'eval'}() model: flag changed of {', '.join(found)}"


@expect("Running statistics are as before, also of a model in training mode.", "training_mode")
def statistics_untouched(case: Case):
    model = Network().train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    case(model, images(), labels())
    found = changed(before, dict(model.named_buffers()))
    assert not found, f"changed: {', '.join(found)}"


@expect("Weights and buffers of a model in eval mode are as before, bit for bit.")
def weights_untouched(case: Case):
    model = Network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    case(model, images(), labels())
    found = changed(before, model.state_dict())
    assert not found, f"changed: {', '.join(found)}"


@expect("Parameters' .grad and requires_grad are as before.")
def gradients_untouched(case: Case):
    model = fine_tuned()
    before = settings(model)
    case(model, images(), labels())
    found = changed(before, settings(model))
    assert not found, f"changed: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"


@expect("No gradient of a parameter is computed: its hooks (DDP's, say) are never called.")
def no_weight_gradients(case: Case):
    model, calls = Network(), []
    for name, p in model.named_parameters():
        p.register_hook(lambda grad, name=name: calls.append(name))
    case(model, images(), labels())
    assert not calls, f"{len(calls)} gradients of parameters are computed in 4 steps"


@expect("If the model raises, the error arrives; training flags, .grad, requires_grad and grad mode are as before.")
def exception_safe(case: Case):
    model = Failing().train(case.can("training_mode"))
    before, flags, grad_mode = settings(model), modes(model), torch.is_grad_enabled()
    try:
        case(model, images(), labels())
    except Failure:
        pass
    except Exception as error:
        raise AssertionError(f"a {type(error).__name__} arrives instead") from error
    else:
        raise AssertionError("the error is swallowed")
    found = changed(flags | before, modes(model) | settings(model))
    assert not found, f"changed: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
    assert torch.is_grad_enabled() == grad_mode, "grad mode is changed"


@expect("Within torch.no_grad() the attack works as outside, and leaves the mode.", "fixed_start")
def under_no_grad(case: Case):
    x, y = images(), labels()
    expected = case(Network(), x, y)
    with torch.no_grad():
        found = case(Network(), x, y)
        assert not torch.is_grad_enabled(), "grad mode is on afterwards"
    assert torch.equal(expected, found), "another result"


@expect("With a fixed start, no random number is drawn: torch's, NumPy's and Python's generators are as before.",
        "fixed_start")  # fmt: skip
def random_state_untouched(case: Case):
    before = random_state()
    case(Network(), images(), labels(), random_start=False)
    found = changed(before, random_state())
    assert not found, f"advanced: {', '.join(found)}"


@expect("Random starts do not reset the global generator.", "random_start")
def random_state_not_reset(case: Case):
    states = []
    for number in (1, 2):
        seed(number)
        case(Network(), images(), labels(), random_start=True)
        states.append(random_state())
    found = [name for name in states[0] if states[0][name] == states[1][name]]
    assert not found, f"the same state after different seeds: {', '.join(found)}"
