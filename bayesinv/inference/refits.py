"""Weights and prior scales of a network fitted anew at one value of the extents, and the log evidence there.

    θ_η, σ_η  =  argmax log p(D, θ | σ, η)  and  argmax log p(D | θ, σ, η)  by turns,

everything that is random the same at every η, so that differences between extents are clean.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.backbones.invariant_network import InvariantNetwork
from bayesinv.data.container import Data
from bayesinv.data.streams import Stream, derive_seed
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference.training import Training
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded

# Multiplications of one exact determinant, N²(P + N) for N = nC rows and P weights: about a tenth of a second.
EXACT_WORK = 2e9
ROW_BATCHES = 2  # of the determinant's estimate, each as large as that of an extent step
LARGEST_MOVE = 1.5  # of a log scale in one step, so that an estimate that is nearly zero does not throw it out of range
LAST_RATE = 0.1  # of the first


@dataclass(frozen=True)
class Examples:
    """The data as every refit sees them.

    Attributes:
        num_total: n.
        batch: number i of the weights' batches.
        num_batches: of them that hold all data once.
        rows: batches of the determinant.
        exact: whether that is one batch of all data, all of whose outputs count.
        seed: of the rows that an estimate of the determinant draws.
    """

    num_total: int
    batch: Callable[[int], Data]
    num_batches: int
    rows: tuple[Data, ...]
    exact: bool
    seed: int

    @classmethod
    def of(cls, model: InvarianceModel, stream: Stream, training: Training, seed: int) -> Examples:
        """Batches of the size of the fit's, from a permutation of their own."""
        n, place = stream.num_total, next(model.parameters()).device
        num_batches = -(-n // min(n, training.batch_size))
        size = -(-n // num_batches)  # equal ones, so that together they hold every example once, or a few of them twice
        first = stream.batch(seed, "refits", 0, size).to(place)
        still = copy.deepcopy(model.network).eval()  # statistics of a batch normalisation do not move
        with torch.no_grad(), seeded(seed):
            num_rows = n * still.functional({}, first.x[:1]).numel()
        num_weights = sum(w.numel() for w in model.network.weights().values())
        exact = num_rows**2 * (num_rows + num_weights) <= EXACT_WORK
        if exact:
            rows: tuple[Data, ...] = (stream.subset(n, seed).to(place),)
        else:
            few = min(n, training.extent_batch_size)
            rows = tuple(
                stream.batch(seed, "refit rows", i, few).to(place) for i in range(min(ROW_BATCHES, max(1, n // few)))
            )
        if size == n and exact:
            return cls(n, lambda i: rows[0], 1, rows, exact, seed)
        return cls(n, lambda i: stream.batch(seed, "refits", i, size).to(place), num_batches, rows, exact, seed)


class Refit:
    """A network whose weights and scales follow one value of the extents.

    Args:
        start: copied; its weights and scales are where this one begins.
        eta: extents, (K,), internal units.
        examples: the data.
    """

    def __init__(self, start: InvarianceModel, eta: Float[Tensor, " K"], examples: Examples):
        self.model = copy.deepcopy(start)
        self.evidence = cast(LaplaceEvidence, self.model.evidence)
        if examples.exact:
            self.evidence.num_outputs = None
        self.network, self.examples = self.model.network, examples
        self._view = self.model.at(eta).evaluated()  # what the weights are at the mode of, too
        self._kept: dict[int, Still] = {}  # views of batches that come again, with the copies of their inputs
        self._bytes = 0

    def fit(self, steps: int, rate: float, rounds: int, learn_scales: bool = True) -> Refit:
        """Steps of Adam on the weights, in rounds after each of which the prior scales follow; itself."""
        weights = list(self.network.weights().values())
        done = 0
        for number in range(rounds):
            optimiser = torch.optim.Adam(weights, lr=rate)
            for _ in range((steps * (number + 1)) // rounds - done):
                optimiser.param_groups[0]["lr"] = rate * (1.0 - (1.0 - LAST_RATE) * done / steps)
                seen, data = self._seen(done % self.examples.num_batches)
                optimiser.zero_grad()
                self.evidence.weight_loss(seen, data, self.examples.num_total).backward(inputs=weights)
                optimiser.step()
                done += 1
            if learn_scales:
                self.settle_scales()
        return self

    @torch.no_grad()
    def log_evidence(self) -> float:
        """log p(D | η) at the weights and scales as they are: exact, or with the model's own determinant estimate."""
        log_prior = self.network.log_prior(self.network.weights()).double()
        return float(self._log_likelihood() + log_prior - self._half_log_det())

    def settle_scales(self) -> None:
        """One step of MacKay's fixed point for the prior scales, and for the noise of a regression.

            σ_l² <- |θ_l|² / γ_l,    γ_l = ∂ ½ log det / ∂ log σ_l,        σ² <- Σ r² / (nC - Σ_l γ_l)

        The numbers of directions γ_l that the data determine are derivatives of whatever determinant the evidence has.

        Reference:
            D. J. C. MacKay (1992). Bayesian interpolation. Neural Computation 4.
        """
        gains = self.network.log_scales
        theta = {name: w.detach() for name, w in self.network.weights().items()}
        with torch.enable_grad():
            (penalty,) = torch.autograd.grad(self.network.log_prior(theta), gains)  # |θ_l|² / σ_l²
            noise = self.evidence.log_noise
            wanted = [gains, noise] if noise.requires_grad else [gains]
            gamma, *rest = torch.autograd.grad(self._half_log_det(), wanted)
        with torch.no_grad():
            gains.add_(0.5 * _log_ratio(penalty, gamma))
            if rest:
                count, squares = self._residuals()
                noise.add_(_log_ratio(squares / noise.exp(), count + 2.0 * rest[0]))

    def _residuals(self) -> tuple[float, Tensor]:
        """nC, and the sum of squared residuals over all data, from the slope of the likelihood in the noise."""
        noise = self.evidence.log_noise
        count, slope = 0.0, torch.zeros((), dtype=torch.float64)
        for seen, data, share in self._all():
            with torch.enable_grad():
                value = self.evidence.mean_log_likelihood(seen, data).double() * len(data)
                (own,) = torch.autograd.grad(value, noise)  # -nC/2 + Σ r² / 2σ²
            slope, count = slope + share * own.cpu().double(), count + share * data.y.numel()
        return count, ((2.0 * slope + count) * noise.exp().cpu()).to(noise.device)

    def _log_likelihood(self) -> Tensor:
        parts = [
            share * len(data) * self.evidence.mean_log_likelihood(seen, data).double()
            for seen, data, share in self._all()
        ]
        return torch.stack(parts).sum()

    def _half_log_det(self) -> Tensor:
        """½ log det(I + K) as the evidence has it, differentiable in the scales: what it takes from the joint density.

        Random outputs are the same at every call.
        """
        n, parts = self.examples.num_total, []
        theta = {name: w.detach() for name, w in self.network.weights().items()}
        for i, data in enumerate(self.examples.rows):
            seen = self._still(-1 - i, data)
            with seeded(derive_seed(self.examples.seed, "refit rows", i)):
                value = self.evidence.log_evidence(seen, data, n)
            fit = n * self.evidence.mean_log_likelihood(seen, data).double() + self.network.log_prior(theta).double()
            parts.append(fit - value)
        return torch.stack(parts).mean()

    def _all(self) -> Iterator[tuple[InvariantNetwork, Data, float]]:
        """Every batch, and how many times each of its examples counts."""
        for i in range(self.examples.num_batches):
            seen, data = self._seen(i)
            yield seen, data, self.examples.num_total / (self.examples.num_batches * len(data))

    def _seen(self, number: int) -> tuple[InvariantNetwork, Data]:
        data = self.examples.batch(number)
        return self._still(number, data), data

    def _still(self, number: int, data: Data) -> InvariantNetwork:
        """The network as examples of a batch see it; copies of inputs that come again are kept within the budget."""
        if number not in self._kept:
            seen = self._view.of_groups(data.groups)
            self._bytes += self.model.network_orbit.num_copies * data.x.numel() * data.x.element_size()
            if self._bytes > self.model.memory_budget // 4:
                return seen
            with torch.no_grad():
                self._kept[number] = Still(seen, data.x, seen.points(data.x))
        return self._kept[number]


class Still(InvariantNetwork):
    """A network at one value of the extents, with the copies of some inputs kept.

    Args:
        seen: the network.
        x: the inputs.
        points: their copies.
    """

    def __init__(self, seen: InvariantNetwork, x: Float[Tensor, n * event], points: Float[Tensor, "S n *event"]):
        self.__dict__.update(seen.__dict__)
        self._x, self._points = x, points

    def points(self, x: Float[Tensor, n * event]) -> Float[Tensor, "S n *event"]:
        """The copies that are kept, or those of other inputs."""
        same = x.shape == self._x.shape and torch.equal(x, self._x)
        return self._points if same else super().points(x)


def _log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log(a / b) within ``LARGEST_MOVE`` of zero."""
    bound = math.exp(LARGEST_MOVE)
    return (a / b.clamp_min(1e-12).to(a)).clamp(1.0 / bound, bound).log()
