"""select() on evidences whose integrals are known."""

import math
import sys

import numpy as np
import pytest
import torch
from tqdm import tqdm

import bayesinv
from bayesinv.errors import ImportanceWarning, NotConvergedWarning, NumericalError
from bayesinv.extents.priors import Truncated, UniformExtent
from bayesinv.model.exact_evidence import weighing_model
from bayesinv.selection import SubsetSelection
from bayesinv.selection.select import _as_posterior
from bayesinv.selection.sets import all_sets, log_prior_of_sets
from bayesinv.selection.subsets import SetDraws
from tests.fakes import make_data, make_posterior, make_result
from tests.selection.known import PRECISION, CorrelatedModel, correlated_posterior, null_posterior, quadrature

NAMES = ("rotation", "translate_x", "scale_x")


@pytest.fixture(scope="module")
def truth():
    posterior = correlated_posterior()
    return torch.tensor([quadrature(posterior.model, row) for row in all_sets(3).tolist()], dtype=torch.float64)


@pytest.fixture(scope="module")
def selection():
    return bayesinv.select(correlated_posterior(), seed=0)


@pytest.mark.slow
def test_evidences_and_probabilities_agree_with_quadrature(truth):
    """Over 12 seeds: errors are of the size that the standard errors say, and have no common sign."""
    log_p = truth + log_prior_of_sets(all_sets(3), 0.5, NAMES)
    expected = (log_p - log_p.logsumexp(0)).exp() @ all_sets(3).double()
    scores, evidence_scores = [], []
    for seed in range(12):
        found = bayesinv.select(correlated_posterior(), seed=seed)
        table = found.inclusion
        scores.append((table["probability"].to_numpy() - expected.numpy()) / table["standard_error"].to_numpy())
        likely = found.log_probability.exp() > 0.02
        evidence_scores.append(((found.log_evidence - truth) / found.log_evidence_se)[likely].numpy())
    scores = np.array(scores)[:, 1:]  # rotation is in whatever happens: both numbers are 1
    assert np.sqrt((scores**2).mean()) < 1.5
    assert abs(scores.mean()) < 0.7  # 24 scores
    assert np.sqrt((np.concatenate(evidence_scores) ** 2).mean()) < 1.6
    assert np.abs(np.concatenate(evidence_scores)).max() < 5


@pytest.mark.parametrize("scale", [0.2, 2.0])
def test_a_poor_start_ends_at_the_same_numbers(truth, scale):
    """A guide five times too narrow, or twice as wide as the posterior."""
    found = bayesinv.select(correlated_posterior(scale), seed=0)
    likely = found.log_probability.exp() > 0.02
    assert float((found.log_evidence - truth)[likely].abs().max()) < 0.4


def test_too_few_draws_are_confessed():
    with (
        pytest.warns(NotConvergedWarning, match="effective draws"),
        pytest.warns(ImportanceWarning, match="above 0.34, the limit for 32 draws"),
    ):
        found = bayesinv.select(correlated_posterior(3.0), max_rounds=2, seed=0)
    assert found.rough_share > 0.05 and not found.trusted
    assert any("effective draws" in warning for warning in found.warnings)


def test_no_symmetry_at_all_is_an_answer_to_trust():
    """The empty set has no weights, and no k̂ that could be too large."""
    found = bayesinv.select(null_posterior(), seed=0)
    assert found.subsets.index[0] == "none" and found.subsets["probability"].iloc[0] > 0.5
    assert math.isnan(found.subsets["pareto_k"].iloc[0])
    assert found.trusted and found.warnings == ()
    assert "NOT TO BE TRUSTED" not in repr(found) and "against" in found.summary()["words"].iloc[0]


def test_too_few_draws_for_a_k_hat_are_not_trusted():
    with (
        pytest.warns(NotConvergedWarning, match="effective draws"),
        pytest.warns(ImportanceWarning, match="has 16 draws of some weight, too few"),
    ):
        found = bayesinv.select(make_posterior(), max_rounds=1, seed=0)
    assert not found.trusted and any("too few" in warning for warning in found.warnings)


@pytest.mark.parametrize(("k", "good"), [(0.49, True), (0.51, False), (math.nan, False)])
def test_a_set_is_judged_by_its_own_number_of_draws(k, good):
    log_weights = torch.cat([torch.zeros(100), torch.full((900,), -torch.inf)]).double()  # a limit of 0.5
    assert SetDraws(torch.zeros(1000, 1, dtype=torch.float64), log_weights, k).good_weights is good


