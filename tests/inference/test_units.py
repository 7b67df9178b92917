"""The unit of the data: what is taken out of it, and what is warned of."""

import math
import warnings

import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, Training
from bayesinv.data.container import Data
from bayesinv.inference import Fixed
from bayesinv.inference.units import unit_mistakes
from bayesinv.transforms import ColumnNoise, ColumnPermutation, ColumnScale, ColumnShift, TimeShift, Translation3d

N = 24
G = torch.Generator().manual_seed(0)
TABLE = torch.randn(N, 3, generator=G, dtype=torch.float64)
TARGET = torch.sin(2 * TABLE[:, :1]) + 0.1 * torch.randn(N, 1, generator=G, dtype=torch.float64)
LABELS = (TABLE[:, 0] > 0).long()
SPACES = {"features": {"num_features": 128}, "inducing": {"num_inducing": 10}, "exact": {"num_inducing": None}}


def net(inputs: int = 3, outputs: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs))


def log_evidence(x, y, space, unit=1.0, num_classes=None):
    """At extents of half a unit of the first column."""
    likelihood = "gaussian" if num_classes is None else "categorical"
    transform = ColumnShift([0], largest=2 * unit)
    model = InvarianceModel(GaussianProcess(**SPACES[space]), transform, likelihood=likelihood, num_orbit_samples=4)
    data = Data(x, y, num_classes)
    model.initialise(data, 0)
    with torch.no_grad():
        return float(model.log_evidence(torch.tensor([0.5 * unit], dtype=torch.float64), data))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e6, 3e6), (1.0, 2e4), (1e-3, 5.0), (1e-14, 0.0)])
def test_the_evidence_of_a_process_does_not_see_units_and_offsets_of_inputs(space, scale, offset):
    for y, classes in ((TARGET, None), (LABELS, 2)):
        right = log_evidence(TABLE, y, space, num_classes=classes)
        found = log_evidence(scale * TABLE + offset, y, space, scale, classes)
        assert found == pytest.approx(right, abs=0.02)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e6, 3e8), (1.0, 1e4)])
def test_the_evidence_of_a_process_is_in_the_unit_of_the_targets(space, scale, offset):
    right = log_evidence(TABLE, TARGET, space) - N * math.log(scale)
    assert log_evidence(TABLE, scale * TARGET + offset, space) == pytest.approx(right, abs=0.02)


def test_points_far_from_the_origin_have_the_evidence_of_points_near_it():
    points = torch.randn(N, 5, 3, generator=G, dtype=torch.float64)
    found = []
    for offset in (torch.zeros(3), torch.tensor([5e5, 5.4e6, 100.0])):
        model = InvarianceModel(GaussianProcess(num_features=64), [Translation3d()], likelihood="gaussian")
        data = Data(points + offset.double(), TARGET)
        model.initialise(data, 0)
        eta = torch.tensor([0.1 * c.largest for c in model.coordinates], dtype=torch.float64)
        found.append(float(model.log_evidence(eta, data).detach()))
    assert found[1] == pytest.approx(found[0], abs=0.02)


def fit(model, data, **options):
    options = {"seed": 0, "num_draws": 20, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bayesinv.fit(model, data, **options)


@pytest.mark.parametrize("inference", ["vi", "augerino", "fixed"])
@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e4, 0.0), (1.0, 1e4)])
def test_a_network_regression_does_not_see_the_unit_of_its_targets(inference, scale, offset):
    method = Fixed({"shift_0": 0.5}) if inference == "fixed" else inference
    x = TABLE.float()
    found = []
    for y in (TARGET, scale * TARGET + offset):
        model = InvarianceModel(net(), ColumnShift([0], largest=2.0), likelihood="gaussian", num_orbit_samples=2)
        found.append(fit(model, (x, y), inference=method, training=Training(epochs=6, batch_size=12)))
    one, other = found
    torch.testing.assert_close(other.quantile(0.5), one.quantile(0.5), rtol=1e-3, atol=1e-4)
    mean, variance = one.predict(x).mean, one.predict(x).variance
    torch.testing.assert_close(other.predict(x).mean, scale * mean + offset, rtol=1e-6, atol=1e-3 * scale)
    torch.testing.assert_close(other.predict(x).variance, scale**2 * variance, rtol=1e-3, atol=0.0)
    noise, wanted = (float(p.model.evidence.noise.detach()) for p in (other, one))
    assert noise == pytest.approx(scale**2 * wanted, rel=1e-3)
    if inference == "vi":
        assert other.log_evidence == pytest.approx(one.log_evidence - N * math.log(scale), abs=0.1)


def test_a_network_that_predicts_its_targets_as_they_are_keeps_their_unit():
    x = TABLE.float()
    trained = nn.Linear(3, 1)
    with torch.no_grad():
        trained.weight.copy_(torch.tensor([[1000.0, 0.0, 0.0]]))
        trained.bias.fill_(5000.0)
    y = 1000.0 * TABLE[:, :1] + 5000.0
    for network, kept in ((trained, True), (nn.Linear(3, 1), False)):
        model = InvarianceModel(network, ColumnShift([1]), likelihood="gaussian")
        model.initialise(Data(x, y), 0)
        assert (len(model.network.output_mean) == 0) is kept
    torch.testing.assert_close(model.network.output_mean, y.mean(0))
    assert float(model.network.output_unit) == pytest.approx(float(y.std(correction=0)))


def test_outputs_that_turn_with_the_input_have_a_unit_and_no_offset():
    network = bayesinv.NeuralNetwork(net())
    y = 100.0 + TARGET
    network.match(TABLE.float(), y, centred=False)
    assert float(network.output_mean) == 0.0
    assert float(network.output_unit) == pytest.approx(float(y.square().mean().sqrt()))


