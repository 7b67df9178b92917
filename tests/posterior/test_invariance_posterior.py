"""InvariancePosterior against a model with closed-form answers, and end to end on a real fit."""

import copy
import inspect
import math
import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bayesinv import GaussianProcess, InvarianceModel, Training, datasets, fit
from bayesinv.cli.tables import facts_text, summary_text
from bayesinv.data.container import Data
from bayesinv.errors import DataError, ImportanceWarning, NotConvergedWarning
from bayesinv.evidence.collapsed import SiteEvidence
from bayesinv.inference import Fixed
from bayesinv.numerics.mixture import Mixture
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.report.sections import extents, what_was_fitted
from bayesinv.transforms import ColumnShift, Flip, GaussianBlur
from tests.fakes import NAMES, KnownModel, make_data, make_posterior, make_result


def test_summary_in_peoples_units():
    posterior = make_posterior(draws=1001)
    table = posterior.summary()
    assert list(table.index) == list(NAMES)
    assert table.index.name == "symmetry"
    assert list(table["unit"]) == ["°", "% of width", "%"]
    rotation = np.sort(posterior["rotation"].numpy())
    # the middle, the 51st and the 951st of 1001 draws: ceil(1001 p)
    expected = np.degrees(rotation[[500, 50, 950]])
    np.testing.assert_allclose(table.loc["rotation", ["median", "lower", "upper"]], expected)
    scale = np.sort(posterior["scale_x"].numpy())
    assert table.loc["scale_x", "median"] == pytest.approx(100 * math.expm1(scale[500]))
    # uniform priors up to 180°, 50 % of the width, log 2
    assert table.loc["rotation", "prior_median"] == pytest.approx(90)
    assert table.loc["translate_x", "prior_upper"] == pytest.approx(47.5)
    assert table.loc["scale_x", "prior_median"] == pytest.approx(100 * (math.sqrt(2) - 1))


def test_inactive_is_mass_below_what_can_be_seen():
    posterior = make_posterior()
    table = posterior.summary()
    assert table.loc["rotation", "p_inactive"] == 0
    assert table.loc["translate_x", "p_inactive"] == 1  # 0.05 of the half-width, one pixel is 0.25
    # rotation on 8 pixels: 1/8 rad of the uniform prior's π; 10,000 draws, s.e. 0.002
    assert table.loc["rotation", "prior_p_inactive"] == pytest.approx(0.125 / math.pi, abs=0.008)


def test_summary_level_and_attrs():
    posterior = make_posterior(weighted=True)
    narrow, wide = posterior.summary(level=0.5), posterior.summary(level=0.99)
    assert (narrow["lower"] > wide["lower"]).all()
    assert (narrow["upper"] < wide["upper"]).all()
    assert (narrow["median"] == wide["median"]).all()
    attrs = posterior.summary(reweighted=True).attrs
    assert attrs["level"] == 0.9
    assert attrs["reweighted"] is True
    assert (attrs["pareto_k"], attrs["log_evidence"]) == (0.31, -123.4)
    for level in (0.0, 1.0, 90.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            posterior.summary(level=level)


def test_reweighting_follows_the_weights():
    extents = torch.tensor([[[0.2, 0, 0], [0.4, 0, 0], [0.6, 0, 0]]], dtype=torch.float64)
    log_weights = torch.tensor([0.04, 0.9, 0.06], dtype=torch.float64).log()
    posterior = make_posterior(extents=extents, log_weights=log_weights)
    row = posterior.summary(reweighted=True).loc["rotation"]
    np.testing.assert_allclose(row[["lower", "median", "upper"]].astype(float), np.degrees([0.4, 0.4, 0.6]))
    row = posterior.summary().loc["rotation"]
    np.testing.assert_allclose(row[["lower", "median", "upper"]].astype(float), np.degrees([0.2, 0.4, 0.6]))
    # rotation is inactive below 0.125 rad, translate_x and scale_x are at 0 in every draw
    assert posterior.summary(reweighted=True)["p_inactive"].tolist() == pytest.approx([0, 1, 1])
    drawn = posterior.sample(100, reweighted=True)[:, 0]
    counts = {round(v, 1): int((drawn == v).sum()) for v in (0.2, 0.4, 0.6)}
    assert counts == {0.2: 4, 0.4: 90, 0.6: 6}


def test_images_on_another_scale_than_those_trained_on_are_told_of():
    posterior = make_posterior()
    x = posterior.data.x
    with pytest.warns(UserWarning, match=r"up to 25\d, and those trained on reach 1; .*x / 255") as caught:
        posterior.predict(255 * x)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"up to 0.06.*, and those trained on reach 1; .*white"):
        posterior.predict(x / 16)
    for usual in (x, 5 * x, 0.3 * x, 0 * x, 255 * x - 128):  # warnings are errors
        posterior.predict(usual)


