"""Subalgebras one after the other: proposed by gradients, weighed by the evidence, with a posterior by Laplace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.discovery.algebra import Algebra
from bayesinv.discovery.evidence import FlowEvidence
from bayesinv.discovery.subspaces import chart, closed_tangents, complement, defect, log_volume, orthonormal

__all__ = ["Candidate", "Search"]

# Nats below the best subspace from which on larger ones are not looked for: a direction too many costs hundreds, and
# random features some twenty in so(3), whose two or three generators should cost the same.
FALL = 60.0
# Nats below the best subalgebra from which on another one is not finished: e^-20 is no probability.
HOPELESS = 20.0
# Nats below the best subspace after 15 steps from which on a start is given up.
LOST = 300.0
SLOW_GAIN = 2.0  # nats in 40 steps below which a start has arrived
NEW = 0.3  # length of a bracket outside a subspace that is a new direction
# Of the brackets outside the subspace, |defect|², in nats: at an angle of 0.1° it costs 0.3, at 1° thirty.
CLOSING = (1e5, 1e6)
OPEN = 0.6  # |defect| above which a subspace is no subalgebra that is not quite there
STEP, STEP_U = 1e-3, 1e-2  # of difference quotients of gradients: radians, and logarithms
UNIT_U = 0.2  # of hyperparameters for the optimiser
FARTHEST = 7.0  # standard deviations of the weak priors within which hyperparameters stay
# Where the process without generators leaves more of the targets' variance as noise, it may not know the function, and
# then its gradients propose nothing. Targets that are that noisy, and labels, are looked at in this way too.
UNKNOWN = 0.05
# Tolerances from wide to narrow, before the evidence's own, of a first generator that is looked for from directions at
# random: at the tolerance itself the way is narrow. On so(1,3), seed 1 of its benchmark, three of three such climbs
# found a true one.
ANNEALED, NUM_ANNEALED, STEPS_ANNEALED = (1.0, 0.3, 0.1, 0.03), 2, 25
BETTER = 10.0  # nats above one direction that gradients proposed from which on it is taken; above several, FALL
# Times the tolerance: a direction along which the constrained function is slower than that is likely entailed by the
# generators that are in.
ENTAILED = 3.0


@dataclass(frozen=True)
class Candidate:
    """A subalgebra and the posterior around it.

    Attributes:
        V: orthonormal directions, (p, k).
        u: hyperparameters at the mode.
        log_joint: log p(y, u | V) there.
        log_evidence: log p(y | dimension k), by Laplace, uniform over the directions in which a subalgebra may move.
        N, tangents: how it may move, see `closed_tangents`.
        covariance: of those D coordinates, (D, D).
    """

    V: Float[Tensor, "p k"]
    u: Float[Tensor, " P"]
    log_joint: float
    log_evidence: float
    N: Float[Tensor, "p rest"]
    tangents: Float[Tensor, "moves D"]
    covariance: Float[Tensor, "D D"]

    @property
    def dimension(self) -> int:
        """k."""
        return self.V.shape[1]

    def draws(self, number: int, seed: int) -> Float[Tensor, "draws p k"]:
        """Orthonormal frames of subspaces from the posterior."""
        p, k = self.V.shape
        z = torch.randn(
            number, len(self.covariance), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        w, E = torch.linalg.eigh(self.covariance)
        Z = (z * w.clamp_min(0.0).sqrt()) @ E.mT @ self.tangents.mT  # (draws, moves)
        return torch.stack([orthonormal(self.V + self.N @ row.reshape(p - k, k)) for row in Z])


class Search:
    """From no generator to the largest subalgebra that the data allow.

    Args:
        evidence: of the data given a subspace.
        algebra: where the subspaces lie.
        proposals: second moments of the changes of a fitted network along the basis, (p, p), to propose from in place
            of the process's own; None for these.
        max_dimension: of the largest subspace that is tried.
        seed: of the directions at random.
    """

    def __init__(
        self,
        evidence: FlowEvidence,
        algebra: Algebra,
        proposals: Float[Tensor, "p p"] | None,
        max_dimension: int,
        seed: int = 0,
    ):
        self.evidence, self.algebra = evidence, algebra
        self.proposals = proposals
        self.max_dimension, self.seed = max_dimension, seed
        self.speeds = torch.eye(algebra.size, dtype=torch.float64)  # of the process without generators

    def run(self) -> list[Candidate]:
        """Candidates by dimension, the first without generators."""
        none = torch.zeros(self.algebra.size, 0, dtype=torch.float64)
        V, u, best = self.optimise(none, self.evidence.centre, 80)
        found = [self.finished(V, u, best)]
        means, variances = self.evidence.speeds(V, u)
        unknown = self.evidence.noise_share > UNKNOWN
        self.speeds = means + variances
        self.evidence.typical_speed = float(means.trace()) / self.algebra.size
        while V.shape[1] < self.max_dimension:
            grown = self._grow(V, u, best)
            if V.shape[1] == 0 and unknown:
                grown = self._or_annealed(grown, best - FALL)
            if grown is None:
                break
            V, u, value = grown
            best = max(best, value)
            candidate = self._closed(V, u, max(c.log_joint for c in found))
            if candidate is not None:
                found.append(candidate)
        return found

    def _grow(self, V: Tensor, u: Tensor, best: float) -> tuple[Tensor, Tensor, float] | None:
        """A larger subspace that explains the data about as well; None if there is none."""
        for start in self._starts(V, u):
            several = start.shape[1] > V.shape[1] + 1
            W, at, value = self.optimise(start, u, 30 if several else 15)
            gain = math.inf
            while best - LOST < value and gain > SLOW_GAIN:
                before = value
                W, at, value = self.optimise(W, at, 40)
                gain = value - before
                if value > best - FALL:
                    return W, at, value
        return None

    def _or_annealed(
        self, grown: tuple[Tensor, Tensor, float] | None, least: float
    ) -> tuple[Tensor, Tensor, float] | None:
        """What grew from gradients, or one generator from a random direction where the evidence is much higher there.

        The latter's function also says what the typical speed is, since the one without generators is worth little.
        """
        evidence, generator = self.evidence, torch.Generator().manual_seed(self.seed)
        tolerance, typical_speed = evidence.tolerance, evidence.typical_speed
        climbs = []
        for _ in range(NUM_ANNEALED):
            V = torch.randn(self.algebra.size, 1, generator=generator, dtype=torch.float64)
            u, value = evidence.centre, -math.inf
            try:
                for width in (*(width for width in ANNEALED if width > tolerance), tolerance):
                    evidence.tolerance = width
                    V, u, value = self.optimise(V, u, STEPS_ANNEALED)
            finally:
                evidence.tolerance = tolerance
            climbs.append((V, u, value))
        V, u, value = max(climbs, key=lambda climb: climb[2])
        if grown is not None:
            least = max(least, grown[2] + (BETTER if grown[0].shape[1] == 1 else FALL))
        if value <= least:
            return grown
        evidence.typical_speed = float(evidence.speeds(V, u)[0].trace()) / self.algebra.size
        V, u, value = self.optimise(V, u, STEPS_ANNEALED)
        if value <= least:
            evidence.typical_speed = typical_speed
            return grown
        return V, u, value

    def _starts(self, V: Tensor, u: Tensor) -> Iterator[Tensor]:
        """Larger subspaces to start from, likely ones first.

        With what brackets add (a function that stays along A and B stays along [A, B]), with all directions along which
        the function, given V, is slow, and with the slowest of them.
        """
        k = V.shape[1]
        room = self.max_dimension - k
        closure = self._closure(V)
        if 0 < closure.shape[1] - k <= room:
            yield closure
        means, variances = self.evidence.speeds(V, u)
        speeds = means + variances
        if k == 0 and self.proposals is not None and float(self.proposals.trace()) > 0:
            # A network is in units of its own: as fast as the process on average.
            unit = self.evidence.typical_speed * self.algebra.size / self.proposals.trace()
            speeds = unit * self.proposals
        N = complement(V)
        w, E = torch.linalg.eigh(N.mT @ speeds @ N)
        slow = w < (ENTAILED * self.evidence.tolerance) ** 2 * self.evidence.typical_speed
        entailed = min(int(slow.sum()), room)
        for first, end in dict.fromkeys([(0, entailed), (0, 1), (1, 2)] if k == 0 else [(0, entailed), (0, 1)]):
            if first < end <= len(w):
                yield torch.cat([V, N @ E[:, first:end]], 1)

    def _closure(self, V: Tensor) -> Tensor:
        """V with its brackets, and theirs, less what is smaller than NEW: noise of V, not a direction."""
        k = V.shape[1]
        while True:
            extra = defect(V, self.algebra).reshape(len(V), -1)
            if extra.shape[1] == 0:
                return V
            U, s, _ = torch.linalg.svd(extra, full_matrices=False)
            new = U[:, s > NEW]
            if new.shape[1] == 0 or V.shape[1] + new.shape[1] > len(V):
                return V
            V = orthonormal(torch.cat([V, new], 1))
            if V.shape[1] > self.max_dimension:
                return V[:, :k]

    def _closed(self, V: Tensor, u: Tensor, best: float) -> Candidate | None:
        """The subalgebra next to a subspace, where there is one that explains the data."""
        if V.shape[1] > 1:
            if float(defect(V, self.algebra).norm()) > OPEN:
                return None
            for weight in CLOSING:
                V, u, _ = self.optimise(V, u, 60, weight)
            if float(defect(V, self.algebra).norm()) > 0.01:
                return None
        value, _, _ = self.evidence.value_and_gradient(V, u)
        return self.finished(V, u, value) if value > best - HOPELESS else None

    def optimise(
        self, V: Float[Tensor, "p k"], u: Float[Tensor, " P"], max_steps: int, closing: float = 0.0
    ) -> tuple[Tensor, Tensor, float]:
        """The best subspace and hyperparameters near a start, and log p(y, u | V) less the closing penalty there."""
        V = orthonormal(V)
        p, k = V.shape
        N = chart(V, self.speeds) if 0 < k < p else V.new_zeros(p, 0)
        moves = N.shape[1] * k

        def split(t: np.ndarray) -> tuple[Tensor, Tensor]:
            values = torch.as_tensor(t, dtype=torch.float64)
            return values[:moves].reshape(-1, k) if k else values[:0], u + UNIT_U * values[moves:]

        def objective(t: np.ndarray) -> tuple[float, np.ndarray]:
            Z, at = split(t)
            Z = Z.clone().requires_grad_(True)
            W = orthonormal(V + N @ Z) if moves else V
            value, d_V, d_u = self.evidence.value_and_gradient(W, at)
            if not math.isfinite(value):
                return 1e10, np.zeros(len(t))
            d_Z = Z.new_zeros(0)
            if moves:
                penalty = closing * defect(W, self.algebra).square().sum() if closing else W.new_zeros(())
                (d_Z,) = torch.autograd.grad((W * d_V).sum() - penalty, Z)
                value = value - float(penalty.detach())
            return -value, -torch.cat([d_Z.reshape(-1), UNIT_U * d_u]).numpy()

        start = np.zeros(moves + len(u))
        reach = FARTHEST * torch.cat([torch.full((h.size,), h.sd) for h in self.evidence.hyper]).double()
        lower, upper = ((self.evidence.centre + s * reach - u) / UNIT_U for s in (-1.0, 1.0))
        bounds = [(None, None)] * moves + list(zip(lower.tolist(), upper.tolist(), strict=True))
        options = {"maxiter": max_steps, "maxcor": 30, "ftol": 1e-7 if closing else 2e-5, "gtol": 0.05}
        found = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        Z, at = split(found.x)
        return orthonormal(V + N @ Z) if moves else V, at, -float(found.fun)

    def finished(self, V: Float[Tensor, "p k"], u: Float[Tensor, " P"], value: float) -> Candidate:
        """With the curvature: differences of gradients along the D moves of a subalgebra and the hyperparameters."""
        p, k = V.shape
        N, T = closed_tangents(V, self.algebra) if k else (V.new_zeros(p, 0), V.new_zeros(0, 0))
        D, P = T.shape[1], len(u)

        def gradient(t: Tensor) -> Tensor:
            Z = (T @ t[:D]).reshape(p - k, k).requires_grad_(True)
            W = orthonormal(V + N @ Z) if D else V
            _, d_V, d_u = self.evidence.value_and_gradient(W, u + t[D:])
            if not D:
                return d_u
            (d_Z,) = torch.autograd.grad((W * d_V).sum(), Z)
            return torch.cat([T.mT @ d_Z.reshape(-1), d_u])

        H = torch.zeros(D + P, D + P, dtype=torch.float64)
        for i in range(D + P):
            e = torch.zeros(D + P, dtype=torch.float64)
            e[i] = STEP if i < D else STEP_U
            H[i] = (gradient(e) - gradient(-e)) / (2.0 * e[i])
        w, E = torch.linalg.eigh(-0.5 * (H + H.mT))
        w = w.clamp_min(1.0)  # no wider than a radian, or than the hyperpriors
        covariance = (E / w) @ E.mT
        free = 0.5 * ((D + P) * math.log(2.0 * math.pi) - float(w.log().sum()))
        volume = log_volume(D) if D else 0.0
        return Candidate(V, u, value, value + free - volume, N, T, covariance[:D, :D])
