"""Presets: each trains on any target's file, from the command line, and beats its untrained self."""

import itertools
import json
from pathlib import Path

import pytest
import yaml

from diffsampler.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
PRESETS = sorted(path.stem for path in (EXAMPLES / "presets").glob("*.yaml"))
TARGETS = sorted(path.stem for path in (EXAMPLES / "targets").glob("*.yaml"))
# One of each process and each kind of training; the others train in make test-slow, and two steps each here.
QUICK = ["dgfs", "pis"]
OTHERS = [preset for preset in PRESETS if preset not in QUICK]
SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=64",
    "--data.num_eval_samples=500",
    "--data.num_test_samples=500",
    "--report.figures=false",
]


pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [*QUICK, *(pytest.param(preset, marks=pytest.mark.slow) for preset in OTHERS)])
def test_beats_its_untrained_self(preset: str, capsys: pytest.CaptureFixture) -> None:
    # A Gaussian of unequal widths off the origin, ELBO by 500 weights before and after 60 steps. The untrained gap is
    # one to several nats, the trained one a fraction of it: a dozen standard errors and more, no false alarm.
    target = ["--model.target=Gaussian", "--model.target.mean=[1.0,-0.5]", "--model.target.covariance=[0.3,1.5]"]
    common = [*target, "--config", str(EXAMPLES / "presets" / f"{preset}.yaml"), "--model.grid=8", *SMALL]
    main(["test", *common])
    untrained = _last_results()["elbo"]
    main(["fit", *common, "--trainer.max_steps=60", "--data.steps_per_epoch=30", "--model.lr=1e-2"])
    trained = _last_results()["elbo"]
    assert trained > 0.6 * untrained, (preset, untrained, trained)
    assert trained > -1.0, (preset, untrained, trained)


def _last_results() -> dict:
    newest = max(Path().rglob("results.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())


def test_every_target_meets_a_preset() -> None:
    assert {target for _, target in PAIRS} == set(TARGETS)


PAIRS = list(zip(OTHERS, itertools.cycle(TARGETS), strict=False))
TAKES_LONG = "breast_cancer_literature"  # trained and tested on 569 rows in 31 dimensions


@pytest.mark.parametrize(
    ("preset", "target"), [pytest.param(*pair, marks=pytest.mark.slow if TAKES_LONG in pair else ()) for pair in PAIRS]
)
def test_combines_with_every_target(preset: str, target: str, capsys: pytest.CaptureFixture) -> None:
    configs = [
        "--config",
        str(EXAMPLES / f"presets/{preset}.yaml"),
        "--config",
        str(EXAMPLES / f"targets/{target}.yaml"),
    ]
    small = ["--model.grid=3", "--trainer.max_steps=2", "--data.batch_size=16", "--data.num_eval_samples=50"]
    main(["fit", *configs, *SMALL, *small, "--data.num_test_samples=60"])
    assert "log Z" in capsys.readouterr().out


def test_presets_name_no_target_and_targets_no_method() -> None:
    for preset in PRESETS:
        assert "target" not in yaml.safe_load((EXAMPLES / f"presets/{preset}.yaml").read_text())["model"]
    for target in TARGETS:
        assert yaml.safe_load((EXAMPLES / f"targets/{target}.yaml").read_text())["model"].keys() <= {
            "target",
            "coordinates",
        }


def test_the_published_presets_are_there() -> None:
    published = "pis pis_lp dds dis_lv dgfs gfn_tb_expl_ls vargrad_lp_ls cmcd_kl cmcd_lv dbs dbs_underdamped scld"
    assert set(published.split()) <= set(PRESETS)
