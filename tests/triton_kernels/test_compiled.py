"""The machine code that Triton makes of the kernels, for GPUs that need not be there."""

import functools
import importlib.util
import os

import pytest

from sat_kernels.activations import ACTIVATIONS

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton.language as tl
from triton_code import CUOBJDUMP, Code, check_elements

from sat_kernels.triton_kernels import (
    conv_act,
    conv_act_operators,
    elementwise,
    l1,
    l2,
    latent,
    latent_operators,
    momentum,
    norm_operators,
    operators,
    perturbation,
    starts,
    state,
)  # fmt: skip
from sat_kernels.triton_kernels.formulas import formula

pytestmark = pytest.mark.skipif(not CUOBJDUMP.exists(), reason="this Triton has no cuobjdump")
SECOND = {"double_backward": "second", "parameter_backward": "parameters"}
PASSES = ("forward", "backward", "double_backward")


def elements(name, dtype, call, arch=90, folder=None, tail=False, divisible="!"):
    """The kernel of a pass, and how many elements a thread has."""
    row = ACTIVATIONS[name]
    parameters = len(row.parameters) if row.learnable else 0
    compute = "fp64" if dtype == "fp64" else "fp32"
    sums = call == "parameter_backward"
    size = operators.SUMS_TILE if sums else operators.TILE
    pointer = f"*{dtype}{divisible}"
    types = {"input": pointer, "out": pointer, "size": "i32" if tail else "i32!"}
    types |= {} if call == "forward" else {"grad": pointer}
    types |= {"grad_grad": pointer, "grad_out": pointer} if call == "double_backward" else {}
    types |= {"sums": f"*{compute}!", "step": "i32"} if sums else {}
    number = f"*{compute}" if parameters else ("i64" if compute == "fp64" else "i32")
    types |= {"first": number, "second": number}
    constants = {
        "PASS": call, "F": formula(name, "value" if call == "forward" else "derivative"),
        "G": formula(name, SECOND[call]) if call in SECOND else None, "PARAMETERS": parameters,
        "COMPUTE": tl.float64 if compute == "fp64" else tl.float32,
        "FAST": dtype in ("bf16", "fp16") and not sums, "SIZE": size, "TAIL": tail,
    }  # fmt: skip
    options = operators.options(size)
    return Code(elementwise.flat, types, constants, arch, options, folder), size // (32 * options["num_warps"])


@functools.cache
def calls(name):
    return (*PASSES, "parameter_backward") if ACTIVATIONS[name].learnable else PASSES


@pytest.mark.parametrize("call", ["forward", "backward"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name, call, tmp_path):
    """In bfloat16 and float32; where numbers are learned, backward is with their gradients."""
    call = "parameter_backward" if call == "backward" and ACTIVATIONS[name].learnable else call
    for dtype in ("bf16", "fp32") if call == "forward" else ("fp32",):
        code, _ = elements(name, dtype, call, folder=tmp_path)
        check_elements(code, dtype)


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize(
    ("name", "dtype", "call"), [("silu", "fp16", "forward"), ("smu", "bf16", "parameter_backward")]
)
def test_every_architecture(name, dtype, call, arch, tmp_path):
    check_elements(elements(name, dtype, call, arch, tmp_path)[0], dtype)


# Instructions and special functions for each element, with what a thread does once. At 4.3 TB/s an H200 has time for 28
# to 31 instructions in a forward pass and 41 to 46 in a backward one, of which 3.5 special functions.
BUDGETS = {"forward": 31, "backward": 41}


@pytest.mark.parametrize("call", BUDGETS)
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["silu", "gelu", "softplus", "mish"])
def test_16_bit_budgets(name, dtype, call, tmp_path):
    code, per_thread = elements(name, dtype, call, folder=tmp_path)
    check_elements(code, dtype)
    # One more for the reciprocal of Softplus's beta.
    assert code.count["MUFU"] <= 3 * per_thread
    assert len(code.instructions) <= BUDGETS[call] * per_thread


@pytest.mark.parametrize(("dtype", "call"), [("bf16", "double_backward"), ("fp32", "forward"), ("fp64", "backward")])
def test_tails(dtype, call, tmp_path):
    """Of any length they cost only the last tile its vector accesses."""
    code, _ = elements("silu", dtype, call, folder=tmp_path, tail=True)
    check_elements(code, dtype)


