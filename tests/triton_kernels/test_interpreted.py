"""The Triton kernels on the CPU, by Triton's interpreter: the operators' own tests, and those of this folder that need
it. Each group is a process of its own, since Triton asks for the interpreter when it is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is the interpreter"),
]
HERE = Path(__file__).parent
OPS = HERE.parent / "ops"
TRITON = {"SAT_KERNELS_BACKEND": "triton"}

# Left out: sums in float64, which these kernels do not have, and bfloat16, of which the interpreter knows no denormals
# and rounds towards zero (test_bfloat16.py).
GROUPS = {
    "values": (TRITON, "(hard_points and float64) or limits or kinks", [OPS / "test_activation.py"]),
    "parameters": (TRITON, "hard_points and float64", [OPS / "test_activation_parameters.py"]),
    "float16": (TRITON, "not bfloat16", [OPS / "test_activation_16_bit.py"]),
    "bfloat16": (TRITON, "", [HERE / "test_bfloat16.py"]),
    "steps": (
        TRITON,
        "not dtype2 and (exact or per_sample or layouts or special or many_steps)",
        [OPS / "test_perturbation.py"],
    ),
    "norm steps": (
        TRITON,
        "(types and (32-torch.float16 or 64-torch.float64)) or points_inside or ties or faces_are or infinite_gradients"
        " or masks or output or (autoattacks and l2 and float32)",
        [OPS / "test_norm_steps.py"],
    ),
    "starts and state": (
        TRITON,
        "(plain_path and not dtype1) or one_eps or known_answers or keep_best or (layouts and lay_out0)",
        [OPS / "test_starts.py", OPS / "test_state.py"],
    ),
    "losses": (
        TRITON,
        "((definitions and 33-10) or without_finite or no_rows) and not bfloat16",
        [OPS / "test_losses.py"],
    ),
    "derivatives": (TRITON, "test_derivatives and (mish or smu or celu)", [OPS / "test_activation_autograd.py"]),
    "latents": (TRITON, "", [HERE / "test_latent.py"]),
    "first layers": (TRITON, "", [HERE / "test_conv_act.py"]),
    "after convolutions": (TRITON, "", [HERE / "test_affine_act.py"]),
    "memory": ({"SAT_KERNELS_BACKEND": "auto"}, "", [HERE / "test_memory.py"]),
}
# The quotients that a GPU would find, in float32.
ROUGH = [OPS / "test_activation.py", OPS / "test_activation_parameters.py"]
for direction, some in (("1", ""), ("-1", " and (silu or mish or smooth_relu or gelu)")):
    GROUPS[f"rough quotients {direction}"] = ({**TRITON, "ROUGH": direction}, f"hard_points and float32{some}", ROUGH)


@pytest.mark.parametrize("group", GROUPS)
def test_interpreted(group):
    environment, tests, files = GROUPS[group]
    # Philox is long: there the interpreter's time does go by elements.
    plugins = [] if group in ("memory", "starts and state") else ["-p", "large_tiles"]
    plugins += ["-p", "rough_divisions"] if "ROUGH" in environment else []
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    # numpy warns of the overflows that formulas select away.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore::RuntimeWarning", *plugins, "-k", tests, *files]
    result = subprocess.run(
        [str(word) for word in command],
        cwd=HERE.parents[1],
        env={**os.environ, **environment, "TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    last = result.stdout.strip().splitlines()[-1]
    assert "passed" in last
    assert "skipped" not in last
