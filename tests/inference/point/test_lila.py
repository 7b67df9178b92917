"""LILA: what its phases train, where its extents start, and that it finds an invariance that is needed."""

import math

import pytest
import torch

import bayesinv
from bayesinv import Training
from bayesinv.data.container import Data
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference.point import Lila
from tests.inference.point.plane import QUICK, plane_model, sectors


def rings(n=120, seed=0):
    """Two classes by distance from the origin, most of them near one angle: turns say what the rest looks like."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    radius = 0.7 + 0.9 * y
    return Data(torch.stack([radius * angle.cos(), radius * angle.sin()], 1), y, num_classes=2)


def objective_of(per_epoch=10, **options):
    priors = options.pop("priors", None)
    model = plane_model(evidence="laplace", dtype=torch.float64, priors=priors)
    training = Training(batch_size=200 // per_epoch)
    return Lila(**options).objective(model, training, 200, 0), training


def test_extents_start_at_zero_and_step_once_an_epoch_after_the_burn_in():
    objective, training = objective_of(num_copies=5)
    assert objective.current_extents() == {"turn": 0.0, "shift": 0.0}
    assert objective.training_copies == objective.prediction_copies == objective.model.orbit.num_samples == 5
    burn, weights, extents = objective.phases(training, 400)
    assert (burn.stop, weights.start, extents.start, extents.every) == (100, 100, 100, 10)
    assert [phase.traced for phase in (burn, weights, extents)] == [False, False, True]
    assert weights.on_start == objective.network.start_scales
    assert extents.groups[1]["lr"] * extents.rate(100, 400) == pytest.approx(0.05)
    assert extents.groups[1]["lr"] * extents.rate(400, 400) == pytest.approx(0.005)
    assert objective.phases(training, 60)[0].stop == 30  # half of a short run
    often, training = objective_of(steps_per_epoch=5, burn_in=0)
    assert [(phase.name, phase.every) for phase in often.phases(training, 400)] == [("weights", 1), ("extents", 2)]


def test_the_extents_see_the_evidence_and_have_a_slope_at_zero():
    objective, _ = objective_of(priors={"shift": 0.2})
    data = sectors(30, dtype=torch.float64)
    torch.manual_seed(4)
    loss = objective.extent_loss(data, 200)
    torch.manual_seed(4)
    expected = -objective.model.log_evidence(torch.tensor([0.0, 0.2], dtype=torch.float64), data, 200)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    loss.backward()
    assert abs(float(objective.half_widths.raw.grad[0])) > 1e-8
    assert objective.network.log_scales.grad is not None


def test_weights_below_zero_are_the_same_half_widths():
    objective, _ = objective_of()
    with torch.no_grad():
        objective.half_widths.raw.copy_(torch.tensor([-0.3, 0.4]))
    assert objective.extents().tolist() == pytest.approx([0.3, 0.4])


def test_the_models_own_laplace_evidence_is_used():
    model = plane_model(evidence=LaplaceEvidence(num_outputs=None, determinant="lower"))
    assert Lila().prepare(model).evidence.determinant == "lower"
    assert Lila().prepare(plane_model()).evidence.config() == LaplaceEvidence().config()
    assert Lila().prepare(plane_model(evidence="plugin", average="log_likelihood")).average == "function"


def test_a_turn_that_is_needed_grows_and_a_shift_that_is_not_stays_small():
    posterior = bayesinv.fit(
        plane_model(evidence="laplace", num_orbit_samples=8),
        rings(),
        inference=Lila(burn_in=40),
        max_steps=200,
        training=QUICK,
        device="cpu",
    )
    turn, shift = posterior.result.draws[0].tolist()
    assert turn > 1.0
    assert shift < 0.3
    assert posterior.result.inference == "lila" and posterior.result.log_evidence is None
    assert len(posterior.result.settings["method"]["prior_gains"]) == 2


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"final_rate: expected at most rate, 0.01, got 0.1"):
        Lila(rate=0.01, final_rate=0.1)
    for options in ({"num_copies": 0}, {"steps_per_epoch": 0}, {"burn_in": -1}, {"rate": 0}, {"initial_extent": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Lila(**options)
    with pytest.raises(ValueError, match="all of this model are fixed"):
        Lila().prepare(plane_model(priors={"turn": 0.1, "shift": None}))
