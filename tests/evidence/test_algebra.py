"""Gaussian posteriors through M x M and through n x n matrices, against dense formulas."""

import pytest
import torch

from bayesinv.evidence.algebra import DualFactor, Factor, PrimalFactor

C = 3


def problem(M, n, per_output, num_sets, seed=0):
    """V, precisions, locations, and V at two other inputs."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lead = (C,) if per_output else ()
    return randn(*lead, M, n), randn(n, num_sets).exp(), randn(n, C), randn(*lead, M, 2)


def dense(V, precision, b, elsewhere):
    """log|A|, means and variances of f at the inputs and elsewhere, output by output."""
    M = V.shape[-2]
    log_dets, columns = [], []
    for c in range(C):
        V_c, E_c = (V[c], elsewhere[c]) if V.ndim == 3 else (V, elsewhere)
        A = torch.eye(M, dtype=torch.float64) + V_c @ torch.diag(precision.expand(-1, C)[:, c]) @ V_c.T
        S = torch.linalg.inv(A)
        log_dets.append(torch.logdet(A))
        v = S @ V_c @ b[:, c]
        columns.append((V_c.T @ v, (V_c.T @ S @ V_c).diagonal(), E_c.T @ v, (E_c.T @ S @ E_c).diagonal()))
    return torch.stack(log_dets), *(torch.stack(column, 1) for column in zip(*columns, strict=True))


CASES = [
    (M, n, per_output, num_sets)
    for M, n in ((4, 7), (7, 4), (5, 5))
    for per_output in (False, True)
    for num_sets in (1, C)
]


@pytest.mark.parametrize(("M", "n", "per_output", "num_sets"), CASES)
@pytest.mark.parametrize("kind", [PrimalFactor, DualFactor])
def test_both_spaces_agree_with_the_dense_formulas(kind, M, n, per_output, num_sets):
    V, precision, b, elsewhere = problem(M, n, per_output, num_sets)
    factor = kind(V, precision, None)
    posterior = factor.posterior(b)
    log_det, means, variances, means_elsewhere, variances_elsewhere = dense(V, precision, b, elsewhere)
    G = C if per_output or num_sets == C else 1
    assert factor.log_det.shape == (G,)
    assert factor.variances().shape == (n, G)
    assert posterior.variances(elsewhere).shape == (2, G)
    torch.testing.assert_close(factor.log_det.expand(C), log_det)
    torch.testing.assert_close(factor.means(b), means)
    torch.testing.assert_close(factor.variances().expand(-1, C), variances)
    torch.testing.assert_close(posterior.means(elsewhere), means_elsewhere)
    torch.testing.assert_close(posterior.means(V), means)
    torch.testing.assert_close(posterior.variances(elsewhere).expand(-1, C), variances_elsewhere)
    torch.testing.assert_close(posterior.variances(V).expand(-1, C), variances)


@pytest.mark.parametrize(("M", "n", "kind"), [(4, 7, PrimalFactor), (7, 4, DualFactor), (5, 5, DualFactor)])
def test_the_smaller_space_is_taken(M, n, kind):
    V, precision, _, _ = problem(M, n, False, 1)
    factor = Factor.of(V, precision)
    assert type(factor) is kind
    assert factor.L.shape == (1, min(M, n), min(M, n))


def test_products_that_the_caller_has_are_used():
    V, precision, b, _ = problem(4, 7, False, 1)
    gram = (V @ torch.diag(precision[:, 0]) @ V.T)[None]
    torch.testing.assert_close(Factor.of(V, precision, gram).means(b), Factor.of(V, precision).means(b))
    wrong = Factor.of(V, precision, 2.0 * gram)
    assert not torch.allclose(wrong.log_det, Factor.of(V, precision).log_det)
    V, precision, b, _ = problem(7, 4, False, 1)
    torch.testing.assert_close(Factor.of(V, precision, K=V.T @ V).means(b), Factor.of(V, precision).means(b))
    assert not torch.allclose(Factor.of(V, precision, K=2.0 * V.T @ V).log_det, Factor.of(V, precision).log_det)


@pytest.mark.parametrize("kind", [PrimalFactor, DualFactor])
@pytest.mark.parametrize("per_output", [False, True])
def test_the_limits_of_no_data_and_of_certain_data(kind, per_output):
    V, precision, b, elsewhere = problem(9, 6, per_output, 1)
    nothing = kind(V, 0.0 * precision, None)
    torch.testing.assert_close(nothing.log_det, torch.zeros_like(nothing.log_det))
    torch.testing.assert_close(nothing.variances().mT, V.square().sum(-2).reshape(-1, 6))
    torch.testing.assert_close(nothing.posterior(0.0 * b).means(elsewhere), torch.zeros(2, C, dtype=torch.float64))
    sure = kind(V, 1e8 * torch.ones_like(precision), None)
    assert float(sure.variances().max()) < 1e-6
    torch.testing.assert_close(sure.means(1e8 * b), b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [PrimalFactor, DualFactor])
@pytest.mark.parametrize("per_output", [False, True])
def test_gradients_pass_through_both_spaces(kind, per_output):
    V, precision, b, _ = problem(4, 5, per_output, 1)

    def value(V, precision):
        factor = kind(V, precision, None)
        return factor.log_det.sum() + (b * factor.means(b)).sum() + factor.variances().square().sum()

    assert torch.autograd.gradcheck(value, (V.requires_grad_(), precision.requires_grad_()))


@pytest.mark.parametrize(("M", "n", "per_output", "num_sets"), CASES)
@pytest.mark.parametrize("kind", [PrimalFactor, DualFactor])
def test_slopes_are_those_of_autograd(kind, M, n, per_output, num_sets):
    V, precision, b, _ = problem(M, n, per_output, num_sets)
    V.requires_grad_()
    factor = kind(V, precision, None)
    means, variances = factor.means(b), factor.variances()
    of_means, of_variances, each = b.flip(0), variances.detach().sin(), 3
    total = 0.5 * (b * means).sum() - 0.5 * each * factor.log_det.sum()
    total = total + (of_means * means).sum() + (of_variances * variances).sum()
    (expected,) = torch.autograd.grad(total, V)
    with torch.no_grad():
        torch.testing.assert_close(kind(V, precision, None).slopes(b, each, of_means, of_variances), expected)
