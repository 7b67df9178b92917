"""Random Fourier frequencies against the kernels that they come from."""

import math

import pytest
import torch
from gpytorch.kernels import (
    ConstantKernel,
    Kernel,
    LinearKernel,
    MaternKernel,
    PeriodicKernel,
    RBFKernel,
    RQKernel,
    ScaleKernel,
)

from bayesinv.backbones.spectral import Frequencies, has_spectral_density

KERNELS = {
    "rbf": lambda: RBFKernel(),
    "matern_05": lambda: MaternKernel(nu=0.5),
    "matern_15": lambda: MaternKernel(nu=1.5),
    "matern_25": lambda: MaternKernel(nu=2.5),
    "rq": lambda: RQKernel(),
    "scaled": lambda: ScaleKernel(RQKernel()),
    "sum": lambda: ScaleKernel(RBFKernel()) + MaternKernel(nu=1.5) + ConstantKernel(),
    "product": lambda: ScaleKernel(RBFKernel() * MaternKernel(nu=2.5)) * ConstantKernel(),
    "product_of_sums": lambda: (RBFKernel() + ConstantKernel()) * RQKernel(),
}


def make(name: str, num_inputs: int) -> Kernel:
    """Lengthscales about the distances of standard normal inputs, all different; no other default either."""
    kernel = KERNELS[name]().double()
    for i, part in enumerate(part for part in kernel.modules() if isinstance(part, Kernel)):
        if part.has_lengthscale:
            part.lengthscale = math.sqrt(num_inputs) * (0.8 + 0.1 * i)
        if isinstance(part, RQKernel):
            part.alpha = 0.6
        if isinstance(part, ScaleKernel):
            part.outputscale = 1.7
        if isinstance(part, ConstantKernel):
            part.constant = torch.tensor(0.4)
    return kernel


