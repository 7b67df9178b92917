"""Hyperparameters as latent coordinates: the maps, the weak priors, priors of the user's own, units."""

import math

import pytest
import torch
from gpytorch.constraints import GreaterThan, Interval, LessThan, Positive
from gpytorch.kernels import ConstantKernel, Kernel, PeriodicKernel, RBFKernel, RQKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.priors import GammaPrior, NormalPrior

import bayesinv
from bayesinv.data.container import Data
from bayesinv.model.hyperparameters import AMPLITUDE_SD, SCALE_SD, assign, at, hyperparameters_of, log_prior, vector

KERNELS = {
    "softplus": lambda: ScaleKernel(RBFKernel()),
    "exponential": lambda: RBFKernel(lengthscale_constraint=Positive(transform=torch.exp, inv_transform=torch.log)),
    "bounded below": lambda: RBFKernel(lengthscale_constraint=GreaterThan(0.3)),
    "interval": lambda: RBFKernel(lengthscale_constraint=Interval(0.1, 4.0)),
    "bounded above": lambda: RBFKernel(lengthscale_constraint=LessThan(4.0)),
    "several numbers": lambda: ScaleKernel(RBFKernel(ard_num_dims=3)),
    "sum": lambda: ScaleKernel(RQKernel()) + ConstantKernel(),
}


def of(module):
    return hyperparameters_of([("kernel", module)])


@pytest.mark.parametrize("name", KERNELS)
def test_coordinates_come_back(name):
    kernel = KERNELS[name]().double()
    hyper = of(kernel)
    u = vector(hyper).detach()
    assert len(u) == sum(p.numel() for p in kernel.parameters())
    moved = u + torch.linspace(-1.0, 1.3, len(u), dtype=torch.float64)
    assign(hyper, moved)
    torch.testing.assert_close(vector(hyper).detach(), moved)
    with at(hyper, u):
        torch.testing.assert_close(vector(hyper).detach(), u)
    torch.testing.assert_close(vector(hyper).detach(), moved)
    with at(hyper, None):
        torch.testing.assert_close(vector(hyper).detach(), moved)
    with pytest.raises(ZeroDivisionError), at(hyper, u):
        raise ZeroDivisionError
    torch.testing.assert_close(vector(hyper).detach(), moved)


def test_u_is_the_logarithm_of_what_is_above_the_bound():
    kernel = RBFKernel(lengthscale_constraint=GreaterThan(0.3)).double()
    kernel.lengthscale = 2.3
    (h,) = of(kernel)
    assert h.is_logarithmic
    assert float(h.u().detach()) == pytest.approx(math.log(2.0))
    h.set(torch.tensor([math.log(0.5)], dtype=torch.float64))
    assert float(kernel.lengthscale.detach()) == pytest.approx(0.8)


@pytest.mark.parametrize("constraint", [Interval(0.1, 4.0), LessThan(4.0)])
def test_with_an_upper_bound_u_is_the_raw_value(constraint):
    kernel = RBFKernel(lengthscale_constraint=constraint).double()
    (h,) = of(kernel)
    assert not h.is_logarithmic
    torch.testing.assert_close(h.u(), kernel.raw_lengthscale.reshape(-1))


@pytest.mark.parametrize("name", KERNELS)
def test_u_is_differentiable_in_the_parameters(name):
    for h in of(KERNELS[name]().double()):
        (slope,) = torch.autograd.grad(h.u().sum(), h.parameter)
        raw = h.parameter.detach().clone()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                h.parameter.copy_(raw + sign * 1e-6)
                values.append(h.u().reshape(raw.shape).clone())
        torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-6, atol=1e-6, rtol=1e-6)


def test_names_order_and_what_is_held():
    kernel = ScaleKernel(RBFKernel()) + ConstantKernel()
    kernel.kernels[0].base_kernel.raw_lengthscale.requires_grad_(False)
    hyper = hyperparameters_of([("kernel", kernel.double()), ("likelihood", GaussianLikelihood().double())])
    assert [h.name for h in hyper] == [
        "kernel.kernels.0.outputscale",
        "kernel.kernels.1.constant",
        "likelihood.noise_covar.noise",
    ]
    assert [h.sd for h in hyper] == [AMPLITUDE_SD] * 3
    assert [h.sd for h in of(RQKernel())] == [SCALE_SD] * 2
    assert len(vector([])) == 0


def test_weak_priors_are_normal_around_the_centre():
    kernel = ScaleKernel(RBFKernel()).double()
    hyper = of(kernel)
    centre = vector(hyper).detach() + torch.tensor([0.4, -0.7], dtype=torch.float64)
    u = vector(hyper).detach()
    expected = torch.distributions.Normal(centre, torch.tensor([AMPLITUDE_SD, SCALE_SD])).log_prob(u).sum()
    torch.testing.assert_close(log_prior(hyper, centre).detach(), expected)
    (gradient,) = torch.autograd.grad(log_prior(hyper, centre), kernel.base_kernel.raw_lengthscale)
    (slope,) = torch.autograd.grad(hyper[1].u().sum(), kernel.base_kernel.raw_lengthscale)
    torch.testing.assert_close(gradient, slope * (centre[1] - u[1]) / SCALE_SD**2)


