"""Lattice phi^4 theory in terms of the hopping parameter."""

from collections.abc import Sequence

from diffsampler.errors import check_non_negative, check_positive
from targets._scalar_field import ScalarField

__all__ = ["Phi4Hopping"]


class Phi4Hopping(ScalarField):
    """log R(phi) = -S, S = sum_x [-2 kappa sum_mu phi(x) phi(x + mu) + (1 - 2 coupling) phi(x)^2 + coupling phi(x)^4].

    **Every bond between neighbours counts once.** It is `Phi4` with a field larger by kappa^(-1/2), mass squared
    (1 - 2 coupling) / kappa - 2 d and coupling / kappa^2. log Z as there; 22.534475 for 6 x 6 at kappa 0.2. From about
    kappa 0.28 on there are two phases, of magnetisations m and -m.

    Pawlowski & Urban, Reducing autocorrelation times in lattice simulations with generative adversarial networks, 2020,
    arXiv:1811.03533 (as a target); Montvay & Munster, Quantum fields on a lattice, 1994 (the convention).

    Arguments:
        shape: (L_1, ..., L_d), numbers of sites of a periodic lattice.
        kappa: the hopping parameter, positive.
        coupling: lambda, at least 0.
    """

    without_coupling = (
        "with coupling=0 kappa must be below 1 / (2 d), 1 / 4 in two dimensions, or there is no integral."
    )

    def __init__(self, shape: Sequence[int] = (6, 6), kappa: float = 0.25, coupling: float = 0.022) -> None:
        self_kappa, self_coupling = (
            float(check_positive("kappa", kappa)),
            float(check_non_negative("coupling", coupling)),
        )
        super().__init__(shape, self_kappa, 1 - 2 * self_coupling, self_coupling)
        self.kappa = self_kappa
        self.coupling = self_coupling
