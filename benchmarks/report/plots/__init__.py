"""The plots: each a function of the results that writes a picture, or says why there is nothing to show."""

from ..rows import Results
from .bandwidth import bandwidth
from .bars import attack_memory, attack_throughput
from .costs import activation_costs
from .roofline import roofline
from .style import NothingToShow, save

# By file: what it shows, and who draws it.
PLOTS = {
    "bandwidth.png": ("bandwidth against size", bandwidth),
    "roofline.png": ("the roofline: rates of kernels within the machine's limits", roofline),
    "attacks.png": ("attack throughput per library", attack_throughput),
    "memory.png": ("peak memory of attacks per sample", attack_memory),
    "activations.png": ("the cost of each activation relative to ReLU in place", activation_costs),
}


def draw_all(results: Results) -> dict[str, tuple[str, str]]:
    """Writes the plots into the results' folder.

    Returns:
        By file: what it shows, and why there is none, "" if there is. A picture of an earlier call that is not
        drawn now is removed.
    """
    told = {}
    for name, (shows, draw) in PLOTS.items():
        why_not = ""
        try:
            save(draw(results), results.folder / name)
        except NothingToShow as reason:
            why_not = str(reason)
            (results.folder / name).unlink(missing_ok=True)
        told[name] = (shows, why_not)
    return told
