"""Families of densities, one for each context: what one sampler learns at once."""

from diffsampler.families.amortised import Amortised
from diffsampler.families.coupled import Coupled
from diffsampler.families.family import (
    Family,
    Joint,
    Member,
    read_context,
    read_contexts,
    size_of_context,
    walked_on,
)
from diffsampler.families.scalarised import Scalarised
from diffsampler.families.simulated import Simulated, no_likelihood
from diffsampler.families.tempered import Tempered

__all__ = [
    "Amortised",
    "Coupled",
    "Family",
    "Joint",
    "Member",
    "Scalarised",
    "Simulated",
    "Tempered",
    "no_likelihood",
    "read_context",
    "read_contexts",
    "size_of_context",
    "walked_on",
]
