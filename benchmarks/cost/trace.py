"""The operators of one eager PGD step, with the bytes and FLOPs of each, from a trace of the real thing.

``make_fx`` (which is a TorchDispatchMode) records forward pass, input gradient and step on meta tensors: no memory is
taken, nothing is computed, and the count is of what PyTorch would run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import flop_registry

from . import networks

EPS, ALPHA = 8 / 255, 2 / 255
# They make another name for memory that is there.
VIEWS = {"detach", "view", "_unsafe_view", "t", "transpose", "permute", "expand", "alias", "getitem", "empty"}
# What a compiler or a kernel by hand joins with its neighbours: one output element needs one of each input.
ELEMENTWISE = {"add", "sub", "mul", "div", "neg", "sign", "clamp", "_to_copy", "native_batch_norm", "bias"}
ELEMENTWISE |= {"relu", "threshold_backward", "silu", "silu_backward", "gelu", "gelu_backward"}
ELEMENTWISE |= {"native_batch_norm_backward"}
# Arguments that are there for their shape (ATen's batch_norm_elementwise_backward_eval has no input).
SHAPE_ONLY = {"convolution_backward": 1, "native_batch_norm_backward": 1, "max_pool2d_with_indices_backward": 1}


@dataclass(frozen=True)
class Op:
    """One operator: tensors read and written, by name, with their bytes. ``gemm``: M, N, K of a convolution or matrix.

    ``part``: "image" for what works on pixels, else "network". ``backward``: after the loss. ``precision``: of its
    arithmetic, where that is not the network's.
    """

    name: str
    part: str
    backward: bool
    reads: dict[str, int]
    writes: dict[str, int]
    flops: float = 0.0
    gemm: tuple[int, int, int] | None = None
    depthwise: bool = False
    strided: bool = False
    precision: str = ""

    @property
    def bytes(self) -> int:
        return sum(self.reads.values()) + sum(self.writes.values())

    @property
    def elementwise(self) -> bool:
        return self.name in ELEMENTWISE


@lru_cache(maxsize=64)
def pgd_step(name: str, batch: int, precision: str = "bf16", frozen: bool = True) -> tuple[Op, ...]:
    """What one step of PGD runs in eager PyTorch: normalise, cast, forward, input gradient, step and projection.

    Args:
        name: a key of :data:`.networks.NETWORKS`; eval mode, channels_last.
        batch: images.
        precision: "fp32" or "bf16", of the network; images are float32.
        frozen: else the gradients of the weights are computed, too, as ``loss.backward()`` does.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    net, edge = networks.make(name).to(dtype), networks.NETWORKS[name][2]
    with torch.device("meta"):
        images = [torch.empty(batch, 3, edge, edge).to(memory_format=torch.channels_last) for _ in range(2)]
        y = torch.zeros(batch, dtype=torch.long)
    held = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    wanted = [] if frozen else [key for key, _ in net.named_parameters()]
    for parameter in net.parameters():
        parameter.requires_grad_(False)

    def step(held, x_adv, x, y):
        leaf = x_adv.detach().requires_grad_()
        weights = {key: held[key].detach().requires_grad_() for key in wanted}
        pixels = ((leaf - 0.5) / 0.25).to(dtype)
        logits = torch.func.functional_call(net, {**held, **weights}, (pixels,))
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
        gradient, *others = torch.autograd.grad(loss, [leaf, *weights.values()])
        moved = x_adv + ALPHA * gradient.sign()
        return (x + (moved - x).clamp(-EPS, EPS)).clamp(0, 1), pixels, others

    graph = make_fx(step)(held, *images, y).graph
    return tuple(_operators(graph.nodes, tuple(images[0].shape)))


