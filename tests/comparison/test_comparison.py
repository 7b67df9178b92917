"""Several fits side by side: the numbers by hand, what may be ranked, and the figure."""

import math
import warnings

import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import bayesinv
from bayesinv.comparison import evidence_groups as comparison_module
from bayesinv.data.container import Data
from bayesinv.errors import ComparisonWarning, DataError, ImportanceWarning, NotConvergedWarning
from bayesinv.fitted.result import InferenceResult
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.report import write_comparison_report
from bayesinv.transforms import Affine2d
from tests.fakes import NAMES, KnownModel, make_data, make_result


def make_fit(
    rotation: float,
    draws: int = 20,
    inference: str = "vi",
    likelihood: str = "categorical",
    names: tuple[str, ...] = NAMES,
    options: dict | None = None,
    **facts,
):
    """A fit whose rotation is spread evenly around `rotation`, and whose other extents are 0.1."""
    gp = bayesinv.GaussianProcess(num_inducing=4)
    model = KnownModel(gp, Affine2d(names), likelihood=likelihood, **(options or {}))
    extents = torch.full((1, draws, len(names)), 0.1, dtype=torch.float64)
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
    mean = make_fit(1.0, likelihood="gaussian").predict(test.x).mean
    squares = (test.y - mean).square()[:, 0]
    assert row["rmse"] == pytest.approx(float(squares.mean().sqrt()))
    # rmse ± rmse_se is where the mean square ± its standard error leads, to first order.
    error = float(squares.std()) / math.sqrt(len(squares))
    assert 2 * row["rmse"] * row["rmse_se"] == pytest.approx(error)
    expected = -torch.distributions.Normal(mean, 0.2).log_prob(test.y)
    assert row["log_loss"] == pytest.approx(float(expected.mean()))
    assert row["elpd"] == pytest.approx(-float(expected.sum()))
    assert row["coverage"] == pytest.approx(float(((test.y - mean).abs() < 1.6449 * 0.2).double().mean()))
    assert "RMSE" in repr(comparison) and "nan" not in repr(comparison)
    assert "RMSE (units of y)" in [panel.get_xlabel() for panel in comparison.plot().axes]


def test_bernoulli_fits_are_drawn_with_their_accuracy():
    data = make_data()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    model = bayesinv.InvarianceModel(net, "rotation", likelihood="bernoulli", evidence="plugin", num_orbit_samples=2)
    model.initialise(data)
    fit = InvariancePosterior(model, data, make_result(extents=torch.full((1, 20, 1), 0.3, dtype=torch.float64)))
    comparison = bayesinv.compare({"a": fit}, data)
    panel = next(panel for panel in comparison.plot().axes if panel.get_xlabel() == "accuracy (%)")
    assert panel.containers[0].lines[0].get_xdata()[0] == pytest.approx(100 * comparison.table.loc["a", "accuracy"])


def test_one_class_is_enough_to_score_on():
    data = make_data()
    zeros = data.subset(data.y == 0)
    posterior = make_fit(1.0)
    table = bayesinv.compare({"a": posterior}, (zeros.x, zeros.y)).table
    assert table.loc["a", "accuracy"] == pytest.approx(float((posterior.predict(zeros.x).labels == 0).double().mean()))
    assert posterior.check(test=(zeros.x, zeros.y)).named("predictive")
    with pytest.raises(DataError, match="at least 2 classes"):
        bayesinv.fit(posterior.model, (zeros.x, zeros.y))


def test_the_level_is_that_of_all_intervals_and_is_said():
    fit = make_fit(1.0, likelihood="gaussian")
    comparison = bayesinv.compare({"a": fit}, make_data("gaussian"), level=0.5)
    assert "in 50 % interval" in comparison.to_markdown()
    off = (make_data("gaussian").y - fit.predict(make_data("gaussian").x).mean).abs()
    assert comparison.table.loc["a", "coverage"] == pytest.approx(float((off < 0.6745 * 0.2).double().mean()))
    assert comparison.table.loc["a", "coverage"] < float((off < 1.6449 * 0.2).double().mean())
    summary = fit.summary(level=0.5).loc["rotation"]
    assert comparison.extents.loc[("a", "rotation"), "upper"] == summary["upper"]
    legend = comparison.plot().legends[0]
    assert "extent: median, 50 % interval" in [text.get_text() for text in legend.get_texts()]
    with pytest.raises(ValueError, match=r"between 0 and 1, got 90\.0"):
        bayesinv.compare({"a": fit}, make_data("gaussian"), level=90.0)


