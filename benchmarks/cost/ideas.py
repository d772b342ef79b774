"""What an idea makes of a step's operators. Each takes operators and returns others that do the same."""

from collections.abc import Sequence
from dataclasses import replace

from .trace import Op

Ops = Sequence[Op]


def fused_step(ops: Ops) -> list[Op]:
    """All that works on pixels (normalise, cast, their backward, step) is one kernel, after the gradient."""
    image = [i for i, op in enumerate(ops) if op.part == "image"]
    return [op for op in ops if op.part != "image"] + [_joined(ops, image)]


def folded(ops: Ops, *, bias_pass: bool) -> list[Op]:
    """Batch norms that follow a convolution are in its weights.

    Args:
        bias_pass: whether the convolution's bias, which is new, is a pass of its own, as in PyTorch on a GPU.
    """
    producers = {value: op for op in ops for value in op.writes}
    renamed: dict[str, str] = {}
    left: list[Op] = []
    gone: set[str] = set()
    for op in ops:
        op = _renamed(op, renamed)
        first = next(iter(op.reads), "")
        if op.name == "native_batch_norm" and producers.get(first) and producers[first].name == "convolution":
            value = next(iter(op.writes))
            gone.add(value)
            if bias_pass:
                left.append(replace(op, name="bias", writes={value: op.writes[value]}))
            else:
                renamed[value] = first
        elif op.name == "native_batch_norm_backward" and any(value.rsplit(".", 1)[0] in gone for value in op.reads):
            renamed[next(iter(op.writes))] = first
        else:
            left.append(op)
    return left


def winograd(ops: Ops) -> list[Op]:
    """3x3 convolutions with a stride of 1, and their data gradients, by F(4x4, 3x3) in float32: a quarter of the FLOPs.

    Transformations are not in it: at best they are hidden behind products.
    """

    def takes(op: Op) -> bool:
        _, filters, taps = op.gemm or (0, 0, 0)
        plain = op.name in ("convolution", "data_gradient") and not (op.strided or op.depthwise)
        return plain and taps % (9 * 32) == 0 and filters % 32 == 0

    return [replace(op, flops=op.flops / 4, precision="fp32") if takes(op) else op for op in ops]


def fused_blocks(ops: Ops) -> list[Op]:
    """Elementwise operators of the network between two convolutions are one kernel, forward and backward.

    What backward needs of a kernel's inside and can compute from a tensor that is kept anyway, is not stored.
    """
    groups = _groups(ops)
    ops = _recomputing(ops, groups)
    heads = {group[-1]: group for group in groups}
    inside = {i for group in groups for i in group}
    kernels = []
    for i, op in enumerate(ops):
        if i in heads:
            kernels.append(_joined(ops, heads[i]))
        elif i not in inside:
            kernels.append(op)
    return kernels


def _groups(ops: Ops) -> list[list[int]]:
    """Positions of operators that become one kernel: connected, and no convolution between any two of them."""
    producers = {value: i for i, op in enumerate(ops) for value in op.writes}
    joins = [op.elementwise and op.part == "network" for op in ops]
    sources = [sorted({producers[v] for v in op.reads if v in producers}) for op in ops]
    users: list[list[int]] = [[] for _ in ops]
    # The number of convolutions and the like before an operator.
    level = [0] * len(ops)
    for i, before in enumerate(sources):
        level[i] = max((level[p] + (not joins[p]) for p in before), default=0)
        for p in before:
            users[p].append(i)
    # As late as possible: the batch norm of a shortcut goes with the sum that it ends in.
    for i in reversed(range(len(ops))):
        if joins[i] and users[i]:
            level[i] = max(level[i], min(level[u] for u in users[i]))
    group = list(range(len(ops)))
    for i in range(len(ops)):
        for p in sources[i]:
            if joins[i] and joins[p] and level[i] == level[p] and ops[i].backward == ops[p].backward:
                old, new = group[i], group[p]
                group = [new if g == old else g for g in group]
    found: dict[int, list[int]] = {}
    for i, g in enumerate(group):
        if joins[i]:
            found.setdefault(g, []).append(i)
    return list(found.values())


def _recomputing(ops: Ops, groups: list[list[int]]) -> list[Op]:
    """Backward reads a forward kernel's one input in place of what follows from it."""
    stands_for: dict[str, tuple[str, int]] = {}
    for group in groups:
        written = {value for i in group for value in ops[i].writes}
        inputs: dict[str, dict[str, int]] = {}
        for i in group:
            needs: dict[str, int] = {}
            for value, size in ops[i].reads.items():
                needs |= inputs[value] if value in written else {value: size}
            inputs |= dict.fromkeys(ops[i].writes, needs)
            if len(needs) == 1 and not ops[i].backward:
                stands_for |= dict.fromkeys(ops[i].writes, next(iter(needs.items())))

    def reads(op: Op) -> dict[str, int]:
        if not (op.backward and op.elementwise):
            return op.reads
        return dict(stands_for.get(value, (value, size)) for value, size in op.reads.items())

    return [replace(op, reads=reads(op)) for op in ops]


def _joined(ops: Ops, positions: Sequence[int]) -> Op:
    """One kernel that reads what comes from outside once, and writes what is used outside."""
    parts, inside = [ops[i] for i in positions], set(positions)
    reads = {value: size for op in parts for value, size in op.reads.items()}
    writes = {value: size for op in parts for value, size in op.writes.items()}
    used = {value for i, op in enumerate(ops) if i not in inside for value in op.reads}
    read_inside = {value for op in parts for value in op.reads}
    return replace(
        parts[-1],
        name="fused",
        reads={value: size for value, size in reads.items() if value not in writes},
        writes={value: size for value, size in writes.items() if value in used or value not in read_inside},
    )


def _renamed(op: Op, names: dict[str, str]) -> Op:
    def final(value: str) -> str:
        while value in names:
            value = names[value]
        return value

    return replace(op, reads={final(value): size for value, size in op.reads.items()})