def test_adam_moves_what_is_in_the_unit_of_the_data_in_steps_of_that_unit():
    found = []
    for scale in (1.0, 1e-4):
        backbone, transform = GaussianProcess(num_inducing=6), ColumnShift([0], largest=2 * scale)
        options = {"likelihood": "gaussian", "evidence": "stochastic", "num_orbit_samples": 2}
        model = InvarianceModel(backbone, transform, **options)
        p = fit(model, (scale * TABLE, scale * TARGET), max_steps=20, training=Training(batch_size=12))
        unscaled = p.model.backbone.inducing / scale, p.model.evidence.mean / scale, p.quantile(0.5) / scale
        found.append([values.detach() for values in unscaled])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=0.02, atol=0.01)  # the smallest noise is rounded to float32


def texts(backbone, x, y=LABELS, transform=None, likelihood="categorical"):
    data = Data(x, y, 2 if likelihood == "categorical" else None)
    model = InvarianceModel(
        backbone, transform or ColumnPermutation([0, 1]), likelihood=likelihood, num_orbit_samples=2
    )
    model.initialise(data, 0)
    return unit_mistakes(model, data)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 20.0, 1e6])
def test_a_network_is_told_of_inputs_in_another_unit(scale):
    (text,) = texts(net(outputs=2), (scale * TABLE).float())
    assert "scale them" in text and "x.mean(0)" in text
    (text,) = texts(net(40, 2), scale * torch.randn(N, 1, 40, generator=G), transform=TimeShift(100.0, largest=0.05))
    assert "(x - x.mean()) / x.std()" in text


def test_a_network_is_told_of_an_offset_and_of_nothing_else():
    assert texts(net(outputs=2), TABLE.float()) == []
    assert texts(net(outputs=2), torch.zeros(N, 3)) == []
    (text,) = texts(net(outputs=2), 1.0 + 0.01 * TABLE.float())
    assert "scale them" in text


@pytest.mark.parametrize("offset", [1e5, 5e6])
def test_what_single_precision_has_rounded_is_named(offset):
    (text,) = texts(GaussianProcess(num_features=16), (TABLE + offset).float())
    assert "x is float32" in text and "x.double()" in text
    assert texts(GaussianProcess(num_features=16), TABLE + offset) == []
    y = (TARGET + offset).float()
    (text,) = texts(GaussianProcess(num_features=16), TABLE, y, likelihood="gaussian")
    assert "y is float32" in text


def test_a_kernel_of_the_users_own_that_starts_far_from_the_data_is_named():
    def said(kernel, scale=1.0, unit=1.0):
        return texts(GaussianProcess(kernel), scale * TABLE, unit * TARGET, likelihood="gaussian")

    assert said(ScaleKernel(MaternKernel(nu=2.5))) == []
    (text,) = said(ScaleKernel(MaternKernel(nu=2.5)), scale=1e3)
    assert "lengthscale of MaternKernel" in text and "kernel.lengthscale" in text
    (text,) = said(RBFKernel(), unit=1e3)
    assert "outputscale" in text
    assert said(None, scale=1e3, unit=1e3) == []


def test_targets_in_units_of_their_own_are_named():
    y = torch.cat([TARGET, 1000 * TARGET], 1)
    (text,) = texts(GaussianProcess(num_features=16), TABLE, y, likelihood="gaussian")
    assert "share one noise" in text
    assert texts(GaussianProcess(num_features=16), TABLE, y[:, :1].repeat(1, 2), likelihood="gaussian") == []


@pytest.mark.parametrize("backbone", [GaussianProcess(num_features=16), net(outputs=2)], ids=["process", "network"])
@pytest.mark.parametrize("unit", [120.0, 0.1])
def test_extents_in_standard_deviations_of_columns_that_have_others(backbone, unit):
    def named(transform, x, y=LABELS):
        return [text for text in texts(backbone, x.float(), y, transform) if "sd" in text]

    other = unit * TABLE
    (text,) = named(ColumnShift(["b"], table=["a", "b", "c"]), other)
    assert f"{float(other[:, 1].std()):.3g} in column b" in text and "x.std(0)" in text
    assert len(named(ColumnNoise([0, 2]), other)) == len(named([ColumnScale([0]), ColumnShift([0])], other)) == 1
    assert named(ColumnScale([0]), other) == []  # a factor has no unit
    for x in (TABLE, 2.5 * TABLE, 0.4 * TABLE + 5.0, other * torch.tensor([1.0, 1.0, 0.0]) + torch.randn(N, 1)):
        assert named(ColumnShift([2]), x) == []
    assert named(ColumnShift([0]), other[:7], LABELS[:7]) == []  # too few to say


def test_columns_of_very_different_spread_are_named_where_they_share_a_scale():
    wide = TABLE * torch.tensor([1.0, 1e5, 1.0])
    (text,) = texts(GaussianProcess(num_features=16), wide)
    assert "(column 1)" in text and "x.std(0)" in text
    (text,) = texts(net(outputs=2), (TABLE * torch.tensor([1.0, 1.0, 1e-3])).float())
    assert "(column 2)" in text
    assert texts(GaussianProcess(RBFKernel(ard_num_dims=3), num_inducing=8), wide) == []
    assert (
        texts(GaussianProcess(num_features=16), TABLE * torch.tensor([1.0, 20.0, 0.0]) + torch.tensor([0.0, 0.0, 0.1]))
        == []
    )
