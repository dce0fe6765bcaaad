"""Orthogonal matching pursuit from inner products, beside one by least squares."""

import math

import pytest
import torch
from torch import Tensor

from diffsampler.baseline.pursuit import DEPENDENT, MAX_PRODUCTS, MEAN_GAIN, Pursuit

N = 400


def by_least_squares(y: Tensor, weight: Tensor, column: int, others: list[int], price: float) -> list[list[int]]:
    """The same pairs, of least squares anew for every candidate at every step."""
    ones = torch.cat([torch.ones(len(y), 1), y], -1)
    places = [0, *(other + 1 for other in others)]
    pairs = [(i, j) for i in range(len(places)) for j in range(max(i, 1), len(places))]
    if len(others) > MAX_PRODUCTS:
        pairs = [(i, j) for i, j in pairs if i in (0, j)]
    pairs = [(i, j) for i, j in pairs if i in (0, j) or max(places[i], places[j]) <= MAX_PRODUCTS + 1]

    def direction(values: Tensor) -> Tensor:
        centred = (values - weight @ values) * weight.sqrt()
        return centred / centred.norm()

    def left(of: Tensor, chosen: list[int]) -> Tensor:
        if not chosen:
            return of
        basis = torch.linalg.qr(torch.stack([directions[k] for k in chosen], -1))[0]
        for _ in range(2):  # once loses digits
            of = of - basis @ (basis.T @ of)
        return of

    directions = [direction(ones[:, places[i]] * ones[:, places[j]]) for i, j in pairs]
    target, chosen = direction(y[:, column]), []
    while len(chosen) < min(int(0.1 / weight.square().sum()), len(pairs)):
        now = float(left(target, chosen).square().sum())
        new = {
            k: float(left(target, [*chosen, k]).square().sum())
            for k in range(len(pairs))
            if k not in chosen and left(directions[k], chosen).square().sum() > DEPENDENT
        }
        best = min(new, key=new.__getitem__, default=None)
        if best is None or 0.5 * math.log(now / new[best]) < 2 * price + MEAN_GAIN:
            break
        chosen.append(best)
    return torch.tensor([pairs[k] for k in chosen]).reshape(-1, 2).T.tolist()


def assert_same(
    y: Tensor, column: int, others: list[int], price: float, least: int = 1, weight: Tensor | None = None
) -> list[list[int]]:
    """Of both, which have chosen so many at least."""
    weight = torch.full((len(y),), 1 / len(y)) if weight is None else weight
    found = Pursuit(y, weight).pairs(column, others, price).sort(0).values.tolist()  # of two, either may come first
    assert found == by_least_squares(y, weight, column, others, price) and len(found[0]) >= least
    return found


@pytest.mark.parametrize("seed", range(4))
def test_terms_are_those_of_least_squares(seed: int) -> None:
    """Of coordinates that depend on each other, with weights, for all columns and some of the others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    product = x[:, 0] * x[:, 1] + 0.5 * x[:, 2].square() - x[:, 3] + 0.3 * x[:, 2] * x[:, 4]
    y = torch.cat([x, (product + 0.1 * torch.randn(N, generator=generator)).unsqueeze(-1)], -1)
    weight = torch.rand(N, generator=generator).softmax(0)
    assert_same(y, 6, list(range(6)), 0.001, 4, weight)
    assert_same(y, 6, [5, 2, 0, 1], 0.0, 3, weight)
    for column in range(6):
        assert_same(y, column, [k for k in range(7) if k != column], 0.001, 1, weight)


def test_small_remainders_keep_their_digits(generator: torch.Generator) -> None:
    """What a first term leaves of a column may have terms of its own, and of that what these leave."""
    y = torch.randn(N, 5, generator=generator)
    y[:, 4] = y[:, 0].square() + 1e-7 * (y[:, 1] + 1e-3 * y[:, 2] * y[:, 3] + 1e-5 * y[:, 4])
    assert assert_same(y, 4, [0, 1, 2, 3], 0.02) == [[1, 0, 3], [1, 2, 4]]
    y[:, 4] = y[:, 0].square() + 1e-7 * torch.randn(N, generator=generator)
    assert assert_same(y, 4, [0, 1, 2, 3], 0.02) == [[1], [1]]


def test_what_is_nearly_chosen_already_says_nothing(generator: torch.Generator) -> None:
    y, noise = torch.randn(N, 4, generator=generator), torch.randn(N, generator=generator)
    y[:, 1] = y[:, 0] + 5e-6 * noise  # beside the first it has a square of 2.5e-11
    y[:, 3] = y[:, 0] + 0.5 * noise + 0.5 * y[:, 2] + 0.1 * y[:, 3]
    assert len(assert_same(y, 3, [0, 1, 2], 0.001, 2)[0]) == 2
    y[:, 1] = y[:, 0] + 5e-5 * noise
    assert len(assert_same(y, 3, [0, 1, 2], 0.001, 3)[0]) == 3


def test_many_coordinates_have_squares_alone(generator: torch.Generator) -> None:
    y = torch.randn(N, MAX_PRODUCTS + 4, generator=generator)
    y[:, 0] = y[:, 1] * y[:, 2] + y[:, 3].square() + y[:, -2] * y[:, -1]
    few, more = list(range(1, MAX_PRODUCTS + 1)), list(range(1, MAX_PRODUCTS + 2))
    assert {*zip(*assert_same(y, 0, few, 0.01), strict=True)} >= {(1, 2), (3, 3)}
    found = assert_same(y, 0, more, 0.01)
    assert (3, 3) in zip(*found, strict=True) and all(i in (0, j) for i, j in zip(*found, strict=True))
    # Few others, of which the last are not among the columns that have products.
    last = [1, 2, 3, len(y[0]) - 2, len(y[0]) - 1]
    assert {*zip(*assert_same(y, 0, last, 0.01), strict=True)} & {(1, 2), (3, 3), (4, 5)} == {(1, 2), (3, 3)}


def test_few_points_explain_little(generator: torch.Generator) -> None:
    """A tenth of the number of points at most, whatever the price; of what does not vary or overflows nothing."""
    y = torch.randn(42, 8, generator=generator)
    y[:, 7] = y[:, :7].sum(-1)
    assert len(assert_same(y, 7, list(range(7)), 0.0, 4)[0]) == 4
    uniform = torch.full((42,), 1 / 42)
    y[:, 0], y[:, 1] = 3.0, 1e200 * y[:, 2]
    assert Pursuit(y, uniform).pairs(0, [1, 2, 3], 0.0).shape == (2, 0)
    assert [1, 1] not in Pursuit(y, uniform).pairs(2, [1], 0.0).T.tolist()
