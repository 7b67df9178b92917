"""What is rarely meant is said once, and nothing is said of what is usual."""

import re
import warnings

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import InvarianceModel, Training
from bayesinv.data.container import Data
from bayesinv.errors import DataWarning, NumericalError
from bayesinv.inference.usual_mistakes import warn_of_usual_mistakes
from bayesinv.transforms import AmplitudeScale, FrequencyShift, TimeMask, TimeShift

X = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 2
WHITE = torch.randn(20, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def network(*end: nn.Module, inputs: int = 36, outputs: int = 2) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs), *end)


def texts(net: nn.Module, x: torch.Tensor = X, y=Y, likelihood="categorical", known=True, transform="rotation"):
    data = Data(x, y, None if likelihood == "gaussian" else 2)
    model = InvarianceModel(net, transform, likelihood=likelihood, num_orbit_samples=2, evidence="plugin")
    model.initialise(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_usual_mistakes(model, data, known)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(
    ("end", "message"),
    [(nn.Softmax(1), "by a softmax in its end.*remove that layer"), (nn.LogSoftmax(1), "by a log-softmax in its end")],
)
def test_a_softmax_inside_is_named_once(end, message):
    model = InvarianceModel(network(end), "rotation", num_orbit_samples=2)
    training = Training(batch_size=10, extent_batch_size=10)
    with pytest.warns(UserWarning, match=message) as caught:
        bayesinv.fit(model, (X, Y), max_steps=8, num_draws=10, training=training)
    assert sum("remove that layer" in str(each.message) for each in caught) == 1


def test_a_softmax_over_maps_is_named_too():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Softmax(1))
    (text,) = texts(net, y=(X[:, 0] > 0.5).long())
    assert "by a softmax" in text


def test_what_is_alike_in_all_examples():
    real = torch.rand(20, 2, generator=torch.Generator().manual_seed(2))
    assert texts(network(), X, real, "gaussian") == []
    (text,) = texts(network(), X[:1].expand(20, -1, -1, -1))
    assert "all 20 inputs are alike" in text
    (text,) = texts(network(outputs=1), X, torch.full((20, 1), 3.0), "gaussian")
    assert text.startswith("y is the same in all 20 examples")
    (text,) = texts(network(), X, torch.cat([real[:, :1], torch.ones(20, 1)], 1), "gaussian")
    assert text.startswith("column 1 of y is the same")
    assert texts(network(outputs=1), X[:1], real[:1, :1], "gaussian") == []  # one example is no pattern
    with pytest.warns(bayesinv.errors.DataWarning, match="y is the same in all 20 examples"):
        model = InvarianceModel(bayesinv.GaussianProcess(num_inducing=4), "rotation", "gaussian", num_orbit_samples=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("default", bayesinv.errors.DataWarning)
            bayesinv.fit(model, (X, torch.ones(20)), max_steps=3, num_draws=5)


def test_images_that_are_not_scaled():
    (text,) = texts(network(), 255 * X)
    assert "x / 255" in text
    (text,) = texts(network(outputs=1), 255 * X, torch.rand(20, 1), "gaussian")
    assert "x / 255" in text


def test_a_sigmoid_inside():
    (text,) = texts(network(nn.Sigmoid()))
    assert "as by a sigmoid in its end" in text and "more probable than 0.73: remove that layer" in text
    (text,) = texts(network(nn.Sigmoid(), outputs=1), likelihood="bernoulli")
    assert "label 0 could not be predicted: remove that layer" in text
    (text,) = texts(network(nn.Softmax(1)))
    assert "as by a softmax" in text  # and not by a sigmoid as well


def test_outputs_that_happen_to_lie_between_0_and_1():
    net = network()
    with torch.no_grad():
        net[-1].weight.mul_(1e-3)
        net[-1].bias.fill_(0.3)
    assert texts(net) == []


def test_more_outputs_than_classes_unless_classes_may_be_missing():
    (text,) = texts(network(outputs=10))
    assert "10 outputs and the data 2 classes" in text and "num_classes=10" in text
    assert texts(network(outputs=10), known=False) == []


@pytest.mark.parametrize(
    "x",
    [X, WHITE, 4 * WHITE, X.double()],
    ids=["unit", "standardised", "wide", "double"],
)
def test_nothing_is_said_of_usual_images(x):
    assert texts(network(inputs=x[0].numel()), x) == []


def test_nothing_is_said_of_regressions_signals_tables_and_other_ends():
    assert texts(network(nn.Softmax(1)), y=torch.rand(20, 2), likelihood="gaussian") == []
    assert texts(network(outputs=1), likelihood="bernoulli") == []
    for end in (nn.ReLU(), nn.Tanh(), nn.Softplus(), nn.LayerNorm(2), nn.Hardtanh(0.0, 2.0)):
        assert texts(network(end)) == []
    assert texts(network(inputs=80), torch.rand(20, 2, 40), transform=bayesinv.transforms.TimeShift()) == []
    assert texts(network(inputs=4), torch.rand(20, 4), transform=bayesinv.transforms.ColumnScale([0])) == []


def signals(*shape):
    return torch.randn(20, *shape, generator=torch.Generator().manual_seed(2))


def test_signals_with_their_channels_last():
    (text,) = texts(network(inputs=192), signals(64, 3), transform=AmplitudeScale())
    assert "more channels, 64, than samples in time, 3" in text and "x.swapaxes(1, 2)" in text
    # One word for one mistake, and not that 1 s is beyond 3 samples as well.
    assert len(texts(network(inputs=192), signals(64, 3), transform=[TimeShift(), FrequencyShift(9.0)])) == 1
    assert texts(network(inputs=192), signals(3, 64), transform=AmplitudeScale()) == []
    assert texts(network(inputs=60), signals(20, 3), transform=bayesinv.transforms.Jitter3d()) == []  # 20 atoms


def test_signals_with_two_clocks():
    (text,) = texts(network(inputs=64), signals(1, 64), transform=[TimeShift(100.0, 0.2), FrequencyShift()])
    assert "TimeShift(sampling_rate=100) and FrequencyShift(sampling_rate=1)" in text
    alike = [TimeShift(100.0, 0.2), AmplitudeScale(), FrequencyShift(100.0)]
    assert texts(network(inputs=64), signals(1, 64), transform=alike) == []


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            TimeShift(100.0),
            r"time_shift reaches up to 1 s, beyond half of the recording \(0.32 of 0.64 s\).*at most 0.32",
        ),
        (TimeShift(100.0, 0.33), "come round again"),
        (
            TimeShift(100.0, 0.7, "zeros"),
            r"beyond the whole recording \(0.64 s\).*TimeShift a largest= of at most 0.64",
        ),
        (TimeMask(100.0), "TimeMask a largest= of at most 0.64"),
        (TimeShift(largest=40.0), r"up to 40 samples.*32 of 64 samples"),
    ],
)
def test_shifts_and_masks_beyond_the_recording(transform, message):
    (text,) = texts(network(inputs=64), signals(1, 64), transform=transform)
    assert re.search(message, text)


