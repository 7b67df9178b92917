"""Extents for every output of a network: what it averages, its evidence, and what is refused."""

import math
import warnings

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv.backbones.invariant_network import InvariantNetwork
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference import Fixed, Training
from bayesinv.orbits.structure import PerOutputOrbit
from bayesinv.transforms import Affine2d, Flip

OUTPUTS = ("a", "b", "c")
LIKELIHOODS = ("categorical", "gaussian")


def small_net(outputs: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, outputs))
        return nn.Sequential(*layers).double()


def make(likelihood: str = "categorical", outputs=OUTPUTS, evidence=None, **options) -> bayesinv.InvarianceModel:
    settings = {"num_orbit_samples": 4, "transforms": Affine2d(["rotation", "scale_x"]), **options}
    evidence = LaplaceEvidence(likelihood, num_outputs=None) if evidence is None else evidence
    return bayesinv.InvarianceModel(
        settings.pop("backbone", small_net()), likelihood=likelihood, evidence=evidence, outputs=outputs, **settings
    )


def images(likelihood: str = "categorical", n: int = 9) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    if likelihood == "gaussian":
        return Data(x, torch.randn(n, 3, generator=generator, dtype=torch.float64))
    return Data(x, torch.arange(n) % 3, num_classes=3)


ETA = torch.tensor([0.3, 0.1, 1.5, 0.2, 0.0, 0.4], dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_equal_extents_are_the_model_without_structure(likelihood):
    data, eta = images(likelihood), torch.tensor([0.6, 0.2], dtype=torch.float64)
    each, shared = make(likelihood), make(likelihood, outputs=None)
    for model in (each, shared):
        model.initialise(data, seed=0)
    assert float(each.log_evidence(eta.repeat(3), data)) == pytest.approx(float(shared.log_evidence(eta, data)))
    f = each.function_posterior(data.x, data, eta.repeat(3))[0]
    torch.testing.assert_close(f, shared.function_posterior(data.x, data, eta)[0])


@torch.no_grad()
def test_output_c_is_the_average_over_copies_drawn_within_its_own_extents():
    data, model = images(), make(transforms=["rotation", Flip()])
    model.initialise(data, seed=0)
    eta = torch.tensor([0.3, 0.1, 1.5, 0.5, 0.0, 0.8], dtype=torch.float64)
    f = model.function_posterior(data.x, data, eta)[0]
    for c, own in enumerate(eta.unflatten(0, (3, 2))):
        copies, weights = model.orbit(data.x, own), model.orbit.weights(own)
        h = torch.stack([model.network(copy) for copy in copies])
        torch.testing.assert_close(f[:, c], torch.tensordot(weights, h[..., c], 1))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("num_outputs", [None, 1])
def test_gradients_are_those_of_finite_differences(likelihood, num_outputs):
    data, model = images(likelihood), make(likelihood, evidence=LaplaceEvidence(likelihood, num_outputs=num_outputs))
    model.initialise(data, seed=0)

    def value(eta):
        torch.manual_seed(3)  # of the output that is drawn
        return model.log_evidence(eta, data)

    eta = ETA + 0.1
    (gradient,) = torch.autograd.grad(value(eta.requires_grad_()), eta)
    for k in range(6):
        step = 1e-6 * torch.eye(6, dtype=torch.float64)[k]
        with torch.no_grad():
            slope = (value(eta + step) - value(eta - step)) / 2e-6
        assert float(gradient[k]) == pytest.approx(float(slope), rel=1e-4, abs=1e-5)
    assert (gradient != 0).all()


def test_kernels_of_drawn_outputs_are_the_diagonal_blocks_of_the_joint_one():
    """Real targets, where only the copies of the drawn outputs are differentiated."""
    data, joint = images("gaussian"), make("gaussian")
    joint.initialise(data, seed=0)
    prior, weights = joint.at(ETA), {name: w.detach() for name, w in joint.network.weights().items()}
    f, K = joint.evidence._kernel(prior, weights, data)
    drawn = LaplaceEvidence("gaussian", num_outputs=3)
    drawn.load_state_dict(joint.evidence.state_dict())
    torch.manual_seed(0)
    f_again, kernels = drawn._kernel(prior, weights, data)
    torch.manual_seed(0)
    blocks = K[0].unflatten(0, (3, 9)).unflatten(-1, (3, 9))
    torch.testing.assert_close(f_again, f)
    torch.testing.assert_close(kernels, torch.stack([blocks[c, :, c] for c in torch.randperm(3).tolist()]))


def test_a_step_beyond_the_memory_budget_goes_block_by_block_with_the_same_gradients():
    data, gradients = images(), []
    for budget in (2**30, 2**12):
        model = make(evidence="plugin", memory_budget=budget)
        model.initialise(data, seed=0)
        eta = ETA.clone().requires_grad_()
        model.log_evidence(eta, data).backward()
        gradients.append([eta.grad, *(w.grad for w in model.network.weights().values())])
    torch.testing.assert_close(gradients[0], gradients[1])
    peak = []
    network = model.network.net[0]
    network.register_forward_hook(lambda *args: peak.append(len(args[2])))
    model.log_evidence(ETA, data).backward()
    within = model.network.points_within(2**12, data.x)
    assert max(peak) == within < 9 * 4 * 3 and sum(peak) == 2 * 9 * 4 * 3  # all copies, each twice


@pytest.mark.parametrize("evidence", ["laplace", "plugin"])
def test_fits_predict_and_come_back_from_files(tmp_path, evidence):
    outward = {"rotation": bayesinv.Outward(1.0)} if evidence == "plugin" else None
    model = make(evidence=evidence, transforms="rotation", priors=outward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few steps are no fit
        posterior = bayesinv.fit(model, images(n=30), max_steps=20, training=Training(batch_size=10), num_draws=6)
    assert list(posterior.symmetries) == ["rotation[a]", "rotation[b]", "rotation[c]"]
    assert posterior.result.settings["training_copies"] == 3 * 4
    x = images().x[:4]
    probs = posterior.predict(x).probs
    torch.testing.assert_close(probs.sum(-1), torch.ones(4, dtype=probs.dtype))
    model.extents.resolve(30)  # an outward prior knows n from the data
    again = bayesinv.load(posterior.save(tmp_path / "fit.npz"), model=model)
    torch.testing.assert_close(again.predict(x).probs, probs)


@pytest.mark.parametrize("method", ["none", Fixed({"rotation": 0.4, "rotation[b]": 0.0})])
def test_hand_fixed_extents(method):
    model = make(transforms="rotation")
    posterior = bayesinv.fit(model, images(n=30), method, max_steps=3, training=Training(batch_size=10))
    eta = torch.zeros(3) if method == "none" else torch.tensor([0.4, 0.0, 0.4])
    torch.testing.assert_close(posterior.sample(1)[0], eta.double())
    assert posterior.predict(images().x).probs.shape == (9, 3)


def test_the_orbit_of_every_output_knows_its_parts():
    model = make()
    orbit, prior = model.network_orbit, model.at(ETA)
    assert isinstance(orbit, PerOutputOrbit) and orbit.num_copies == 12
    torch.testing.assert_close(prior.of_output(1).points(images().x), prior.points(images().x)[4:8])
    with pytest.raises(TypeError, match="share one orbit"):
        InvariantNetwork(model.network, model.orbit, ETA[:2]).of_output(0)


def test_what_does_not_work_is_refused():
    with pytest.raises(ValueError, match="do not sum to one"):
        make(average="probabilities")
    with pytest.raises(ValueError, match="Bernoulli"):
        make("bernoulli", evidence="laplace")
    with pytest.raises(ValueError, match="output_action"):
        make(output_action="image")
    with pytest.raises(DataError, match="make its last layer 3 wide"):
        make(backbone=small_net(4)).initialise(images())
    maps = make(backbone=nn.Conv2d(1, 3, 1).double())
    with pytest.raises(DataError, match="leave outputs out for maps"):
        maps.initialise(Data(images().x, torch.arange(9 * 64).reshape(9, 8, 8) % 3, num_classes=3))
    for method in ("augerino", "augnet", "policy"):
        with pytest.raises(ValueError, match=r"one of \['fixed', 'none'\]"):
            bayesinv.fit(make(), images(), method)
    with pytest.raises(ValueError, match="leave num_copies out"):
        Fixed({"rotation": 0.4}, num_copies=2).prepare(make())


@pytest.mark.slow
def test_what_turns_and_what_tells_the_turn_are_told_apart():
    """Digits at any angle a: one output says 4 or 7, the other is sin 3a, whose average over ±60° is zero."""
    split = bayesinv.datasets.digits(num_train=900, seed=0).train
    chosen = (split.y == 4) | (split.y == 7)
    x, y = split.x[chosen], split.y[chosen]
    angle = math.pi * (2 * torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1)
    turned = Affine2d(["rotation"])(x, angle.to(x))
    targets = torch.cat([(y[:, None] - 5.5) / 1.5, math.sqrt(2) * (3 * angle).sin()], 1).to(torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = (nn.Conv2d(1, 8, 5, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(288, 32), nn.Tanh())
        net = nn.Sequential(*features, nn.Linear(32, 2))
    model = bayesinv.InvarianceModel(
        net, "rotation", likelihood="gaussian", outputs=["digit", "angle"], num_orbit_samples=8
    )
    posterior = bayesinv.fit(model, (turned, targets), max_steps=400, training=Training(batch_size=30), seed=0)
    table = posterior.summary()
    assert table.loc["rotation[digit]", "lower"] > table.loc["rotation[angle]", "upper"]
    assert table.loc["rotation[digit]", "median"] > 60 > table.loc["rotation[angle]", "median"]
