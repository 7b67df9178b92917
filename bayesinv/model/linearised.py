"""Predictions of a network whose weights are uncertain: Laplace's Gaussian over them, and the linearised network.

    q(θ) = N(θ*, (S⁻¹ + Σ_i J_iᵀ Λ_i J_i)⁻¹),    f(x) = f(x; θ*) + J(x)(θ - θ*)  ~  N(f(x; θ*), J(x) Σ_q J(x)ᵀ)

J the Jacobian of the orbit average in the weights, Λ the likelihood's Hessian, S the prior variances: the curvature of
the Laplace evidence. All outputs of an input vary together: under a softmax what they have in common does not matter,
and draws of each class by itself would be far too unsure.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bayesinv.backbones.invariant_network import InvariantNetwork, average_copies
from bayesinv.backbones.per_example import example_gradients
from bayesinv.data.container import Data
from bayesinv.data.groups import as_groups, numbered
from bayesinv.evidence.laplace import LaplaceEvidence
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.evidence.prediction import Prediction, standard_normal_draws
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.orbits.groups import GroupedOrbit

__all__ = ["Linearised", "predict_linearised"]

WEIGHTS = ("last", "all")
# Training examples that share one draw of the extents: the curvature is that of the loss under drawn extents.
EXAMPLES_A_DRAW = 50


@dataclass(frozen=True)
class Linearised:
    """Predict with the linearised network, averaged over Laplace's Gaussian of its weights.

    Args:
        weights: "last", those of the last layer alone, the others held where they are; or "all".
        num_examples: training examples that the curvature is computed of, scaled up to all of them. None: all that are
            kept, or with "all" as many as fit into half of the model's ``memory_budget``. Fewer give larger variances.
        num_function_samples: draws of f for every draw of the extents (classification).

    Raises:
        ValueError: unknown weights, or a number below one.

    Reference:
        A. Immer, M. Korzepa, M. Bauer (2021). Improving predictions of Bayesian neural nets via local linearization.
        arXiv:2008.08400.

    Example:
        >>> posterior.predict(x, prediction=Linearised(weights="last"))  # doctest: +SKIP
    """

    weights: Literal["last", "all"] = "last"
    num_examples: int | None = None
    num_function_samples: int = 64

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(f"Linearised: weights: expected one of {list(WEIGHTS)}, got {self.weights!r}")
        for name in ("num_examples", "num_function_samples"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"Linearised: {name}: expected a positive integer, got {value!r}")


@ordinary(grad=False)
def predict_linearised(
    model: InvarianceModel,
    options: Linearised,
    x: Float[Tensor, n * event],
    data: Data,
    num_total: int,
    extents: Float[Tensor, "J K"],
    weights: Float[Tensor, " J"],
    seed: int = 0,
    groups: Any = None,
    y: Float[Tensor, "n outputs"] | None = None,
) -> Prediction:
    """Predictions averaged over draws of the extents, the orbit and the weights; see :class:`Linearised`.

    Args:
        model: fitted, with the Laplace evidence.
        options: which weights, and how much of the data.
        x: inputs, (n, *event).
        data: what is kept of the training data.
        num_total: how many training examples there were.
        extents: J posterior draws.
        weights: of these, summing to one.
        seed: of the draws of f and of the training examples.
        groups: of x, for a model with groups.
        y: targets of a regression at x; the prediction then has their log density.

    Raises:
        ValueError: targets for a classification, an evidence that is not Laplace's, or maps of outputs.
    """
    if not isinstance(model.evidence, LaplaceEvidence):
        raise ValueError(
            f"prediction: weights have a posterior under the Laplace evidence alone, and this fit has the "
            f'{model.evidence_name} evidence; use prediction="plugin", or fit with evidence="laplace"'
        )
    if model.likelihood != "gaussian" and data.y.ndim > 1:
        raise ValueError('prediction: the linearised network is for one output an example; use prediction="plugin"')
    predicting = model.predictive or model
    average = predicting.evidence.average(1, seed)
    if model.groups is not None:
        groups = as_groups(groups, model.groups, len(x))
    with seeded(seed), sdpa_kernel(SDPBackend.MATH):
        posterior = _WeightPosterior(model, options, numbered(data, model.groups), num_total, extents, weights)
        for eta, share in zip(extents, weights.tolist(), strict=True):
            view = predicting.at(eta, new_group=groups is not None and bool((groups < 0).any()))
            mean, covariance = posterior.of_function(view, x, groups)  # (n, C), (n, C, C)
            if model.likelihood == "gaussian":
                average.add(mean, covariance.diagonal(dim1=1, dim2=2), share, y)
                continue
            root = _root(covariance)
            for z in standard_normal_draws(options.num_function_samples, mean.numel(), seed):
                f = mean + (root @ z.reshape(*mean.shape, 1).to(mean))[..., 0]
                average.add(f, torch.zeros_like(f), share / options.num_function_samples, y)
    return average.result()


class _WeightPosterior:
    """Σ_q = S^½ M⁻¹ S^½ of some weights, M = I + ΦᵀΦ with a row of Φ = Λ^½ J S^½ for each output of an example.

    Where there are more weights than rows, J Σ_q Jᵀ = ZZᵀ - ZΦᵀ (I + ΦΦᵀ)⁻¹ ΦZᵀ with Z = J S^½.
    """

    def __init__(
        self,
        model: InvarianceModel,
        options: Linearised,
        data: Data,
        num_total: int,
        extents: Float[Tensor, "J K"],
        shares: Float[Tensor, " J"],
    ):
        predicting: Any = model.predictive or model
        evidence: Any = copy.copy(model.evidence)
        evidence.num_outputs = None  # rows of all outputs
        self.likelihood, self.budget = model.likelihood, model.memory_budget
        self.noise: Tensor | None = predicting.evidence.noise if self.likelihood == "gaussian" else None
        network = predicting.network
        named = network.weights()
        last = list(named)[-1].rpartition(".")[0]
        self.names = [n for n in named if options.weights == "all" or n.rpartition(".")[0] == last]
        scales = model.network.prior_scales()
        self.scales = {name: scales[name].detach() for name in self.names}
        self.num_weights = sum(named[name].numel() for name in self.names)
        C = 1 if self.likelihood == "bernoulli" else data.num_outputs
        self.num_outputs = C
        num = len(data) if options.num_examples is None else min(options.num_examples, len(data))
        in_weights = self.num_weights <= num * C
        if not in_weights and options.num_examples is None:
            num = max(1, min(num, self.budget // (2 * 4 * C * self.num_weights)))
        chosen = torch.randperm(len(data))[:num].to(data.x.device)
        data = data.subset(chosen)
        per_example = (num_total / num) ** 0.5
        self.factor: Tensor
        self.phi: Tensor | None = None
        blocks: list[Tensor] = []
        precision = torch.eye(self.num_weights if in_weights else 0, dtype=torch.float64, device=data.x.device)
        for start in range(0, num, EXAMPLES_A_DRAW):
            part = data.subset(slice(start, start + EXAMPLES_A_DRAW))
            view = predicting.at(extents[int(torch.multinomial(shares, 1))])
            phi = per_example * self.jacobian(view, part.x, part.groups, evidence._rows)[1].flatten(0, 1)  # (rows, P)
            if self.noise is not None:
                phi = phi / self.noise.sqrt().to(phi)
            if in_weights:
                precision += phi.double().T @ phi.double()
            else:
                blocks.append(phi)
        if in_weights:
            self.factor = cholesky(precision, "the precision of the weights")
        else:
            self.phi = torch.cat(blocks)
            gram = (self.phi @ self.phi.T).double()
            self.factor = cholesky(torch.eye(len(gram), dtype=gram.dtype, device=gram.device) + gram, "I + ΦΦᵀ")

    def of_function(
        self, view: InvariantNetwork, x: Float[Tensor, n * event], groups: Any
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C C"]]:
        """Mean and covariance of f(x), block by block."""
        copies = 1 if view.identity else view.orbit.num_copies
        by_weights = self.budget // (4 * 4 * self.num_outputs * self.num_weights)
        by_points = view.backbone.points_within(self.budget // 4, x) // copies
        size = max(1, min(256, by_weights, by_points))
        means, covariances = [], []
        for start in range(0, len(x), size):
            block = slice(start, start + size)
            own = None if groups is None else groups[block]
            f, Z = self.jacobian(view, x[block], own, self._units)  # (m, C), (C, m, P)
            means.append(f.double())
            flat = Z.flatten(0, 1)  # (C·m, P)
            if self.phi is None:
                half = torch.linalg.solve_triangular(self.factor, flat.double().T, upper=False)  # (P, C·m)
                V = self._blocks(half)
            else:
                half = torch.linalg.solve_triangular(self.factor, (self.phi @ flat.T).double(), upper=False)
                V = self._blocks(flat.T) - self._blocks(half)
            covariances.append(V)
        return torch.cat(means), torch.cat(covariances)

    def _blocks(self, half: Float[Tensor, "rows Cm"]) -> Float[Tensor, "m C C"]:
        """halfᵀ half of each example alone."""
        by_example = half.unflatten(1, (self.num_outputs, -1)).permute(2, 1, 0)  # (m, C, rows)
        return (by_example @ by_example.mT).double()

    def _units(self, f: Float[Tensor, "m C"]) -> Float[Tensor, "C m C"]:
        return torch.eye(f.shape[1], dtype=f.dtype, device=f.device)[:, None].expand(-1, len(f), -1)

    def jacobian(
        self, view: InvariantNetwork, x: Tensor, groups: Any, rows: Callable[[Tensor], Tensor]
    ) -> tuple[Float[Tensor, "m C"], Float[Tensor, "R m P"]]:
        """f and A J S^½ of some inputs."""
        seen = view.of_groups(groups).evaluated()
        copies = seen.copies(x.device)

        def average(outputs: Tensor, known: Mapping[str, Tensor] = copies) -> Tensor:
            values, copy_weights = seen.moved_back(outputs, known)
            return average_copies(values, seen.average, self.likelihood, copy_weights)

        weights = {name: w.detach() for name, w in seen.backbone.weights().items() if name in self.names}
        by_example = isinstance(seen.orbit, GroupedOrbit) and not seen.identity
        each = copies if by_example else None
        f, found = example_gradients(seen.backbone.net, weights, seen.points(x), rows, average, each)
        parts = [(self.scales[name].to(f) * J).flatten(2) if J.ndim > 2 else J[..., None] for name, J in found.items()]
        return f, torch.cat(parts, 2)


def _root(covariance: Float[Tensor, "n C C"]) -> Float[Tensor, "n C C"]:
    """A square root of each; what rounding made negative is zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0.0).sqrt()[:, None]