def test_addresses_that_are_not_multiples_of_16(tmp_path):
    """The check above can fail; and alignment comes from Triton, by the pointers' values."""
    code, _ = elements("silu", "fp32", "forward", folder=tmp_path, divisible="")
    code.check(128)
    assert not any(".128" in name for name in code.accesses("LDG"))


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_parameters_per_channel(layout, tmp_path):
    outer, channels, inner = (8, 64, 784) if layout == "NCHW" else (6272, 64, 1)
    box = operators.box_of(outer, channels, inner, operators.SUMS_TILE)
    types = dict.fromkeys(("grad", "input", "out"), "*bf16!") | dict.fromkeys(("first", "second", "sums"), "*fp32!")
    types |= {"step": "i32!", "outer": "i32!", "channels": "i32!"} | ({"inner": "i32!"} if inner > 1 else {})
    constants = {
        "PASS": "parameter_backward", "F": formula("swish", "derivative"), "G": formula("swish", "parameters"),
        "PARAMETERS": 1, "COMPUTE": tl.float32, "FAST": False, "inner": 1,
        "OUTER": box[0], "CHANNELS": box[1], "INNER": box[2],
    }  # fmt: skip
    options = operators.options(operators.SUMS_TILE)
    code = Code(elementwise.per_channel, types, constants, 90, options, tmp_path)
    check_elements(code, "bf16")


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_sums(dtype, tmp_path):
    types = dict.fromkeys(("sums", "first_grad", "second_grad"), f"*{dtype}!")
    types |= dict.fromkeys(("step", "splits", "channels"), "i32!")
    options = operators.options(operators.SUMS_TILE)
    code = Code(elementwise.add_up, types, {"SPLITS": 128, "CHANNELS": 32}, 90, options, tmp_path)
    code.check(128)
    assert (".f64" in code.ptx) == (dtype == "fp64")
    assert not {"ATOM", "ATOMG", "RED", "REDG"} & set(code.count)


def step_types(grad, plain, names=()):
    """Of the arguments of a step with numbers for all, or with everything that there is."""
    types = dict.fromkeys(("x_adv", "x", *names), "*fp32!") | {"grad": f"*{grad}!"}
    types |= dict.fromkeys(("alpha", "eps", "lowest", "highest", "tiles", "decay"), "i32")
    types |= dict.fromkeys(("sample_size", "channels", "inner"), "i32!") | {"channels": "i32"}
    if not plain:
        types |= dict.fromkeys(("alpha", "eps", "mean", "deviation"), "*fp32") | {"out": "*bf16!"}
        types |= {"mask": "*i1!", "active": "*i1"}
        numbers = [f"{kind}_{stride}" for kind in ("alpha", "eps", "out") for stride in ("sample", "channel")]
        types |= dict.fromkeys((*numbers, "out_place"), "i32")
    return types


@pytest.mark.parametrize("kind", ["plain", "with options", "with options in order", "apgd"])
@pytest.mark.parametrize("grad", ["fp32", "bf16"])
def test_the_step(grad, kind, tmp_path):
    plain = kind == "plain"
    types = step_types(grad, plain, ["x_prev"] * (kind == "apgd"))
    constants = {"ALPHA": 0 if plain else 1, "EPS": 0 if plain else 2, "FIRST": False, "TAIL": False}
    constants |= {"IN_ORDER": kind == "with options in order", "SIZE": operators.TILE}
    options = {"num_warps": operators.WARPS, "enable_fp_fusion": False}
    code = Code(perturbation.step_linf, types, constants, 90, options, tmp_path)
    code.check(64 if plain else 128)
    check_elements(code, "fp32")
    # Nothing may be contracted or flushed to zero.
    assert ".ftz" not in code.ptx
    assert "fma" not in code.ptx


@pytest.mark.parametrize("grad", ["fp32", "bf16"])
def test_momentum(grad, tmp_path):
    types = step_types(grad, False, ["momentum"])
    constants = {"ALPHA": 1, "EPS": 2, "IN_ORDER": False, "SIZE": operators.TILE}
    options = {"num_warps": operators.WARPS, "enable_fp_fusion": False}
    code = Code(momentum.momentum_step, types, constants, 90, options, tmp_path)
    code.check(128)
    assert ".ftz" not in code.ptx


