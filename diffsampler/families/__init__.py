"""Families of densities, one for each context: what one sampler learns at once."""

from diffsampler.families.family import Family, Joint, Member, read_context, walked_on

__all__ = ["Family", "Joint", "Member", "read_context", "walked_on"]
