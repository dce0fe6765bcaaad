"""diffsampler: samples unnormalised densities and estimates their normalising constants.

Letters in every docstring: T time steps, B trajectories, D dimensions, `*` any leading shape.
"""

from importlib import import_module
from typing import Any

from diffsampler.assessment import Assessment, assess
from diffsampler.baseline import reference
from diffsampler.comparison import Comparison, compare
from diffsampler.errors import InputError
from diffsampler.log_z import LogZEstimate, Verdict
from diffsampler.sampler import Sampler
from diffsampler.target import FunctionTarget, Target

__all__ = [
    "Assessment",
    "Comparison",
    "FunctionTarget",
    "InputError",
    "LogZEstimate",
    "Sampler",
    "Target",
    "Verdict",
    "assess",
    "calibrate",
    "compare",
    "fine_tune",
    "fine_tuned",
    "fit",
    "reference",
]
LATER = {
    "calibrate": "diffsampler.calibration",
    "fine_tune": "diffsampler.fine_tuning",
    "fine_tuned": "diffsampler.fine_tuning",
    "fit": "diffsampler.training",
}
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import: only those who train pay for it.
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    raise AttributeError(f"module 'diffsampler' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
