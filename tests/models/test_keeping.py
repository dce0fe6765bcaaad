"""Samplers that are saved and loaded, and reports of models."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.distributions import Beta, Categorical, Gumbel, HalfNormal, MixtureSameFamily, MultivariateNormal, Normal

from diffsampler import InputError, Sampler, fit
from diffsampler.cli import main
from diffsampler.models import ModelTarget, real
from diffsampler.training.data import TrajectoryCounts
from diffsampler.training.module import SamplerModule
from targets import Gaussian

MODEL = """
import torch
from torch.distributions import HalfNormal, Normal
from diffsampler.models import ModelTarget

class Mine(ModelTarget):
    def __init__(self, scale: float = 1.0):
        prior = {"mu": Normal(0.0, scale), "tau": HalfNormal(1.0), "z": Normal(torch.zeros(2), 1.0)}
        super().__init__(prior=prior, dims={"z": ["school"]}, coords={"school": ["A", "B"]})
        self.scale = scale
"""


def model(data: list[float], scale: float = 1.0) -> ModelTarget:
    return ModelTarget(
        prior={"mu": Normal(0.0, scale), "tau": HalfNormal(1.0)},
        log_likelihood=lambda p, y: Normal(p["mu"][:, None], p["tau"][:, None]).log_prob(y.nan_to_num()) * ~y.isnan(),
        data=data,
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    sampler = Sampler(model([0.1, 0.5]))
    fit(sampler, max_steps=8, seed=0, tolerance=0.0, enable_progress_bar=False)
    file = tmp_path / "kept" / "model.pt"
    sampler.save(file)
    again = Sampler.load(file, model([0.1, 0.5]))
    assert torch.equal(again.sample(20, seed=1), sampler.sample(20, seed=1))
    assert again.num_target_evaluations == sampler.num_target_evaluations
    assert again.reference == sampler.reference and again.reference is not None
    torch.load(file, weights_only=True)  # which refuses code
    for other, said in (
        (model([0.5, 0.1]), r"target's data was \[0.1, 0.5\], and is \[0.5, 0.1\]\."),
        (model([0.1, 0.6]), r"target's data was \[0.1, 0.5\], and is \[0.1, 0.6\]\."),
        (model([0.1, 0.5], scale=2.0), r"target's prior mu was Normal\(loc=0.0, scale=1.0\), and is Normal\(.*2.0\)\."),
        (Gaussian(mean=[0.0, 0.0]), "target was ModelTarget.*, and is Gaussian"),
    ):
        with pytest.raises(InputError, match=f"made otherwise: {said}"):
            Sampler.load(file, other)
    with pytest.raises(InputError, match="^path must be a checkpoint file"):
        Sampler.load(tmp_path / "nowhere.pt", model([0.1, 0.5]))


@pytest.mark.parametrize("path", [".", "", None])
def test_what_is_no_place_for_a_file_is_said(path: object) -> None:
    with pytest.raises(InputError, match="^path must be the path of a file, got"):
        Sampler(model([0.1, 0.5]), grid=5).save(path)


def test_priors_are_told_apart_and_know_themselves_again(tmp_path: Path) -> None:
    """By all that they are made of, and by nothing that torch computes of it later."""

    def target(rate: float = 3.0, is_used: bool = False) -> ModelTarget:
        components = Beta(torch.tensor([1.0, 2.0]), torch.tensor([rate, 2.0]))
        prior = {
            "share": MixtureSameFamily(Categorical(logits=torch.tensor([0.0, 1.0])), components),
            "mu": MultivariateNormal(torch.zeros(2), torch.eye(2)),
            "high": Gumbel(0.0, 1.0),
        }
        if is_used:
            assert prior["share"].mean > 0 and prior["mu"].precision_matrix.shape == (2, 2)
        return ModelTarget(prior=prior)

    sampler, file = Sampler(target(), grid=3), tmp_path / "a.pt"
    parts = sampler.describe()
    sampler.save(file)
    said = "MixtureSameFamily(mixture_distribution=Categorical(logits=[-1.3132"
    assert "transforms=[inverse of ExpTransform()" in parts["target"]
    assert said in parts["target"] and "component_distribution=Beta(concentration1=[1.0, 2.0]" in parts["target"]
    Sampler.load(file, target(is_used=True), grid=3)
    with pytest.raises(InputError, match=r"made otherwise: target's prior share was .*3\.0.*, and is .*4\.0"):
        Sampler.load(file, target(rate=4.0), grid=3)


@pytest.mark.parametrize("kind", ["counts", "with missing ones", "measured"])
def test_data_of_the_same_sums_are_told_apart(kind: str, tmp_path: Path) -> None:
    data = torch.poisson(torch.full((60,), 5.0), generator=torch.Generator().manual_seed(0)).double()
    other = data.clone()
    other[[3, 4, 20, 21]] += torch.tensor([1.0, -1.0, -1.0, 1.0])  # both the sum and that of places times numbers stay
    if kind == "with missing ones":
        data[7], other = torch.nan, data.clone()
        other[8], other[7], data[8] = torch.nan, 0.0, 0.0
    elif kind == "measured":
        data, other = data / 7 + 1.0, other / 7 + 1.0
    sampler, file = Sampler(model(data), grid=3), tmp_path / "a.pt"
    sampler.save(file)
    Sampler.load(file, model(data.clone()), grid=3)
    with pytest.raises(InputError, match="made otherwise: target.* was .*of sums .*, and is .*of sums"):
        Sampler.load(file, model(other), grid=3)


def test_data_that_other_machines_round_otherwise_are_the_same() -> None:
    """Sums that cancel have no digit right: it is none of those that are compared."""
    generator = torch.Generator().manual_seed(0)
    for n in (17, 1000, 100_000):
        y = 50 + torch.randint(0, 200, (n,), generator=generator).double() / 20
        for kept in (y, y - y.mean(), (y - y.mean()) / y.std()):
            rounded = kept * (1 + 1e-15 * torch.randn(n, generator=generator).double())
            assert Sampler(model(rounded), grid=3).describe() == Sampler(model(kept), grid=3).describe()
            rounded[n // 2] += 0.05  # a unit of the data, or more
            assert Sampler(model(rounded), grid=3).describe() != Sampler(model(kept), grid=3).describe()


def test_parts_of_a_model_that_differ_are_named_and_a_few_of_many(tmp_path: Path) -> None:
    def named(*names: str) -> ModelTarget:
        """With a name that holds what separates others."""
        return ModelTarget(lambda p, _: -p["a: b=c"].square(), {"a: b=c": real()}, dict.fromkeys(names, 0.5))

    Sampler(named("y", "z"), grid=3).save(tmp_path / "a.pt")
    for names, said in (("y", "data z was .*, and is not there"), ("xyz", "data x was not there, and is .*")):
        with pytest.raises(InputError, match=rf"made otherwise: target's {said}\.$"):
            Sampler.load(tmp_path / "a.pt", named(*names), grid=3)
    with pytest.raises(InputError, match=r"made otherwise: target's data a .*; and 4 more\.$"):
        Sampler.load(tmp_path / "a.pt", named(*"abcdeyzfgh"), grid=3)


def test_what_is_loaded_knows_whether_it_was_trained(tmp_path: Path) -> None:
    """Of files by `save`, and of checkpoints."""
    target, file = Gaussian(mean=[0.0, 0.0]), tmp_path / "a.pt"
    options = {"tolerance": 10.0, "num_eval_samples": 100, "batch_size": 16, "accelerator": "cpu"}

    def ended(sampler: Sampler) -> str:
        """Exact draws stand beside its weights: no step is needed to end."""
        return fit(sampler, max_steps=5, enable_progress_bar=False, **options)[-1]["ended"]

    sampler = Sampler(target, grid=5)
    sampler.save(file)
    assert ended(Sampler.load(file, target, grid=5)).endswith("trustworthy, before any training")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=2, accelerator="cpu", **quiet)
    trainer.fit(SamplerModule(sampler), TrajectoryCounts(16, 2, 100))
    sampler.save(file)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    for path in (file, tmp_path / "a.ckpt"):
        assert ended(Sampler.load(path, target, grid=5)).endswith("trustworthy, before any further training")


def test_parts_are_named_again_where_they_were_chosen(tmp_path: Path) -> None:
    sampler = Sampler(Gaussian(mean=[0.0, 0.0]), grid=7)
    sampler.save(tmp_path / "a.pt")
    with pytest.raises(InputError, match="grid was"):
        Sampler.load(tmp_path / "a.pt", Gaussian(mean=[0.0, 0.0]), grid=9)
    again = Sampler.load(tmp_path / "a.pt", Gaussian(mean=[0.0, 0.0]), grid=7)
    assert torch.equal(again.sample(5, seed=0), sampler.sample(5, seed=0))


def test_a_file_of_a_sampler_is_no_training(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    Sampler(Gaussian(mean=[0.0, 0.0]), grid=7).save("a.pt")
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "--model.target=Gaussian",
                "--model.target.mean=[0.0,0.0]",
                "--model.grid=7",
                "--ckpt_path=a.pt",
                "--trainer.accelerator=cpu",
            ]
        )
    assert "Sampler.save" in capsys.readouterr().err


def test_reports_name_parameters(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("my_model.py").write_text(MODEL)
    small = ["--trainer.accelerator=cpu", "--data.batch_size=16", "--data.num_eval_samples=50", "--model.grid=5"]
    fit_it = ["fit", "--model.target=my_model.Mine", "--trainer.max_steps=4", "--data.num_test_samples=300", *small]
    main([*fit_it, "--data.steps_per_epoch=2"])
    results = json.loads(Path("runs/Mine/version_0/results.json").read_text())
    assert list(results["parameters"]) == ["mu", "tau", "z[A]", "z[B]"]
    assert results["parameters"]["tau"]["mean"] > 0
    assert Path("runs/Mine/version_0/parameters.png").stat().st_size > 5000
    assert "hdi_3%" in capsys.readouterr().out
