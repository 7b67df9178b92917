"""Labels of text, and the names of classes with a posterior and its predictions."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

import bayesinv
from bayesinv import Data, GaussianProcess, InvarianceModel, Training
from bayesinv.data import as_data
from bayesinv.data.class_names import coded, names_in
from bayesinv.data.streams import stream_of
from bayesinv.errors import DataError
from bayesinv.posterior import InvariancePosterior

# Names are looked at here, and not how good small fits are.
pytestmark = pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")
NAMES = ("ant", "bee", "cat")
generator = torch.Generator().manual_seed(0)
Y = torch.arange(24) % 3
# Rows, columns or nothing bright: classes that a small fit tells apart.
X = 0.1 * torch.rand(24, 1, 6, 6, generator=generator)
X[Y == 0, :, 2:4] += 1.0
X[Y == 1, :, :, 2:4] += 1.0
TEXT = [NAMES[k] for k in Y.tolist()]


class Folder(Dataset):
    """As torchvision.datasets.ImageFolder: numbers as labels, names in ``classes``."""

    def __init__(self, classes=NAMES, y=Y, target_transform=None):
        self.classes, self.y, self.target_transform = list(classes), y, target_transform

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return X[i], int(self.y[i])


def process():
    return InvarianceModel(GaussianProcess(num_features=32), "translate_x", num_orbit_samples=4)


def network():
    torch.manual_seed(0)
    return InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), "translate_x", num_orbit_samples=4)


@pytest.fixture(scope="module")
def posterior():
    return bayesinv.fit(process(), (X, TEXT), seed=0, num_draws=30)


@pytest.fixture(scope="module")
def numbers():
    return bayesinv.fit(process(), (X, Y), seed=0, num_draws=30)


@pytest.mark.parametrize(
    "labels",
    [TEXT, tuple(TEXT), np.array(TEXT), np.array(TEXT, dtype=object), pd.Series(TEXT), pd.Categorical(TEXT)],
    ids=["list", "tuple", "text", "objects", "series", "categorical"],
)
def test_text_becomes_numbers_in_the_order_of_sorted_names(labels):
    for data in (as_data((X, labels), "categorical"), Data(X, labels)):
        assert data.classes == NAMES and data.num_classes == 3
        assert torch.equal(data.y, Y)
    assert as_data((X, labels), "categorical").subset([1]).to(dtype=torch.float64).classes == NAMES


def test_classes_say_the_order_and_what_else_there_is():
    data = Data(X, TEXT, classes=("cat", "ant", "dog", "bee"))
    assert data.num_classes == 4
    assert torch.equal(data.y, torch.tensor([1, 3, 0])[Y])
    numbered = Data(X, Y, classes=NAMES)
    assert numbered.num_classes == 3 and torch.equal(numbered.y, Y)
    with pytest.raises(DataError, match="y holds 'cat' at index 2, which is none of the 2 classes"):
        Data(X, TEXT, classes=("ant", "bee"))


def test_a_map_of_names_and_two_classes():
    maps = np.array(NAMES)[np.arange(2 * 4 * 4).reshape(2, 4, 4) % 3]
    assert as_data((X[:2], maps), "categorical").y.shape == (2, 4, 4)
    assert as_data((X, ["no", "yes"] * 12), "bernoulli").classes == ("no", "yes")
    with pytest.raises(DataError, match="label 2 at index 2 is out of range"):
        as_data((X, TEXT), "bernoulli")


def test_names_of_a_data_set():
    folder = Folder()
    for data in (folder, DataLoader(folder, batch_size=5), Subset(Subset(folder, range(20)), range(10))):
        assert names_in(data) == NAMES
        found = as_data(data, "categorical")
        assert found.classes == NAMES and found.num_classes == 3
    few = as_data(Subset(folder, [0, 2, 3, 5]), "categorical")  # no bee among them
    assert few.num_classes == 3 and few.y.tolist() == [0, 2, 0, 2]


def test_names_that_say_nothing_of_the_labels_are_left_alone():
    for data in (
        (X, Y),
        Folder(target_transform=lambda y: y % 2),
        ConcatDataset([Folder()]),
        Folder(classes=["one"]),
        Folder(classes=[0, 1, 2]),
        Folder(classes=["same"] * 3),
    ):
        assert names_in(data) is None
    assert as_data(Folder(), "gaussian").classes is None
    with pytest.raises(DataError, match="y holds names of classes; expected real targets"):
        as_data(Data(X, TEXT), "gaussian")


def test_predictions_have_the_names(posterior, numbers):
    prediction = posterior.predict(X)
    assert prediction.names.dtype.kind == "U" and prediction.names.shape == (24,)
    assert prediction.names.tolist() == [NAMES[k] for k in prediction.labels.tolist()]
    assert (prediction.names == np.array(TEXT)).mean() > 0.9
    assert prediction.to("cpu").names.tolist() == prediction.names.tolist()
    with pytest.raises(AttributeError, match="training labels were numbers"):
        _ = numbers.predict(X[:2]).names


def test_a_fit_to_text_is_that_to_numbers(posterior, numbers):
    assert torch.equal(posterior.result.extents, numbers.result.extents)


def test_a_loaded_posterior_predicts_the_same_names(posterior, numbers, tmp_path):
    posterior.save(tmp_path / "a.bayesinv")
    loaded = bayesinv.load(tmp_path / "a.bayesinv")
    assert loaded.data.classes == NAMES
    assert loaded.predict(X).names.tolist() == posterior.predict(X).names.tolist()
    numbers.save(tmp_path / "b.bayesinv")
    assert bayesinv.load(tmp_path / "b.bayesinv").data.classes is None


def test_test_data_are_matched_by_name(posterior):
    """Text without some class, and a folder whose numbers are others; both are scored as the same numbers are."""
    fits = {"text": posterior}
    there = Y != 0
    expected = bayesinv.compare(fits, (X[there], Y[there])).table.drop(columns="seconds")
    text = [name for name in TEXT if name != "ant"]
    given = bayesinv.compare(fits, (X[there], text)).table.drop(columns="seconds")
    pd.testing.assert_frame_equal(given, expected)
    shifted = Folder(classes=("bee", "cat"), y=Y - 1)
    rows = there.nonzero()[:, 0].tolist()
    pd.testing.assert_frame_equal(bayesinv.compare(fits, Subset(shifted, rows)).table.drop(columns="seconds"), expected)


@pytest.mark.parametrize("data", ["text", "folder"])
def test_an_unknown_label_says_what_to_do(posterior, data, tmp_path):
    text = ["dog", *TEXT[1:]]
    test = (X, text) if data == "text" else Folder(("dog", "bee", "cat"))
    words = "y holds 'dog' at index 0, which is none of the 3 classes of the fit: 'ant', 'bee', 'cat'. Drop the "
    for score in (
        lambda: bayesinv.compare({"a": posterior}, test),
        lambda: posterior.check(test=test),
        lambda: posterior.report(tmp_path / "page.html", test=test),
    ):
        with pytest.raises(DataError, match=words):
            score()
    assert not list(tmp_path.iterdir())


def test_a_name_without_an_example_is_not_unknown(posterior):
    more = Folder((*NAMES, "dog"))
    assert bayesinv.compare({"a": posterior}, more).table["accuracy"].item() > 0.9


def test_text_for_a_fit_to_numbers_is_refused(numbers):
    with pytest.raises(DataError, match="y holds names of classes, and the fit was to numbers"):
        bayesinv.compare({"a": numbers}, (X, TEXT))
    assert bayesinv.compare({"a": numbers}, Folder()).table["accuracy"].item() > 0.9


def test_fits_of_other_names_are_not_compared(posterior, numbers):
    other = InvariancePosterior(numbers.model, Data(X, Y, classes=("x", "y", "z")), numbers.result)
    with pytest.raises(ValueError, match="expected classes of the same names"):
        bayesinv.compare({"a": posterior, "b": other}, (X, Y))
    assert set(bayesinv.compare({"a": posterior, "b": numbers}, (X, TEXT)).table["accuracy"]) == {1.0}


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
@pytest.mark.parametrize("data", [(X, TEXT), Folder(), DataLoader(Folder(), batch_size=8, shuffle=True)])
def test_a_network_keeps_the_names(data):
    stream = stream_of(data, "categorical")
    assert stream.classes == NAMES and stream.batch(0, "weights", 0, 4).classes == NAMES
    fitted = bayesinv.fit(network(), data, seed=0, training=Training(epochs=2, batch_size=8), num_draws=30)
    prediction = fitted.predict(X)
    assert prediction.names.tolist() == [NAMES[k] for k in prediction.labels.tolist()]


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_a_trained_network_is_calibrated_by_name(posterior):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    trained = bayesinv.train(net, (X, TEXT), posterior, epochs=2, batch_size=8)
    there = Y != 0
    by_number = trained.calibrated((X[there], Y[there])).temperature
    assert trained.calibrated((X[there], [name for name in TEXT if name != "ant"])).temperature == by_number
    with pytest.raises(DataError, match="y holds 'dog'"):
        trained.calibrated((X, ["dog", *TEXT[1:]]))


def test_more_outputs_than_names():
    prediction = bayesinv.Prediction(torch.zeros(2, 3), torch.eye(3)[:2].flip(1), classes=("a", "b"))
    assert prediction.names.tolist() == ["2", "b"]


def test_numbers_that_have_no_name():
    with pytest.raises(DataError, match=r"y reaches from 0 to 2; expected 0..1, 'ant', 'bee'"):
        coded(Y, own=("ant", "bee"), classes=NAMES)


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
def test_data_of_one_class_are_matched_by_name(likelihood):
    x = torch.zeros(4, 1, 4, 4)
    for given in ((x, ["no"] * 4), Data(x, ["no"] * 4)):
        read = as_data(given, likelihood, one_class=True, classes=("yes", "no"))
        assert read.y.tolist() == [1] * 4 and read.num_classes == 2
    for given in ((x, ["no"] * 4), Data(x, ["no"] * 4)):
        with pytest.raises(DataError, match="the fit was to numbers"):
            as_data(given, likelihood, one_class=True)


@pytest.mark.parametrize(
    ("classes", "num_classes", "message"),
    [("ab", None, "expected a list of names"), (("a", "a"), None, "each once"), (("a", "b", "c"), 2, "at most")],
)
def test_names_that_make_no_sense(classes, num_classes, message):
    with pytest.raises(DataError, match=message):
        Data(torch.zeros(2, 3), [0, 1], num_classes, classes=classes)


def test_a_stream_has_as_many_classes_as_the_names_say():
    data = torch.utils.data.TensorDataset(torch.zeros(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    data.classes = ["a", "b", "c", "d"]
    stream = stream_of(data, "categorical")
    assert stream.num_classes == 4 and stream.batch(0, "weights", 0, 3).num_classes == 4
