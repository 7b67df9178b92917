"""Models whose evidence of every set of symmetries is known."""

import math

import torch

from bayesinv.backbones import GaussianProcess
from bayesinv.fitted.result import InferenceResult
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms import Affine2d
from tests.fakes import NAMES, KnownModel, make_data

PRECISION = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.7], [0.0, 0.7, 1.0]], dtype=torch.float64)


class CorrelatedModel(KnownModel):
    """log p(D | η) = -½ rᵀ P r, r = (η - centre) / width: translate_x and scale_x stand in for each other."""

    centre = torch.tensor([0.9, 0.15, 0.12], dtype=torch.float64)

    def log_evidence(self, eta, data, num_total=None):
        r = (eta - self.centre) / self.width
        return -0.5 * r @ PRECISION @ r


def correlated_posterior(scale=1.0):
    """A normal around the peak, cut to positive extents, `scale` times as wide as the likelihood."""
    model = CorrelatedModel(GaussianProcess(num_features=64), Affine2d(NAMES), likelihood="categorical")
    generator = torch.Generator().manual_seed(3)
    covariance = scale**2 * model.width**2 * torch.linalg.inv(PRECISION)
    z = torch.randn(400, 3, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    extents = torch.minimum((model.centre + z).abs(), torch.tensor([3.0, 0.95, 0.65], dtype=torch.float64))
    result = InferenceResult(inference="vi", guide="full_rank", extents=extents[None], seed=0)
    return InvariancePosterior(model, make_data(), result)


class NullModel(KnownModel):
    """log p(D | η) falls from η = 0 on: no symmetry is called for."""

    centre = torch.zeros(3, dtype=torch.float64)
    width = 0.02


def null_posterior():
    """Half-normal draws, the posterior of NullModel under flat priors."""
    model = NullModel(GaussianProcess(num_features=64), Affine2d(NAMES), likelihood="categorical")
    noise = torch.randn(400, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    extents = (model.width * noise).abs()[None]
    result = InferenceResult(inference="vi", guide="full_rank", extents=extents, seed=0)
    return InvariancePosterior(model, make_data(), result)


def quadrature(model, row, num=161):
    """log Z_A by the mid-point rule on a grid of each extent in A, uniform slabs."""
    highs = [c.largest for c in model.transform.coordinates]
    axes = [
        (torch.arange(num, dtype=torch.float64) + 0.5) / num * high if inside else torch.zeros(1, dtype=torch.float64)
        for inside, high in zip(row, highs, strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    r = (grid - model.centre) / model.width
    values = -0.5 * ((r @ PRECISION) * r).sum(1)
    return float(values.logsumexp(0)) - sum(math.log(len(axis)) for axis in axes)
