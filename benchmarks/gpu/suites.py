"""What a GPU is asked, suite by suite: cases of `make bench` at sizes of a GPU, in every number type."""

import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, product

from cases import activations, fused, linf, losses, overhead, steps
from cases.setting import MIB, Setting
from measuring.case import DTYPES, Case

from sat_kernels.activations import ACTIVATIONS

PASSES, TYPES = ("forward", "backward"), tuple(DTYPES)
# CIFAR and ImageNet batches, of which the GPU holds a sample in registers, and not.
IMAGES = ((128, 3, 32, 32), (1024, 3, 32, 32), (64, 3, 224, 224))
# Batch and classes: CIFAR, ImageNet, ImageNet-21k.
LOGITS = ((1024, 10), (1024, 1000), (256, 21_841))
# Pre-activations of a wide layer, and of a batch of feature maps.
LATENTS = ((2048, 3072), (256, 64, 32, 32))
# Batch, image size, filters, kernel, stride, padding: the stems of CIFAR networks, of ResNet-50 and of ViT.
STEMS = ((128, 32, 64, 3, 1, 1), (1024, 32, 64, 3, 1, 1), (128, 32, 16, 3, 1, 1), (64, 224, 64, 7, 2, 3),
         (64, 224, 192, 16, 16, 0))  # fmt: skip
# Feature maps of ResNets, for CIFAR and for ImageNet.
FEATURES = ((128, 64, 32, 32), (128, 256, 14, 14))


def elements_of(mib: float, dtype: str) -> int:
    return max(1, int(mib * MIB) // DTYPES[dtype].itemsize)


def activation_cases(
    setting: Setting, suite: str, *, kinds: Iterable[str], dtypes: Iterable[str], sizes: Iterable[float], rivals=()
) -> Iterator[Case]:
    """All activations of the table, the outermost loop over sizes, so that those that come first are complete."""
    for mib, kind, dtype, (name, row) in product(sizes, kinds, dtypes, ACTIVATIONS.items()):
        if kind != "parameter_backward" or row.learnable:
            shape = (elements_of(mib, dtype),)
            yield activations.activation_case(setting, name, kind, dtype, shape, suite=suite, rivals=rivals)


def per_channel_cases(setting: Setting, suite: str, dtypes: Iterable[str], mib: float) -> Iterator[Case]:
    """Learnable parameters, one for each of 64 channels of 56x56 maps, in both memory formats."""
    kinds = ("forward", "backward", "parameter_backward")
    for channels_last, kind, dtype, (name, row) in product((False, True), kinds, dtypes, ACTIVATIONS.items()):
        if row.learnable:
            shape = (math.ceil(elements_of(mib, dtype) / (64 * 56 * 56)), 64, 56, 56)
            more = {"suite": suite, "rivals": (), "channels_last": channels_last}
            yield activations.activation_case(setting, name, kind, dtype, shape, **more)


def step_cases(setting: Setting, suite: str, *, sizes: Iterable[float], rivals: Iterable[str] = ()) -> Iterator[Case]:
    for mib, gradient in product(sizes, ("float32", "bfloat16")):
        shape = (elements_of(mib, "float32"),)
        yield linf.step(setting, shape, suite=suite, gradient=gradient, rivals=rivals)
    if rivals and max(sizes) > 1:
        yield linf.step(setting, linf.IMAGENET, suite=suite, rivals=rivals)


def _sizes(options: Namespace, *usual: float) -> tuple[float, ...]:
    return (options.mib,) if options.mib else usual


def _bandwidth(setting, options):
    named = options.suite
    rivals = ("aten",) if named == "bandwidth" else ()
    sizes, dtypes = _sizes(options, 256), options.dtypes or TYPES
    yield from step_cases(setting, named, sizes=sizes)
    yield from activation_cases(setting, named, kinds=PASSES, dtypes=dtypes, sizes=sizes, rivals=rivals)


def _step(setting, options):
    return step_cases(setting, "step", sizes=_sizes(options, 256, 1, 16), rivals=linf.RIVALS)


def _all_sizes(setting, options):
    sizes, dtypes = _sizes(options, 1, 4, 16, 64, 1024), options.dtypes or ("bfloat16", "float32")
    return activation_cases(setting, "sizes", kinds=PASSES, dtypes=dtypes, sizes=sizes, rivals=("aten",))


def _compiled(setting, options):
    sizes, dtypes = _sizes(options, 256, 1, 16), options.dtypes or TYPES
    return activation_cases(setting, "compiled", kinds=PASSES, dtypes=dtypes, sizes=sizes, rivals=("compiled",))


def _passes(setting, options):
    kinds = ("double_backward", "parameter_backward")
    some = options.dtypes or ("float32", "bfloat16")
    return chain(
        activation_cases(setting, "passes", kinds=kinds, dtypes=options.dtypes or TYPES, sizes=_sizes(options, 256)),
        per_channel_cases(setting, "passes", some, *_sizes(options, 256)),
        activation_cases(
            setting, "passes", kinds=PASSES, dtypes=some, sizes=_sizes(options, 64), rivals=("composition",)
        ),
    )


def _attacks(setting, options):
    for shape in ((4, 3, 8, 8),) if setting.smoke else IMAGES:
        yield steps.step(setting, shape, "L2", "attacks")
        yield steps.step(setting, shape, "L1", "attacks")
        yield steps.momentum(setting, shape, "attacks")
        yield steps.start(setting, shape, "Linf", "attacks")
    for shape in ((4, 10),) if setting.smoke else LOGITS:
        for name, dtype in (("ce", "float32"), ("dlr", "float32"), ("ce", "bfloat16")):
            yield losses.loss(setting, name, shape, suite="attacks", dtype=dtype)


def _fused(setting, options):
    dtypes, rivals = options.dtypes or ("float32", "bfloat16"), ("compiled",)
    more = {"suite": "fused", "rivals": rivals}
    for shape, norm, dtype in product(((4, 3, 8, 8),) if setting.smoke else LATENTS, ("Linf", "L2"), dtypes):
        yield fused.latent(setting, shape, norm, dtype, **more)
    for stem, dtype, count in product(
        ((2, 8, 4, 3, 1, 1),) if setting.smoke else STEMS, dtypes, (1, fused.INNER_STEPS)
    ):
        yield fused.first_layer(setting, stem, dtype, steps=count, layout="channels_last", **more)
    for shape, dtype in product(((2, 4, 4, 4),) if setting.smoke else FEATURES, dtypes):
        yield fused.affine(setting, shape, dtype, **more)


def _overhead(setting, options):
    return overhead.calls(setting, "overhead")


SUITES: dict[str, Callable[[Setting, Namespace], Iterable[Case]]] = {
    "bandwidth": _bandwidth,
    "step": _step,
    "sizes": _all_sizes,
    "compiled": _compiled,
    "passes": _passes,
    "overhead": _overhead,
    "attacks": _attacks,
    "fused": _fused,
}
