"""Networks whose formulas hold on R^D only."""

from diffsampler.errors import InputError
from diffsampler.processes import Process, as_process


def on_reals(name: str, process: Process | int) -> Process:
    """The process that a network is for; InputError if its states are angles."""
    process = as_process(process)
    if not process.space.is_euclidean:
        raise InputError(
            f"{name} is for states in R^D, but process {type(process).__name__} walks on {process.space!r}: take "
            "control=FourierMLP, or a wrapper around it."
        )
    return process
