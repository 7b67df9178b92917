"""Results do not depend on the modes of torch around a call."""

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, Training
from bayesinv.errors import DataError
from bayesinv.numerics.torch_modes import ordinary

MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def fit(kind):
    torch.manual_seed(0)
    x, y = torch.rand(16, 1, 6, 6), torch.arange(16) % 2
    if kind == "process":
        model = InvarianceModel(GaussianProcess(num_inducing=5), "rotation", num_orbit_samples=3)
        posterior = bayesinv.fit(model, (x, y), max_steps=3, num_draws=5)
    else:
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
        model = InvarianceModel(net, "rotation", num_orbit_samples=2)
        inference = "vi" if kind == "network" else kind
        posterior = bayesinv.fit(model, (x, y), inference, training=Training(epochs=2, batch_size=8), num_draws=5)
    return posterior.result.extents, posterior.predict(x[:3]).probs


@pytest.fixture(scope="module")
def ordinarily():
    return {kind: fit(kind) for kind in ("process", "network", "augerino")}


@pytest.mark.parametrize("kind", ["process", "network", "augerino"])
@pytest.mark.parametrize("mode", MODES)
def test_fits_and_predictions_are_the_same_in_every_mode(mode, kind, ordinarily):
    with MODES[mode]():
        extents, probs = fit(kind)
    assert not extents.is_inference() and torch.equal(extents, ordinarily[kind][0])
    assert torch.equal(probs, ordinarily[kind][1])


def test_gradients_stay_off_where_they_were():
    with torch.no_grad(), ordinary():
        assert not torch.is_grad_enabled()
    with torch.inference_mode(), ordinary():
        assert not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with ordinary():
        assert torch.is_grad_enabled()


def test_half_precision_by_default_is_refused():
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pytest.raises(ValueError, match="set_default_dtype"):
            InvarianceModel(GaussianProcess(), "rotation")
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_block_in_which_tensors_hold_no_values_is_named():
    with torch.device("meta"), pytest.raises(DataError, match="leave that block before you build"):
        bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=8), "rotation")


@pytest.mark.parametrize("mode", MODES)
def test_simulated_and_loaded_models_are_the_same_in_every_mode(mode, tmp_path):
    x = torch.rand(6, 1, 6, 6)
    model = InvarianceModel(GaussianProcess(num_inducing=4), "rotation", num_orbit_samples=3)
    posterior = bayesinv.fit(model, (x, torch.arange(6) % 2), max_steps=2, num_draws=5)
    path = posterior.save(tmp_path / "fit")
    expected = posterior.model.simulate(x, num_outputs=2, seed=1)
    with MODES[mode]():
        found = posterior.model.simulate(x, num_outputs=2, seed=1)
        loaded = bayesinv.load(path)
    assert torch.equal(found.y, expected.y) and not found.y.is_inference()
    assert not any(value.is_inference() for value in loaded.model.state_dict().values())
    eta = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    loaded.model.log_evidence(eta, loaded.data).backward()
    assert bool(torch.isfinite(eta.grad).all())
