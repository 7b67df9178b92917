"""The log density that optimisers and samplers see is that of the model's own Pyro program."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from gpytorch.kernels import RBFKernel, ScaleKernel
from gpytorch.priors import GammaPrior
from torch.distributions import biject_to

import bayesinv
from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.extents.priors import Outward, Truncated, UniformExtent
from bayesinv.inference.target import FURTHEST_HYPER, Target, start_extents
from bayesinv.model.hyperparameters import vector

KINDS = ["gaussian", "dirichlet", "softmax", "inducing", "own priors", "fixed", "outputs", "groups", "spike", "exact"]


def make(kind="gaussian", n=9):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    data = Data(x, y, groups=torch.arange(n) % 2 if kind == "groups" else None)
    backbone = bayesinv.GaussianProcess(num_features=16)
    options = {"likelihood": "gaussian"}
    if kind in ("dirichlet", "softmax"):
        data = Data(x, torch.arange(n) % 3, num_classes=3)
        options = {"evidence": kind}
    if kind == "inducing":
        backbone = bayesinv.GaussianProcess(num_inducing=4)
    if kind == "exact":
        backbone = bayesinv.GaussianProcess(num_inducing=None)
    if kind == "own priors":
        kernel = ScaleKernel(RBFKernel(lengthscale_prior=GammaPrior(2.0, 1.0)))
        backbone = bayesinv.GaussianProcess(kernel, num_features=16)
        options["priors"] = {"rotation": Truncated(dist.HalfNormal(1.0), high=math.pi)}
    if kind == "fixed":
        options["priors"] = {"rotation": 0.3}
    if kind == "outputs":
        options["outputs"] = ["a", "b"]
    if kind == "groups":
        options["groups"] = ["a", "b"]
    if kind == "spike":
        options["priors"] = {"rotation": bayesinv.SpikeAndSlab(UniformExtent(0.0, math.pi))}
    model = bayesinv.InvarianceModel(
        backbone, ["rotation", "translate_x"], num_orbit_samples=3, precision="double", **options
    )
    model.initialise(data)
    return model, data


def somewhere(target, seed=0, size=0.4):
    generator = torch.Generator().manual_seed(seed)
    return target.start(0.4) + size * torch.randn(target.size, generator=generator, dtype=torch.float64)


def program_log_density(model, data, eta, z):
    """log p of the model's own trace at extents, with |dη/dz| of every site."""
    values = {site: eta[where] for site, where in model.extents.sites.items()}
    trace = pyro.poutine.trace(pyro.poutine.condition(model, values)).get_trace(data)
    total = trace.log_prob_sum().detach()
    for i, name in enumerate(model.active):
        bijection = biject_to(model.extents.priors[name].support)
        total = total + bijection.log_abs_det_jacobian(z[i], bijection(z[i]))
    return float(total)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_density_of_the_models_own_trace(kind):
    model, data = make(kind)
    target = Target(model, data)
    assert target.num_extents == len(model.active)
    for seed in range(3):
        theta = somewhere(target, seed)
        value = target(theta)
        z = theta[: target.num_extents]
        expected = program_log_density(model, data, target.extents(z), z)
        # An expectation propagation that starts elsewhere ends elsewhere within its tolerance.
        assert value == pytest.approx(expected, abs=0.02 if kind == "softmax" else 1e-8)
    assert target.evaluations == 3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences(kind, monkeypatch):
    monkeypatch.setattr("bayesinv.evidence.softmax.TOLERANCE", 1e-7)
    monkeypatch.setattr("bayesinv.evidence.softmax.VALUE_TOLERANCE", 1e-7)
    model, data = make(kind)
    target = Target(model, data)
    theta = somewhere(target)
    value, gradient = target.with_gradient(theta)
    assert value == pytest.approx(target(theta), abs=1e-5)
    assert gradient.shape == theta.shape == (target.size,)
    step = 1e-5
    # Extents and hyperparameters one by one, inducing inputs along a direction.
    directions = list(torch.eye(target.size, dtype=torch.float64)[: target.num_extents + target.num_hyper])
    if target.inducing is not None:
        direction = torch.zeros(target.size, dtype=torch.float64)
        direction[target.num_extents + target.num_hyper :] = 0.1
        directions.append(direction)
    for direction in directions:
        difference = (target(theta + step * direction) - target(theta - step * direction)) / (2 * step)
        assert float(gradient @ direction) == pytest.approx(difference, abs=1e-3 * max(1.0, abs(difference)))
    assert float(gradient.abs().min()) > 0


def test_as_a_node_of_autograd_it_has_the_same_gradient():
    model, data = make()
    target = Target(model, data)
    theta = somewhere(target).requires_grad_()
    value = target.differentiable(theta)
    (gradient,) = torch.autograd.grad(2.0 * value, theta)
    expected = target.with_gradient(theta.detach())
    assert float(value.detach()) == pytest.approx(expected[0])
    torch.testing.assert_close(gradient, 2.0 * expected[1])