@pytest.mark.parametrize(
    ("kernel", "dtype", "grad"),
    [("l2", "fp64", "fp64"), ("apgd_l2", "fp32", "fp32"), ("l1", "fp32", "bf16"), ("apgd_l1", "fp64", "fp64")],
)
def test_norm_steps(kernel, dtype, grad, tmp_path):
    """With everything that there is, which is most registers."""
    types = {name: kind.replace("fp32", dtype) for name, kind in step_types(grad, False).items()}
    types |= {"mean": "*fp32", "deviation": "*fp32"}
    types |= dict.fromkeys(("lowest", "highest"), "i64" if dtype == "fp64" else "i32")
    types |= {"x_prev": f"*{dtype}!"} if kernel == "apgd_l2" else {}
    types |= {"top_k": "*i64", "top_k_sample": "i32"} if kernel.endswith("l1") else {}
    step = l2.step_l2 if kernel.endswith("l2") else l1.step_l1
    types = {name: kind for name, kind in types.items() if name in step.arg_names}
    constants = {"ALPHA": 1, "EPS": 1, "TOP_K": True, "SKIP_FACES": kernel == "l1", "FIRST": False, "IN_ORDER": False}
    constants["SIZE"] = norm_operators.TILE
    code = Code(step, types, constants, 90, norm_operators.LAUNCH, tmp_path)
    code.check(128)
    # Numbers that are computed in every pass must be the same.
    assert ".ftz" not in code.ptx
    assert "fma" not in code.ptx


@pytest.mark.parametrize("kernel", ["linf", "momentum", "l2", "l1"])
def test_samples_of_one_number(kernel, tmp_path):
    """Arguments of 1 are constants."""
    kernels = {"linf": perturbation.step_linf, "momentum": momentum.momentum_step, "l2": l2.step_l2, "l1": l1.step_l1}
    ones = dict.fromkeys(("sample_size", "channels", "inner", "out_sample", "out_channel", "out_place"), 1)
    types = step_types("fp32", True, ["momentum"]) | {"top_k": "i32", "out": "*bf16!", "mean": "*fp32"}
    types = {name: kind for name, kind in types.items() if name in kernels[kernel].arg_names and name not in ones}
    constants = ones | {"ALPHA": 0, "EPS": 0, "TOP_K": False, "SKIP_FACES": True, "FIRST": True, "IN_ORDER": False}
    constants |= {"SIZE": operators.TILE, "TAIL": True}
    Code(kernels[kernel], types, constants, 90, WITHOUT_FUSION, tmp_path).check(128)


WITHOUT_FUSION = {"num_warps": operators.WARPS, "enable_fp_fusion": False}


@pytest.mark.parametrize(("norm", "noise", "radius"), [("Linf", "uniform", "bounded"), ("L2", "normal", "volume")])
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_random_starts(dtype, norm, noise, radius, tmp_path):
    bits = "i64" if dtype == "fp64" else "i32"
    types = {
        "x": f"*{dtype}!",
        "x_adv": f"*{dtype}!",
        "scale": bits,
        "eps": f"*{dtype}",
        "seed": "*i64",
        "restart": "i32",
    }
    types |= {"lowest": bits, "highest": bits, "sample_ids": "*i64", "sample_size": "i32", "channels": "i32"}
    types |= {"chunks": "i32"}
    constants = {
        "NOISE": noise, "RADIUS": radius, "NORM": norm, "SCALE_OF": "number", "EPS_OF": "each", "SEED_OF": True,
        "RESTART_OF": False, "CHANNELS": True, "SIZE": operators.TILE,
    }  # fmt: skip
    code = Code(starts.start, types, constants, 90, WITHOUT_FUSION, tmp_path)
    code.check(255)
    # Linf's product and sum are rounded one by one. (CUDA's exponential of a double, of which L2's lengths are made,
    # looks at its sign by a flushing instruction.)
    assert norm != "Linf" or not ("fma" in code.ptx or ".ftz" in code.ptx)


