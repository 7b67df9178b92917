"""What every evidence must satisfy, as checks that raise an AssertionError with the numbers in it.

By subclassing, which is all that a test file needs::

    class TestMyEvidence(EvidenceConformance):
        def make_evidence(self):
            return MyEvidence()

The reference is the same evidence with the function values themselves as inducing values: V Vᵀ = k_ff and no
residual variance, for which the collapsed bound is exact in f. An evidence that is a bound in the likelihood as well
adds a test of its own against quadrature.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.data import Data
from bayesinv.evidence import CollapsedEvidence
from bayesinv.evidence.collapsed import Whitened
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.model import InvarianceModel
from bayesinv.testing.transforms import smooth_images
from bayesinv.transforms import Affine2d

__all__ = ["CHECKS", "EvidenceCase", "EvidenceConformance", "check_evidence"]

# k(Z, Z) carries a relative jitter of 1e-6, which lowers the bound by about that share of every function value's
# precision; nothing else separates the bound from its limit in float64.
JITTER_TOLERANCE = 1e-3


@dataclass(frozen=True)
class EvidenceCase:
    """An initialised model in double precision, its data, and the extents at which it is tested."""

    model: InvarianceModel
    data: Data
    eta: Tensor

    @staticmethod
    def of(
        evidence: CollapsedEvidence,
        num_inputs: int = 6,
        num_samples: int = 4,
        num_inducing: int = 4,
    ) -> EvidenceCase:
        """A small problem: smooth images under translation and rotation, targets that vary with them."""
        x = torch.cat(
            [smooth_images(batch=1, channel=1, height=8, width=8).roll(i, dims=-1) for i in range(num_inputs)]
        )
        x = x + 0.05 * torch.sin(torch.arange(x.numel(), dtype=torch.float64)).reshape(x.shape)
        if evidence.likelihood == "categorical":
            data = Data(x, torch.arange(num_inputs) % 3, num_classes=3)
        else:
            y = torch.stack([x.mean((1, 2, 3)), x[:, 0, 3, 2]], dim=1)
            data = Data(x, y / y.std(0))
        model = InvarianceModel(
            GaussianProcess(num_inducing=num_inducing),
            Affine2d(["translate_x", "rotation"]),
            likelihood=evidence.likelihood,
            evidence=copy.deepcopy(evidence),
            num_orbit_samples=num_samples,
            precision="double",
        )
        model.initialise(data)
        return EvidenceCase(model, data, torch.tensor([0.1, 0.4], dtype=torch.float64))

    def value(self, eta: Tensor | None = None) -> Tensor:
        """log p(D | η)."""
        return self.model.log_evidence(self.eta if eta is None else eta, self.data)

    def dense(self) -> tuple[Tensor, Whitened]:
        """The limit of the bound: function values as inducing values."""
        evidence = _collapsed(self.model)
        K = self.model.at(self.eta).covariance(self.data.x)
        L = cholesky(K + 1e-10 * torch.eye(len(K), dtype=K.dtype), "dense k_ff")
        white = Whitened(L, L.T.contiguous(), torch.zeros(len(K), dtype=K.dtype))
        return evidence.bound(white, self.data), white

    def with_inducing(self, points: Tensor) -> EvidenceCase:
        """The same case with other inducing points, (M, features)."""
        model = copy.deepcopy(self.model)
        model.backbone.inducing = torch.nn.Parameter(points.reshape(len(points), -1).clone())
        return EvidenceCase(model, self.data, self.eta)

    def orbit_points(self) -> Tensor:
        """All sampled orbits of all inputs, (S·n, features): inducing points for which the bound is tight."""
        points = self.model.at(self.eta).points(self.data.x)
        return points.flatten(0, 1).flatten(1)


def _collapsed(model: InvarianceModel) -> CollapsedEvidence:
    if not isinstance(model.evidence, CollapsedEvidence):
        raise TypeError(f"expected a CollapsedEvidence, got {type(model.evidence).__name__}")
    return model.evidence


def check_gradient_in_extents(case: EvidenceCase) -> None:
    """∂ log p / ∂η against central differences in float64."""
    eta = case.eta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(case.value(eta), eta)
    step = 1e-5
    for k in range(len(eta)):
        shift = torch.zeros_like(case.eta)
        shift[k] = step
        with torch.no_grad():
            difference = (case.value(case.eta + shift) - case.value(case.eta - shift)) / (2 * step)
        error = abs(float(gradient[k] - difference)) / max(1.0, abs(float(difference)))
        assert error < 1e-4, (
            f"gradient in extent {k} is {float(gradient[k])}, finite differences give {float(difference)}"
        )


def check_gradient_in_hyperparameters(case: EvidenceCase) -> None:
    """Gradients in every learned parameter against central differences along a random direction."""
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    assert parameters, "the model learns nothing"
    gradients = torch.autograd.grad(case.value(), parameters)
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    step = 1e-5
    values = []
    for sign in (1.0, -1.0):
        shifted = copy.deepcopy(case)
        with torch.no_grad():
            learned = [p for p in shifted.model.parameters() if p.requires_grad]
            for p, d in zip(learned, directions, strict=True):
                p.add_(sign * step * d)
            values.append(float(shifted.value()))
    difference = (values[0] - values[1]) / (2 * step)
    error = abs(slope - difference) / max(1.0, abs(difference))
    assert error < 1e-4, f"slope {slope} along a random direction, finite differences give {difference}"


def check_formula(case: EvidenceCase) -> None:
    """The bound in M x M algebra equals the density of the targets under Q + Λ⁻¹ in n x n algebra, less the trace."""
    evidence = _collapsed(case.model)
    with torch.no_grad():
        white = Whitened.of(case.model.at(case.eta), case.data.x)
        sites = evidence.sites(white, case.data)
        Q = white.V.T @ white.V
        total = sites.constant - 0.5 * (sites.precision * white.residual[:, None]).sum()
        for c in range(sites.target.shape[1]):
            precision = sites.precision[:, c]
            mean = evidence.mean[c].expand(len(Q))
            normal = torch.distributions.MultivariateNormal(mean, Q + torch.diag(1.0 / precision))
            total = total + normal.log_prob(sites.target[:, c]) - 0.5 * (precision / (2.0 * math.pi)).log().sum()
        value = case.value()
    error = abs(float(value - total)) / max(1.0, abs(float(total)))
    assert error < 1e-7, f"the bound is {float(value)}, its n x n form {float(total)}"


def check_below_dense(case: EvidenceCase) -> None:
    """With few inducing points the bound lies strictly below its dense limit."""
    with torch.no_grad():
        value, (dense, _) = float(case.value()), case.dense()
    assert value < float(dense), f"bound {value} is not below the dense evidence {float(dense)}"


def check_monotone_in_inducing(case: EvidenceCase) -> None:
    """Adding inducing points never lowers the bound."""
    points = case.orbit_points()
    with torch.no_grad():
        values = [float(case.with_inducing(points[:: len(points) // m][:m]).value()) for m in (3, 6, len(points))]
        nested = [float(case.with_inducing(points[:m]).value()) for m in (2, 5, 10, len(points))]
    assert all(a <= b + JITTER_TOLERANCE for a, b in itertools.pairwise(nested)), nested
    assert values[-1] >= max(values) - JITTER_TOLERANCE, values


def check_tight_on_orbits(case: EvidenceCase) -> None:
    """With the orbits themselves as inducing points the bound reaches its dense limit."""
    with torch.no_grad():
        tight, (dense, _) = float(case.with_inducing(case.orbit_points()).value()), case.dense()
    assert abs(tight - float(dense)) < JITTER_TOLERANCE * max(1.0, abs(float(dense))), (
        f"{tight} with the orbits as inducing points, dense evidence {float(dense)}"
    )


def check_converges_in_orbit(case: EvidenceCase) -> None:
    """The evidence approaches that of the dense orbit as S grows."""

    def at(num_samples: int) -> float:
        model = InvarianceModel(
            GaussianProcess(num_inducing=case.model.backbone.get_parameter("inducing").shape[0]),
            case.model.transform,
            likelihood=case.model.likelihood,
            evidence=copy.deepcopy(case.model.evidence),
            num_orbit_samples=num_samples,
            precision="double",
        )
        model.backbone = copy.deepcopy(case.model.backbone)
        with torch.no_grad():
            return float(model.log_evidence(case.eta, case.data))

    dense = at(2048)
    errors = [abs(at(num_samples) - dense) for num_samples in (4, 32, 256)]
    assert errors[2] < errors[0] / 8, f"errors at S = 4, 32, 256: {errors}"


def check_blocks_agree(case: EvidenceCase) -> None:
    """Value and gradient do not depend on how the inputs are split into blocks."""
    small = copy.deepcopy(case)
    small.model.memory_budget = 1  # one input a block
    results = []
    for each in (case, small):
        eta = each.eta.clone().requires_grad_()
        value = each.value(eta)
        results.append((float(value.detach()), torch.autograd.grad(value, eta)[0]))
    assert abs(results[0][0] - results[1][0]) < 1e-8 * max(1.0, abs(results[0][0])), "blocks change the value"
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-6, atol=1e-8), "blocks change the gradient"


def check_repeatable(case: EvidenceCase) -> None:
    """The same extents give the same number, also after others were tried in between."""
    with torch.no_grad():
        first = float(case.value())
        case.value(2.0 * case.eta)
        again = float(case.value())
    assert abs(first - again) < 1e-6 * max(1.0, abs(first)), f"{first}, then {again}"


def check_mixed_precision(case: EvidenceCase) -> None:
    """Orbits in float32 give the evidence of float64 to within rounding."""
    mixed = copy.deepcopy(case)
    mixed.model.precision = "mixed"
    with torch.no_grad():
        double, single = float(case.value()), float(mixed.value())
    assert abs(double - single) < 1e-3 * max(1.0, abs(double)), f"{double} in double precision, {single} in mixed"


def check_prediction(case: EvidenceCase) -> None:
    """Shapes, positive variances, and the dense posterior when Z are the orbits."""
    evidence = _collapsed(case.model)
    with torch.no_grad():
        mean, variance = case.model.function_posterior(case.data.x[:2], case.data, case.eta)
        tight = case.with_inducing(case.orbit_points())
        got, spread = tight.model.function_posterior(case.data.x, case.data, case.eta)
        _, white = case.dense()
        solution = evidence.solve(white, evidence.sites(white, case.data), case.data)
        expected, expected_spread = solution.mean_and_variance(white)
    assert mean.shape == variance.shape == (2, case.data.num_outputs), f"{mean.shape} and {variance.shape}"
    assert bool((variance > 0).all()), "a variance is not positive"
    assert torch.allclose(got, evidence.mean + expected, atol=1e-2), "mean differs from the dense posterior"
    assert torch.allclose(spread, expected_spread, atol=1e-2), "variance differs from the dense posterior"


def check_likelihood(case: EvidenceCase) -> None:
    """Log densities have the shape (draws, n); sampled targets have the shape of the data's."""
    f = torch.zeros(5, len(case.data), case.data.num_outputs, dtype=torch.float64)
    log_p = case.model.evidence.log_likelihood(f, case.data.y)
    assert log_p.shape == (5, len(case.data)), log_p.shape
    assert bool(torch.isfinite(log_p).all()), "log likelihood is not finite at f = 0"
    assert case.model.evidence.sample_targets(f[0]).shape == case.data.y.shape


