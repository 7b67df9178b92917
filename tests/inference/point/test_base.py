"""What all point methods share: names, the loss, optimiser groups, refusals, and seeds."""

import json
import math

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, Training
from bayesinv.inference.point import (
    POINT_METHODS,
    Augerino,
    AugNet,
    Fixed,
    Lila,
    NoInvariance,
    Optima,
    PointMethod,
    Policy,
    as_point_method,
    plug_in_copy,
)
from tests.inference.point.plane import QUICK, Plane, heights, network, plane_model, sectors

PLUG_IN = [Augerino(), AugNet(num_layers=2), Fixed({"turn": 0.4}), NoInvariance(), Optima(), Policy()]
METHODS = [*PLUG_IN, Lila()]


def objective_of(method: PointMethod, training: Training = QUICK, **options):
    return method.objective(plane_model(**options), training, num_total=200, seed=0)


def test_every_name_gives_a_method_and_objects_pass():
    kinds = {name: type(as_point_method(name)) for name in POINT_METHODS}
    assert kinds["augerino"] is Augerino and kinds["augnet"] is AugNet and kinds["none"] is NoInvariance
    assert kinds["fixed"] is Fixed and kinds["policy"] is kinds["autoaugment"] is Policy
    assert {name: as_point_method(name).name for name in POINT_METHODS if name != "policy"} == {
        name: name for name in POINT_METHODS if name != "policy"
    }
    assert as_point_method(METHODS[0]) is METHODS[0]


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown point method 'augerina'; known are \['augerino'"):
        as_point_method("augerina")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_gaussian_process_is_refused_with_a_cure(method):
    model = InvarianceModel(GaussianProcess(num_inducing=4), Plane())
    cure = r"priors=\{name: number\}" if method.name in ("fixed", "none") else "NeuralNetwork"
    with pytest.raises(ValueError, match=f'inference="{method.name}" trains the weights of a network.*{cure}'):
        method.prepare(model)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_facts_are_json_and_name_the_method(method):
    objective = objective_of(method)
    facts = json.loads(json.dumps(objective.facts()))
    assert facts["name"] == method.name
    assert objective.extents().shape == (2,) and objective.extents().dtype == torch.float64
    assert objective.current_extents() == dict(zip(("turn", "shift"), objective.extents().tolist(), strict=True))
    assert "turn" in objective.describe(objective.current_extents()) or not objective.model.active


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_callers_model_stays_as_it_is_and_preparing_twice_changes_nothing(method):
    model = plane_model(evidence="laplace")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    once = method.prepare(model)
    assert once.evidence_name == ("laplace" if method.name == "lila" else "plugin")
    assert model.evidence_name == "laplace"
    assert once.config() == method.prepare(once).config()
    assert model.average == "function" and model.orbit.num_samples == 6
    with torch.no_grad():
        next(once.parameters()).zero_()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_loss_is_the_mean_over_copies_of_the_cross_entropy():
    objective = objective_of(NoInvariance(num_copies=3))
    data = sectors(10)
    plain = nn.functional.cross_entropy(network()(data.x), data.y)
    assert float(objective.loss(data, 200).detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    objective.training_points = lambda x: torch.stack([x, -x])  # copies that differ
    swapped = nn.functional.cross_entropy(network()(-data.x), data.y)
    expected = float(0.5 * (plain + swapped).detach())
    assert float(objective.loss(data, 200).detach()) == pytest.approx(expected, rel=1e-6)


def test_regression_has_the_learned_noise_in_its_loss():
    objective = objective_of(NoInvariance(), outputs=1, likelihood="gaussian")
    data = heights(10)
    with torch.no_grad():
        objective.model.evidence.log_noise.fill_(math.log(0.25))
    residual = (network(1)(data.x) - data.y).detach().double()
    expected = float((0.5 * residual.square() / 0.25 + 0.5 * math.log(2 * math.pi * 0.25)).mean())
    loss = objective.loss(data, 200)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    (phase,) = objective.phases(Training(hyper_rate=0.7), 10)
    (group,) = [group for group in phase.groups if group["lr"] == 0.7]
    assert group["params"] == [objective.model.evidence.log_noise]


def test_noise_that_was_initialised_is_kept_when_the_evidence_is_replaced():
    model = plane_model(outputs=1, likelihood="gaussian", evidence="laplace")
    model.initialise(heights())
    prepared = Augerino().prepare(model)
    assert float(prepared.evidence.log_noise.detach()) == float(model.evidence.log_noise.detach()) != 0.0


@pytest.mark.parametrize("method", [Augerino(rate=0.3), AugNet(rate=0.3)], ids=lambda method: method.name)
def test_weights_alone_decay_and_what_is_learned_has_its_own_rate(method):
    objective = objective_of(method)
    (phase,) = objective.phases(Training(weight_decay=0.1, weight_rate=0.01), 100)
    assert phase.traced and phase.clip and phase.batch_size == 100
    weights, own = phase.groups
    assert (weights["weight_decay"], weights["lr"]) == (0.1, 0.01)
    assert (own["weight_decay"], own["lr"]) == (0.0, 0.3)
    assert len(weights["params"]) == 4
    assert not {id(p) for p in weights["params"]} & {id(p) for p in own["params"]}


def test_a_late_start_leaves_the_weights_alone_at_first():
    objective = objective_of(Augerino())
    first, second = objective.phases(Training(extent_start=0.3), 100)
    assert (first.stop, second.start, second.traced, first.traced) == (30, 30, True, False)
    assert [len(phase.groups) for phase in (first, second)] == [1, 2]
    assert len(objective_of(NoInvariance()).phases(Training(extent_start=0.3), 100)) == 1


def test_a_model_that_was_not_prepared_is_refused():
    from bayesinv.inference.point.augnet import AugNetObjective

    with pytest.raises(TypeError, match=r"AugNet\.prepare"):
        AugNetObjective(AugNet(), plane_model())


def test_layers_that_the_laplace_evidence_refuses_are_trained():
    net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))
    model = plug_in_copy(InvarianceModel(net, Plane()), "none")
    model.initialise(sectors(20))
    loss = NoInvariance().objective(model, QUICK, 20, 0).loss(sectors(20), 20)
    assert math.isfinite(float(loss.detach()))