def inputs(num_inputs: int, n: int = 20) -> torch.Tensor:
    return torch.randn(n, num_inputs, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def gram(W: torch.Tensor, a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    phi = torch.cat([a * torch.cos(x @ W), a * torch.sin(x @ W)], -1)
    return phi @ phi.T


@torch.no_grad()
def estimates(kernel: Kernel, x: torch.Tensor, R: int, num_seeds: int) -> torch.Tensor:
    """ΦΦᵀ for every seed, (seeds, n, n)."""
    return torch.stack([gram(*Frequencies(kernel, x.shape[1], R, seed)(kernel), x) for seed in range(num_seeds)])


@pytest.mark.parametrize("num_inputs", [2, 30, 200])
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernel_is_approached_at_least_at_the_rate_of_monte_carlo(name, num_inputs):
    kernel, x = make(name, num_inputs), inputs(num_inputs)
    truth = kernel(x).to_dense().detach()
    errors = [(estimates(kernel, x, R, 12) - truth).abs().mean((1, 2)) for R in (64, 256, 1024)]
    assert errors[2].mean() < 0.03 * truth.max()
    # Sixteen times the frequencies, a quarter of the error or less; each mean is known to its standard error.
    few, many = errors[0].mean(), errors[2].mean()
    noise = sum((e.std() / e.mean()).square() / len(e) for e in (errors[0], errors[2])).sqrt()
    assert few / many > 4.0 * (1.0 - 2.0 * noise)
    assert errors[0].mean() > errors[1].mean() > errors[2].mean()


@pytest.mark.parametrize("num_inputs", [2, 30])
@pytest.mark.parametrize("name", KERNELS)
def test_the_estimate_is_unbiased(name, num_inputs):
    kernel, x = make(name, num_inputs), inputs(num_inputs, n=8)
    truth = kernel(x).to_dense().detach()
    K = estimates(kernel, x, 20, 400)
    upper = torch.triu_indices(8, 8, offset=1).unbind()
    z = ((K.mean(0) - truth) / (K.std(0) / math.sqrt(len(K))))[upper]
    assert z.abs().max() < 4.5
    assert z.square().mean() < 3.0  # one in expectation; the 28 pairs are correlated
    torch.testing.assert_close(K.diagonal(dim1=1, dim2=2), truth.diagonal().expand(400, 8))


def test_orthogonal_frequencies_beat_independent_ones():
    kernel, x = make("rbf", 30), inputs(30)
    truth = kernel(x).to_dense().detach()
    for R in (64, 256):
        generator = torch.Generator().manual_seed(0)
        independent = [
            torch.randn(30, R, generator=generator, dtype=torch.float64) / kernel.lengthscale.item() for _ in range(12)
        ]
        a = torch.full((R,), R**-0.5, dtype=torch.float64)
        plain = torch.stack([gram(W, a, x) for W in independent]) - truth
        ours = estimates(kernel, x, R, 12) - truth
        assert ours.square().mean() < 0.7 * plain.square().mean()


def test_a_few_inputs_beat_the_rate_of_monte_carlo():
    kernel, x = make("rbf", 2), inputs(2)
    truth = kernel(x).to_dense().detach()
    few, many = ((estimates(kernel, x, R, 12) - truth).abs().mean() for R in (64, 1024))
    assert few > 10.0 * many  # 1/R would be 16, 1/√R 4


def test_blocks_of_directions_are_orthogonal_and_lengths_stratified():
    kernel, D, R = RBFKernel().double(), 20, 50
    kernel.lengthscale = 1.0
    W, _ = Frequencies(kernel, D, R, seed=0)(kernel)
    lengths = W.norm(dim=0)
    for block in (W / lengths).split(D, 1):  # the last has ten columns
        torch.testing.assert_close(block.T @ block, torch.eye(block.shape[1], dtype=W.dtype), atol=1e-6, rtol=0)
    cdf = torch.special.gammainc(torch.tensor(D / 2.0, dtype=W.dtype), lengths.square() / 2.0).sort().values
    assert (cdf - (torch.arange(R) + 0.5) / R).abs().max() < 2.0 / R  # 1.4/√R for one in twenty independent samples


def test_sign_fix_makes_directions_uniform():
    """Without it, QR of LAPACK leaves the first number of a block's first column below zero."""
    kernel = RBFKernel().double()
    first = torch.stack([Frequencies(kernel, 20, 1, seed)(kernel)[0][0, 0] for seed in range(100)])
    assert 30 < (first > 0).sum() < 70  # five standard deviations


@pytest.mark.parametrize("num_inputs", [3, 20])
@pytest.mark.parametrize("name", KERNELS)
def test_gradients_against_finite_differences_and_the_exact_kernel(name, num_inputs):
    kernel, x = make(name, num_inputs), inputs(num_inputs, n=12)
    names, parameters = zip(*kernel.named_parameters(), strict=True)
    weights = torch.randn(12, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    frequencies = [Frequencies(kernel, num_inputs, 400, seed) for seed in range(24)]

    def value(seed):
        return (weights * gram(*frequencies[seed](kernel), x)).sum()

    ours = torch.autograd.grad(value(0), parameters)
    for label, parameter, got in zip(names, parameters, ours, strict=True):
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(step)
                ends.append(value(0))
                parameter.sub_(step)
        slope = (ends[0] - ends[1]) / 2e-6
        assert abs(slope) > 1e-3, f"{label} has no effect"
        torch.testing.assert_close(
            got.reshape(()), slope, rtol=1e-4, atol=1e-7, msg=lambda m, label=label: f"{label}: {m}"
        )

    if name == "matern_05":  # the variance of these gradients is infinite
        return
    exact = torch.autograd.grad((weights * kernel(x).to_dense()).sum(), parameters)
    draws = [torch.autograd.grad(value(seed), parameters) for seed in range(24)]
    for label, truth, *estimate in zip(names, exact, *draws, strict=True):
        each = torch.stack(estimate).reshape(24)
        error = each.std() / math.sqrt(24)
        assert (each.mean() - truth.reshape(())).abs() < 4.5 * error + 1e-9, label
        assert error < 0.3 * truth.abs() + 0.1, f"{label}: too noisy to say anything"


@pytest.mark.parametrize("alpha", [0.05, 0.6, 3.0, 40.0, 1e4])
def test_mixing_of_rational_quadratic_is_a_gamma_with_its_derivative(alpha):
    kernel = RQKernel().double()
    kernel.alpha, kernel.lengthscale = alpha, 1.0
    frequencies = Frequencies(kernel, 1, 500, seed=0)
    z = frequencies.normal_0.double()
    g = (frequencies(kernel)[0] / z).square().reshape(-1)
    u = torch.special.gammainc(kernel.alpha.detach(), alpha * g.detach())
    torch.testing.assert_close(u, frequencies.uniform_0.double(), rtol=1e-6, atol=1e-9)
    # ∂P/∂α + ∂P/∂g g'(α) = 0 at every quantile, by its own finite differences of P.
    (slope,) = torch.autograd.grad(g.sum(), kernel.raw_alpha)
    g, h = g.detach(), 1e-5 * alpha

    def P(a, at):
        return torch.special.gammainc(torch.tensor(a, dtype=torch.float64), a * at)

    density = torch.distributions.Gamma(alpha, alpha).log_prob(g).exp()
    expected = -(P(alpha + h, g) - P(alpha - h, g)) / (2.0 * h) / density
    expected = expected.sum() * torch.sigmoid(kernel.raw_alpha.detach())  # alpha = softplus(raw)
    torch.testing.assert_close(slope, expected.reshape(1), rtol=1e-3, atol=1e-6)


def test_ard_and_active_dimensions():
    first = ScaleKernel(RBFKernel(ard_num_dims=2, active_dims=(3, 1)))
    second = MaternKernel(nu=2.5, active_dims=(0,))
    nested = ScaleKernel(RBFKernel(active_dims=(1,)) + RQKernel(), active_dims=(2, 4))  # dims 4, and 2 and 4
    first.base_kernel.lengthscale = torch.tensor([0.7, 2.5])
    x = inputs(5)
    for kernel in (first, second, nested, first + second, first * nested):
        kernel = kernel.double()
        truth = kernel(x).to_dense().detach()
        assert (estimates(kernel, x, 2000, 1)[0] - truth).abs().mean() < 0.012 * truth.max()
    W, _ = Frequencies(first, 5, 64, seed=0)(first)
    assert W[[0, 2, 4]].count_nonzero() == 0
    assert W[[1, 3]].count_nonzero() == 128
    W, _ = Frequencies(nested, 5, 64, seed=0)(nested)
    assert W[[0, 1, 3]].count_nonzero() == 0
    assert W[2].count_nonzero() == 32  # of the second term alone
    W, _ = Frequencies(first, 5, 64, seed=0)(first)
    (slope,) = torch.autograd.grad(W[3].square().sum(), first.base_kernel.raw_lengthscale)
    assert slope[0, 0] < 0 and slope[0, 1] == 0  # the first lengthscale is that of x_3


def test_shares_of_sums_and_the_frequency_of_constants():
    kernel = make("sum", 2)
    frequencies = Frequencies(kernel, 2, 12, seed=0)
    W, a = frequencies(kernel)
    assert W.shape == (2, 12) and W.dtype == a.dtype == torch.float64
    assert frequencies.num_frequencies == 12
    torch.testing.assert_close(
        a.square().detach(), torch.tensor([1.7 / 6] * 6 + [1 / 5] * 5 + [0.4], dtype=torch.float64)
    )
    assert W[:, -1].count_nonzero() == 0 and W[:, :-1].count_nonzero() == 22
    constant = ConstantKernel() * ConstantKernel() + ConstantKernel()
    frequencies = Frequencies(constant, 3, 50, seed=0)
    assert frequencies(constant)[0].shape == (3, 2) and frequencies.num_frequencies == 2
    assert frequencies(constant)[1].square().sum().item() == pytest.approx(math.log(2) ** 2 + math.log(2))
    Frequencies(kernel, 2, 3, seed=0)
    with pytest.raises(ValueError, match="at least 3, one for each term"):
        Frequencies(kernel, 2, 2, seed=0)


def test_factors_of_a_product_are_independent():
    """Two Sobol sets would not be: their points have the order of their digits in common."""
    kernel = RBFKernel(active_dims=(0,)) * RBFKernel(active_dims=(1,))
    for seed in range(5):
        W, _ = Frequencies(kernel, 2, 256, seed)(kernel)
        signs = (W > 0).double()
        for quadrant in (signs[0] * signs[1], signs[0] * (1 - signs[1]), (1 - signs[0]) * (1 - signs[1])):
            assert 50 < quadrant.sum() < 78  # a quarter of 256 each


@pytest.mark.parametrize("num_inputs", [3, 20])
def test_same_seed_same_numbers_and_the_global_generator_untouched(num_inputs):
    kernel = make("product_of_sums", num_inputs)
    before = torch.random.get_rng_state()
    first, again, other = (Frequencies(kernel, num_inputs, 40, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    later = Frequencies(kernel, num_inputs, 40, 1)
    W = first(kernel)[0]
    assert torch.equal(W, again(kernel)[0]) and torch.equal(W, later(kernel)[0])
    varying = (W != 0).all(0)
    assert (other(kernel)[0] != W)[:, varying].all()


@pytest.mark.parametrize("name", KERNELS)
def test_state_dict_round_trip(name):
    kernel = make(name, 20)
    saved = Frequencies(kernel, 20, 33, seed=4)
    state = saved.state_dict()
    assert all(value.dtype == torch.float32 for key, value in state.items() if key != "sizes")
    assert not list(saved.parameters())
    W, a = saved(kernel)
    for loaded in (
        Frequencies.for_state(kernel, state),
        Frequencies.for_state(kernel, {f"frequencies.{key}": v for key, v in state.items()}, "frequencies."),
    ):
        assert torch.equal(loaded(kernel)[0], W) and torch.equal(loaded(kernel)[1], a)
    with pytest.raises(ValueError, match="'sizes'"):
        Frequencies.for_state(kernel, {"inducing": torch.zeros(2)})


def test_names_of_the_state():
    state = Frequencies(make("product_of_sums", 3), 3, 20, seed=0).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "sizes": (2,),
        "normal_0": (3, 10),  # RBF of RBF * RQ
        "normal_1": (3, 10),
        "uniform_1": (10,),
        "normal_2": (3, 10),  # of constant * RQ
        "uniform_2": (10,),
    }


class OwnKernel(RBFKernel):
    pass


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_with_spectral_density(name):
    assert has_spectral_density(KERNELS[name]())


@pytest.mark.parametrize(
    ("make_kernel", "said"),
    [
        (PeriodicKernel, "PeriodicKernel"),
        (lambda: ScaleKernel(LinearKernel()), "LinearKernel"),
        (lambda: RBFKernel() + OwnKernel(), "OwnKernel"),
        (lambda: RBFKernel() * PeriodicKernel(), "PeriodicKernel"),
        (lambda: RBFKernel(batch_shape=torch.Size([2])), r"RBFKernel of batch shape \(2,\)"),
        (lambda: ConstantKernel() + ScaleKernel(RBFKernel(), batch_shape=torch.Size([3])), "batch shape"),
    ],
)
def test_other_kernels_are_refused(make_kernel, said):
    kernel = make_kernel()
    assert not has_spectral_density(kernel)
    with pytest.raises(ValueError, match=f"RQKernel.*got {said if said != 'batch shape' else '.*' + said}.*num_induc"):
        Frequencies(kernel, 2, 10, seed=0)
    drawn = Frequencies(RBFKernel(), 2, 10, seed=0)
    with pytest.raises(ValueError, match="num_inducing="):
        drawn(kernel)


def test_bad_input_says_what_was_expected():
    with pytest.raises(ValueError, match=r"active_dims: expected numbers from 0 to 1, got \[2\]"):
        Frequencies(RBFKernel(active_dims=(2,)), 2, 10, seed=0)
    with pytest.raises(ValueError, match="ard_num_dims: expected 2"):
        Frequencies(RBFKernel(ard_num_dims=3), 2, 10, seed=0)
    with pytest.raises(ValueError, match="num_inputs: expected at least 1, got 0"):
        Frequencies(RBFKernel(), 0, 10, seed=0)
    drawn = Frequencies(RBFKernel(), 2, 10, seed=0)
    with pytest.raises(ValueError, match=r"drawn for, \['RBFKernel of 2 inputs'\], got \['MaternKernel\(nu=0.5\)"):
        drawn(MaternKernel(nu=0.5))


@pytest.mark.cuda
@pytest.mark.parametrize("name", KERNELS)
def test_the_same_on_a_cuda_device(name):
    kernel = make(name, 20)
    frequencies = Frequencies(kernel, 20, 30, seed=0)
    W, a = frequencies(kernel)
    parameters = list(kernel.parameters())
    slopes = torch.autograd.grad(W.square().sum() + a.sum(), parameters)
    kernel, frequencies = kernel.cuda(), frequencies.cuda()
    W_there, a_there = frequencies(kernel)
    slopes_there = torch.autograd.grad(W_there.square().sum() + a_there.sum(), list(kernel.parameters()))
    torch.testing.assert_close(W_there.cpu(), W)
    torch.testing.assert_close(a_there.cpu(), a)
    for there, here in zip(slopes_there, slopes, strict=True):
        torch.testing.assert_close(there.cpu(), here)
