"""Where a density is not zero, as users declare it, and maps from R^D onto that."""

from diffsampler.support.bijections import Support, score_through
from diffsampler.support.declared import beside_reals, ordered_vector, read_support

__all__ = ["Support", "beside_reals", "ordered_vector", "read_support", "score_through"]
