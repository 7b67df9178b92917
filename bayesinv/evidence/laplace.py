"""The Laplace evidence of a network, from minibatches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bayesinv.backbones.gram_in_parts import gram_within
from bayesinv.backbones.invariant_network import InvariantNetwork, average_copies
from bayesinv.data.container import Data
from bayesinv.evidence.determinants import deterministic_equivalent, from_above, from_below
from bayesinv.evidence.network import NetworkEvidence
from bayesinv.orbits.averages import weighted_mean
from bayesinv.orbits.structure import PerOutputOrbit

# What each choice of the determinant makes of the evidence, on average over minibatches.
BOUNDS: dict[str, Literal["lower", "upper"] | None] = {
    "upper": "lower",
    "between": None,
    "lower": "upper",
    "equivalent": None,
}
DETERMINANTS = tuple(BOUNDS)


class LaplaceEvidence(NetworkEvidence):
    """log p(D | η) of a network by Laplace's method with the generalised Gauss-Newton curvature.

        log p(D | θ*, η) - ½ Σ_l |θ*_l|² / σ_l² - ½ log det(I + Λ^½ J Σ Jᵀ Λ^½),

    θ* the weights trained so far, J the Jacobian of the orbit averages f_η(x_i), Λ the likelihood's Hessian,
    Σ the prior variances σ_l². The determinant is that of the neural tangent kernel, (nC)². With Λ_i = R_i R_iᵀ,
    R_i's column c is sqrt(p_c) (e_c - p) for classes, and e_c / σ for real targets. One step sees the kernel K_c of a
    minibatch of m and one random output c, and two bounds of log det follow from it, both right on average:

        U = C [log det(I + K_aa) + (n - r)/(m - r) (log det(I + K_c) - log det(I + K_aa))]      from above
        L = log det(I + (n/m) C K_c)                                                           from below

    U: the r = m · anchors first examples a of the batch count once, and all others with what they add to those; that
    they add less to each other is left out, which can but increase the sum (for r = 0 this is Fischer's inequality
    over blocks, as published). L: log det is concave (Jensen). U makes the estimate a lower bound on the Laplace
    evidence. It is loose: on LeNet with 200 digits, where log det was 144, U was 415 at m = 50 without anchors and 294
    with half of them, L 51 (``tests/benchmarks/laplace_bounds.py``). Under L a network is so little restrained that it
    fits any data without a symmetry, and every extent goes to zero. sqrt(U L) lies between; it is no bound, and
    still lost translations of ±8 pixels that U finds.

    Where an example has a map of P cells, K_c is that of a random subset of (cell, output) pairs: ``num_outputs`` of
    them for each example, drawn anew at every step and without repetition, jointly in one block of rows
    N = m · num_outputs out of nPC. U is then

        U = log det(I + K_aa) + (nPC - a)/(N - a) (log det(I + K_N) - log det(I + K_aa)),    a = N · anchors,

    and L = log det(I + nPC/N K_N). Anchors are whole examples wherever one has several rows. Neighbouring cells say
    almost the same, so that what a row adds falls with N: U is the looser, the fewer rows a step sees. A Bernoulli has
    one row a cell (C = 1), with R = sqrt(p (1 - p)).

    "equivalent" is no bound but an estimate: every example gives ``num_outputs`` random combinations of its rows, drawn
    anew at every step, u_i = Σ_c q_ic R_ic, with random orthonormal q_i (orthogonal to sqrt(p_i), which R_i maps to
    zero: n(C - 1) such rows have the determinant of all). The determinant of all follows from the eigenvalues of the
    rows seen (:func:`~bayesinv.evidence.determinants.deterministic_equivalent`). On LeNet with 250 digits, 128 rows of
    2,250 gave 0.97 to 0.99 of the exact determinant at every extent from 0 to 1, with a noise of 1 to 2 %; U gave 1.6
    to 1.8 of it, with 8 to 30 % (``tests/benchmarks/determinants.py``). An error that is a factor counts most where the
    determinant is large, at small extents, and so pushes extents outwards.

    The network is in evaluation mode: BatchNorm is the affine map of its running statistics, which the steps of the
    weights alone update, and dropout and other layers that draw are their means.

    Args:
        likelihood: "categorical", "bernoulli" or "gaussian".
        num_outputs: random outputs of each example a step; None for all outputs of a batch jointly, (mC)²:
            given all data at once that is the exact determinant, and U = L.
        block_size: examples whose gradients are held at once; larger batches fall into blocks.
        determinant: "upper" (U), "between" (sqrt(U L)), "lower" (L) or "equivalent".
        anchors: the share r/m, from 0 to less than 1.

    Attributes:
        bound: "lower" or "upper", which bound on the Laplace evidence ``log_evidence`` is on average over minibatches;
            None where it is an estimate.

    Raises:
        ValueError: num_outputs or block_size below one, an unknown determinant, or an impossible share.

    Reference:
        A. Immer, T. van der Ouderaa, M. van der Wilk, G. Rätsch, B. Schölkopf (2023). Stochastic marginal likelihood
        gradients using neural tangent kernels. arXiv:2306.03968.
    """

    name = "laplace"
    averages: ClassVar[tuple[str, ...]] = ("function", "probabilities")

    def __init__(
        self,
        likelihood: str = "categorical",
        num_outputs: int | None = 1,
        block_size: int = 256,
        determinant: str = "upper",
        anchors: float = 0.5,
    ):
        super().__init__(likelihood)
        if block_size < 1:
            raise ValueError(f"block_size: expected a positive integer, got {block_size!r}")
        if not 0 <= anchors < 1:
            raise ValueError(f"anchors: expected a share of the batch from 0 to less than 1, got {anchors!r}")
        self.anchors = anchors
        if determinant not in DETERMINANTS:
            raise ValueError(f"determinant: expected one of {list(DETERMINANTS)}, got {determinant!r}")
        self.determinant = determinant
        self.block_size = block_size
        if num_outputs is not None and (isinstance(num_outputs, bool) or num_outputs < 1):
            raise ValueError(f"num_outputs: expected a positive integer or None for all, got {num_outputs!r}")
        self.num_outputs = num_outputs

    def log_evidence(self, prior: InvariantNetwork, data: Data, num_total: int | None = None) -> Float[Tensor, ""]:
        """The estimate above, at the determinant chosen; its random outputs come from torch's global generator."""
        num_total = len(data) if num_total is None else num_total
        prior = prior.evaluated()  # running statistics are held, and dropout is off
        network = prior.backbone
        weights = {name: w.detach() for name, w in network.weights().items()}
        size = len(data) if self.num_outputs is None else self.block_size
        log_likelihood = torch.zeros((), dtype=torch.float64, device=data.x.device)
        log_det = log_likelihood.clone()
        for start in range(0, len(data), size):
            block = data.subset(slice(start, start + size))
            with sdpa_kernel(SDPBackend.MATH):  # PyTorch's faster ways to attend have no second derivatives
                f, K = self._kernel(prior.of_groups(block.groups), weights, block)
            log_likelihood = log_likelihood + self.log_likelihood(f, block.y).sum().to(torch.float64)
            log_det = log_det + len(block) / len(data) * self._log_det(K, f, num_total)
        fit = num_total / len(data) * log_likelihood - 0.5 * log_det
        return fit + network.log_prior(weights).to(torch.float64)

    @property
    def bound(self) -> Literal["lower", "upper"] | None:
        """Which bound on the Laplace evidence this is."""
        return BOUNDS[self.determinant]

    def _log_det(
        self, K: Float[Tensor, "R rows rows"], f: Float[Tensor, "m *cells C"], num_total: int
    ) -> Float[Tensor, ""]:
        """log det(I + K) of all the data from the rows of a block: R single outputs of each example, or jointly."""
        m = len(f)
        if self.determinant == "equivalent":
            return deterministic_equivalent(K[0], num_total * self._independent_rows(f))
        rows, each, anchors = f.shape[1], num_total, round(self.anchors * m)
        if f.ndim > 2 or self.num_outputs is None:  # jointly
            rows, each, anchors = 1, num_total * f[0].numel(), anchors * (K.shape[-1] // m)
            K = _by_example(K, m)
        values = []
        if self.determinant != "lower":
            values.append(rows * from_above(K, each, anchors).mean())
        if self.determinant != "upper":
            values.append(from_below(rows * K, each).mean())
        return values[0] if len(values) == 1 else (values[0] * values[1]).clamp_min(1e-12).sqrt()

    def _kernel(
        self, prior: InvariantNetwork, weights: Mapping[str, Tensor], data: Data
    ) -> tuple[Float[Tensor, "m *cells C"], Float[Tensor, "R rows rows"]]:
        """The averaged outputs, and Λ^½ J Σ Jᵀ Λ^½ for R single outputs (rows = m), or jointly (R = 1).

        Joint rows are all outputs (mC), or those drawn of maps.
        """
        is_map = self.likelihood != "gaussian" and data.y.ndim > 1
        combined, drawn = self.determinant == "equivalent", self.num_outputs
        by_output = isinstance(prior.orbit, PerOutputOrbit) and self.likelihood == "gaussian" and not combined
        if by_output and drawn is not None:
            return self._drawn_kernels(prior, weights, data, drawn)
        shape: list[int] = []

        def average(outputs: Tensor, copies: Mapping[str, Tensor]) -> Tensor:
            values, copy_weights = prior.moved_back(outputs, copies)
            f = average_copies(values, prior.average, self.likelihood, copy_weights)
            shape[:] = f.shape[1:]
            return f.flatten(1)

        def rows(f: Tensor) -> Tensor:
            if combined:
                return self._combined_rows(f.unflatten(1, shape))
            return self._map_rows(f.unflatten(1, shape)) if is_map else self._rows(f)

        total = data.num_outputs * (data.y[0].numel() if is_map else 1)
        num_rows = total if drawn is None else min(drawn, total)
        joint = num_rows > 1 if combined else drawn is None or is_map
        f, K = gram_within(prior, weights, prior.points(data.x), rows, average, joint, num_rows)
        K = K.to(torch.float64).reshape(-1, *K.shape[-2:])
        return f.unflatten(1, shape), K / self.noise if self.likelihood == "gaussian" else K

    def _drawn_kernels(
        self, prior: InvariantNetwork, weights: Mapping[str, Tensor], data: Data, num_drawn: int
    ) -> tuple[Float[Tensor, "m C"], Float[Tensor, "R m m"]]:
        """The same for real targets whose outputs have orbits of their own: the Jacobians of the drawn ones alone.

        Λ is diagonal there. A class' column of R holds every other class too, so that classes need all blocks.
        """
        outputs, copy_weights = prior.moved_back(prior.outputs(data.x, weights))
        f = average_copies(outputs, prior.average, self.likelihood, copy_weights)  # (m, C)
        unit = prior.backbone.output_unit
        kernels = []
        for output in torch.randperm(f.shape[1])[:num_drawn].tolist():
            block = prior.of_output(output)

            def average(outputs: Tensor, copies: Mapping[str, Tensor], output: int = output) -> Tensor:
                return unit * weighted_mean(outputs[..., output : output + 1], copies.get("weights")).double()

            kernels.append(gram_within(block, weights, block.points(data.x), _ones, average)[1])
        return f, torch.cat(kernels).to(torch.float64) / self.noise

    def _independent_rows(self, f: Float[Tensor, "m *cells C"]) -> int:
        """How many rows of an example are independent: of a softmax, whose probabilities sum to one, all but one."""
        return f[0].numel() - (f[0].numel() // f.shape[-1] if self.likelihood == "categorical" else 0)

    def _combined_rows(self, f: Float[Tensor, "m *cells C"]) -> Float[Tensor, "R m outputs"]:
        """R_i q_i for random orthonormal q_i, as many of each example as ``num_outputs`` says or as are independent.

        The root of a softmax maps sqrt(p) to zero, and sqrt(p) ∘ q is what it makes of any q orthogonal to that. The
        reflection H that takes sqrt(p) to the first axis brings q = H (0, o) there, o any vector of C - 1 numbers.
        """
        m, C, total = len(f), f.shape[-1], self._independent_rows(f)
        num_rows = total if self.num_outputs is None else min(self.num_outputs, total)
        q, _ = torch.linalg.qr(torch.randn(m, total, num_rows, dtype=torch.float64))
        o = q.mT.to(f, non_blocking=True)  # (m, R, total)
        if self.likelihood != "categorical":
            root = (f.sigmoid() * (-f).sigmoid()).sqrt().flatten(1) if self.likelihood == "bernoulli" else 1.0
            return o.movedim(1, 0) * root  # K is divided by σ² where the noise has a gradient
        root = (0.5 * f.log_softmax(-1)).exp().reshape(m, -1, C)  # (m, P, C)
        q = torch.nn.functional.pad(o.reshape(m, num_rows, -1, C - 1), (1, 0)).movedim(1, 0)  # (R, m, P, C)
        axis = root + torch.eye(C, dtype=f.dtype, device=f.device)[0]
        q = q - axis * ((axis * q).sum(-1, keepdim=True) / axis[..., :1])
        return (root * q).flatten(2)

    def _map_rows(self, f: Float[Tensor, "m *cells C"]) -> Float[Tensor, "R m outputs"]:
        """Columns of the root of Λ for R random (cell, output) pairs of each example, or for all of them."""
        m, C = len(f), f.shape[-1]
        f = f.reshape(m, -1, C)  # (m, P, C)
        total = f.shape[1] * C
        if self.num_outputs is None:
            chosen = torch.arange(total).expand(m, total)
        else:
            chosen = torch.rand(m, total).topk(min(self.num_outputs, total)).indices  # without repetition
        chosen = chosen.T.to(f.device, non_blocking=True)  # (R, m)
        cell, output = chosen // C, chosen % C
        logits = f[torch.arange(m, device=f.device), cell]  # (R, m, C)
        if self.likelihood == "bernoulli":
            values = (logits.sigmoid() * (-logits).sigmoid()).sqrt()
        else:
            p = logits.softmax(-1)
            units = torch.nn.functional.one_hot(output, C).to(f.dtype)
            values = p.gather(-1, output[..., None]).sqrt() * (units - p)
        places = cell[..., None] * C + torch.arange(C, device=f.device)
        return torch.zeros(*chosen.shape, total, dtype=f.dtype, device=f.device).scatter(-1, places, values)

    def _rows(self, f: Float[Tensor, "m C"]) -> Float[Tensor, "R m C"]:
        """Columns of the root of Λ (of σ²Λ for real targets), for R random outputs or for all of them."""
        C = f.shape[1]
        if self.num_outputs is None:
            chosen: Int[Tensor, " R"] = torch.arange(C, device=f.device)
        else:
            chosen = torch.randperm(C)[: self.num_outputs].to(f.device, non_blocking=True)
        units = torch.eye(C, dtype=f.dtype, device=f.device)[chosen]  # (R, C)
        if self.likelihood == "gaussian":
            return units[:, None].expand(-1, len(f), -1)  # K is divided by σ² where the noise has a gradient
        if self.likelihood == "bernoulli":
            return (f.sigmoid() * (-f).sigmoid()).sqrt()[None]
        p = f.softmax(-1)  # (m, C)
        # Not sqrt(p), whose slope is infinite at a probability that has underflown to zero.
        root = (0.5 * f.log_softmax(-1)[:, chosen]).exp().T  # (c, m)
        return root[..., None] * (units[:, None] - p)

    def weight_loss(self, prior: InvariantNetwork, data: Data, num_total: int) -> Float[Tensor, ""]:
        """The negative log joint density of data and weights."""
        network = prior.backbone
        scales = {name: s.detach() for name, s in network.prior_scales().items()}
        weights = network.weights()
        penalty = 0.5 * torch.stack([(weights[name] / scales[name]).square().sum() for name in scales]).sum()
        return penalty / num_total - self.mean_log_likelihood(prior, data)

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {
            **super().config(),
            "num_outputs": self.num_outputs,
            "block_size": self.block_size,
            "determinant": self.determinant,
            "anchors": self.anchors,
        }


def _ones(f: Float[Tensor, "m 1"]) -> Float[Tensor, "1 m 1"]:
    return torch.ones_like(f)[None]


def _by_example(K: Float[Tensor, "1 rows rows"], m: int) -> Float[Tensor, "1 rows rows"]:
    """Rows that come output by output, brought into the order of their m examples.

    The first rows are then some of the examples with all their rows. Output by output they would be some rows of
    every example, of which the others are nearly a consequence: for two classes the second row is the first.
    """
    R = K.shape[-1] // m
    return K.unflatten(-1, (R, m)).unflatten(-3, (R, m)).permute(0, 2, 1, 4, 3).reshape(K.shape)
