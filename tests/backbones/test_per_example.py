"""Per-example gradients and their Gram matrices against ``grad`` of one example at a time and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad

from bayesinv.backbones import per_example
from bayesinv.backbones.per_example import dense_gram, example_gradients, example_gram
from bayesinv.orbits.orbit import base_draws
from bayesinv.transforms import Affine2d

S, M, C = 3, 5, 4


class Residual(nn.Module):
    """Scalar gains and biases as in Fixup networks, a strided shortcut, activations in place, and a pooled output."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.second = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(3, 3, 1, stride=2)
        self.shift, self.gain = nn.Parameter(torch.randn(1)), nn.Parameter(torch.randn(1))
        self.per_channel = nn.Parameter(torch.randn(3, 1, 1))
        self.scalar = nn.Parameter(torch.tensor(0.7))
        self.out = nn.Linear(3, C)

    def forward(self, x):
        h = F.relu_(self.first(x + self.shift))
        h = self.gain * self.second(h) + self.shortcut(h) / (2 + self.scalar**2) - self.per_channel
        return self.out(torch.tanh_(h).mean((2, 3)))


class Shared(nn.Module):
    """One module called twice, and one weight in two modules."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.embed = nn.Conv2d(1, 2, 3)
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
        self.two.weight = self.one.weight
        self.out = nn.Linear(2, C)

    def forward(self, x):
        h = self.conv(torch.tanh(self.conv(torch.tanh(self.embed(x))))).mean((2, 3))
        return self.out(torch.tanh(self.two(torch.tanh(self.one(h)))))


class Tokens(nn.Module):
    """Linear maps and normalisation over positions."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.mlp, self.out = nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 5), nn.Linear(5, C)

    def forward(self, x):
        h = self.embed(x[:, 0])  # rows are tokens
        return self.out((h + torch.tanh(self.mlp(self.norm(h)))).mean(1))


class Unknown(nn.Module):
    """Uses that only vmap takes apart: a product of weights, a transposed convolution, a module's own formula.

    The weights of normalisations are among them, whose gradients vmap then has to differentiate.
    """

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(1, 2, 2, stride=2)
        self.left, self.right = nn.Parameter(torch.randn(C, 2)), nn.Parameter(torch.randn(2, 2))
        self.prelu = nn.PReLU(2)
        self.mixed = nn.Linear(C, C)  # once as a layer, once by hand
        self.instance, self.layer = nn.InstanceNorm2d(2, affine=True), nn.LayerNorm(C)

    def forward(self, x):
        h = self.prelu(self.instance(self.up(x)) + 0.3).mean((2, 3))
        h = self.mixed(self.layer(F.linear(h, self.left @ self.right))) @ self.mixed.weight
        return h * self.layer.weight.square() + self.instance.weight.prod()


