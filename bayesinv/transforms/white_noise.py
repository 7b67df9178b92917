"""White noise as a function of a few numbers: fields that are the same whenever their seed columns are."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["white_noise"]

_GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)


def white_noise(auxiliaries: Float[Tensor, "*draws J"], num_elements: int) -> Float[Tensor, "*draws num_elements"]:
    """A field of ``num_elements`` numbers out of J auxiliary columns of t.

        z_e = √(2/J) Σ_j cos(2π m_ej u_j),    u_j = (a_j + 1) / 2 ~ U[0, 1],    m distinct positive integers

    Over the auxiliaries the entries have mean 0, variance 1 and are uncorrelated, **exactly**: cosines of distinct
    whole frequencies are orthogonal. They are nearly normal, of kurtosis 3 − 3/(2J). Frequencies are multiples of g
    modulo a prime, which mixes their order; z is smooth in the auxiliaries and no generator is involved.

    Args:
        auxiliaries: a in [−1, 1], J of them.
        num_elements: N.

    Example:
        >>> a = torch.tensor([[0.1, -0.3, 0.5, 0.9]], dtype=torch.float64)
        >>> white_noise(a, 6).shape, bool((white_noise(a, 6) == white_noise(a, 6)).all())
        (torch.Size([1, 6]), True)
    """
    J = auxiliaries.shape[-1]
    prime = _prime_above(J * num_elements)
    k = torch.arange(1, J * num_elements + 1, device=auxiliaries.device)
    frequencies = (k * max(1, round(_GOLDEN * prime)) % prime).reshape(num_elements, J)
    # In float64: in single precision m u would lose a digit for every factor of ten in m.
    u = 0.5 * (auxiliaries.to(torch.float64) + 1.0)
    turns = frequencies.to(torch.float64) * u[..., None, :]  # (*draws, N, J)
    return (math.sqrt(2.0 / J) * torch.cos(2.0 * math.pi * turns).sum(-1)).to(auxiliaries)


def _prime_above(number: int) -> int:
    """The smallest prime larger than ``number``."""
    candidate = number + 1
    while any(candidate % divisor == 0 for divisor in range(2, int(candidate**0.5) + 1)):
        candidate += 1
    return candidate
