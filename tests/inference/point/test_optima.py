"""OPTIMA: its bound against closed forms, what flat and outward priors do, and the draws that it reports."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

import bayesinv
from bayesinv import Outward
from bayesinv.inference.point import Optima
from tests.inference.point.plane import QUICK, Plane, plane_model, sectors


def objective_of(priors=None, **options):
    return Optima(**options).objective(plane_model(dtype=torch.float64, priors=priors), QUICK, 200, 0)


def test_the_divergence_of_the_weights_is_that_of_normals():
    objective = objective_of(weight_scale=1.5, initial_weight_spread=0.3)
    fan_in = {"0.weight": 2, "0.bias": 2, "2.weight": 16, "2.bias": 16}
    expected = 0.0
    for name, mean in objective.network.weights().items():
        prior = 1.5 / math.sqrt(fan_in[name])
        q = Normal(mean.detach(), torch.full_like(mean, 0.3 * prior))
        expected += float(kl_divergence(q, Normal(torch.zeros_like(mean), torch.full_like(mean, prior))).sum())
    assert float(objective.weight_divergence().detach()) == pytest.approx(expected, rel=1e-6)


def test_the_divergence_of_the_extents_is_that_of_normals_on_average():
    # Under flat priors q(z) is compared with N(0, 1); at weights that know nothing the fit is the same for every draw.
    objective = objective_of(weights="point", initial_spread=0.5)
    with torch.no_grad():
        for w in objective.network.weights().values():
            w.zero_()
        objective.normals.mean.copy_(torch.tensor([-0.4, 0.7]))
    data = sectors(8, dtype=torch.float64)
    torch.manual_seed(0)
    with torch.no_grad():
        values = torch.stack([objective.loss(data, 200) for _ in range(2000)])
    q = Normal(torch.tensor([-0.4, 0.7]), torch.tensor([0.5, 0.5]))
    expected = math.log(2) + float(kl_divergence(q, Normal(0.0, 1.0)).sum()) / 200
    error = float(values.std()) / 2000**0.5
    assert error < 1e-4
    assert float(values.mean()) == pytest.approx(expected, abs=4 * error)


def test_the_fit_is_the_likelihood_at_one_draw_of_weights_and_extents():
    objective = objective_of(num_copies=2, initial_weight_spread=0.5)
    data = sectors(12, dtype=torch.float64)
    torch.manual_seed(3)
    loss = float(objective.loss(data, 10**12).detach())  # the divergences are nothing then
    torch.manual_seed(3)
    eta = objective.space.extents(objective.normals()).detach()
    t = objective.model.orbit.random_coordinates(eta, (2, 12))
    theta = {name: w.detach() for name, w in objective.draw_weights().items()}
    assert all(not torch.equal(theta[name], w) for name, w in objective.network.weights().items())
    logs = [
        -nn.functional.cross_entropy(
            torch.func.functional_call(objective.network.net, theta, Plane()(data.x, row)), data.y
        )
        for row in t
    ]
    assert loss == pytest.approx(-float(torch.stack(logs).mean()), rel=1e-6)


def test_every_parameter_of_q_is_trained():
    objective = objective_of()
    objective.loss(sectors(20, dtype=torch.float64), 200).backward()
    (phase,) = objective.phases(QUICK, 10)
    assert len(phase.params) == 4 + 4 + 2  # weights, their spreads, mean and spread of the extents
    assert all(float(p.grad.abs().min()) > 0 for p in phase.params)
    (point,) = objective_of(weights="point").phases(QUICK, 10)
    assert len(point.params) == 4 + 2


def fitted(priors, **options):
    method = Optima(rate=0.05, **options)
    return bayesinv.fit(
        plane_model(priors=priors),
        sectors(),
        inference=method,
        max_steps=250,
        training=QUICK,
        num_draws=200,
        device="cpu",
    )


def test_flat_priors_shrink_extents_and_outward_ones_push_them_with_draws_of_q():
    flat = fitted({"shift": None}, weights="point")
    pushed = fitted({"turn": Outward(0.3), "shift": None}, weights="point")
    assert flat.result.extents.shape == (1, 200, 2)
    table = flat.summary()
    assert table.loc["turn", "lower"] < table.loc["turn", "median"] < table.loc["turn", "upper"]
    assert 1.2 * flat.quantile(0.5)[0] < pushed.quantile(0.5)[0]
    assert 0.7 < pushed.quantile(0.5)[0] < 2.0  # labels break past 0.97
    assert flat.model.average == "probabilities"
    q = flat.result.settings["method"]["q"]["turn"]
    draws = torch.special.ndtri(flat.result.draws[:, 0] / math.pi)  # z under a flat prior on [0, π]
    assert float(draws.mean()) == pytest.approx(q["mean"], abs=0.1 * q["spread"])
    assert float(draws.std()) == pytest.approx(q["spread"], rel=0.1)
    assert torch.allclose(flat.guide.sample(200), flat.result.draws)


def test_the_medians_begin_at_a_quantile_of_the_priors():
    z = [float(objective_of(start=start).normals.mean[0].detach()) for start in (0.1, 0.9)]
    assert z == pytest.approx([-1.2816, 1.2816], abs=1e-3)  # flat priors are normal in z


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"weights: expected one of \['mean_field', 'point'\], got 'laplace'"):
        Optima(weights="laplace")
    for options in (
        {"num_copies": 0},
        {"prediction_copies": 0},
        {"weight_scale": 0},
        {"initial_spread": -1},
        {"start": 0},
        {"start": 1.0},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            Optima(**options)
    with pytest.raises(ValueError, match="all of this model are fixed"):
        Optima().prepare(plane_model(priors={"turn": 0.1, "shift": None}))
