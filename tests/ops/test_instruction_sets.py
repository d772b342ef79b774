"""The kernels that machines with lesser instruction sets use."""

import os
import subprocess
import sys
from pathlib import Path

import attack_results
import pytest
import torch
from raw import needs_extension

FILES = ("test_activation.py", "test_activation_16_bit.py", "test_activation_parameters.py")
FILES += ("test_activation_layouts.py", "test_perturbation.py", "test_norm_steps.py")
FILES += ("test_latent.py", "test_conv_act.py")
# Not what only concerns the operators around the kernels.
TESTS = (
    "hard_points or every_16_bit or limits or kinks or single or completely or exact or feasib or any_shape or types"
)


@needs_extension
def test_kernels_for_lesser_machines():
    """The same tests on the baseline's kernels, which are compiled without fused multiply-add."""
    tests = [str(Path(__file__).with_name(name)) for name in FILES]
    environment = {**os.environ, "SAT_KERNELS_CPU_CAPABILITY": "baseline"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", TESTS, *tests]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    code = "import sat_kernels; print(sat_kernels.build_info()['cpu_capability'])"
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "baseline"


@needs_extension
@pytest.mark.parametrize("capability", ["baseline", "avx2"])
def test_convolutions_on_lesser_machines(capability):
    """Vectors of another width."""
    environment = {**os.environ, "SAT_KERNELS_CPU_CAPABILITY": capability}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-k",
        TESTS,
        str(Path(__file__).with_name("test_winograd.py")),
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]


@needs_extension
@pytest.mark.parametrize("capability", ["baseline", "avx2"])
def test_attacks_on_lesser_machines(capability, tmp_path):
    """Linf steps, starts and state are the same bits; what needs sums or logarithms is as near as roundings are."""
    file = tmp_path / "results.pt"
    environment = {**os.environ, "SAT_KERNELS_CPU_CAPABILITY": capability}
    subprocess.run([sys.executable, attack_results.__file__, file], env=environment, check=True)
    kept = torch.load(file)
    if kept["capability"] != capability:
        pytest.skip(f"this machine has no {capability}")
    for dtype in (torch.float32, torch.float64):
        found, wanted = kept["results"][str(dtype)], attack_results.results(dtype)
        assert found.keys() == wanted.keys()
        for name, tensor in found.items():
            exact = name.startswith("Linf")
            # Starts have 24 bits of noise; out is float32.
            single = dtype == torch.float32 or "out" in name or "start" in name
            tolerance = 0 if exact else 4e-6 if single else 1e-12
            torch.testing.assert_close(
                tensor, wanted[name], rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
            )
