"""Orbits whose points have weights, through kernels, networks, evidences and fits."""

import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
from torch import nn

import bayesinv
from bayesinv.backbones.rbf import rbf_cross_mean, rbf_self_mean
from bayesinv.transforms import Affine2d, CyclicRotation, Flip

COUNTS = [3, 1, 2]


def repeated(points):
    """The copies as often as their weights COUNTS / 6 say."""
    return points.repeat_interleave(torch.tensor(COUNTS), dim=0)


@pytest.fixture
def points():
    return torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights():
    return torch.tensor(COUNTS, dtype=torch.float64) / 6


@pytest.mark.parametrize("kernel", [ScaleKernel(RBFKernel()), ScaleKernel(MaternKernel(nu=2.5))], ids=["rbf", "matern"])
def test_weights_count_copies_in_kernels(points, weights, kernel):
    gp = bayesinv.GaussianProcess(kernel.double(), num_inducing=3)
    gp.initialise(points[0], 1.0, seed=0)
    torch.testing.assert_close(gp.cross(points, weights), gp.cross(repeated(points)))
    torch.testing.assert_close(gp.variance(points, weights), gp.variance(repeated(points)))
    dense = gp.covariance(points, points, rows=2, weights=weights)
    torch.testing.assert_close(dense, gp.covariance(repeated(points), repeated(points)))
    torch.testing.assert_close(dense.diagonal(), gp.variance(points, weights))


def test_gradients_of_the_kernel_means(points, weights):
    inducing = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gamma = torch.tensor(0.2, dtype=torch.float64)
    leaves = [v.clone().requires_grad_() for v in (points, inducing, gamma, weights)]
    assert torch.autograd.gradcheck(rbf_cross_mean, leaves)
    assert torch.autograd.gradcheck(rbf_self_mean, [leaves[0], leaves[2], leaves[3]])


def tiny_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def images(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64), torch.arange(n) % 3


class OneAtATime(bayesinv.Orbit):
    """The orbit of a flip with probability 1/3 by equal weights: two copies as they are and one mirrored."""

    def coordinates(self, extents, base=None):
        return torch.tensor([[0.0], [0.0], [1.0]], dtype=extents.dtype)

    def weights(self, extents):
        return None


@pytest.mark.parametrize("average", ["function", "probabilities"])
def test_network_evidence_weights_copies(average):
    x, y = images()
    evidence = bayesinv.evidence.LaplaceEvidence(num_outputs=None)
    model = bayesinv.InvarianceModel(tiny_net(), Flip(), evidence=evidence, average=average)
    data = bayesinv.Data(x, y, 3)
    model.initialise(data)
    eta = torch.tensor([1 / 3], dtype=torch.float64, requires_grad=True)
    weighted = model.log_evidence(eta, data)
    mean = model.function_posterior(x, data, eta)[0]
    (slope,) = torch.autograd.grad(weighted, eta)
    step = torch.tensor([1e-6], dtype=torch.float64)
    rise = model.log_evidence(eta.detach() + step, data) - model.log_evidence(eta.detach() - step, data)
    assert float(slope) == pytest.approx(float(rise.detach()) / 2e-6, rel=1e-5)
    model.orbit = OneAtATime(Flip())
    torch.testing.assert_close(model.log_evidence(eta, data), weighted.detach())
    torch.testing.assert_close(model.function_posterior(x, data, eta)[0], mean)


def test_dense_prior_is_that_of_the_group_average():
    x, y = images(5)
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_inducing=5), CyclicRotation(4), precision="double")
    model.initialise(bayesinv.Data(x, y, 3))
    full = torch.tensor([0.75], dtype=torch.float64)
    turned = torch.cat([x, CyclicRotation(4).act(x, 1)])
    K = model.at(full).covariance(turned)
    torch.testing.assert_close(K[:5, :5], K[:5, 5:])  # f(T x) = f(x)


def test_fit_finds_a_mirror_symmetry(tmp_path):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(120, 1, 4, 4, generator=generator, dtype=torch.float64)
    even = x + x.flip(-1)
    y = torch.tanh(even[:, 0, 0, 0] + 0.5 * even[:, 0, 2, 1])[:, None]
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=256), [Flip(-1), Flip(-2)], likelihood="gaussian"
    )
    posterior = bayesinv.fit(model, (x[:90], y[:90]), seed=0, progress=False)
    table = posterior.summary()
    assert table.loc["flip_x", "median"] > 40 and table.loc["flip_y", "median"] < 10
    assert table.loc["flip_x", "unit"] == "% of copies"
    mean = posterior.predict(x[90:]).mean
    torch.testing.assert_close(mean, posterior.predict(x[90:].flip(-1)).mean, atol=0.2, rtol=0)
    posterior.save(tmp_path / "flips.pt")
    again = bayesinv.load(tmp_path / "flips.pt")
    torch.testing.assert_close(again.predict(x[90:]).mean, mean)


def test_point_methods_with_groups_and_distributions():
    x, y = images()
    model = bayesinv.InvarianceModel(
        tiny_net(), [Flip(), Affine2d(["rotation"])], augmentation={"rotation": "gaussian"}, num_orbit_samples=2
    )
    training = bayesinv.Training(epochs=1, batch_size=6)
    fixed = bayesinv.inference.Fixed({"flip_x": 0.5, "rotation": 0.3})
    posterior = bayesinv.fit(model, (x, y), inference=fixed, training=training, progress=False)
    assert posterior.predict(x).probs.shape == (12, 3)
    sampled = bayesinv.inference.Fixed({"flip_x": 0.5, "rotation": 0.3}, num_copies=2)
    bayesinv.fit(model, (x, y), inference=sampled, training=training, progress=False)
    for method in ("augerino", "augnet"):
        with pytest.raises(ValueError, match="finite groups"):
            bayesinv.fit(model, (x, y), inference=method, training=training, progress=False)
    off = bayesinv.InvarianceModel(tiny_net(), [Flip(), Affine2d(["rotation"])], priors={"flip_x": None})
    for method in ("augerino", "augnet"):
        assert bayesinv.fit(off, (x, y), inference=method, training=training, progress=False).summary() is not None
