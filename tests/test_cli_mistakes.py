"""What new users get wrong in their files and on the command line ends in one sentence, and leaves nothing behind."""

import json
import sys
from pathlib import Path

import pytest

from diffsampler.cli import main

pytestmark = pytest.mark.usefixtures("working_folder")

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.steps_per_epoch=2",
    "--data.batch_size=4",
    "--data.num_eval_samples=20",
    "--data.num_test_samples=20",
    "--report.figures=false",
]
MY_FILE = """
import torch
from diffsampler import Target
from diffsampler.losses import TrajectoryLoss
from diffsampler.networks import Control
from diffsampler.priors import Prior


class Mine(Target):
    def __init__(self, data, tilt=1.0):
        super().__init__(2)
        self.tilt = tilt

    def log_prob(self, x):
        return self.tilt * x[..., 0] - x.square().sum(-1)


class Nowhere(Mine):
    def __init__(self):
        super().__init__([])

    def log_prob(self, x):
        return x.sum(-1) * float("nan")


class HandsOn(Mine):
    def __init__(self, scale: "a_name_that_is_not_there" = 1.0, **rest):
        super().__init__(**rest)


class Unfinished(Target):
    def __init__(self):
        super().__init__(2)


class NoSuper(Target):
    def __init__(self):
        self.centre = 1.0

    def log_prob(self, x):
        return -x.square().sum(-1)


class NoSuperNetwork(NoSuper):
    def __init__(self):
        self.network = torch.nn.Linear(2, 1)


class NoData(Mine):
    def __init__(self):
        open("data.csv")


class NoSuperLoss(TrajectoryLoss):
    def __init__(self, power: float = 2.0):
        self.power = power

    def forward(self, trajectory):
        return trajectory.log_weight.var()


class NoSuperControl(Control):
    def __init__(self, process):
        self.process = 1

    def forward(self, embedding, x, score=None):
        return 0 * x


class WidePrior(Prior):
    def __init__(self, space, scale=1.0, shift=[0.0]):
        super().__init__(space)
        self.scale, self.shift = scale, sum(shift)
        print("made with", scale, shift)

    def draw(self, like, generator):
        return self.shift + self.scale * torch.randn(like.shape, generator=generator, dtype=like.dtype)

    def log_prob(self, x):
        return torch.distributions.Normal(self.shift, self.scale).log_prob(x).sum(-1)

    def score(self, x):
        return -(x - self.shift) / self.scale**2


def compare(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x[:, 0] > y[:, 0]


def judge(x, y):
    return x[:, 0] > y[:, 0]
"""


@pytest.fixture(autouse=True)
def files(working_folder):
    Path("mine.py").write_text(MY_FILE)
    Path("with_a_syntax_error.py").write_text("from diffsampler import Target\nclass Mine(Target)\n    pass\n")
    Path("with_an_import.py").write_text("import torch\nimport no_such_package\n")
    Path("with_a_name.py").write_text("\n\nx = undefined\n")
    package = Path("inner/deeper")
    package.mkdir(parents=True)
    (package / "mine.py").write_text(MY_FILE)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in {"mine", "inner"}]:
        del sys.modules[name]


