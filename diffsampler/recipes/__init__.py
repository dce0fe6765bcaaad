"""Recipes: what a sampler and its training are made of where nobody says otherwise, one file each."""

from diffsampler.recipes.base import Parts, Recipe, Training
from diffsampler.recipes.dgfs import Dgfs
from diffsampler.recipes.search_learn_correct import SearchLearnCorrect

__all__ = ["Dgfs", "Parts", "Recipe", "SearchLearnCorrect", "Training"]
