"""Where a distribution of `torch.distributions` may have its values, as one constraint."""

from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, VonMises, constraints
from torch.distributions.constraints import Constraint

from diffsampler.errors import InputError


def support_of(prior: Distribution) -> Constraint:
    """The support; of a mixture that of its components, if it is the same for all of them.

    Raises:
        InputError: if it cannot be known.
    """
    if isinstance(prior, MixtureSameFamily):
        return _of_every_component(support_of(prior.component_distribution), 0)
    if isinstance(prior, Independent):
        num_dims, support = prior.reinterpreted_batch_ndims, support_of(prior.base_dist)
        return constraints.independent(support, num_dims) if num_dims else support
    if isinstance(prior, VonMises):
        raise InputError(
            "VonMises repeats for ever on its support, which is all numbers: give parameters too, with "
            "bounded(-math.pi, math.pi) for it, one period."
        )
    try:
        support = prior.support
    except NotImplementedError:
        support = None
    if support is None:
        raise InputError(f"{type(prior).__name__} says nothing of its support: give parameters too.")
    return support


def _of_every_component(constraint: Constraint, num_dims: int) -> Constraint:
    """Without the dimension of the components, behind which bounds have so many others."""
    if isinstance(constraint, constraints.independent):
        inner = constraint.reinterpreted_batch_ndims
        return constraints.independent(_of_every_component(constraint.base_constraint, num_dims + inner), inner)
    bounds = [getattr(constraint, name) for name in ("lower_bound", "upper_bound") if hasattr(constraint, name)]
    for k, bound in enumerate(bounds):
        if not isinstance(bound, Tensor) or bound.ndim <= num_dims:
            continue
        first, *others = bound.unbind(-1 - num_dims)
        if any((other != first).any() for other in others):
            raise InputError(
                f"components of a mixture have different supports, with bounds {bound.tolist()}: give parameters too, "
                "such as bounded(low, high), within which all of them have densities, zero or not."
            )
        bounds[k] = first
    return type(constraint)(*bounds) if bounds else constraint