def test_seed_samples_and_weights_reach_the_predictions():
    log_weights = torch.linspace(-3, 0, 20, dtype=torch.float64).log_softmax(0)
    fits = {"weighted": make_fit(1.0, log_weights=log_weights), "plain": make_fit(1.0)}
    test = make_data()
    for options in ({}, {"reweighted": True}, {"seed": 3, "num_samples": 2}):
        table = bayesinv.compare(fits, test, **options).table
        for name, fit in fits.items():
            own = {**options, "reweighted": options.get("reweighted", False) and name == "weighted"}
            p = fit.predict(test.x, **own).probs.gather(1, test.y[:, None])
            assert table.loc[name, "log_loss"] == pytest.approx(-float(p.log().mean()))
    first, second = (bayesinv.compare(fits, test, reweighted=r).table["log_loss"] for r in (False, True))
    assert first["weighted"] != second["weighted"]
    assert first["plain"] == second["plain"]


def test_good_weights_are_used_by_default():
    log_weights = torch.linspace(-3, 0, 20, dtype=torch.float64).log_softmax(0)
    fits = {"good": make_fit(1.0, log_weights=log_weights, pareto_k=0.1)}
    fits |= {"poor": make_fit(1.0, log_weights=log_weights, pareto_k=0.6), "plain": make_fit(1.0)}
    medians = bayesinv.compare(fits, make_data()).extents["median"].xs("rotation", level="symmetry")
    for name, weighted in {"good": True, "poor": False, "plain": False}.items():
        assert medians[name] == fits[name].summary(reweighted=weighted).loc["rotation", "median"]
    assert medians["good"] != medians["poor"] == medians["plain"]


def test_an_evidence_without_a_standard_error_is_explained():
    log_weights = torch.zeros(20, dtype=torch.float64).log_softmax(0)
    fit = make_fit(1.0, log_evidence=-10.0, log_weights=log_weights, pareto_k=0.6)
    comparison = bayesinv.compare({"rough": fit}, make_data())
    assert math.isnan(comparison.table.loc["rough", "log_evidence_se"])
    assert comparison.text_table().loc["rough", "log evidence, nat"] == "-10.0 (A)"
    assert "'rough' has no standard error: Pareto k̂ = 0.60" in comparison.notes[0]


def test_evidences_that_may_not_be_ranked_are_named():
    a = make_fit(1.0, log_evidence=-10.0, log_evidence_se=0.1)
    b = make_fit(1.0, log_evidence=-11.0, log_evidence_se=0.1)
    assert set(bayesinv.compare({"a": a, "b": b}, make_data()).table["evidence_group"]) == {"A"}
    other = make_fit(1.0, log_evidence=-12.0, log_evidence_se=0.1)
    other.data = Data(other.data.x + 0.5, other.data.y, 2)
    with pytest.warns(ComparisonWarning, match="A: a, b .*; B: other"):
        comparison = bayesinv.compare({"a": a, "b": b, "other": other}, make_data())
    assert comparison.table["evidence_group"].tolist() == ["A", "A", "B"]


def evidence(options: dict | None = None, **facts):
    return make_fit(1.0, log_evidence=-10.0, log_evidence_se=0.1, options=options, **facts)


def with_data(x=None, y=None, **facts):
    fit = evidence(**facts)
    fit.data = Data(fit.data.x if x is None else x, fit.data.y if y is None else y, 2)
    return fit


