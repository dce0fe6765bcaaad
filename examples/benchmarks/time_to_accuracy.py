"""How long until log Z is right: seconds and target evaluations to a stated error, from scratch.

    python -m examples.benchmarks.time_to_accuracy [--targets gaussian_mixture_9 ...] [--presets default ...]

An error counts as reached when five evaluations in a row, of 2000 draws each, are all within it; the time is that of
the last of the five, everything included: search, training and evaluations, in CPU seconds of one thread. `default` is
`fit(Sampler(target))`; a preset is a file of examples/presets/. The learning rate falls over --max_steps.
"""

import argparse
import statistics
import time
from typing import Any, NamedTuple

import lightning as L
import torch
from jsonargparse import ArgumentParser

from diffsampler import Sampler, fit
from diffsampler.target import Target
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.step_time import EXAMPLES, Case, instantiated, settings_of

HELD = 5
DEFAULT = "default"


class Reached(NamedTuple):
    """What the first evaluations in a row that are all within the error had cost, and what the last one said."""

    seconds: float
    num_target_evaluations: int
    step: int
    error: float
    ess: float


class StopWhenHeld(L.Callback):
    """Ends training when the last five evaluations are all within the error."""

    def __init__(self, tolerance: float, start: float) -> None:
        self.tolerance = tolerance
        self.start = start
        self.reached: Reached | None = None

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        last, truth = module.history[-HELD:], module.sampler.target.log_z
        errors = [entry["log_z"] - truth for entry in last if entry["log_z"] is not None]
        if len(errors) < HELD or max(map(abs, errors)) > self.tolerance:
            return
        seconds, spent = time.process_time() - self.start, module.sampler.num_target_evaluations
        self.reached = Reached(seconds, spent, trainer.global_step, errors[-1], last[-1]["ess"])
        trainer.should_stop = True


def target_of(name: str) -> Target:
    """The target of a file of examples/targets/, without its coordinates."""
    parser = ArgumentParser()
    parser.add_argument("--target", type=Target)
    return instantiated(parser, {"target": settings_of("targets", name)["target"]}).target


def run(preset: str, target: str, arguments: argparse.Namespace, seed: int) -> Reached | None:
    """One run; None where the error was not reached."""
    watch = StopWhenHeld(arguments.tolerance, time.process_time())
    options: dict[str, Any] = {} if arguments.lr is None else {"lr": arguments.lr}
    if preset == DEFAULT:
        torch.manual_seed(seed)
        sampler = Sampler(target_of(target))
    else:
        module = Case(preset, target, arguments.batch_size, compile=False).build(torch.device("cpu"), seed)
        sampler, loss, behaviour = module.sampler, module.loss, module.behaviour
        options = {"loss": loss, "behaviour": behaviour, "lr": module.lr, **options}
    fit(
        sampler,
        arguments.max_steps,
        seed,
        batch_size=arguments.batch_size,
        steps_per_epoch=arguments.evaluate_every,
        callbacks=watch,
        enable_progress_bar=False,
        accelerator="cpu",
        tolerance=0.0,  # five evaluations are asked for, whatever the verdict
        **options,
    )
    return watch.reached


def main() -> None:
    parser = make_parser(__doc__)
    names = {kind: sorted(file.stem for file in (EXAMPLES / kind).glob("*.yaml")) for kind in ("presets", "targets")}
    four = ["gaussian_mixture_9", "gaussian_mixture_25", "funnel", "many_well"]
    parser.add_argument("--targets", nargs="+", default=four, choices=names["targets"], metavar="NAME")
    choices = [DEFAULT, *names["presets"]]
    parser.add_argument("--presets", nargs="+", default=[DEFAULT], choices=choices, metavar="NAME")
    parser.add_argument("--tolerance", type=float, default=0.02, help="the error to reach")
    parser.add_argument("--max_steps", type=count, default=2000, help="training steps at most")
    parser.add_argument("--evaluate_every", type=count, default=20, help="steps between evaluations")
    parser.add_argument("--batch_size", type=count, default=256, help="trajectories a step")
    parser.add_argument("--lr", type=float, help="instead of the preset's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"abs error of log Z within {arguments.tolerance} at {HELD} evaluations in a row")
    print(f"{'target':<22}{'preset':<22}{'seed':>5}{'CPU s':>8}{'evaluations':>13}{'step':>7}{'error':>9}{'ESS':>6}")
    for target in arguments.targets:
        for preset in arguments.presets:
            seconds = []
            for seed in arguments.seeds:
                found = run(preset, target, arguments, seed)
                row = f"{target:<22}{preset:<22}{seed:>5}"
                if found is None:
                    print(f"{row}   not within {arguments.max_steps} steps", flush=True)
                    continue
                seconds.append(found.seconds)
                cost = f"{found.seconds:>8.1f}{found.num_target_evaluations:>13,}{found.step:>7}"
                print(f"{row}{cost}{found.error:>+9.4f}{found.ess:>6.2f}", flush=True)
            if len(seconds) > 1:
                print(f"{target:<22}{preset:<22}median {statistics.median(seconds):.1f} CPU s", flush=True)


if __name__ == "__main__":
    main()
