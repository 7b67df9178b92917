"""Deep kernels: the last layer is the process it says, one Laplace evidence over everything, frozen features."""

import json
import math

import gpytorch
import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.backbones.deep_kernel import JITTER, DeepKernel, InducingFeatures
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.evidence import LaplaceEvidence
from bayesinv.transforms import Affine2d

ETA = torch.tensor([0.4, 0.1], dtype=torch.float64)


def features(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh()).double()


def images(n: int = 8, likelihood: str = "categorical") -> Data:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    if likelihood == "gaussian":
        return Data(x, torch.randn(n, 2, generator=generator, dtype=torch.float64))
    return Data(x, torch.arange(n) % 3, num_classes=3)


def make_model(backbone, data: Data, **options) -> InvarianceModel:
    model = InvarianceModel(
        backbone,
        Affine2d(["rotation", "translate_x"]),
        likelihood="categorical" if data.num_classes else "gaussian",
        num_orbit_samples=4,
        **options,
    )
    model.initialise(data)
    return model.double()


def basis_at(network, x):
    """√M ψ of the inputs."""
    net = network.net
    return net.basis(net.features(x), net.features(net.inputs))


def through_z(K: torch.Tensor) -> torch.Tensor:
    """The covariance of the process seen through Z at all inputs, with the jitter on a unit diagonal."""
    return K @ torch.linalg.solve(K + JITTER * K[0, 0] * torch.eye(len(K)).double(), K)


KERNELS = [
    ScaleKernel(RBFKernel()),
    ScaleKernel(MaternKernel(nu=0.5)),
    ScaleKernel(MaternKernel(nu=1.5)),
    MaternKernel(nu=2.5),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: repr(k).replace("\n", "")[:40])
def test_the_prior_of_the_last_layer_is_the_kernel(kernel):
    """All inputs are inducing: the features' inner product times the prior variance of v is k itself."""
    kernel = kernel.double()
    inner = kernel.base_kernel if isinstance(kernel, ScaleKernel) else kernel
    inner.lengthscale = 1.3
    if isinstance(kernel, ScaleKernel):
        kernel.outputscale = 2.5
    data = images()
    network = DeepKernel(features(), kernel, num_inducing=8)
    network.prepare(3)
    assert network.initialise(data.x, 1.0, seed=0) == 3
    network = network.double()
    psi = basis_at(network, data.x)
    covariance = network.prior_scales()["head.weight"].double() ** 2 * psi @ psi.T
    K = kernel(features()(data.x)).to_dense().detach()
    torch.testing.assert_close(covariance.detach(), through_z(K), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(covariance.detach(), K, atol=0.01, rtol=0)
    outputs = network.net.head(psi)
    torch.testing.assert_close(network(data.x), outputs)


def test_draws_of_the_weights_have_the_covariance_of_the_process():
    network = DeepKernel(features(), ScaleKernel(RBFKernel()), num_inducing=8, num_outputs=4000)
    data = images()
    network.initialise(data.x, 1.0, seed=0)
    network.double()
    scale = float(network.prior_scales()["head.weight"].detach())
    with torch.no_grad():
        network.net.head.weight.normal_(std=scale)
        f = network(data.x)  # 4,000 draws of the function at 8 inputs
    expected = ScaleKernel(RBFKernel()).double()(features()(data.x)).to_dense().detach()
    torch.testing.assert_close(f @ f.T / 4000, expected, atol=0.06, rtol=0)


def test_the_lengthscale_starts_at_the_median_distance_of_the_features():
    data = images()
    network = DeepKernel(features(), num_inducing=8)
    network.initialise(data.x, 1.0, seed=0)
    median = torch.pdist(features()(data.x).detach()).median()
    assert float(network.net.basis.log_lengthscale.detach().exp()) == pytest.approx(float(median), rel=1e-5)
    own = DeepKernel(features(), RBFKernel(), num_inducing=8)
    own.initialise(data.x, 1.0, seed=0)
    assert float(own.net.basis.log_lengthscale.detach().exp()) == pytest.approx(math.log(2), rel=1e-5)


def test_with_everything_else_fixed_the_laplace_evidence_is_the_exact_one_of_the_process():
    """Only v is a weight, normal noise: log N(y | 0, g² K + σ² I), K through Z at all inputs."""
    data = images(likelihood="gaussian")
    net = features().requires_grad_(False)
    backbone = DeepKernel(net, ScaleKernel(RBFKernel()), num_inducing=8)
    backbone.net.basis.log_lengthscale.requires_grad_(False)
    backbone._group = {"head.weight": backbone._group["head.weight"]}
    evidence = LaplaceEvidence("gaussian", num_outputs=None)
    model = make_model(backbone, data, evidence=evidence, priors={"rotation": None, "translate_x": None})
    assert list(model.backbone.weights()) == ["head.weight"]
    noise = evidence.noise.detach()
    K = ScaleKernel(RBFKernel()).double()(net(data.x)).to_dense().detach()
    m, s = model.backbone.output_mean, model.backbone.output_unit
    C = s**2 * through_z(K) + noise * torch.eye(8, dtype=torch.float64)
    variance = (s * model.backbone.prior_scales()["head.weight"].detach()) ** 2
    with torch.no_grad():  # the posterior mode of v
        psi = basis_at(model.backbone, data.x)
        Q = variance * psi @ psi.T + noise * torch.eye(8, dtype=torch.float64)
        model.backbone.net.head.weight.copy_((variance / s * psi.T @ torch.linalg.solve(Q, data.y - m)).T)
        value = float(model.log_evidence(torch.zeros(2, dtype=torch.float64), data))
    normal = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=torch.float64), C)
    assert value == pytest.approx(float(normal.log_prob((data.y - m).T).sum()), abs=1e-4)