@pytest.mark.parametrize(
    ("other", "fact"),
    [
        (lambda: evidence({"evidence": "dirichlet"}), "kind of evidence"),
        (lambda: evidence({"evidence": bayesinv.evidence.DirichletEvidence(alpha=0.1)}), "kind of evidence"),
        (lambda: evidence({"num_orbit_samples": 5}), "num_orbit_samples"),
        (lambda: evidence(settings={"num_train": 400}), "number of training examples, training data"),
        (lambda: with_data(x=make_data().x.roll(1, dims=-1)), "training data"),
        (lambda: with_data(y=1 - make_data().y), "training data"),
    ],
)
def test_what_keeps_two_evidences_apart(other, fact):
    with pytest.warns(ComparisonWarning, match=f"They differ in: {fact}$"):
        table = bayesinv.compare({"a": evidence(), "b": other()}, make_data()).table
    assert table["evidence_group"].tolist() == ["A", "B"]


def test_evidences_of_other_batches_or_averages_are_apart():
    def network(batch: int, average: str = "function"):
        model = bayesinv.InvarianceModel(torch.nn.Linear(64, 2), Affine2d(["rotation"]), average=average)
        return InvariancePosterior(
            model,
            make_data(),
            InferenceResult(
                inference="vi",
                guide=None,
                extents=torch.full((1, 3, 1), 0.1, dtype=torch.float64),
                seed=0,
                log_evidence=-10.0,
                settings={"training": {"extent_batch_size": batch}},
            ),
        )

    def groups(*fits):
        return list(comparison_module.evidence_groups({str(i): fit for i, fit in enumerate(fits)}).values())

    assert groups(network(100), network(100)) == ["A", "A"]
    with pytest.warns(ComparisonWarning, match=r"differ in: kind of evidence, average$"):
        assert groups(network(100), network(50), network(100, "probabilities")) == ["A", "B", "C"]


def test_order_and_precision_of_the_data_keep_nothing_apart():
    data = make_data()
    x = data.x.float().double()
    turned = torch.arange(len(data) - 1, -1, -1)
    fits = {
        "a": with_data(x=x),
        "turned": with_data(x=x[turned], y=data.y[turned]),
        "float32": with_data(x=x.float()),
        "none": make_fit(1.0),
    }
    groups = bayesinv.compare(fits, (data.x, data.y)).table["evidence_group"]
    assert groups.tolist() == ["A", "A", "A", ""]
    # The same inputs and labels, paired otherwise, are other data.
    with pytest.warns(ComparisonWarning):
        bayesinv.compare({"a": fits["a"], "b": with_data(x=x, y=data.y[turned])}, data)


def test_extents_fixed_at_the_medians_of_a_fit_to_the_same_data_have_no_evidence_to_rank(tmp_path):
    posterior = evidence()
    medians = dict(zip(NAMES, posterior.quantile(0.5).tolist(), strict=True))
    held = make_fit(medians["rotation"], 1, "fixed", options={"priors": medians}, log_evidence=-5.0)
    by_hand = {**medians, "rotation": 1.01 * medians["rotation"]}
    chosen = make_fit(by_hand["rotation"], 1, "fixed", options={"priors": by_hand}, log_evidence=-6.0)
    fits = {"posterior": posterior, "held": held, "by hand": chosen}
    comparison = bayesinv.compare(fits, make_data())
    assert comparison.table["evidence_group"].tolist() == ["A", "", "A"]
    assert comparison.text_table()["log evidence, nat"].tolist()[1] == ""
    assert comparison.table.loc["held", "log_evidence"] == -5.0
    (note,) = comparison.notes
    assert note.startswith("The log evidence of 'held' is left out") and "medians of 'posterior'" in note
    for text in (repr(comparison), comparison.to_markdown(), comparison._repr_html_().replace("&#x27;", "'")):
        assert note in text
    overview = write_comparison_report(fits, tmp_path / "fits.html").read_text().split("Extents side by side")[1]
    assert "<td>-6.0</td>" in overview and "<td>-5.0</td>" not in overview
    # Medians of a fit to other data are as good as any numbers.
    held.data = Data(held.data.x + 0.5, held.data.y, 2)
    with pytest.warns(ComparisonWarning):
        assert bayesinv.compare(fits, make_data()).table["evidence_group"].tolist() == ["A", "B", "A"]
    assert bayesinv.compare({"held": make_fit(1.0), "by hand": chosen}, make_data()).notes == ()


def test_many_groups_have_letters():
    names = [comparison_module._letters(i) for i in (0, 25, 26, 27, 52)]
    assert names == ["A", "Z", "AA", "AB", "BA"]


