"""What every evidence must satisfy, as checks that raise an AssertionError with the numbers in it.

One module although it is long: thirteen short checks of one suite, read in order.

By subclassing, which is all that a test file needs::

    class TestMyEvidence(EvidenceConformance):
        def make_evidence(self):
            return MyEvidence()

Each check runs in every space of a Gaussian process, with more inputs than coordinates and with fewer (`SETTINGS`). The
reference is the same evidence with the function values themselves as coordinates: V Vᵀ = k_ff and no residual variance.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.evidence import CollapsedEvidence
from bayesinv.evidence.algebra import DualFactor, PrimalFactor
from bayesinv.evidence.collapsed import SiteEvidence, Whitened
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.testing.transforms import smooth_images
from bayesinv.transforms import Affine2d

__all__ = ["CHECKS", "SETTINGS", "EvidenceCase", "EvidenceConformance", "check_evidence"]

# k(Z, Z) carries a relative jitter of 1e-6, which lowers the bound by about that share of every function value's
# precision; nothing else separates the bound from its limit in float64.
JITTER_TOLERANCE = 1e-3

# Six inputs each; an unknown mean of the outputs is one coordinate more than the size says.
SETTINGS: dict[str, dict[str, Any]] = {
    "few features": {"space": "features", "size": 4},
    "many features": {"space": "features", "size": 32},
    "few inducing values": {"space": "inducing", "size": 4},
    "as many inducing values as inputs": {"space": "inducing", "size": 6},
    "exact": {"space": "exact"},
}


@dataclass(frozen=True)
class EvidenceCase:
    """An initialised model in double precision, its data, and the extents at which it is tested.

    Attributes:
        value_tolerance: nats by which two evaluations at the same extents may differ, for an evidence with an inner
            iteration.
        gradient_tolerance: of gradients against finite differences, relative to max(1, |difference|).
    """

    model: InvarianceModel
    data: Data
    eta: Tensor
    value_tolerance: float = 0.0
    gradient_tolerance: float = 1e-4

    @staticmethod
    def of(
        evidence: CollapsedEvidence,
        num_inputs: int = 6,
        num_samples: int = 4,
        space: str = "inducing",
        size: int = 4,
        value_tolerance: float = 0.0,
        gradient_tolerance: float = 1e-4,
    ) -> EvidenceCase:
        """A small problem: smooth images under translation and rotation, targets that vary with them.

        Args:
            evidence: copied.
            num_inputs: n.
            num_samples: S, copies of each.
            space: "features", "inducing" or "exact".
            size: the number of features, or of inducing values.
            value_tolerance, gradient_tolerance: see the attributes.
        """
        x = torch.cat(
            [smooth_images(batch=1, channel=1, height=8, width=8).roll(i, dims=-1) for i in range(num_inputs)]
        )
        x = x + 0.05 * torch.sin(torch.arange(x.numel(), dtype=torch.float64)).reshape(x.shape)
        if evidence.likelihood == "categorical":
            data = Data(x, torch.arange(num_inputs) % 3, num_classes=3)
        else:
            y = torch.stack([x.mean((1, 2, 3)), x[:, 0, 3, 2]], dim=1)
            data = Data(x, y / y.std(0))
        backbone = {
            "features": lambda: GaussianProcess(num_features=size),
            "inducing": lambda: GaussianProcess(num_inducing=size),
            "exact": lambda: GaussianProcess(num_inducing=None),
        }[space]()
        model = InvarianceModel(
            backbone,
            Affine2d(["translate_x", "rotation"]),
            likelihood=evidence.likelihood,
            evidence=copy.deepcopy(evidence),
            num_orbit_samples=num_samples,
            precision="double",
        )
        model.initialise(data)
        eta = torch.tensor([0.1, 0.4], dtype=torch.float64)
        return EvidenceCase(model, data, eta, value_tolerance, gradient_tolerance)

    @property
    def evidence(self) -> CollapsedEvidence:
        """The model's."""
        evidence = self.model.evidence
        if not isinstance(evidence, CollapsedEvidence):
            raise TypeError(f"expected a CollapsedEvidence, got {type(evidence).__name__}")
        return evidence

    @property
    def space(self) -> str:
        """Of the backbone."""
        return str(self.model.backbone.space)

    def value(self, eta: Tensor | None = None) -> Tensor:
        """log p(D | η)."""
        return self.model.log_evidence(self.eta if eta is None else eta, self.data)

    def whitened(self) -> Whitened:
        """Coordinates of the prior at the inputs, the unknown mean of the outputs among them."""
        return self.evidence.whitened(self.model.at(self.eta), self.data)[1]

    def dense(self) -> tuple[Tensor, Whitened]:
        """The limit of many coordinates: the evidence and the coordinates with function values for them."""
        K = self.model.at(self.eta).covariance(self.data.x)
        L = cholesky(K + 1e-10 * torch.eye(len(K), dtype=K.dtype), "dense k_ff")
        white = Whitened(L.T.contiguous(), K.new_zeros(len(K))).with_offset(self.evidence.offset_variance)
        return self.evidence.bound(white, self.data), white

    def with_inducing(self, points: Tensor) -> EvidenceCase:
        """The same case with other inducing points, (M, features)."""
        model = copy.deepcopy(self.model)
        model.backbone.inducing = torch.nn.Parameter(points.reshape(len(points), -1).clone())
        return replace(self, model=model)

    def orbit_points(self) -> Tensor:
        """All sampled orbits of all inputs, (S·n, features): inducing points that leave no residual."""
        points = self.model.at(self.eta).points(self.data.x)
        return points.flatten(0, 1).flatten(1)

    def cold(self) -> EvidenceCase:
        """A copy whose inner iteration starts from nothing."""
        other = copy.deepcopy(self)
        other.model.evidence.warm_start = None
        return other