CHECKS: dict[str, Callable[[EvidenceCase], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_gradient_in_extents,
        check_gradient_in_hyperparameters,
        check_formula,
        check_below_dense,
        check_monotone_in_inducing,
        check_tight_on_orbits,
        check_converges_in_orbit,
        check_blocks_agree,
        check_repeatable,
        check_mixed_precision,
        check_prediction,
        check_likelihood,
    )
}


def check_evidence(evidence: CollapsedEvidence) -> None:
    """Run every check.

    Raises:
        AssertionError: the first that fails, with the numbers.

    Example:
        >>> from bayesinv.evidence import GaussianEvidence
        >>> check_evidence(GaussianEvidence())
    """
    for check in CHECKS.values():
        check(EvidenceCase.of(evidence))


class EvidenceConformance:
    """The suite as a test class: subclass it and give ``make_evidence``; pytest does the rest."""

    def make_evidence(self) -> CollapsedEvidence:
        """A fresh evidence."""
        raise NotImplementedError(f"{type(self).__name__} has to define make_evidence()")

    def case(self) -> EvidenceCase:
        """The problem that it is tested on."""
        return EvidenceCase.of(self.make_evidence())

    def test_gradient_in_extents(self) -> None:
        check_gradient_in_extents(self.case())

    def test_gradient_in_hyperparameters(self) -> None:
        check_gradient_in_hyperparameters(self.case())

    def test_formula(self) -> None:
        check_formula(self.case())

    def test_below_dense(self) -> None:
        check_below_dense(self.case())

    def test_monotone_in_inducing(self) -> None:
        check_monotone_in_inducing(self.case())

    def test_tight_on_orbits(self) -> None:
        check_tight_on_orbits(self.case())

    def test_converges_in_orbit(self) -> None:
        check_converges_in_orbit(self.case())

    def test_blocks_agree(self) -> None:
        check_blocks_agree(self.case())

    def test_repeatable(self) -> None:
        check_repeatable(self.case())

    def test_mixed_precision(self) -> None:
        check_mixed_precision(self.case())

    def test_prediction(self) -> None:
        check_prediction(self.case())

    def test_likelihood(self) -> None:
        check_likelihood(self.case())