class Changed(nn.Module):
    """The input of a convolution is overwritten before its gradient is asked for."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 2, 3), nn.Linear(2, C)

    def forward(self, x):
        x = 2 * x
        h = self.conv(x)
        x.mul_(3)
        return self.out(torch.tanh(h).mean((2, 3)) + x.mean((1, 2, 3))[:, None])


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 3, stride=2, dilation=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, C),
    )  # fmt: skip


def normalised() -> nn.Module:
    batch_norm = nn.BatchNorm2d(4).eval()
    batch_norm.running_mean.normal_()
    return nn.Sequential(
        nn.Conv2d(1, 4, (3, 2), stride=(1, 2), padding=(0, 1), dilation=(2, 1), padding_mode="circular"),
        nn.GroupNorm(2, 4), nn.Tanh(), nn.Conv2d(4, 4, 1, groups=2), batch_norm, nn.Conv2d(4, 2, 3, padding="same"),
        nn.Tanh(), nn.Flatten(2), nn.Conv1d(2, 3, 3, stride=2), nn.Flatten(), nn.LazyLinear(C, bias=False),
    )  # fmt: skip


# By name: the network, and the weights that are left to vmap.
NETWORKS = {
    "lenet": (lenet, set()),
    "residual": (Residual, {"scalar"}),  # squared before it meets a point
    "shared": (Shared, set()),
    "tokens": (Tokens, set()),
    "normalised": (normalised, {"5.weight", "5.bias"}),  # padding in words
    "unknown": (
        Unknown,
        {"up.weight", "up.bias", "left", "right", "prelu.weight", "mixed.weight", "layer.weight", "instance.weight"},
    ),
}


def make(name: str) -> nn.Module:
    torch.manual_seed(1)
    net = NETWORKS[name][0]().double()
    net(torch.zeros(1, 1, 6, 6, dtype=torch.float64))  # sizes what is lazy
    for p in net.parameters():
        nn.init.normal_(p, std=0.6)
    return net


def named(net: nn.Module) -> dict[str, torch.Tensor]:
    return dict(net.named_parameters())


def points(requires_grad: bool = True, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(S, M, 1, 6, 6, generator=generator, dtype=dtype).requires_grad_(requires_grad)


def make_rows(R: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(R, M, C, generator=torch.Generator().manual_seed(3), dtype=dtype)


def log_mean_probabilities(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.softmax(-1).mean(0).log()


def reference(net, x, A, average=lambda outputs: outputs.mean(0)) -> dict[str, torch.Tensor]:
    """∂u_i/∂w of every weight, (R, m, *shape), by torch.func one example at a time.

    Not by vmap, whose second derivatives of layer and instance normalisations are wrong in PyTorch 2.15.
    """

    def u(weights, copies, a):
        return (a * average(functional_call(net, weights, (copies,))[:, None])[0]).sum()

    weights = {k: w.detach() for k, w in named(net).items()}
    rows = [[grad(u)(weights, x[:, i], a[i]) for i in range(len(a))] for a in A]
    return {k: torch.stack([torch.stack([one[k] for one in row]) for row in rows]) for k in weights}


def reference_gram(gradients, scales) -> torch.Tensor:
    J = torch.cat([(scales[k] * j).reshape(*j.shape[:2], -1) for k, j in gradients.items()], -1)
    return torch.einsum("rip,rjp->rij", J, J)


def make_scales(net: nn.Module) -> dict[str, torch.Tensor]:
    return {k: torch.tensor(0.3 + 0.1 * i, dtype=torch.float64) for i, k in enumerate(named(net))}


@pytest.fixture
def left_to_vmap(monkeypatch):
    """The names that go through vmap, filled as it is called."""
    names: set[str] = set()
    original = per_example._by_vmap

    def spy(net, weights, wanted, *rest):
        names.update(wanted)
        return original(net, weights, wanted, *rest)

    monkeypatch.setattr(per_example, "_by_vmap", spy)
    return names


@pytest.mark.parametrize("average", [None, log_mean_probabilities])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_one_example_at_a_time(name, average, left_to_vmap):
    net, x, A = make(name), points(), make_rows(2)
    f, J = example_gradients(net, named(net), x, lambda f: A, average)
    truth = reference(net, x, A, *([average] if average else []))
    assert left_to_vmap == NETWORKS[name][1]
    assert list(J) == list(truth)
    for key in truth:
        torch.testing.assert_close(J[key], truth[key], rtol=1e-10, atol=1e-10)
    outputs = net(x.flatten(0, 1)).unflatten(0, (S, M))
    torch.testing.assert_close(f, average(outputs) if average else outputs.mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_gram_matrix_and_its_gradients_in_points_and_scales_are_those_of_one_example_at_a_time(name):
    net, x, A, scales = make(name), points(), make_rows(2), make_scales(make(name))
    inputs = [x, *(s.requires_grad_() for s in scales.values())]
    G = torch.randn(2, M, M, generator=torch.Generator().manual_seed(4), dtype=torch.float64)  # not symmetric
    f, K = example_gram(net, named(net), scales, x, lambda f: A)
    truth = reference_gram(reference(net, x, A), scales)
    torch.testing.assert_close(K, truth, rtol=1e-10, atol=1e-10)
    ours = torch.autograd.grad((G * K).sum() + f.square().sum(), inputs)
    plain = net(x.flatten(0, 1)).unflatten(0, (S, M)).mean(0)
    theirs = torch.autograd.grad((G * truth).sum() + plain.square().sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_in_the_extents_matches_finite_differences(name):
    net, A, scales = make(name), make_rows(1), make_scales(make(name))
    transform, base = Affine2d(["rotation", "translate_x"]), base_draws(S, 2)
    x = F.avg_pool2d(torch.rand(M, 1, 8, 8, dtype=torch.float64), 3, stride=1)  # smooth, 6 x 6

    def value(eta):
        _, K = example_gram(net, named(net), scales, transform.orbit(x, eta * base), lambda f: A)
        return torch.linalg.slogdet(torch.eye(M, dtype=torch.float64) + K[0])[1]

    # Bilinear sampling and ReLU have kinks, of which a step this small crosses none here; a smaller one loses to
    # rounding, which in values of 10 is 1e-8 of a difference quotient at 1e-6.
    eta, step = torch.tensor([0.3, 0.2], dtype=torch.float64), 1e-5
    gradient = torch.autograd.grad(value(eta.requires_grad_()), eta)[0]
    eta = eta.detach()
    for k in range(2):
        unit = step * torch.eye(2, dtype=torch.float64)[k]
        numeric = (value(eta + unit) - value(eta - unit)) / (2 * step)
        assert float(gradient[k]) == pytest.approx(float(numeric.detach()), rel=1e-6, abs=1e-8)


def test_an_overwritten_input_raises_as_it_would_in_training():
    net, A = Changed().double(), make_rows(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        example_gradients(net, named(net), points(), lambda f: A)


@pytest.mark.parametrize("name", ["lenet", "unknown"])
def test_rows_that_depend_on_the_outputs_are_differentiated_unless_detached(name):
    net, scales = make(name), make_scales(make(name))
    x = points()

    def gradient(rows):
        return torch.autograd.grad(example_gram(net, named(net), scales, x, rows)[1].sum(), x)[0]

    @torch.no_grad()
    def value(shift):
        return example_gram(net, named(net), scales, x + shift, lambda f: f.tanh()[None])[1].sum()

    direction = torch.randn_like(x)
    numeric = float((value(1e-6 * direction) - value(-1e-6 * direction)) / 2e-6)
    through = float((gradient(lambda f: f.tanh()[None]) * direction).sum())
    without = float((gradient(lambda f: f.detach().tanh()[None]) * direction).sum())
    assert through == pytest.approx(numeric, rel=1e-6)
    assert abs(without - numeric) > 1e-2 * abs(numeric)


def test_dense_gram_has_the_single_rows_on_its_diagonal_and_all_gradients_in_it():
    net, x, A, scales = make("residual"), points(), make_rows(3), make_scales(make("residual"))
    _, K = example_gram(net, named(net), scales, x, lambda f: A)
    _, dense = dense_gram(net, named(net), scales, x, lambda f: A)
    gradients = reference(net, x, A)
    J = torch.cat([(scales[k] * j).reshape(3 * M, -1) for k, j in gradients.items()], -1)
    torch.testing.assert_close(dense, J @ J.T, rtol=1e-10, atol=1e-10)
    for r in range(3):
        torch.testing.assert_close(dense[r * M : (r + 1) * M, r * M : (r + 1) * M], K[r], rtol=1e-10, atol=1e-10)


def test_wide_linear_maps_are_not_multiplied_out(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.Tanh(), nn.Linear(40, C)).double()  # 9 · 76 < 36 · 40
    products = []
    gram = per_example.Product.gram
    monkeypatch.setattr(per_example.Product, "gram", lambda self: products.append(self) or gram(self))
    x, A, scales = points(), make_rows(2), make_scales(net)
    _, K = example_gram(net, named(net), scales, x, lambda f: A)
    assert len(products) == 1
    assert products[0].b.shape == (2, S, M, 40)
    torch.testing.assert_close(K, reference_gram(reference(net, x, A), scales), rtol=1e-10, atol=1e-10)


def test_a_wide_linear_map_in_use_twice_is_multiplied_out():
    torch.manual_seed(0)
    twice = nn.Linear(36, 36)
    net = nn.Sequential(nn.Flatten(), twice, nn.Tanh(), twice, nn.Tanh(), nn.Linear(36, C)).double()
    x, A, scales = points(), make_rows(1), make_scales(net)
    _, K = example_gram(net, named(net), scales, x, lambda f: A)
    torch.testing.assert_close(K, reference_gram(reference(net, x, A), scales), rtol=1e-10, atol=1e-10)


def test_some_of_the_weights_and_points_without_a_gradient():
    net, x, A = make("lenet"), points(requires_grad=False), make_rows(1)
    some = {k: w for k, w in named(net).items() if k in ("0.bias", "6.weight")}
    _, J = example_gradients(net, some, x, lambda f: A)
    truth = reference(net, x, A)
    assert list(J) == ["0.bias", "6.weight"]
    for key in J:
        torch.testing.assert_close(J[key], truth[key], rtol=1e-10, atol=1e-10)
    assert all(w.grad is None for w in net.parameters())


def test_given_weights_count_and_not_those_of_the_network():
    net, x, A = make("residual"), points(), make_rows(1)
    other = {k: 0.5 * w.detach() for k, w in named(net).items()}
    _, J = example_gradients(net, other, x, lambda f: A)
    with torch.no_grad():
        for w in net.parameters():
            w.mul_(0.5)
    truth = reference(net, x, A)
    torch.testing.assert_close(J["first.weight"], truth["first.weight"], rtol=1e-10, atol=1e-10)


def test_without_gradients_the_values_are_the_same_and_nothing_is_kept():
    net, x, A, scales = make("residual"), points(), make_rows(1), make_scales(make("residual"))
    f, K = example_gram(net, named(net), scales, x, lambda f: A)
    with torch.no_grad():
        f0, K0 = example_gram(net, named(net), scales, x, lambda f: A)
    assert K.requires_grad and f.requires_grad
    assert not K0.requires_grad and not f0.requires_grad
    torch.testing.assert_close(K0, K.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(f0, f.detach(), rtol=1e-12, atol=1e-12)


def test_a_second_axis_of_the_batchs_size_is_left_to_vmap(left_to_vmap):
    """Were the batch the second axis, as in sequence models, the first would say nothing about examples."""

    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Linear(1, 3), nn.Linear(3, C)

        def forward(self, x):
            tokens = x.flatten(1)[:, : S * M, None].transpose(0, 1)  # (positions, batch, 1), both of size S·m
            return self.out(torch.tanh(self.embed(tokens)).mean(0))

    net = SequenceFirst().double()
    x, A = points(), make_rows(1)
    _, J = example_gradients(net, named(net), x, lambda f: A)
    assert left_to_vmap == {"embed.weight", "embed.bias"}
    torch.testing.assert_close(J["embed.weight"], reference(net, x, A)["embed.weight"], rtol=1e-10, atol=1e-10)


def test_single_precision_takes_channels_in_pairs_and_agrees():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, C))
    A = make_rows(1, torch.float32)
    for x in (points(dtype=torch.float32), points(dtype=torch.float32)[:2]):  # an odd and an even number of points
        x = x.detach().requires_grad_()
        f, J = example_gradients(net, named(net), x, lambda f: A)
        truth = reference(net, x, A)
        outputs = net(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(0)
        torch.testing.assert_close(f, outputs, rtol=1e-5, atol=1e-6)
        for key in truth:
            torch.testing.assert_close(J[key], truth[key], rtol=1e-4, atol=1e-5)
        ours, theirs = (torch.autograd.grad(sum(j.square().sum() for j in g.values()), x)[0] for g in (J, truth))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_autocast_around_it_changes_nothing():
    net, x, A = make("lenet").float(), points(dtype=torch.float32), make_rows(1, torch.float32)
    scales = make_scales(net)
    f, K = example_gram(net, named(net), scales, x, lambda f: A)
    _, dense = dense_gram(net, named(net), scales, x, lambda f: A)
    with torch.autocast("cpu", torch.bfloat16):
        f_within, K_within = example_gram(net, named(net), scales, x, lambda f: A)
        _, dense_within = dense_gram(net, named(net), scales, x, lambda f: A)
    assert torch.equal(f, f_within)
    torch.testing.assert_close(K, K_within, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dense, dense_within, rtol=1e-5, atol=1e-5)


def test_the_network_is_left_as_it_was_even_by_an_error():
    net, x = make("residual"), points()
    net.second.eval()
    modes = [module.training for module in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}

    def fail(f):
        raise RuntimeError("rows went wrong")

    with pytest.raises(RuntimeError, match="rows went wrong"):
        example_gradients(net, named(net), x, fail)
    example_gradients(net, named(net), x, lambda f: make_rows(1))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())
    assert torch.overrides._get_current_function_mode_stack() == []


def test_bad_input_says_what_was_expected():
    net, x, A = make("lenet"), points(), make_rows(1)
    scales = make_scales(net)
    with pytest.raises(ValueError, match="at least one weight"):
        example_gram(net, {}, {}, x, lambda f: A)
    with pytest.raises(ValueError, match=r"got none for \['0.weight'\]"):
        example_gram(net, named(net), {k: s for k, s in scales.items() if k != "0.weight"}, x, lambda f: A)
    with pytest.raises(ValueError, match=r"expected \(R, m, C\)"):
        example_gram(net, named(net), scales, x, lambda f: A[0])


@pytest.mark.cuda
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_on_a_cuda_device(name):
    net, x, A, scales = make(name), points(), make_rows(2), make_scales(make(name))
    _, K = example_gram(net, named(net), scales, x, lambda f: A)
    gradient = torch.autograd.grad(K.sum(), x)[0]
    net, device_x = net.cuda(), x.detach().cuda().requires_grad_()
    _, on_device = example_gram(net, named(net), {k: s.cuda() for k, s in scales.items()}, device_x, lambda f: A.cuda())
    torch.testing.assert_close(on_device.cpu(), K, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(torch.autograd.grad(on_device.sum(), device_x)[0].cpu(), gradient, rtol=1e-8, atol=1e-8)