def test_symmetries_that_replace_each_other(selection, truth):
    """One of the two is needed, and their sets share what that takes."""
    table = selection.subsets
    assert set(table.index[:3]) >= {"rotation + translate_x", "rotation + scale_x"}
    assert table["probability"].sum() == pytest.approx(1.0)
    assert table.loc["none", "log_evidence"] == pytest.approx(float(truth[0]))
    assert table.loc["none", "log_evidence_se"] == 0.0


def test_bayes_factors_are_differences_of_evidences(selection, truth):
    factors = selection.bayes_factors
    alone, last = float(truth[1] - truth[0]), float(truth[7] - truth[6])
    row = factors.loc["rotation"]
    assert row["log_bf_alone"] == pytest.approx(alone, abs=5 * row["log_bf_alone_se"])
    assert row["log_bf_last"] == pytest.approx(last, abs=5 * row["log_bf_last_se"] + 0.05)
    p = selection.inclusion["probability"]
    odds = np.log(p / (1 - p))
    np.testing.assert_allclose(factors["log_bf"][1:], odds[1:], atol=1e-6)  # even prior odds


def test_savage_dickey(selection):
    """Z_{all but k} / Z_all = p(η_k = 0 | D) / p(η_k = 0), the density at zero by quadrature."""
    model = correlated_posterior().model
    num = 400
    eta_x = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    eta_s = (torch.arange(num, dtype=torch.float64) + 0.5) / num * math.log(2.0)
    grid = torch.cartesian_prod(torch.tensor([0.9], dtype=torch.float64), eta_x, eta_s)
    r = (grid - model.centre) / model.width
    log_joint = (-0.5 * ((r @ PRECISION) * r).sum(1)).reshape(num, num)
    marginal = log_joint.logsumexp(1)  # of translate_x
    density_at_zero = float((marginal[0] - marginal.logsumexp(0)).exp()) * num
    row = selection.bayes_factors.loc["translate_x"]
    assert row["log_bf_last"] == pytest.approx(-math.log(density_at_zero), abs=5 * row["log_bf_last_se"] + 0.05)