@pytest.mark.parametrize("nu", [math.inf, 1.5])
@pytest.mark.parametrize("num_outputs", [None, 3])
def test_gradient_of_one_laplace_evidence_over_neural_and_process_weights(nu, num_outputs):
    data = images()
    kernel = RBFKernel() if nu == math.inf else MaternKernel(nu=nu)
    model = make_model(
        DeepKernel(features(), kernel, num_inducing=4), data, evidence=LaplaceEvidence(num_outputs=num_outputs)
    )
    names = {"features.1.weight", "features.1.bias", "basis.log_lengthscale", "head.weight"}
    assert set(model.backbone.weights()) == names
    assert len(model.backbone.log_scales) == 3  # features, lengthscale, v
    eta, scales = ETA.clone().requires_grad_(), model.backbone.log_scales
    gradients = torch.autograd.grad(model.log_evidence(eta, data), [eta, scales])

    def value(shift_eta, shift_scales):
        with torch.no_grad():
            scales.add_(shift_scales)
            result = float(model.log_evidence(ETA + shift_eta, data))
            scales.sub_(shift_scales)
        return result

    step = 1e-5
    for k in range(2):
        unit = torch.eye(2, dtype=torch.float64)[k] * step
        numeric = (value(unit, 0 * scales.detach()) - value(-unit, 0 * scales.detach())) / (2 * step)
        assert float(gradients[0][k]) == pytest.approx(numeric, rel=1e-4, abs=1e-6)
    for k in range(3):
        unit = torch.eye(3, dtype=torch.float64)[k] * step
        numeric = (value(0 * ETA, unit) - value(0 * ETA, -unit)) / (2 * step)
        assert float(gradients[1][k]) == pytest.approx(numeric, rel=1e-4, abs=1e-6)
        assert abs(float(gradients[1][k])) > 1e-4


def test_weights_get_gradients_in_float32_too():
    data = images().to(dtype=torch.float32)
    model = InvarianceModel(DeepKernel(features().float(), num_inducing=6), "rotation", num_orbit_samples=3)
    model.initialise(data)
    loss = model.evidence.weight_loss(model.at(torch.tensor([0.3], dtype=torch.float64)), data, 8)
    loss.backward()
    for name, weight in model.backbone.weights().items():
        assert weight.dtype == torch.float32
        assert bool(torch.isfinite(weight.grad).all()), name
        assert float(weight.grad.abs().max()) > 0, name


