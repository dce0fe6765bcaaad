"""The commands, by LightningCLI."""

import errno
import inspect
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

import targets  # noqa: F401  (their classes are found by short name)
from diffsampler.checkpoints import first_mismatch, read_training
from diffsampler.cli.annotations import Parameters, parameters_of
from diffsampler.cli.compare import run_compare
from diffsampler.cli.given import given
from diffsampler.cli.parser import Maker, Parser, in_one_line
from diffsampler.cli.reference import run_reference
from diffsampler.errors import InputError, check_count
from diffsampler.progress import in_terminal
from diffsampler.training.build import build_module
from diffsampler.training.callbacks import ExponentialMovingAverage, PlainProgress, Report, SampleWriter
from diffsampler.training.checks import check_trainer
from diffsampler.training.data import TrajectoryCounts
from diffsampler.training.fit import search_first, silence_lightning, trainer_defaults

DESCRIPTION = (
    "Sample an unnormalized density and estimate its log Z. Beside the subcommands below, `diffsampler reference` "
    "estimates log Z without training, and `diffsampler compare` compares runs: `diffsampler reference --help`."
)
EVALUATIONS = ("validate", "test", "predict")
COMMANDS = ("fit", *EVALUATIONS, "reference", "compare")
# Two checkpoints: ModelCheckpoint(save_last=True) writes last.ckpt only when the monitored figure improved.
CALLBACKS = {
    "ema": ExponentialMovingAverage,
    "report": Report,
    "samples": SampleWriter,
    "last_checkpoint": ModelCheckpoint,
    "best_checkpoint": ModelCheckpoint,
}
KEYWORD = inspect.Parameter.KEYWORD_ONLY
SAY_WHAT = ("-c", "--config", "--model.target")  # of a run without a folder of its own
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class _SaveConfigOnFit(SaveConfigCallback):
    """Keeps config.yaml beside the checkpoints it belongs to; evaluations do not write over it.

    Without a logger there is no run folder, and the working folder may hold a config.yaml of the user's. The path of
    a checkpoint to resume from is no part of an experiment: it would follow every later use of the file.
    """

    file: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.logger is not None:
            self.config.pop("ckpt_path", None)
            super().setup(trainer, pl_module, stage)
            self.file = Path(trainer.log_dir) / self.config_filename

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # A run that ended before anything else was written leaves nothing.
        if trainer.is_global_zero and self.file is not None and [*self.file.parent.iterdir()] == [self.file]:
            self.file.unlink()
            self.file.parent.rmdir()


class _CLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for group, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, group)
        common = {"auto_insert_metric_name": False, "save_on_train_epoch_end": True, "enable_version_counter": False}
        best = {"filename": "best", "monitor": "val/elbo", "mode": "max"}
        for group, options in (("last_checkpoint", {"filename": "last"}), ("best_checkpoint", best)):
            parser.set_defaults({f"{group}.{key}": value for key, value in {**common, **options}.items()})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        groups = {"trainer": Trainer, "model": build_module, "data": TrajectoryCounts, **CALLBACKS}
        parameters: Parameters = {name: parameters_of(group) for name, group in groups.items()}
        for action in self._parser(args[0])._actions if args[0] in COMMANDS else ():
            if "." not in action.dest:
                annotation = getattr(action, "_typehint", Any)
                parameters.setdefault(action.dest, inspect.Parameter("_", KEYWORD, default=None, annotation=annotation))
        with in_one_line(args[1:], parameters):
            super().parse_arguments(parser, args)

    def instantiate_classes(self) -> None:
        maker = Maker()
        self.parser.add_instantiator(maker, object)
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error, InputError) or maker.failure is None:
                raise
            raise maker.failure from None

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning's own looks for hyperparameters, which these checkpoints have none of, in any file."""

    def _set_seed(self) -> None:
        seed = self.config[self.subcommand].seed_everything
        check_count("seed_everything", int(seed) if isinstance(seed, bool) else seed, minimum=0)
        super()._set_seed()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        # Not in the configuration: a run that is resumed may be in a terminal again.
        is_plain = self._progress_bar_asked is None and not in_terminal()
        try:
            trainer = super().instantiate_trainer(**kwargs, **({"enable_progress_bar": False} if is_plain else {}))
        except (TypeError, ValueError) as error:
            raise InputError(f"trainer: {error}") from error
        if is_plain:
            trainer.callbacks.append(PlainProgress())
        return trainer

    @property
    def _progress_bar_asked(self) -> bool | None:
        """Whether a bar is asked for, by option or as a callback; None where nothing says so."""
        options = self.config_init[self.subcommand].trainer
        callbacks = options.callbacks if isinstance(options.callbacks, list) else [options.callbacks]
        given = any(isinstance(callback, ProgressBar) for callback in callbacks)
        return True if options.enable_progress_bar is None and given else options.enable_progress_bar

    def after_instantiate_classes(self) -> None:
        self.model.seed = self.config[self.subcommand].seed_everything

    def before_fit(self) -> None:
        check_trainer(self.trainer)
        self.model.loss.check_batch_size(self.datamodule.batch_size)
        for callback in self.trainer.callbacks:
            if isinstance(callback, Report):
                callback.check(self.model.sampler.target)
        if self.config_init[self.subcommand].get("ckpt_path") is None:
            search_first(self.model.sampler, self.model.seed, self._progress_bar_asked, self.model.budget.limit)

    def before_instantiate_classes(self) -> None:
        """Choose the run folder: that of the checkpoint in evaluations, otherwise runs/<target>/version_N."""
        config = self.config[self.subcommand]
        if config.get("ckpt_path") is not None:
            read_training(config.ckpt_path)  # raises in the user's language what Lightning raises in its own
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
    """Add `--config <run>/config.yaml` where a checkpoint is given without a config: the run folder says it all.

    The path of the checkpoint goes last, since later arguments override earlier ones.
    """
    names = {arg.partition("=")[0] for arg in args}
    if "--ckpt_path" not in names:
        if args[0] in EVALUATIONS and not names & {*SAY_WHAT, "-h", "--help"}:
            raise InputError(f"{args[0]} needs what a run has written: --ckpt_path=runs/.../checkpoints/last.ckpt.")
        return args
    *_, tree = given([arg for arg in args if arg.partition("=")[0] not in {"-c", "--config"}])
    path = tree["ckpt_path"]
    if not Path(path or "").is_file():
        raise InputError(f"ckpt_path must be a checkpoint file, got {path!r}, which is none.")
    config = []
    if not names & set(SAY_WHAT):
        folder = _run_folder_of(path)
        if folder is None or not (folder / "config.yaml").is_file():
            raise InputError(
                f"there is no run folder with a config.yaml around {path!r}: give --config, or --model.target and "
                "all else that the run was made of."
            )
        config = ["--config", str(folder / "config.yaml")]
    return [args[0], *config, *args[1:], f"--ckpt_path={path}"]


