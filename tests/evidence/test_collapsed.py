"""The collapsed evidences: conformance, closed forms, quadrature, and wrong ones to reject."""

import math

import numpy as np
import pytest
import torch
from linear_operator.utils.warnings import NumericalWarning

import bayesinv
from bayesinv.data import Data
from bayesinv.errors import NumericalError
from bayesinv.evidence import DirichletEvidence, GaussianEvidence, PolyaGammaEvidence, as_evidence
from bayesinv.evidence.collapsed import Sites, Whitened
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.testing.evidences import EvidenceCase, EvidenceConformance, check_evidence


class TestGaussian(EvidenceConformance):
    def make_evidence(self):
        return GaussianEvidence()


class TestDirichlet(EvidenceConformance):
    def make_evidence(self):
        return DirichletEvidence()


class TestPolyaGamma(EvidenceConformance):
    def make_evidence(self):
        return PolyaGammaEvidence()


def dense_covariance(case):
    return case.model.at(case.eta).covariance(case.data.x)


def normal_log_density(target, mean, covariance):
    normal = torch.distributions.MultivariateNormal(mean.expand(len(target)), covariance)
    return float(normal.log_prob(target))


def test_gaussian_evidence_is_the_normal_density_of_the_targets():
    case = EvidenceCase.of(GaussianEvidence())
    with torch.no_grad():
        evidence, _ = case.dense()
        K = dense_covariance(case)
        noise = case.model.evidence.noise * torch.eye(len(K), dtype=K.dtype)
        expected = sum(normal_log_density(case.data.y[:, c], case.model.evidence.mean[c], K + noise) for c in range(2))
    assert float(evidence) == pytest.approx(expected, abs=1e-5)


def test_dirichlet_evidence_is_the_normal_density_of_the_log_concentrations():
    alpha_0 = 0.05
    case = EvidenceCase.of(DirichletEvidence(alpha=alpha_0))
    expected = 0.0
    with torch.no_grad():
        evidence, _ = case.dense()
        K = dense_covariance(case)
        for c in range(3):
            alpha = alpha_0 + (case.data.y == c).double()
            variance = torch.log(1.0 / alpha + 1.0)  # Milios et al., 2018, eq. 5
            target = torch.log(alpha) - variance / 2.0
            expected += normal_log_density(target, case.model.evidence.mean[c], K + torch.diag(variance))
    assert float(evidence) == pytest.approx(expected, abs=1e-5)


def test_polya_gamma_is_below_the_quadrature_evidence_and_close_to_it():
    """Two inputs, one-against-rest logistics; the exact evidence by Gauss-Hermite quadrature."""
    case = EvidenceCase.of(PolyaGammaEvidence(), num_inputs=2)
    data = Data(case.data.x, torch.tensor([0, 1]), num_classes=2)
    case.model.initialise(data)
    case = EvidenceCase(case.model, data, case.eta)
    with torch.no_grad():
        bound = float(case.dense()[0])
        L = cholesky(dense_covariance(case), "k_ff").numpy()
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
        w = np.outer(weights, weights).reshape(-1) / (2.0 * math.pi)
        exact = 0.0
        for c, mean in enumerate(case.model.evidence.mean.tolist()):
            sign = np.where(data.y.numpy() == c, 1.0, -1.0)
            f = mean + z @ L.T
            exact += math.log(w @ np.exp(-np.logaddexp(0.0, -sign * f).sum(1)))
    assert bound < exact
    assert bound == pytest.approx(exact, abs=0.25)


def test_collapsed_bound_agrees_with_gpytorch_for_one_copy():
    """Without an orbit and with Z = X it is GPyTorch's exact marginal likelihood."""
    import gpytorch

    x, y = torch.rand(12, 3, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5)).double()
    evidence = GaussianEvidence()
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(kernel, inducing_points=x),
        Flip(),
        likelihood="gaussian",
        evidence=evidence,
        priors={"flip": None},
    )
    data = Data(x, y)
    model.initialise(data)
    with torch.no_grad():
        value = float(model.log_evidence(torch.zeros(1, dtype=torch.float64), data))
        normal = gpytorch.distributions.MultivariateNormal(
            evidence.mean.expand(12), model.backbone.kernel(x).add_diagonal(evidence.noise)
        )
        expected = float(normal.log_prob(y[:, 0]))
    assert value == pytest.approx(expected, abs=1e-3)


class Flip(bayesinv.Transform):
    """x -> (1 - 2t) x, for inputs of any shape."""

    @property
    def coordinates(self):
        from bayesinv.transforms import Coordinate

        return (Coordinate("flip", "%", 1.0, lambda t: 100.0 * t, lambda p: p / 100.0, "a share of a sign flip"),)

    def transform(self, x, t):
        return x * (1.0 - 2.0 * t).reshape(-1, *([1] * (x.ndim - 1)))


class WithoutTraceTerm(GaussianEvidence):
    """Forgets the variance that the inducing values leave: no longer a bound."""

    def bound(self, white, data):
        return super().bound(white, data) + 0.5 * (self.sites(white, data).precision.sum(1) * white.residual).sum()


