"""Every attack, with settings that make a call take every branch: restarts, early stop, checkpoints."""

from sat_kernels.attacks import APGD, APGDT, FGSM, MART, MIFGSM, NFGSM, PGD, SLAT, TRADES, YOPO

ATTACKS = {
    "PGD": (PGD, {"steps": 3, "restarts": 2}),
    "PGD L2": (PGD, {"steps": 3, "norm": "L2"}),
    "PGD L1": (PGD, {"steps": 3, "norm": "L1"}),
    "PGD stopped": (PGD, {"steps": 3, "early_stop": True, "restarts": 2}),
    "FGSM": (FGSM, {}),
    "FGSM random": (FGSM, {"random_start": True, "restarts": 2}),
    "NFGSM": (NFGSM, {"restarts": 2}),
    "MIFGSM": (MIFGSM, {"steps": 3}),
    "MIFGSM stopped": (MIFGSM, {"steps": 3, "early_stop": True, "restarts": 2, "random_start": True}),
    "APGD": (APGD, {"steps": 4, "restarts": 2}),
    "APGD L2": (APGD, {"steps": 4, "norm": "L2", "loss": "dlr"}),
    "APGD L1": (APGD, {"steps": 4, "norm": "L1", "early_stop": True}),
    "APGDT": (APGDT, {"steps": 2, "n_target_classes": 2}),
    "TRADES": (TRADES, {"steps": 3}),
    "TRADES stopped": (TRADES, {"steps": 3, "early_stop": True, "restarts": 2}),
    "TRADES L2": (TRADES, {"steps": 2, "norm": "L2", "restarts": 2}),
    "MART": (MART, {"steps": 3}),
    "MART stopped": (MART, {"steps": 3, "early_stop": True, "restarts": 2}),
    "SLAT": (SLAT, {}),
    "YOPO": (YOPO, {"m": 2, "n": 2}),
    "YOPO stopped": (YOPO, {"m": 2, "n": 2, "early_stop": True, "restarts": 2}),
}
_PLAIN = [name for name in ATTACKS if " " not in name]
_VARIANTS = {
    "unlowered": ({"lower": False}, _PLAIN),
    "bf16": ({"precision": "bf16"}, [*_PLAIN, "TRADES stopped", "YOPO stopped"]),
    "bf16 unlowered": ({"precision": "bf16", "lower": False}, ["PGD", "TRADES", "YOPO"]),
    "in parts": ({"lower": ("layers", "fold")}, ["PGD", "YOPO"]),
}
# Those, and with the ways in which gradients are computed.
CASES = ATTACKS | {
    f"{name}, {variant}": (ATTACKS[name][0], ATTACKS[name][1] | settings)
    for variant, (settings, names) in _VARIANTS.items()
    for name in names
}


def make(name, model, **settings):
    kind, own = CASES[name]
    return kind(model, **own, **settings)


def modes(name):
    """Those that it can be in."""
    return ("eval",) if "early_stop" in CASES[name][1] else ("eval", "train", "batch_stats", "as_is")


def size_of(name):
    return {"L2": 0.5, "L1": 4.0}.get(CASES[name][1].get("norm"), 8 / 255)


def radius(name, eps):
    """Of the ball that results are promised to be in."""
    return 3 * eps if name == "NFGSM" else eps
