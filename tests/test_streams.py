"""Noise by purpose."""

import itertools

import torch

from diffsampler.streams import STREAMS, new_generator


def test_no_two_purposes_ranks_steps_or_seeds_share_noise() -> None:
    draws = [
        torch.randn(4, generator=new_generator(*key)) for key in itertools.product(STREAMS, (0, 1), (0, 1), (0, 1))
    ]
    # What `sample(seed=...)` draws belongs to the user, who may well take the seed of `fit` again.
    draws += [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
    again = torch.randn(4, generator=new_generator("train", 0, 0, 0))
    assert torch.equal(again, draws[0])
