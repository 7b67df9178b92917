"""Log evidences against closed forms; what depends on the prior, on the orbit, and on blur."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import bayesinv
from bayesinv import checks
from bayesinv.checks.sensitivity import cjs_distance
from bayesinv.errors import DataError, EvidenceError
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms import Affine2d
from tests.fakes import NAMES, KnownModel, make_data, make_posterior, make_result


def truncated_draws(model, num=600):
    """Draws of KnownModel's posterior under flat priors: truncated normals."""
    rng = np.random.default_rng(0)
    columns = []
    for coordinate, centre in zip(model.transform.coordinates, model.centre.tolist(), strict=True):
        low, high = norm.cdf(-centre / model.width), norm.cdf((coordinate.largest - centre) / model.width)
        columns.append(centre + model.width * norm.ppf(rng.uniform(low, high, num)))
    return torch.from_numpy(np.stack(columns, -1)).clamp_min(0.0)[None]


def known(cls=KnownModel, **options):
    model = cls(bayesinv.GaussianProcess(num_features=64), Affine2d(NAMES), **options)
    return InvariancePosterior(model, make_data(), make_result(extents=truncated_draws(model), pareto_k=None))


def exact_log_evidence(model):
    total = 0.0
    for coordinate, centre in zip(model.transform.coordinates, model.centre.tolist(), strict=True):
        mass = norm.cdf((coordinate.largest - centre) / model.width) - norm.cdf(-centre / model.width)
        total += math.log(math.sqrt(2 * math.pi) * model.width * mass / coordinate.largest)
    return total


def test_importance_and_bridge_sampling_find_the_exact_evidence():
    posterior = known()
    truth = exact_log_evidence(posterior.model)
    importance = checks.importance_evidence(posterior, 300)
    bridge = checks.bridge_evidence(posterior, 700)
    for estimate in (importance, bridge):
        assert abs(estimate.log_evidence - truth) < 3.5 * estimate.se, estimate
        assert estimate.se < 0.2 and estimate.quotable
    assert importance.agrees_with(bridge)
    assert importance.pareto_k < 0.5 and bridge.pareto_k is None
    assert importance == checks.importance_evidence(posterior, 300)


def test_estimates_that_are_too_rough_are_not_quotable():
    assert not checks.EvidenceEstimate(-10.0, 0.6, "importance", 100, 0.2).quotable
    assert not checks.EvidenceEstimate(-10.0, 0.1, "importance", 100, 0.8).quotable
    assert not checks.EvidenceEstimate(-10.0, 0.1, "importance", 9, 0.1).agrees_with(
        checks.EvidenceEstimate(-10.5, 0.1, "bridge", 9)
    )


def test_an_estimate_without_a_standard_error_is_compared_with_nothing():
    good = checks.EvidenceEstimate(-10.0, 0.1, "bridge", 300)
    rough = checks.EvidenceEstimate(-10.0, None, "importance", 300, 0.55)
    assert good.quotable and not rough.quotable
    assert str(good) == "log evidence -10.00 ± 0.10 nats (bridge)"
    assert "not to be quoted" in str(rough) and "k̂ = 0.55" in str(rough) and "±" not in str(rough)
    for one, other in ((good, rough), (rough, good)):
        with pytest.raises(EvidenceError, match="importance estimate has no standard error"):
            one.agrees_with(other)


@pytest.mark.parametrize(("k", "quotable"), [(0.45, True), (0.55, False)])
def test_weights_of_infinite_variance_are_not_quoted(k, quotable):
    """Whatever the standard error says."""
    assert checks.EvidenceEstimate(-10.0, 0.1, "importance", 300, k).quotable is quotable


