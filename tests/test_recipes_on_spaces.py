"""What a target alone gets where it declares its space: searched, learned, corrected, resumed."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND, CountingTarget, angle_and_real, randomise
from lightning.pytorch.callbacks import ModelCheckpoint
from on_spaces import pair_distances, springs, two_angles, two_fields
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, fit
from diffsampler.behaviours import ExpertSamples, OnPolicy, SearchedPoints, Succession
from diffsampler.coordinates import MeanFreeCoordinates, SpaceCoordinates
from diffsampler.losses import LogVariance, Matching, MaximumLikelihood, Stages, TrajectoryBalance
from diffsampler.networks import FourierMLP, LangevinControl, LatticeConvolutions, LearnedVariance, PairForces
from diffsampler.processes import PinnedBrownian, ProductProcess, Torus, VariancePreserving
from diffsampler.recipes import (
    AngleLatticeRecipe,
    AnglesAndRealsRecipe,
    AnglesRecipe,
    Dgfs,
    LatticeRecipe,
    ParticlesRecipe,
    Recipe,
)
from diffsampler.training.module import SamplerModule
from targets import U1Gauge, XYModel

OPTIONS = {
    "batch_size": 32,
    "num_eval_samples": 50,
    "tolerance": 0,
    "enable_progress_bar": False,
    "accelerator": "cpu",
}
SOME = 40_000  # evaluations of a search


def gauge() -> Target:
    return U1Gauge((2, 2), 1.0)


def rotators() -> Target:
    return XYModel((4,), 1.0)


def mixed() -> Target:
    """Declared by the number of its angle."""
    target = angle_and_real()
    return FunctionTarget(target.fn, 2, log_z=target.log_z, periodic=[0])


# With what is made of each, and an effective sample size, after a few steps, at which an estimate says something.
CASES: dict[str, tuple[Callable[[], Target], type[Recipe], type, type, float]] = {
    "mean_free": (springs, ParticlesRecipe, VariancePreserving, PairForces, 0.6),
    "periodic=True": (two_angles, AnglesRecipe, Torus, LearnedVariance, 0.1),
    "periodic=[0]": (mixed, AnglesAndRealsRecipe, ProductProcess, LearnedVariance, 0.3),
    "Lattice": (two_fields, LatticeRecipe, VariancePreserving, LatticeConvolutions, 0.6),
    "Lattice of angles": (rotators, AngleLatticeRecipe, Torus, LatticeConvolutions, 0.1),
    "Links": (gauge, AngleLatticeRecipe, Torus, LatticeConvolutions, 0.1),
}
every_recipe = pytest.mark.parametrize("name", CASES)
# The others share their parts with these, and are trained in the slow suite.
TRAINED = {"mean_free", "periodic=[0]"}
representative = pytest.mark.parametrize(
    "name", [name if name in TRAINED else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)


@pytest.fixture(autouse=True)
def single_precision() -> None:
    torch.set_default_dtype(torch.float32)


@lru_cache
def state_of(name: str) -> dict[str, object]:
    sampler = Sampler(CASES[name][0]())
    sampler.search(seed=0, max_evaluations=SOME)
    return sampler.state_dict()


def searched(name: str) -> Sampler:
    """A sampler of a target alone, after a short search."""
    sampler = Sampler(CASES[name][0]())
    sampler.load_state_dict(state_of(name))
    return sampler


@every_recipe
def test_the_space_chooses_the_recipe(name: str) -> None:
    make, recipe, process, control, _ = CASES[name]
    sampler = Sampler(make())
    assert type(sampler.recipe) is recipe and isinstance(sampler.coordinates, SpaceCoordinates)
    assert type(sampler.policy.process) is process and type(sampler.policy.control) is control
    assert sampler.policy.flow is None
    module = SamplerModule(sampler)
    if recipe in (ParticlesRecipe, LatticeRecipe, AngleLatticeRecipe):
        assert isinstance(module.loss, Matching) and isinstance(module.behaviour, SearchedPoints)
    else:
        fitting = MaximumLikelihood if recipe is AnglesAndRealsRecipe else Matching
        assert isinstance(module.loss, Stages) and isinstance(module.behaviour, Succession)
        assert [type(loss) for loss in module.loss.losses] == [fitting, LogVariance]
    # The same parts by name are no recipe: what is not given is that of DGFS, and nothing is searched.
    chosen = Sampler(make(), grid=5)
    assert isinstance(chosen.recipe, Dgfs) and not isinstance(chosen.coordinates, SpaceCoordinates)
    assert chosen.sample(3, seed=0).shape == (3, make().dim)


@representative
def test_a_few_steps_from_a_target_alone_to_the_exact_log_z(name: str) -> None:
    make, *_, least = CASES[name]
    sampler = searched(name)
    history = fit(sampler, max_steps=16, steps_per_epoch=16, lr=5e-3, ema_decay=0.9, **OPTIONS)
    assert history[-1]["step"] == 16
    estimate = sampler.estimate_log_z(1000, seed=1)
    # 4.5 standard errors, 7e-6.
    error = (estimate.high - estimate.low) / 3.92
    assert estimate.ess > least and abs(estimate.log_z - make().log_z) < Z_BOUND * error < 0.5, estimate
    x = sampler.sample(50, seed=2)
    assert x.shape == (50, make().dim) and make().log_prob(x).isfinite().all()


@pytest.mark.slow
@representative
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(name: str, tmp_path: Path) -> None:
    # Six steps in both stages, from the checkpoint of the second: bitwise.
    options = {"max_steps": 6, "steps_per_epoch": 2, "enable_checkpointing": True, **OPTIONS}
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", save_top_k=-1, save_on_train_epoch_end=True)
    whole, resumed = searched(name), Sampler(CASES[name][0]())
    history = fit(whole, callbacks=[keep], **options)
    assert sorted(path.stem for path in tmp_path.glob("*.ckpt")) == ["step=2", "step=4", "step=6"]
    options = {**options, "ckpt_path": str(tmp_path / "step=2.ckpt"), "default_root_dir": str(tmp_path / "resumed")}
    assert fit(resumed, **options)[-1] == history[-1]
    assert resumed.num_target_evaluations == whole.num_target_evaluations
    state = whole.state_dict()
    assert state.keys() == resumed.state_dict().keys()
    for key, value in resumed.state_dict().items():
        assert not isinstance(value, Tensor) or torch.equal(value, state[key]), key
    assert torch.equal(resumed.sample(20, seed=3), whole.sample(20, seed=3))


@pytest.mark.slow
def test_matching_goes_on_from_its_running_means(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", save_on_train_epoch_end=True)
    options = {"steps_per_epoch": 2, "enable_checkpointing": True, "behaviour": SearchedPoints(), **OPTIONS}
    loss = Matching(64)
    fit(searched("mean_free"), max_steps=2, loss=loss, callbacks=[keep], **options)
    assert loss.squares.max() > 0
    (path,) = tmp_path.glob("*.ckpt")
    again, sampler = Matching(64), Sampler(springs())
    fit(
        sampler, max_steps=4, loss=again, ckpt_path=str(path), **{**options, "default_root_dir": str(tmp_path / "more")}
    )
    # Two steps forget 2 % each of what was there before them.
    assert (again.squares >= 0.98**2 * loss.squares * (1 - 1e-9)).all()


@pytest.mark.slow
def test_the_search_is_part_of_a_fit() -> None:
    target = CountingTarget(springs(scale=100.0))
    target.space = target.target.space
    sampler = Sampler(target)
    # A twentieth of what a search takes by default would do; what it takes is told apart from training.
    fit(sampler, max_steps=1, steps_per_epoch=1, **OPTIONS)
    assert sampler.num_target_evaluations == target.count > sampler.search_cost > 0
    reference = sampler.reference
    assert abs(reference.log_z - target.log_z) < Z_BOUND * (reference.high - reference.low) / 3.92 < 0.1


class SampledSprings(FunctionTarget):
    """Springs with exact draws."""

    def __init__(self) -> None:
        super().__init__(springs().fn, 6, springs().log_z, mean_free=3)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.space.to_target(torch.randn(n, 4, generator=generator) / 3**0.5)


CHOSEN: dict[str, tuple[dict[str, object], dict[str, object], type]] = {
    "a control": ({"process": VariancePreserving, "control": PairForces, "grid": 8}, {}, MeanFreeCoordinates),
    "with the score": (
        {"process": partial(PinnedBrownian, sigma=0.8), "control": LangevinControl, "grid": 8, "flow": None},
        {"loss": TrajectoryBalance(), "behaviour": OnPolicy()},
        MeanFreeCoordinates,
    ),
    "matched": (
        {"process": VariancePreserving, "control": PairForces, "grid": 8, "flow": None},
        {"loss": Matching(128), "behaviour": ExpertSamples()},
        MeanFreeCoordinates,
    ),
    "from a point, matched": (
        {"process": partial(PinnedBrownian, sigma=0.8), "control": PairForces, "grid": 8, "flow": None},
        {"loss": Matching(128), "behaviour": ExpertSamples()},
        MeanFreeCoordinates,
    ),
    "of a scale": (
        {
            "process": VariancePreserving,
            "control": FourierMLP,
            "grid": 8,
            "flow": None,
            "coordinates": partial(MeanFreeCoordinates, scale=0.6),
        },
        {"loss": LogVariance(), "behaviour": OnPolicy()},
        MeanFreeCoordinates,
    ),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_particles_with_chosen_parts(name: str) -> None:
    parts, training, coordinates = CHOSEN[name]
    sampler = Sampler(SampledSprings(), **parts)
    assert type(sampler.coordinates) is coordinates
    fit(sampler, max_steps=20, steps_per_epoch=20, lr=3e-3, **training, **OPTIONS)
    estimate = sampler.estimate_log_z(3000, seed=1)
    error = (estimate.high - estimate.low) / 3.92
    assert abs(estimate.log_z - springs().log_z) < Z_BOUND * error < 0.6, estimate
    assert sampler.sample(9, seed=1).view(9, 3, 2).mean(1).abs().max() < 1e-6


def test_a_search_may_be_followed_by_any_parts() -> None:
    # Coordinates by search, with a control and a loss of one's own.
    sampler = Sampler(
        springs(scale=30.0),
        VariancePreserving,
        FourierMLP,
        None,
        8,
        coordinates=partial(SpaceCoordinates, num_points=400),
    )
    sampler.search(seed=0, max_evaluations=SOME)
    randomise(sampler.policy.control, 0.02)
    estimate = sampler.estimate_log_z(2000, seed=1)
    assert estimate.ess > 0.8
    assert abs(estimate.log_z - springs(scale=30.0).log_z) < Z_BOUND * (estimate.high - estimate.low) / 3.92


def test_draws_of_a_learned_sampler_know_no_names_of_particles(generator: torch.Generator) -> None:
    # Equivariant control, isotropic prior: distances of all pairs have one law. 4.5 standard errors, 7e-6 each.
    sampler = searched("mean_free")
    randomise(sampler.policy.control, 0.05)
    distances = pair_distances(sampler.sample(1000, seed=0), 3)
    for k in (1, 2):
        difference = distances[:, k] - distances[:, 0]
        assert abs(float(difference.mean())) < Z_BOUND * float(difference.std()) / 1000**0.5


def test_what_a_recipe_lacks_is_said() -> None:
    with pytest.raises(InputError, match="PairForces is for particles"):
        Sampler(two_angles(), Torus, PairForces)
    SamplerModule(Sampler(FunctionTarget(springs().fn, 6, mean_free=3, differentiable=False)))  # denoising alone