def test_hyperpriors_are_left_out_where_they_are_held():
    model, data = make("own priors")
    target = Target(model, data)
    theta = somewhere(target)
    assert target(theta) - target(theta, hyperpriors=False) == pytest.approx(float(model.log_hyperprior().detach()))
    assert abs(float(model.log_hyperprior().detach())) > 0.1


def test_the_model_follows_theta():
    model, data = make("inducing")
    target = Target(model, data)
    origin = model.backbone.inducing.detach().clone()
    theta = somewhere(target)
    target(theta)
    A, P = target.num_extents, target.num_hyper
    torch.testing.assert_close(vector(model.hyperparameters).detach(), theta[A : A + P])
    spread = (origin - origin.mean(0)).square().mean().sqrt()  # of the inputs about their mean, without an offset
    moved = origin + spread * theta[A + P :].reshape(origin.shape)
    torch.testing.assert_close(model.backbone.inducing.detach(), moved)


def test_inputs_of_any_unit_give_inducing_inputs_the_same_step():
    gradients = []
    for scale in (1.0, 1000.0):
        model, data = make("inducing")
        data = Data(scale * data.x, data.y)
        model = bayesinv.InvarianceModel.from_config(model.config())
        model.initialise(data)
        gradients.append(Target(model, data).with_gradient(Target(model, data).start(0.3))[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_z_and_extents_come_back():
    model, data = make("fixed")
    target = Target(model, data)
    assert target.num_extents == 1
    z = torch.tensor([[-1.0], [0.5]], dtype=torch.float64)
    eta = target.extents(z)
    torch.testing.assert_close(eta[:, 0], torch.full((2,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(target.to_z(eta), z)
    at_the_ends = torch.tensor([[0.3, 0.0], [0.3, model.coordinates[1].largest]], dtype=torch.float64)
    assert target.to_z(at_the_ends).flatten().tolist() == [-6.0, 6.0]
    grid = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(target.extents(grid)[:, 1].sum(), grid)
    torch.testing.assert_close(target.log_jacobian(grid), slope[:, 0].log())


def test_extents_can_be_held():
    model, data = make()
    held = torch.tensor([0.5, 0.1], dtype=torch.float64)
    target = Target(model, data, extents=held)
    assert (target.num_extents, target.size) == (0, 3)
    torch.testing.assert_close(target.extents(torch.zeros(0, dtype=torch.float64)), held)
    theta = target.start(0.5) + 0.2
    value, gradient = target.with_gradient(theta)
    # The extents' prior has no say.
    assert value == pytest.approx(float(model.log_evidence(held, data).detach() + model.log_hyperprior().detach()))
    step = torch.tensor([0.0, 1e-5, 0.0], dtype=torch.float64)
    difference = (target(theta + step) - target(theta - step)) / 2e-5
    assert float(gradient[1]) == pytest.approx(difference, rel=1e-4)


def test_the_box_stays_where_it_was():
    model, data = make("inducing")
    target = Target(model, data)
    centre = vector(model.hyperparameters).detach()
    expected = [(-6.0, 6.0)] * 2 + [(c - FURTHEST_HYPER, c + FURTHEST_HYPER) for c in centre.tolist()]
    assert target.bounds == expected + [(None, None)] * target.inducing.numel()
    target(somewhere(target, size=1.0))
    assert target.bounds[:5] == expected
    for i in range(4):
        for side in (0, 1):  # the corners can be computed, or say that they cannot
            theta = target.start(0.3)
            theta[i] = target.bounds[i][side]
            try:
                assert math.isfinite(target(theta))
            except NumericalError as error:
                assert "rotation" in str(error) or "k(Z, Z)" in str(error)


def test_starts_are_quantiles_of_the_priors():
    model, data = make("fixed")
    target = Target(model, data)
    theta = target.start(0.2)
    assert float(target.extents(theta[:1])[1]) == pytest.approx(0.2 * model.coordinates[1].largest, rel=1e-6)
    torch.testing.assert_close(theta[1:], vector(model.hyperparameters).detach())


def test_priors_that_push_outwards_start_like_flat_ones():
    generator = torch.Generator().manual_seed(0)
    data = Data(torch.rand(6, 1, 6, 6, generator=generator), torch.randn(6, 1, generator=generator))
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=8), "rotation", likelihood="gaussian", priors={"rotation": Outward(5.0)}
    )
    model.initialise(data)
    assert float(start_extents(model, 0.1)[0]) == pytest.approx(0.1 * math.pi)
    assert float(model.extents.prior_quantile(0.1)[0]) > 0.2 * math.pi


def test_what_cannot_be_computed_names_the_extents(monkeypatch):
    model, data = make()
    target = Target(model, data)
    monkeypatch.setattr(type(model), "log_evidence", lambda self, eta, data: eta.sum() * float("nan"))
    with pytest.raises(NumericalError, match=r"the log evidence is nan at extents rotation=.*, translate_x="):
        target(target.start(0.1))
    monkeypatch.setattr(type(model), "log_evidence", lambda self, eta, data: (eta - eta.detach()).sqrt().sum())
    with pytest.raises(NumericalError, match="the gradient of the log evidence is not finite"):
        target.with_gradient(target.start(0.1))
