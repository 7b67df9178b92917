"""AugNet: the weighted sum it trains, the policy it predicts by, and what it reports."""

import math

import pytest
import torch

import bayesinv
from bayesinv.inference.point import AugNet
from tests.inference.point.plane import QUICK, Plane, plane_model, sectors


def objective_of(logits=None, magnitudes=None, priors=None, **options):
    objective = AugNet(**options).objective(plane_model(priors=priors), QUICK, 200, 0)
    with torch.no_grad():
        for parameter, values in ((objective.policy.logits, logits), (objective.policy.magnitudes, magnitudes)):
            if values is not None:
                parameter.copy_(torch.tensor(values, dtype=torch.float64))
    return objective


def test_a_low_temperature_picks_one_operation():
    cold = objective_of(logits=[[0.1, 0.0]]).policy.selection_weights
    warm = objective_of(logits=[[0.1, 0.0]], temperature=1.0).policy.selection_weights
    assert float(cold[0, 0].detach()) == pytest.approx(1 / (1 + math.exp(-10)))
    assert float(warm[0, 0].detach()) == pytest.approx(1 / (1 + math.exp(-0.1)))


def test_training_sees_the_weighted_sum_of_single_operations():
    objective = objective_of(logits=[[0.01, 0.0]], magnitudes=[[0.3, 0.6]], scales={"turn": 1.0})
    x = sectors(7).x
    torch.manual_seed(2)
    got = objective.training_points(x)
    torch.manual_seed(2)
    u = 2 * torch.rand(2, 7, dtype=torch.float64) - 1
    zero = torch.zeros(7, dtype=torch.float64)
    turned = Plane()(x, torch.stack([0.3 * u[0], zero], 1))
    shifted = Plane()(x, torch.stack([zero, 0.6 * 2.0 * u[1]], 1))  # the largest shift is the scale
    weight = 1 / (1 + math.exp(-1))
    assert torch.allclose(got[0], weight * turned + (1 - weight) * shifted, atol=1e-6)


def test_the_loss_rewards_magnitudes_that_are_selected():
    objective = objective_of(logits=[[0.01, 0.0], [0.0, 0.0]], magnitudes=[[0.3, 0.6], [0.1, 0.2]], num_layers=2)
    w = 1 / (1 + math.exp(-1))
    norm = math.sqrt((w * 0.3) ** 2 + ((1 - w) * 0.6) ** 2 + (0.5 * 0.1) ** 2 + (0.5 * 0.2) ** 2)
    assert float(objective.reward().detach()) == pytest.approx(0.5 * norm)
    objective.loss(sectors(20), 200).backward()
    for parameter in (objective.policy.logits, objective.policy.magnitudes):
        assert float(parameter.grad.abs().min()) > 0


def test_weight_decay_is_that_of_adam_which_enters_the_gradient():
    data, options = sectors(20), {"logits": [[0.01, 0.0]], "magnitudes": [[0.3, 0.6]]}
    gradients = []
    for decay in (0.0, 0.7):
        objective = objective_of(weight_decay=decay, **options)
        trained = [objective.policy.logits, objective.policy.magnitudes, *objective.network.weights().values()]
        torch.manual_seed(1)
        objective.loss(data, 200).backward()
        gradients.append([p.grad for p in trained])
    for p, without, decayed in zip(trained, *gradients, strict=True):
        assert torch.allclose(decayed, without + 0.7 * p.detach(), rtol=1e-5, atol=1e-6)


def test_scales_of_image_warps_are_the_published_ones():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    model = bayesinv.InvarianceModel(net, "affine2d", evidence="plugin")
    scales = AugNet(scales={"shear": 0.5}).prepare(model).orbit.config()["scales"]
    largest = {"rotation": math.pi, "scale_x": math.log(2), "scale_y": math.log(2)}
    assert scales == pytest.approx({"translate_x": 0.9, "translate_y": 0.9, "shear": 0.5} | largest)


def test_magnitudes_past_their_range_come_back_and_keep_a_gradient():
    objective = objective_of(magnitudes=[[1.7, -0.4]])
    objective.loss(sectors(20), 200).backward()
    assert objective.policy.magnitudes.tolist() == [[1.0, 0.0]]
    assert float(objective.policy.magnitudes.grad.abs().min()) > 0


def test_all_magnitudes_at_zero_have_a_finite_gradient():
    objective = objective_of(magnitudes=[[0.0, 0.0]])
    objective.loss(sectors(20), 200).backward()
    assert bool(torch.isfinite(objective.policy.magnitudes.grad).all())


def test_prediction_draws_operations_by_their_weights():
    objective = objective_of(logits=[[0.01, 0.0]], magnitudes=[[0.5, 0.5]], prediction_copies=1024)
    t = objective.policy.layer_coordinates()[0].detach()  # (S, K)
    turns, shifts = t[:, 0] != 0, t[:, 1] != 0
    assert not bool((turns & shifts).any()) and bool((turns | shifts).all())
    assert float(turns.double().mean()) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.01)
    far = t[turns, 0] / (0.5 * math.pi)
    assert float(far.abs().max()) <= 1.0
    assert float(far.square().mean()) == pytest.approx(1 / 3, abs=0.03)  # uniform within ±


