"""The Laplace evidence against formulas in the space of the weights, finite differences, and its own bound."""

import math

import pytest
import torch
from torch import nn

from bayesinv import InvarianceModel, NeuralNetwork
from bayesinv.data.container import Data
from bayesinv.evidence import LaplaceEvidence
from bayesinv.transforms import Affine2d

ETA = torch.tensor([0.4, 0.1], dtype=torch.float64)


def small_net(outputs: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


def images(n: int = 8, outputs: int = 3, likelihood: str = "categorical") -> Data:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    if likelihood == "gaussian":
        return Data(x, torch.randn(n, outputs, generator=generator, dtype=torch.float64))
    return Data(x, torch.arange(n) % outputs, num_classes=outputs)


def make_model(
    likelihood: str = "categorical", outputs: int = 3, average: str = "function", **options
) -> InvarianceModel:
    model = InvarianceModel(
        NeuralNetwork(small_net(outputs), start_gain=1.5),
        Affine2d(["rotation", "translate_x"]),
        likelihood=likelihood,
        evidence=LaplaceEvidence(likelihood, **options),
        num_orbit_samples=4,
        average=average,
    )
    model.initialise(images(outputs=outputs, likelihood=likelihood))
    return model.double()


def by_weights(model: InvarianceModel, data: Data) -> torch.Tensor:
    """log p(D | θ) - ½|θ|²_Σ - ½ log det(I + Σ^½ Jᵀ Λ J Σ^½), the Jacobian by torch.func and Λ by its definition."""
    network, prior = model.backbone, model.at(ETA)
    weights = {name: w.detach() for name, w in network.weights().items()}
    scales = network.prior_scales()

    def f(weights):
        outputs = network.in_unit(prior.outputs(data.x, weights))
        if model.average == "probabilities":
            return outputs.softmax(-1).mean(0).log()
        return outputs.mean(0)

    jacobian = torch.func.jacrev(f)(weights)
    J = torch.cat([(jacobian[k] * scales[k]).flatten(2) for k in weights], dim=-1).detach()  # (n, C, P)
    out = f(weights).detach()
    if model.likelihood == "categorical":
        p = out.softmax(-1)
        Lam = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        fit = out.log_softmax(-1)[torch.arange(len(data)), data.y].sum()
    else:
        Lam = (torch.eye(out.shape[1], dtype=out.dtype) / model.evidence.noise).expand(len(data), -1, -1)
        fit = torch.distributions.Normal(out, model.evidence.noise.sqrt()).log_prob(data.y).sum()
    H = torch.einsum("ncp,ncd,ndq->pq", J, Lam, J)
    norm = sum((weights[k] / scales[k]).square().sum() for k in weights)
    return fit - 0.5 * norm - 0.5 * torch.linalg.slogdet(torch.eye(len(H), dtype=H.dtype) + H)[1]


@pytest.mark.parametrize(
    ("likelihood", "average"),
    [("categorical", "function"), ("categorical", "probabilities"), ("gaussian", "function")],
)
def test_the_exact_form_is_the_determinant_in_weight_space(likelihood, average):
    model = make_model(likelihood, average=average, num_outputs=None)
    data = images(likelihood=likelihood)
    assert float(model.log_evidence(ETA, data).detach()) == pytest.approx(
        float(by_weights(model, data).detach()), abs=1e-8
    )


class Attention(nn.Module):
    """The rows of an image attend to each other, with two heads."""

    def __init__(self, outputs: int = 3, by_hand: bool = False):
        super().__init__()
        self.qkv, self.head, self.by_hand = nn.Linear(6, 12), nn.Linear(4, outputs), by_hand

    def forward(self, x):
        q, k, v = self.qkv(x[:, 0]).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)  # (n, heads, rows, 2) each
        if self.by_hand:
            mixed = (q @ k.mT / math.sqrt(2)).softmax(-1) @ v
        else:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(mixed.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize("num_outputs", [None, 1])
def test_attention_has_the_evidence_and_gradient_of_its_formula(num_outputs):
    """PyTorch's fused attention has no second derivative, which the gradient of the evidence asks for."""
    found = []
    for by_hand in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = Attention(by_hand=by_hand).double()
        evidence = LaplaceEvidence(num_outputs=num_outputs)
        model = InvarianceModel(NeuralNetwork(net), Affine2d(["rotation", "translate_x"]), evidence=evidence)
        model.initialise(images())
        eta = ETA.clone().requires_grad_()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            value = model.log_evidence(eta, images())
        value.backward()
        found.append(torch.stack([value.detach(), *eta.grad, *model.backbone.log_scales.grad]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    assert found[0][1:].abs().min() > 0


def test_a_linear_network_at_its_posterior_mode_gives_the_marginal_likelihood_of_the_linear_model():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    data = Data(x, y)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 1, bias=False)).double()
    model = InvarianceModel(
        net,
        Affine2d(["rotation"]),
        likelihood="gaussian",
        evidence=LaplaceEvidence("gaussian", num_outputs=None),
        priors={"rotation": None},
    ).double()
    model.initialise(data)
    m, s = model.backbone.output_mean, model.backbone.output_unit
    sigma = s * model.backbone.prior_scales()["1.weight"].detach()
    noise = model.evidence.noise.detach()
    X = x.flatten(1)
    K = sigma**2 * X @ X.T + noise * torch.eye(12, dtype=torch.float64)
    with torch.no_grad():  # the posterior mode of the weights
        model.backbone.net[1].weight.copy_((sigma**2 / s * X.T @ torch.linalg.solve(K, y - m)).T)
    truth = torch.distributions.MultivariateNormal(m.expand(12), K).log_prob(y[:, 0])
    eta = torch.zeros(1, dtype=torch.float64)
    assert float(model.log_evidence(eta, data).detach()) == pytest.approx(float(truth), abs=1e-8)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_minibatches_and_single_outputs_give_a_lower_bound_on_the_exact_form(likelihood):
    data = images(12, likelihood=likelihood)
    exact = float(make_model(likelihood, num_outputs=None).log_evidence(ETA, data).detach())
    batches = make_model(likelihood, num_outputs=None, anchors=0.0)
    parts = [data.subset(slice(a, a + 6)) for a in (0, 6)]
    halves = [float(batches.evidence.log_evidence(batches.at(ETA), part, 12).detach()) for part in parts]
    single = make_model(
        likelihood, num_outputs=3, block_size=6, anchors=0.0
    )  # every output on its own, the data in two blocks
    bound = float(single.log_evidence(ETA, data).detach())
    assert bound < sum(halves) / 2 < exact
    assert exact - bound < 0.5 * abs(exact)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_the_determinant_lies_between_its_two_bounds(likelihood):
    data = images(12, likelihood=likelihood)
    exact = float(make_model(likelihood, num_outputs=None).log_evidence(ETA, data).detach())
    value = {
        kind: float(
            make_model(likelihood, num_outputs=3, block_size=4, determinant=kind, anchors=0.0)
            .log_evidence(ETA, data)
            .detach()
        )
        for kind in ("upper", "between", "lower")
    }
    assert value["upper"] < exact < value["lower"]
    assert value["upper"] < value["between"] < value["lower"]
    for kind in ("upper", "between", "lower"):  # one block of everything: nothing is left out
        whole = make_model(likelihood, num_outputs=None, determinant=kind)
        assert float(whole.log_evidence(ETA, data).detach()) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_anchors_tighten_the_bound_and_keep_it_one_on_average_over_batches(likelihood):
    data = images(12, likelihood=likelihood)
    exact = float(make_model(likelihood, num_outputs=None).log_evidence(ETA, data).detach())
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(12, generator=generator)[:6] for _ in range(60)]

    def mean(anchors):
        model = make_model(likelihood, num_outputs=3, anchors=anchors)
        values = [model.evidence.log_evidence(model.at(ETA), data.subset(order), 12).detach() for order in orders]
        return float(torch.stack(values).mean())

    assert mean(0.0) < mean(0.5) < exact
    assert mean(0.5) < mean(0.8)


