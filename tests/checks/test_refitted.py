"""Weights of a network refitted at every extent: the evidence against its own definition, and what is refused."""

import copy
import math

import pytest
import torch

import bayesinv
from bayesinv import checks
from bayesinv.checks.refitted import _interpolate
from bayesinv.errors import EvidenceError


def net(outputs=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6), torch.nn.Tanh(), torch.nn.Linear(6, outputs))


def fitted(symmetries="rotation", n=24, **options):
    x = bayesinv.datasets.digits(math.pi, size=8, num_train=n, seed=0).train.x
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net()), symmetries, num_orbit_samples=4, **options)
    teacher = copy.deepcopy(model)
    teacher.network.sample_weights(3)
    data = bayesinv.Data(x, teacher.simulate(x, seed=1).y, num_classes=3)
    training = bayesinv.Training(epochs=40, batch_size=n, extent_batch_size=n, extent_every=1)
    return bayesinv.fit(model, data, training=training, seed=0, num_draws=20)


@pytest.fixture(scope="module")
def posterior():
    return fitted()


def test_without_steps_it_is_the_exact_evidence_at_the_weights_of_the_fit(posterior):
    found = checks.refitted_extents(posterior, num_points=4, steps=0, learn_scales=False, num_draws=50)
    exact = copy.deepcopy(posterior.model)
    exact.evidence.num_outputs = None  # all outputs and examples jointly: the determinant itself
    for eta, value in zip(found.extents, found.log_evidence, strict=True):
        wanted = exact.log_evidence(eta[None], posterior.data)
        torch.testing.assert_close(value, wanted.detach(), rtol=1e-4, atol=1e-3)
    assert found.draws.shape == (50, 1)
    assert found.table["extent"].tolist() == pytest.approx([22.5, 67.5, 112.5, 157.5], abs=3)
    assert found.symmetry == "rotation" and found.unit == "°"


def test_refitting_raises_the_evidence_everywhere_and_leaves_the_fit_alone(posterior):
    before = copy.deepcopy(posterior.model.state_dict())
    options = {"num_points": 4, "num_draws": 50}
    shared = checks.refitted_extents(posterior, steps=0, learn_scales=False, **options)
    weights = checks.refitted_extents(posterior, steps=60, learn_scales=False, **options)
    scales = checks.refitted_extents(posterior, steps=60, **options)
    assert (weights.log_evidence > shared.log_evidence).all()
    assert (scales.log_evidence > weights.log_evidence).all()
    assert all(torch.equal(before[name], value) for name, value in posterior.model.state_dict().items())
    again = checks.refitted_extents(posterior, steps=60, **options)
    assert torch.equal(again.draws, scales.draws)


def test_draws_follow_the_evidence():
    at = torch.linspace(0, 1, 5, dtype=torch.float64)
    values = _interpolate(at, torch.tensor([0.25, 0.75]).double(), torch.tensor([-1.0, 3.0]).double())
    assert values.tolist() == [-1.0, -1.0, 1.0, 3.0, 3.0]


def test_too_many_rows_are_refused_before_anything_is_refitted(posterior, monkeypatch):
    from bayesinv.checks import refitted

    monkeypatch.setattr(refitted, "LARGEST_ROWS", 71)
    monkeypatch.setattr(refitted, "_refit", None)
    with pytest.raises(ValueError, match=r"got 24·3; fit 23 examples or fewer"):
        checks.refitted_extents(posterior)


def test_what_is_refused(posterior):
    for options, message in (
        ({"num_points": 3}, "num_points: expected an integer of at least 4"),
        ({"steps": -1}, "steps: expected an integer of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            checks.refitted_extents(posterior, **options)
    with pytest.raises(ValueError, match="expected one latent extent, got 2"):
        checks.refitted_extents(fitted(["rotation", "translate_x"]))
    with pytest.raises(EvidenceError, match="Laplace"):
        checks.refitted_extents(fitted(evidence="plugin", priors={"rotation": bayesinv.Outward(1.0, math.pi)}))


def test_simulated_networks_have_extents_of_their_own():
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net()), "rotation", num_orbit_samples=4)
    x = torch.rand(3, 1, 8, 8)
    truths = [float(model.simulate(x, seed=seed).extents[0]) for seed in (0, 1, 2, 0)]
    assert len(set(truths)) == 3 and truths[0] == truths[3]
