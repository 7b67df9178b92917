"""The stochastic evidence: the collapsed bound at its optimum, minibatches, quadrature, gradients, any likelihood."""

import copy
import json
import warnings

import gpytorch
import numpy as np
import pyro
import pytest
import torch

import bayesinv
from bayesinv.data.container import Data
from bayesinv.errors import NotConvergedWarning
from bayesinv.evidence import GaussianEvidence, StochasticGPEvidence, evidence_from_config
from bayesinv.evidence.basis import Whitened, whitened_inducing
from bayesinv.testing import evidences
from bayesinv.testing.evidences import EvidenceCase
from bayesinv.transforms import Affine2d

ETA = torch.tensor([0.1, 0.4], dtype=torch.float64)


class SeededCase(EvidenceCase):
    """The same draws of f at every evaluation."""

    def value(self, eta=None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return super().value(eta)


def make_case(likelihood="gaussian", num_inputs=6, num_inducing=4, num_samples=4, **options) -> SeededCase:
    """A small problem with q moved off its start."""
    generator = torch.Generator().manual_seed(1)
    t = torch.linspace(-1, 1, 8, dtype=torch.float64)
    shift = torch.linspace(-0.5, 0.5, num_inputs, dtype=torch.float64)
    x = torch.exp(-8 * ((t[:, None] - shift[:, None, None]) ** 2 + 0.5 * (t - 0.2) ** 2))[:, None]
    x = x + 0.05 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    y = torch.randn(num_inputs, 2, generator=generator, dtype=torch.float64) + 3.0
    data = Data(x, y) if likelihood == "gaussian" else Data(x, torch.arange(num_inputs) % 3, num_classes=3)
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=num_inducing),
        Affine2d(["translate_x", "rotation"]),
        likelihood=likelihood,
        evidence=StochasticGPEvidence(likelihood, **options),
        num_orbit_samples=num_samples,
        precision="double",
    )
    model.initialise(data)
    q = model.evidence.variational
    with torch.no_grad():
        for p in q.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return SeededCase(model, data, ETA)


def set_optimum(case: EvidenceCase) -> None:
    """The best q for normal noise in closed form: S = (I + V Vᵀ/σ²)⁻¹, μ = S V (y - m)/σ²."""
    evidence = case.model.evidence
    with torch.no_grad():
        V = whitened_inducing(case.model.at(case.eta), case.data.x).V
        noise = evidence.observation.noise
        S = torch.linalg.inv(torch.eye(len(V), dtype=V.dtype) + V @ V.T / noise)
        evidence.variational.variational_mean.copy_((S @ V @ (case.data.y - evidence.mean) / noise).T)
        evidence.variational.chol_variational_covar.copy_(torch.linalg.cholesky(S).expand(2, -1, -1))


def collapsed_value(case: EvidenceCase) -> float:
    """Titsias' bound at the case's means: that of the collapsed evidence without a residual, less the trace term."""
    evidence = GaussianEvidence()
    evidence.initialise(case.data)
    with torch.no_grad():
        evidence.noise_model.noise = case.model.evidence.observation.noise
        evidence.mean.copy_(case.model.evidence.mean)
        white = whitened_inducing(case.model.at(case.eta), case.data.x)
        trace = 0.5 * case.data.y.shape[1] * (white.residual / evidence.noise).sum()
        return float(evidence.bound(Whitened(white.V, torch.zeros_like(white.residual)), case.data) - trace)


