"""The evidence of a process that does not change along generators, against other ways to the same number."""

import math

import pytest
import torch

from bayesinv import Data, GaussianProcess, InvarianceModel
from bayesinv.discovery.algebra import algebra_for
from bayesinv.discovery.evidence import FlowEvidence, log_marginal
from bayesinv.discovery.subspaces import orthonormal
from bayesinv.evidence.gaussian import GaussianEvidence
from bayesinv.model.hyperparameters import vector
from bayesinv.transforms import LinearFlow

ROTATION = torch.tensor([[0.0], [-1.0], [1.0], [0.0]], dtype=torch.float64) / math.sqrt(2.0)


def problem(tolerance=0.1, num_features=40, num_points=15):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 2, dtype=torch.float64, generator=generator)
    y = x.norm(dim=1).sin()[:, None] + 0.1 * torch.randn(30, 1, dtype=torch.float64, generator=generator)
    algebra = algebra_for(x, "linear")
    process, noise = GaussianProcess(num_features=num_features), GaussianEvidence()
    process.initialise(x, noise.initialise(Data(x, y)), 0)
    evidence = FlowEvidence(process, noise, x[None], y, algebra.tangents(x[:num_points]), tolerance)
    evidence.typical_speed = 0.7
    return evidence, x, y


NONE = torch.zeros(4, 0, dtype=torch.float64)


def value(evidence, V):
    return float(evidence.log_joint(V).detach())


def test_without_generators_it_is_the_evidence_of_the_model():
    evidence, x, y = problem()
    model = InvarianceModel(
        GaussianProcess(num_features=40), LinearFlow([[[0.0, -1.0], [1.0, 0.0]]]), "gaussian", precision="double"
    )
    data = Data(x, y)
    model.initialise(data, seed=0)
    expected = model.log_evidence(torch.zeros(1, dtype=torch.float64), data) + model.log_hyperprior()
    assert value(evidence, NONE) == pytest.approx(float(expected.detach()), abs=1e-6)


@pytest.mark.parametrize("num_generators", [2, 3])  # three are more than the dimensions of the inputs
def test_the_gradient_is_that_of_differences(num_generators):
    evidence, _, _ = problem()
    V = orthonormal(torch.randn(4, num_generators, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    u = vector(evidence.hyper).detach()
    _, d_V, d_u = evidence.value_and_gradient(V, u)
    step = 1e-5
    for index in [(0, 0), (2, 1)]:
        E = torch.zeros_like(V)
        E[index] = step
        ends = [evidence.value_and_gradient(V + sign * E, u)[0] for sign in (1.0, -1.0)]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(d_V[index]), rel=1e-4)
    for i in range(len(u)):
        e = torch.zeros_like(u)
        e[i] = step
        ends = [evidence.value_and_gradient(V, u + sign * e)[0] for sign in (1.0, -1.0)]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(d_u[i]), rel=1e-4)


def test_it_is_about_the_subspace_and_not_its_basis():
    evidence, _, _ = problem()
    V = orthonormal(torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    assert value(evidence, V @ turn) == pytest.approx(value(evidence, V), abs=1e-8)


def test_it_is_the_ratio_of_densities_of_no_change():
    """log p(D | V) - log p(D) = log p(C w + noise = 0 | D) - log p(C w + noise = 0), Savage and Dickey."""
    evidence, _, y = problem()
    W, a, cos, sin = evidence._parts()
    phi = torch.cat([a * cos[0], a * sin[0]], -1).detach()
    motions = torch.einsum("pk,pmd->kmd", ROTATION, evidence.tangents)
    C = evidence._changes(motions, W, a, cos, sin)[0].detach()
    s2 = evidence.tolerance**2 * evidence.typical_speed
    noise = float(evidence.noise.noise.detach())
    full = torch.cat([phi, torch.full((30, 1), math.sqrt(float(evidence.noise.offset_variance))).double()], 1)
    r = (y - evidence.noise.mean)[:, 0]
    C = torch.cat([C, torch.zeros(len(C), 1)], 1)
    K = full @ full.T + noise * torch.eye(30, dtype=torch.float64)
    mean = C @ full.T @ torch.linalg.solve(K, r)
    prior = C @ C.T + s2 * torch.eye(len(C), dtype=torch.float64)
    posterior = prior - C @ full.T @ torch.linalg.solve(K, full @ C.T)
    zero = torch.zeros(len(C), dtype=torch.float64)
    ratio = torch.distributions.MultivariateNormal(mean, posterior).log_prob(zero)
    ratio = ratio - torch.distributions.MultivariateNormal(zero, prior).log_prob(zero)
    assert value(evidence, ROTATION) - value(evidence, NONE) == pytest.approx(float(ratio), abs=1e-5)


def test_what_stays_along_rotations_is_slow_there_and_nowhere_else():
    evidence, _, _ = problem(tolerance=0.01)
    u = vector(evidence.hyper).detach()
    free, held = (sum(evidence.speeds(V, u)) for V in (NONE, ROTATION))
    along = [float(ROTATION.T @ speeds @ ROTATION) for speeds in (free, held)]
    assert along[1] < 2.0 * evidence.tolerance**2 * evidence.typical_speed < 0.02 * along[0]
    assert float(held.trace()) > 0.05 * float(free.trace())


def test_the_truth_beats_another_direction():
    evidence, _, _ = problem()
    other = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=torch.float64) / math.sqrt(2.0)
    assert value(evidence, ROTATION) > value(evidence, other) + 5.0


def test_a_swapped_copy_averages_the_function():
    evidence, x, _ = problem()
    both = evidence.averaged(torch.stack([x, x.flip(-1)]))
    cos = both._parts()[2]
    again = evidence.averaged(torch.stack([x.flip(-1), x]))
    assert value(both, NONE) == pytest.approx(value(again, NONE), abs=1e-8)
    assert cos.shape[0] == 2


def test_more_generators_than_dimensions_give_the_precision_of_all():
    evidence, _, _ = problem()
    V = orthonormal(torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    motions = torch.einsum("pk,pmd->kmd", V, evidence.tangents)
    C = evidence._changes(motions, *evidence._parts()).flatten(0, 1)
    expected = torch.eye(40, dtype=torch.float64) + C.mT @ C / (evidence.tolerance**2 * evidence.typical_speed)
    torch.testing.assert_close(evidence._features(V)[1], expected)


def test_the_marginal_is_that_of_the_normal_distribution():
    generator = torch.Generator().manual_seed(0)
    phi, y, A = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((7, 3), (7, 2), (3, 3)))
    noise = torch.tensor(0.3, dtype=torch.float64)

    def of(phi, A, noise):
        return log_marginal(phi, torch.eye(3, dtype=torch.float64) + A @ A.mT, y, noise)

    covariance = phi @ torch.linalg.inv(torch.eye(3, dtype=torch.float64) + A @ A.mT) @ phi.mT
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(7, dtype=torch.float64), covariance + noise * torch.eye(7, dtype=torch.float64)
    )
    torch.testing.assert_close(of(phi, A, noise), normal.log_prob(y.mT).sum())
    assert torch.autograd.gradcheck(of, [part.requires_grad_() for part in (phi, A, noise)])