def run(args: list[str] | None = None) -> None:
    """Run a command; a mistake of the user's ends in one line on stderr and exit code 2."""
    # A console script has no working folder on its path: without this, my_file.MyTarget is not found. Last, so that no
    # file of the user's stands in the place of a library's.
    sys.path.append(os.getcwd())
    for package in ("targets", "diffsampler"):
        if Path(f"{package}.py").is_file():
            warnings.warn(f"{package}.py is hidden by the package {package}: rename it.", stacklevel=2)
    if args is None:
        # Left as they are: Lightning starts further ranks by the same command.
        args = sys.argv[1:]
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    else:
        sys.argv[1:] = []
    silence_lightning()
    try:
        _run(list(args))
    except (InputError, FileNotFoundError, MisconfigurationException) as error:
        _exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped before there was a checkpoint to go on from.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        _exit(
            f"the system refused to write: {error}. Checkpoints that were written before are whole: go on from "
            "one with --ckpt_path."
        )
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        _exit(f"the checkpoint is of another sampler: {first_mismatch(error)}")


def _run(args: list[str]) -> None:
    if not args or (not args[0].startswith("-") and args[0] not in COMMANDS):
        given = f", got {args[0]!r}" if args else ""
        raise InputError(f"the first argument must be a command, one of {', '.join(COMMANDS)}{given}.")
    if args[0] == "reference":
        _reference(args[1:])
        return
    if args[0] == "compare":
        _compare(args[1:])
        return
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": ""}}
    _CLI(
        build_module,
        TrajectoryCounts,
        save_config_callback=_SaveConfigOnFit,
        save_config_kwargs={"overwrite": True},
        parser_class=Parser,
        parser_kwargs={"description": DESCRIPTION},
        auto_configure_optimizers=False,
        seed_everything_default=0,
        trainer_defaults={**trainer_defaults(), "max_steps": 5000, "log_every_n_steps": 10, "logger": logger},
        args=_with_config_of_checkpoint(args),
    )


def _reference(args: list[str]) -> None:
    parser, maker = Parser(prog="diffsampler reference", description=run_reference.__doc__.partition("\n")[0]), Maker()
    parser.add_argument("-c", "--config", action="config", help="a YAML file of these arguments")
    parser.add_function_arguments(run_reference)
    parser.add_instantiator(maker, object)
    with in_one_line(args, {**parameters_of(run_reference)}):
        config = parser.parse_args(args)
    config.pop("config")
    run_reference(**parser.instantiate_classes(config))


def _compare(args: list[str]) -> None:
    parser = Parser(prog="diffsampler compare", description=run_compare.__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", help="folders with a results.json, or these files, two or more")
    parser.add_function_arguments(run_compare, skip={"runs"})
    with in_one_line(args, {**parameters_of(run_compare)}):
        config = parser.parse_args(args)
    run_compare(**parser.instantiate_classes(config))


def _exit(message: str) -> NoReturn:
    print(f"diffsampler: error: {message}", file=sys.stderr)
    sys.exit(2)
