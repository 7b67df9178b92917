"""The estimators keep scikit-learn's contract, and mean what `bayesinv.fit` means."""

import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import bayesinv
from bayesinv.errors import DataError
from bayesinv.sklearn import InvarianceClassifier, InvarianceRegressor, _moments
from bayesinv.transforms import ColumnShift, TimeShift

# Fits here are as small as they can be, and far from converged.
pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning"),
    pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning"),
]
SMALL = {"num_features": 32, "num_orbit_samples": 2, "num_draws": 5, "max_steps": 5, "num_samples": 4, "device": "cpu"}


def classifier(transforms=None, **options):
    return InvarianceClassifier(transforms, **{**SMALL, "evidence": "dirichlet", **options})


def regressor(transforms=None, **options):
    return InvarianceRegressor(transforms, **{**SMALL, **options})


@pytest.fixture(scope="module")
def table():
    """Three columns in units of their own, and classes that the first one tells apart."""
    X = np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 100.0, 0.01] + [0.0, 500.0, 0.0]
    return X, (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def images():
    """Flattened images of 1 x 6 x 4 with a bright row or a bright column."""
    rng = np.random.default_rng(1)
    X, y = 0.1 * rng.random((40, 1, 6, 4)), np.arange(40) % 2
    X[y == 0, :, 2:4] += 1.0
    X[y == 1, :, :, 1:3] += 1.0
    return X.reshape(40, -1), y


# All of scikit-learn's checks pass with no exception declared. check_array_api_input skips itself: it wants
# SCIPY_ARRAY_API to be set, and the estimators promise NumPy arrays only.
@pytest.mark.slow
@parametrize_with_checks([InvarianceClassifier(**SMALL), InvarianceRegressor(**SMALL)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


FEW = ["check_estimator_cloneable", "check_n_features_in", "check_estimators_unfitted", "check_fit2d_1feature"]
CLASSES = ["check_classifiers_one_label", "check_methods_subset_invariance"]
REALS = ["check_supervised_y_2d", "check_regressor_multioutput"]


@pytest.mark.parametrize("name", [*FEW, *CLASSES])
def test_a_few_checks_of_the_classifier(name):
    getattr(estimator_checks, name)("InvarianceClassifier", classifier())


@pytest.mark.parametrize("name", [*FEW, *REALS])
def test_a_few_checks_of_the_regressor(name):
    getattr(estimator_checks, name)("InvarianceRegressor", regressor())


def test_a_fit_is_that_of_the_library(images):
    """Same model, data and seed: the estimator adds the shape and the labels, and changes nothing else."""
    X, y = images
    estimator = classifier("rotation", image_shape=(6, 4)).fit(X, np.array(["row", "column"])[y])
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=32), "rotation", evidence="dirichlet", num_orbit_samples=2
    )
    data = (X.reshape(40, 1, 6, 4), 1 - y)  # "column" sorts before "row"
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    own = bayesinv.fit(model, data, seed=seed, device="cpu", num_draws=5, max_steps=5)
    torch.testing.assert_close(estimator.posterior_.result.extents, own.result.extents, rtol=0, atol=0)
    expected = own.predict(data[0], num_samples=4, seed=seed).probs
    np.testing.assert_array_equal(estimator.predict_proba(X), expected.numpy())


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "yes"]),
        np.array(["no", "yes"], dtype=object),
        np.array([False, True]),
        np.array([-3, 7]),
        pd.Categorical(["b", "a"], categories=["b", "a"]),
    ],
    ids=["text", "object", "bool", "integers", "categories"],
)
def test_labels_of_any_type(table, labels):
    X, y = table
    given = labels[y]
    estimator = classifier().fit(X, given)
    assert list(estimator.classes_) == sorted(labels)
    assert np.mean(estimator.predict(X) == np.asarray(given)) > 0.8
    assert estimator.score(X, given) == np.mean(estimator.predict(X) == np.asarray(given))


def test_a_table_has_a_shift_of_every_column_by_its_name(table):
    X, y = table
    frame = pd.DataFrame(X, columns=["age", "height (cm)", "dose"])
    named = classifier().fit(frame, y)
    assert named.posterior_.symmetries == ("shift_age", "shift_height (cm)", "shift_dose")
    assert set(named.posterior_.summary()["unit"]) == {"sd"}
    unnamed = classifier().fit(X, y)
    assert unnamed.posterior_.symmetries == ("shift_0", "shift_1", "shift_2")
    # Another layout in memory, another order of sums.
    np.testing.assert_allclose(named.predict_proba(frame), unnamed.predict_proba(X), rtol=1e-6)
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[["dose", "age", "height (cm)"]])


def test_columns_are_standardised_unless_told(table):
    X, y = table
    other = X * 1000.0 - 7.0
    np.testing.assert_allclose(
        classifier().fit(other, y).predict_proba(other), classifier().fit(X, y).predict_proba(X), atol=1e-4
    )
    inputs = classifier().fit(X, y).posterior_.data.x
    torch.testing.assert_close(inputs.mean(0), torch.zeros(3, dtype=inputs.dtype), rtol=0, atol=1e-6)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(3, dtype=inputs.dtype))
    with pytest.warns(UserWarning, match="standard deviation of 82"):
        raw = classifier(standardise=False).fit(X, y).posterior_.data.x
    np.testing.assert_array_equal(raw.numpy(), X)