OWN = {
    "positive": (lambda: RBFKernel(lengthscale_prior=GammaPrior(2.0, 1.5)), None),
    "bounded below": (
        lambda: RBFKernel(lengthscale_prior=GammaPrior(2.0, 1.5), lengthscale_constraint=GreaterThan(0.2)),
        0.2,
    ),
    "interval": (
        lambda: RBFKernel(lengthscale_prior=GammaPrior(2.0, 1.5), lengthscale_constraint=Interval(0.2, 3.0)),
        0.2,
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_a_prior_of_the_users_own_is_a_density_in_u(name):
    """p(u) = p(θ(u)) |dθ/du| integrates to the mass that p(θ) has above the bound."""
    make, low = OWN[name]
    kernel = make().double()
    hyper = of(kernel)
    assert hyper[0].has_own_prior
    grid = torch.linspace(-14.0, 14.0, 4001, dtype=torch.float64)
    prior = kernel.lengthscale_prior
    log_p = []
    with torch.no_grad():
        for u in grid:
            hyper[0].set(u[None])
            log_p.append(prior.log_prob(kernel.lengthscale).sum() + log_prior(hyper, torch.zeros(1).double()))
    mass = float(torch.trapezoid(torch.stack(log_p).exp(), grid))
    theta = torch.linspace(low or 1e-9, 3.0 if name == "interval" else 60.0, 200_001, dtype=torch.float64)
    expected = float(torch.trapezoid(GammaPrior(2.0, 1.5).log_prob(theta).exp(), theta))
    assert mass == pytest.approx(expected, abs=1e-4)


def test_own_priors_on_other_parameters_leave_the_weak_one():
    kernel = ScaleKernel(RBFKernel(lengthscale_prior=GammaPrior(2.0, 1.5)), outputscale_prior=None).double()
    assert [(h.name, h.has_own_prior) for h in of(kernel)] == [
        ("kernel.outputscale", False),
        ("kernel.base_kernel.lengthscale", True),
    ]
    periodic = PeriodicKernel(period_length_prior=NormalPrior(1.0, 0.1))
    assert {h.name: h.has_own_prior for h in of(periodic)} == {
        "kernel.lengthscale": False,
        "kernel.period_length": True,
    }
    # GPyTorch takes any name for a prior of any value of the module's.
    named = RBFKernel()
    named.register_prior("smoothness", GammaPrior(2.0, 1.5), lambda m: m.raw_lengthscale)
    assert [h.has_own_prior for h in of(named)] == [True]
    derived = RBFKernel()
    derived.register_prior("smoothness", GammaPrior(2.0, 1.5), lambda m: m.lengthscale.square())
    assert [h.has_own_prior for h in of(derived)] == [False]


def model_of(x, y, kernel: Kernel | None = None, **options):
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(kernel, num_features=64, **options),
        "rotation",
        likelihood="gaussian",
        precision="double",
        num_orbit_samples=4,
    )
    data = Data(x, y)
    model.initialise(data)
    return model, data


def test_units_of_inputs_and_targets_change_nothing_but_the_centre():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 1, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    model, data = model_of(x, y)
    other, scaled = model_of(100.0 * x, 0.01 * y)
    assert [h.name for h in model.hyperparameters] == [
        "kernel.outputscale",
        "kernel.base_kernel.lengthscale",
        "likelihood.noise_covar.noise",
    ]
    shift = torch.tensor([2 * math.log(0.01), math.log(100.0), 2 * math.log(0.01)], dtype=torch.float64)
    torch.testing.assert_close(other.hyper_centre, model.hyper_centre + shift)
    away = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)
    assign(model.hyperparameters, model.hyper_centre + away)
    assign(other.hyperparameters, other.hyper_centre + away)
    torch.testing.assert_close(other.log_hyperprior(), model.log_hyperprior())
    eta = torch.tensor([0.4], dtype=torch.float64)
    # Densities of the targets differ by their unit alone.
    difference = other.log_evidence(eta, scaled) - model.log_evidence(eta, data)
    torch.testing.assert_close(difference.detach(), torch.tensor(24 * math.log(100.0), dtype=torch.float64))


def test_the_models_hyperprior_counts_own_and_weak_priors():
    kernel = ScaleKernel(RBFKernel(lengthscale_prior=GammaPrior(2.0, 1.5)))
    model, _ = model_of(torch.rand(12, 1, 6, 6, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64), kernel)
    assign(model.hyperparameters, model.hyper_centre + 0.5)
    lengthscale = model.backbone.kernel.base_kernel.lengthscale.detach().reshape(())
    weak = 2 * torch.distributions.Normal(0.0, AMPLITUDE_SD).log_prob(torch.tensor(0.5))
    expected = GammaPrior(2.0, 1.5).log_prob(lengthscale) + lengthscale.log() + weak
    assert float(model.log_hyperprior().detach()) == pytest.approx(float(expected))
    held = model.hold_hyperparameters()  # of which no density is asked
    assert float(held.log_hyperprior().detach()) == pytest.approx(float(GammaPrior(2.0, 1.5).log_prob(lengthscale)))