def test_ranking_copes_with_evidences_without_a_standard_error():
    rough = make_posterior(weighted=True, pareto_k=0.55, log_evidence=-17.0, log_evidence_se=None)
    fits = {"fine": make_posterior(log_evidence=-18.0, log_evidence_se=0.3), "rough": rough}
    table = checks.rank_evidences(fits)
    assert table.index.tolist() == ["rough", "fine"] and table["quotable"].tolist() == [False, True]
    assert "k̂ = 0.55" in table.loc["rough", "reason"] and table.loc["fine", "reason"] == ""
    assert table.loc["fine", "difference"] == -1.0 and math.isnan(table.loc["fine", "difference_se"])


@pytest.mark.slow
@pytest.mark.parametrize("hyperparameters", ["latent", "optimised"])
def test_the_two_agree_on_a_fitted_gaussian_process(hyperparameters):
    """Both integrate over what the fit integrated over; the log evidences of the two kinds differ by nats."""
    data = bayesinv.datasets.digits(math.radians(40), size=8, num_train=60, seed=0).train
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), "rotation", num_orbit_samples=4)
    posterior = bayesinv.fit(model, data, seed=0, num_draws=200, hyperparameters=hyperparameters)
    importance = checks.importance_evidence(posterior, 300)
    bridge = checks.bridge_evidence(posterior, 600)
    assert importance.agrees_with(bridge), (importance, bridge)
    assert importance.quotable and bridge.quotable
    assert abs(posterior.log_evidence - bridge.log_evidence) < 4 * math.hypot(posterior.log_evidence_se, bridge.se)


def test_ranking():
    fits = {"a": make_posterior(log_evidence=-20.0), "b": make_posterior(log_evidence=-18.0, log_evidence_se=0.3)}
    table = checks.rank_evidences(fits)
    assert table.index.tolist() == ["b", "a"]
    assert table.loc["a", "difference"] == -2.0
    assert table.loc["a", "difference_se"] == pytest.approx(math.hypot(0.5, 0.3))
    assert table["quotable"].tolist() == [True, False]


def test_what_may_not_be_ranked_is_refused():
    one = make_posterior()
    with pytest.raises(EvidenceError, match="no log evidence"):
        checks.rank_evidences({"one": one, "none": make_posterior(chains=2)})
    model = KnownModel(bayesinv.GaussianProcess(num_features=64), Affine2d(NAMES), num_orbit_samples=7)
    other_orbit = InvariancePosterior(model, make_data(), make_result())
    with pytest.raises(EvidenceError, match="differ in num_orbit_samples"):
        checks.rank_evidences({"one": one, "other": other_orbit})
    with pytest.raises(TypeError, match="got a list"):
        checks.rank_evidences([one])
    other_data = InvariancePosterior(one.model, make_data(n=10), make_result())
    with pytest.raises(EvidenceError, match="number of training examples, training data"):
        checks.rank_evidences({"one": one, "other": other_data})
    other_kind = KnownModel(bayesinv.GaussianProcess(num_features=64), Affine2d(NAMES), evidence="dirichlet")
    with pytest.raises(EvidenceError, match="kind of evidence"):
        checks.rank_evidences({"one": one, "other": InvariancePosterior(other_kind, make_data(), make_result())})
    with pytest.raises(EvidenceError, match="at least one"):
        checks.rank_evidences({})


def test_evidences_from_minibatches_and_points_are_refused():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    model = bayesinv.InvarianceModel(net, Affine2d(NAMES))
    with pytest.raises(ValueError, match="estimate from minibatches"):
        checks.importance_evidence(InvariancePosterior(model, make_data(), make_result()))
    point = make_posterior(draws=1, extents=torch.tensor([[[0.9, 0.1, 0.1]]], dtype=torch.float64))
    for check in (checks.importance_evidence, checks.prior_sensitivity, checks.orbit_sensitivity):
        with pytest.raises(ValueError, match="point estimate"):
            check(point)