def test_an_evidence_without_an_error_is_shown_alone():
    text = bayesinv.compare({"a": make_fit(1.0, log_evidence=-10.0)}, make_data()).to_markdown()
    assert "| -10.0 (A) |" in text


def test_what_cannot_be_compared_is_refused(fits):
    with pytest.raises(ValueError, match="at least one fit"):
        bayesinv.compare({}, make_data())
    with pytest.raises(TypeError, match="dict of fits by name"):
        bayesinv.compare(list(fits.values()), make_data())
    with pytest.raises(ValueError, match="one likelihood"):
        bayesinv.compare({**fits, "r": make_fit(1.0, likelihood="gaussian")}, make_data())
    with pytest.raises(TypeError, match=r"posteriors\['a'\]: expected what bayesinv.fit returns"):
        bayesinv.compare({"a": fits["point"].result}, make_data())
    with pytest.raises(DataError, match="as the training inputs"):
        bayesinv.compare(fits, (torch.rand(3, 1, 9, 9), torch.tensor([0, 1, 1])))
    with pytest.raises(DataError, match="label 2 at index 1 is out of range"):
        bayesinv.compare(fits, (make_data().x[:3], torch.tensor([0, 2, 1])))
    larger = make_fit(1.0)
    larger.data = Data(torch.rand(12, 1, 9, 9, dtype=torch.float64), larger.data.y, 2)
    with pytest.raises(ValueError, match="inputs of one shape"):
        bayesinv.compare({**fits, "larger": larger}, make_data())
    three = make_fit(1.0)
    three.data = Data(three.data.x, torch.arange(12) % 3, 3)
    with pytest.raises(ValueError, match="'posterior' tells 2 classes apart and the data have 3"):
        bayesinv.compare({**fits, "three": three}, make_data())
    regression = make_fit(1.0, likelihood="gaussian")
    with pytest.raises(DataError, match="y has 2 columns and the models 1 outputs"):
        bayesinv.compare({"r": regression}, (make_data().x, torch.rand(12, 2)))
    wide = make_fit(1.0, likelihood="gaussian")
    wide.data = Data(wide.data.x, torch.rand(12, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="one number of outputs"):
        bayesinv.compare({"r": regression, "wide": wide}, make_data("gaussian"))


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
    filled = [bar[0].get_markerfacecolor() != "white" for bar in figure.axes[0].containers]
    assert filled == [True, False]
    assert [len(bar[2]) for bar in figure.axes[0].containers] == [1, 0]  # a point estimate has no interval


def test_models_of_different_symmetries_stand_side_by_side(fits):
    both = {**fits, "turns": make_fit(1.0, names=("rotation",))}
    comparison = bayesinv.compare(both, make_data())
    assert ("turns", "scale_x") not in comparison.extents.index
    assert [list(rows.index) for _, _, rows in comparison.by_symmetry()] == [list(both), list(fits), list(fits)]
    row = comparison.to_markdown().splitlines()[-1]
    assert row.count("| – ") == 2
    figure = comparison.plot()
    assert [text.get_text() for text in figure.axes[1].texts] == ["not considered"]
    assert not figure.axes[0].texts


def test_a_symmetry_that_nobody_reaches_has_no_panel():
    fit = make_fit(1.0, draws=1)
    fit.result.extents[..., 2] = 0.0
    comparison = bayesinv.compare({"a": fit}, make_data())
    assert "scale_x" not in comparison.to_markdown()
    assert "scale x (%)" not in [panel.get_xlabel() for panel in comparison.plot().axes]


def test_of_many_symmetries_the_active_ones_are_drawn(fits, monkeypatch):
    from bayesinv.comparison import plot as comparison_plot

    found = bayesinv.compare(fits, make_data())
    inactive = found.extents["p_inactive"].groupby("symmetry").min() > 0.5
    assert 0 < inactive.sum() < 3  # 0.1 of the half-width is less than a pixel of 8
    monkeypatch.setattr(comparison_plot, "MOST_SYMMETRIES", 2)
    figure = found.plot()
    labels = " ".join(panel.get_xlabel() for panel in figure.axes)
    for name, left_out in inactive.items():
        words = name.replace("_", " ")
        assert (words in labels) != left_out
        assert (words in figure._supxlabel.get_text()) == left_out


def test_names_of_outputs_keep_apart_under_the_panels():
    outputs = ["a class with a very long name", "another class with a longer name"]
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=4), ["rotation", "translate_x"], outputs=outputs, num_orbit_samples=2
    )
    model.initialise(make_data())
    draws = torch.rand(1, 20, 4, dtype=torch.float64) * 0.2 + 0.1
    fit = InvariancePosterior(model, make_data(), make_result(extents=draws))
    figure = bayesinv.compare({"a": fit}, make_data(), num_samples=2).plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [panel.xaxis.label for panel in figure.axes if panel.get_xlabel()]
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_names_are_escaped():
    comparison = bayesinv.compare({"a|b <c>": make_fit(1.0)}, make_data())
    header, line, row = comparison.to_markdown().splitlines()
    assert "a\\|b" in row
    assert header.count("|") == line.count("|") == row.replace("\\|", "").count("|")
    assert "a|b &lt;c&gt;" in comparison._repr_html_()


