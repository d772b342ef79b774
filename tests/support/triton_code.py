"""What Triton makes of a kernel, for a GPU that need not be there. Needs triton."""

import collections
import re
import subprocess
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"


class Code:
    """What the compiler made: its PTX, registers, bytes of stack and instructions."""

    def __init__(self, kernel, types: dict, constants: dict, arch: int, options: dict, folder: Path):
        """``types`` of the arguments that are no constants; those that end in ! are divisible by 16."""
        signature = {name: types.get(name, "constexpr").rstrip("!") for name in kernel.arg_names}
        values = {name: constants.get(name) for name, kind in signature.items() if kind == "constexpr"}
        divisible = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(signature) if types.get(n, "").endswith("!")}
        source = ASTSource(kernel, signature, values, divisible)
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
        self.ptx, self.ttir = compiled.asm["ptx"], compiled.asm["ttir"]
        cubin = folder / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = self._dump("-res-usage", cubin)
        self.registers, self.stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
        sass = self._dump("-sass", cubin)
        self.instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)", sass, re.M)
        self.count = collections.Counter(name.split(".")[0] for name in self.instructions)

    @staticmethod
    def _dump(what, cubin):
        return subprocess.run([CUOBJDUMP, what, cubin], capture_output=True, text=True, check=True).stdout

    def accesses(self, kind):
        return {name for name in self.instructions if name.startswith(kind)}

    def check(self, registers, stack=0):
        assert self.instructions
        assert self.stack <= stack
        assert not self.count["LDL"] or stack
        assert not self.count["STL"] or stack
        assert self.registers <= registers
        # Tensors have more than 2^31 elements: 32-bit products, and offsets of vectors, would overflow.
        offsets = re.findall(r"tt\.addptr .*, tensor<[0-9x]*(i\d+)>", self.ttir)
        assert offsets
        assert set(offsets) == {"i64"}
        assert not re.search(r"arith\.muli .* : (tensor<[0-9x]*)?i32", self.ttir)


def check_elements(code, dtype, tail=False):
    # Seven blocks of 128 threads fill an SM's 65,536 registers at 72, three of 256 at 85; float64 has fewer elements.
    code.check(255 if dtype == "fp64" else 128)
    assert (".f64" in code.ptx) == (dtype == "fp64")
    loads = {name for name in code.accesses("LDG") if ".128" in name}
    assert loads
    assert any(".128" in name for name in code.accesses("STG"))
    assert re.search(r"ld\.global\.v[24]\.b(32|64)", code.ptx)
    assert re.search(r"st\.global\.v[24]\.b(32|64)", code.ptx)
