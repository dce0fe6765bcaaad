"""The breast cancer (Wisconsin) posterior."""

import torch

from diffsampler.errors import InputError
from targets.logistic_regression import LogisticRegression

__all__ = ["BreastCancer"]


class BreastCancer(LogisticRegression):
    """Logistic regression on scikit-learn's breast cancer data: 569 patients, 30 features.

    Every feature is divided by its population standard deviation. log Z is audited (forward and reverse annealed
    importance sampling that agree) for three definitions with intercept: -55.23 +- 0.01 centred with prior N(0, 1);
    -71.46 +- 0.05 centred with prior N(0, 10^2); -77.58 +- 0.05 **not** centred with prior N(0, 10^2), which is the
    literature's definition. There are no exact samples. Needs scikit-learn: `pip install "diffsampler[data]"`.

    Arguments:
        intercept: put a column of ones before the features: D = 31, else 30. Its weight has the same prior.
        centred: subtract the features' means.
        prior_scale: the standard deviation of every weight under the prior.
    """

    def __init__(self, intercept: bool = True, centred: bool = True, prior_scale: float = 1.0) -> None:
        try:
            from sklearn.datasets import load_breast_cancer
        except ImportError as error:
            raise InputError(
                'BreastCancer needs scikit-learn for its data, which is not installed: pip install "diffsampler[data]".'
            ) from error
        features, labels = (
            torch.as_tensor(array, dtype=torch.float64) for array in load_breast_cancer(return_X_y=True)
        )
        design = features / features.std(0, correction=0)
        if centred:
            design = design - design.mean(0)
        if intercept:
            design = torch.cat([torch.ones(len(design), 1, dtype=design.dtype), design], dim=-1)
        super().__init__(design, labels, prior_scale)
        self.log_z = _AUDITED_LOG_Z.get((self.prior_scale, bool(centred))) if intercept else None


_AUDITED_LOG_Z = {(1.0, True): -55.23, (10.0, True): -71.46, (10.0, False): -77.58}
