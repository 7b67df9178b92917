"""Targets (n,) give predictions (n,), which can be compared with them without a trap."""

import pytest
import torch

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, Training
from bayesinv.data.container import as_data


@pytest.fixture(scope="module")
def data():
    x = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return x, x.mean((1, 2, 3)).double()


@pytest.fixture(scope="module")
def posterior(data):
    model = InvarianceModel(GaussianProcess(num_features=16), "rotation", likelihood="gaussian", num_orbit_samples=4)
    return bayesinv.fit(model, data, seed=0, num_draws=60)


@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")
def test_shapes_follow_the_targets(posterior, data, tmp_path):
    x, y = data
    for fitted in (posterior, bayesinv.load(posterior.save(tmp_path / "posterior"))):
        prediction = fitted.predict(x[:7], y=y[:7])
        assert prediction.mean.shape == prediction.variance.shape == prediction.log_density.shape == (7,)
        assert float((prediction.mean - y[:7]).abs().max()) < 0.5
        assert bayesinv.metrics.rmse(prediction.mean, y[:7]) < 0.3
        rows = prediction.as_rows()
        assert rows.mean.shape == rows.variance.shape == (7, 1) and torch.equal(rows.flattened().mean, prediction.mean)
    table = bayesinv.compare({"one": posterior}, (x, y)).table
    torch.testing.assert_close(
        torch.tensor(float(table["rmse"].iloc[0])),
        torch.tensor(bayesinv.metrics.rmse(posterior.predict(x).mean, y)),
        rtol=1e-3,
        atol=0.0,
    )


def test_columns_stay_columns(data):
    x, y = data
    assert as_data((x, y), "gaussian").flat and not as_data((x, y[:, None]), "gaussian").flat
    kept = as_data(as_data((x, y), "gaussian").to(torch.device("cpu")).subset([1, 2]), "gaussian")
    assert kept.flat and kept.y.shape == (2, 1)


@pytest.mark.parametrize("wrapped", [False, True])
def test_networks_over_minibatches(data, wrapped):
    x, y = data
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 1))
    model = InvarianceModel(net, "rotation", likelihood="gaussian", num_orbit_samples=2)
    given = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=10) if wrapped else data
    posterior = bayesinv.fit(model, given, training=Training(epochs=12, batch_size=10), seed=0)
    assert posterior.predict(x[:3]).mean.shape == (3,)
