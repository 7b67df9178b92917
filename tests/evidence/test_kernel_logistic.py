"""Kernel logistic regression: its stationarity, scikit-learn's answer, both spaces, extents for every class."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import bayesinv
from bayesinv.errors import NotSettledError
from bayesinv.evidence.basis import Whitened
from bayesinv.evidence.kernel_logistic import TOLERANCE
from bayesinv.evidence.kernel_logistic import logistic_mode as mode_of


def logistic_mode(V, offset, y, near=None):
    return mode_of(Whitened(V, V.new_zeros(V.shape[:-2] + V.shape[-1:])), offset, y, near)


def problem(M, n, C=3, per_output=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lead = (C,) if per_output else ()
    V = torch.randn(*lead, M, n, generator=generator, dtype=torch.float64)
    return (
        V,
        0.5 * torch.randn(C, generator=generator, dtype=torch.float64),
        torch.randint(C, (n,), generator=generator),
    )


def log_joint(V, v, offset, y):
    """Σ log softmax_y(offset + Vᵀv) - |v|²/2, v of shape (C, M)."""
    f = offset + (torch.einsum("cmn,cm->nc", V, v) if V.ndim == 3 else (v @ V).T)
    return f.log_softmax(-1)[torch.arange(len(y)), y].sum() - 0.5 * v.square().sum()


def weights(posterior):
    """v by class, (C, M)."""
    w = posterior.weights
    return w[0].T if len(w) == 1 else w[..., 0]


@pytest.mark.parametrize(("M", "n"), [(5, 40), (40, 12), (12, 12)])
@pytest.mark.parametrize("per_output", [False, True])
def test_the_gradient_vanishes_at_the_mode(M, n, per_output):
    V, offset, y = problem(M, n, per_output=per_output)
    posterior = logistic_mode(V, offset, y)
    f = offset + posterior.means(V)
    pull = torch.nn.functional.one_hot(y, 3).double() - f.softmax(-1)
    v = weights(posterior)
    expected = torch.einsum("cmn,nc->cm", V, pull) if per_output else (V @ pull).T
    # With fewer inputs than features the tolerance is one of L⁻¹V times this; K has condition numbers of a few hundred.
    torch.testing.assert_close(v, expected, atol=20 * TOLERANCE, rtol=0)
    assert float(v.abs().max()) > 0.3
    best = log_joint(V, v, offset, y)
    for seed in range(5):
        step = 0.1 * torch.randn(v.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert log_joint(V, v + step, offset, y) < best
    torch.testing.assert_close(posterior.variances(V), torch.zeros(n, 3 if per_output else 1, dtype=torch.float64))


@pytest.mark.parametrize(("M", "n", "C"), [(6, 80, 3), (30, 20, 4), (6, 80, 2)])
def test_it_agrees_with_scikit_learn(M, n, C):
    V, _, y = problem(M, n, C)
    mode = logistic_mode(V, torch.zeros(C, dtype=torch.float64), y)
    # |w|²/2 for one vector of two classes is |v|²/2 for two that are opposite, w = v_1 - v_0: half the penalty.
    sklearn = LogisticRegression(C=1.0 if C > 2 else 2.0, fit_intercept=False, tol=1e-9, max_iter=10_000)
    sklearn.fit(V.T.numpy(), y.numpy())
    elsewhere = torch.randn(M, 15, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    expected = torch.from_numpy(sklearn.predict_proba(elsewhere.T.numpy()))
    torch.testing.assert_close(mode.means(elsewhere).softmax(-1), expected, atol=3e-3, rtol=0)


def test_features_that_are_zero_change_nothing_but_the_space():
    V, offset, y = problem(5, 9)
    padded = torch.cat([V, torch.zeros(10, 9, dtype=torch.float64)])
    torch.testing.assert_close(
        logistic_mode(padded, offset, y).means(padded), logistic_mode(V, offset, y).means(V), atol=5e-3, rtol=0
    )


@pytest.mark.parametrize(("M", "n"), [(5, 20), (20, 5)])
def test_equal_features_for_every_class_are_shared_ones(M, n):
    V, offset, y = problem(M, n)
    shared, each = logistic_mode(V, offset, y), logistic_mode(V.expand(3, -1, -1), offset, y)
    torch.testing.assert_close(each.means(V.expand(3, -1, -1)), shared.means(V), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("M", "n"), [(5, 20), (20, 5)])
@pytest.mark.parametrize("per_output", [False, True])
def test_a_start_near_by_saves_steps_and_changes_nothing_else(M, n, per_output, monkeypatch):
    V, offset, y = problem(M, n, per_output=per_output)
    cold = logistic_mode(V, offset, y)
    other, far = logistic_mode(1.05 * V, offset, y), logistic_mode(-30.0 * V, offset, y)
    for near in (cold, other, far, logistic_mode(*problem(M + 1, n + 1))):  # the last has other sizes
        torch.testing.assert_close(logistic_mode(V, offset, y, near).means(V), cold.means(V), atol=2e-2, rtol=0)
    steps = []
    found = bayesinv.evidence.kernel_logistic.minimize

    def counted(*arguments, **options):
        result = found(*arguments, **options)
        steps.append(result.nfev)
        return result

    monkeypatch.setattr("bayesinv.evidence.kernel_logistic.minimize", counted)
    for near in (None, cold, other):
        logistic_mode(V, offset, y, near)
    assert steps[1] <= 3
    assert steps[2] <= steps[0]


def test_the_offset_counts():
    V, _, y = problem(5, 20)
    offset = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    with_offset = offset + logistic_mode(V, offset, y).means(V)
    without = logistic_mode(V, torch.zeros(3, dtype=torch.float64), y).means(V)
    assert float((with_offset - without)[:, 0].mean()) > 0.5


def test_steps_that_run_out_are_an_error(monkeypatch):
    monkeypatch.setattr("bayesinv.evidence.kernel_logistic.MAX_STEPS", 1)
    V, offset, y = problem(5, 40)
    with pytest.raises(NotSettledError, match="kernel logistic regression: the gradient is still"):
        logistic_mode(30.0 * V, offset, y)


def test_large_scales_settle():
    V, offset, y = problem(30, 20)
    mode = logistic_mode(100.0 * V, offset, y)
    assert bool((mode.means(100.0 * V).argmax(1) == y).all())
