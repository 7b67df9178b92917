"""The softmax evidence by expectation propagation: quadrature, draws, many classes, its fixed point, two predictors."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import bayesinv
from bayesinv.data.container import Data
from bayesinv.errors import NotSettledError
from bayesinv.evidence import SoftmaxEvidence
from bayesinv.evidence.collapsed import Whitened
from bayesinv.testing.evidences import EvidenceCase
from bayesinv.testing.softmax_reference import reference_log_evidence


def white_of(K, residual=0.0):
    """Coordinates whose covariance is K, with an offset of variance zero, which the evidence would have."""
    L = torch.linalg.cholesky(K + 1e-10 * K[0, 0] * torch.eye(len(K), dtype=torch.float64))
    return Whitened(L.T.contiguous(), torch.full((len(K),), residual, dtype=torch.float64))


def labels(*y, num_classes=2):
    return Data(torch.zeros(len(y), 1), torch.tensor(y), num_classes=num_classes)


def evidence_for(data, prediction="average"):
    evidence = SoftmaxEvidence(prediction)
    evidence.initialise(data)
    return evidence


def kernel_matrix(n, variance, lengthscale=1.0):
    t = torch.linspace(0.0, 3.0, n, dtype=torch.float64)
    return variance * torch.exp(-0.5 * ((t[:, None] - t) / lengthscale).square())


def two_classes_by_quadrature(K, y):
    """log ∫ Π σ(± d_i) N(d | 0, 2K) dd for d = f_1 - f_0 at one or two inputs."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    n = len(K)
    z = np.stack(np.meshgrid(*[nodes] * n, indexing="ij"), -1).reshape(-1, n)
    w = np.prod(np.stack(np.meshgrid(*[weights] * n, indexing="ij"), -1).reshape(-1, n), -1) / (2 * math.pi) ** (n / 2)
    d = z @ np.linalg.cholesky(2.0 * K.numpy()).T
    sign = np.where(np.array(y) == 1, 1.0, -1.0)
    return math.log(w @ np.exp(-np.logaddexp(0.0, -sign * d).sum(1)))


