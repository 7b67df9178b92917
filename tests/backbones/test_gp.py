"""The GP backbone: the fast squared exponential against GPyTorch, any kernel, priors, bad input."""

import gpytorch
import pytest
import torch
from gpytorch.kernels import (
    ConstantKernel,
    LinearKernel,
    MaternKernel,
    PeriodicKernel,
    RBFKernel,
    RQKernel,
    ScaleKernel,
)

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.backbones.orbit_features import fourier_mean
from bayesinv.backbones.rbf import rbf_cross_mean, rbf_self_mean
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.numerics.threads import one_thread
from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Affine2d


@pytest.fixture
def points():
    return torch.randn(3, 5, 4, dtype=torch.float64)


def test_fast_means_agree_with_gpytorch(points):
    gp = GaussianProcess(num_inducing=4)
    gp.initialise(points[0], output_variance=2.5, seed=0)
    dense = gp.kernel(points.reshape(15, 4), gp.inducing).to_dense().reshape(3, 5, 4).mean(0)
    torch.testing.assert_close(gp.cross(points), dense)
    per_input = points.transpose(0, 1)
    torch.testing.assert_close(gp.variance(points), gp.kernel(per_input, per_input).to_dense().mean((1, 2)))


def test_fast_means_pass_gradcheck(points):
    inducing = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    gamma = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    points = points.requires_grad_()
    assert torch.autograd.gradcheck(rbf_cross_mean, (points, inducing, gamma))
    assert torch.autograd.gradcheck(rbf_self_mean, (points, gamma))


def test_distances_that_rounding_makes_negative_stay_harmless():
    far = torch.full((2, 3, 4), 1e4)  # |x|² = 4e8 cancels to within 32 in float32
    K = rbf_self_mean(far, torch.tensor(1.0))
    assert bool((K <= 1.0).all())


@pytest.mark.parametrize(
    "kernel",
    [
        RBFKernel(),
        RBFKernel(active_dims=[0, 2]),
        ScaleKernel(RBFKernel(), active_dims=[0]),
        ScaleKernel(MaternKernel(nu=1.5)),
        ScaleKernel(RBFKernel(ard_num_dims=4)),
    ],
)
def test_any_kernel_gives_the_mean_over_the_orbit(kernel, points):
    gp = GaussianProcess(kernel, num_inducing=5)
    gp.initialise(points[0], output_variance=1.0, seed=0)
    expected = torch.stack([gp.kernel(p, gp.inducing).to_dense() for p in points]).mean(0)
    torch.testing.assert_close(gp.cross(points), expected)
    pairs = torch.stack([gp.kernel(p, q).to_dense().diagonal() for p in points for q in points]).mean(0)
    torch.testing.assert_close(gp.variance(points), pairs)
    torch.testing.assert_close(gp.covariance(points, points, rows=2).diagonal(), pairs)


def test_lengthscale_starts_at_the_median_distance():
    x = torch.randn(40, 7, dtype=torch.float64)
    gp = GaussianProcess(num_inducing=40)
    gp.initialise(x, output_variance=3.0, seed=0)
    assert float(gp.kernel.base_kernel.lengthscale.detach()) == pytest.approx(float(torch.pdist(x).median()))
    assert float(gp.kernel.outputscale.detach()) == pytest.approx(3.0)


def test_constant_inputs_do_not_break_the_start():
    gp = GaussianProcess(num_inducing=3)
    gp.initialise(torch.ones(5, 2), output_variance=1.0, seed=0)
    assert float(gp.kernel.base_kernel.lengthscale.detach()) == 1.0


def test_registered_priors_count():
    kernel = RBFKernel(lengthscale_prior=gpytorch.priors.GammaPrior(3.0, 6.0))
    gp = GaussianProcess(kernel, num_inducing=2)
    gp.initialise(torch.rand(4, 2), output_variance=1.0, seed=0)
    expected = gpytorch.priors.GammaPrior(3.0, 6.0).log_prob(gp.kernel.lengthscale.detach()).sum()
    assert float(gp.log_hyperprior().detach()) == pytest.approx(float(expected))
    assert float(GaussianProcess().log_hyperprior()) == 0.0


def test_the_callers_kernel_is_left_alone():
    kernel = RBFKernel()
    gp = GaussianProcess(kernel)
    gp.kernel.lengthscale = 7.0
    assert kernel.lengthscale.dtype == torch.float32
    assert float(kernel.lengthscale.detach()) != 7.0


def test_other_kernels_are_given_more_memory():
    """A block of Matern kernels in float64 needs several times what the fast path needs."""
    sizes = []
    for kernel in (None, ScaleKernel(MaternKernel(nu=1.5))):
        gp = GaussianProcess(kernel, num_inducing=5)
        gp.initialise(torch.rand(8, 4), output_variance=1.0, seed=0)
        sizes.append(gp.bytes_per_input(num_samples=4, num_features=4, dtype=torch.float32))
    assert sizes[1] > 4 * sizes[0]


