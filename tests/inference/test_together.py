"""Two stages, weights of their own at every extent and the determinant's estimate in one fit, on every likelihood."""

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import InvarianceModel, SecondStage, Training
from bayesinv.data.container import Data
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference import minibatch_fit
from bayesinv.inference.evidence_at_mode import ReportedEvidence
from bayesinv.inference.minibatch import VariationalObjective

QUICK = {"epochs": 6, "batch_size": 20, "extent_batch_size": 16, "extent_every": 1}


def net(outputs: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(32, outputs)
        )


def model(likelihood: str) -> InvarianceModel:
    evidence = LaplaceEvidence(likelihood, determinant="equivalent")
    return InvarianceModel(net(2), "rotation", likelihood, evidence=evidence, num_orbit_samples=2)


def data_of(likelihood: str) -> Data:
    x = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    if likelihood == "gaussian":
        return Data(x, 5.0 + 3.0 * x.flatten(1)[:, :2])
    return Data(x, (x.mean((1, 2, 3)) > 0.5).long(), 2)


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_all_in_one_fit_predict_and_are_saved(likelihood, tmp_path):
    data = data_of(likelihood)
    training = Training(**QUICK, own_weights=True, second_stage=SecondStage(0.5))
    posterior = bayesinv.fit(model(likelihood), data, training=training, num_draws=8)
    first, settings = posterior.model, posterior.result.settings
    assert first.predictive is not None and settings["second_stage"]["num_steps"] == 6
    assert settings["own_weights"]["points"] >= 5
    assert (posterior.result.surrogate is not None) == settings["own_weights"]["used"]
    assert not torch.equal(first.network.net[5].weight, first.predictive.network.net[5].weight)
    y = data.y if likelihood == "gaussian" else None
    posterior.save(tmp_path / "all.npz")
    again = bayesinv.load(tmp_path / "all.npz", model(likelihood))
    assert torch.equal(again.result.extents, posterior.result.extents)
    for kind in ("plugin", "linearised"):
        found, kept = (p.predict(data.x, num_samples=2, prediction=kind, y=y) for p in (posterior, again))
        assert torch.equal(found.variance, kept.variance)
        if likelihood == "gaussian":
            assert torch.equal(found.log_density, kept.log_density) and found.log_density.shape == (40,)
            assert abs(float(found.mean.mean()) - float(data.y.mean())) < 2.0  # in the unit of the targets


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
@pytest.mark.parametrize("stages", [None, SecondStage(0.4)])
def test_refits_and_the_reported_evidence_begin_at_the_weights_of_the_first_stage(stages, monkeypatch):
    seen = {}

    def end(name):
        def of(run):
            seen[name] = run.network.net[5].weight.detach().clone()

        return of

    def reported(objective, *arguments):
        end("evidence")(objective.mode)
        end("fitted")(objective.model)
        return ReportedEvidence(0.0, 1.0, "")

    def refits(found, *arguments):
        end("refits")(found)

    monkeypatch.setattr(minibatch_fit, "evidence_at_mode", reported)
    monkeypatch.setattr(minibatch_fit, "own_weights", refits)
    training = Training(**QUICK, own_weights=True, second_stage=stages)
    bayesinv.fit(model("categorical"), data_of("categorical"), training=training, num_draws=5)
    assert torch.equal(seen["refits"], seen["evidence"])
    assert torch.equal(seen["evidence"], seen["fitted"]) == (stages is not None)  # else the finish has moved these


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_a_run_that_ends_before_its_finish_is_at_its_mode(monkeypatch):
    found = []
    monkeypatch.setattr(
        minibatch_fit,
        "evidence_at_mode",
        lambda objective, *arguments: found.append(objective.mode is objective.model) or ReportedEvidence(0.0, 1.0, ""),
    )
    options = {"training": Training(**QUICK), "num_draws": 5}
    bayesinv.fit(model("categorical"), data_of("categorical"), callbacks=[lambda step: step.step == 5], **options)
    bayesinv.fit(model("categorical"), data_of("categorical"), **options)
    assert found == [True, False]


@pytest.mark.parametrize("name", ["own_weights", "second_stage"])
def test_methods_without_a_posterior_refuse_what_follows_one(name):
    training = Training(**QUICK, **{name: True if name == "own_weights" else SecondStage()})
    with pytest.raises(ValueError, match=f"Training: {name}: inference='augerino' has no posterior of extents"):
        bayesinv.fit(model("categorical"), data_of("categorical"), "augerino", training=training)


def test_the_plug_in_likelihood_keeps_no_second_copy():
    of = InvarianceModel(net(2), "rotation", evidence="plugin", num_orbit_samples=2)
    of.initialise(data_of("categorical"))
    objective = VariationalObjective(of, "full_rank", data_of("categorical"), 40)
    assert objective.mode is objective.model and len(objective.modules) == 2