def test_random_outputs_are_an_unbiased_estimate_of_all_single_outputs():
    data = images(6)
    every = make_model(num_outputs=3)
    one = make_model(num_outputs=1)
    torch.manual_seed(0)
    draws = [float(one.log_evidence(ETA, data).detach()) for _ in range(400)]
    spread = torch.tensor(draws).std() / math.sqrt(len(draws))
    assert len(set(draws)) == 3
    assert abs(sum(draws) / len(draws) - float(every.log_evidence(ETA, data).detach())) < 4 * float(spread)


@pytest.mark.parametrize(("num_outputs", "kind"), [(None, "upper"), (3, "upper"), (2, "between"), (1, "equivalent")])
def test_gradient_in_the_extents_and_scales_matches_finite_differences(num_outputs, kind):
    data = images()
    model = make_model(num_outputs=num_outputs, determinant=kind)
    eta = ETA.clone().requires_grad_()
    scales = model.backbone.log_scales
    torch.manual_seed(0)
    gradients = torch.autograd.grad(model.log_evidence(eta, data), [eta, scales])

    def value(shift_eta, shift_scales):
        with torch.no_grad():
            scales.add_(shift_scales)
            torch.manual_seed(0)
            result = model.log_evidence(ETA + shift_eta, data)
            scales.sub_(shift_scales)
        return float(result)

    step = 1e-5
    for k in range(2):
        unit = torch.eye(2, dtype=torch.float64)[k] * step
        numeric = (value(unit, torch.zeros_like(scales)) - value(-unit, torch.zeros_like(scales))) / (2 * step)
        assert float(gradients[0][k]) == pytest.approx(numeric, rel=1e-4)
        numeric = (value(0 * unit, unit) - value(0 * unit, -unit)) / (2 * step)
        assert float(gradients[1][k]) == pytest.approx(numeric, rel=1e-4)