def test_at_the_best_q_it_is_the_collapsed_bound_and_below_it_elsewhere():
    case = make_case()
    bound = collapsed_value(case)
    assert float(case.value().detach()) < bound - 0.01
    set_optimum(case)
    assert float(case.value().detach()) == pytest.approx(bound, abs=1e-6)
    gradients = torch.autograd.grad(case.value(), list(case.model.evidence.variational.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-6


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_q_starts_at_the_collapsed_solution_without_a_transform(covariance):
    case = make_case(covariance=covariance)
    case.model.initialise(case.data)
    still = SeededCase(case.model, case.data, torch.zeros(2, dtype=torch.float64))
    bound = collapsed_value(still)
    if covariance == "full":
        assert float(still.value().detach()) == pytest.approx(bound, abs=1e-6)
        return
    best = float(still.value().detach())
    q = case.model.evidence.variational
    assert best < bound
    gradients = torch.autograd.grad(still.value(), list(q.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-6


def test_the_divergence_and_the_marginals_are_those_of_the_normal_distributions():
    for covariance in ("full", "diagonal"):
        case = make_case("categorical", covariance=covariance)
        evidence = case.model.evidence
        q = evidence.variational()
        unit = torch.distributions.MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
        dense = torch.distributions.MultivariateNormal(q.mean, q.covariance_matrix)
        by_torch = torch.distributions.kl_divergence(dense, unit.expand((3,))).sum()
        assert float(evidence.divergence().detach()) == pytest.approx(float(by_torch.detach()))
        white = whitened_inducing(case.model.at(ETA), case.data.x)
        mean, variance = evidence.marginals(white)
        cov = torch.einsum("mi,cmk,ki->ic", white.V, q.covariance_matrix, white.V) + white.residual[:, None]
        torch.testing.assert_close(variance, cov)
        torch.testing.assert_close(mean, evidence.mean + (q.mean @ white.V).T)


@pytest.mark.parametrize("observation", [None, gpytorch.likelihoods.StudentTLikelihood()])
def test_the_mean_over_a_partition_is_the_value_on_all_data(observation):
    case = make_case(observation=observation)
    prior = case.model.at(ETA)
    whole = float(case.value().detach())
    parts = [case.data.subset(slice(a, a + 2)) for a in (0, 2, 4)]
    values = [float(case.model.evidence.log_evidence(prior, part, 6).detach()) for part in parts]
    assert max(values) - min(values) > 0.1
    assert sum(values) / 3 == pytest.approx(whole, abs=1e-8)
    # Through the model too: the orbit of a Gaussian process is part of it, and the same for every minibatch.
    assert float(case.model.log_evidence(ETA, parts[0], 6).detach()) == pytest.approx(values[0], abs=1e-8)


def test_the_softmax_expectation_agrees_with_quadrature_for_two_classes():
    case = make_case("categorical", num_samples=4, num_inputs=4)
    data = Data(case.data.x, torch.tensor([0, 1, 1, 0]), num_classes=2)
    case.model.evidence.num_samples = 40_000
    case.model.initialise(data)
    evidence, prior = case.model.evidence, case.model.at(ETA)
    with torch.no_grad():
        mean, variance = evidence.marginals(whitened_inducing(prior, data.x))
        torch.manual_seed(0)
        value = float(evidence.log_evidence(prior, data)) + float(evidence.divergence())
    # log softmax(f)_y = log σ(±(f_1 - f_0)): one normal variable per input
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    sign = np.where(data.y.numpy() == 1, 1.0, -1.0)
    d = (mean[:, 1] - mean[:, 0]).numpy()[:, None] + variance.sum(1).sqrt().numpy()[:, None] * nodes
    expected = float((-np.logaddexp(0.0, -sign[:, None] * d) @ weights).sum() / np.sqrt(2 * np.pi))
    assert value == pytest.approx(expected, abs=0.02)
    assert abs(expected) > 0.3


def test_a_batch_of_as_many_inputs_as_classes_is_not_transposed():
    case = make_case("categorical", num_inputs=3)
    f = torch.tensor([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0], [5.0, 0.0, 0.0]], dtype=torch.float64)
    log_p = case.model.evidence.log_likelihood(f, torch.tensor([0, 1, 2]))
    assert float(log_p[0]) > -0.1
    assert float(log_p[1]) == pytest.approx(float(log_p[2]))
    with pytest.raises(TypeError, match="transposed"):
        StochasticGPEvidence(observation=gpytorch.likelihoods.SoftmaxLikelihood(num_classes=3, mixing_weights=False))


CASES = [
    ("gaussian", {}),
    ("gaussian", {"covariance": "diagonal"}),
    ("gaussian", {"observation": gpytorch.likelihoods.StudentTLikelihood()}),
    ("categorical", {}),
    ("categorical", {"covariance": "diagonal"}),
]


@pytest.mark.parametrize(("likelihood", "options"), CASES)
@pytest.mark.parametrize(
    "check",
    [
        "gradient_in_extents",
        "gradient_in_hyperparameters",
        "blocks_agree",
        "repeatable",
        "mixed_precision",
        "likelihood",
    ],
)
def test_conformance(check, likelihood, options):
    evidences.CHECKS[check](make_case(likelihood, **options))


def test_it_converges_to_the_dense_orbit():
    evidences.check_converges_in_orbit(make_case())


@pytest.mark.parametrize("likelihood", ["gaussian", "categorical"])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_saved_state_restores_the_predictions(likelihood, covariance):
    case = make_case(likelihood, covariance=covariance)
    config = json.loads(json.dumps(case.model.config()))
    other = bayesinv.InvarianceModel.from_config(config)
    other.load_state(case.model.state_dict())
    for a, b in zip(
        case.model.function_posterior(case.data.x, case.data, ETA),
        other.function_posterior(case.data.x, case.data, ETA),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_predictions_of_a_users_likelihood_have_its_spread():
    student = gpytorch.likelihoods.StudentTLikelihood()
    student.noise, student.deg_free = 0.3, 5.0
    case = make_case(observation=student)
    extents = ETA[None]
    prediction = case.model.predict(case.data.x, case.data, extents, num_function_samples=4000)
    mean, variance = case.model.function_posterior(case.data.x, case.data, ETA)
    torch.testing.assert_close(prediction.mean, mean.detach(), atol=0.1, rtol=0)
    # a Student t with 5 degrees of freedom and scale² 0.3 has the variance 0.3 · 5/3
    torch.testing.assert_close(prediction.variance, variance.detach() + 0.5, atol=0.1, rtol=0.1)
    by_hand = [case.model.evidence.conditional(mean[:, [c]]).log_prob(case.data.y[:, [c]])[:, 0] for c in range(2)]
    torch.testing.assert_close(case.model.evidence.log_likelihood(mean, case.data.y), sum(by_hand))
    assert case.model.evidence.sample_targets(mean).shape == mean.shape


def test_priors_on_the_likelihood_count():
    prior = gpytorch.priors.GammaPrior(2.0, 3.0)
    case = make_case(observation=gpytorch.likelihoods.GaussianLikelihood(noise_prior=prior))
    expected = float(prior.log_prob(case.model.evidence.observation.noise.detach()))
    assert float(case.model.evidence.log_hyperprior().detach()) == pytest.approx(expected)
    assert float(make_case().model.evidence.log_hyperprior()) == 0.0


def test_draws_of_the_function_are_no_sites_of_the_model():
    """GPyTorch draws through pyro.sample; as a site, f would be learned by the guide."""
    case = make_case("categorical")
    trace = pyro.poutine.trace(case.model).get_trace(case.data, 12)
    assert set(trace.stochastic_nodes) == {"extent_translate_x", "extent_rotation"}


def test_fit_trains_everything_in_one_phase_and_the_same_seed_gives_the_same_result():
    train = bayesinv.datasets.digits(rotation=0.8, num_train=60, seed=0).train
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=15), "rotation", evidence="stochastic", num_orbit_samples=4
    )
    before = copy.deepcopy(model.state_dict())
    training = bayesinv.Training(batch_size=20, extent_batch_size=20)
    one, two = (bayesinv.fit(model, train, seed=1, max_steps=30, training=training, num_draws=20) for _ in range(2))
    assert torch.equal(one.result.extents, two.result.extents)
    assert np.mean(one.trace[-10:]) > np.mean(one.trace[:5])
    start = copy.deepcopy(model)
    start.initialise(train, 1)
    for name in ("evidence.variational.variational_mean", "evidence.mean", "backbone.inducing"):
        assert not torch.equal(one.model.state_dict()[name].cpu(), start.state_dict()[name]), name
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert one.predict(train.x).probs.shape == (60, 10)


@pytest.mark.slow
def test_the_extent_of_turned_digits_is_found_from_minibatches():
    found = {}
    for name, angle in (("upright", None), ("turned", 0.785)):
        train, test = bayesinv.datasets.digits(rotation=angle, num_train=300, seed=0)
        model = bayesinv.InvarianceModel(
            bayesinv.GaussianProcess(num_inducing=80), "rotation", evidence="stochastic", num_orbit_samples=12
        )
        with warnings.catch_warnings():  # the kernel takes longer than the extents, and what is asked here is coarse
            warnings.simplefilter("ignore", NotConvergedWarning)
            posterior = bayesinv.fit(model, train, seed=0, max_steps=200, training=bayesinv.Training(batch_size=60))
        found[name] = float(posterior.quantile(0.5)[0])
        accuracy = float((posterior.predict(test.x).labels == test.y).double().mean())
        assert accuracy > 0.85
    assert found["turned"] > 1.0 > 3 * found["upright"]


def test_a_file_cannot_rebuild_a_users_likelihood_and_bad_arguments_are_named():
    case = make_case(observation=gpytorch.likelihoods.StudentTLikelihood())
    with pytest.raises(ValueError, match="observation model is the user's own"):
        evidence_from_config(case.model.evidence.config())
    with pytest.raises(ValueError, match=r"covariance: expected one of .*'diagonal'"):
        StochasticGPEvidence(covariance="low-rank")
    with pytest.raises(ValueError, match="num_samples"):
        StochasticGPEvidence(num_samples=0)
    with pytest.raises(TypeError, match="observation"):
        StochasticGPEvidence(observation="student")
    with pytest.raises(TypeError, match="expected probabilities of classes for labels"):
        make_case("categorical", observation=gpytorch.likelihoods.StudentTLikelihood())
    with pytest.raises(ValueError, match="likelihood"):
        bayesinv.InvarianceModel(
            bayesinv.GaussianProcess(), "rotation", likelihood="gaussian", evidence=StochasticGPEvidence()
        )