def test_same_seed_same_answer():
    first, again, other = (bayesinv.select(correlated_posterior(), seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.log_evidence, again.log_evidence)
    assert not torch.equal(first.log_evidence, other.log_evidence)


def test_prior_inclusion_moves_odds_and_not_bayes_factors_alone(selection):
    doubtful = bayesinv.select(correlated_posterior(), prior_inclusion=0.1, seed=0)
    assert (doubtful.inclusion["probability"][1:] < selection.inclusion["probability"][1:]).all()
    np.testing.assert_allclose(doubtful.inclusion["prior"], 0.1)
    reweighted = selection.with_prior(0.1).inclusion["probability"]
    np.testing.assert_allclose(reweighted, doubtful.inclusion["probability"], atol=0.05)


def test_a_slab_of_half_the_reach_doubles_the_bayes_factor():
    posterior = make_posterior()  # everything within 0.4 of translate_x's 1
    table = bayesinv.select(posterior, seed=0).sensitivity().loc["translate_x"]
    assert table.loc[0.5, "covered"] > 0.99
    assert table.loc[0.5, "log_bf"] - table.loc[1.0, "log_bf"] == pytest.approx(math.log(2.0), abs=0.02)
    assert table.loc[1.0, "covered"] == 1.0
    assert (table["standard_error"] > 0).all()


def test_a_slab_too_short_says_so(selection):
    table = selection.sensitivity().loc["rotation"]
    assert table.loc[0.1, "covered"] < 0.05  # up to 18°, and the data say 52° ± 6°


def test_sampled_extents_are_exact_zeros_where_a_symmetry_is_out(selection):
    draws = selection.sample(4000, seed=0)
    shares = (draws > 0).double().mean(0).numpy()
    np.testing.assert_allclose(shares, selection.inclusion["probability"], atol=0.01)
    assert float(draws[:, 0].mean()) == pytest.approx(0.9, abs=0.05)
    assert torch.equal(draws, selection.sample(4000, seed=0))


def test_any_slab(truth):
    """A half-normal slab: the evidence of {rotation} is a one-dimensional integral."""
    posterior = correlated_posterior()
    slab = Truncated(torch.distributions.HalfNormal(torch.tensor(0.8, dtype=torch.float64)), high=math.pi)
    posterior.model.extents.priors["rotation"] = slab
    found = bayesinv.select(posterior, seed=0)
    eta = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * math.pi
    values = [-0.5 * (float(e) - 0.9) ** 2 / 0.01 for e in eta]
    log_z = (torch.tensor(values, dtype=torch.float64) + slab.log_prob(eta)).logsumexp(0) + math.log(math.pi / 4000)
    uniform = truth[1] - torch.tensor(values, dtype=torch.float64).logsumexp(0) + math.log(4000)
    i = found.sets.tolist().index([True, False, False])
    assert float(found.log_evidence[i]) == pytest.approx(float(log_z + uniform), abs=0.3)


def test_fixed_symmetries_stay_and_are_no_candidates():
    model = CorrelatedModel(correlated_posterior().model.backbone, ["rotation", "translate_x", "scale_x"])
    model = type(model)(model.backbone, ["rotation", "translate_x", "scale_x"], priors={"rotation": 0.9})
    posterior = correlated_posterior()
    posterior = type(posterior)(model, posterior.data, posterior.result)
    found = bayesinv.select(posterior, seed=0)
    assert found.symmetries == ("translate_x", "scale_x") and len(found.sets) == 4
    assert (found.sample(5)[:, 0] == 0.9).all()


def test_failed_evaluations_are_counted_and_reported():
    posterior = correlated_posterior()
    original = posterior.model.log_evidence

    def failing(eta, data, num_total=None):
        if eta[0] > 1.5:
            raise NumericalError("too far")
        return original(eta, data)

    posterior.model.log_evidence = failing
    found = bayesinv.select(posterior, seed=0)
    assert sum(d.num_failed for d in found.draws) > 0
    assert any("could not be computed" in warning for warning in found.warnings)


def test_an_evidence_that_always_fails_raises():
    posterior = correlated_posterior()

    def failing(eta, data, num_total=None):
        raise NumericalError("never")

    posterior.model.log_evidence = failing
    with pytest.raises(NumericalError, match="at any draw"):
        bayesinv.select(posterior)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "bridge"}, "method: expected one of"),
        ({"draws_per_round": 4}, "draws_per_round"),
        ({"max_rounds": 0}, "max_rounds"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"refit_steps": -1}, "refit_steps"),
        ({"slab_scales": (2.0,)}, "wider slab"),
        ({"prior_inclusion": 0.0}, "prior_inclusion"),
        ({"data": make_data()}, "holds its training data"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        bayesinv.select(correlated_posterior(), **arguments)


def test_refuses_what_it_cannot_select_from():
    with pytest.raises(TypeError, match="expected an InvariancePosterior"):
        _as_posterior("posterior", None, None, 0)
    with pytest.raises(ValueError, match="training data"):
        bayesinv.select(make_posterior().model)
    point = make_posterior(extents=make_result().extents[:, :1])
    with pytest.raises(ValueError, match="a spread"):
        bayesinv.select(point)
    outward = make_posterior()
    outward.model.extents.priors["scale_x"] = bayesinv.Outward(0.1, high=0.5)
    with pytest.raises(ValueError, match="trade-off"):
        bayesinv.select(outward)


def test_too_many_symmetries_for_all_sets(monkeypatch):
    monkeypatch.setattr(sys.modules["bayesinv.selection.select"], "MOST_SYMMETRIES", 2)
    with pytest.raises(ValueError, match="takes up to 2 symmetries, and this model has 3"):
        bayesinv.select(correlated_posterior(), method="subsets")


def test_unknown_scale(selection):
    with pytest.raises(ValueError, match="slab_scale"):
        selection.with_prior(slab_scale=0.3)
    with pytest.raises(ValueError, match="cut already"):
        selection.with_prior(slab_scale=0.5).with_prior(slab_scale=0.25)


def test_in_words(selection):
    assert "rotation" in repr(selection) and "likeliest set" in repr(selection)
    assert "tensor" not in repr(selection)
    summary = selection.summary()
    assert summary.loc["rotation", "words"] == "very strong for"
    assert "<table" in selection._repr_html_()


def test_picture(selection):
    figure = selection.plot()
    assert len(figure.axes) == 3
    with pytest.raises(ValueError, match="num_sets"):
        selection.plot(num_sets=0)


def test_round_trip(selection, tmp_path):
    path = selection.save(tmp_path / "selection")
    loaded = bayesinv.Selection.load(path)
    assert isinstance(loaded, SubsetSelection)
    for name in ("inclusion", "bayes_factors", "subsets"):
        assert getattr(loaded, name).equals(getattr(selection, name))
    assert loaded.sensitivity().equals(selection.sensitivity())
    assert torch.equal(loaded.sample(10), selection.sample(10))
    with pytest.raises(FileExistsError):
        selection.save(path)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(bayesinv.errors.SavedFileError):
        bayesinv.Selection.load(damaged)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_on_digits():
    """Turned digits need the rotation, and nothing that was not done to them; refitting agrees."""
    train, _ = bayesinv.datasets.digits(math.radians(45), num_train=80, seed=0)
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=256),
        ["rotation", "translate_x"],
        priors={"translate_x": UniformExtent(0.0, 0.5)},
        num_orbit_samples=8,
    )
    # Held at the mode, as select holds them with refit_steps=0: latent ones would be integrated out of one alone.
    posterior = bayesinv.fit(model, train, seed=0, hyperparameters="optimised", num_draws=300)
    found = bayesinv.select(posterior, refit_steps=0, seed=0)
    assert found.inclusion.loc["rotation", "probability"] > 0.99
    assert found.inclusion.loc["translate_x", "probability"] < 0.5
    full = found.subsets.loc["rotation + translate_x"]
    # The guide's own importance weights are another estimate of the same number.
    assert full["log_evidence"] == pytest.approx(
        posterior.log_evidence, abs=5 * math.hypot(full["log_evidence_se"], posterior.log_evidence_se)
    )
    # And one extent can be integrated on a grid.
    eta = torch.zeros(400, 2, dtype=torch.float64)
    eta[:, 0] = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 * math.pi
    with torch.no_grad():
        model = weighing_model(posterior.model, posterior.data, posterior.result.settings)
        values = torch.stack([model.log_evidence(row, posterior.data) for row in eta])
    row = found.subsets.loc["rotation"]
    by_grid = float(values.logsumexp(0)) - math.log(400)
    assert row["log_evidence"] == pytest.approx(by_grid, abs=4 * row["log_evidence_se"] + 0.02)
    refitted = bayesinv.select(posterior, refit_steps=5, seed=0)
    assert refitted.subsets["log_evidence"].iloc[0] > found.subsets["log_evidence"].iloc[0] - 1.0


