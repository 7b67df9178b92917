"""The relaxed spike-and-slab prior."""

import math

import pyro.distributions as dist
import pytest
import torch

import bayesinv
from bayesinv.errors import ExtentError
from bayesinv.extents.families import Extents, priors_from_config
from bayesinv.extents.priors import Truncated, UniformExtent
from bayesinv.extents.spike_and_slab import SpikeAndSlab
from bayesinv.inference.target import start_extents
from bayesinv.transforms import Affine2d

SLABS = [UniformExtent(0.0, 2.0), Truncated(dist.HalfNormal(0.7), high=2.0), UniformExtent(0.3, 2.0)]


def grid(num=400_000, high=2.0):
    return (torch.arange(num, dtype=torch.float64) + 0.5) / num * high


@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("inclusion", [0.1, 0.5])
def test_density_integrates_to_one(slab, inclusion):
    prior = SpikeAndSlab(slab, inclusion)
    assert float(prior.log_prob(grid()).exp().mean() * 2.0) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("slab", SLABS)
def test_membership_averages_to_the_inclusion(slab):
    """E p(γ = 1 | η) = π under the prior, by quadrature and over its own draws."""
    prior = SpikeAndSlab(slab, 0.3)
    eta = grid()
    assert float((prior.inclusion_given(eta) * prior.log_prob(eta).exp()).mean() * 2.0) == pytest.approx(0.3, abs=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = prior.sample(torch.Size([20_000]))
    assert float(prior.inclusion_given(draws).mean()) == pytest.approx(0.3, abs=0.012)
    assert bool(prior.support.check(draws).all())
    # A fifth of an exponential lies below 0.223 of its mean.
    spike = 0.002 * 2.0
    assert float((draws < 0.223 * spike).double().mean()) == pytest.approx(0.2 * 0.7, abs=0.012)


def test_outside_the_support():
    prior = SpikeAndSlab(UniformExtent(0.3, 2.0))
    assert torch.isinf(prior.log_prob(torch.tensor([-0.1, 2.1], dtype=torch.float64))).all()
    assert torch.isfinite(prior.log_prob(torch.tensor([0.1], dtype=torch.float64))).all()


def test_gradient_is_finite_and_leads_into_the_spike():
    prior = SpikeAndSlab(UniformExtent(0.0, 2.0))
    eta = torch.tensor([0.0, 0.002, 0.01, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(prior.log_prob(eta).sum(), eta)
    assert bool(torch.isfinite(slope).all())
    assert (slope[:3] < 0).all() and abs(float(slope[3])) < 1e-6


def test_as_a_prior_of_a_model():
    priors = {"rotation": SpikeAndSlab(UniformExtent(0.0, math.pi), 0.2)}
    transform = Affine2d(["rotation", "shear"])
    rebuilt = priors_from_config(Extents(transform.coordinates, priors).config())
    prior = rebuilt["rotation"]
    assert isinstance(prior, SpikeAndSlab) and prior.inclusion == 0.2
    eta = torch.tensor([0.0, 0.01, 1.0], dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(eta), priors["rotation"].log_prob(eta))
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_inducing=5), transform, priors=priors)
    # in the slab: from inside the spike no slope leads out
    assert float(start_extents(model, 0.1)[0]) == pytest.approx(0.1 * math.pi)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((dist.HalfNormal(1.0),), "slab"),
        ((0.5,), "slab"),
        ((UniformExtent(0.0, 1.0), 1.0), "inclusion"),
        ((UniformExtent(0.0, 1.0), 0.5, 0.2), "spike"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ExtentError, match=message):
        SpikeAndSlab(*arguments)
