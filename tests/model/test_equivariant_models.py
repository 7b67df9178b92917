"""Equivariant models: averages that are exactly equivariant over finite groups, evidences with a known value, fits."""

import math

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import Data, GaussianProcess, InvarianceModel, NeuralNetwork, Training, fit
from bayesinv.backbones.invariant_network import moved_back
from bayesinv.errors import DataError
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference import Fixed
from bayesinv.transforms import Affine2d, Compose, CyclicRotation, Flip, ImageAction, Reflection3d, Rotation3d


def conv_net(channels=1, seed=0, width=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, channels, 3, padding=1)]
        return nn.Sequential(*layers).double()


def maps(n=6, size=6, classes=2):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(n, 1, size, size, generator=generator, dtype=torch.float64)
    return Data(x, (classes * x[:, 0]).long().clamp(max=classes - 1), classes)


def at(model, eta):
    return model.at(torch.as_tensor(eta, dtype=torch.float64))


def f_of(model, eta, x):
    return model.function_posterior(x, Data(x, x.new_zeros(len(x), 0)), torch.as_tensor(eta, dtype=torch.float64))[0]


def quarter_model(net, likelihood="categorical", **options):
    transform = Compose([CyclicRotation(4), Flip()])
    return InvarianceModel(net, transform, likelihood, output_action="image", num_orbit_samples=1, **options)


@pytest.mark.parametrize("average", ["function", "probabilities"])
@pytest.mark.parametrize(("likelihood", "channels"), [("categorical", 3), ("bernoulli", 1)])
def test_any_network_averaged_over_a_group_is_exactly_equivariant(average, likelihood, channels):
    model, x = quarter_model(conv_net(channels), likelihood, average=average), maps().x
    whole = [0.75, 0.5]  # every element with the same weight
    f = f_of(model, whole, x)
    assert f.shape == (6, 6, 6, channels)
    for move in (lambda v, axes: v.rot90(1, axes), lambda v, axes: v.flip(axes[1])):
        assert torch.allclose(f_of(model, whole, move(x, (-2, -1))), move(f, (1, 2)), atol=1e-12)
    part = [0.5, 0.2]
    assert not torch.allclose(f_of(model, part, x.rot90(1, (-2, -1))), f_of(model, part, x).rot90(1, (1, 2)), atol=1e-4)


def test_an_equivariant_network_is_left_as_it_is():
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Tanh(), nn.Conv2d(4, 2, 1)).double()  # pixel by pixel
    x = maps().x
    f = f_of(quarter_model(net), [0.3, 0.1], x)
    assert torch.allclose(f, net(x).movedim(1, -1), atol=1e-12)


def test_a_vector_network_that_turns_with_the_points_is_left_as_it_is():
    class Centre(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, x):
            return self.scale * x[..., :3].sum(1)

    transform = Compose([Rotation3d(), Reflection3d()])
    model = InvarianceModel(Centre(), transform, "gaussian", output_action="vector", num_orbit_samples=5)
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    f = f_of(model, [1.0, 2.0, 3.0, 0.5], x)
    assert torch.allclose(f, 2.0 * x.sum(1), atol=1e-10)
    invariant = InvarianceModel(Centre(), transform, "gaussian", num_orbit_samples=5)
    assert not torch.allclose(f_of(invariant, [1.0, 2.0, 3.0, 0.5], x), f, atol=0.1)


