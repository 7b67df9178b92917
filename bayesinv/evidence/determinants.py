"""log det(I + K) of the N rows of all data, from the matrix of fewer: two bounds, and an estimate.

A step of a network's evidence sees M rows of the N that the data have. What they say of the determinant of all is a
bound where each further row is taken to add as much as those seen do (from above), or nothing new (from below), and an
estimate where the eigenvalues of the rows seen tell those of the population that they were drawn from.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.evidence.linear_algebra import cholesky

# Of s in `deterministic_equivalent`: single precision leaves about 1e-6 of the largest eigenvalue in the smallest.
LARGEST_SCALE = 1e3
NEWTON_STEPS, BISECTIONS = 40, 40


def from_above(K: Float[Tensor, "*batch M M"], num_total: int, num_anchors: int = 0) -> Float[Tensor, "*batch"]:
    """U, the anchors once and what the others add to them as often as there are such others.

        U = log det(I + K_aa) + (N - a)/(M - a) (log det(I + K) - log det(I + K_aa))

    Right on average over random rows (or blocks of rows) in random order: a row adds the less, the more came before it.

    Args:
        K: of M rows, the a anchors first.
        num_total: N.
        num_anchors: a, fewer than M.

    Example:
        >>> round(float(from_above(torch.eye(2), 6).exp()), 2)  # six rows that have nothing to do with each other: 2^6
        64.0
    """
    terms = log_diagonal(K)
    times = (num_total - num_anchors) / (terms.shape[-1] - num_anchors)
    return terms[..., :num_anchors].sum(-1) + times * terms[..., num_anchors:].sum(-1)


def from_below(K: Float[Tensor, "*batch M M"], num_total: int) -> Float[Tensor, "*batch"]:
    """L = log det(I + N/M K): the rows seen, each N/M times. log det is concave, so that L is too small on average."""
    return log_diagonal(num_total / K.shape[-1] * K).sum(-1)


def deterministic_equivalent(K: Float[Tensor, "M M"], num_total: int) -> Float[Tensor, ""]:
    """The determinant of N random rows of the population that M of them were drawn from; an estimate, no bound.

    For rows z_i Λ^½ with independent entries of z_i, log det(I + sK) depends in large dimensions on Λ alone,

        log det(I + sK) ≈ δ(u) + M log(1 + se) - u e,    δ(u) = log det(I + uΛ),    e = δ'(u),    u = M s / (1 + se).

    Read backwards, the eigenvalues of K tell δ at every u that some s reaches, with g = tr (I + sK)⁻¹ / M:

        u = M s g,    e = (1 - g) / (s g),    δ(u) = log det(I + sK) + M log g + M (1 - g),

    and δ tells what N rows say: u = N / (1 + e), at s = 1. The s that has this u with M rows solves
    s g + 1 - g = N/M. Where K has no such s, or one above 1e3, δ goes on from there as a power of u with the slope that
    it has, δ (u'/u)^(ue/δ). For N = M, s = 1 and nothing is estimated. The estimate is stationary in u and e.

    Args:
        K: of M random rows.
        num_total: N >= M.

    Returns:
        Nats, differentiable in K.

    Reference:
        R. Couillet, M. Debbah (2011). Random Matrix Methods for Wireless Communications. Cambridge (chapter 6: the
        equivalent; reading it backwards and going on from there are ours).

    Example:
        >>> rows = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 1000**0.5
        >>> K = rows @ rows.T
        >>> everything = torch.logdet(torch.eye(300) + K)
        >>> round(float(deterministic_equivalent(K[:60, :60], 300) / everything), 2)  # from a fifth of the rows
        1.02
    """
    M, N, mu = len(K), num_total, torch.linalg.eigvalsh(K).clamp_min(0.0)
    s = _scale(mu, N)
    g = (1.0 / (1.0 + s * mu)).mean()
    u, e = M * s * g, (1.0 - g) / (s * g)
    delta = torch.log1p(s * mu).sum() + M * g.log() + M * (1.0 - g)
    with torch.no_grad():
        further = _further(u, e, delta, N)
        slope = e * (further / u) ** (u * e / delta - 1.0)
    # Stationary in `further` and `slope`, so that constants will do for the gradient.
    return delta * (further / u) ** (u * e / delta) - further * slope + N * torch.log1p(slope)


@torch.no_grad()
def _scale(mu: Float[Tensor, " M"], num_total: int) -> Float[Tensor, ""]:
    """s of s g + 1 - g = N/M, by Newton's method: on a concave, rising function it never steps past the root."""
    s = torch.ones((), dtype=mu.dtype, device=mu.device)
    for _ in range(NEWTON_STEPS):
        shares = 1.0 / (1.0 + s * mu)
        left = num_total / len(mu) - 1.0 - (s - 1.0) * shares.mean()
        s = (s + left / ((1.0 + mu) * shares.square()).mean()).clamp(1.0, LARGEST_SCALE)
    return s


def _further(u: Tensor, e: Tensor, delta: Tensor, num_total: int) -> Float[Tensor, ""]:
    """u' with u' (1 + e') = N, where e' = e (u'/u)^(b - 1) is the slope of the power b; by bisection of log u'."""
    power = u * e / delta
    low, high = u.log(), u.new_tensor(float(num_total)).log().maximum(u.log())
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        found = middle.exp()
        above = found * (1.0 + e * (found / u) ** (power - 1.0)) > num_total
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low.exp()


def log_diagonal(K: Float[Tensor, "*batch M M"]) -> Float[Tensor, "*batch M"]:
    """What each row adds to log det(I + K) of the rows before it."""
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    factor = cholesky(identity + K, "I + K of the Laplace evidence")
    return 2.0 * factor.diagonal(dim1=-2, dim2=-1).log()