def test_values_agree_with_laplace_torch():
    """An oracle from an environment of its own: ``pip install laplace-torch`` beside bayesinv; skipped without it."""
    laplace = pytest.importorskip("laplace", reason="laplace-torch is an oracle and no dependency; not installed")
    model = make_model(num_outputs=None)
    model.extents.priors.clear()
    model.extents.fixed.update(rotation=0.0, translate_x=0.0)
    data = images()
    scales = model.backbone.prior_scales()
    weights = model.backbone.weights()
    precision = torch.cat([(1 / scales[k].detach() ** 2).expand(weights[k].numel()) for k in weights])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data.x, data.y), batch_size=8)
    oracle = laplace.Laplace(
        model.backbone.net,
        "classification",
        subset_of_weights="all",
        hessian_structure="full",
        prior_precision=precision,
    )
    oracle.fit(loader)
    ours = float(model.log_evidence(torch.zeros(2, dtype=torch.float64), data).detach())
    assert ours == pytest.approx(float(oracle.log_marginal_likelihood().detach()), rel=1e-5)


@pytest.mark.parametrize("num_outputs", [1, None])
def test_gradients_are_finite_where_probabilities_underflow(num_outputs):
    """exp(-104) is zero in single precision: the root of such a probability still has a slope, of zero."""
    model = make_model(num_outputs=num_outputs).float()
    data = images()
    data = Data(data.x.float(), data.y, num_classes=data.num_classes)
    with torch.no_grad():
        last = [p for name, p in model.backbone.named_parameters() if p.shape == (3, 4)]
        assert len(last) == 1
        last[0].mul_(1e4)
    eta = ETA.clone().requires_grad_()
    prior = model.at(eta)
    outputs = prior.outputs(data.x, prior.backbone.weights()).detach()
    assert float(outputs.mean(0).softmax(-1).min()) == 0.0
    torch.manual_seed(0)
    value = model.evidence.log_evidence(prior, data)
    value.backward()
    assert bool(torch.isfinite(value)) and bool(torch.isfinite(eta.grad).all())


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_all_combined_rows_of_all_data_have_the_determinant_of_all_rows(likelihood):
    data = images(likelihood=likelihood)
    exact = float(make_model(likelihood, num_outputs=None).log_evidence(ETA, data).detach())
    for outputs in (None, 3):
        combined = make_model(likelihood, num_outputs=outputs, determinant="equivalent")
        assert float(combined.log_evidence(ETA, data).detach()) == pytest.approx(exact, abs=1e-7)


