"""The most probable function under a softmax: kernel logistic regression in whitened features."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from bayesinv.errors import NotSettledError
from bayesinv.evidence.algebra import Posterior
from bayesinv.evidence.basis import Whitened
from bayesinv.evidence.linear_algebra import cholesky

# Of the gradient in v, whose prior is standard normal: the mode is within this many prior standard deviations, far
# below what a probability in per cent shows.
TOLERANCE = 3e-3
MAX_STEPS = 2000
MEMORY = 20  # pairs that L-BFGS keeps


class Mode(Posterior):
    """All mass on one v; functions have no variance.

    Attributes:
        weights: v, (G, M, C/G).
        alpha: in the span of the inputs v = V α, (G, n, C/G); None where v itself was sought.
    """

    def __init__(self, weights: Float[Tensor, "G M each"], alpha: Float[Tensor, "G n each"] | None = None):
        self.weights, self.alpha = weights, alpha

    def means(self, V: Float[Tensor, "*C M m"]) -> Float[Tensor, "m C"]:
        return V.mT @ self.weights[0] if len(self.weights) == 1 else (V.mT @ self.weights).movedim(0, -1).flatten(1)

    def variances(self, V: Float[Tensor, "*C M m"]) -> Float[Tensor, "m G"]:
        return V.new_zeros(V.shape[-1], len(self.weights))


@torch.no_grad()
def logistic_mode(white: Whitened, offset: Float[Tensor, " C"], y: Int[Tensor, " n"], near: Mode | None = None) -> Mode:
    """argmax over v of Σ_i log softmax_{y_i}(offset + V_iᵀ v) - |v|² / 2, concave, by L-BFGS.

    With more features than inputs v = V K⁻¹ f lies in the span of the inputs, K = VᵀV, and n numbers a class are
    enough.

    Args:
        white: with whitened features V, (M, n), or (C, M, n) where every class has its own.
        offset: added to f, (C,).
        y: labels, (n,).
        near: the mode at similar features, to start from.

    Raises:
        NotSettledError: the gradient did not fall below its tolerance.

    Example:
        >>> V, zeros = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        >>> logistic_mode(Whitened(V, zeros), zeros, torch.tensor([0, 1])).means(V).argmax(1).tolist()
        [0, 1]
    """
    V = white.V
    C = len(offset)
    inputs = white.K is not None
    if white.K is not None:
        L = cholesky(white.K, "K of kernel logistic regression", regularise=True)
        root = L.mT  # f = rootᵀ v
    else:
        root = V
    root = root[None] if V.ndim == 2 else root  # (G, k, n)
    G, k = len(root), root.shape[-2]
    wanted = torch.nn.functional.one_hot(y, C).to(V.dtype)

    def values(v: Tensor) -> Tensor:  # (k, C) -> (n, C)
        return root[0].T @ v if G == 1 else (root.mT @ v.T[..., None]).movedim(0, -1).flatten(1)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = torch.from_numpy(flat).to(V.device).view(k, C)
        log_p = (offset + values(v)).log_softmax(-1)
        pull = log_p.exp() - wanted
        gradient = v + (root[0] @ pull if G == 1 else (root @ pull.T[..., None])[..., 0].T)
        value = -(log_p * wanted).sum() + 0.5 * v.square().sum()
        return float(value), gradient.cpu().numpy().ravel()

    start = torch.zeros(k, C, dtype=V.dtype)
    if near is not None:
        before = near.alpha if inputs else near.weights
        if before is not None and before.shape == (G, k, C // G):
            v = root @ before if inputs else before  # v = Lᵀα
            start = (v[0] if G == 1 else v[..., 0].T).cpu()
    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "ftol": 0.0, "gtol": TOLERANCE, "maxcor": MEMORY}
    found = minimize(objective, start.numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    if not np.abs(found.jac).max() < 30.0 * TOLERANCE:
        raise NotSettledError(
            f"kernel logistic regression: the gradient is still {np.abs(found.jac).max():.2g} after {found.nit} steps "
            f'(expected {TOLERANCE:g}): {found.message}; use SoftmaxEvidence(prediction="average")'
        )
    v = torch.from_numpy(found.x).to(V.device).view(k, C)
    each = v[None] if G == 1 else v.T[..., None]  # (G, k, C/G)
    if not inputs:
        return Mode(each)
    alpha = torch.linalg.solve_triangular(root, each, upper=True)  # L⁻ᵀ v
    return Mode(V @ alpha, alpha)
