"""Cholesky factors that escalate their jitter, and say which matrix gave up."""

from __future__ import annotations

import torch
from jaxtyping import Float
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from bayesinv.errors import NumericalError

# Relative to the mean of the diagonal. With M = 500 points of a smooth kernel float64 loses about 1e-10 to
# rounding, and a float32 orbit 1e-7; 1e-6 covers both. What it costs the evidence grows with the
# precision of the data: 0.01 nat for Dirichlet targets on 300 inputs, more for Gaussian ones with little noise.
RELATIVE_JITTER = 1e-6
MAX_TRIES = 4  # a factor of ten each: up to 1e-3 of the diagonal


def cholesky(A: Float[Tensor, "*batch M M"], what: str, regularise: bool = False) -> Float[Tensor, "*batch M M"]:
    """Lower Cholesky factor of A, in the dtype of A.

    Args:
        A: symmetric positive semi-definite, shape (*batch, M, M).
        what: name of the matrix for the error.
        regularise: add the relative jitter before the first try (covariances that are singular in
            exact arithmetic, such as k(Z, Z) with close points).

    Raises:
        NumericalError: not positive definite after the last jitter, or not finite.
    """
    scale = A.detach().diagonal(dim1=-2, dim2=-1).mean()
    if regularise:
        A = A + RELATIVE_JITTER * scale * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    L, info = torch.linalg.cholesky_ex(A)
    if bool((info == 0).all() & torch.isfinite(L.detach()).all()):  # one wait for the device
        return L
    if not bool(scale > 0) and bool(torch.isfinite(scale).all()):
        raise NumericalError(f"{what} ({A.shape[-1]} x {A.shape[-1]}) has no positive diagonal: nothing varies")
    try:
        factor: Tensor = psd_safe_cholesky(A, jitter=RELATIVE_JITTER * float(scale), max_tries=MAX_TRIES)
    except (NotPSDError, NanError) as error:
        size = f"{what} ({A.shape[-1]} x {A.shape[-1]})"
        if isinstance(error, NanError):
            raise NumericalError(
                f"{size} is not finite; look for NaN in the model, and whether x and y are scaled"
            ) from error
        fewer = "Use fewer inducing points, remove" if "inducing points" in what else "Remove"
        raise NumericalError(
            f"{size} is not positive definite, also with jitter up to "
            f"{RELATIVE_JITTER * 10 ** (MAX_TRIES - 1):g} of its diagonal. {fewer} duplicated inputs, or take the "
            'model as InvarianceModel(..., precision="double")'
        ) from error
    return factor