def test_what_holds_more_than_inputs_says_how_to_take_them_out():
    posterior = make_posterior()
    tensors = torch.utils.data.TensorDataset(posterior.data.x)
    loader = torch.utils.data.DataLoader(tensors)
    for given, cure in (
        (loader, "torch.cat"),
        (tensors, "torch.stack"),
        (posterior.data, "test.x"),
        ((1, 2), "without y"),
    ):
        with pytest.raises(DataError, match=re.escape(cure)):
            posterior.predict(given)


def test_dark_images_are_usual_where_training_had_some():
    posterior = make_posterior()
    posterior.data.x[::4] /= 16
    posterior.predict(posterior.data.x[:1])  # warnings are errors


def test_reweighted_is_no_name():
    posterior = make_posterior(weighted=True)
    uses_weights = inspect.unwrap(InvariancePosterior.uses_weights)  # without the types that only the tests check
    with pytest.raises(TypeError, match="expected True, False or None, got 'rotation'; give arguments by name"):
        uses_weights(posterior, "rotation")
    assert uses_weights(posterior, np.True_) is True and uses_weights(posterior, np.False_) is False


@pytest.mark.parametrize(
    ("facts", "used"),
    [
        ({"weighted": True}, True),
        ({"weighted": True, "pareto_k": 0.61}, True),  # the limit for 400 draws is 0.616
        ({"weighted": True, "pareto_k": 0.62}, False),
        ({"weighted": True, "pareto_k": math.nan}, False),
        ({"weighted": True, "pareto_k": None}, False),
        ({}, False),
        ({"chains": 2}, False),
    ],
)
def test_weights_are_used_where_they_are_good(facts, used):
    posterior = make_posterior(**facts)
    assert posterior.uses_weights() is used
    x = posterior.data.x[:2]
    for call in (
        lambda **how: posterior.summary(**how)["median"].to_numpy(),
        lambda **how: posterior.quantile([0.1, 0.5], **how).numpy(),
        lambda **how: posterior.sample(50, **how).numpy(),
        lambda **how: posterior.upper_limit(**how)["upper_limit"].to_numpy(),
        lambda **how: posterior.predict(x, **how).probs.numpy(),
    ):
        np.testing.assert_array_equal(call(), call(reweighted=used))
        if posterior.result.log_weights is not None:
            assert not np.array_equal(call(), call(reweighted=not used))
    assert posterior.summary().attrs["reweighted"] is used
    for text in (repr(posterior), posterior._repr_html_()):
        assert ("importance-weighted" in text) is used
    assert ("importance-weighted" in summary_text(posterior.summary())) is used
    assert ("importance-weighted" in extents(posterior, 0.9, None).body) is used


def test_an_evidence_without_a_standard_error_says_why():
    posterior = make_posterior(weighted=True, pareto_k=0.55, log_evidence_se=None)
    for text in (repr(posterior), posterior._repr_html_(), facts_text(posterior), what_was_fitted(posterior).body):
        assert "-123.4 nats (no s" in text and "k̂ = 0.55 is not below 0.5" in text
    assert "no s" not in repr(make_posterior(weighted=True)) + facts_text(make_posterior(weighted=True))


def test_reweighting_needs_weights():
    posterior = make_posterior(chains=2)
    for call in (posterior.summary, posterior.plot_extents):
        with pytest.raises(ValueError, match="carry no importance weights"):
            call(reweighted=True)


def test_nuts_summary_has_diagnostics():
    table = make_posterior(chains=2).summary()
    assert table["rhat"].tolist() == [1.01, 1.02, 1.0]
    assert "rhat" not in make_posterior().summary()


def test_fixed_symmetries_have_no_interval():
    model = KnownModel(GaussianProcess(num_features=64), ["rotation", "shear"], priors={"shear": 0.25})
    extents = torch.rand(1, 50, 2, dtype=torch.float64)
    extents[..., 1] = 0.25
    posterior = InvariancePosterior(model, make_data(), make_result(extents=extents))
    row = posterior.summary().loc["shear"]
    assert row["fixed"]
    assert (row["lower"], row["median"], row["upper"]) == (25.0, 25.0, 25.0)
    assert "±25 %, fixed" in repr(posterior)
    assert len([p for p in posterior.plot_extents().axes if p.get_visible()]) == 1


