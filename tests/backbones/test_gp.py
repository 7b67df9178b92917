"""The GP backbone: the fast squared exponential against GPyTorch, any kernel, priors, bad input."""

import gpytorch
import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel

from bayesinv import GaussianProcess
from bayesinv.backbones.rbf import rbf_cross_mean, rbf_self_mean
from bayesinv.errors import DataError


@pytest.fixture
def points():
    return torch.randn(3, 5, 4, dtype=torch.float64)


def test_fast_means_agree_with_gpytorch(points):
    gp = GaussianProcess(num_inducing=4)
    gp.initialise(points[0], output_variance=2.5, seed=0)
    dense = gp.kernel(points.reshape(15, 4), gp.inducing).to_dense().reshape(3, 5, 4).mean(0)
    torch.testing.assert_close(gp.cross(points), dense)
    per_input = points.transpose(0, 1)
    torch.testing.assert_close(gp.variance(points), gp.kernel(per_input, per_input).to_dense().mean((1, 2)))


def test_fast_means_pass_gradcheck(points):
    inducing = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    gamma = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    points = points.requires_grad_()
    assert torch.autograd.gradcheck(rbf_cross_mean, (points, inducing, gamma))
    assert torch.autograd.gradcheck(rbf_self_mean, (points, gamma))


def test_distances_that_rounding_makes_negative_stay_harmless():
    far = torch.full((2, 3, 4), 1e4)  # |x|² = 4e8 cancels to within 32 in float32
    K = rbf_self_mean(far, torch.tensor(1.0))
    assert bool((K <= 1.0).all())


@pytest.mark.parametrize(
    "kernel",
    [
        RBFKernel(),
        RBFKernel(active_dims=[0, 2]),
        ScaleKernel(RBFKernel(), active_dims=[0]),
        ScaleKernel(MaternKernel(nu=1.5)),
        ScaleKernel(RBFKernel(ard_num_dims=4)),
    ],
)
def test_any_kernel_gives_the_mean_over_the_orbit(kernel, points):
    gp = GaussianProcess(kernel, num_inducing=5)
    gp.initialise(points[0], output_variance=1.0, seed=0)
    expected = torch.stack([gp.kernel(p, gp.inducing).to_dense() for p in points]).mean(0)
    torch.testing.assert_close(gp.cross(points), expected)
    pairs = torch.stack([gp.kernel(p, q).to_dense().diagonal() for p in points for q in points]).mean(0)
    torch.testing.assert_close(gp.variance(points), pairs)
    torch.testing.assert_close(gp.covariance(points, points, rows=2).diagonal(), pairs)


def test_lengthscale_starts_at_the_median_distance():
    x = torch.randn(40, 7, dtype=torch.float64)
    gp = GaussianProcess(num_inducing=40)
    gp.initialise(x, output_variance=3.0, seed=0)
    assert float(gp.kernel.base_kernel.lengthscale.detach()) == pytest.approx(float(torch.pdist(x).median()))
    assert float(gp.kernel.outputscale.detach()) == pytest.approx(3.0)


def test_constant_inputs_do_not_break_the_start():
    gp = GaussianProcess(num_inducing=3)
    gp.initialise(torch.ones(5, 2), output_variance=1.0, seed=0)
    assert float(gp.kernel.base_kernel.lengthscale.detach()) == 1.0


def test_registered_priors_count():
    kernel = RBFKernel(lengthscale_prior=gpytorch.priors.GammaPrior(3.0, 6.0))
    gp = GaussianProcess(kernel, num_inducing=2)
    gp.initialise(torch.rand(4, 2), output_variance=1.0, seed=0)
    expected = gpytorch.priors.GammaPrior(3.0, 6.0).log_prob(gp.kernel.lengthscale.detach()).sum()
    assert float(gp.log_hyperprior().detach()) == pytest.approx(float(expected))
    assert float(GaussianProcess().log_hyperprior()) == 0.0


def test_the_callers_kernel_is_left_alone():
    kernel = RBFKernel()
    gp = GaussianProcess(kernel)
    gp.kernel.lengthscale = 7.0
    assert kernel.lengthscale.dtype == torch.float32
    assert float(kernel.lengthscale.detach()) != 7.0


def test_other_kernels_are_given_more_memory():
    """A block of Matern kernels in float64 needs several times what the fast path needs."""
    sizes = []
    for kernel in (None, ScaleKernel(MaternKernel(nu=1.5))):
        gp = GaussianProcess(kernel, num_inducing=5)
        gp.initialise(torch.rand(8, 4), output_variance=1.0, seed=0)
        sizes.append(gp.bytes_per_input(num_samples=4, num_features=4, dtype=torch.float32))
    assert sizes[1] > 4 * sizes[0]


def test_given_inducing_points_are_used():
    Z = torch.rand(3, 1, 2, 2)
    gp = GaussianProcess(inducing_points=Z, learn_inducing=False)
    gp.initialise(torch.rand(9, 1, 2, 2), output_variance=1.0, seed=0)
    torch.testing.assert_close(gp.inducing, Z.reshape(3, 4).double())
    assert not gp.inducing.requires_grad
    with pytest.raises(DataError, match="expected 9 numbers a point"):
        gp.initialise(torch.rand(9, 1, 3, 3), output_variance=1.0, seed=0)


def test_bad_arguments_say_what_was_expected():
    with pytest.raises(TypeError, match="kernel"):
        GaussianProcess("rbf")
    with pytest.raises(ValueError, match="no batch shape"):
        GaussianProcess(RBFKernel(batch_shape=torch.Size([2])))
    with pytest.raises(ValueError, match="num_inducing"):
        GaussianProcess(num_inducing=0)
