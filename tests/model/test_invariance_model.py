"""The one Pyro model: its sites, simulation from the prior, prediction, configuration, bad arguments."""

import math

import gpytorch
import pytest
import torch
from pyro import poutine

import bayesinv
from bayesinv.data.container import Data
from bayesinv.extents.families import SITE_PREFIX
from bayesinv.model.hyperparameters import AMPLITUDE_SD, SCALE_SD


def small_model(**options):
    options = {"num_orbit_samples": 4, "precision": "double"} | options
    return bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), ["rotation", "translate_x"], **options)


@pytest.fixture
def images():
    return bayesinv.datasets.digits(size=8, num_train=24, seed=0).train


def test_sites_are_the_extents_and_one_evidence_factor(images):
    model = small_model(priors={"translate_x": 0.1})
    model.initialise(images)
    trace = poutine.trace(model).get_trace(images)
    sampled = [n for n, site in trace.nodes.items() if site["type"] == "sample" and not site["is_observed"]]
    assert sampled == [SITE_PREFIX + "rotation"]
    eta = torch.stack([trace.nodes["extent_rotation"]["value"], torch.tensor(0.1, dtype=torch.float64)])
    # Outputscale and lengthscale lie at the centre of their weak priors.
    weak = sum(-math.log(sd) - 0.5 * math.log(2.0 * math.pi) for sd in (AMPLITUDE_SD, SCALE_SD))
    expected = model.log_evidence(eta, images) + model.extents.log_prior(eta) + weak
    torch.testing.assert_close(trace.log_prob_sum(), expected)


def test_hyperpriors_are_counted_once(images):
    prior = gpytorch.priors.GammaPrior(2.0, 2.0)
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(lengthscale_prior=prior))
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(kernel, num_inducing=8), "rotation", num_orbit_samples=2)
    model.initialise(images)
    trace = poutine.trace(model).get_trace(images)
    lengthscale = model.backbone.kernel.base_kernel.lengthscale.sum()
    # The user's prior with the Jacobian of u = log(lengthscale), and the weak one of the outputscale at its centre.
    weak = -math.log(AMPLITUDE_SD) - 0.5 * math.log(2.0 * math.pi)
    expected = prior.log_prob(lengthscale) + lengthscale.log() + weak
    torch.testing.assert_close(trace.nodes["hyperpriors"]["fn"].log_factor, expected)


def test_simulated_functions_have_the_invariant_prior_covariance(images):
    model = small_model(likelihood="gaussian")
    model.backbone.initialise(images.x, output_variance=1.0, seed=0)
    eta = torch.tensor([0.5, 0.1], dtype=torch.float64)
    x = images.x[:3]
    K = model.at(eta).covariance(x)
    f = model.simulate(x, eta, num_outputs=4000, seed=1).function
    empirical = f @ f.T / f.shape[1]
    # the standard error of an entry of an empirical covariance is sqrt((K_ij² + K_ii K_jj) / draws)
    error = ((K.square() + torch.outer(K.diagonal(), K.diagonal())) / f.shape[1]).sqrt()
    assert bool(((empirical - K).abs() < 4.0 * error).all())


def test_simulation_is_exactly_invariant_for_a_group_orbit():
    """Four quarter turns: the orbit average of a turned image is that of the image."""

    class QuarterTurns(bayesinv.Transform):
        @property
        def coordinates(self):
            from bayesinv.transforms import Coordinate

            return (Coordinate("turns", "%", 1.0, lambda t: 100 * t, lambda p: p / 100, "quarter turns"),)

        def transform(self, x, t):
            turned = torch.stack([x.rot90(k, dims=(2, 3)) for k in range(4)])
            k = ((t[:, 0] + 1.0) * 2.0).long().clamp(max=3)
            return turned[k, torch.arange(len(x))]

    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=4), QuarterTurns(), likelihood="gaussian", num_orbit_samples=4
    )
    image = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    model.backbone.initialise(torch.rand(6, 1, 6, 6), output_variance=1.0, seed=0)
    both = torch.cat([image, image.rot90(1, dims=(2, 3))])
    f = model.simulate(both, torch.ones(1), seed=0).function
    # Sobol points in one dimension are one to a quarter, so that the orbit is the group; the jitter separates by 1e-3
    assert float((f[0] - f[1]).abs()) < 1e-2