def test_power_scaling_against_the_closed_form():
    """A normal likelihood of precision 100 and an exponential prior: the power moves the mean by (α - 1) rate / 100."""
    rate = 4.0
    prior = bayesinv.Truncated(torch.distributions.Exponential(rate), high=math.pi)
    model = KnownModel(bayesinv.GaussianProcess(num_features=64), Affine2d(["rotation"]), priors={"rotation": prior})
    draws = 0.9 - rate * 0.01 + 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal(4000))
    posterior = InvariancePosterior(model, make_data(), make_result(extents=draws[None, :, None]))
    row = checks.prior_sensitivity(posterior, num_draws=4000).table.loc["rotation"]
    moved = math.radians(row["median_stronger"] - row["median_weaker"])
    assert moved == pytest.approx(-(1.25 - 0.8) * rate * 0.01, rel=0.25)
    assert row["likelihood"] > 0.05
    # The same prior under a likelihood a tenth as wide matters less.
    model.width = 0.01
    narrow = 0.9 - rate * 1e-4 + 0.01 * torch.from_numpy(np.random.default_rng(0).standard_normal(4000))
    sharp = InvariancePosterior(model, make_data(), make_result(extents=narrow[None, :, None]))
    assert checks.prior_sensitivity(sharp).table.loc["rotation", "prior"] < 0.5 * row["prior"]


def test_a_flat_prior_has_no_strength_and_a_conflict_is_named():
    flat = checks.prior_sensitivity(known())
    assert (flat.table["prior"] == 0).all() and (flat.table["likelihood"] > 0.05).all()
    assert [v.level for v in flat.verdicts()] == ["ok"]
    steep = bayesinv.Truncated(torch.distributions.Exponential(60.0), high=math.pi)
    model = KnownModel(bayesinv.GaussianProcess(num_features=64), Affine2d(["rotation"]), priors={"rotation": steep})
    draws = 0.3 + 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal(2000))  # 0.9 less 60 · 0.01
    posterior = InvariancePosterior(model, make_data(), make_result(extents=draws.abs()[None, :, None]))
    conflict = checks.prior_sensitivity(posterior)
    assert conflict.table.loc["rotation", "diagnosis"] == "prior and data in conflict"
    assert posterior.check(sensitivity=True).named("sensitivity")[0].level == "note"


def test_reweightings_that_do_not_settle_say_nothing():
    sensitivity = checks.prior_sensitivity(known())
    assert sensitivity.limit == pytest.approx(1 - 1 / math.log10(400))
    lost = dataclasses.replace(sensitivity, pareto_k=0.65)
    assert [v.level for v in lost.verdicts()] == ["note"] and "0.62" in lost.verdicts()[0].message
    assert [v.level for v in sensitivity.verdicts()] == ["ok"]


def test_the_distance_of_two_weightings():
    values = np.linspace(0.0, 1.0, 1001)
    low, high = (values < 0.5).astype(float), (values >= 0.5).astype(float)
    assert cjs_distance(values, low, low) == 0.0
    far, near = cjs_distance(values, low, high), cjs_distance(values, low, low + 0.5 * high)
    assert 0 < near < far <= 1
    assert cjs_distance(values, high, low) == pytest.approx(far)
    assert cjs_distance(np.ones(5), np.ones(5), np.arange(5.0)) == 0.0


class OrbitBound(KnownModel):
    """The evidence's peak moves with the orbit's seed by half a radian, ten widths."""

    def log_evidence(self, eta, data, num_total=None):
        centre = self.centre.clone()
        centre[0] += 0.08 * self.orbit.config()["seed"]
        return -0.5 * ((eta - centre) / self.width).square().sum()


def test_orbit_sensitivity():
    calm = checks.orbit_sensitivity(known())
    assert float(calm.shift.max()) == 0.0 and calm.verdict().level == "ok"
    assert calm.table["num_samples"].tolist() == [24, 24, 24, 48, 48, 96, 96]
    posterior = known(OrbitBound)
    own = posterior.model.orbit
    moved = checks.orbit_sensitivity(posterior, num_draws=300)
    assert posterior.model.orbit is own
    # a shift of 0.16 radians against a half-width of 1.64 widths
    assert moved.shift["rotation"] == pytest.approx(0.16 / 0.164, rel=0.25)
    assert posterior.check(orbit=True).named("orbit")[0].level in ("note", "serious")
    assert moved.verdict().level != "ok"