def _operators(nodes: Sequence[Node], image: tuple[int, ...]):
    """An Op for each node that is a kernel."""
    source: dict[Node, str] = {}  # the memory that a node is a name of
    backward = False
    for node in nodes:
        if node in source:  # a result of several, named with its operator
            continue
        name = _name(node)
        inputs = [n for n in node.all_input_nodes if not _is_vector(n)]
        if node.op != "call_function" or name in VIEWS or not _outputs(node):
            source[node] = source[inputs[0]] if name in VIEWS and inputs else node.name
            continue
        source[node] = node.name
        for position, output in enumerate(_outputs(node)):
            source[output] = node.name if not position else f"{node.name}.{position}"
        backward = backward or name == "nll_loss_backward"
        skipped = node.args[SHAPE_ONLY[name]] if name in SHAPE_ONLY else None
        reads = {source[n]: _bytes(n) for n in inputs if n is not skipped}
        writes = {source[n]: _bytes(n) for n in _outputs(node)}
        shape = _outputs(node)[0].meta["val"].shape
        part = "image" if tuple(shape) == image and name in ELEMENTWISE else "network"
        op = Op(name, part, backward, reads, writes)
        yield from _heavy(op, node) if node.target.overloadpacket in flop_registry else _light(op)


def _heavy(op: Op, node: Node):
    """A convolution or a matrix product; of a convolution's backward, a kernel for each gradient."""
    values = [a.meta["val"] if isinstance(a, Node) else a for a in node.args]
    total = flop_registry[node.target.overloadpacket](*values, **node.kwargs, out_val=node.meta.get("val"))
    if "convolution" not in op.name:
        first, second = (v for v in values[-2:])
        yield replace(op, flops=total, gemm=(first.shape[0], second.shape[1], first.shape[1]))
        return
    back = op.name == "convolution_backward"
    grad, x, weight = values[:3] if back else (None, *values[:2])
    outer = grad if back else node.meta["val"]
    groups, strides = (values[9], values[4]) if back else (values[8], values[3])
    pixels_in, pixels_out = (t.shape[0] * t.shape[2] * t.shape[3] for t in (x, outer))
    taps, cin, cout = math.prod(weight.shape[2:]), x.shape[1] // groups, weight.shape[0]
    flops = 2.0 * pixels_out * cout * cin * taps
    common = {"flops": flops, "depthwise": groups > 1, "strided": strides[0] > 1}
    if not back:
        yield replace(op, gemm=(pixels_out, cout, cin * taps), **common)
        return
    wanted = values[10]
    # A strided convolution's data gradient has for each pixel only every s-th tap.
    taken = cout * taps // math.prod(strides)
    sizes = [(pixels_in, x.shape[1], taken), (cout, cin * taps, pixels_out)]
    for position, gemm in enumerate(sizes):
        if wanted[position]:
            written = {key: value for key, value in op.writes.items() if key.endswith(".1") == bool(position)}
            read = dict(op.reads)
            if position:
                read |= {"input": x.numel() * x.element_size()}
            yield replace(
                op, name=("data_gradient", "weight_gradient")[position], reads=read, writes=written, gemm=gemm, **common
            )


def _light(op: Op):
    yield op
    if op.name == "native_batch_norm_backward" and len(op.writes) > 1:
        # dgamma and dbeta: a pass of its own over the gradient and the input.
        size = max(op.writes.values())
        yield replace(op, name="batch_norm_sums", reads={"gradient": size, "input": size}, writes={})


def _name(node: Node) -> str:
    target = getattr(node.target, "overloadpacket", node.target)
    return getattr(target, "__name__", str(target)).rsplit(".", 1)[-1]


def _is_vector(node: Node) -> bool:
    """Whether it is a bias, a batch norm's numbers or the labels, which take no time to read."""
    return node.op == "placeholder" and node.meta["val"].dim() < 2


def _outputs(node: Node) -> list[Node]:
    """The node, or those that take its results out of a tuple, if they are tensors of some size."""
    results = [user for user in node.users if _name(user) == "getitem"] or [node]
    return [n for n in results if isinstance(n.meta.get("val"), torch.Tensor) and n.meta["val"].numel() > 1]


def _bytes(node: Node) -> int:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return 0
    # An expanded tensor is as large as what it repeats.
    held = math.prod(size for size, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return held * value.element_size()