def test_combined_rows_of_maps_are_a_root_of_the_hessian_and_orthonormal_ones_of_it():
    f = torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # 6 cells, 5 classes
    p = f.softmax(-1).reshape(4, 6, 5)
    hessian = torch.stack([torch.block_diag(*(torch.diag(c) - torch.outer(c, c) for c in cells)) for cells in p])
    rows = LaplaceEvidence(num_outputs=None, determinant="equivalent")._combined_rows(f)
    assert rows.shape == (24, 4, 30)
    torch.testing.assert_close(torch.einsum("rma,rmb->mab", rows, rows), hessian)
    some = LaplaceEvidence(num_outputs=7, determinant="equivalent")._combined_rows(f)
    inverse = torch.linalg.pinv(hessian, hermitian=True)
    products = torch.einsum("rma,mab,smb->mrs", some, inverse, some)  # of the q, as R R⁺ keeps what is not mapped to 0
    torch.testing.assert_close(products, torch.eye(7, dtype=torch.float64).expand(4, 7, 7))
    logits = f[..., :1]
    rows = LaplaceEvidence("bernoulli", num_outputs=None, determinant="equivalent")._combined_rows(logits)
    slope = (logits.sigmoid() * (-logits).sigmoid()).flatten(1)
    torch.testing.assert_close(torch.einsum("rma,rmb->mab", rows, rows), torch.diag_embed(slope))


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_the_equivalent_from_a_third_of_the_data_is_near_the_exact_evidence(num_outputs):
    data = images(36)
    exact = float(make_model(num_outputs=None).log_evidence(ETA, data).detach())
    generator = torch.Generator().manual_seed(0)

    def log_det(kind):
        model = make_model(num_outputs=num_outputs, determinant=kind)
        torch.manual_seed(0)
        parts = [data.subset(torch.randperm(36, generator=generator)[:12]) for _ in range(25)]
        with torch.no_grad():
            values = [2 * float(model.evidence._log_det(*pair(model, part), 36)) for part in parts]
        return sum(values) / len(values)

    def pair(model, part):
        f, K = model.evidence._kernel(model.at(ETA), model.backbone.weights(), part)
        return K, f

    whole = make_model(num_outputs=None)
    with torch.no_grad():
        truth = 2 * float(whole.evidence._log_det(*pair(whole, data), 36))
    assert math.isfinite(exact)
    assert log_det("equivalent") == pytest.approx(truth, rel=0.05)
    assert log_det("upper") > 1.1 * truth > 1.3 * log_det("lower")


def test_which_of_the_determinants_are_bounds_is_said():
    bounds = {kind: LaplaceEvidence(determinant=kind).bound for kind in ("upper", "between", "lower", "equivalent")}
    assert bounds == {"upper": "lower", "between": None, "lower": "upper", "equivalent": None}


def test_with_all_outputs_of_two_classes_u_is_a_bound():
    """Output by output the anchors would be the first class of every example, of which the second is a consequence."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 1, 6, 6, generator=generator, dtype=torch.float64)
    data = Data(x, torch.arange(40) % 2, num_classes=2)
    model = make_model(outputs=2, num_outputs=None)
    weights = model.backbone.weights()

    def log_det(part):
        with torch.no_grad():
            f, K = model.evidence._kernel(model.at(ETA), weights, part)
            return float(model.evidence._log_det(K, f, 40))

    exact = log_det(data)
    parts = [data.subset(torch.randperm(40, generator=generator)[:8]) for _ in range(40)]
    values = torch.tensor([log_det(part) for part in parts])
    assert float(values.mean()) > exact + 2 * float(values.std()) / 40**0.5
