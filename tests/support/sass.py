"""What a kernel's machine code consists of."""

import collections
import re
from dataclasses import dataclass

import pytest
from toolkit import NVCC_FLAGS, ROOT, cuobjdump, nvcc, run


@dataclass(frozen=True)
class Kernel:
    name: str  # demangled, without namespaces
    registers: int
    local: int  # bytes of stack and local memory for each thread
    opcodes: collections.Counter  # with modifiers, as LDG.E.128

    def count(self, pattern: str) -> int:
        return sum(n for opcode, n in self.opcodes.items() if re.match(pattern, opcode))

    @property
    def instructions(self) -> int:
        return sum(self.opcodes.values())

    @property
    def special_functions(self) -> int:
        return self.count("MUFU")

    @property
    def doubles(self) -> int:
        return self.count(r"D(ADD|MUL|FMA|SETP|MNMX)|.*\bF64")


def compiled(source, architecture: int, cubin, *flags) -> list[Kernel]:
    """The kernels of a source file."""
    run(nvcc(), *NVCC_FLAGS, *flags, f"-arch=sm_{architecture}", "-cubin", "-o", cubin, source)
    return kernels(cubin)


def kernels_of(*names: str):
    """A fixture: the kernels of these files of csrc/cuda, for each architecture."""

    @pytest.fixture(scope="module", params=[80, 90, 100], ids="sm_{}".format)
    def built(request, tmp_path_factory):
        nvcc(), cuobjdump()
        cubin = tmp_path_factory.mktemp("cubin") / "cubin"
        return [k for n in names for k in compiled(ROOT / "csrc" / "cuda" / f"{n}.cu", request.param, cubin)]

    return built


def kernels(cubin) -> list[Kernel]:
    code, usage = run(cuobjdump(), "-sass", cubin), run(cuobjdump(), "--dump-resource-usage", cubin)
    used = {
        name: (int(registers), int(stack) + int(local))
        for name, registers, stack, local in re.findall(
            r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage
        )
    }
    bodies = dict(body.split(None, 1) for body in code.split("Function : ")[1:])
    names = run("c++filt", *bodies).splitlines()
    return [
        Kernel(re.sub(r"sat_kernels::(cuda::)?", "", name), *used[mangled], _opcodes(bodies[mangled]))
        for mangled, name in zip(bodies, names, strict=True)
    ]


def _opcodes(body: str) -> collections.Counter:
    # An address, perhaps a predicate, the operation. Behind the end there is padding.
    found = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", body)
    return collections.Counter(opcode for opcode in found if opcode != "NOP")