class DetachedExtents(GaussianEvidence):
    """Has no gradient in the extents."""

    def log_evidence(self, prior, data, num_total=None):
        prior.eta = prior.eta.detach() + 0.0 * prior.eta
        return super().log_evidence(prior, data)


class WrongGram(DirichletEvidence):
    """Uses the low precision for every label."""

    def weighted_gram(self, V, sites, data):
        return (self._levels()[0] * (V @ V.T)).expand(data.num_classes, -1, -1)


class Drifting(GaussianEvidence):
    """Gives another number every time."""

    calls = 0

    def log_evidence(self, prior, data, num_total=None):
        self.calls += 1
        return super().log_evidence(prior, data) + 0.01 * self.calls


@pytest.mark.parametrize("broken", [WithoutTraceTerm, DetachedExtents, WrongGram, Drifting])
def test_the_suite_rejects_a_wrong_evidence(broken):
    with pytest.raises(AssertionError):
        check_evidence(broken())


def test_dirichlet_gram_equals_the_direct_sum():
    case = EvidenceCase.of(DirichletEvidence())
    V = torch.randn(5, len(case.data), dtype=torch.float64)
    white = Whitened.of(case.model.at(case.eta), case.data.x)
    sites = case.model.evidence.sites(white, case.data)
    gram = case.model.evidence.weighted_gram(V, sites, case.data)
    direct = torch.einsum("mn,nc,kn->cmk", V, sites.precision, V)
    torch.testing.assert_close(gram, direct)


def test_classes_that_do_not_occur_are_allowed():
    case = EvidenceCase.of(DirichletEvidence())
    data = Data(case.data.x, case.data.y, num_classes=5)
    case.model.initialise(data)
    assert torch.isfinite(case.model.log_evidence(case.eta, data))


@pytest.mark.parametrize("evidence", [DirichletEvidence(), PolyaGammaEvidence()])
def test_class_probabilities_sum_to_one(evidence):
    f = 3.0 * torch.randn(4, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(evidence.log_probabilities(f).exp().sum(-1), torch.ones(4, 6, dtype=torch.float64))


def test_jitter_escalates_and_then_gives_up_by_name():
    singular = torch.ones(4, 4, dtype=torch.float64)
    singular[0, 0] -= 1e-7
    with pytest.warns(NumericalWarning, match="not p.d."):
        factor = cholesky(singular, "a nearly singular matrix")
    torch.testing.assert_close(factor @ factor.T, singular, atol=1e-3, rtol=0.0)
    with (
        pytest.raises(NumericalError, match=r"the broken one .* is not positive definite"),
        pytest.warns(NumericalWarning),
    ):
        cholesky(
            -torch.eye(3, dtype=torch.float64) + 1.01 * torch.ones(3, 3, dtype=torch.float64),
            "the broken one",
        )
    with pytest.raises(NumericalError, match="is not finite"):
        cholesky(torch.full((2, 2), float("nan"), dtype=torch.float64), "nan")


@pytest.mark.parametrize(
    ("evidence", "likelihood", "message"),
    [
        ("dirchlet", "categorical", 'expected "auto" or one of'),
        ("gaussian", "categorical", "is for likelihood='gaussian'"),
        ("auto", "poisson", "likelihood: expected one of"),
    ],
)
def test_unfitting_evidence_names_the_choices(evidence, likelihood, message):
    with pytest.raises(ValueError, match=message):
        as_evidence(evidence, likelihood)


def test_polya_gamma_fixed_point_that_does_not_settle_says_so(monkeypatch):
    monkeypatch.setattr("bayesinv.evidence.polya_gamma.MAX_STEPS", 1)
    with pytest.raises(NumericalError, match="still moved by"):
        EvidenceCase.of(PolyaGammaEvidence()).value()


def test_polya_gamma_settles_at_large_scales():
    """A prior variance of 500: c is near 20, where an absolute tolerance would never be met."""
    case = EvidenceCase.of(PolyaGammaEvidence())
    case.model.backbone.kernel.outputscale = 500.0
    assert torch.isfinite(case.value().detach())


def test_sites_reproduce_the_logistic_at_their_own_c():
    """The Pólya-Gamma bound touches log σ(y f) at f = ±c and lies below it elsewhere."""
    from bayesinv.evidence.polya_gamma import _sites_at

    c = torch.tensor([[0.7]], dtype=torch.float64)
    sign = torch.tensor([[-1.0]], dtype=torch.float64)
    sites: Sites = _sites_at(c, sign)
    f = torch.linspace(-6, 6, 241, dtype=torch.float64)
    bound = sites.constant - 0.5 * sites.precision[0, 0] * (f - sites.target[0, 0]).square()
    exact = torch.nn.functional.logsigmoid(sign[0, 0] * f)
    assert bool((bound <= exact + 1e-12).all())
    assert float((exact - bound)[(f.abs() - 0.7).abs() < 1e-9].max()) < 1e-12
