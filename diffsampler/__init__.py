"""diffsampler: samples unnormalised densities and estimates their normalising constants.

Letters in every docstring: T time steps, B trajectories, D dimensions, `*` any leading shape.
"""

from typing import Any

from diffsampler.errors import InputError
from diffsampler.estimators import LogZEstimate
from diffsampler.sampler import Sampler
from diffsampler.target import FunctionTarget, Target

__all__ = ["FunctionTarget", "InputError", "LogZEstimate", "Sampler", "Target", "assess", "fit"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lightning and SciPy take seconds to import: only those who use them pay for it.
    if name == "fit":
        from diffsampler.training import fit

        return fit
    if name == "assess":
        from diffsampler.assessment import assess

        return assess
    raise AttributeError(f"module 'diffsampler' has no attribute {name!r}")
