"""Latent-variable models: quadrature and training against closed forms."""

import pytest
import torch
from torch import Tensor

from examples.latent_variables import (
    BinomialDecoder,
    Decoder,
    DiffusionPosterior,
    ImportanceWeighted,
    LinearGaussianDecoder,
    Variational,
    exact_log_likelihood,
)
from examples.latent_variables.decoders import highest_log_likelihood
from examples.latent_variables.quadrature import Quadrature


def linear_data(n: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 2, generator=generator)
    return torch.randn(n, 2, generator=generator) @ weight.T + 0.5 * torch.randn(n, 6, generator=generator)


def test_quadrature_is_the_closed_form_of_a_linear_model() -> None:
    decoder = LinearGaussianDecoder(2, 6, torch.Generator().manual_seed(0))
    x = linear_data(20)
    found = exact_log_likelihood(decoder, x)
    torch.testing.assert_close(found, decoder.log_marginal(x).double(), atol=1e-4, rtol=0)
    assert (exact_log_likelihood(decoder, x, half_width=1.0) - found).abs().max() > 1e-3  # too narrow is seen


def test_counts_have_probabilities_that_sum_to_one() -> None:
    torch.manual_seed(0)
    decoder: Decoder = BinomialDecoder(data_dim=2, trials=3)
    counts = torch.cartesian_prod(torch.arange(4), torch.arange(4)) / 3
    assert float(exact_log_likelihood(decoder, counts).logsumexp(0)) == pytest.approx(0.0, abs=1e-5)
    z = torch.randn(5, 2)
    pairs = decoder.log_likelihood_of_pairs(z, counts)
    torch.testing.assert_close(pairs, decoder.log_likelihood(z[:, None].expand(-1, 16, -1), counts.expand(5, -1, -1)))


def test_weights_of_draws_have_the_likelihood_of_the_data_for_their_mean() -> None:
    generator, x = torch.Generator().manual_seed(0), linear_data(3)
    decoder = LinearGaussianDecoder(2, 6, generator)
    model = DiffusionPosterior(decoder, linear_data(), num_draws=8)
    weight = model.weighted_draws(x, 20_000, generator)[1].exp()
    exact = decoder.log_marginal(x).detach().double().exp()
    # Six standard errors: of three normal means, a false alarm has a chance of 6e-9.
    assert ((weight.mean(1) - exact).abs() < 6 * weight.std(1) / 20_000**0.5).all()
    assert (weight.std(1) / 20_000**0.5 < 0.05 * exact).all()
    # The same sampler as one of a family, whose states carry the data; 3 intervals of 95 % are 11 standard errors.
    found = model.sampler.given(x[0]).estimate_log_z(20_000, seed=0)
    assert found.log_z == pytest.approx(float(exact[0].log()), abs=3 * (found.high - found.low))


def test_the_m_step_is_the_gradient_of_the_likelihood() -> None:
    generator, x = torch.Generator().manual_seed(0), linear_data(4)
    decoder = LinearGaussianDecoder(2, 6, generator)
    model = DiffusionPosterior(decoder, linear_data(), num_draws=4000)
    found = torch.autograd.grad(model.loss(x, generator), decoder.weight)[0]
    exact = torch.autograd.grad(-decoder.log_marginal(x).mean(), decoder.weight)[0]
    # By 4000 draws it is 2 to 3 % off over seeds, and by plain means of these 117 to 207 %.
    assert (found - exact).norm() < 0.15 * exact.norm()


def effective_after_e_steps(num_draws: int, seed: int, away: bool) -> float:
    """The effective share of draws, in the mean over data: of z from the prior, or near (3, 0), where it is small."""
    generator = torch.Generator().manual_seed(seed)
    decoder = LinearGaussianDecoder(2, 6, generator)
    with torch.no_grad():
        decoder.weight.mul_(2)
        decoder.log_scale.fill_(-0.7)
        z = torch.randn(200, 2, generator=generator)
        x = decoder.sample(0.3 * z + torch.tensor([3.0, 0.0]) if away else z, generator)
    torch.manual_seed(seed)
    model = DiffusionPosterior(decoder, x, num_draws=num_draws, num_steps=4, width=32)
    optimizer = torch.optim.Adam(model.sampler.policy.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(x[torch.randint(200, (64,), generator=generator)], generator).backward()
        optimizer.step()
    weight = model.weighted_draws(x[:50], 500, generator)[1].softmax(1)
    return float((1 / weight.square().sum(1)).mean()) / 500


def test_the_e_step_learns_by_dreams_which_latents_belong_to_which_data() -> None:
    # 0.48 to 0.55 over seeds; 0.1 at most where the encoder learns nothing, 0.12 where dreams are of other data, 0.19
    # without any.
    assert effective_after_e_steps(num_draws=2, seed=1, away=False) > 0.35


@pytest.mark.slow
def test_the_e_step_learns_by_its_own_paths_of_data_that_are_never_dreamt() -> None:
    # 0.32 to 0.50 over seeds; by dreams alone 0.05 to 0.25.
    assert effective_after_e_steps(num_draws=32, seed=1, away=True) > 0.28


def test_encoders_and_quadrature_have_the_likelihood_for_their_bound() -> None:
    generator, x = torch.Generator().manual_seed(0), linear_data(4)
    torch.manual_seed(0)
    decoder = LinearGaussianDecoder(2, 6, generator)
    with torch.no_grad():
        exact = -float(decoder.log_marginal(x).mean())
        # By these draws 0.004 off at most over seeds; a VAE's bound is 0.5 to 1.4 above.
        assert float(Variational(decoder, 2000).loss(x, generator)) > exact + 0.1
        found = float(ImportanceWeighted(decoder, 20_000).loss(x, generator))
        assert found == pytest.approx(exact, abs=0.03)
        assert float(Quadrature(decoder, 80).loss(x, generator)) == pytest.approx(exact, abs=1e-4)


@pytest.mark.slow
def test_probabilistic_principal_components_reach_the_closed_form_maximum() -> None:
    x, generator = linear_data(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    decoder = LinearGaussianDecoder(2, 6, generator)
    model = DiffusionPosterior(decoder, x, num_draws=16, num_steps=6, width=32)
    highest, before = highest_log_likelihood(x, 2), float(decoder.log_marginal(x).mean().detach())
    optimizer = torch.optim.Adam([*decoder.parameters(), *model.sampler.policy.parameters()], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 450)
    for _ in range(450):
        optimizer.zero_grad()
        model.loss(x[torch.randint(len(x), (64,), generator=generator)], generator).backward()
        optimizer.step()
        schedule.step()
    gap = highest - float(decoder.log_marginal(x).mean().detach())
    assert before < highest - 1 and -1e-4 < gap < 0.01
