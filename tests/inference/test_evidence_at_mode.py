"""The log evidence of a network: where it is taken, its value where that is known, and when there is none."""

import math

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import InvarianceModel
from bayesinv.data.container import Data
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference import minibatch_fit
from bayesinv.inference.evidence_at_mode import LARGEST_ERROR, ReportedEvidence, evidence_at_mode
from bayesinv.inference.minibatch import VariationalObjective
from bayesinv.numerics.randomness import seeded

SETTINGS = {"num_steps": 4000, "batch_size": 20, "rate": 0.05}


def linear() -> tuple[VariationalObjective, Data, float]:
    """A linear model without extents, far from its mode, its data, and its log marginal likelihood."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 1, 3, 3, generator=generator, dtype=torch.float64)
    data = Data(x, torch.randn(20, 1, generator=generator, dtype=torch.float64))
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 1, bias=False)).double()
    evidence = LaplaceEvidence("gaussian")
    model = InvarianceModel(net, "rotation", likelihood="gaussian", evidence=evidence, priors={"rotation": None})
    model.initialise(data)
    with torch.no_grad():
        model.evidence.log_noise.fill_(math.log(0.7))
        sigma = float(model.backbone.prior_scales()["1.weight"])
    X = x.flatten(1)
    mean, unit = model.backbone.output_mean, float(model.backbone.output_unit)  # y = m + s Xw + e
    K = (unit * sigma) ** 2 * X @ X.T + 0.7 * torch.eye(20, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(mean.expand(20), K)
    objective = VariationalObjective(model, "full_rank", data, 20)
    objective.phases(bayesinv.Training(finish=0.0), 10)
    return objective, data, float(normal.log_prob(data.y[:, 0]))


def test_of_a_linear_model_it_is_the_marginal_likelihood_at_the_mode_and_changes_no_weight():
    objective, data, truth = linear()
    before = objective.model.backbone.net[1].weight.clone()
    with seeded(0):
        found = evidence_at_mode(objective, data, 20, **SETTINGS)
    assert found.value == pytest.approx(truth, abs=1e-3)
    assert found.se < 1e-6 and found.why_not == ""
    assert torch.equal(objective.model.backbone.net[1].weight, before)


def test_there_is_none_where_weights_still_move_or_examples_are_missing():
    objective, data, _ = linear()
    with torch.no_grad():
        objective.model.backbone.net[1].weight.fill_(5.0)
    with seeded(0):
        early = evidence_at_mode(objective, data, 20, num_steps=60, batch_size=20, rate=0.2)
        part = evidence_at_mode(objective, data, 21, **SETTINGS)
    assert "had not come to rest" in early.why_not
    assert "needs all 21 examples, of which the fit keeps 20" in part.why_not


def test_it_is_taken_before_the_last_stretch_of_a_fit(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 6, 6, generator=generator)
    data = Data(x, torch.arange(40) % 2, num_classes=2)
    seen = {}
    keep = VariationalObjective._keep

    def kept(self):
        seen["at the start"] = self.model.network.net[1].weight.detach().clone()
        keep(self)

    def reported(objective, *arguments):
        seen["mode"] = objective.mode.network.net[1].weight.detach().clone()
        seen["end"] = objective.model.network.net[1].weight.detach().clone()
        return ReportedEvidence(-3.0, 2.5, "its error is large")

    monkeypatch.setattr(VariationalObjective, "_keep", kept)
    monkeypatch.setattr(minibatch_fit, "evidence_at_mode", reported)
    model = InvarianceModel(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), "rotation", num_orbit_samples=4)
    training = bayesinv.Training(epochs=20, batch_size=20, extent_every=1)
    with pytest.warns(bayesinv.errors.NotConvergedWarning):
        posterior = bayesinv.fit(model, data, training=training)
    assert torch.equal(seen["mode"], seen["at the start"])
    assert not torch.equal(seen["mode"], seen["end"])
    assert posterior.log_evidence is None and posterior.log_evidence_se is None
    assert posterior.result.why_no_log_evidence == "its error is large"
    notes = bayesinv.compare({"it": posterior}, data, num_samples=4).notes
    assert any("'it' has no log evidence to compare: its error is large" in note for note in notes)


def test_errors_allow_comparisons():
    assert math.sqrt(2.0) * LARGEST_ERROR < 3.0  # what counts as strong