def test_fewer_inputs_than_inducing_points_and_outputs_from_the_data():
    data = images(n=5)
    model = make_model(DeepKernel(features(), num_inducing=64), data)
    assert model.backbone.net.inputs.shape == (5, 1, 6, 6)
    assert model.backbone.net.head.weight.shape == (3, 5)
    with pytest.raises(DataError, match="2 outputs for 3 classes"):
        make_model(DeepKernel(features(), num_outputs=2), data)


def test_fit_predict_save_and_load(tmp_path):
    train = bayesinv.datasets.digits(rotation=0.8, num_train=40, seed=0).train
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.Tanh())
    model = InvarianceModel(DeepKernel(net, num_inducing=10), "rotation", num_orbit_samples=3)
    training = bayesinv.Training(batch_size=20, extent_batch_size=10)
    posterior = bayesinv.fit(model, train, seed=0, max_steps=12, training=training, num_draws=10)
    probs = posterior.predict(train.x).probs
    posterior.save(tmp_path / "p.npz")
    again = bayesinv.load(tmp_path / "p.npz", model=model)
    torch.testing.assert_close(again.predict(train.x).probs, probs)
    with pytest.raises(bayesinv.errors.SavedFileError, match="model=model"):
        bayesinv.load(tmp_path / "p.npz")


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
def test_numpy_doubles_go_into_features_in_single_precision(likelihood, tmp_path):
    data = images()
    x, y = data.x.numpy(), (data.y.numpy() % 2)
    model = InvarianceModel(DeepKernel(features().float(), num_inducing=4), "rotation", likelihood=likelihood)
    settings = {"seed": 0, "max_steps": 40, "num_draws": 10, "training": bayesinv.Training(batch_size=8)}
    posterior = bayesinv.fit(model, (x, y), **settings)
    network = posterior.model.network
    assert network.net.inputs.dtype == network.net.head.weight.dtype == torch.float32
    assert network.net.head.weight.shape == ((1 if likelihood == "bernoulli" else 2), 4)
    probs = posterior.predict(x).probs
    assert probs.shape == (8, 2)
    again = bayesinv.load(posterior.save(tmp_path / "p.npz"), model=model)
    torch.testing.assert_close(again.predict(x).probs, probs)


def test_frozen_features_are_the_process_on_mapped_inputs():
    data = images()
    net = features()
    gp = DeepKernel(net, num_inducing=5, frozen=True)
    assert isinstance(gp, GaussianProcess)
    model = make_model(gp, data, precision="double")
    prior = model.at(ETA)
    assert model.backbone.inducing.shape == (5, 5)
    assert not any(p.requires_grad for p in model.backbone.features.parameters())
    points = prior.points(data.x)
    mapped = torch.stack([net(p) for p in points]).detach()
    plain = GaussianProcess(num_inducing=5, inducing_points=model.backbone.inducing.detach())
    plain.initialise(mapped[0], 1.0, 0)
    plain.kernel.load_state_dict(model.backbone.kernel.state_dict())
    cross, variance = prior.statistics(data.x)
    torch.testing.assert_close(cross, plain.cross(mapped))
    torch.testing.assert_close(variance, plain.variance(mapped))
    torch.testing.assert_close(prior.covariance(data.x), plain.covariance(mapped, mapped))
    median = torch.pdist(model.backbone.inducing.detach()).median()
    assert float(model.backbone.kernel.base_kernel.lengthscale.detach()) == pytest.approx(float(median))


def test_the_number_of_inducing_inputs_frozen_and_trained():
    assert DeepKernel(features()).num_inducing == 64
    assert DeepKernel(features(), num_inducing=7).num_inducing == 7
    frozen = DeepKernel(features(), frozen=True)
    assert (frozen.space, frozen.num_inducing) == ("features", None)
    own = DeepKernel(features(), MaternKernel(nu=2.5), num_inducing=7, frozen=True)
    assert (own.space, own.num_inducing) == ("inducing", 7)
    # A kernel without a spectral density has inducing values of its own accord.
    assert DeepKernel(features(), gpytorch.kernels.PeriodicKernel(), frozen=True).space == "inducing"


