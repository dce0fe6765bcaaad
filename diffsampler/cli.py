"""The command line: `diffsampler fit | validate | test | predict`."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import targets  # noqa: F401  (their classes are found by short name)
from diffsampler.behaviours import Behaviour
from diffsampler.callbacks import ExponentialMovingAverage, Report, SampleWriter
from diffsampler.coordinates import AffineCoordinates
from diffsampler.data import TrajectoryCounts
from diffsampler.errors import InputError
from diffsampler.grids import Grid
from diffsampler.losses import Loss, SubTrajectoryBalance
from diffsampler.messages import shorten
from diffsampler.module import SamplerModule
from diffsampler.networks import Drift, Flow, ForwardLookingFlow, LangevinDrift
from diffsampler.processes import Process
from diffsampler.sampler import Sampler
from diffsampler.target import Target

__all__ = ["main"]


def build_module(
    target: Target,
    process: Process | None = None,
    drift: Callable[[int], Drift] = LangevinDrift,
    flow: Callable[[int], Flow] | None = ForwardLookingFlow,
    grid: Grid | int = 100,
    coordinates: Callable[[Target], AffineCoordinates] | None = None,
    loss: Loss | None = None,
    behaviour: Behaviour | None = None,
    lr: float = 1e-3,
    flow_lr: float = 1e-2,
    log_z_lr: float = 1e-1,
    final_lr_factor: float = 0.01,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> SamplerModule:
    """A sampler and how to train it.

    Arguments:
        target: the density.
        process: forward and backward kernels.
        drift: the control network.
        flow: the state flow network; null for losses without one.
        grid: the time grid, or the number of steps of a uniform one.
        coordinates: in which process and networks work, such as LaplaceCoordinates for a posterior.
        loss: by default SubTrajectoryBalance.
        behaviour: where training states come from; by default OnPolicy.
        lr: learning rate of drift and process.
        flow_lr: learning rate of the flow network.
        log_z_lr: learning rate of log Z.
        final_lr_factor: learning rates fall along half a cosine to this fraction of themselves.
        weight_decay: L2 penalty on drift and flow.
        seed: of all noise; follows seed_everything.
    """
    loss = SubTrajectoryBalance() if loss is None else loss
    if not loss.uses_flow:
        flow = None
    sampler = Sampler(target, process, drift, flow, grid, coordinates)
    return SamplerModule(sampler, loss, behaviour, lr, flow_lr, log_z_lr, final_lr_factor, weight_decay, seed)


class _SaveConfigOnFit(SaveConfigCallback):
    """Keeps config.yaml beside the checkpoints it belongs to; evaluations do not write over it."""

    def setup(self, trainer, pl_module, stage: str) -> None:  # noqa: ANN001
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class _Parser(LightningArgumentParser):
    """Reports a mistake in one line. The parsers of nested classes are of this type too."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        if match := re.match(r"unrecognized arguments: --([\w.]+)", message):
            message = f"unrecognized argument --{match[1]}; {self._accepted(match[1])}"
        raise InputError(shorten(message)) from ex

    def validate(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().validate(*args, **kwargs)
        except KeyError as ex:
            message = str(ex.args[0])
            option = re.findall(r"option '([^']+)'", message, re.IGNORECASE)
            parser = getattr(ex, "subcommand_parser", self)
            if option and "accepted are" not in message:
                message = f"{message}; {parser._accepted(option[-1])}"
            raise type(ex)(message) from ex

    def _accepted(self, option: str) -> str:
        """The options of this parser beside a mistyped one."""
        group, _, _ = option.rpartition(".")
        names = [a.dest for a in self._actions if a.dest.rpartition(".")[0] == group and a.dest not in {"help", "=="}]
        return f"accepted are {', '.join(names)}."


class _CLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.add_lightning_class_args(ExponentialMovingAverage, "ema")
        parser.add_lightning_class_args(Report, "report")
        parser.add_lightning_class_args(SampleWriter, "samples")
        # Two of them: ModelCheckpoint(save_last=True) writes last.ckpt only when the monitored figure improved.
        parser.add_lightning_class_args(ModelCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "best_checkpoint")
        common = {"auto_insert_metric_name": False, "save_on_train_epoch_end": True, "enable_version_counter": False}
        best = {"filename": "best", "monitor": "val/elbo", "mode": "max"}
        for group, options in (("last_checkpoint", {"filename": "last"}), ("best_checkpoint", best)):
            parser.set_defaults({f"{group}.{key}": value for key, value in {**common, **options}.items()})

    def before_instantiate_classes(self) -> None:
        """Choose the run folder: that of the checkpoint in evaluations, otherwise runs/<target>/version_N."""
        config = self.config[self.subcommand]
        run_folder = _run_folder_of(config.get("ckpt_path"))
        if self.subcommand != "fit" and run_folder is not None:
            config.trainer.logger = False
            config.trainer.default_root_dir = str(run_folder)
            return
        logger = config.trainer.logger
        if getattr(logger, "init_args", None) is not None and logger.init_args.get("name") == "":
            logger.init_args.name = config.model.target.class_path.rsplit(".", 1)[-1]


def _run_folder_of(ckpt_path: str | None) -> Path | None:
    """The folder of the run that wrote a checkpoint, or None."""
    if ckpt_path is None or Path(ckpt_path).parent.name != "checkpoints":
        return None
    return Path(ckpt_path).parent.parent


def _with_config_of_checkpoint(args: list[str]) -> list[str]:
    """Add `--config <run>/config.yaml` where a checkpoint is given without a config: the run folder says it all."""
    if any(arg in {"-c", "--config"} or arg.startswith("--config=") for arg in args):
        return args
    paths = [arg.partition("=")[2] for arg in args if arg.startswith("--ckpt_path=")]
    paths += [value for name, value in zip(args, args[1:], strict=False) if name == "--ckpt_path"]
    folder = _run_folder_of(paths[-1]) if paths else None
    if folder is None or not (folder / "config.yaml").is_file():
        return args
    return [args[0], "--config", str(folder / "config.yaml"), *args[1:]]


def main(args: list[str] | None = None) -> None:
    """Run the command line; a mistake of the user's ends in one line on stderr and exit code 2."""
    # A console script has no working folder on its path: without this, my_file.MyTarget is not found.
    sys.path.insert(0, os.getcwd())
    args = _with_config_of_checkpoint(list(sys.argv[1:] if args is None else args))
    sys.argv[1:] = []
    try:
        _CLI(
            build_module,
            TrajectoryCounts,
            save_config_callback=_SaveConfigOnFit,
            save_config_kwargs={"overwrite": True},
            parser_class=_Parser,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={
                "max_steps": 5000,
                "max_epochs": -1,
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "inference_mode": False,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
                "log_every_n_steps": 10,
                "logger": {
                    "class_path": "lightning.pytorch.loggers.CSVLogger",
                    "init_args": {"save_dir": "runs", "name": ""},
                },
            },
            args=args,
        )
    except ValueError as error:
        # A check that fails inside an optional argument comes back wrapped in jsonargparse's words.
        if not isinstance(error, InputError) and "Union subtypes" not in str(error):
            raise
        _exit(shorten(str(error)))
    except (FileNotFoundError, MisconfigurationException) as error:
        _exit(str(error))


def _exit(message: str) -> NoReturn:
    print(f"diffsampler: error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
