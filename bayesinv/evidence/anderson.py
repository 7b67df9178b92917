"""Anderson acceleration of fixed-point steps."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

MEMORY = 12  # earlier steps that are combined
RIDGE = 1e-10  # of the least squares, relative to its largest entry
PLAIN_STEPS = 3  # after one that ran off
LONGEST = 1e3  # an accelerated step longer than this many plain ones is not taken


class Anderson:
    """Next points of u = g(u), from what the last steps did.

        u_next = g_k - Σ_j γ_j (g_{j+1} - g_j),    γ = argmin | r_k - Σ_j γ_j (r_{j+1} - r_j) |,    r = g - u,

    over the last twelve steps. A step that runs far off gives way to the plain one, u_next = g.

    Args:
        start: u_0, of any shape.

    Reference:
        D. G. Anderson (1965). Iterative procedures for nonlinear integral equations. Journal of the ACM 12.
        H. F. Walker, P. Ni (2011). Anderson acceleration for fixed-point iterations. SIAM J. Numer. Anal. 49.

    Example:
        >>> u = torch.zeros(1, dtype=torch.float64)
        >>> steps = Anderson(u)
        >>> for _ in range(10):
        ...     u = steps.next(u.cos())
        >>> bool((u - u.cos()).abs() < 1e-9)  # plain steps need fifty
        True
    """

    def __init__(self, start: Float[Tensor, "*shape"]):
        self._u = start
        self._images: list[Float[Tensor, " d"]] = []
        self._residuals: list[Float[Tensor, " d"]] = []

    def next(self, image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The point after u, whose image g(u) is given."""
        kept = 1 + min(MEMORY, image.numel())  # more differences than dimensions have no more to say
        self._images = [*self._images, image.flatten()][-kept:]
        self._residuals = [*self._residuals, (image - self._u).flatten()][-kept:]
        self._u = image if len(self._images) < 2 else self._combined().view_as(image)
        return self._u

    def _combined(self) -> Float[Tensor, " d"]:
        images, residuals = torch.stack(self._images, -1).diff(), torch.stack(self._residuals, -1).diff()  # (d, m)
        image, residual = self._images[-1], self._residuals[-1]
        gram = residuals.mT @ residuals
        ridge = (RIDGE * gram.diagonal().amax()).clamp_min(torch.finfo(image.dtype).tiny)
        eye = torch.eye(len(gram), dtype=image.dtype, device=image.device)
        gamma, failed = torch.linalg.solve_ex(gram + ridge * eye, residuals.mT @ residual)
        moved = -(images @ gamma)
        plain = bool(failed != 0) or not bool(moved.isfinite().all()) or moved.norm() > LONGEST * residual.norm()
        return image if plain else image + moved


class CautiousAnderson:
    """Accelerated steps near the fixed point; plain ones elsewhere, and after one twice as long as the shortest."""

    def __init__(self) -> None:
        self._steps: Anderson | None = None
        self._smallest, self._plain = math.inf, 0

    def next(self, u: Float[Tensor, "*shape"], image: Float[Tensor, "*shape"], near: bool) -> Float[Tensor, "*shape"]:
        """The point after u.

        Args:
            u: any shape; what the last call returned. Corrections to it are not seen.
            image: g(u).
            near: whether differences of steps say something about the fixed point here.
        """
        size = float((image - u).norm())
        if size > 2.0 * self._smallest:
            self._plain, self._smallest = PLAIN_STEPS, size
        self._smallest = min(self._smallest, size)
        if not near or self._plain > 0:
            self._plain, self._steps = max(0, self._plain - 1), None
            return image
        if self._steps is None:
            self._steps = Anderson(u)
        return self._steps.next(image)
