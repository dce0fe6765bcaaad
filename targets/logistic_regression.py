"""Bayesian logistic regression on any design matrix."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsampler.errors import InputError, check_positive
from diffsampler.target import Target
from targets._inputs import to_tensor

__all__ = ["LogisticRegression"]


class LogisticRegression(Target):
    """The unnormalised posterior of the weights x of a logistic regression with prior N(0, prior_scale^2 I).

    log R(x) = sum_i log sigmoid(s_i a_i . x) + log N(x; 0, prior_scale^2 I), with a_i the rows of the design and s_i =
    2 labels_i - 1. The prior's normaliser is included: Z is the evidence. The design is used as given: scaling,
    centring and a column of ones for the intercept are the caller's, and all of them change Z.

    Arguments:
        design: the features, N rows of D numbers.
        labels: N labels, 0 or 1.
        prior_scale: the standard deviation of every weight under the prior, the intercept's too.
    """

    def __init__(
        self,
        design: list[list[float]] | Tensor,
        labels: list[int] | Tensor,
        prior_scale: float = 1.0,
    ) -> None:
        design = to_tensor("design", design, [2], "N rows of D numbers")
        super().__init__(design.shape[1])
        accepted = f"{len(design)} zeros and ones, one for each row of design"
        labels = to_tensor("labels", labels, [1], accepted)
        if len(labels) != len(design):
            raise InputError(f"labels must be {accepted}, got {len(labels)} labels.")
        if not ((labels == 0) | (labels == 1)).all():
            raise InputError(f"labels must be {accepted}, got values {labels.unique().tolist()[:6]}.")
        self.prior_scale = float(check_positive("prior_scale", prior_scale))
        self._log_normaliser = -self.dim * (math.log(self.prior_scale) + 0.5 * math.log(2 * math.pi))
        # s_i a_i: the only way in which the data enter
        self.register_buffer("_signed_design", (2 * labels - 1).unsqueeze(-1) * design, persistent=False)

    def log_prob(self, x: Tensor) -> Tensor:
        margins = x @ self._signed_design.to(x.dtype).T
        return F.logsigmoid(margins).sum(-1) + self._log_prior(x)

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        signed_design = self._signed_design.to(x.dtype)
        margins = x @ signed_design.T
        log_prob = F.logsigmoid(margins).sum(-1) + self._log_prior(x)
        score = torch.sub(margins.neg_().sigmoid_() @ signed_design, x, alpha=self.prior_scale**-2)
        return log_prob, score

    def _log_prior(self, x: Tensor) -> Tensor:
        return (x * x).sum(-1) * (-0.5 * self.prior_scale**-2) + self._log_normaliser
