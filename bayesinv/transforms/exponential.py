"""exp(Σ_k t_k A_k), which every transform of a matrix group is made of."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def exponential(
    generators: Float[Tensor, "K rows rows"], t: Float[Tensor, "*orbit K"]
) -> Float[Tensor, "*orbit rows rows"]:
    """The matrices of coordinates, in the dtype of ``t``.

    Args:
        generators: A, (K, d, d).
        t: coordinates, (*orbit, K).

    Example:
        >>> exponential(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([2.0])).tolist()
        [[1.0, 2.0], [0.0, 1.0]]
    """
    return torch.linalg.matrix_exp(torch.einsum("...k,kij->...ij", t, generators.to(t)))