@pytest.mark.parametrize("method", [m for m in METHODS if m.name != "randaugment"], ids=lambda method: method.name)
def test_the_same_seed_gives_the_same_fit_and_the_global_generator_is_left_alone(method):
    data = sectors(40)
    before = torch.random.get_rng_state()
    fits = [
        bayesinv.fit(plane_model(), data, inference=method, seed=seed, max_steps=6, training=QUICK, device="cpu")
        for seed in (0, 0, 1)
    ]
    first, same, other = [fit.predict(data.x).probs for fit in fits]
    assert torch.equal(first, same) and fits[0].trace == fits[1].trace
    assert not torch.equal(first, other)
    assert torch.equal(first, fits[0].predict(data.x).probs)
    assert torch.equal(before, torch.random.get_rng_state())
    assert fits[0].result.settings["method"]["name"] == method.name


@pytest.mark.parametrize(
    "method",
    [AugNet(num_layers=2, rate=0.05), Augerino(), Lila(num_copies=3), Optima()],
    ids=lambda method: method.name,
)
def test_a_saved_fit_is_loaded_into_the_prepared_model(method, tmp_path):
    data = sectors(40)
    posterior = bayesinv.fit(plane_model(), data, inference=method, max_steps=6, training=QUICK, device="cpu")
    posterior.save(tmp_path / "fit.npz")
    loaded = bayesinv.load(tmp_path / "fit.npz", model=method.prepare(plane_model()))
    assert torch.equal(loaded.predict(data.x).probs, posterior.predict(data.x).probs)
    assert torch.equal(loaded.result.extents, posterior.result.extents)
    table = bayesinv.compare({method.name: posterior, "loaded": loaded}, data=data).extents
    assert table.loc[(method.name, "turn"), "point"] == (method.name != "optima")