def test_given_inducing_points_are_used():
    Z = torch.rand(3, 1, 2, 2)
    gp = GaussianProcess(inducing_points=Z, learn_inducing=False)
    gp.initialise(torch.rand(9, 1, 2, 2), output_variance=1.0, seed=0)
    torch.testing.assert_close(gp.inducing, Z.reshape(3, 4).double())
    assert not gp.inducing.requires_grad
    with pytest.raises(DataError, match="expected 9 numbers a point"):
        gp.initialise(torch.rand(9, 1, 3, 3), output_variance=1.0, seed=0)


def test_bad_arguments_say_what_was_expected():
    with pytest.raises(TypeError, match="kernel"):
        GaussianProcess("rbf")
    with pytest.raises(ValueError, match="no batch shape"):
        GaussianProcess(RBFKernel(batch_shape=torch.Size([2])))
    for number in (0, -3, True, "many"):
        with pytest.raises(ValueError, match='num_inducing: expected "auto", an integer of at least 1, or None'):
            GaussianProcess(num_inducing=number)
    for number in (0, 7, True):
        with pytest.raises(ValueError, match="num_features: expected an even integer of at least 2"):
            GaussianProcess(num_features=number)


def test_what_contradicts_itself_is_refused():
    for options in ({"num_inducing": 5}, {"num_inducing": None}, {"inducing_points": torch.rand(3, 4)}):
        with pytest.raises(ValueError, match="two ways to compute; give one of them"):
            GaussianProcess(num_features=8, **options)
    with pytest.raises(ValueError, match="no place for them with num_inducing=None"):
        GaussianProcess(num_inducing=None, inducing_points=torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"LinearKernel has no spectral density.*num_inducing=150"):
        GaussianProcess(LinearKernel(), num_features=8)
    with pytest.raises(ValueError, match="num_features: the stochastic evidence keeps a distribution over inducing"):
        bayesinv.InvarianceModel(GaussianProcess(num_features=8), "rotation", evidence="stochastic")


@pytest.mark.parametrize(
    ("kernel", "space"),
    [
        (None, "features"),
        (RBFKernel(), "features"),
        (ScaleKernel(MaternKernel(nu=1.5)), "features"),
        (RQKernel() + ConstantKernel(), "features"),
        (MaternKernel(nu=0.5), "inducing"),  # whose random features have no gradient to follow
        (ScaleKernel(RBFKernel() * MaternKernel(nu=0.5)), "inducing"),
        (LinearKernel(), "inducing"),
        (PeriodicKernel(), "inducing"),
    ],
)
def test_the_kernel_says_where_to_compute(kernel, space):
    gp = GaussianProcess(kernel)
    assert gp.space == space
    assert (gp.num_features, gp.num_inducing) == ((1024, None) if space == "features" else (None, 150))
    assert gp.learn_inducing == (space == "inducing")


def test_what_is_asked_for_comes_before_the_kernel():
    assert GaussianProcess(num_inducing=20).space == "inducing"
    assert GaussianProcess(num_inducing=None).space == "exact"
    assert GaussianProcess(inducing_points=torch.rand(3, 4)).num_inducing == 3
    assert GaussianProcess(num_features=64).num_features == 64
    assert GaussianProcess(MaternKernel(nu=0.5), num_features=8).space == "features"
    for learn in (True, False):
        model = bayesinv.InvarianceModel(GaussianProcess(learn_inducing=learn), "rotation", evidence="stochastic")
        assert (model.backbone.space, model.backbone.num_inducing) == ("inducing", 150)
        assert model.backbone.learn_inducing == learn


def in_features(kernel=None, x=None, num_features=256, **options):
    gp = GaussianProcess(kernel, num_features=num_features, **options)
    gp.initialise(torch.randn(40, 1, 6, 6, dtype=torch.float64) if x is None else x, output_variance=2.5, seed=0)
    return gp


SMOOTH = {
    "default": lambda: None,
    "matern": lambda: ScaleKernel(MaternKernel(nu=1.5)),
    "ard": lambda: ScaleKernel(RBFKernel(ard_num_dims=36)),
    "sum": lambda: ScaleKernel(RBFKernel()) + ConstantKernel(),
}