def error_of(capsys, *args):
    """The one line on stderr that a mistake ends in."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args])
    assert stop.value.code == 2 and not list(Path().rglob("config.yaml"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line or "Traceback" in line]
    assert len(lines) == 1 and lines[0].startswith("diffsampler: error: "), lines
    return lines[0].removeprefix("diffsampler: error: ")


def target(class_path, rest=""):
    return f"model:\n  target:\n    class_path: {class_path}\n{rest}"


def preferences(compare):
    return FUNNEL + (
        "  loss:\n    class_path: OrderPreserving\n    init_args:\n      labels:\n        class_path: Preferences\n"
        f"        init_args: {{{compare}}}\n"
    )


FUNNEL = "model:\n  target: Funnel\n"


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (target("Funnel", "    init_args:\n"), ["model.target.init_args must give arguments their values", "got null"]),
        (target("Funnel", "    init_args: [3]\n"), ["model.target.init_args must give", "got [3]"]),
        (target("Funnel", "    init_arg:\n      dim: 3\n"), ["model.target: 'init_arg'", "accepted is init_args"]),
        (target(""), ["model.target: must name a class, got null", "Funnel"]),
        (target("[Funnel]"), ["model.target: class_path must be a name, got ['Funnel']"]),
        (target("mine.py"), ["model.target: 'mine.py' is not the name of a class", "my_file.MyTarget"]),
        (target("inner/deeper/mine.py"), ["'inner/deeper/mine.py' is not the name of a class"]),
        (target("mine.Absent"), ["model.target: cannot use 'mine.Absent': there is no Absent in mine. Accepted"]),
        (target("mine.HandOn"), ["there is no HandOn in mine, did you mean mine.HandsOn?"]),
        (target("mine.HANDSON"), ["there is no HANDSON in mine, did you mean mine.HandsOn?"]),
        (target("mien.HandsOn"), ["No module named 'mien', did you mean mine.HandsOn?"]),
        (
            target("inner.deper.mine.HandsOn"),
            ["No module named 'inner.deper', did you mean inner.deeper.mine.HandsOn?"],
        ),
        (
            target("inner.deeper.mein.Mine"),
            ["No module named 'inner.deeper.mein', did you mean inner.deeper.mine.Mine?"],
        ),
        (target("targets.Gausian"), ["there is no Gausian in targets, did you mean targets.Gaussian"]),
        (target("mine.WidePrior"), ["model.target: WidePrior is no Target"]),
        (target("mine.Unfinished"), ["model.target: Unfinished must define log_prob, as every Target does"]),
        (target("mine.NoSuper"), ["NoSuper must call super().__init__(dim)"]),
        (target("mine.NoSuperNetwork"), ["NoSuperNetwork cannot be made", "Module.__init__()", "(mine.py, line 46)"]),
        (
            target("mine.NoData"),
            ["NoData cannot be made: it raises FileNotFoundError", "data.csv", "(mine.py, line 51)"],
        ),
        (target("mine.Mine"), ["Mine needs a value of data"]),
        (target("mine.Mine", "    init_args:\n      data: [1]\n      tlt: 2\n"), ["tilt", "accepted are data, tilt"]),
        (target("with_a_syntax_error.Mine"), ["SyntaxError", "(with_a_syntax_error.py, line 2)"]),
        (target("with_an_import.Mine"), ["No module named 'no_such_package' (with_an_import.py, line 2)"]),
        (target("with_a_name.Mine"), ["NameError", "(with_a_name.py, line 3)"]),
        (target("Funnel", "    dict_kwargs:\n      dmi: 3\n"), ["Funnel cannot be made", "'dmi'"]),
        (target("mine.HandsOn", "    init_args:\n      dta: 2\n"), ["--model.target.data?", "accepted are data, tilt"]),
        (FUNNEL + "  loss: mine.NoSuperLoss\n", ["loss NoSuperLoss must call super().__init__"]),
        (FUNNEL + "  control: mine.NoSuperControl\n", ["control NoSuperControl must call super().__init__"]),
        (FUNNEL + "  drift: FourierMLP\n", ["--model.drift: did you mean --model.control?"]),
        (FUNNEL + "  control: LangevinDrift\n", ["unknown name 'LangevinDrift', did you mean LangevinControl?"]),
        (
            FUNNEL + "  process:\n    class_path: AnnealedLangevin\n    init_args:\n      prior:\n"
            "        class_path: GaussianPrior\n        init_args:\n          width: 2.0\n",
            ["--model.process.prior.width: did you mean --model.process.prior.scale?", "loc, scale, learnable"],
        ),
        (FUNNEL + "  lr: [1, 2]\n", ["model.lr: expected float, got [1, 2]"]),
        (FUNNEL + "  lr: {a: 1}\n", ["model.lr: expected float, got {'a': 1}"]),
        (FUNNEL + "  compile: maybe\n", ["model.compile: expected bool, got 'maybe'"]),
        (FUNNEL + "  grid: [0, 1]\n", ["model.grid: expected Grid or int, got [0, 1]"]),
        (FUNNEL + "  flow: false\n", ["model.flow: expected StateFlow or 'auto', got False"]),
        (FUNNEL + "  behaviour: [OnPolicy]\n", ["model.behaviour: expected Behaviour, got ['OnPolicy']"]),
        (FUNNEL + "  loss: {class_path: Stages, init_args: {losses: [LogVar]}}\n", ["model.loss.losses[0]", "LogVar"]),
        (FUNNEL + "data:\n  batch_size: -3\n", ["batch_size must be", "got -3"]),
        (FUNNEL + "trainer:\n  max_steps: 1e3\n", ["trainer.max_steps: expected int, got '1e3'"]),
        (FUNNEL + "trainer:\n  devices: -3\n  accelerator: cpu\n", ["trainer: `devices`", "> 0"]),
        (
            FUNNEL + "trainer:\n  callbacks: EarlyStop\n",
            ["trainer.callbacks: unknown name 'EarlyStop'", "EarlyStopping"],
        ),
        (preferences("rivals: 3"), ["model.loss.labels.compare is required. Accepted: the dotted path of a function"]),
        (preferences("compare: mine.comprae"), ["there is no comprae in mine, did you mean mine.compare? Accepted"]),
        (
            preferences("compare: mine.judge"),
            ["mine.judge says nothing of what it returns", "annotated as torch.Tensor"],
        ),
        (FUNNEL + "seed_everything: abc\n", ["seed_everything: expected bool or int, got 'abc'"]),
        (FUNNEL + "modle:\n  lr: 1\n", ["--modle.lr: did you mean --model?"]),
        ("target: Funnel\n", ["did you mean --model.target?"]),
        ("fit:\n  model:\n    target: Funnel\n", ["unrecognized argument --fit.model"]),
        ("model:\n  target: [Funnel]\n", ["model.target: expected Target, got ['Funnel']"]),
        ("model:\n  target: 3\n", ["model.target: expected Target, got 3"]),
        ("model:\n  target:\n", ["model.target: must name a class, got null"]),
        ("model:\n", ["model must give arguments their values, or be left out, got null"]),
        ("", ["'bad.yaml' must give arguments their values", "is empty"]),
        ("- a\n", ["'bad.yaml' must give arguments their values", "is a list"]),
        ("model:\n\ttarget: Funnel\n", ["'bad.yaml' is no YAML at line 2, column 1"]),
        ("model:\n  target: [Funnel\n", ["'bad.yaml' is no YAML at line 3"]),
        (b"\x00\x01\xff\xfe", ["must be a YAML file, got 'bad.yaml', which is no text"]),
    ],
)
def test_a_mistaken_config(config, parts, capsys):
    Path("bad.yaml").write_bytes(config if isinstance(config, bytes) else config.encode())
    message = error_of(capsys, "--config=bad.yaml")
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--config=inner"], ["config must be a YAML file, got 'inner': Is a directory"]),
        (["--config"], ["config must be a YAML file"]),
        (["--model.target"], ["model.target: must name a class, got null"]),
        (["--model.target="], ["model.target: must name a class, got null"]),
        (["--model=Funnel"], ["model must give arguments their values, or be left out, got 'Funnel'"]),
        (["--model.target=Funnel", "--model.lr=nan"], ["model.lr: expected float, got 'nan'"]),
        (["--model.target=Funnel", "--trainer.callbacks+=EarlyStop"], ["trainer.callbacks: unknown name 'EarlyStop'"]),
        (["--model.target=mine:Mine"], ["'mine:Mine' is not the name of a class"]),
        (["Funnel"], ["model.target is required"]),
        (["--model.target={'class_path': 'Funnel', 'init_args': {'dm': 3}}"], ["--model.target.dm", "dim, scale"]),
        # What a later argument replaces is a mistake all the same: a file that was cut off.
        (["--config=cut.yaml", "--model.target=Gaussian"], ["model.target.init_args must give"]),
    ],
)
def test_mistaken_arguments(args, parts, capsys):
    Path("cut.yaml").write_text(target("Funnel", "    init_args:\n"))
    message = error_of(capsys, *args)
    for part in parts:
        assert part in message, message


def test_a_failed_check_leaves_no_run_folder(capsys):
    message = error_of(capsys, "--model.target=mine.Nowhere", "--model.grid=3", *SMALL)
    assert "Nowhere.log_prob is NaN" in message
    assert not list(Path("runs").rglob("version_*"))


def test_a_mistaken_observable_is_named_before_the_search(capsys, monkeypatch):
    def search(*_, **__):
        raise AssertionError("searched")

    monkeypatch.setattr("diffsampler.sampler.Sampler.search", search)
    error = error_of(capsys, "--model.target=Funnel", "--report.observables=[plaquete]", *SMALL)
    assert "observables: unknown name 'plaquete'" in error


def test_options_without_annotations(capsys):
    Path("own.yaml").write_text(
        target("inner.deeper.mine.Mine", "    init_args:\n      data: [1, 2]\n      tilt: 2.0\n")
        + "  grid: 3\n  process:\n    class_path: AnnealedLangevin\n    init_args:\n      prior:\n"
        "        class_path: mine.WidePrior\n        init_args:\n          scale: 2.0\n          shift: [1.0, 2.0]\n"
    )
    main(["fit", "--config=own.yaml", *SMALL])
    assert "made with 2.0 [1.0, 2.0]" in capsys.readouterr().out
    assert json.loads(Path("runs/Mine/version_0/results.json").read_text())["step"] == 2


def test_line_endings_of_windows_and_a_later_config(capsys):
    Path("first.yaml").write_bytes((FUNNEL + "  grid: 3\n").replace("\n", "\r\n").encode())
    Path("second.yaml").write_text("model:\n  target: DoubleWell\n  lr: 1e-3\n")
    main(["fit", "--config=first.yaml", "--config=second.yaml", *SMALL])
    assert Path("runs/DoubleWell/version_0/results.json").exists()
