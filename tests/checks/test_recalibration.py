"""Recalibrated intervals: right ones stay, narrow ones widen, biased ones move, and wrong models are refused."""

import dataclasses
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm

import bayesinv
from bayesinv.checks.recalibration import job_of, refit_options
from bayesinv.checks.simulated_data import CLASS_ENTROPY, EVIDENCE, two_sided_p
from bayesinv.checks.simulated_fits import simulated_fits
from bayesinv.data.container import Data
from bayesinv.errors import NumericalError, RecalibrationError
from bayesinv.fitted.recalibrated import NORMAL_END, PriorScale, Recalibration, error_quantile, located, standardised
from bayesinv.fitted.result import InferenceResult
from bayesinv.model.invariance_model import Simulation
from bayesinv.posterior.invariance_posterior import InvariancePosterior

NOISE, N, TRUTH = 0.6, 9, 1.3
X = torch.zeros(N, 1, 4, 4)
SD = NOISE / math.sqrt(N)


class Seen(bayesinv.InvarianceModel):
    """y_i = rotation + N(0, NOISE²): under a flat prior on [0, π] the posterior is a truncated normal."""

    def simulate(self, x, extents=None, num_outputs=None, seed=0, groups=None):
        eta = self.extents.sample_prior(1, seed)[0] if extents is None else extents
        noise = torch.randn(len(x), 1, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
        return Simulation(eta, eta[:1].expand(len(x), 1), eta[0] + NOISE * noise)

    def log_evidence(self, eta, data, num_total=None):
        return torch.distributions.Normal(eta[0], NOISE).log_prob(data.y.double()).sum()


def exact(model, data, seed, scale=1.0, shift=0.0):
    """Draws of the truncated normal, its width and its centre falsified on request; other extents from their prior."""
    centre, sd = float(data.y.mean()) + shift * SD, SD * scale
    low, high = norm.cdf((0 - centre) / sd), norm.cdf((math.pi - centre) / sd)
    u = np.random.default_rng(seed).uniform(low, high, 2000)
    draws = model.extents.sample_prior(2000, seed)
    draws[:, 0] = torch.from_numpy(centre + sd * norm.ppf(u)).clamp(0, math.pi)
    return draws


def narrow(model, data, seed):
    return exact(model, data, seed, scale=1 / 3)


def biased(model, data, seed):
    return exact(model, data, seed, shift=2.5)


def posterior_of(fit, truth=TRUTH, offset=0.0, symmetries="rotation", **options):
    model = Seen(bayesinv.GaussianProcess(num_features=64), symmetries, likelihood="gaussian", **options)
    y = model.simulate(X, torch.tensor([truth], dtype=torch.float64), seed=4).y + offset
    data = Data(X, y)
    result = InferenceResult(inference="vi", guide="full_rank", extents=fit(model, data, 0)[None].double(), seed=0)
    return InvariancePosterior(model, data, result)


def fresh_coverage(mended, fit, num=400):
    """Share of fresh simulations whose truth lies in the recalibrated interval of their own fit, and in the raw one."""
    job, facts = job_of(mended, fit, None, "mixture", None, None, 77)
    records = simulated_fits(job, range(num), 1, None, facts, 77)
    errors = np.array([r["errors"] for r in records])[:, 0]
    low, high = error_quantile(mended.recalibration.errors, np.array([0.05, 0.95]))[:, 0]
    return np.mean((low <= errors) & (errors <= high)), np.mean(np.abs(errors) <= NORMAL_END)


def interval(posterior, **options):
    return posterior.quantile([0.05, 0.5, 0.95], **options)[:, 0]


def test_a_calibrated_posterior_stays_nearly_as_it_is():
    mended = posterior_of(exact).recalibrate(400, fit=exact)
    raw, new = interval(mended, recalibrated=False), interval(mended)
    assert float((new - raw).abs().max()) < 0.3 * SD
    assert not torch.equal(new, raw)
    table = mended.recalibration.raw_coverage.loc["rotation"]
    assert abs(table["actual"] - 0.9) < 3 * table["actual_se"]
    torch.testing.assert_close(mended.result.draws, posterior_of(exact).result.draws)


@pytest.mark.slow
def test_one_that_is_too_narrow_is_widened_until_it_covers():
    mended = posterior_of(narrow).recalibrate(400, fit=narrow)
    raw, new = interval(mended, recalibrated=False), interval(mended)
    assert 2.3 < float((new[2] - new[0]) / (raw[2] - raw[0])) < 3.7
    assert float(new[2]) > float(mended["rotation"].max())  # beyond every draw
    covered, as_fitted = fresh_coverage(mended, narrow, 800)
    assert abs(covered - 0.9) < 0.04
    assert as_fitted < 0.6


def test_one_that_is_biased_is_shifted():
    mended = posterior_of(biased).recalibrate(300, fit=biased)
    raw, new = interval(mended, recalibrated=False), interval(mended)
    right = interval(posterior_of(exact))
    assert abs(float(raw[1] - right[1])) > 2 * SD
    assert float((new - right).abs().max()) < 0.5 * SD
    assert mended.recalibration.raw_coverage.loc["rotation", "bias"] < -2
    assert abs(fresh_coverage(mended, biased)[0] - 0.9) < 3 * math.sqrt(0.09 / 300 + 0.09 / 400)


def test_a_posterior_in_the_wrong_place_is_noticed():
    def stuck(model, data, seed):
        return 1.3 + 0.05 * torch.randn(300, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    mended = posterior_of(stuck).recalibrate(200, fit=stuck)
    low, _, high = interval(mended).tolist()
    assert low < 0.4 and high > 2.4  # half of the truths come from the prior, and the fit says nothing about them


def test_prior_extents_leave_the_prior_as_it_is():
    def flat(model, data, seed):
        return model.extents.sample_prior(2000, seed)

    mended = posterior_of(flat).recalibrate(400, fit=flat, extents="prior")
    torch.testing.assert_close(interval(mended), interval(mended, recalibrated=False), atol=0.25, rtol=0)


def test_fixed_extents_stay_and_both_intervals_are_shown(tmp_path):
    symmetries = ["rotation", "translate_x"]
    posterior = posterior_of(narrow, symmetries=symmetries, priors={"translate_x": 0.2})
    mended = posterior.recalibrate(30, fit=narrow)
    assert mended.recalibration.symmetries == ("rotation",)
    assert mended.quantile([0.05, 0.95])[:, 1].tolist() == [0.2, 0.2]
    table = mended.summary()
    degrees = np.degrees(interval(mended, recalibrated=False).numpy())
    np.testing.assert_allclose(table.loc["rotation", ["raw_lower", "raw_median", "raw_upper"]].tolist(), degrees)
    np.testing.assert_allclose(
        table.loc["rotation", ["lower", "median", "upper"]].tolist(), np.degrees(interval(mended).numpy())
    )
    assert table.loc["translate_x", "lower"] == table.loc["translate_x", "raw_lower"]
    assert "raw_lower" not in posterior.summary() and posterior.recalibration is None
    for text in (repr(mended), mended._repr_html_()):
        assert "recalibrated by 30 simulations" in text and "as fitted" in text
    with pytest.raises(ValueError, match="has not been recalibrated"):
        posterior.quantile(0.5, recalibrated=True)
    assert "half from the prior" in mended.recalibration.assumptions
    assert set(mended.recalibration.p_values) == {EVIDENCE, "log variance of the targets"}


@pytest.mark.filterwarnings("ignore")
def test_saved_and_loaded(tmp_path):
    posterior = bayesinv.fit(small(), (images(), targets()), max_steps=15, num_draws=40)
    mended = posterior.recalibrate(19, fit=prior_draws, extents="prior", force=True, reweighted=False)
    back = bayesinv.InvariancePosterior.load(mended.save(tmp_path / "posterior.npz"))
    np.testing.assert_array_equal(back.recalibration.errors, mended.recalibration.errors)
    assert back.recalibration.header() == mended.recalibration.header()
    torch.testing.assert_close(back.quantile([0.1, 0.9]), mended.quantile([0.1, 0.9]), rtol=0, atol=0)
    plain = bayesinv.InvariancePosterior.load(posterior.save(tmp_path / "plain.npz"))
    assert plain.recalibration is None


@pytest.mark.parametrize("offset", [30.0, -30.0])
def test_data_unlike_the_simulated_ones_are_refused(offset):
    calls = []

    def counted(model, data, seed):
        calls.append(seed)
        return exact(model, data, seed)

    posterior = posterior_of(exact, offset=offset)
    with pytest.raises(RecalibrationError, match="do not look like the real ones") as caught:
        posterior.recalibrate(20, fit=counted)
    assert caught.value.statistic == EVIDENCE and caught.value.p_value < 0.01
    assert not calls  # before anything expensive
    with pytest.warns(UserWarning, match="do not look like the real ones"):
        forced = posterior.recalibrate(20, fit=counted, force=True)
    assert len(forced.recalibration.warnings) == 1 and len(calls) == 20


@pytest.mark.filterwarnings("ignore")
def test_labels_of_another_balance_are_refused():
    model = small("categorical")
    posterior = bayesinv.fit(model, (images(), torch.arange(24) % 3), max_steps=15, num_draws=40)
    posterior.model.evidence.mean.data[:] = torch.tensor([6.0, -30.0, -30.0])  # one class for everything
    with pytest.raises(RecalibrationError) as caught:
        posterior.recalibrate(19, fit=prior_draws)
    assert caught.value.statistic == CLASS_ENTROPY


def test_evidence_of_refits_is_compared_with_the_real_one():
    def fitted(model, data, seed, evidence=-10.0):
        draws = exact(model, data, seed)[None]
        value = evidence + float(data.y.mean())
        result = InferenceResult(inference="vi", guide="full_rank", extents=draws, log_evidence=value, seed=seed)
        return InvariancePosterior(model, data, result)

    posterior = posterior_of(exact)
    good = fitted(posterior.model, posterior.data, 0).recalibrate(25, fit=fitted)
    assert good.recalibration.p_values["log evidence of refits"] > 0.01
    with pytest.raises(RecalibrationError) as caught:
        fitted(posterior.model, posterior.data, 0, evidence=500.0).recalibrate(25, fit=fitted)
    assert caught.value.statistic == "log evidence of refits"


def test_runs_go_on_where_they_stopped(tmp_path):
    calls = []

    def counted(model, data, seed):
        calls.append(seed)
        return exact(model, data, seed)

    posterior = posterior_of(exact)
    posterior.recalibrate(20, fit=counted, folder=tmp_path)
    assert len(calls) == 20
    second = posterior.recalibrate(24, fit=counted, folder=tmp_path)
    assert len(calls) == 24
    np.testing.assert_array_equal(
        second.recalibration.errors, posterior.recalibrate(24, fit=exact).recalibration.errors
    )
    with pytest.raises(ValueError, match="other posterior"):
        posterior_of(narrow).recalibrate(20, fit=counted, folder=tmp_path)
    with pytest.raises(ValueError, match="other seed"):
        posterior.recalibrate(20, fit=counted, folder=tmp_path, seed=1)


def test_failures_are_counted_and_named():
    def breaks(model, data, seed):
        if float(data.y.mean()) > 2.4:
            raise NumericalError("no Cholesky factor")
        return exact(model, data, seed)

    posterior = posterior_of(exact)
    mended = posterior.recalibrate(60, fit=breaks).recalibration
    assert 0 < mended.num_failed == 60 - mended.num_simulations
    assert set(mended.settings["failures"].values()) == {"NumericalError: no Cholesky factor"}
    with pytest.raises(RecalibrationError, match=r"of 19 simulated fits succeeded.*no Cholesky"):
        posterior.recalibrate(19, fit=breaks, seed=1)


def images(n=24):
    return bayesinv.datasets.digits(math.radians(40), size=8, num_train=n, seed=0).train.x


def targets(n=24):
    return torch.randn(n, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def small(likelihood="gaussian", **options):
    return bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=8), "rotation", likelihood=likelihood, num_orbit_samples=4, **options
    )


def prior_draws(model, data, seed):
    return model.extents.sample_prior(200, seed)


@pytest.mark.filterwarnings("ignore")
def test_refits_repeat_the_settings_of_the_fit():
    posterior = bayesinv.fit(
        small(), (images(), targets()), guide="mean_field", max_steps=12, num_draws=30, learning_rate=0.1
    )
    options = refit_options(posterior, {})
    assert {k: options[k] for k in ("guide", "max_steps", "num_draws", "learning_rate", "inference")} == {
        "guide": "mean_field",
        "max_steps": 12,
        "num_draws": 30,
        "learning_rate": 0.1,
        "inference": "vi",
    }
    assert refit_options(posterior, {"max_steps": 5})["max_steps"] == 5
    assert "max_steps" not in refit_options(posterior, {"inference": bayesinv.VI(num_draws=20)})
    sampled = dataclasses.replace(
        posterior.result,
        inference="nuts",
        settings={**posterior.result.settings, "num_warmup": 9, "guide": "full_rank"},
    )
    sampled = InvariancePosterior(posterior.model, posterior.data, sampled)
    assert refit_options(sampled, {})["num_warmup"] == 9
    assert not {"num_chains", "num_warmup"} & set(refit_options(sampled, {"inference": "vi"}))
    mended = posterior.recalibrate(19, fit_options={"max_steps": 5}, force=True)
    assert mended.recalibration.num_simulations + mended.recalibration.num_failed == 19
    assert '"max_steps": 5' in mended.recalibration.settings["fit_options"]

    own = InvariancePosterior(posterior.model, posterior.data, changed(posterior.result, guide="my_guide"))
    with pytest.raises(ValueError, match="guide 'my_guide', which is code"):
        own.recalibrate(19)


def changed(result, **changes):
    return dataclasses.replace(result, **changes)


@pytest.mark.filterwarnings("ignore")
def test_networks_need_their_training_and_start_anew():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net), "rotation", num_orbit_samples=3)
    training = bayesinv.Training(epochs=3, batch_size=12)
    posterior = bayesinv.fit(model, (images(), torch.arange(24) % 3), training=training, num_draws=20)
    assert refit_options(posterior, {})["training"] == training
    job, _ = job_of(posterior, None, None, "mixture", None, None, 0)
    assert not torch.equal(job.student.network.net[1].weight, job.model.network.net[1].weight)
    mended = posterior.recalibrate(24, force=True)
    assert mended.recalibration.num_simulations >= 19
    bare = InvariancePosterior(posterior.model, posterior.data, changed(posterior.result, settings={}))
    with pytest.raises(ValueError, match=r"give the Training of its fit"):
        bare.recalibrate(19)
    part = InvariancePosterior(
        posterior.model,
        posterior.data,
        changed(posterior.result, settings={**posterior.result.settings, "num_train": 48}),
    )
    with pytest.raises(ValueError, match=r"the fit had 48 training inputs and the posterior keeps 24"):
        part.recalibrate(19)
    whole = torch.cat([images(), images()])
    assert len(job_of(part, None, None, "mixture", None, whole, 0)[0].data) == 48


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_side_by_side_is_the_same_as_one_after_another(tmp_path):
    posterior = bayesinv.fit(small(), (images(), targets()), max_steps=15, num_draws=40)
    options = {"fit_options": {"max_steps": 5, "num_draws": 20}, "force": True}
    one = posterior.recalibrate(19, **options)
    two = posterior.recalibrate(19, jobs=2, folder=tmp_path, **options)
    np.testing.assert_allclose(one.recalibration.errors, two.recalibration.errors, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_simulations": 18}, "num_simulations: expected an integer of at least 19"),
        ({"jobs": 0}, "jobs: expected"),
        ({"extents": "posterior"}, "extents: expected one of"),
        ({"fit": exact, "fit_options": {"max_steps": 3}}, "fit_options belong to"),
        ({"fit": exact, "reweighted": True}, "carry no importance weights"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        posterior_of(exact).recalibrate(**options)


def test_nothing_to_recalibrate():
    posterior = posterior_of(exact, priors={"rotation": 0.3})
    with pytest.raises(ValueError, match="every symmetry of this model is fixed"):
        posterior.recalibrate()
    posterior = posterior_of(lambda model, data, seed: torch.ones(1, 1))
    with pytest.raises(ValueError, match="a point estimate"):
        posterior.recalibrate()


def test_errors_and_places_are_inverse_and_scales_have_a_floor():
    at = np.array([[-1.0, 0.4], [0.5, 0.4], [0.7, 0.4]])
    z = np.array([[-3.0, 0.4], [0.6, 0.5], [4.0, -2.0]])
    e = standardised(z, at)
    np.testing.assert_allclose(located(e, at), z)
    assert e[1, 0] == pytest.approx(0.1 / (0.2 / NORMAL_END)) and e[1, 1] == pytest.approx(100.0)


@pytest.mark.parametrize("prior", [None, bayesinv.UniformExtent(0.5, 2.0), "half-normal", "beta"])
def test_z_and_back(prior):
    priors = {"half-normal": bayesinv.Truncated(dist.HalfNormal(0.5), high=2.0)}
    chosen = priors.get(prior, prior) if isinstance(prior, str) else prior
    if prior == "beta":
        chosen = dist.Beta(torch.tensor(2.0), torch.tensor(2.0))  # without a quantile function
    model = small(priors={} if chosen is None else {"rotation": chosen})
    scale = PriorScale(model.extents)
    eta = model.extents.sample_prior(500, 1).numpy()
    z = scale.to_z(eta)
    np.testing.assert_allclose(scale.from_z(z), eta, atol=1e-3)
    assert abs(z.mean()) < 0.15 and abs(z.std() - 1) < 0.15
    low, high = scale.from_z(np.array([[-math.inf], [math.inf]]))[:, 0]
    support = model.extents.priors["rotation"].support
    assert (low, high) == (float(support.lower_bound), float(support.upper_bound))


def test_p_values():
    values = list(np.random.default_rng(0).normal(size=40))
    assert two_sided_p(0.0, values) > 0.5
    assert 0.0 < two_sided_p(9.0, values) < 1e-6
    assert two_sided_p(1.0, [1.0] * 5) > 0.3 and two_sided_p(2.0, [1.0] * 5) == 0.0
    uniform = np.random.default_rng(1).normal(size=(400, 41))
    refused = np.mean([two_sided_p(row[0], row[1:].tolist()) < 0.01 for row in uniform])
    assert refused < 0.03


def test_recalibrations_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"errors: expected \(N, 1\)"):
        Recalibration(symmetries=("rotation",), errors=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="finite"):
        Recalibration(symmetries=("rotation",), errors=np.full((3, 1), np.nan))