def test_simulation_repeats_with_its_seed_and_leaves_the_global_generator(images):
    model = small_model()
    model.backbone.initialise(images.x, output_variance=1.0, seed=0)
    before = torch.random.get_rng_state()
    first, again, other = (model.simulate(images.x, num_outputs=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.testing.assert_close(first.function, again.function)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.function, other.function)
    assert set(first.y.tolist()) == {0, 1, 2}


def test_prediction_is_the_weighted_average_over_draws(images):
    model = small_model(likelihood="gaussian")
    data = Data(images.x, torch.randn(24, 2, dtype=torch.float64))
    model.initialise(data)
    extents = torch.tensor([[0.1, 0.1], [1.0, 0.3]], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    prediction = model.predict(images.x[:5], data, extents, weights)
    parts = [model.function_posterior(images.x[:5], data, eta) for eta in extents]
    mean = 0.3 * parts[0][0] + 0.7 * parts[1][0]
    noise = model.evidence.noise
    second = 0.3 * (parts[0][1] + noise + parts[0][0] ** 2) + 0.7 * (parts[1][1] + noise + parts[1][0] ** 2)
    torch.testing.assert_close(prediction.mean, mean.detach())
    torch.testing.assert_close(prediction.variance, (second - mean**2).detach())
    with pytest.raises(AttributeError, match="regression"):
        _ = prediction.labels
    with pytest.raises(ValueError, match="at least one draw"):
        model.predict(images.x, data, extents[:0], weights[:0])


def test_simulated_extents_and_functions_are_independent(images):
    """One seed for both would tie the function to the extents; a calibration study would then be wrong."""
    model = small_model(likelihood="gaussian")
    model.backbone.initialise(images.x, output_variance=1.0, seed=0)
    drawn = [model.simulate(images.x[:2], seed=seed) for seed in range(200)]
    extents = torch.stack([d.extents[0] for d in drawn])
    first = torch.stack([d.function[0, 0] for d in drawn])
    for wave in (torch.cos, torch.sin):  # Box-Muller turns the shared uniform draws into these
        correlation = torch.corrcoef(torch.stack([wave(2.0 * extents), first]))[0, 1]
        assert abs(float(correlation)) < 4.0 / math.sqrt(len(drawn))


def test_simulation_says_what_it_cannot_do(images):
    model = small_model()
    model.backbone.initialise(images.x, output_variance=1.0, seed=0)
    with pytest.raises(ValueError, match="number of classes, at least 2, got 1"):
        model.simulate(images.x)
    model.initialise(images)
    assert int(model.simulate(images.x, seed=0).y.max()) <= 9
    with pytest.raises(ValueError, match="initialised for 10, got 3"):
        model.simulate(images.x, num_outputs=3)


def test_class_probabilities_sum_to_one_and_move_with_the_evidence(images):
    average = bayesinv.evidence.SoftmaxEvidence(prediction="average")
    for evidence in ("softmax", "dirichlet", average):
        model = small_model(evidence=evidence)
        model.initialise(images)
        prediction = model.predict(images.x, images, torch.tensor([[0.2, 0.05]], dtype=torch.float64))
        torch.testing.assert_close(prediction.probs.sum(1), torch.ones(24, dtype=torch.float64))
        assert float((prediction.labels == images.y).double().mean()) > 0.5
        assert bool((prediction.variance >= 0).all())


def test_fixed_at_zero_uses_the_image_itself_once(images):
    model = small_model(priors={"rotation": None, "translate_x": 0})
    model.initialise(images)
    prior = model.at(torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(prior.points(images.x), images.x[None].double())


def test_config_rebuilds_the_model(images):
    model = small_model(priors={"translate_x": 0.2}, evidence=bayesinv.evidence.DirichletEvidence(alpha=0.05))
    model.initialise(images)
    rebuilt = bayesinv.InvarianceModel.from_config(model.config())
    rebuilt.load_state(model.state_dict())
    assert rebuilt.config() == model.config()
    eta = torch.tensor([0.3, 0.2], dtype=torch.float64)
    torch.testing.assert_close(rebuilt.log_evidence(eta, images), model.log_evidence(eta, images))


def test_a_kernel_of_the_users_own_cannot_be_rebuilt_from_a_config():
    model = bayesinv.InvarianceModel(gpytorch.kernels.RBFKernel(), "rotation")
    with pytest.raises(ValueError, match="pass the model"):
        bayesinv.InvarianceModel.from_config(model.config())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"likelihood": "categorial"}, ValueError, "likelihood: expected one of"),
        ({"evidence": "gaussian"}, ValueError, "for that one use one of"),
        ({"precision": "half"}, ValueError, "precision: expected one of"),
        ({"priors": {"rotaton": None}}, ValueError, "unknown symmetries"),
        ({"draws": "halton"}, ValueError, "halton"),
    ],
)
def test_bad_arguments_name_the_choices(options, error, message):
    with pytest.raises(error, match=message):
        small_model(**options)


def test_evidence_favours_the_symmetry_that_holds():
    """Labels that are a function of the radius: rotation is free, and the evidence rises with it."""
    train = bayesinv.datasets.digits(math.pi, size=8, num_train=80, seed=1).train
    disc = ((torch.linspace(-1, 1, 8)[:, None] ** 2 + torch.linspace(-1, 1, 8) ** 2) < 0.4).double()
    mass = (train.x[:, 0].double() * disc).sum((1, 2))
    data = Data(train.x, (mass > mass.median()).long(), num_classes=2)
    model = small_model(priors={"translate_x": None}, num_orbit_samples=16)
    model.initialise(data)
    with torch.no_grad():
        values = [float(model.log_evidence(torch.tensor([r, 0.0], dtype=torch.float64), data)) for r in (0.0, 1.0, 3.1)]
    assert values[0] < values[1] < values[2]