def test_shifts_within_the_recording():
    for transform in (TimeShift(100.0, 0.32), TimeShift(100.0, 0.64, "zeros"), TimeMask(100.0, 0.64)):
        assert texts(network(inputs=64), signals(1, 64), transform=transform) == []
    model = InvarianceModel(
        network(inputs=64), TimeShift(100.0), priors={"time_shift": 0.1}, evidence="plugin", num_orbit_samples=2
    )
    with warnings.catch_warnings():  # the prior keeps it inside
        warnings.simplefilter("error")
        warn_of_usual_mistakes(model, Data(signals(1, 64), Y, 2))


def test_fit_warns_of_signals():
    model = InvarianceModel(bayesinv.GaussianProcess(num_inducing=4), AmplitudeScale(), num_orbit_samples=2)
    with pytest.warns(UserWarning, match="than samples in time, 3"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=bayesinv.errors.NotConvergedWarning)
        warnings.filterwarnings("ignore", category=bayesinv.errors.ImportanceWarning)
        bayesinv.fit(model, (signals(8, 3), Y), max_steps=2, num_draws=30, seed=0)


def test_the_statistics_of_a_batch_are_left_alone():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 2))
    model = InvarianceModel(net, "rotation", evidence="plugin")
    before = model.network.net[1].running_mean.clone()
    warn_of_usual_mistakes(model, Data(X, Y, 2), True)
    assert torch.equal(model.network.net[1].running_mean, before) and model.network.net[1].training


class Turned(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return torch.rot90(X[i], int(torch.randint(4, ())), (-2, -1)), int(Y[i])


@pytest.mark.parametrize("backbone", [bayesinv.GaussianProcess(num_features=16), network()], ids=["process", "network"])
def test_augmentation_that_was_left_in_is_named_once(backbone):
    model = InvarianceModel(backbone, "rotation", num_orbit_samples=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bayesinv.fit(model, torch.utils.data.DataLoader(Turned(), batch_size=5), max_steps=2, num_draws=5)
    (found,) = [each for each in caught if "differs when read twice" in str(each.message)]
    assert issubclass(found.category, DataWarning)
    assert "take the augmentation out" in str(found.message)


@pytest.mark.parametrize("inference", ["vi", "augerino"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(inference, value):
    net = network()
    with torch.no_grad():
        net[3].weight[1, 2] = value
    with pytest.raises(NumericalError, match=r"parameter '3\.weight' of the model holds values .* 1 of 10"):
        bayesinv.fit(InvarianceModel(net, "rotation"), (X, Y), inference)
    norm = nn.BatchNorm1d(36)
    norm.running_var[0] = torch.nan
    features = bayesinv.GaussianProcess(features=nn.Sequential(nn.Flatten(), norm.eval()))
    with pytest.raises(NumericalError, match=r"buffer 'features\.1\.running_var'"):
        bayesinv.fit(InvarianceModel(features, "rotation"), (X, Y))