def test_layers_follow_one_another():
    objective = objective_of(
        logits=[[1.0, 0.0], [0.0, 1.0]], magnitudes=[[0.5, 0.1], [0.1, 0.25]], num_layers=2, prediction_copies=3
    )
    policy, x = objective.policy, sectors(5).x
    turn, shift = policy.layer_coordinates().detach()
    assert bool((turn[:, 0] != 0).all()) and bool((turn[:, 1] == 0).all()) and bool((shift[:, 0] == 0).all())
    points = policy(x, policy.extents())
    for s in range(3):
        by_hand = Plane()(Plane()(x, turn[s].expand(5, 2)), shift[s].expand(5, 2))
        assert torch.allclose(points[s], by_hand, atol=1e-6)
    assert torch.allclose(policy.coordinates(policy.extents()).detach(), turn + shift)


def test_extents_are_half_widths_where_they_are_selected():
    def extents(logits, magnitudes, layers=1):
        return objective_of(logits, magnitudes, num_layers=layers, scales={"turn": 2.0}).extents().tolist()

    assert extents([[0.0, 0.0]], [[0.25, 0.5]]) == [0.5, 1.0]
    assert extents([[0.1, 0.0]], [[0.25, 0.5]]) == [0.5, 0.0]  # the other's weight is below a quarter
    # Each from the layer that selects it most.
    assert extents([[0.1, 0.0], [0.0, 0.1]], [[0.25, 0.9], [0.9, 0.5]], 2) == [0.5, 1.0]


def test_fixed_extents_move_inputs_in_training_and_prediction():
    objective = objective_of(magnitudes=[[0.0]], priors={"shift": 0.5})
    x = sectors(50).x
    assert objective.policy.operations == ("turn",)
    assert objective.extents().tolist() == [0.0, 0.5]
    moved = (objective.training_points(x)[0] - x).detach()
    assert 0.4 < float(moved[:, 0].abs().max()) <= 0.5 + 1e-6
    assert float(moved[:, 1].abs().max()) < 1e-6
    points = objective.policy(x, objective.extents())
    expected = x[:, 0] + 0.5 * objective.policy.base[:, 2:][:, 1:].float()
    assert torch.allclose(points[..., 0], expected, atol=1e-6)


def test_other_extents_than_its_own_are_refused():
    policy = objective_of().policy
    with pytest.raises(ValueError, match=r"policy that it has learned.*inference=Fixed"):
        policy(sectors(3).x, torch.tensor([0.1, 0.1], dtype=torch.float64))


def test_it_selects_the_operation_that_keeps_labels_and_predicts_by_the_mean_over_copies():
    method = AugNet(rate=5e-3, scales={"shift": 8.0}, prediction_copies=5, regularisation=0.3)
    posterior = bayesinv.fit(plane_model(), sectors(), inference=method, max_steps=300, training=QUICK, device="cpu")
    facts = posterior.result.settings["method"]
    assert facts["selection_weights"][0]["turn"] > 0.95
    turn, shift = posterior.result.draws[0].tolist()
    assert shift == 0.0 and turn == facts["half_widths"][0]["turn"] == pytest.approx(
        facts["magnitudes"][0]["turn"] * math.pi
    )
    assert 0.5 < turn < 1.6  # labels break past 0.97
    x, model = sectors(30, seed=1).x, posterior.model
    t = model.orbit.layer_coordinates()[0]
    logs = torch.stack([model.backbone(Plane()(x, row.expand(30, 2))).log_softmax(-1) for row in t]).detach()
    assert float(logs.std(0).max()) > 0.01
    assert torch.allclose(posterior.predict(x).probs, logs.mean(0).softmax(-1).double(), atol=1e-5)
    assert posterior.result.settings["prediction_copies"] == 5


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"scales: \['bend'\] are not latent"):
        AugNet(scales={"bend": 1.0}).prepare(plane_model())
    with pytest.raises(ValueError, match="all of this model are fixed"):
        AugNet().prepare(plane_model(priors={"turn": None, "shift": None}))
    for options in (
        {"num_layers": 0},
        {"temperature": 0.0},
        {"initial_magnitude": 1.5},
        {"scales": {"turn": -1.0}},
        {"weight_decay": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            AugNet(**options)


def test_auxiliary_columns_are_drawn_in_training_and_fixed_in_predictions():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    model = bayesinv.InvarianceModel(net, ["rotation", bayesinv.transforms.GaussianNoise()])
    orbit = AugNet(prediction_copies=4).prepare(model).orbit
    state = torch.random.get_rng_state()
    first, second = orbit.layer_coordinates(), orbit.layer_coordinates()
    assert torch.equal(state, torch.random.get_rng_state())  # predicting draws nothing
    assert torch.equal(first, second)
    assert torch.equal(first[0, :, 2:], orbit.base[:, -4:])
    fresh = orbit.fresh_base()
    assert fresh.shape == orbit.base.shape and bool((fresh != orbit.base).all())
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        orbit.logits[:, 1] = 1.0  # noise alone
    assert not torch.equal(orbit.mixed(x), orbit.mixed(x))