def test_samples_are_draws_and_depend_on_the_seed_alone():
    posterior = make_posterior()
    state = torch.random.get_rng_state()
    some = posterior.sample(10, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(some, posterior.sample(10, seed=1))
    assert not torch.equal(some, posterior.sample(10, seed=2))
    stored = {tuple(row.tolist()) for row in posterior.result.draws}
    assert all(tuple(row.tolist()) in stored for row in some)
    every = posterior.sample(400)
    assert torch.equal(every.sort(0).values, posterior.result.draws.sort(0).values)
    with pytest.raises(ValueError, match="at least 1"):
        posterior.sample(0)


def test_one_symmetry_by_name():
    posterior = make_posterior()
    assert torch.equal(posterior["translate_x"], posterior.result.extents[0, :, 1])
    with pytest.raises(KeyError, match="there are: rotation, translate_x, scale_x"):
        posterior["rotatoin"]


def test_the_counts_of_symmetries_must_agree():
    posterior = make_posterior()
    result = make_result(extents=posterior.result.extents[..., :2])
    with pytest.raises(ValueError, match="2 extents, the model has 3"):
        InvariancePosterior(posterior.model, posterior.data, result)


def test_predict_averages_over_the_extents():
    posterior = make_posterior(weighted=True)
    x = posterior.data.x[:5]
    for reweighted in (False, True):
        p = posterior.predict(x, num_samples=64, reweighted=reweighted, seed=4).probs
        eta = posterior.sample(64, seed=4, reweighted=reweighted)[:, 0]
        assert p.shape == (5, 2)
        assert float(p[0, 1]) == pytest.approx(float(eta.mean()) / math.pi, rel=1e-9)


def test_predict_counts_repeated_extents(monkeypatch):
    posterior = make_posterior(extents=torch.full((1, 9, 3), 0.5, dtype=torch.float64))
    seen = []
    original = KnownModel.predict

    def spy(self, x, data, extents, weights=None, **rest):
        seen.append((len(extents), weights.tolist()))
        return original(self, x, data, extents, weights, **rest)

    monkeypatch.setattr(KnownModel, "predict", spy)
    p = posterior.predict(posterior.data.x, num_samples=32).probs
    assert seen == [(1, [1.0])]
    assert float(p[0, 1]) == pytest.approx(0.5 / math.pi)


def test_predict_takes_arrays_of_another_precision():
    posterior = make_posterior()
    x = posterior.data.x[:2].numpy().astype(np.float32)
    assert posterior.predict(x).probs.shape == (2, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 8, 9), r"expected \(n, 1, 8, 8\), as the training inputs"),
        (torch.zeros(2, 3, 8, 8), "as the training inputs"),
        (torch.zeros(1, 8, 8), r"pass x\[None\]"),
        (torch.zeros(0, 1, 8, 8), "empty"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "floating point"),
        (torch.full((2, 1, 8, 8), math.nan), "128 NaN"),
        ("a picture", "numbers"),
    ],
)
def test_predict_refuses(x, message):
    with pytest.raises(DataError, match=message):
        make_posterior().predict(x)


def test_evidence_profile_is_the_evidence_with_the_others_at_their_medians():
    posterior = make_posterior()
    profile = posterior.evidence_profile("rotation", num_points=15)
    assert profile["extent"].iloc[0] == 0
    assert profile["extent"].iloc[-1] == pytest.approx(math.pi)
    assert profile["extent"].is_monotonic_increasing
    np.testing.assert_allclose(profile["extent_people"], np.degrees(profile["extent"]))
    median = posterior.quantile(0.5)
    others = (median - KnownModel.centre)[1:].square().sum()
    expected = -((profile["extent"] - 0.9) ** 2 + float(others)) / (2 * KnownModel.width**2)
    np.testing.assert_allclose(profile["log_evidence"], expected)
    with pytest.raises(ValueError, match="at least 4"):
        posterior.evidence_profile("rotation", num_points=3)