def test_a_bar_says_what_is_done_and_changes_nothing(selection, capfd, monkeypatch):
    said = []
    monkeypatch.setattr(tqdm, "set_description", lambda bar, text, **_: said.append(text))
    rounds = []
    shown = bayesinv.select(correlated_posterior(), seed=0, progress=True, on_round=lambda *round: rounds.append(round))
    assert torch.equal(shown.log_evidence, selection.log_evidence)
    assert said[0] == "all 8 sets once" and "hyperparameters with rotation, translate_x, scale_x" in said
    drawn = [(number, num) for number, num in rounds if num]
    assert said[-len(drawn) :] == [f"round {number} of at most 10, {num} sets" for number, num in drawn]
    counted = sum(draws.num_weights + draws.num_failed for draws in shown.draws)
    last = capfd.readouterr().err.rsplit("\r", 1)[-1]
    assert f"{counted}/{counted}" in last or int(last.split("| ")[1].split("/")[0]) >= counted, last


def test_without_progress_nothing_is_written(capfd):
    bayesinv.select(null_posterior(), seed=0)
    assert capfd.readouterr() == ("", "")


def test_a_model_is_fitted_under_a_bar_of_its_own(monkeypatch):
    asked = []

    def fit(*arguments, progress, **options):
        asked.append(progress)
        return null_posterior()

    monkeypatch.setattr(sys.modules["bayesinv.selection.select"], "fit", fit)
    model = null_posterior().model
    for progress in (False, True):
        bayesinv.select(model, make_data(), seed=0, progress=progress)
    assert asked == [False, True]
