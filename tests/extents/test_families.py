"""Priors over extents: supports, units, fixed and switched-off symmetries, the Pyro sites, errors."""

import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch.distributions import biject_to

from bayesinv import Affine2d, Extents, Outward, Truncated, UniformExtent, sample_extents
from bayesinv.errors import ExtentError
from bayesinv.extents.families import priors_from_config

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


def test_truncated_has_no_density_outside():
    prior = Truncated(dist.HalfNormal(0.5), high=1.0)
    outside = prior.log_prob(torch.tensor([-0.1, 1.1], dtype=torch.float64))
    assert bool(torch.isinf(outside).all())
    cut = Truncated(dist.Beta(2.0, 1.0), high=3.0)  # which ends before
    assert float(cut.support.upper_bound) == 1.0
    assert float(cut.log_prob(torch.tensor(1.5, dtype=torch.float64))) == -math.inf


POSITIVE = {
    "gamma": dist.Gamma(2.0, 2.0),
    "gamma with a pole": dist.Gamma(0.3, 2.0),
    "half-cauchy": dist.HalfCauchy(1.0),
    "inverse gamma": dist.InverseGamma(2.0, 1.0),
    "log-normal": dist.LogNormal(-1.0, 1.0),
    "weibull": dist.Weibull(1.0, 0.5),
    "pareto": dist.Pareto(0.3, 2.0),
    "chi2": dist.Chi2(3.0),
    "f": dist.FisherSnedecor(5.0, 7.0),
    "beta with two poles": dist.Beta(0.5, 0.5),
    "kumaraswamy": dist.Kumaraswamy(2.0, 2.0),
    "student": dist.StudentT(4.0),
    "folded": dist.FoldedDistribution(dist.Normal(0.2, 0.3)),
    "torch's own": torch.distributions.Gamma(2.0, 2.0),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.5, 0.5])), dist.Gamma(torch.tensor([2.0, 3.0]), torch.tensor([3.0, 2.0]))
    ),
}


@pytest.mark.parametrize("base", POSITIVE.values(), ids=POSITIVE)
def test_every_positive_distribution_can_be_truncated(base):
    """The quantile function inverts what the density sums up to; the density itself sums up to one."""
    prior = Truncated(base, high=2.5)
    low, high = float(prior.low), float(prior.high)
    p = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    quantiles = prior.icdf(p)
    share = torch.logspace(-30, 0, 20_000, dtype=torch.float64)  # dense at both ends
    nodes = low + (high - low) * torch.cat([share, 1.0 - share, torch.linspace(0, 1, 20_000)]).unique()
    density = prior.log_prob(nodes).exp().nan_to_num(nan=0.0, posinf=0.0)
    below = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(density, nodes)])
    assert float(below[-1]) == pytest.approx(1.0, abs=1e-4)
    found = np.interp(quantiles.numpy(), nodes.numpy(), below.numpy())
    np.testing.assert_allclose(found, p.numpy(), atol=1e-4)
    draws = prior.sample((500,))
    assert draws.min() >= low and draws.max() <= high and draws.dtype == torch.float64


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-9])
def test_a_narrow_peak_between_the_nodes_is_summed_up(scale):
    prior = Truncated(dist.StudentT(3.0, 0.3, scale), high=1.0)
    at = prior.base.loc + scale * torch.tensor([0.0, 1.0, -3.0], dtype=torch.float64)
    expected = stats.t(3, float(prior.base.loc), float(prior.base.scale)).logpdf(at.numpy())
    np.testing.assert_allclose(prior.log_prob(at).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    "base", [dist.StudentT(3.0, 0.3, 1e-18), dist.RelaxedBernoulli(torch.tensor(0.5), torch.tensor(0.3))]
)
def test_what_cannot_be_summed_up_is_refused(base):
    with pytest.raises(ExtentError, match="peak that is too narrow"):
        Truncated(base, high=1.0)


@pytest.mark.parametrize("base", [dist.ContinuousBernoulli(0.3), dist.GeneralizedPareto(0.1, 0.2, 0.3)])
def test_a_prior_that_no_file_can_build_again_is_not_written_down(base):
    extents = Extents(COORDINATES, {"rotation": Truncated(base, high=1.0)})
    with pytest.raises(ExtentError, match=f"{type(base).__name__} cannot be written down"):
        extents.config()


@pytest.mark.parametrize("name", [name for name in POSITIVE if name not in ("folded", "mixture")])
def test_truncated_distributions_are_written_down_and_built_again(name):
    extents = Extents(COORDINATES, {"rotation": Truncated(POSITIVE[name], high=1.0)})
    again = Extents(COORDINATES, priors_from_config(json.loads(json.dumps(extents.config()))))
    eta = torch.linspace(0.35, 0.9, 5, dtype=torch.float64)
    torch.testing.assert_close(again.priors["rotation"].log_prob(eta), extents.priors["rotation"].log_prob(eta))


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Truncated(dist.Gamma, 1.0), r"got the class Gamma; give an object"),
        (lambda: Truncated(3, 1.0), "expected a Pyro distribution, got 3"),
        (lambda: Truncated(dist.Poisson(2.0), 1.0), "expected a continuous distribution"),
        (lambda: Truncated(dist.Gamma(1.0, 1.0), NAN), "high: expected a finite number, got nan"),
        (lambda: Truncated(dist.Gamma(1.0, 1.0), -1.0), "no mass"),
        (lambda: Truncated(dist.Pareto(2.0, 1.0), 1.0), "no mass"),
        (lambda: Truncated(dist.HalfNormal(torch.tensor(1.0, requires_grad=True)), 1.0), "require gradients"),
        (lambda: Truncated(dist.HalfNormal(NAN, validate_args=False), 1.0), "is NaN"),
        (lambda: Outward(0.1, high=0.0), "expected a positive high, got 0"),
        (lambda: Outward(0.1, high=-1.0), "expected a positive high, got -1"),
        (lambda: UniformExtent(0.5, 0.5), "expected low below high"),
        (lambda: Extents(COORDINATES, {"rotation": dist.Uniform(0.5, 0.5, validate_args=False)}), "is NaN"),
    ],
)
def test_what_is_no_prior_is_refused_with_what_came(make, message):
    with pytest.raises(ExtentError, match=message):
        make()


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