def _relative(a: Tensor | float, b: Tensor | float) -> float:
    return abs(float(a) - float(b)) / max(1.0, abs(float(b)))


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
        assert _relative(gradient[k], difference) < case.gradient_tolerance, (
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
    assert _relative(slope, difference) < case.gradient_tolerance, (
        f"slope {slope} along a random direction, finite differences give {difference}"
    )


def check_formula(case: EvidenceCase) -> None:
    """Site evidences: the density of the targets under Q + τ²11ᵀ + Λ⁻¹ in n x n algebra, with the residual's part."""
    evidence = case.evidence
    if not isinstance(evidence, SiteEvidence):
        return  # its own tests have to say what it is
    with torch.no_grad():
        white, sites = case.whitened(), evidence.sites(case.data)
        n, C = sites.target.shape
        Q = white.V[:-1].T @ white.V[:-1] + evidence.offset_variance * torch.ones(n, n, dtype=torch.float64)
        total = sites.constant.clone()
        for precision, target, mean in zip(sites.precision.expand(n, C).T, sites.target.T, evidence.mean, strict=True):
            noise = 1.0 / precision
            if evidence.residual == "fitc":
                noise = noise + white.residual
            else:
                total = total - 0.5 * torch.log(1.0 + precision * white.residual).sum()
            normal = torch.distributions.MultivariateNormal(mean.expand(n), Q + torch.diag(noise))
            total = total + normal.log_prob(target) - 0.5 * (precision / (2.0 * math.pi)).log().sum()
        value = case.value()
    assert _relative(value, total) < 1e-7, f"the evidence is {float(value)}, its n x n form {float(total)}"


def check_spaces_of_the_algebra(case: EvidenceCase) -> None:
    """Coordinates that are always zero change nothing, although they take the algebra from M x M to n x n."""
    white = case.whitened()
    M, n = white.V.shape
    padded = Whitened(torch.cat([white.V, white.V.new_zeros(max(n - M, 0) + 1, n)]), white.residual)
    with torch.no_grad():
        value, other = (float(case.cold().evidence.bound(each, case.data)) for each in (white, padded))
        y = torch.ones(n, 1, dtype=torch.float64)
        factors = PrimalFactor(white.V, y, None), DualFactor(white.V, y)
        primal, dual = (factor.means(y) for factor in factors)
    assert abs(value - other) <= case.value_tolerance + 1e-8 * max(1.0, abs(value)), f"{value}, padded {other}"
    assert torch.allclose(primal, dual, rtol=1e-6, atol=1e-8), "the two spaces have different posterior means"


def check_below_dense(case: EvidenceCase) -> None:
    """With few inducing points a bound lies strictly below its dense limit."""
    if case.space != "inducing" or not case.evidence.is_lower_bound:
        return
    with torch.no_grad():
        value, (dense, _) = float(case.value()), case.dense()
    assert value < float(dense), f"bound {value} is not below the dense evidence {float(dense)}"


def check_monotone_in_inducing(case: EvidenceCase) -> None:
    """Adding inducing points never lowers a bound."""
    if case.space != "inducing" or not case.evidence.is_lower_bound:
        return
    points = case.orbit_points()
    with torch.no_grad():
        values = [float(case.with_inducing(points[:: len(points) // m][:m]).value()) for m in (3, 6, len(points))]
        nested = [float(case.with_inducing(points[:m]).value()) for m in (2, 5, 10, len(points))]
    assert all(a <= b + JITTER_TOLERANCE for a, b in itertools.pairwise(nested)), nested
    assert values[-1] >= max(values) - JITTER_TOLERANCE, values


def check_tight(case: EvidenceCase) -> None:
    """Features and the exact covariance are the dense limit; inducing values reach it with the orbits for them."""
    tight = case.with_inducing(case.orbit_points()) if case.space == "inducing" else case
    tolerance = case.value_tolerance + (1e-6 if case.space == "features" else JITTER_TOLERANCE)
    with torch.no_grad():
        value, (dense, _) = float(tight.value()), case.cold().dense()
    assert abs(value - float(dense)) < tolerance * max(1.0, abs(float(dense))), (
        f"{value} in the space of {case.space}, dense evidence {float(dense)}"
    )


def check_converges_in_orbit(case: EvidenceCase) -> None:
    """The evidence approaches that of the dense orbit as S grows."""

    def at(num_samples: int) -> float:
        model = InvarianceModel(
            copy.deepcopy(case.model.backbone),
            case.model.transform,
            likelihood=case.model.likelihood,
            evidence=copy.deepcopy(case.model.evidence),
            num_orbit_samples=num_samples,
            precision="double",
        )
        with torch.no_grad():
            return float(model.log_evidence(case.eta, case.data))

    counts = (2, 8, 64, 512) if case.space == "exact" else (4, 32, 256, 2048)  # the exact one costs (nS)²
    *values, dense = [at(num_samples) for num_samples in counts]
    errors = [abs(value - dense) for value in values]
    assert errors[2] < errors[0] / 8 + case.value_tolerance, f"errors at S = {counts[:3]}: {errors}"


def check_blocks_agree(case: EvidenceCase) -> None:
    """Value and gradient do not depend on how the inputs are split into blocks."""
    if case.space == "exact":
        return  # takes all inputs at once, and refuses a small budget
    small = copy.deepcopy(case)
    small.model.memory_budget = 1  # one input a block
    results = []
    for each in (case.cold(), small.cold()):
        eta = each.eta.clone().requires_grad_()
        value = each.value(eta)
        results.append((float(value.detach()), torch.autograd.grad(value, eta)[0]))
    assert abs(results[0][0] - results[1][0]) < 1e-8 * max(1.0, abs(results[0][0])), "blocks change the value"
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-6, atol=1e-8), "blocks change the gradient"


def check_repeatable(case: EvidenceCase) -> None:
    """The same extents give the same number: first of all, after others, and with a gradient."""
    with torch.no_grad():
        values = [float(case.cold().value())]
        for factor in (2.0, 0.01, 6.0):
            case.value(factor * case.eta)
            values.append(float(case.value()))
    values.append(float(case.value(case.eta.clone().requires_grad_()).detach()))
    spread = max(values) - min(values)
    assert spread <= case.value_tolerance + 1e-6 * max(1.0, abs(values[0])), f"values at the same extents: {values}"


def check_mixed_precision(case: EvidenceCase) -> None:
    """Orbits in float32 give the evidence of float64 to within rounding."""
    mixed = copy.deepcopy(case)
    mixed.model.precision = "mixed"
    with torch.no_grad():
        double, single = float(case.value()), float(mixed.value())
    assert abs(double - single) < case.value_tolerance + 1e-3 * max(1.0, abs(double)), (
        f"{double} in double precision, {single} in mixed"
    )


def check_prediction(case: EvidenceCase) -> None:
    """Shapes, variances where there are some, and the dense posterior at the training inputs."""
    with torch.no_grad():
        mean, variance = case.model.function_posterior(case.data.x[:2], case.data, case.eta)
        tight = case.with_inducing(case.orbit_points()) if case.space == "inducing" else case
        got, spread = tight.model.function_posterior(case.data.x, case.data, case.eta)
        white = case.dense()[1]
        posterior = case.cold().evidence.solve(white, case.data)
        expected = case.evidence.mean + posterior.means(white.V)
        expected_spread = posterior.variances(white.V)
    assert mean.shape == variance.shape == (2, case.data.num_outputs), f"{mean.shape} and {variance.shape}"
    if case.evidence.predicts_mode:
        assert not bool(variance.any()), "a prediction at the mode has no variance"
    else:
        assert bool((variance > 0).all()), "a variance is not positive"
    assert torch.allclose(got, expected, atol=1e-2), "mean differs from the dense posterior"
    assert torch.allclose(spread, expected_spread.expand_as(spread), atol=1e-2), (
        "variance differs from the dense posterior"
    )


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
        check_spaces_of_the_algebra,
        check_below_dense,
        check_monotone_in_inducing,
        check_tight,
        check_converges_in_orbit,
        check_blocks_agree,
        check_repeatable,
        check_mixed_precision,
        check_prediction,
        check_likelihood,
    )
}


def check_evidence(evidence: CollapsedEvidence, settings: Mapping[str, Mapping[str, Any]] = SETTINGS) -> None:
    """Run every check in every setting.

    Args:
        evidence: copied for each.
        settings: arguments of :meth:`EvidenceCase.of` by name.

    Raises:
        AssertionError: the first that fails, with the numbers.

    Example:
        >>> from bayesinv.evidence import GaussianEvidence
        >>> check_evidence(GaussianEvidence(), {"features": {"space": "features", "size": 8}})
    """
    for name, options in settings.items():
        for check in CHECKS.values():
            _run(check, name, EvidenceCase.of(evidence, **options))


def _run(check: Callable[[EvidenceCase], None], name: str, case: EvidenceCase) -> None:
    try:
        check(case)
    except AssertionError as error:
        error.add_note(f"in the setting {name!r}")
        raise


class EvidenceConformance:
    """The suite as a test class: subclass it and give ``make_evidence``; pytest does the rest.

    Attributes:
        value_tolerance, gradient_tolerance: see :class:`EvidenceCase`.
    """

    value_tolerance = 0.0
    gradient_tolerance = 1e-4

    def make_evidence(self) -> CollapsedEvidence:
        """A fresh evidence."""
        raise NotImplementedError(f"{type(self).__name__} has to define make_evidence()")

    def cases(self) -> Iterator[tuple[str, EvidenceCase]]:
        """The problems that it is tested on."""
        for name, options in SETTINGS.items():
            case = EvidenceCase.of(self.make_evidence(), **options)
            yield name, replace(case, value_tolerance=self.value_tolerance, gradient_tolerance=self.gradient_tolerance)

    def run(self, check: Callable[[EvidenceCase], None]) -> None:
        """One check on all of them."""
        for name, case in self.cases():
            _run(check, name, case)

    def test_gradient_in_extents(self) -> None:
        self.run(check_gradient_in_extents)

    def test_gradient_in_hyperparameters(self) -> None:
        self.run(check_gradient_in_hyperparameters)

    def test_formula(self) -> None:
        self.run(check_formula)

    def test_spaces_of_the_algebra(self) -> None:
        self.run(check_spaces_of_the_algebra)

    def test_below_dense(self) -> None:
        self.run(check_below_dense)

    def test_monotone_in_inducing(self) -> None:
        self.run(check_monotone_in_inducing)

    def test_tight(self) -> None:
        self.run(check_tight)

    def test_converges_in_orbit(self) -> None:
        self.run(check_converges_in_orbit)

    def test_blocks_agree(self) -> None:
        self.run(check_blocks_agree)

    def test_repeatable(self) -> None:
        self.run(check_repeatable)

    def test_mixed_precision(self) -> None:
        self.run(check_mixed_precision)

    def test_prediction(self) -> None:
        self.run(check_prediction)

    def test_likelihood(self) -> None:
        self.run(check_likelihood)