def test_a_column_that_does_not_vary_keeps_its_scale():
    mean, deviation = _moments(np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]]))
    np.testing.assert_allclose(mean, [0.1, 3.0])
    np.testing.assert_allclose(deviation, [1.0, np.sqrt(8 / 3)])


def test_images_have_the_affine_extents_and_are_not_scaled(images):
    X, y = images
    flat = classifier(image_shape=(6, 4), max_steps=2).fit(X, y)
    assert flat.posterior_.symmetries == bayesinv.transforms.Affine2d().names
    assert flat.posterior_.data.event_shape == (1, 6, 4)
    np.testing.assert_array_equal(flat.posterior_.data.x.reshape(40, -1).numpy(), X)
    shaped = classifier(max_steps=2).fit(X.reshape(40, 1, 6, 4), y)
    np.testing.assert_array_equal(shaped.predict_proba(X.reshape(40, 1, 6, 4)), flat.predict_proba(X))
    colour = classifier("rotation", image_shape=(2, 3, 4), max_steps=2).fit(X, y)
    assert colour.posterior_.data.event_shape == (2, 3, 4)


def test_no_transforms_are_the_process_alone(images):
    X, y = images
    alone = classifier([], image_shape=(6, 4)).fit(X, y)
    assert alone.posterior_.model.active == ()
    assert alone.posterior_.model.orbit.num_samples == 1
    assert float(alone.posterior_.result.draws.abs().max()) == 0.0


def test_targets_of_the_regressor():
    X = np.random.default_rng(2).uniform(-2, 2, (50, 2))
    y = 10.0 + np.sin(2 * X[:, 0])
    estimator = regressor(max_steps=30).fit(X, y)
    mean, deviation = estimator.predict(X, return_std=True)
    prediction = estimator.posterior_.predict(
        torch.from_numpy((X - X.mean(0)) / X.std(0)), num_samples=4, seed=estimator._seed
    )
    np.testing.assert_allclose(mean, prediction.mean.numpy())
    np.testing.assert_allclose(deviation**2, prediction.variance.numpy())
    assert estimator.score(X, y) > 0.8
    both = regressor().fit(X, np.stack([y, -y], 1))
    assert both.predict(X).shape == (50, 2)
    assert regressor().fit(X, y[:, None]).predict(X).shape == (50, 1)


def test_tools_of_scikit_learn(table):
    X, y = table
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), classifier())
    assert cross_val_score(pipeline, frame, y, cv=2).mean() > 0.7
    grid = {"invarianceclassifier__transforms": [[], [ColumnShift([1, 2])]]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="neg_log_loss").fit(frame, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_[-1]
    assert best.posterior_.symmetries in [("noise",), ("shift_1", "shift_2")]
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict_proba(frame), search.predict_proba(frame))


def test_clones_carry_parameters_and_no_fit(table):
    X, y = table
    fitted = classifier([ColumnShift([0])], priors={"shift_0": 0.5}).fit(X, y)
    copy = clone(fitted)
    assert not hasattr(copy, "posterior_")
    assert copy.get_params()["priors"] == {"shift_0": 0.5}
    assert copy.fit(X, y).posterior_.symmetries == ("shift_0",)
    np.testing.assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))


def test_a_seed_makes_a_fit_repeatable(table):
    X, y = table
    one, same, other = (classifier(random_state=seed).fit(X, y).predict_proba(X) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    generator = np.random.RandomState(1)
    np.testing.assert_array_equal(classifier(random_state=generator).fit(X, y).predict_proba(X), one)


def test_a_network_is_a_backbone(table):
    X, y = table
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    options = {"backbone": net, "num_features": None, "max_steps": None, "evidence": "auto"}
    training = bayesinv.Training(epochs=1, batch_size=30)
    estimator = classifier([ColumnShift([1])], training=training, **options).fit(X, y)
    assert estimator.posterior_.model.is_network
    assert estimator.predict_proba(X).shape == (60, 2)


def test_what_is_refused(table, images):
    X, y = table
    with pytest.raises(DataError, match="one class"):
        classifier().fit(X, np.zeros(60))
    with pytest.raises(DataError, match=r"expected \(n, 35\)"):
        classifier(image_shape=(5, 7)).fit(*images)
    with pytest.raises(DataError, match=r"image_shape: expected \(height, width\)"):
        classifier(image_shape=(24,)).fit(*images)
    with pytest.raises(ValueError, match="expected one of them, got both"):
        classifier(backbone=bayesinv.GaussianProcess()).fit(X, y)
    signals = np.random.default_rng(3).normal(size=(20, 2, 16))
    with pytest.raises(DataError, match="expected transforms="):
        classifier().fit(signals, np.arange(20) % 2)
    shifted = classifier(TimeShift(sampling_rate=100.0, largest=0.05)).fit(signals, np.arange(20) % 2)
    assert shifted.posterior_.data.event_shape == (2, 16)


def test_the_example_of_the_docs_runs(capsys):
    text = (Path(__file__).parents[1] / "docs" / "sklearn.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    small = block.replace("train_size=200", "train_size=60").replace("cv=3", "cv=2").replace(', "affine2d"]', "]")
    small = small.replace("num_features=256", "num_features=32, max_steps=3, num_draws=5, num_samples=4")
    assert "train_size=60" in small and "cv=2" in small and "max_steps=3" in small and "affine2d" not in small
    exec(compile(small, "sklearn.md", "exec"), {})
    assert "median" in capsys.readouterr().out
