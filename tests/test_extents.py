"""Priors over extents: supports, units, fixed and switched-off symmetries, the Pyro sites, errors."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch.distributions import biject_to

from bayesinv import Affine2d, Extents, Truncated, UniformExtent, sample_extents
from bayesinv.errors import ExtentError
from bayesinv.extents import priors_from_config

COORDINATES = Affine2d(["translate_x", "rotation", "scale_x"]).coordinates


def test_default_priors_are_uniform_up_to_the_largest_extent():
    extents = Extents(COORDINATES)
    draws = extents.sample_prior(4000, seed=0)
    largest = torch.tensor([1.0, math.pi, math.log(2.0)], dtype=torch.float64)
    assert bool((draws >= 0).all()) and bool((draws <= largest).all())
    for k in range(3):  # Kolmogorov-Smirnov at a fixed seed
        assert stats.kstest((draws[:, k] / largest[k]).numpy(), "uniform").pvalue > 0.01
    torch.testing.assert_close(extents.prior_quantile(0.25), 0.25 * largest)


def test_uniform_prior_is_standard_normal_in_the_unconstrained_space():
    prior = UniformExtent(0.5, 2.0)
    bijection = biject_to(prior.support)
    z = torch.linspace(-6, 6, 41, dtype=torch.float64)
    eta = bijection(z)
    density = prior.log_prob(eta) + bijection.log_abs_det_jacobian(z, eta)
    torch.testing.assert_close(density, dist.Normal(0.0, 1.0).log_prob(z))
    torch.testing.assert_close(bijection.inv(eta), z, rtol=1e-6, atol=1e-6)


def test_small_extents_keep_their_relative_precision():
    bijection = biject_to(UniformExtent(0.0, 1.0).support)
    z = torch.tensor(-12.0, dtype=torch.float64)
    assert float(bijection(z)) == pytest.approx(stats.norm.cdf(-12.0), rel=1e-10)


def test_one_pyro_site_for_each_latent_symmetry():
    extents = Extents(COORDINATES, {"rotation": 0.3, "scale_x": None})
    trace = poutine.trace(sample_extents).get_trace(extents)
    assert list(trace.nodes) == ["_INPUT", "extent_translate_x", "_RETURN"]
    eta = trace.nodes["_RETURN"]["value"]
    assert eta[1:].tolist() == [0.3, 0.0]
    assert extents.active == ("translate_x",)


def test_extents_compose_in_a_users_own_pyro_model():
    extents = Extents(COORDINATES)

    def model():
        eta = sample_extents(extents)
        pyro.sample("y", dist.Normal(eta[1], 0.1), obs=torch.tensor(0.4, dtype=torch.float64))

    trace = poutine.trace(model).get_trace()
    assert bool(torch.isfinite(trace.log_prob_sum()))


@pytest.mark.parametrize("base", [dist.HalfNormal(0.5), dist.Exponential(2.0), dist.LogNormal(-1.0, 0.7)])
def test_truncated_integrates_to_one_and_samples_what_it_scores(base):
    prior = Truncated(base, high=1.2)
    grid = torch.linspace(1e-6, 1.2, 20001, dtype=torch.float64)
    density = prior.log_prob(grid).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-3)
    torch.manual_seed(0)
    draws = prior.sample(torch.Size([4000])).numpy()
    assert (
        stats.kstest(draws, lambda v: (base.cdf(torch.as_tensor(v)) / base.cdf(torch.tensor(1.2))).numpy()).pvalue
        > 0.01
    )


def test_truncated_refuses_what_cannot_work():
    with pytest.raises(ExtentError, match="no mass"):
        Truncated(dist.Uniform(-3.0, -2.0), high=1.0)
    with pytest.raises(ExtentError, match="scalar"):
        Truncated(dist.HalfNormal(torch.ones(2)), high=1.0)


def test_truncated_has_no_density_outside_and_refuses_what_starts_above_zero():
    prior = Truncated(dist.HalfNormal(0.5), high=1.0)
    outside = prior.log_prob(torch.tensor([-0.1, 1.1], dtype=torch.float64))
    assert bool(torch.isinf(outside).all())
    with pytest.raises(ExtentError, match="starts at 0"):
        Truncated(dist.Pareto(0.3, 2.0), high=1.0)
    with pytest.raises(ExtentError, match="has no cdf"):
        Truncated(dist.Beta(2.0, 2.0), high=1.0)


def test_a_uniform_keeps_its_bounds_and_gets_the_better_map():
    extents = Extents(COORDINATES, {"rotation": dist.Uniform(0.1, 0.8)})
    assert isinstance(extents.priors["rotation"], UniformExtent)
    assert float(extents.priors["rotation"].high) == pytest.approx(0.8)


def test_log_prior_is_minus_infinity_outside():
    extents = Extents(COORDINATES, {"scale_x": 0.1})
    inside = torch.tensor([0.5, 1.0, 0.1], dtype=torch.float64)
    assert float(extents.log_prior(inside)) == pytest.approx(-math.log(math.pi))
    assert float(extents.log_prior(torch.tensor([0.5, 4.0, 0.1], dtype=torch.float64))) == -math.inf


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (dist.HalfNormal(1.0), r"no upper bound.*Truncated\(HalfNormal"),
        (dist.Normal(0.0, 1.0), "interval inside"),
        (dist.Uniform(-0.1, 0.5), "cannot be negative"),
        (dist.Uniform(0.0, 90.0), r"beyond the largest extent 3\.14.*internal units"),
        (dist.Bernoulli(0.5), "continuous"),
        (dist.Uniform(torch.zeros(2), torch.ones(2)), "scalar"),
        (45.0, "radians"),
        (-0.1, "fixed extent from 0"),
        (float("nan"), "fixed extent from 0"),
        ("0.3", "expected a Pyro distribution, a number or None, got str"),
        ((0, 1), r"got tuple: bayesinv\.UniformExtent\(0, 1\)"),
        (UniformExtent, r"got the class UniformExtent: write UniformExtent\(\.\.\.\)"),
        (True, "got bool"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_a_prior_that_does_not_fit_is_refused_with_the_cure(prior, message):
    with pytest.raises(ExtentError, match=message):
        Extents(COORDINATES, {"rotation": prior})


def test_unknown_symmetry_lists_the_known():
    with pytest.raises(ExtentError, match=r"unknown symmetries \['rotatoin'\].*'rotation'"):
        Extents(COORDINATES, {"rotatoin": None})


def test_config_round_trip():
    priors = {
        "translate_x": Truncated(dist.HalfNormal(0.2), high=0.9),
        "rotation": dist.Uniform(0.0, 1.0),
        "scale_x": 0.2,
    }
    extents = Extents(COORDINATES, priors)
    rebuilt = Extents(COORDINATES, priors_from_config(extents.config()))
    assert rebuilt.config() == extents.config()
    eta = torch.tensor([0.4, 0.7, 0.2], dtype=torch.float64)
    torch.testing.assert_close(rebuilt.log_prior(eta), extents.log_prior(eta))


def test_only_distributions_of_pyro_are_built_from_a_file():
    with pytest.raises(ExtentError, match="unknown prior 'exec'"):
        priors_from_config({"rotation": {"type": "exec", "parameters": {}}})


def test_only_angles_are_told_of_radians():
    with pytest.raises(ExtentError, match=r"got 45\. Angles are in radians"):
        Extents(COORDINATES, {"rotation": 45})
    with pytest.raises(ExtentError, match=r"got 45$"):
        Extents(COORDINATES, {"translate_x": 45})
