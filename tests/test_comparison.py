"""Several fits side by side: the numbers by hand, what may be ranked, and the figure."""

import math

import pandas as pd
import pytest
import torch

import bayesinv
from bayesinv import metrics
from bayesinv.data import Data
from bayesinv.errors import ComparisonWarning, DataError
from bayesinv.inference.result import InferenceResult
from bayesinv.posterior import InvariancePosterior
from bayesinv.transforms import Affine2d
from tests.fakes import NAMES, KnownModel, make_data


def make_fit(rotation: float, draws: int = 20, inference: str = "vi", likelihood: str = "categorical", **facts):
    model = KnownModel(bayesinv.GaussianProcess(num_inducing=4), Affine2d(NAMES), likelihood=likelihood)
    extents = torch.full((1, draws, 3), 0.1, dtype=torch.float64)
    extents[0, :, 0] = rotation * torch.linspace(0.9, 1.1, draws, dtype=torch.float64) if draws > 1 else rotation
    result = InferenceResult(inference=inference, guide=None, extents=extents, seed=0, **facts)
    return InvariancePosterior(model, make_data(likelihood), result)


@pytest.fixture(scope="module")
def fits():
    return {
        "posterior": make_fit(1.0, log_evidence=-10.0, log_evidence_se=0.1, seconds=3.0),
        "point": make_fit(2.0, draws=1, inference="augerino", settings={"training_copies": 1, "prediction_copies": 4}),
    }


def test_the_numbers_are_those_by_hand(fits):
    test = make_data()
    comparison = bayesinv.compare(fits, test)
    for name, p in fits.items():
        probs = p.predict(test.x).probs
        loss = -probs.gather(1, test.y[:, None])[:, 0].log()
        row = comparison.table.loc[name]
        assert row["accuracy"] == pytest.approx(float((probs.argmax(1) == test.y).double().mean()))
        assert row["log_loss"] == pytest.approx(float(loss.mean()))
        assert row["log_loss_se"] == pytest.approx(float(loss.std()) / math.sqrt(len(loss)))
        assert row["elpd"] == pytest.approx(-float(loss.sum()))
    a, b = (-torch.log(p.predict(test.x).probs.gather(1, test.y[:, None])[:, 0]) for p in fits.values())
    worst = comparison.differences.iloc[-1]
    assert worst["elpd_difference"] == pytest.approx(-abs(float((a - b).sum())))
    assert worst["standard_error"] == pytest.approx(float((a - b).std()) * math.sqrt(len(a)))
    assert comparison.differences.iloc[0]["elpd_difference"] == 0
    assert comparison.table.loc["point", ["training_copies", "prediction_copies"]].tolist() == [1, 4]
    assert comparison.table.loc["posterior", "seconds"] == 3.0
    extent = comparison.extents.loc[("posterior", "rotation")]
    assert extent["median"] == pytest.approx(math.degrees(1.0), rel=0.02)
    assert extent["lower"] < extent["median"] < extent["upper"]
    assert comparison.extents.loc[("point", "rotation"), "lower"] == pytest.approx(math.degrees(2.0))


def test_a_regression_has_errors_and_coverage():
    test = make_data("gaussian")
    comparison = bayesinv.compare({"a": make_fit(1.0, likelihood="gaussian")}, test)
    row = comparison.table.loc["a"]
    mean = 1 / math.pi
    assert row["rmse"] == pytest.approx(float((test.y - mean).square().mean().sqrt()), rel=1e-2)
    assert 0 <= row["coverage"] <= 1
    assert "RMSE" in repr(comparison) and "nan" not in repr(comparison)


def test_evidences_that_may_not_be_ranked_are_named():
    a = make_fit(1.0, log_evidence=-10.0, log_evidence_se=0.1)
    b = make_fit(1.0, log_evidence=-11.0, log_evidence_se=0.1)
    assert set(bayesinv.compare({"a": a, "b": b}, make_data()).table["evidence_group"]) == {"A"}
    other = make_fit(1.0, log_evidence=-12.0, log_evidence_se=0.1)
    other.data = Data(other.data.x + 0.5, other.data.y, 2)
    with pytest.warns(ComparisonWarning, match="A: a, b .*; B: other"):
        comparison = bayesinv.compare({"a": a, "b": b, "other": other}, make_data())
    assert comparison.table["evidence_group"].tolist() == ["A", "A", "B"]


def test_what_cannot_be_compared_is_refused(fits):
    with pytest.raises(ValueError, match="at least one fit"):
        bayesinv.compare({}, make_data())
    with pytest.raises(TypeError, match="dict of fits by name"):
        bayesinv.compare(list(fits.values()), make_data())
    with pytest.raises(ValueError, match="one likelihood"):
        bayesinv.compare({**fits, "r": make_fit(1.0, likelihood="gaussian")}, make_data())
    with pytest.raises(DataError):
        bayesinv.compare(fits, (torch.rand(3, 1, 9, 9), torch.tensor([0, 1, 1])))


def test_the_table_reads_well_and_the_figure_has_a_panel_for_everything(fits, tmp_path):
    comparison = bayesinv.compare(fits, make_data())
    text = comparison.to_markdown()
    assert text.splitlines()[0].startswith("| method | accuracy, %")
    assert "rotation, °" in text and "±" in text
    assert isinstance(comparison.extents, pd.DataFrame) and "<table" in comparison._repr_html_()
    figure = comparison.plot()
    labels = [panel.get_xlabel() for panel in figure.axes if panel.get_visible()]
    assert labels[:3] == ["rotation (°)", "translate x (% of width)", "scale x (%)"]
    assert labels[3:] == ["accuracy (%)", "log loss (nat)"]
    figure.savefig(tmp_path / "comparison.png")


def test_metrics_by_hand():
    probs = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]])
    y = torch.tensor([0, 1, 1, 0])
    assert metrics.accuracy(probs, y).tolist() == [1, 0, 1, 0]
    assert metrics.log_loss(probs, y)[1] == pytest.approx(-math.log(0.4))
    assert metrics.brier_score(probs, y)[0] == pytest.approx(0.08)
    by_hand = sum(abs(c - r) for c, r in [(0.8, 1), (0.6, 0), (0.9, 1), (0.7, 0)]) / 4
    assert metrics.calibration_error(probs, y) == pytest.approx(by_hand)
    mean, variance, target = torch.zeros(3, 1), torch.full((3, 1), 4.0), torch.tensor([[0.0], [2.0], [4.0]])
    assert metrics.rmse(mean, target) == pytest.approx(math.sqrt(20 / 3))
    expected = -torch.distributions.Normal(0.0, 2.0).log_prob(target)[:, 0]
    assert torch.allclose(metrics.gaussian_log_loss(mean, variance, target).float(), expected)
    assert metrics.interval_coverage(mean, variance, target) == pytest.approx(2 / 3)  # 1.645 · 2 = 3.29
