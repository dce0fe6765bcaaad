"""Latent-variable models fitted with a diffusion sampler for the posterior of the latents: GFlowNet-EM.

GFlowNet-EM for Learning Compositional Latent Variable Models, Hu et al., 2023, arXiv:2302.06576.
"""

from examples.latent_variables.decoders import BinomialDecoder, Decoder, LinearGaussianDecoder
from examples.latent_variables.encoders import Encoder, ImportanceWeighted, Variational
from examples.latent_variables.expectation import DiffusionPosterior, LatentPosterior
from examples.latent_variables.quadrature import exact_log_likelihood

__all__ = [
    "BinomialDecoder",
    "Decoder",
    "DiffusionPosterior",
    "Encoder",
    "ImportanceWeighted",
    "LatentPosterior",
    "LinearGaussianDecoder",
    "Variational",
    "exact_log_likelihood",
]
