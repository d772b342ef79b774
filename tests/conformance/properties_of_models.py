"""What models an attack must be able to attack, as they are."""

import torch
from properties_of_side_effects import changed, modes, settings
from scenarios import Failing, Network, images, labels
from suite import Case, expect

from sat_kernels.testing import check_feasible


class Interrupted(Failing):
    """Ctrl-C in its third forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return super().forward(x)
        except Exception as error:
            raise KeyboardInterrupt from error


class Bfloat16(Network):
    """Computes in bfloat16, and takes and returns float32."""

    def __init__(self):
        super().__init__()
        self.bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self[0].weight.dtype)).float()


@expect("After Ctrl-C training flags, .grad, requires_grad and grad mode are as before.")
def interrupt_safe(case: Case):
    model = Interrupted().train(case.can("training_mode"))
    before, flags = settings(model), modes(model)
    try:
        case(model, images(), labels())
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("the interrupt is swallowed")
    found = changed(flags | before, modes(model) | settings(model))
    assert not found, f"changed: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
    assert torch.is_grad_enabled(), "grad mode is changed"


@expect("Within torch.inference_mode() the attack works as outside.", "fixed_start")
def under_inference_mode(case: Case):
    x, y = images(), labels()
    model = Network()
    expected = case(model, x, y)
    with torch.inference_mode():
        found = case(model, x.clone(), y.clone())
    assert torch.equal(expected, found), "another result"


@expect("Hooks of the model's parts run, and what they change is attacked.", "fixed_start")
def hooks_count(case: Case):
    x, y = images(), labels()
    plain, hooked = Network(), Network()
    for number in (0, 3):  # upside down
        hooked[number].register_forward_hook(lambda module, inputs, output: -output)
    upside_down = Network()
    with torch.no_grad():
        for number in (0, 3):
            upside_down[number].weight.neg_()
            upside_down[number].bias.neg_()
    found = case(hooked, x, y)
    assert not torch.equal(found, case(plain, x, y)), "the result is that without hooks"
    error = (found - case(upside_down, x, y)).abs().max()
    assert error < 1e-5, f"another result than that of a model which is what the hooks make of it, by {error:.1e}"


@expect("A model that torch.compile has compiled gives the result of the model itself.", "fixed_start")
def compiled_model(case: Case):
    x, y = images(), labels()
    model = Network()
    compiled = torch.compile(model, backend="eager")
    compiled.classes = model.classes
    error = (case(compiled, x, y) - case(model, x, y)).abs().max()
    assert error < 1e-5, f"another result, by {error:.1e}"


@expect("A model that computes in bfloat16 is attacked in float32: results are in ball and box, to 1e-5.")
def reduced_precision(case: Case):
    x, y = images(), labels()
    x_adv = case(Bfloat16(), x, y)
    assert x_adv.dtype == torch.float32, f"the result is {x_adv.dtype}"
    assert (x_adv != x).any(), "nothing has moved"
    far = check_feasible(x_adv, x, case.eps + 1e-5, case.norm).violations
    assert not far, f"{far} outside of a slightly larger ball or of the box"