def test_random_features_of_frozen_features_are_the_process_on_mapped_inputs():
    data = images()
    net = features()
    model = make_model(GaussianProcess(features=net, num_features=20_000), data, precision="double")
    prior = model.at(ETA)
    mapped = torch.stack([net(p) for p in prior.points(data.x)]).detach()
    exact = model.backbone.covariance(mapped, mapped).detach()
    scale = float(model.backbone.kernel.outputscale.detach())
    torch.testing.assert_close(prior.covariance(data.x).detach() / scale, exact / scale, atol=0.01, rtol=0)
    assert model.backbone.frequencies.num_inputs == 5  # of the features, not of the pixels
    median = torch.pdist(net(data.x).detach()).median()
    assert float(model.backbone.kernel.base_kernel.lengthscale.detach()) == pytest.approx(float(median))


def test_the_extents_gradient_passes_through_frozen_features():
    data = images()
    for kernel, size in (
        (None, {"num_inducing": 4}),
        (MaternKernel(nu=2.5), {"num_inducing": 4}),
        (None, {"num_features": 16}),
        (MaternKernel(nu=2.5), {"num_features": 16}),
    ):
        backbone = GaussianProcess(kernel, features=features(), **size)
        model = make_model(backbone, data, precision="double", evidence="dirichlet")
        eta = ETA.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.log_evidence(eta, data), eta)
        for k in range(2):
            unit = torch.eye(2, dtype=torch.float64)[k] * 1e-5
            with torch.no_grad():
                numeric = (model.log_evidence(ETA + unit, data) - model.log_evidence(ETA - unit, data)) / 2e-5
            assert float(gradient[k]) == pytest.approx(float(numeric), rel=1e-4)


def test_features_stay_in_evaluation_and_in_their_own_precision():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    gp = GaussianProcess(num_inducing=4, features=net)
    model = make_model(gp, images().to(dtype=torch.float32))
    model.backbone.features.float()
    model.train()
    assert not any(m.training for m in model.backbone.features.modules())
    points = images().x[None]
    first = model.backbone.embed(points)
    assert first.dtype == torch.float64
    assert torch.equal(first, model.backbone.embed(points))
    assert torch.equal(first, first.float().double())
    assert net[2].training  # the caller's own is left alone


def test_blocks_are_smaller_where_a_network_has_to_run_first():
    data = images()
    plain, deep = GaussianProcess(num_inducing=4), GaussianProcess(num_inducing=4, features=features())
    for gp in (plain, deep):
        gp.initialise(data.x, 1.0, 0)
    sizes = [gp.bytes_per_input(4, 36, torch.float32) for gp in (plain, deep)]
    assert sizes[1] > 3 * sizes[0]
    model = make_model(deep, data, precision="double", evidence="dirichlet")
    values = []
    for budget in (2**30, 1):
        model.memory_budget = budget
        values.append(float(model.log_evidence(ETA, data).detach()))
    assert values[0] == pytest.approx(values[1], abs=1e-8)


def test_stochastic_evidence_on_frozen_features():
    data = images()
    model = make_model(DeepKernel(features(), num_inducing=4, frozen=True), data, evidence="stochastic")
    assert math.isfinite(float(model.log_evidence(ETA, data, 20).detach()))


def test_the_config_says_that_features_are_the_users_own():
    data = images()
    deep = make_model(DeepKernel(features(), num_inducing=4, frozen=True), data)
    assert "Linear" in json.loads(json.dumps(deep.config()))["backbone"]["features"]
    assert "features" not in GaussianProcess().config()
    assert deep.config()["backbone"]["num_inducing"] == 4
    for model in (deep, make_model(DeepKernel(features(), num_inducing=4), data)):
        before = InvarianceModel(model.backbone, "rotation").config()["backbone"]
        assert before == model.config()["backbone"]
        with pytest.raises(ValueError, match="user's own"):
            InvarianceModel.from_config(model.config())


