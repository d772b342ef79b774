"""What the suite needs to know of an attack library. To run the suite against yours, write one such class.

pytest tests/conformance --peer my_module:MyAdapter
"""

import importlib
import importlib.metadata
import sys

import sat_kernels

# What a library may not be able to do; properties that need it are skipped with the adapter's reason.
CAPABILITIES = {
    "fixed_start": "random_start=False starts at the clean input",
    "random_start": "random_start=True draws the start",
    "targeted": "y may be classes to reach",
    "no_label": "y=None attacks the model's own prediction",
    "per_sample_eps": "eps may be a (B,) tensor",
    "restarts": "several random starts, of which the best counts",
    "box": "a box other than [0, 1]",
    "float64": "x and the model may be float64",
    "any_shape": "x need not be (B, C, H, W)",
    "training_mode": "the model may be in training mode when the attack is called",
    "zero_eps": "eps may be 0",
}


class Adapter:
    """An attack library: how to call its PGD, and what it cannot do.

    name: as pip knows it. norms: of "Linf", "L2", "L1". lacks: capability -> reason, with "capability norm" as
    key for one norm alone: a library's documented limits, not its defects. causes: property -> where a failure
    comes from, for the report.
    """

    name = ""
    norms = ("Linf",)
    lacks: dict[str, str] = {}
    causes: dict[str, str] = {}

    def version(self) -> str:
        return importlib.metadata.version(self.name)

    def attack(self, model, x, y, *, eps, alpha, steps, norm, random_start, targeted=False, box=(0.0, 1.0), restarts=1):
        """PGD's x_adv, from an attack that is made for this call alone.

        ``model`` returns logits for ``model.classes`` classes. The options that ``lacks`` names keep their defaults.
        """
        raise NotImplementedError


class SatKernels(Adapter):
    name = "sat_kernels"
    norms = ("Linf", "L2", "L1")

    def version(self) -> str:
        return sat_kernels.build_info()["version"]

    def attack(self, model, x, y, *, eps, alpha, steps, norm, random_start, targeted=False, box=(0.0, 1.0), restarts=1):
        options = {"norm": norm, "targeted": targeted, "restarts": restarts, "clip_min": box[0], "clip_max": box[1]}
        return sat_kernels.attacks.PGD(model, eps, alpha, steps, random_start, **options)(x, y)


def load(name: str) -> Adapter:
    """``name``: one of ``peers.PEERS``, "sat_kernels", or "module:Class"."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        sys.path.insert(0, "")  # pytest, unlike python -m pytest, does not look into the current folder
        return getattr(importlib.import_module(module), attribute)()
    from peers import PEERS

    known = {adapter.name: adapter for adapter in (SatKernels, *PEERS)}
    if name not in known:
        raise ValueError(f"peer {name!r}: expected 'module:Class' or one of {', '.join(known)}")
    return known[name]()
