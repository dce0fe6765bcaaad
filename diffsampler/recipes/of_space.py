"""What a target alone gets, by the space that it declares."""

from functools import singledispatch

from diffsampler.families import Joint
from diffsampler.frames import frame_of
from diffsampler.recipes.base import Recipe
from diffsampler.recipes.of_family import FamilyOnSpaceRecipe, FamilyRecipe, SimulationsRecipe
from diffsampler.recipes.on_angles import AngleLatticeRecipe, AnglesAndRealsRecipe, AnglesRecipe
from diffsampler.recipes.on_lattice import LatticeRecipe
from diffsampler.recipes.on_particles import ParticlesRecipe
from diffsampler.recipes.search_learn_correct import SearchLearnCorrect
from diffsampler.spaces import Circle, Euclidean, Lattice, Particles, Product, Space
from diffsampler.target import Target, space_of


def recipe_for(target: Target) -> Recipe:
    """What a target alone gets."""
    if isinstance(target, Joint):
        family, space = target.family, space_of(target.family)
        if not family.has_density:
            return SimulationsRecipe()
        if type(space) is Euclidean:
            return FamilyRecipe(family.has_joint_samples)
        return FamilyOnSpaceRecipe(recipe_on(space), family.has_joint_samples)
    frame = frame_of(target)
    recipe = recipe_on(frame.space)
    # Declared coordinates are searched by tempered SMC, whatever their space.
    is_plain = target.coordinates is not None and type(recipe) is SearchLearnCorrect
    return AnglesAndRealsRecipe() if is_plain else recipe


@singledispatch
def recipe_on(space: Space) -> Recipe:
    """The recipe for a space."""
    return SearchLearnCorrect()


@recipe_on.register
def _(space: Circle) -> Recipe:
    return AnglesRecipe()


@recipe_on.register
def _(space: Product) -> Recipe:
    return AnglesRecipe() if space.is_periodic else AnglesAndRealsRecipe()


@recipe_on.register
def _(space: Lattice) -> Recipe:
    return AngleLatticeRecipe() if space.is_periodic else LatticeRecipe()


@recipe_on.register
def _(space: Particles) -> Recipe:
    return ParticlesRecipe()