@torch.no_grad()
@pytest.mark.parametrize("name", SMOOTH)
def test_features_agree_with_the_exact_covariance_the_better_the_more_there_are(name):
    x = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orbit, eta = Orbit(Affine2d(["rotation"]), 4), torch.tensor([0.6], dtype=torch.float64)
    errors = []
    for num_features in (64, 4096):
        seeds = []
        for seed in range(4):
            gp = GaussianProcess(SMOOTH[name](), num_features=num_features)
            gp.initialise(x, output_variance=2.5, seed=seed)
            for part in gp.kernel.modules():
                if getattr(part, "has_lengthscale", False):
                    part.lengthscale = 8.0
            prior = InvariantPrior(gp, orbit, eta, torch.float64, 2**30)
            points = prior.points(x)
            seeds.append(float((prior.covariance(x) - gp.covariance(points, points)).square().mean()))
        errors.append((sum(seeds) / 4) ** 0.5)
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 4  # 1/√R is 8


@pytest.fixture(params=[False, True])
def few_rows(request, monkeypatch):
    """All examples in one block, or two in each."""
    if request.param:
        monkeypatch.setattr("bayesinv.backbones.orbit_features.BLOCK", 2 * 3 * 7)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 0.2, 0.3])])
def test_fourier_means_are_means_of_cosines_and_sines(points, weights, few_rows):
    W = torch.randn(4, 7, dtype=torch.float64)
    shares = torch.full((3,), 1 / 3, dtype=torch.float64) if weights is None else weights.double()
    each = torch.cat([(points @ W).cos(), (points @ W).sin()], -1)
    torch.testing.assert_close(fourier_mean(points, W, weights), torch.einsum("s,snr->nr", shares, each))


def test_the_number_of_threads_changes_no_feature(monkeypatch):
    monkeypatch.setattr("bayesinv.backbones.orbit_features.BLOCK", 2 * 3 * 7)
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(*shape, generator=generator) for shape in ((3, 51, 4), (4, 7), (3,))]
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            with one_thread():
                given = [part.clone().requires_grad_() for part in parts]
                out = fourier_mean(*given)
                found.append([out, *torch.autograd.grad(out.sin().sum(), given)])
                with torch.inference_mode():
                    torch.testing.assert_close(fourier_mean(*parts), out.detach())
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_no_inputs_have_no_features():
    points = torch.zeros(3, 0, 4, requires_grad=True)
    out = fourier_mean(points, torch.ones(4, 5))
    assert out.shape == (0, 10)
    assert torch.autograd.grad(out.sum(), points)[0].shape == points.shape


def test_fourier_means_pass_gradcheck(points, few_rows):
    W = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fourier_mean, (points.requires_grad_(), W, weights))


def test_features_have_gradients_in_the_kernel(points):
    gp = in_features(x=points[0], num_features=10)
    loss = gp.fourier(points).square()[:, :5].sum()
    parameters = [gp.kernel.raw_outputscale, gp.kernel.base_kernel.raw_lengthscale]
    gradients = torch.autograd.grad(loss, parameters)
    for p, gradient in zip(parameters, gradients, strict=True):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(sign * 1e-5)
                values.append(float(gp.fourier(points).square()[:, :5].sum()))
                p.sub_(sign * 1e-5)
        assert float(gradient) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


@torch.no_grad()
def test_single_precision_projections_are_close_to_double_ones():
    x = torch.rand(20, 1, 6, 6, dtype=torch.float64)
    gp = in_features(x=x)
    double, single = (gp.fourier(x[None].to(dtype)) for dtype in (torch.float64, torch.float32))
    assert double.dtype == single.dtype == torch.float64
    torch.testing.assert_close(single, double, atol=1e-5, rtol=0)
    assert not torch.equal(single, double)


def test_frequencies_are_needed_first():
    with pytest.raises(RuntimeError, match="no frequencies yet; fit the model"):
        GaussianProcess().fourier(torch.rand(1, 3, 4))