def test_pixels_that_copies_have_left_are_averaged_over_the_others():
    """With the identity as network each copy gives back x where it is inside, so that the average is x there."""
    transform = Affine2d(["translate_x"])
    x = maps().x
    t = torch.tensor([[0.0], [1.0 / 3.0], [1.0]], dtype=torch.float64)  # none, one and three pixels of six
    values, weights = moved_back(ImageAction(transform), transform.orbit(x, t), t)
    assert torch.allclose(weights.sum(0), torch.ones(1, 6, 6, dtype=torch.float64))
    assert torch.allclose(weights[:, 0, 0, -1], torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert torch.allclose(weights[:, 0, 0, 0], torch.full((3,), 1.0 / 3.0, dtype=torch.float64))
    assert torch.allclose((weights[..., None] * values).sum(0)[..., 0], x[:, 0])
    gone, alike = moved_back(ImageAction(transform), transform.orbit(x, t[2:]), t[2:])
    assert not bool(gone[..., -3:, :].any())
    assert torch.allclose(alike, torch.ones_like(alike))


def test_bernoulli_is_categorical_with_a_fixed_logit():
    bernoulli, data = quarter_model(conv_net(1), "bernoulli"), maps()
    f = f_of(bernoulli, [0.5, 0.2], data.x)
    both = torch.cat([torch.zeros_like(f), f], -1)
    softmax = LaplaceEvidence("categorical")
    assert torch.allclose(bernoulli.evidence.log_likelihood(f, data.y), softmax.log_likelihood(both, data.y))
    assert bernoulli.evidence.log_likelihood(f, data.y).shape == (6,)
    with torch.random.fork_rng():
        y = bernoulli.evidence.sample_targets(f.expand(50, *f.shape).flatten(0, 1))
    assert float(y.double().mean()) == pytest.approx(float(f.sigmoid().mean()), abs=0.02)


def in_weight_space(model, data, eta):
    """log p(D | θ) - ½|θ|²_Σ - ½ log det(I + Σ^½ Jᵀ Λ J Σ^½), the Jacobian by torch.func."""
    network, prior = model.network, at(model, eta)
    weights, scales = {k: w.detach() for k, w in network.weights().items()}, network.prior_scales()
    prior.outputs(data.x)  # measures the memory of a pass, which torch.func could not

    def f(weights):
        values, shares = prior.moved_back(prior.outputs(data.x, weights))
        shape = (*shares.shape, *[1] * (values.ndim - shares.ndim))
        return (shares.reshape(shape) * values).sum(0).flatten(0, -2)

    jacobian, out = torch.func.jacrev(f)(weights), f(weights).detach()
    J = torch.cat([(jacobian[k] * scales[k]).flatten(2) for k in weights], -1).detach()  # (rows, C, P)
    if model.likelihood == "bernoulli":
        p = out.sigmoid()
        Lam = (p * (1 - p))[..., None]
    else:
        p = out.softmax(-1)
        Lam = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    H = torch.einsum("ncp,ncd,ndq->pq", J, Lam, J)
    fit_term = model.evidence.log_likelihood(out, data.y.flatten()).sum()
    norm = sum((weights[k] / scales[k]).square().sum() for k in weights)
    return float((fit_term - 0.5 * norm - 0.5 * torch.linalg.slogdet(torch.eye(len(H), dtype=H.dtype) + H)[1]).detach())


def small_model(likelihood, **options):
    """A net of a few weights on 4×4 maps under rotation and a flip."""
    channels = 1 if likelihood == "bernoulli" else 3
    model = InvarianceModel(
        NeuralNetwork(conv_net(channels, width=2), start_gain=1.5),
        [Affine2d(["rotation"]), Flip()],
        likelihood=likelihood,
        evidence=LaplaceEvidence(likelihood, **options),
        output_action="image",
        num_orbit_samples=2,
    )
    data = maps(n=3, size=4, classes=2 if likelihood == "bernoulli" else 3)
    model.initialise(data)
    return model.double(), data


ETA = [0.4, 0.3]


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
def test_the_exact_evidence_is_the_determinant_in_weight_space(likelihood):
    model, data = small_model(likelihood, num_outputs=None)
    eta = torch.tensor(ETA, dtype=torch.float64)
    assert float(model.log_evidence(eta, data).detach()) == pytest.approx(in_weight_space(model, data, ETA), abs=1e-8)


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
def test_random_pixels_bound_it_from_both_sides(likelihood):
    model, data = small_model(likelihood, num_outputs=4)
    exact, eta = in_weight_space(model, data, ETA), torch.tensor(ETA, dtype=torch.float64)
    means = {}
    for determinant in ("upper", "lower"):
        model.evidence.determinant = determinant
        with torch.no_grad():
            values = torch.stack([model.log_evidence(eta, data) for _ in range(60)])
        means[determinant] = float(values.mean()), float(values.std() / 60**0.5)
    (low, low_error), (high, high_error) = means["upper"], means["lower"]
    assert low - 3 * low_error < exact < high + 3 * high_error
    assert high - low > 3 * (low_error + high_error)  # neither is the exact one
    every = model.evidence.num_outputs = math.prod(data.y.shape[1:]) * model.network(data.x).shape[1]
    assert float(model.log_evidence(eta, data).detach()) == pytest.approx(exact, abs=1e-7), every


@pytest.mark.parametrize("average", ["function", "probabilities"])
def test_gradients_against_finite_differences(average):
    model, data = small_model("categorical", num_outputs=None)
    model.average = average
    eta = torch.tensor(ETA, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.log_evidence(eta, data), eta)
    for k in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[k]
        with torch.no_grad():
            difference = (model.log_evidence(eta + step, data) - model.log_evidence(eta - step, data)) / 2e-6
        assert float(gradient[k]) == pytest.approx(float(difference), rel=1e-4)


def test_plug_in_likelihood_per_pixel():
    data = maps()
    for average in ("function", "probabilities", "log_likelihood"):
        model = quarter_model(conv_net(2), evidence="plugin", average=average)
        model.initialise(data)
        prior = at(model, [0.5, 0.2])
        values, weights = prior.moved_back(prior.outputs(data.x))
        weights = weights.expand(8, 6, 6, 6) if weights.ndim > 1 else weights.reshape(8, 1, 1, 1).expand(8, 6, 6, 6)
        own = values.log_softmax(-1).gather(-1, data.y.expand(8, -1, -1, -1)[..., None])[..., 0]
        expected = {
            "function": (weights[..., None] * values).sum(0).log_softmax(-1).gather(-1, data.y[..., None]).sum(),
            "probabilities": (weights * own.exp()).sum(0).log().sum(),
            "log_likelihood": (weights * own).sum(),
        }[average]
        eta = torch.tensor([0.5, 0.2], dtype=torch.float64)
        assert float(model.log_evidence(eta, data).detach()) == pytest.approx(float(expected.detach()))


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
@pytest.mark.parametrize("inference", ["vi", "augerino", "none", Fixed({"rotation": 1.0}), Fixed({"rotation": 1.0}, 2)])
def test_fits_predict_and_compare(likelihood, inference):
    data = maps(n=8)
    net = conv_net(1 if likelihood == "bernoulli" else 2).float()
    evidence = LaplaceEvidence(likelihood, num_outputs=6)
    model = InvarianceModel(
        net, Affine2d(["rotation", "translate_x"]), likelihood, evidence, num_orbit_samples=2, output_action="image"
    )
    training = Training(epochs=2, batch_size=4, extent_batch_size=4, extent_every=1)
    posterior = fit(model, (data.x.float(), data.y), inference=inference, seed=0, training=training)
    prediction = posterior.predict(data.x.float(), num_samples=2)
    assert prediction.probs.shape == (8, 6, 6, 2)
    assert torch.allclose(prediction.probs.sum(-1), torch.ones(8, 6, 6).double())
    assert prediction.labels.shape == data.y.shape
    table = bayesinv.compare({"fit": posterior}, data=(data.x.float(), data.y)).table
    right = (prediction.labels == data.y).double().mean()
    assert abs(float(table["accuracy"].iloc[0]) - float(right)) < 0.1


def test_augerino_turns_masks_with_its_own_draws():
    """An exactly equivariant network has the same loss whatever the draws, where nothing leaves the frame."""
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Tanh(), nn.Conv2d(4, 2, 1)).double()
    data = maps(n=5)
    model = InvarianceModel(
        net, Compose([CyclicRotation(4), Flip()]), evidence="plugin", average="log_likelihood", output_action="image"
    )
    losses = []
    for extents in ({"turns_4": 0.75, "flip_x": 0.5}, {"turns_4": 0.0}):
        method = Fixed(extents, num_copies=3)
        objective = method.objective(method.prepare(model), Training(), len(data), seed=0)
        losses.append(float(objective.loss(data, len(data)).detach()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="output_action: the outputs of an equivariant Gaussian process"):
        InvarianceModel(GaussianProcess(), Rotation3d(), "gaussian", output_action="vector")
    with pytest.raises(ValueError, match="is for networks"):
        InvarianceModel(GaussianProcess(), "rotation", "bernoulli")
    data = maps()
    for method in ("augnet", "policy"):
        with pytest.raises(ValueError, match="cannot be moved back"):
            fit(quarter_model(conv_net(2)), (data.x.float(), data.y), inference=method)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    with pytest.raises(DataError, match=r"has to return \(n, C, 6, 6\) for targets \(n, 6, 6\), and \(n, 2\) came"):
        InvarianceModel(flat, "rotation").initialise(data)
    with pytest.raises(DataError, match="one logit"):
        quarter_model(conv_net(2), "bernoulli").initialise(data)
    labels = Data(data.x, torch.arange(6) % 2, 2)
    with pytest.raises(DataError, match=r"expected outputs \(n, C, H, W\)"):
        InvarianceModel(flat, "rotation", output_action="image").initialise(labels)


def test_pixel_labels_are_checked():
    x = torch.rand(4, 1, 3, 3)
    data = bayesinv.data.as_data((x, torch.ones(4, 3, 3).long() - torch.eye(3).long()), "bernoulli")
    assert data.num_classes == 2
    assert data.subset([0, 1]).y.shape == (2, 3, 3)
    with pytest.raises(DataError, match="out of range"):
        bayesinv.data.as_data((x, 2 * torch.ones(4, 3, 3).long()), "bernoulli")
    with pytest.raises(DataError, match="negative labels, the first -1 at index 1"):
        y = torch.zeros(4, 3, 3).long()
        y[1, 2, 0] = -1
        bayesinv.data.as_data((x, y), "categorical")
    with pytest.raises(DataError, match="one-hot"):
        bayesinv.data.as_data((x, torch.eye(4).long()), "categorical")