def test_one_test_example(tmp_path):
    label = Data(make_data().x[:1], torch.tensor([1]), 2)
    number = Data(make_data("gaussian").x[:1], torch.zeros(1, 1, dtype=torch.float64))
    for likelihood, single in {"categorical": label, "gaussian": number}.items():
        comparison = bayesinv.compare({"a": make_fit(1.0, likelihood=likelihood)}, single)
        assert math.isnan(comparison.table.loc["a", "log_loss_se"])
        assert "nan" not in comparison.to_markdown()
        comparison.plot().savefig(tmp_path / "comparison.png")


def test_real_fits_of_gaussian_processes_and_networks(tmp_path):
    train, test = bayesinv.datasets.digits(size=8, rotation=0.8, num_train=40, seed=0)
    test = test.subset(slice(0, 60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # five steps are for speed
        warnings.simplefilter("ignore", ImportanceWarning)
        gp = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), ["rotation"], num_orbit_samples=3)
        net = bayesinv.InvarianceModel(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), ["rotation"], num_orbit_samples=3
        )
        fits = {
            "gp": bayesinv.fit(gp, train, seed=0, max_steps=5, num_draws=30),
            "network": bayesinv.fit(net, train, seed=0, max_steps=5, num_draws=30),
            "augerino": bayesinv.fit(net, train, inference="augerino", seed=0, max_steps=5),
        }
    with pytest.warns(ComparisonWarning, match="softmax.*laplace.*differ in: kind of evidence$"):
        comparison = bayesinv.compare(fits, test, num_samples=4)
    table = comparison.table
    assert table["evidence_group"].tolist() == ["A", "B", ""]
    assert table["inference"].tolist() == ["vi", "vi", "augerino"]
    assert table["num_train"].tolist() == [40, 40, 40]
    assert table["prediction_copies"].tolist()[:2] == [3, 3]
    assert table["elpd"].to_numpy() == pytest.approx(-len(test) * table["log_loss"].to_numpy())
    for name, fit in fits.items():
        labels = fit.predict(test.x, num_samples=4).labels
        assert table.loc[name, "accuracy"] == pytest.approx(float((labels == test.y).double().mean()))
    assert comparison.extents["point"].tolist() == [False, False, True]
    comparison.plot().savefig(tmp_path / "comparison.png")


@pytest.mark.parametrize("reweighted", [True, False])
def test_medians_with_weights_and_without_are_both_recognised(reweighted):
    log_weights = torch.linspace(-3, 0, 20, dtype=torch.float64).log_softmax(0)
    posterior = make_fit(1.0, log_weights=log_weights, pareto_k=0.1, log_evidence=-4.0, log_evidence_se=0.1)
    medians = dict(zip(NAMES, posterior.quantile(0.5, reweighted).tolist(), strict=True))
    held = make_fit(medians["rotation"], 1, "fixed", options={"priors": medians}, log_evidence=-5.0)
    assert comparison_module.fixed_at_medians({"posterior": posterior, "held": held}) == {"held": "posterior"}