def test_columns_in_another_order_are_refused(tmp_path):
    frame = pd.DataFrame(torch.randn(12, 2, generator=torch.Generator().manual_seed(0)).numpy(), columns=["a", "b"])
    model = InvarianceModel(GaussianProcess(num_features=16), ColumnShift([0]), num_orbit_samples=2)
    result = make_result(extents=torch.full((1, 4, 1), 0.2, dtype=torch.float64))
    posterior = InvariancePosterior(model, Data(frame, torch.arange(12) % 2, 2), result)
    model.initialise(posterior.data)
    loaded = InvariancePosterior.load(posterior.save(tmp_path / "table.bayesinv"))
    for fitted in (posterior, loaded):
        for wrong in (frame[["b", "a"]], frame.rename(columns={"a": "c"})):
            with pytest.raises(DataError, match=r"expected a, b, in this order"):
                fitted.check_inputs(wrong)
        again = frame[["b", "a"]][list(fitted.data.columns)]  # what the message says to do
        assert torch.equal(fitted.check_inputs(again), fitted.check_inputs(frame.to_numpy()))


def test_what_people_read():
    posterior = make_posterior(weighted=True, warnings=("k̂ is <high> & rising",))
    text, page = repr(posterior), posterior._repr_html_()
    assert text.splitlines()[0].startswith("InvariancePosterior: vi (full_rank), 1 chain of 400")
    assert "log evidence -123.4 ± 0.5 nats" in text
    assert "Pareto k̂ 0.31" in text
    assert "warning: k̂ is <high> & rising" in text
    assert "k̂ is &lt;high&gt; &amp; rising" in page
    assert "<high>" not in page
    for name in NAMES:
        assert f"<td>{name}</td>" in page
    assert "not converged" in repr(make_posterior(converged=False))


def test_half_widths_amounts_and_probabilities_read_differently():
    model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), ["rotation", Flip(), GaussianBlur()])
    data = make_data()
    extents = Fixed({"rotation": math.pi, "flip_x": 0.5, "blur": 0.2})
    fitted = fit(model, (data.x, data.y), inference=extents, training=Training(epochs=1, batch_size=12))
    lines = [line.split(maxsplit=1)[1] for line in repr(fitted).splitlines()[1:4]]
    assert lines == ["±180°, fixed", "50 % of copies, fixed", "up to 10 % of width, fixed"]
    assert "<td>50 % of copies</td>" in fitted._repr_html_()
    assert "conditional on this network after 1 epoch\n" in repr(fitted)
    assert "conditional on" not in repr(make_posterior())


def test_signs_follow_the_distribution_that_the_model_draws_from():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    model = InvarianceModel(
        net, ["rotation", "translate_x", Flip()], augmentation={"rotation": "one_sided"}, outputs=["a", "b"]
    )
    prefixes = ["up to ", "±", ""] * 2
    assert [c.prefix for c in model.coordinates] == prefixes
    given = Fixed({"rotation": math.pi / 2, "translate_x": 0.2, "flip_x": 0.5})
    data = make_data()
    fitted = fit(model, (data.x, data.y), inference=given, training=Training(epochs=1, batch_size=12))
    table = fitted.summary()
    assert table.attrs["prefixes"] == dict(zip(model.symmetries, prefixes, strict=True))
    lines = [line.split() for line in summary_text(table).splitlines()[1:4]]
    assert [line[1:4] for line in lines] == [["up", "to", "90.0"], ["±10.0", "fixed", "%"], ["50.0", "fixed", "%"]]
    row = next(line for line in extents(fitted, 0.9, False).body.split("<tr>") if "rotation[a]" in line)
    assert ">up to 90<" in row and "±" not in row


def test_the_guide_is_q_over_the_extents():
    posterior = make_posterior()
    with pytest.raises(
        ValueError, match=r'"full_rank" and "mean_field" keep their q, and this fit \(guide=\'full_rank\'\)'
    ):
        _ = posterior.guide
    with pytest.raises(ValueError, match=r"this fit \(nuts\) has none"):
        _ = make_posterior(chains=2).guide
    one = torch.ones(1, dtype=torch.float64)
    scale = 0.3 * torch.eye(3, dtype=torch.float64)
    q = make_posterior(density=Mixture(one, torch.zeros(1, 3, dtype=torch.float64), scale[None], 5.0)).guide
    assert q.sample(4).shape == (4, 3) and q.log_prob(q.sample(4)).shape == (4,)
    # In the middle of flat priors: t(0) of the mixture over φ(0) of the prior, for each of its ranges.
    middle = 0.5 * torch.tensor([math.pi, 1.0, math.log(2.0)], dtype=torch.float64)
    log_t = math.lgamma(4.0) - math.lgamma(2.5) - 1.5 * math.log(5.0 * math.pi) - 3.0 * math.log(0.3)
    expected = log_t + 1.5 * math.log(2.0 * math.pi) - float((2.0 * middle).log().sum())
    assert float(q.log_prob(middle)) == pytest.approx(expected)