@pytest.mark.parametrize("sparse", [False, True])
def test_state(sparse, tmp_path):
    names = ("best_loss", "previous_loss", "checkpoint_loss", "step_size", "largest_step", "loss")
    types = dict.fromkeys(("x_adv", "best", "fooling"), "*fp32!") | dict.fromkeys(("grad", "best_grad"), "*i16!")
    types |= dict.fromkeys(names, "*fp32") | dict.fromkeys(("reduced", "success", "fooled"), "*u8") | {"rises": "*i64"}
    types |= {"x": "*fp32!", "top_k": "*i64", "sparsity": "*i64"} if sparse else {}
    types |= {"size": "i32", "few_rises": "i32"}
    constants = {"CHECKPOINT": True, "SPARSE": sparse, "SIZE": operators.TILE}
    code = Code(state.apgd_update, types, constants, 90, WITHOUT_FUSION, tmp_path)
    code.check(128)
    # No warp writes what others decide by before they have.
    assert code.count["BAR"]
    types = dict.fromkeys(("best", "x_adv"), "*fp32!") | dict.fromkeys(("best_loss", "loss"), "*fp32")
    types |= dict.fromkeys(("success", "fooled"), "*u8") | {"size": "i32"}
    code = Code(state.keep_best, types, {"SIZE": operators.TILE}, 90, WITHOUT_FUSION, tmp_path)
    code.check(64)
    assert code.count["BAR"]


def latent_types(dtype, of_channels, step):
    """Of the arguments of kernels of perturbed activations. of_channels: all numbers are; a step has bounds, then."""
    compute, bits = ("fp64", "i64") if dtype == "fp64" else ("fp32", "i32")
    types = {"z": f"*{dtype}!", "delta": f"*{compute}!", "out": f"*{dtype}!"}
    types |= dict.fromkeys(("first", "second"), f"*{compute}" if of_channels else bits)
    types |= {"tiles": "i32", "sample_size": "i32!", "channels": "i32", "inner": "i32!"}
    if step:
        types |= {"alpha": bits, "eps": bits}
    if step and of_channels:
        sizes = ("alpha", "eps", "lo", "hi")
        types |= dict.fromkeys(sizes, f"*{compute}")
        types |= dict.fromkeys((f"{size}_{of}" for size in sizes for of in ("sample", "channel")), "i32")
    return types


@pytest.mark.parametrize(
    ("form", "dtype", "name", "of_channels", "arch"),
    [
        ("forward", "bf16", "silu", False, 90),
        ("forward", "fp32", "smu", True, 80),
        ("backward", "fp16", "mish", False, 80),
        ("linf", "bf16", "silu", False, 80),
        ("linf", "bf16", "silu", False, 90),
        ("linf", "fp32", "smu", True, 90),
    ],
)
def test_perturbed_activations(form, dtype, name, of_channels, arch, tmp_path):
    types = latent_types(dtype, of_channels, form == "linf") | ({} if form == "forward" else {"grad": f"*{dtype}!"})
    constants = {
        "PASS": form, "F": formula(name, "value" if form == "forward" else "derivative"),
        "FAST": form != "linf" and dtype != "fp32", "WIDE": False, "SIZE": operators.TILE, "TAIL": False,
    }  # fmt: skip
    constants |= dict.fromkeys(("NUMBERS", "ALPHA", "EPS", "LO", "HI"), 2 if of_channels else 0)
    code = Code(latent.perturbed, types, constants, arch, WITHOUT_FUSION, tmp_path)
    check_elements(code, dtype)
    assert form != "linf" or ".ftz" not in code.ptx


