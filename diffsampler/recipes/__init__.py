"""Recipes: what a sampler and its training are made of where nobody says otherwise, one file each."""

from diffsampler.recipes.base import Parts, Recipe, Training
from diffsampler.recipes.dgfs import Dgfs
from diffsampler.recipes.fine_tuning import FineTuning
from diffsampler.recipes.of_space import recipe_for, recipe_on
from diffsampler.recipes.on_angles import AngleLatticeRecipe, AnglesAndRealsRecipe, AnglesRecipe
from diffsampler.recipes.on_lattice import LatticeRecipe
from diffsampler.recipes.on_particles import ParticlesRecipe
from diffsampler.recipes.search_learn_correct import SearchLearnCorrect

__all__ = [
    "AngleLatticeRecipe",
    "AnglesAndRealsRecipe",
    "AnglesRecipe",
    "Dgfs",
    "FineTuning",
    "LatticeRecipe",
    "ParticlesRecipe",
    "Parts",
    "Recipe",
    "SearchLearnCorrect",
    "Training",
    "recipe_for",
    "recipe_on",
]