@pytest.fixture
def conditioned(monkeypatch):
    """Counts how often the function is conditioned on the data."""
    counted = []
    original = SiteEvidence.condition

    def condition(self, *arguments):
        counted.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(SiteEvidence, "condition", condition)
    return counted


def predictable(memory_budget=2**30):
    model = InvarianceModel(
        GaussianProcess(num_features=32),
        NAMES,
        evidence="dirichlet",
        num_orbit_samples=2,
        memory_budget=memory_budget,
    )
    model.initialise(make_data())
    u = model.hyper_centre + 0.1 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return InvariancePosterior(model, make_data(), make_result(draws=40, hyperparameters=u))


def test_a_second_prediction_is_the_same_and_conditions_on_nothing_anew(conditioned):
    posterior = predictable()
    x = posterior.data.x[:4]
    first = posterior.predict(x, num_samples=8)
    assert len(conditioned) == 8
    assert torch.equal(posterior.predict(x, num_samples=8).probs, first.probs)
    assert len(conditioned) == 8
    others = posterior.data.x[4:9]
    found = posterior.predict(others, num_samples=8).probs  # other inputs, the same functions
    assert len(conditioned) == 8
    assert torch.equal(predictable().predict(others, num_samples=8).probs, found)
    del conditioned[8:]
    posterior.predict(x, num_samples=40)
    assert len(conditioned) == 40  # draws that were known are not conditioned again
    # What was kept is of the right draw, with its own hyperparameters: a fresh posterior says the same.
    last = posterior.predict(x, num_samples=8, seed=5)
    assert len(conditioned) == 40
    torch.testing.assert_close(predictable().predict(x, num_samples=8, seed=5).probs, last.probs, rtol=0, atol=0)


def test_what_predictions_keep_stays_below_the_memory_budget(conditioned):
    large = predictable()
    x = large.data.x[:4]
    expected = large.predict(x, num_samples=8).probs
    each = large._known.nbytes // 8
    small = predictable(memory_budget=3 * each + each // 2)
    assert torch.equal(small.predict(x, num_samples=8).probs, expected)
    assert len(small._known) == 3 and small._known.nbytes <= small.model.memory_budget
    before = len(conditioned)
    assert torch.equal(small.predict(x, num_samples=8).probs, expected)
    assert len(conditioned) == before + 5


def test_copies_and_pickles_leave_behind_what_predictions_keep():
    posterior = predictable()
    size = len(pickle.dumps(posterior))
    first = posterior.predict(posterior.data.x, num_samples=8)
    assert len(posterior._known) == 8
    assert len(pickle.dumps(posterior)) == pytest.approx(size, rel=0.02)
    for other in (copy.deepcopy(posterior), pickle.loads(pickle.dumps(posterior))):
        assert len(other._known) == 0
        assert torch.equal(other.predict(posterior.data.x, num_samples=8).probs, first.probs)
    assert len(posterior._known) == 8


@pytest.fixture(scope="module")
def real():
    """A short fit on 80 digits at 8×8, and the images held out."""
    split = datasets.digits(size=8, num_train=80, seed=0)
    model = InvarianceModel(GaussianProcess(num_features=64), ["rotation", "translate_x"], num_orbit_samples=4)
    with warnings.catch_warnings():
        # fifteen steps leave the guide rough, and the fit says so
        warnings.simplefilter("ignore", ImportanceWarning)
        warnings.simplefilter("ignore", NotConvergedWarning)
        return fit(model, split.train, seed=0, max_steps=15, num_draws=40), split.test


def test_end_to_end(real, tmp_path):
    posterior, test = real
    table = posterior.summary()
    assert (table["lower"] <= table["median"]).all()
    assert (table["median"] <= table["upper"]).all()
    assert isinstance(table, pd.DataFrame)
    prediction = posterior.predict(test.x[:50], num_samples=8)
    total = prediction.probs.sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))
    for figure in (
        posterior.plot_extents(reweighted=True),
        posterior.plot_orbit(test.x[0]),
        posterior.plot_evidence("rotation", num_points=4),
        posterior.plot_trace(),
    ):
        figure.savefig(tmp_path / "figure.png")
    again = InvariancePosterior.load(posterior.save(tmp_path / "digits.posterior"))
    assert repr(again) == repr(posterior)
    same = again.predict(test.x[:50], num_samples=8)
    # the file holds every number in full
    torch.testing.assert_close(same.probs, prediction.probs, rtol=0, atol=0)
    tree = again.to_datatree(num_draws=5, log_likelihood=True)
    assert tree["log_likelihood"]["y"].shape == (1, 5, 80)