@pytest.mark.parametrize(("dtype", "name", "arch"), [("fp32", "smu", 90), ("bf16", "silu", 80), ("fp64", "serf", 90)])
def test_latent_l2_steps(dtype, name, arch, tmp_path):
    """With everything that there is, which is most registers."""
    types = latent_types(dtype, True, True) | {"grad": f"*{dtype}!"}
    types = {name: kind for name, kind in types.items() if name in latent.step_l2.arg_names}
    constants = {"F": formula(name, "derivative"), "NUMBERS": 2, "ALPHA": 1, "EPS": 1, "LO": 2, "HI": 2}
    constants |= {"WIDE": False, "SIZE": latent_operators.L2_TILE}
    code = Code(latent.step_l2, types, constants, arch, norm_operators.LAUNCH, tmp_path)
    code.check(128)
    assert code.accesses("LDG") & {"LDG.E.64", "LDG.E.128"}
    assert ".ftz" not in code.ptx


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dtype", "arch"), [(3, 1, "fp32", 80), (7, 2, "bf16", 90), (16, 16, "bf16", 80)]
)
def test_first_layers(kernel, stride, dtype, arch, layout, tmp_path):
    types = dict.fromkeys(("x", "x_adv", "weight", "bias", "mean"), "*fp32!")
    types |= dict.fromkeys(("grad", "y", "z"), f"*{dtype}!") | {"lowest": "i32", "highest": "i32"}
    types |= dict.fromkeys(("first", "second"), "i32")
    image = ("sample", "channel", "row", "column")
    types |= dict.fromkeys([f"x_{of}" for of in image], "i32!")
    types |= dict.fromkeys((f"{t}_{of}" for t in "yz" for of in ("sample", "filter", "row", "column")), "i32!")
    types |= {"alpha": "*fp32", "eps": "i32", "alpha_sample": "i32", "alpha_channel": "i32"}
    sizes = ("plane", "samples", "height", "width", "filters", "out_height", "out_width", "place_width", "padding")
    types |= dict.fromkeys((*sizes, "stride"), "i32")
    one = ("x_channel", "y_filter", "z_filter") if layout == "channels_last" else ("x_column", "y_column", "z_column")
    columns = max(conv_act_operators.LEAST_COLUMNS, min(conv_act_operators.MOST_COLUMNS, 4 * stride**2))
    for step in (False, True):
        called = conv_act.step_linf if step else conv_act.forward
        constants = {
            "CHANNELS": 3, "KERNEL_HEIGHT": kernel, "KERNEL_WIDTH": kernel, "STRIDE": stride, "NUMBERS": 0,
            "F": formula("gelu", "derivative" if step else "value"), "FAST": dtype != "fp32", "ALPHA": 2, "EPS": 0,
            "PLACES": conv_act_operators.PLACES, "TAPS": conv_act_operators.INNER, "COLUMNS": columns,
            "FILTERS": conv_act_operators.INNER if step else conv_act_operators.FILTERS, **dict.fromkeys(one, 1),
        }  # fmt: skip
        chosen = {name: kind for name, kind in types.items() if name in called.arg_names and name not in one}
        code = Code(called, chosen, constants, arch, conv_act_operators.LAUNCH, tmp_path)
        # A few numbers are kept in memory where that makes room for another block.
        code.check(255, stack=64)
        assert code.count["FFMA"] > 16
        # No tensor cores, which round to TF32.
        assert not {name for name in code.count if "MMA" in name}
        assert ".f64" not in code.ptx
        assert ".ftz" not in code.ptx or not step


@pytest.mark.parametrize("kernel", [latent.perturbed, latent.step_l2, conv_act.forward, conv_act.step_linf])
def test_fused_kernels_of_one_number(kernel, tmp_path):
    """Arguments of 1 are constants."""
    types = dict.fromkeys(("grad", "z", "delta", "out", "x", "x_adv", "y", "weight", "lo", "hi"), "*fp32!")
    types |= dict.fromkeys(("first", "second", "alpha", "eps", "lowest", "highest", "tiles"), "i32")
    types = {name: kind for name, kind in types.items() if name in kernel.arg_names}
    others = ("kernel", "lo_", "hi_", "alpha_", "eps_", "x_", "y_", "z_", "out_", "place_")
    sizes = ("sample_size", "channels", "inner", "plane", "samples", "height", "width", "filters", "stride", "padding")
    ones = {name for name in kernel.arg_names if name in sizes or name.startswith(others)} - {"x_adv"}
    constants = dict.fromkeys((*ones, "CHANNELS", "KERNEL_HEIGHT", "KERNEL_WIDTH", "STRIDE"), 1)
    constants |= dict.fromkeys(("NUMBERS", "ALPHA", "EPS"), 0) | dict.fromkeys(("FAST", "WIDE", "TAIL"), False)
    constants |= dict.fromkeys(("LO", "HI"), 2) | dict.fromkeys(("PLACES", "FILTERS", "TAPS", "COLUMNS"), 16)
    formula_of = formula("silu", "value" if kernel is conv_act.forward else "derivative")
    constants |= {"PASS": "linf", "F": formula_of, "SIZE": operators.TILE}
    Code(kernel, types, constants, 90, WITHOUT_FUSION, tmp_path).check(255, stack=64)