@torch.no_grad()
@pytest.mark.parametrize("variance", [0.1, 2.0, 10.0, 100.0])
def test_one_label_has_the_evidence_of_quadrature(variance):
    data = labels(1)
    K = torch.tensor([[variance]], dtype=torch.float64)
    got = float(evidence_for(data).bound(white_of(K), data))
    assert got == pytest.approx(two_classes_by_quadrature(K, [1]), abs=0.01)
    assert got == pytest.approx(math.log(0.5), abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize("y", [(1, 1), (0, 1)])
@pytest.mark.parametrize("correlation", [0.0, 0.7, 0.99])
@pytest.mark.parametrize("variance", [0.3, 4.0, 25.0])
def test_two_labels_have_the_evidence_of_quadrature(y, correlation, variance):
    data = labels(*y)
    K = variance * torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    got = float(evidence_for(data).bound(white_of(K), data))
    expected = two_classes_by_quadrature(K, y)
    assert got == pytest.approx(expected, abs=0.05)
    if correlation > 0.5 and variance > 1:
        assert abs(expected - 2 * math.log(0.5)) > 0.1  # no longer two labels on their own


@torch.no_grad()
@pytest.mark.parametrize("variance", [0.5, 3.0, 10.0])
def test_the_evidence_agrees_with_draws_from_the_prior(variance):
    n, C = 6, 3
    K = kernel_matrix(n, variance)
    data = labels(0, 0, 1, 1, 2, 0, num_classes=C)
    z = torch.randn(200_000, C, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = z @ torch.linalg.cholesky(K + 1e-10 * torch.eye(n, dtype=torch.float64)).T
    log_p = f.log_softmax(1)[:, data.y, torch.arange(n)].sum(-1)
    w = torch.exp(log_p - log_p.max())
    expected = float(w.mean().log() + log_p.max())
    error = float(w.std() / w.mean()) / math.sqrt(len(w))
    got = float(evidence_for(data).bound(white_of(K), data))
    assert error < 0.03
    assert got == pytest.approx(expected, abs=0.1 + 4 * error)


@torch.no_grad()
@pytest.mark.parametrize(
    ("num_classes", "variance", "gap"),
    # One precision for all contrasts of an example costs nothing with two classes, and more the more certain they are.
    [(2, 1.0, 0.002), (2, 16.0, 0.015), (4, 1.0, 0.01), (4, 16.0, 0.1)],
)
def test_the_evidence_agrees_with_the_referee(num_classes, variance, gap):
    """Labels of the model itself; ``gap`` in nats an example."""
    n = 40
    K = kernel_matrix(n, variance, 0.3)
    generator = torch.Generator().manual_seed(0)
    L = torch.linalg.cholesky(K + 1e-9 * torch.eye(n, dtype=torch.float64))
    f = L @ torch.randn(n, num_classes, generator=generator, dtype=torch.float64)
    y = torch.multinomial(f.softmax(-1), 1, generator=generator)[:, 0]
    expected, error = reference_log_evidence(K, y, num_classes, num_chains=16, num_steps=200)
    data = Data(torch.zeros(n, 1), y, num_classes=num_classes)
    got = float(evidence_for(data).bound(white_of(K), data))
    assert error < 0.3
    assert expected - gap * n - 4 * error < got < expected + 0.002 * n + 4 * error


@torch.no_grad()
def test_moments_of_contrasts_agree_with_draws_from_the_prior():
    n, C = 6, 3
    K = kernel_matrix(n, 3.0)
    data = labels(0, 0, 1, 1, 2, 2, num_classes=C)
    z = torch.randn(400_000, C, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = z @ torch.linalg.cholesky(K + 1e-10 * torch.eye(n, dtype=torch.float64)).T
    w = f.log_softmax(1)[:, data.y, torch.arange(n)].sum(-1).softmax(0)
    contrasts = f - f.mean(1, keepdim=True)
    expected = torch.einsum("j,jcn->nc", w, contrasts)
    white = white_of(K)
    mean = evidence_for(data).solve(white, data).means(white.V)
    torch.testing.assert_close(mean - mean.mean(1, keepdim=True), expected, atol=0.08, rtol=0)


@torch.no_grad()
def test_a_common_shift_of_the_classes_changes_nothing():
    data, K = labels(0, 1, 2, 1, num_classes=3), kernel_matrix(4, 3.0)
    evidence = evidence_for(data)
    evidence.mean = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    value = float(evidence.bound(white_of(K), data))
    evidence.warm_start = None
    evidence.mean = evidence.mean + 7.0
    assert float(evidence.bound(white_of(K), data)) == pytest.approx(value, abs=1e-9)
    evidence.warm_start = None
    evidence.mean = evidence.mean * torch.tensor([1.0, 1.0, 1.3])  # one class alone is no common shift
    assert float(evidence.bound(white_of(K), data)) != pytest.approx(value, abs=0.05)


@torch.no_grad()
def test_offsets_follow_the_shares_of_the_classes():
    """Nine labels of ten: with a known mean of the classes they are less likely than with an unknown one."""
    data = labels(*[0] * 18, 1, 1)
    K = 0.01 * torch.eye(20, dtype=torch.float64)
    evidence = evidence_for(data)
    without = float(evidence.bound(white_of(K), data))
    evidence.warm_start = None
    with_offset = white_of(K).with_offset(evidence.offset_variance)
    assert float(evidence.bound(with_offset, data)) > without + 3.0
    posterior = evidence.solve(with_offset, data)
    p = float(posterior.means(with_offset.V).softmax(-1)[:, 0].mean())
    assert 0.75 < p < 0.95


@torch.no_grad()
def test_the_residual_is_noise_of_each_input_on_its_own():
    """K + d I as one covariance, or d as a residual, are the same prior; EP's factorisation differs a little."""
    data = labels(0, 0, 1, 1, 2, 0, num_classes=3)
    K, d = kernel_matrix(6, 3.0), 2.0
    apart = float(evidence_for(data).bound(white_of(K, residual=d), data))
    together = float(evidence_for(data).bound(white_of(K + d * torch.eye(6, dtype=torch.float64)), data))
    assert apart == pytest.approx(together, abs=0.05)
    assert abs(together - float(evidence_for(data).bound(white_of(K), data))) > 0.1


def test_the_residual_has_a_gradient_of_its_own():
    data, K = labels(0, 1, 1, 0), kernel_matrix(4, 10.0)
    slopes = []
    for both in (False, True):
        white = white_of(K, residual=0.5)
        white = Whitened(white.V.requires_grad_(both), white.residual.requires_grad_())
        slopes.append(torch.autograd.grad(evidence_for(data).bound(white, data), white.residual)[0])
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-3, rtol=1e-2)
    assert float(slopes[0].abs().min()) > 1e-3


@torch.no_grad()
def test_a_hundred_classes():
    n, C = 120, 100
    data = Data(torch.zeros(n, 1), torch.arange(n) % C, num_classes=C)
    evidence = evidence_for(data)
    value = float(evidence.bound(white_of(kernel_matrix(n, 10.0, 0.2)).with_offset(evidence.offset_variance), data))
    assert -1.5 * n * math.log(C) < value < -0.5 * n * math.log(C)


@torch.no_grad()
def test_sites_that_do_not_settle_are_an_error(monkeypatch):
    monkeypatch.setattr("bayesinv.evidence.propagation.MAX_STEPS", 1)
    data = labels(0, 1, 1, 0)
    evidence = evidence_for(data)
    with pytest.raises(NotSettledError, match="the sites of 4 labels still move by"):
        evidence.bound(white_of(kernel_matrix(4, 30.0)), data)
    assert evidence.warm_start is None
    monkeypatch.setattr("bayesinv.evidence.propagation.MAX_STEPS", 100)
    assert math.isfinite(float(evidence.bound(white_of(kernel_matrix(4, 30.0)), data)))


@torch.no_grad()
@pytest.mark.parametrize("variance", [0.01, 10.0, 1e3, 1e5])
def test_it_settles_at_any_scale(variance):
    generator = torch.Generator().manual_seed(0)
    data = Data(
        torch.zeros(40, 1), torch.randint(4, (40,), generator=generator), num_classes=4
    )  # labels of pure chance
    evidence = evidence_for(data)
    assert math.isfinite(float(evidence.bound(white_of(kernel_matrix(40, variance)), data)))


@torch.no_grad()
def test_warm_starts_never_change_a_value():
    """Also from sites of a prior that has nothing to do with this one, or of another problem's size."""
    data = labels(*[0, 0, 1, 1, 2, 2, 0, 1], num_classes=3)
    evidence = evidence_for(data)
    priors = [kernel_matrix(8, variance, scale) for variance in (0.1, 10.0, 300.0) for scale in (0.3, 3.0)]
    cold = []
    for K in priors:
        evidence.warm_start = None
        cold.append(float(evidence.bound(white_of(K), data)))
    for _ in range(3):
        for i in torch.randperm(len(priors)).tolist():
            assert float(evidence.bound(white_of(priors[i]), data)) == pytest.approx(cold[i], abs=0.02)
    few = labels(0, 1, 2, num_classes=3)
    assert math.isfinite(float(evidence.bound(white_of(kernel_matrix(3, 1.0)), few)))
    assert max(cold) - min(cold) > 1.0


@torch.no_grad()
@pytest.mark.parametrize("num_inputs", [6, 12])
@pytest.mark.parametrize("space", ["features", "inducing"])
def test_equal_extents_for_every_class_are_close_to_shared_ones(space, num_inputs):
    """One precision for each class ignores that their common mode is free: up to 0.12 nat an example too low."""
    case = EvidenceCase.of(SoftmaxEvidence(), num_inputs=num_inputs, space=space, size=8)
    white, evidence = case.whitened(), case.evidence
    each = Whitened(white.V.expand(3, -1, -1).contiguous(), white.residual.expand(3, -1).contiguous())
    shared = float(evidence.bound(white, case.data))
    assert 0.0 < shared - float(evidence.bound(each, case.data)) < 0.12 * num_inputs
    mode = evidence.solve(white, case.data).means(white.V)
    torch.testing.assert_close(evidence.solve(each, case.data).means(each.V), mode, atol=2e-2, rtol=0)
    evidence.prediction = "average"
    average = evidence.solve(white, case.data).means(white.V).softmax(-1)
    torch.testing.assert_close(evidence.solve(each, case.data).means(each.V).softmax(-1), average, atol=0.1, rtol=0)


@pytest.mark.parametrize("space", ["features", "inducing"])
@pytest.mark.parametrize("size", [4, 16])
def test_gradients_in_extents_of_every_class(space, size):
    import bayesinv

    case = EvidenceCase.of(SoftmaxEvidence(), num_inputs=9, space=space, size=size)
    model = bayesinv.InvarianceModel(
        case.model.backbone,
        case.model.transform,
        evidence=case.evidence,
        num_orbit_samples=4,
        precision="double",
        outputs=["a", "b", "c"],
    )
    eta = torch.tensor([0.1, 0.4, 0.2, 0.1, 0.05, 0.8], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_evidence(eta, case.data), eta)
    step = 1e-4
    for k in range(6):
        shift = torch.zeros(6, dtype=torch.float64)
        shift[k] = step
        # with a gradient, for the tolerance of one
        values = [float(model.log_evidence(eta + sign * shift, case.data).detach()) for sign in (1, -1)]
        difference = (values[0] - values[1]) / (2 * step)
        assert float(gradient[k]) == pytest.approx(difference, abs=1e-3 * max(1.0, abs(difference)))
    assert float(gradient.abs().min()) > 1e-3


@torch.no_grad()
def test_the_two_predictors_differ_and_know_the_labels():
    case = EvidenceCase.of(SoftmaxEvidence(), num_inputs=9, space="exact")
    case.model.backbone.kernel.outputscale = 300.0
    found = {}
    for prediction in ("mode", "average"):
        case.evidence.prediction = prediction
        mean, variance = case.model.function_posterior(case.data.x, case.data, case.eta)
        found[prediction] = mean
        assert bool((variance > 0).all()) == (prediction == "average")
    assert not torch.allclose(found["mode"], found["average"], atol=0.1)
    for mean in found.values():
        assert float((mean.argmax(1) == case.data.y).double().mean()) > 0.8


def test_bad_arguments_and_the_config():
    with pytest.raises(ValueError, match=r"prediction: expected one of \['mode', 'average'\], got 'map'"):
        SoftmaxEvidence("map")
    assert SoftmaxEvidence().config() == {"type": "softmax", "prediction": "mode"}


@torch.no_grad()
@pytest.mark.parametrize("variance", [10.0, 1e3, 1e4])
def test_first_steps_in_float32_change_neither_the_value_nor_the_number_of_steps(variance, monkeypatch):
    """At large scales float32 has noise in which steps never become small."""
    generator = torch.Generator().manual_seed(0)
    data = Data(torch.zeros(60, 1), torch.randint(4, (60,), generator=generator), num_classes=4)
    white = white_of(kernel_matrix(60, variance))
    steps, dtypes = [], []
    module = bayesinv.evidence.propagation
    original, cavities = module.matched, module.Cavities
    monkeypatch.setattr(module, "Cavities", lambda white, *a: dtypes.append(white.V.dtype) or cavities(white, *a))
    monkeypatch.setattr(module, "matched", lambda *a: steps.append(1) or original(*a))
    monkeypatch.setattr(bayesinv.evidence.softmax, "VALUE_TOLERANCE", 1e-3)
    found = []
    for largest in (0.0, module.LARGEST_ROUGH):
        monkeypatch.setattr(module, "LARGEST_ROUGH", largest)
        before = len(steps)
        assert torch.float32 not in dtypes
        found.append((float(evidence_for(data).bound(white, data)), len(steps) - before))
    assert found[1][0] == pytest.approx(found[0][0], abs=0.02)
    assert found[1][1] <= found[0][1] + 4
    assert torch.float32 in dtypes and dtypes[-1] == torch.float64


@torch.no_grad()
def test_labels_that_the_cavity_rules_out_are_matched_in_float64():
    """Their parts are below what float32 holds."""
    mean = torch.zeros(3, 4, dtype=torch.float64)
    mean[0, 0], mean[1, 1] = -60.0, -25.0
    y, variance = torch.tensor([0, 1, 2]), torch.full((3, 1), 4.0, dtype=torch.float64)
    module = bayesinv.evidence.propagation
    got = module.matched(mean, variance, *module.expected_slopes(mean, variance, y))
    _, alpha, beta = module.expected_softmax(mean, variance, y)
    alpha = alpha - alpha.mean(-1, keepdim=True)
    nu = ((alpha.square().sum(-1, keepdim=True) - 2.0 * beta) / 3).clamp_min(0.0)
    torch.testing.assert_close(
        got[1], (alpha + nu * mean) / (1.0 - variance * nu).clamp_min(1e-3), rtol=1e-3, atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize(("moved", "runs"), [(0.01, 1), (0.5, 2)])
def test_warm_sites_that_do_not_settle_are_begun_anew(moved, runs, monkeypatch):
    """Those that nearly settle are taken, since the evidence is stationary there."""
    generator = torch.Generator().manual_seed(0)
    data = Data(torch.zeros(60, 1), torch.randint(4, (60,), generator=generator), num_classes=4)
    evidence, module = evidence_for(data), bayesinv.evidence.softmax
    value = float(evidence.bound(white_of(kernel_matrix(60, 100.0)), data))
    starts, original = [], module.settled

    def settled(white, y, sites, *rest):
        starts.append(sites[0])
        found = original(white, y, sites, *rest)
        return dataclasses.replace(found, moved=moved) if len(starts) == 1 else found

    monkeypatch.setattr(module, "settled", settled)
    again = float(evidence.bound(white_of(kernel_matrix(60, 100.0)), data))
    assert len(starts) == runs
    assert float(starts[0].std()) > 1e-3  # warm
    assert float(starts[-1].std() < 1e-6) == runs - 1  # nothing yet
    assert again == pytest.approx(value, abs=0.03)


@torch.no_grad()
@pytest.mark.parametrize(
    ("num_inputs", "num_classes", "variance", "lengthscale"),
    [(60, 2, 1e5, 0.1), (60, 4, 1e5, 1.0), (60, 10, 1e3, 0.3), (60, 30, 1e3, 1.0)],
)
def test_values_are_those_of_the_fixed_point(num_inputs, num_classes, variance, lengthscale, monkeypatch):
    """Small steps may lie far from it where labels share a long lengthscale: damped ones once lost 20 nats there."""
    y = torch.arange(num_inputs) * num_classes // num_inputs
    data = Data(torch.zeros(num_inputs, 1), y, num_classes=num_classes)
    white = white_of(kernel_matrix(num_inputs, variance, lengthscale))
    value = float(evidence_for(data).bound(white, data))
    module = bayesinv.evidence.softmax
    moves, original = [], module.settled
    monkeypatch.setattr(module, "VALUE_TOLERANCE", 2e-5)
    monkeypatch.setattr(module, "settled", lambda *a: moves.append(original(*a)) or moves[-1])
    assert value == pytest.approx(float(evidence_for(data).bound(white, data)), abs=0.05)
    assert moves[-1].moved < 2e-5  # else the reference is none


@torch.no_grad()
def test_sites_at_the_fixed_point_have_the_moments_of_the_tilted_distributions():
    from bayesinv.evidence.propagation import settled

    data = labels(*[0, 0, 1, 1, 2, 2, 0, 1], num_classes=3)
    white, offset = white_of(kernel_matrix(8, 30.0)), torch.zeros(3, dtype=torch.float64)
    fresh = torch.full((8, 1), 0.3, dtype=torch.float64), torch.zeros(8, 3, dtype=torch.float64)
    sites = settled(white, data.y, fresh, offset, 1e-4)
    assert sites.moved < 1e-4
    precision, b = sites.precision, sites.b
    m, s = sites.cavities.means(b), sites.cavities.variance
    draws = torch.randn(400_000, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = m + s.sqrt() * draws
    w = f.log_softmax(-1)[:, torch.arange(8), data.y].softmax(0)
    mean = torch.einsum("jn,jnc->nc", w, f)
    away = f - mean
    away = away - away.mean(-1, keepdim=True)
    variance = torch.einsum("jn,jnc->n", w, away.square()) / 2  # of two contrasts
    torch.testing.assert_close(variance, (s / (1.0 + s * precision))[:, 0], atol=0, rtol=0.02)
    product = (m + s * b) / (1.0 + s * precision)  # of cavity and site, without what is common to the classes
    torch.testing.assert_close(
        mean - mean.mean(1, keepdim=True), product - product.mean(1, keepdim=True), atol=0.03, rtol=0
    )