def test_bad_arguments_say_what_was_expected():
    with pytest.raises(TypeError, match="with frozen=True any GPyTorch kernel"):
        DeepKernel(features(), gpytorch.kernels.PeriodicKernel())
    with pytest.raises(TypeError, match="one lengthscale"):
        DeepKernel(features(), RBFKernel(ard_num_dims=5))
    with pytest.raises(ValueError, match="priors"):
        DeepKernel(features(), RBFKernel(lengthscale_prior=gpytorch.priors.GammaPrior(2.0, 2.0)))
    with pytest.raises(ValueError, match="num_inducing"):
        DeepKernel(features(), num_inducing=0)
    with pytest.raises(ValueError, match="num_outputs"):
        DeepKernel(features(), num_outputs=0)
    with pytest.raises(ValueError, match="leave it out"):
        DeepKernel(features(), num_outputs=3, frozen=True)
    with pytest.raises(DataError, match="the network failed on inputs of shape"):
        make_model(DeepKernel(nn.Linear(5, 3)), images())
    with pytest.raises(DataError, match=r"has to return \(n, D\) features"):
        make_model(DeepKernel(_Sum(), num_inducing=4), images())
    with pytest.raises(DataError, match="the features failed on inputs of shape"):
        make_model(GaussianProcess(features=nn.Linear(5, 3)), images())
    with pytest.raises(DataError, match=r"features have to return \(n, D\)"):
        make_model(GaussianProcess(features=_Sum()), images())
    with pytest.raises(DataError, match="expected 5 numbers a point as in the features"):
        make_model(GaussianProcess(features=features(), inducing_points=torch.rand(3, 7)), images())


class _Sum(nn.Module):
    """No row of features: one number for each input."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()).double())

    def forward(self, x):
        return self.w * x.flatten(1).sum(1)


def test_inducing_features_agree_with_gpytorch_off_the_inducing_points():
    Z, x = torch.randn(6, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    for kernel in (RBFKernel(), MaternKernel(nu=0.5), MaternKernel(nu=1.5), MaternKernel(nu=2.5)):
        kernel = kernel.double()
        layer = InducingFeatures(6, float(getattr(kernel, "nu", math.inf)), float(kernel.lengthscale.detach())).double()
        psi = layer(x, Z) / math.sqrt(6)
        k_zx, k_zz = kernel(Z, x).to_dense(), kernel(Z).to_dense() + JITTER * torch.eye(6, dtype=torch.float64)
        expected = k_zx.T @ torch.linalg.solve(k_zz, k_zx)
        torch.testing.assert_close((psi @ psi.T).detach(), expected.detach(), atol=1e-5, rtol=0)


def test_inducing_points_move_with_the_features_and_need_data_first():
    network = DeepKernel(features(), num_inducing=8)
    with pytest.raises(RuntimeError, match="fit it, or call initialise"):
        network(images().x)
    network.initialise(images().x, 1.0, seed=0)
    with torch.no_grad():
        before = network.net.basis.correlation(*2 * [network.net.features(network.net.inputs)])
        for name, weight in network.weights().items():
            if name.startswith("features"):
                weight.mul_(50.0)
        after = network.net.basis(network.net.features(network.net.inputs), network.net.features(network.net.inputs))
    assert float((before - torch.eye(8)).abs().max()) > 0.1
    # However far the features go, those of the inducing inputs stay on Z: no row of ψ vanishes.
    assert float(after.square().sum(1).min() / 8) > 0.99


def test_features_that_work_in_place_change_neither_inducing_inputs_nor_generators():
    state = torch.random.get_rng_state()
    x = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with torch.random.fork_rng(devices=[]):
        features = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(9, 4))
    network = DeepKernel(features, num_inducing=4, num_outputs=2)
    network.initialise(x, 1.0, seed=0)
    assert (network.net.inputs[:, None] == before[None]).flatten(2).all(2).any(1).all()  # rows of x
    first, second = network(x), network(x)
    assert torch.equal(first, second)
    DeepKernel(features, num_inducing=4, frozen=True).initialise(x, 1.0, seed=0)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