def test_the_seed_draws_the_frequencies():
    x = torch.rand(20, 5, dtype=torch.float64)

    def features(seed):
        gp = GaussianProcess(RBFKernel(), num_features=16)
        gp.initialise(x, 1.0, seed)
        return gp.fourier(x[None]).detach()

    assert torch.equal(features(3), features(3))
    assert not torch.allclose(features(3), features(4), atol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("kernel", SMOOTH)
def test_a_saved_state_has_the_same_features(kernel):
    x = torch.rand(20, 1, 6, 6, dtype=torch.float64)
    gp = in_features(SMOOTH[kernel](), x, num_features=32)
    for p in gp.kernel.parameters():
        p.add_(0.3)
    other = GaussianProcess(SMOOTH[kernel](), num_features=32)
    assert not other.is_initialised
    state = gp.state_dict()
    other.prepare_state(state)
    other.load_state_dict(state)
    assert other.is_initialised
    torch.testing.assert_close(other.fourier(x[None]), gp.fourier(x[None]), atol=0, rtol=0)


def test_features_learn_no_inducing_inputs():
    gp = in_features(num_features=8)
    assert not gp.inducing.requires_grad
    assert sorted(name for name, p in gp.named_parameters() if p.requires_grad) == [
        "kernel.base_kernel.raw_lengthscale",
        "kernel.raw_outputscale",
    ]
    assert gp.config() | {"type": None} == {
        "type": None,
        "kernel": None,
        "space": "features",
        "num_inducing": None,
        "learn_inducing": False,
        "num_features": 8,
    }


def make_model(n=10, budget=2**30, precision="double", **options):
    x = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = Data(x, torch.arange(n) % 3, num_classes=3, groups=options.pop("data_groups", None))
    model = bayesinv.InvarianceModel(
        GaussianProcess(num_features=32),
        ["rotation", "translate_x"],
        evidence="dirichlet",
        num_orbit_samples=4,
        precision=precision,
        memory_budget=budget,
        **options,
    )
    model.initialise(data)
    return model, data


def value_and_gradient(model, data, eta):
    eta = torch.tensor(eta, dtype=torch.float64).requires_grad_()
    parameters = [p for p in model.parameters() if p.requires_grad]
    value = model.log_evidence(eta, data)
    return value.detach(), *torch.autograd.grad(value, [eta, *parameters])


def test_blocks_of_inputs_give_the_same_features():
    whole, data = make_model()
    each = whole.backbone.bytes_per_input(4, data.x[0].numel(), torch.float64)
    whole = value_and_gradient(whole, data, [0.5, 0.1])
    for budget in (1, 9 * each):  # every block is computed again backwards; three of ten
        torch.testing.assert_close(value_and_gradient(*make_model(budget=budget), [0.5, 0.1]), whole)
    mixed = value_and_gradient(*make_model(precision="mixed"), [0.5, 0.1])
    torch.testing.assert_close(mixed, whole, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_features_of_groups_are_those_of_their_extents():
    names = ["a", "b"]
    groups = torch.arange(10) % 2
    model, data = make_model(groups=names, data_groups=groups)
    alone, _ = make_model()
    eta = {"a": [0.2, 0.0], "b": [0.9, 0.3]}
    everything = torch.zeros(len(model.symmetries), dtype=torch.float64)
    for name, (rotation, shift) in eta.items():
        everything[model.symmetries.index(f"rotation[{name}]")] = rotation
        everything[model.symmetries.index(f"translate_x[{name}]")] = shift
    phi = model.at(everything).features(data.x, groups)
    for g, name in enumerate(names):
        own = alone.at(torch.tensor(eta[name], dtype=torch.float64)).features(data.x)
        torch.testing.assert_close(phi[groups == g], own[groups == g])
        assert not torch.allclose(phi[groups != g], own[groups != g], atol=1e-3)
    torch.testing.assert_close(model.at(everything).covariance(data.x, groups), phi @ phi.T)
    new = data.x[:4]
    mean, variance = model.function_posterior(new, data, everything, groups[:4])
    by_evidence = model.evidence.function_posterior(model.at(everything), new, data, groups[:4])
    torch.testing.assert_close((mean, variance), by_evidence)
    assert mean.shape == (4, 3)


@torch.no_grad()
def test_features_of_outputs_are_those_of_their_extents():
    model, data = make_model(outputs=["a", "b", "c"])
    alone, _ = make_model()
    rows = torch.tensor([[0.1, 0.0], [0.9, 0.3], [0.0, 0.5]], dtype=torch.float64)
    eta = torch.zeros(6, dtype=torch.float64)
    for c, name in enumerate("abc"):
        eta[model.symmetries.index(f"rotation[{name}]")] = rows[c, 0]
        eta[model.symmetries.index(f"translate_x[{name}]")] = rows[c, 1]
    phi = model.at(eta).features(data.x)
    assert phi.shape == (3, 10, 32)
    for c in range(3):
        torch.testing.assert_close(phi[c], alone.at(rows[c]).features(data.x))
    torch.testing.assert_close(model.at(eta).covariance(data.x), phi @ phi.mT)


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [
        (1.0, 0.0, torch.float32),
        (1e-13, 0.0, torch.float64),  # whose squares float32 does not hold
        (1e13, 0.0, torch.float64),
        (1.0, 1e4, torch.float64),
    ],
)
def test_orbits_are_in_double_where_float32_cannot_hold_the_inputs(scale, offset, dtype):
    torch.manual_seed(0)
    x = scale * (torch.randn(12, 1, 5, 5, dtype=torch.float64) + offset)
    model = InvarianceModel(GaussianProcess(num_inducing=4), "rotation", num_orbit_samples=2)
    model.initialise(Data(x, torch.arange(12) % 2, 2))
    assert model.backbone.orbit_dtype(torch.float32) == dtype
