"""The collapsed evidences: conformance, closed forms, bounds, offsets, and wrong ones to reject."""

import contextlib
import copy

import pytest
import torch
from linear_operator.utils.warnings import NumericalWarning

import bayesinv
from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.evidence import DirichletEvidence, GaussianEvidence, SoftmaxEvidence, as_evidence, evidence_from_config
from bayesinv.evidence.collapsed import Whitened
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.evidence.propagation import Cavities, Sites
from bayesinv.testing.evidences import SETTINGS, EvidenceCase, EvidenceConformance, check_evidence, check_repeatable


class TestGaussian(EvidenceConformance):
    def make_evidence(self):
        return GaussianEvidence()


class TestGaussianFITC(EvidenceConformance):
    def make_evidence(self):
        return GaussianEvidence(residual="fitc")


class TestDirichlet(EvidenceConformance):
    def make_evidence(self):
        return DirichletEvidence()


class TestDirichletFITC(EvidenceConformance):
    def make_evidence(self):
        return DirichletEvidence(residual="fitc")


class TestSoftmaxAtItsMode(EvidenceConformance):
    value_tolerance, gradient_tolerance = 3e-3, 1e-3

    def make_evidence(self):
        return SoftmaxEvidence()


class TestSoftmaxAveraged(EvidenceConformance):
    value_tolerance, gradient_tolerance = 3e-3, 1e-3

    def make_evidence(self):
        return SoftmaxEvidence("average")


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
        noise = case.evidence.noise * torch.eye(len(K), dtype=K.dtype)
        constant = case.evidence.offset_variance * torch.ones_like(K)
        expected = sum(
            normal_log_density(case.data.y[:, c], case.evidence.mean[c], K + constant + noise) for c in range(2)
        )
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
            K_c = K + case.evidence.offset_variance * torch.ones_like(K)
            expected += normal_log_density(target, case.evidence.mean[c], K_c + torch.diag(variance))
    assert float(evidence) == pytest.approx(expected, abs=1e-5)


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
        K = model.backbone.kernel(x).to_dense() + evidence.offset_variance
        normal = gpytorch.distributions.MultivariateNormal(
            evidence.mean.expand(12), K + evidence.noise * torch.eye(12, dtype=torch.float64)
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


class WithoutResidual(GaussianEvidence):
    """Forgets the variance that the inducing values leave: no longer a bound."""

    def bound(self, white, data):
        return super().bound(Whitened(white.V, torch.zeros_like(white.residual)), data)


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


class KnownMean(GaussianEvidence):
    """Forgets that the mean of the outputs is unknown."""

    def whitened(self, prior, data):
        basis, white = super().whitened(prior, data)
        return basis, Whitened(torch.cat([white.V[:-1], 0.0 * white.V[-1:]]), white.residual)


class StaysAtTheWarmStart(SoftmaxEvidence):
    """Takes the sites of other extents for its own."""

    def _fixed_point(self, white, *rest):
        groups = len(white.V) if white.V.ndim == 3 else 1
        if self.warm_start is None:
            return super()._fixed_point(white, *rest)
        precision, b = self.warm_start[:, :groups].exp(), self.warm_start[:, groups:]
        return Sites(precision, b, 0.0, Cavities(white.detached(), precision, self._offset))


@pytest.mark.parametrize("broken", [WithoutResidual, DetachedExtents, WrongGram, Drifting, KnownMean])
def test_the_suite_rejects_a_wrong_evidence(broken):
    with pytest.raises(AssertionError):
        check_evidence(broken())


@pytest.mark.parametrize(("evidence", "accepted"), [(SoftmaxEvidence, True), (StaysAtTheWarmStart, False)])
def test_the_suite_rejects_sites_of_other_extents(evidence, accepted):
    """With the tolerance with which it accepts the evidence as it is."""
    options = SETTINGS["as many inducing values as inputs"]
    case = EvidenceCase.of(evidence(), **options, value_tolerance=TestSoftmaxAtItsMode.value_tolerance)
    with contextlib.nullcontext() if accepted else pytest.raises(AssertionError, match="values at the same extents"):
        check_repeatable(case)


def test_the_suite_names_the_setting_that_fails():
    with pytest.raises(AssertionError) as caught:
        check_evidence(WrongGram(), {"exact": SETTINGS["exact"], "few features": SETTINGS["few features"]})
    assert caught.value.__notes__ == ["in the setting 'few features'"]  # only there the products are used


def random_white(seed, n=7, M=4, residual=1.0):
    generator = torch.Generator().manual_seed(seed)
    V = torch.randn(M, n, generator=generator, dtype=torch.float64)
    return Whitened(V, residual * torch.rand(n, generator=generator, dtype=torch.float64))


def random_problem(evidence, seed):
    """An evidence that has met random targets, and the targets."""
    generator = torch.Generator().manual_seed(100 + seed)
    x = torch.zeros(7, 1)
    if evidence.likelihood == "gaussian":
        data = Data(x, torch.randn(7, 2, generator=generator, dtype=torch.float64))
    else:
        data = Data(x, torch.randint(3, (7,), generator=generator), num_classes=3)
    evidence.initialise(data)
    return data


@torch.no_grad()
@pytest.mark.parametrize("kind", [GaussianEvidence, DirichletEvidence])
def test_the_bound_lies_between_that_of_titsias_and_the_exact_evidence(kind):
    """½ Σ log(1 + λd) is less than ½ Σ λd, and no less than what the residual takes from the evidence."""
    gains = []
    for seed in range(50):
        evidence = kind()
        data = random_problem(evidence, seed)
        white = random_white(seed)
        # The residual as the diagonal of a covariance of any rank: coordinates of the exact evidence.
        generator = torch.Generator().manual_seed(seed)
        rest = torch.randn(int(torch.randint(1, 9, (), generator=generator)), 7, generator=generator).double()
        white = Whitened(white.V, rest.square().sum(0))
        exact = Whitened(torch.cat([white.V, rest]), torch.zeros_like(white.residual))
        precision = evidence.sites(data).precision.expand(-1, data.num_outputs)
        trace = 0.5 * (precision * white.residuals).sum()
        without = evidence.bound(Whitened(white.V, torch.zeros_like(white.residual)), data)
        bound = evidence.bound(white, data)
        assert without - trace < bound < evidence.bound(exact, data)
        gains.append(float((bound - without + trace) / trace))
    assert min(gains) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("kind", [GaussianEvidence, DirichletEvidence])
def test_fitc_is_the_density_with_the_residual_as_noise(kind):
    """Where V leaves a diagonal, which is the assumption of FITC, it is exact and above the bound."""
    evidence = kind(residual="fitc")
    data, white = random_problem(evidence, 3), random_white(3)
    exact = Whitened(torch.cat([white.V, torch.diag(white.residual.sqrt())]), torch.zeros_like(white.residual))
    bound = copy.deepcopy(evidence)
    bound.residual = "bound"
    torch.testing.assert_close(evidence.bound(white, data), evidence.bound(exact, data))
    assert bound.bound(white, data) < evidence.bound(white, data)
    with pytest.raises(ValueError, match="residual: expected one of"):
        kind(residual="trace")


@torch.no_grad()
def test_an_unknown_mean_is_a_constant_covariance():
    """Offsets N(m, τ²) for every output: the density of the targets under K + τ²11ᵀ."""
    for space in ("features", "inducing", "exact"):
        case = EvidenceCase.of(GaussianEvidence(), space=space, size=8)
        evidence, n = case.evidence, len(case.data)
        values = []
        for variance in (0.0, 0.7, 20.0):
            evidence.offset_variance.fill_(variance)
            white = case.whitened()
            K = white.V[:-1].T @ white.V[:-1] + variance * torch.ones(n, n, dtype=torch.float64)
            noise = evidence.noise * torch.eye(n, dtype=torch.float64)
            expected = sum(normal_log_density(case.data.y[:, c], evidence.mean[c], K + noise) for c in range(2))
            expected -= float(torch.log1p(white.residual / evidence.noise).sum())  # half of it, for two outputs
            values.append(float(case.value()))
            assert values[-1] == pytest.approx(expected, abs=1e-6)
        assert len({round(value, 3) for value in values}) == 3


@torch.no_grad()
def test_unknown_means_shift_predictions_with_the_targets():
    """Far from zero, with the fixed part at zero, an unknown mean of large variance finds the targets' own."""
    case = EvidenceCase.of(GaussianEvidence(), space="features", size=8)
    case.evidence.mean = torch.zeros(2, dtype=torch.float64)
    case.evidence.offset_variance.fill_(1e6)
    far = Data(case.data.x, case.data.y + 100.0)
    near, _ = case.model.function_posterior(case.data.x, case.data, case.eta)
    moved, _ = case.model.function_posterior(case.data.x, far, case.eta)
    torch.testing.assert_close(moved, near + 100.0, atol=0.02, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("evidence", [GaussianEvidence(), DirichletEvidence(), SoftmaxEvidence("average")])
@pytest.mark.parametrize("space", ["features", "inducing", "exact"])
def test_a_conditioned_function_answers_again(evidence, space):
    case = EvidenceCase.of(evidence, space=space, size=8)
    known = case.evidence.condition(case.model.at(case.eta), case.data)
    for rows in (slice(0, 2), slice(0, 6)):
        mean, variance = known.moments(case.data.x[rows])
        expected = case.model.function_posterior(case.data.x[rows], case.data, case.eta)
        torch.testing.assert_close((mean, variance), expected, atol=1e-5, rtol=1e-5)
        assert mean.shape == variance.shape


@torch.no_grad()
@pytest.mark.parametrize("space", ["features", "inducing"])
@pytest.mark.parametrize("num_inputs", [6, 12])
@pytest.mark.parametrize("evidence", [GaussianEvidence(), DirichletEvidence(), GaussianEvidence(residual="fitc")])
def test_equal_extents_for_every_output_are_shared_ones(space, num_inputs, evidence):
    shared = EvidenceCase.of(evidence, num_inputs=num_inputs, space=space, size=8)
    names = ["a", "b", "c"][: shared.data.num_outputs]
    model = bayesinv.InvarianceModel(
        copy.deepcopy(shared.model.backbone),
        shared.model.transform,
        likelihood=evidence.likelihood,
        evidence=copy.deepcopy(shared.evidence),
        num_orbit_samples=4,
        precision="double",
        outputs=names,
    )
    eta = shared.eta.repeat(len(names))
    assert float(model.log_evidence(eta, shared.data)) == pytest.approx(float(shared.value()), abs=1e-6)
    got = model.function_posterior(shared.data.x[:3], shared.data, eta)
    expected = shared.model.function_posterior(shared.data.x[:3], shared.data, shared.eta)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_minibatches_are_refused():
    case = EvidenceCase.of(GaussianEvidence())
    with pytest.raises(ValueError, match="needs all 60 examples at once, got 6"):
        case.model.log_evidence(case.eta, case.data, 60)


def test_dirichlet_gram_equals_the_direct_sum():
    case = EvidenceCase.of(DirichletEvidence())
    V = torch.randn(5, len(case.data), dtype=torch.float64)
    sites = case.evidence.sites(case.data)
    gram = case.evidence.weighted_gram(V, sites, case.data)
    direct = torch.einsum("mn,nc,kn->cmk", V, sites.precision, V)
    torch.testing.assert_close(gram, direct)


def test_classes_that_do_not_occur_are_allowed():
    case = EvidenceCase.of(DirichletEvidence())
    data = Data(case.data.x, case.data.y, num_classes=5)
    case.model.initialise(data)
    assert torch.isfinite(case.model.log_evidence(case.eta, data))


@pytest.mark.parametrize("evidence", [DirichletEvidence(), SoftmaxEvidence()])
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
        pytest.raises(NumericalError, match=r"the broken one .* is not positive definite.* Remove duplicated"),
        pytest.warns(NumericalWarning),
    ):
        cholesky(
            -torch.eye(3, dtype=torch.float64) + 1.01 * torch.ones(3, 3, dtype=torch.float64),
            "the broken one",
        )
    with pytest.raises(NumericalError, match="Use fewer inducing points"), pytest.warns(NumericalWarning):
        cholesky(torch.eye(3, dtype=torch.float64) - 0.5, "k(Z, Z), the covariance of the inducing points")
    with pytest.raises(NumericalError, match="is not finite; look for NaN"):
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


def test_a_removed_evidence_names_its_successor():
    with pytest.raises(ValueError, match=r'no longer part of bayesinv.*use "softmax"'):
        as_evidence("polya_gamma", "categorical")
    with pytest.raises(ValueError, match=r'no longer part of bayesinv.*use "softmax"'):
        evidence_from_config({"type": "polya_gamma"})


@pytest.mark.parametrize(
    "evidence", [GaussianEvidence(residual="fitc"), DirichletEvidence(0.1, "fitc"), SoftmaxEvidence("average")]
)
def test_configs_come_back(evidence):
    again = evidence_from_config(evidence.config())
    assert type(again) is type(evidence)
    assert again.config() == evidence.config()
