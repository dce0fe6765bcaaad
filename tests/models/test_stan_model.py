"""Stan: rejected points, what is wrong with files and data, and BridgeStan itself where its sources are."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from schools import DATA, FORMS, LOG_Z, PROGRAMS, LikeBridgeStan, by_stan, by_torch
from torch import Tensor

from diffsampler import InputError, reference
from diffsampler.counted import CountedTarget
from diffsampler.models import StanModel


def points(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 10, generator=torch.Generator().manual_seed(seed))


def test_rejected_points_are_counted_and_workers_share_the_others() -> None:
    x = points(6)
    x[2, 1] = 1e4
    for workers in (0, 2):
        counted = CountedTarget(StanModel(model=LikeBridgeStan("noncentred"), workers=workers))
        with pytest.warns(UserWarning, match="The log-density at a point has raised RuntimeError"):
            log_prob, _ = counted.log_prob_and_score(x)
        assert counted.num_invalid == 1
        torch.testing.assert_close(log_prob[3:], by_torch("noncentred").log_prob(x[3:]))


def test_what_a_stan_model_is_made_of_is_named(tmp_path: Path) -> None:
    for options in ({}, {"file": "a.stan", "model": LikeBridgeStan("centred")}):
        with pytest.raises(InputError, match="StanModel needs either file"):
            StanModel(**options)


@pytest.mark.adapters
def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    pytest.importorskip("bridgestan")
    with pytest.raises(InputError, match=r"file of StanModel must be a file, and there is no .*none\.stan"):
        StanModel(str(tmp_path / "none.stan"))
    (tmp_path / "a.stan").write_text(PROGRAMS["centred"])
    with pytest.raises(InputError, match=r"data of StanModel must be a file, and there is no .*none\.json"):
        StanModel(str(tmp_path / "a.stan"), str(tmp_path / "none.json"))


def sources_are_here() -> bool:
    """Whether BridgeStan can compile without fetching anything."""
    if find_spec("bridgestan") is None:
        return False
    from bridgestan.compile import get_bridgestan_path, verify_bridgestan_path

    path = get_bridgestan_path(download=False)
    try:
        verify_bridgestan_path(path)
        return path != ""  # which would be the working folder, and that has a Makefile too
    except ValueError:
        return False


needs_sources = pytest.mark.skipif(not sources_are_here(), reason="needs BridgeStan and its C++ sources")


@pytest.mark.adapters
@needs_sources
def test_what_stanc_says_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "broken.stan"
    file.write_text("parameters {\n  real mu;\n}\nmodel {\n  mu ~ normal(nu, 1);\n}\n")
    with pytest.raises(InputError, match=r"does not compile: Semantic error in .*line 5.*Identifier 'nu' not in scope"):
        StanModel(str(file))


@pytest.mark.adapters
@pytest.mark.slow
@needs_sources
@pytest.mark.parametrize("form", FORMS)
def test_stan_itself_says_the_same(tmp_path: Path, form: str) -> None:
    file, x = tmp_path / f"{form}.stan", points(10)
    file.write_text(PROGRAMS[form])
    target, expected, alike = StanModel(str(file), DATA), by_torch(form), by_stan(form)
    log_prob, score = target.log_prob_and_score(x)
    torch.testing.assert_close(log_prob, expected.log_prob(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(score, expected.score(x))
    # The object of these tests is as BridgeStan's is.
    torch.testing.assert_close(alike.log_prob(x), log_prob)
    torch.testing.assert_close(alike.constrain(x), target.constrain(x))
    assert alike.model.log_density(x[0].numpy(), propto=True) != pytest.approx(float(log_prob[0]))
    if form == "noncentred":
        torch.testing.assert_close(alike.log_likelihoods(x), target.log_likelihoods(x))
    with pytest.raises(InputError, match=r"data of StanModel do not fit .*variable name=y"):
        StanModel(target.model.lib_path, {**DATA, "y": torch.ones(3)})
    estimate = reference(target, seed=0).estimate
    # Twice the interval, 3.9 standard errors: 9e-5 at a fixed seed; and what is not known of the exact figure.
    assert abs(estimate.log_z - LOG_Z) < estimate.high - estimate.low + 0.0005
