"""A sampler and how to train it, from one list of arguments: that of files and of the command line."""

import inspect
from collections.abc import Callable
from typing import Literal

from diffsampler.behaviours import Behaviour
from diffsampler.coordinates import Coordinates
from diffsampler.losses import Objective
from diffsampler.networks import Control, StateFlow
from diffsampler.processes import Process
from diffsampler.processes.grids import Grid
from diffsampler.sampler import Sampler
from diffsampler.spaces import Space
from diffsampler.target import Target
from diffsampler.training.module import SamplerModule
from diffsampler.training.optimisation import Optimisation


def build_module(
    target: Target,
    process: Callable[[Space], Process] | None = None,
    control: Callable[[Process], Control] | None = None,
    flow: Callable[[Process], StateFlow] | Literal["auto"] | None = "auto",
    grid: Grid | int | None = None,
    coordinates: Callable[[Target], Coordinates] | None = None,
    loss: Objective | None = None,
    behaviour: Behaviour | None = None,
    backward_control: Callable[[Process], Control] | None = None,
    compile: bool = False,
    checkpoint_activations: bool | None = None,
    lr: float | None = None,
    flow_lr: float = Optimisation.flow_lr,
    log_z_lr: float = Optimisation.log_z_lr,
    final_lr_factor: float = Optimisation.final_lr_factor,
    weight_decay: float = Optimisation.weight_decay,
    max_target_evaluations: int | None = None,
    tolerance: float | None = None,
) -> SamplerModule:
    """A sampler and how to train it.

    Arguments:
        target: the density.
        process: forward and backward kernels. With no process, control, grid and coordinates a search finds place and
            scale; with any of them, the others are PinnedBrownian, LangevinControl, 100 and none.
        control: the control network.
        flow: the state flow network; auto is ForwardLookingFlow, null leaves it out for losses without one.
        grid: the time grid, or the number of steps of a uniform one.
        coordinates: in which process and networks work, such as LaplaceCoordinates for a posterior.
        loss: by default SubTrajectoryBalance, or after a search maximum likelihood, then LogVariance.
        behaviour: where training states come from; by default OnPolicy, or after a search the points found too.
        backward_control: the control network of the backward kernel, of processes that learn one; by default alike.
        compile: whether to compile target and control for rollouts, and to record training's as CUDA graphs on a GPU.
        checkpoint_activations: whether training computes activations twice instead of keeping them, to save memory; by
            default on a CPU, where a batch has more than a quarter of a million states.
        lr: learning rate of control and process; by default 1e-3, or 3e-3 for a target and nothing else.
        flow_lr: learning rate of the flow network.
        log_z_lr: learning rate of log Z.
        final_lr_factor: learning rates fall along half a cosine to this fraction of themselves.
        weight_decay: L2 penalty on control and flow.
        max_target_evaluations: training ends when the target was evaluated at so many points.
        tolerance: training ends where log Z is known to +- that and graded trustworthy; by default 0.05 for a target
            alone, else 0: never.
    """
    given = locals()
    parts = {name: given[name] for name in inspect.signature(Sampler).parameters if name in given}
    training = {name: given[name] for name in inspect.signature(SamplerModule).parameters if name in given}
    return SamplerModule(Sampler(**parts), **training)
