"""The suite's properties: what a user may expect of an attack, by name."""

import properties_of_models
import properties_of_results
import properties_of_side_effects
import properties_of_strength
from suite import PROPERTIES

__all__ = [
    "PROPERTIES",
    "properties_of_models",
    "properties_of_results",
    "properties_of_side_effects",
    "properties_of_strength",
]
