"""The steps of a check on a GPU, most important first. Expected seconds are for one H100 with 16 CPU cores."""

from dataclasses import dataclass, field, replace

# No step may take longer: a machine that is lent for ten minutes has to give two steps a chance.
LIMIT = 290.0


@dataclass(frozen=True)
class Step:
    """One command, run in the source tree.

    ``{python}`` stands for this interpreter and ``{folder}`` for the step's own folder, into which it writes
    ``junit.xml`` (tests) or ``rows.jsonl`` (figures). ``needs``: facts about the machine without which it is left out.
    """

    name: str
    learnt: str
    command: tuple[str, ...]
    expected: float
    environment: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    limit: float = LIMIT


def _tests(name, learnt, files, expected, backend, *, wrapper=(), select=(), needs=()):
    # Without --strict-config: pytest-timeout, whose setting pyproject.toml has, may be missing.
    pytest = ("{python}", "-m", "pytest", "-o", "addopts=--import-mode=importlib -ra --strict-markers", "-q")
    pytest += ("-p", "no:cacheprovider", "--junitxml={folder}/junit.xml", *select)
    environment = {"SAT_KERNELS_BACKEND": backend, "SAT_KERNELS_REQUIRE_GPU": "1"}
    needed = ("nvcc",) if backend == "cuda" else ("triton",)
    files = tuple(f"tests/gpu/test_{file}.py" for file in files)
    return Step(name, learnt, (*wrapper, *pytest, *files), expected, environment, (*needed, *needs))


def _sanitizer(tool, file="short"):
    # Only our kernels: torch's own are many, and reading what nobody wrote is their business.
    wrapper = ("compute-sanitizer", "--tool", tool, "--kernel-regex", "kns=sat_kernels", "--error-exitcode", "99")
    # Every kernel is instrumented when it is first used: half of the types are enough. ("float16" is in "bfloat16".)
    select = ("-k", "float32 or bfloat16")
    learnt, name = f"no findings by compute-sanitizer {tool}", tool
    if file != "short":
        learnt, name = f"{learnt} in {file}", f"{tool}-{file}"
    step = _tests(name, learnt, [file], 120, "cuda", wrapper=wrapper, select=select, needs=("compute_sanitizer",))
    # torch's cache hands out pieces of large allocations, whose ends the tool does not know.
    return replace(step, environment={**step.environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def _rows(name, learnt, suite, expected, backend="cuda", *more, needs=()):
    command = ("{python}", "-m", "gpu.bench", suite, "--output", "{folder}/rows.jsonl", *more)
    needed = ("nvcc",) if backend == "cuda" else ("triton",)
    return Step(name, learnt, command, expected, {"SAT_KERNELS_BACKEND": backend}, (*needed, *needs))


# What a backend's tests are split into, with expected seconds under CUDA and under Triton, which compiles as it goes.
_PARTS = {
    "accuracy": (["accuracy"], "hard points in many digits, all 65,536 numbers of 16 bits", 60, 150),
    "layouts": (["layouts"], "layouts, in place, opcheck, mixed devices", 60, 180, ("-k", "not completely")),
    "poison": (["layouts"], "outputs are written completely", 20, 120, ("-k", "completely")),
    "parameters": (["parameters"], "parameters per channel, deterministic sums", 60, 150),
    "execution": (["step", "execution"], "bit-equal step, streams, graphs, autocast, devices", 40, 90),
    "attacks": (["norm_steps", "losses", "starts_and_state"], "steps in every norm, losses, starts, state", 60, 180),
    "fused": (["fused"], "latent steps, first layers, the inner loop", 60, 200),
    "affine": (["affine_act"], "what follows a convolution, forward and backward", 30, 150),
    "engine": (["engine"], "gradients from the lowered model, in fp32 and bf16; whole attacks", 60, 150),
    "large": (["large"], "more than 2^31 elements", 60, 90),
}


def _parts(backend):
    for name, (files, learnt, cuda, triton, *select) in _PARTS.items():
        expected = cuda if backend == "cuda" else triton
        chosen = select[0] if select else ()
        yield _tests(f"{name}-{backend}", f"{backend}: {learnt}", files, expected, backend, select=chosen)


STEPS = (
    Step("build", "the extension builds for this GPU", ("{python}", "-m", "gpu.build"), 120),
    Step("info", "what was built, and what runs where", ("{python}", "-m", "sat_kernels.cli", "info"), 10),
    _tests("short-cuda", "every CUDA kernel agrees with the definitions on short tensors", ["short"], 30, "cuda"),
    _rows("bandwidth", "share of copy bandwidth and ratio to ATen at 256 MiB", "bandwidth", 60),
    _rows("step", "the Linf step against its limit and its rivals", "step", 40),
    *_parts("cuda"),
    _tests(
        "short-triton", "every Triton kernel agrees with the definitions on short tensors", ["short"], 150, "triton"
    ),
    _rows("bandwidth-triton", "bandwidth of the Triton kernels at 256 MiB", "bandwidth", 120, "triton"),
    *(_sanitizer(tool) for tool in ("memcheck", "racecheck", "initcheck", "synccheck")),
    # Barriers that the emulation cannot see the need of.
    *(_sanitizer("racecheck", file) for file in ("norm_steps", "losses")),
    _sanitizer("memcheck", "fused"),
    _sanitizer("racecheck", "fused"),
    _sanitizer("memcheck", "affine_act"),
    _rows("sizes", "1 MiB to 1 GiB against ATen", "sizes", 90),
    _rows("compiled-bfloat16", "against Inductor", "compiled", 240, "cuda", "--dtypes", "bfloat16"),
    _rows("compiled-float32", "against Inductor", "compiled", 240, "cuda", "--dtypes", "float32"),
    _rows("passes", "second derivatives and gradients of parameters; compositions", "passes", 90),
    _rows("operators", "L2, L1 and momentum steps, losses and starts against eager", "attacks", 120),
    _rows("fused", "latent steps, first and later layers, inner loop against eager and compiled", "fused", 200),
    _rows("overhead", "host time per call", "overhead", 30),
    _rows("backends", "Triton against CUDA, in turns", "backends", 120, "cuda", needs=("triton",)),
    *_parts("triton"),
    _rows("compiled-float16", "against Inductor", "compiled", 240, "cuda", "--dtypes", "float16"),
    _rows("operators-triton", "the same through Triton", "attacks", 150, "triton"),
    _rows("overhead-triton", "host time per call through Triton", "overhead", 30, "triton"),
)