class RewardsBlur(KnownModel):
    """An evidence that only sees how much detail is left."""

    def log_evidence(self, eta, data, num_total=None):
        points = self.orbit(data.x, eta)
        return -(points.diff(dim=-1).square().sum() + points.diff(dim=-2).square().sum()) / len(points)


class RewardsMovement(KnownModel):
    """An evidence that only sees how far the copies' centres of mass lie apart."""

    def log_evidence(self, eta, data, num_total=None):
        points = self.orbit(data.x, eta)
        where = torch.arange(points.shape[-1], dtype=points.dtype)
        centre = (points * where).sum((-3, -2, -1)) / points.sum((-3, -2, -1))
        return 100 * centre.var(0).mean()


def test_the_blur_matched_null():
    blurry = checks.blur_matched_null(known(RewardsBlur))
    assert blurry.gain > 0 and 0 < blurry.detail < 1 and blurry.blur > 0
    assert blurry.gain_of_blur == pytest.approx(blurry.gain, rel=0.05)  # the same detail, the same evidence
    assert blurry.verdict().level in ("note", "serious")
    moving = checks.blur_matched_null(known(RewardsMovement))
    assert moving.gain > 0.1 and abs(moving.gain_of_blur) < 0.2 * moving.gain
    assert moving.verdict().level == "ok"


def test_blur_is_for_images():
    posterior = known()
    posterior.data = bayesinv.Data(torch.rand(5, 4), torch.tensor([0, 1, 0, 1, 0]))
    with pytest.raises(DataError, match="expected images"):
        checks.blur_matched_null(posterior)


def test_reliability_and_predictive_checks_of_classes():
    generator = torch.Generator().manual_seed(0)
    p = 0.5 + 0.5 * torch.rand(4000, generator=generator)
    y = (torch.rand(4000, generator=generator) > p).long()
    table = checks.reliability(torch.stack([p, 1 - p], 1), y)
    assert ((table["accuracy"] - table["confidence"]).abs() < 3.5 * table["standard_error"]).all()
    assert table["count"].sum() == 4000 and table["confidence"].is_monotonic_increasing
    with pytest.raises(ValueError, match="a label for each"):
        checks.reliability(torch.stack([p, 1 - p], 1), y[:5])
    posterior = make_posterior()  # p(y = 1) is about 0.29 everywhere
    x = torch.rand(400, 1, 8, 8, dtype=torch.float64)
    right = (torch.rand(400, generator=generator) < 0.29).long()
    assert checks.predictive_check(posterior, (x, right)).level == "ok"
    found = posterior.check(test=(x, (torch.arange(400) >= 10).long())).named("predictive")[0]
    assert found.level == "note" and "overconfident" in found.advice


def test_the_probability_integral_transform_of_real_targets():
    posterior = make_posterior("gaussian")
    x = torch.rand(500, 1, 8, 8, dtype=torch.float64)
    mean = float(posterior.predict(x[:1]).mean)
    z = torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = checks.probability_integral_transform(posterior, (x, mean + 0.2 * z))
    np.testing.assert_allclose(u, norm.cdf(z.numpy()), atol=1e-6)
    assert checks.predictive_check(posterior, (x, mean + 0.2 * z)).level == "ok"
    narrow = checks.predictive_check(posterior, (x, mean + 0.5 * z))
    assert narrow.level == "note" and "too narrow" in narrow.advice
    with pytest.raises(ValueError, match="use reliability"):
        checks.probability_integral_transform(make_posterior(), (x, torch.zeros(500).long()))
