"""From what a user names to parts that fit together."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch

from diffsampler.contracts import check_parts
from diffsampler.coordinates import (
    Coordinates,
    FamilyCoordinates,
    FamilyOnSpace,
    FixedCoordinates,
    MeanFreeCoordinates,
    SpaceCoordinates,
    SupportCoordinates,
    check_coordinates,
    check_space,
)
from diffsampler.density import CheckedTarget, Density
from diffsampler.errors import InputError
from diffsampler.families import Joint
from diffsampler.families.contexts import GroupedContexts
from diffsampler.frames import DensityInCoordinates
from diffsampler.networks import Control, StateFlow
from diffsampler.parts import check_initialised, make_part
from diffsampler.policy import Policy
from diffsampler.processes import Conditional, Process
from diffsampler.processes.grids import Grid, UniformGrid
from diffsampler.recipes import Dgfs, Recipe, recipe_for
from diffsampler.rewards import Reward
from diffsampler.spaces import Particles, Space
from diffsampler.streams import fixed_weights
from diffsampler.target import Target, check_log_z, space_of, support_of


class Assembly(NamedTuple):
    """The parts of a sampler."""

    recipe: Recipe
    coordinates: Coordinates | None
    density: Density
    policy: Policy
    grid: Grid


def assemble(
    target: Target,
    process: Process | Callable[[Space], Process] | None,
    control: Control | Callable[[Process], Control] | None,
    flow: StateFlow | Callable[[Process], StateFlow] | Literal["auto"] | None,
    grid: Grid | int | None,
    coordinates: Coordinates | Callable[[Target], Coordinates] | None,
    backward_control: Control | Callable[[Process], Control] | None,
) -> Assembly:
    """Make what is not ready, from the space of z to the networks; arguments as in `Sampler`.

    Raises:
        InputError: if the parts do not fit together.
    """
    check_target(target)
    if isinstance(flow, str) and flow != "auto":
        raise InputError(f"flow must be a StateFlow, such as ForwardLookingFlow, 'auto' for it, or None, got {flow!r}.")
    is_alone = flow == "auto" and all(part is None for part in (process, control, grid, coordinates, backward_control))
    recipe = recipe_for(target) if is_alone else Dgfs()
    usual = recipe.parts(target)
    if coordinates is not None:
        coordinates = make_part("coordinates", coordinates, Coordinates, target)
        check_space(coordinates, target)
        if not type(coordinates).__module__.startswith("diffsampler."):
            check_coordinates(coordinates)
    elif usual.coordinates is not None:
        coordinates = usual.coordinates
    elif isinstance(target, Joint) and space_of(target).dim < target.dim:
        coordinates = FamilyOnSpace(target)
    elif target.coordinates is not None:
        coordinates = make_part("coordinates", target.coordinates, Coordinates, target)
    elif isinstance(space_of(target), Particles):
        coordinates = MeanFreeCoordinates(target)
    elif space_of(target).dim < target.dim:  # particles beside others
        coordinates = SpaceCoordinates(target)
    space = space_of(target) if coordinates is None else coordinates.space
    with fixed_weights():
        process = _or(process, usual.process)
        process = _of_all(process, target, coordinates) if isinstance(target, Joint) else process
        process = make_part("process", process, Process, space)
    if coordinates is None and support_of(target) is not None and process.space.is_euclidean:
        coordinates = SupportCoordinates(target)
    density = density_of(target, coordinates, process)
    flow = usual.flow if isinstance(flow, str) else flow
    policy = Policy(process, _or(control, usual.control), backward_control, flow)
    check_parts(policy)
    check_score(target, policy)
    grid = _or(grid, usual.grid)
    return Assembly(recipe, coordinates, density, policy, grid if isinstance(grid, Grid) else UniformGrid(grid))


def _of_all(
    process: Process | Callable[[Space], Process], joint: Joint, coordinates: Coordinates | None
) -> Conditional:
    """A process of one member's states as one of all members'."""
    if coordinates is not None and not isinstance(coordinates, FamilyCoordinates):
        raise InputError(
            f"coordinates of {type(joint.family).__name__}, a family, must be FamilyCoordinates, or None, got "
            f"{type(coordinates).__name__}."
        )
    family = joint.family
    of_one = make_part("process", process, Process, space_of(family))
    contexts = GroupedContexts(family) if coordinates is None else GroupedContexts(family, coordinates.in_units)
    return Conditional(of_one, contexts, family.context_dim)


def guide_of(target: Target, coordinates: Coordinates | None, policy: Policy) -> Density | None:
    """The density whose score a policy takes, in z, where that is not the target: of a reward, what that is on."""
    if not isinstance(target, Reward) or target.guide is target or not policy.uses_score:
        return None
    while isinstance(coordinates, FixedCoordinates):  # those of a reward leave the volume out
        coordinates = coordinates.coordinates
    return density_of(target.guide, coordinates, policy.process)


def check_score(target: Target, policy: Policy) -> None:
    """Raise InputError if a policy needs the score of a target that has none."""
    target = target.guide if isinstance(target, Reward) else target
    if policy.uses_score and not target.differentiable:
        raise InputError(
            f"{type(target).__name__} has differentiable=False, but control or process use its score: take a control "
            "without, such as FourierMLP, or give the target alone."
        )


def _or(given: Any, usual: Any) -> Any:
    return usual if given is None else given


def check_target(target: Target) -> None:
    """Raise InputError unless it is a target, ready, whose log Z is a number if it is known."""
    if isinstance(target, type) and issubclass(target, Target):
        raise InputError(f"target must be a Target, got the class {target.__name__}: make one, {target.__name__}(...).")
    if not isinstance(target, Target):
        raise InputError(
            f"target must be a Target, got {type(target).__name__}. Wrap a function as FunctionTarget(fn, dim=...)."
        )
    if not hasattr(target, "dim"):
        raise InputError(f"{type(target).__name__} must call super().__init__(dim) in its own __init__.")
    check_initialised("target", target)
    if isinstance(getattr(type(target), "log_z", None), property | cached_property):
        return  # which may take long: asked for when it is reported
    log_z = check_log_z(type(target).__name__, target.log_z)
    if type(log_z) is not type(target.log_z):  # a tensor of one number, say
        target.log_z = log_z


def density_of(target: Target, coordinates: Coordinates | None, process: Process) -> Density:
    """The target as a density of the process's states.

    Raises:
        InputError: if they do not fit together.
    """
    if coordinates is not None or target.space is not None:
        where, space = (target, space_of(target)) if coordinates is None else (coordinates, coordinates.space)
        if not torch.equal(process.space.angles[: space.dim], space.angles[: process.space.dim]):
            raise InputError(
                f"process {type(process).__name__} walks on {process.space!r}, but {type(where).__name__} is of "
                f"{space!r}: leave process out, or take one that is made for it"
                f"{'' if coordinates is None else ', or leave coordinates out'}."
            )
    if support_of(target) is not None and (coordinates is None or coordinates.onto is None):
        part = f"process {type(process).__name__}" if coordinates is None else type(coordinates).__name__
        raise InputError(
            f"{type(target).__name__} declares a support, which {part} knows nothing of: leave support out and return "
            "-inf outside, or take coordinates=SupportCoordinates or the target alone."
        )
    density: Density = CheckedTarget(target)
    if coordinates is not None:
        density = DensityInCoordinates(density, coordinates)
    density = process.extend(density)
    if process.space.dim != density.dim:
        raise InputError(
            f"process {type(process).__name__} walks in {process.space.dim} dimensions, but the target has "
            f"{density.dim} here: give the class, or functools.partial of it, and it is made to fit."
        )
    return density
