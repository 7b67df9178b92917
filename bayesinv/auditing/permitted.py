"""How far inputs may be averaged over an operation before unseen examples are predicted worse."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.model.invariance_model import InvarianceModel

__all__ = ["log_loss", "losses", "permitted"]

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the largest extent
TOLERANCE = 0.01  # nats an example: unseen targets on average 1 % less likely
NUM_RESAMPLES = 400


def losses(
    model: InvarianceModel, data: Data, held_out: Data, extents: Tensor, place: int
) -> Float[np.ndarray, "shares m"]:
    """Log loss of each left-out example, nats, with the extent at `place` at each of ``SHARES``; the others held."""
    largest = model.coordinates[place].largest
    rows = []
    for share in SHARES:
        eta = extents.clone()
        eta[place] = share * largest
        try:
            with torch.no_grad():
                rows.append(log_loss(model, data, held_out, eta))
        except NumericalError:  # no predictions there: not permitted
            rows.append(np.full(len(held_out), np.inf))
    return np.stack(rows)


def log_loss(model: InvarianceModel, data: Data, held_out: Data, eta: Tensor) -> Float[np.ndarray, " m"]:
    """Log loss of each left-out example at these extents, nats."""
    y = None if held_out.num_classes is not None else held_out.y
    prediction = model.predict(held_out.x, data, eta[None], y=y)
    if prediction.probs is None:
        return -prediction.log_density.cpu().numpy()  # type: ignore[union-attr]
    own = prediction.probs[torch.arange(len(held_out)), held_out.y]
    return -own.clamp_min(1e-12).log().cpu().numpy()


def permitted(table: Float[np.ndarray, "shares m"], largest: float, seed: int = 0) -> Float[np.ndarray, 3]:
    """5, 50 and 95 % quantiles, over resampled examples, of the extent up to which predictions stay as good.

    From the extent with the smallest mean loss outwards, as far as the mean loss stays within 0.01 nat of it, linear
    between the extents that were computed.

    Args:
        table: losses, nats, a row for each of ``SHARES``.
        largest: the largest extent, internal units.
        seed: of the resampling.

    Example:
        >>> rising = np.array([0.0, 0.0, 0.0, 0.02, 0.5, 0.9])[:, None].repeat(50, 1)
        >>> permitted(rising, largest=2.0).round(9).tolist()  # half way from a quarter to a half
        [0.75, 0.75, 0.75]
    """
    rng = np.random.default_rng(seed)
    shares, m = np.array(SHARES), table.shape[1]
    counts = rng.multinomial(m, np.full(m, 1.0 / m), size=NUM_RESAMPLES)  # (resamples, m)
    table = np.where(np.isfinite(table), table, 1e6)
    ends = [_end(shares, mean) for mean in counts @ table.T / m]
    return largest * np.quantile(ends, [0.05, 0.5, 0.95])


def _end(shares: np.ndarray, mean: np.ndarray) -> float:
    first = int(mean.argmin())
    limit = mean[first] + TOLERANCE
    beyond = np.flatnonzero(mean[first:] > limit)
    if not len(beyond):
        return 1.0
    i = first + int(beyond[0])
    part = (limit - mean[i - 1]) / (mean[i] - mean[i - 1])
    return float(shares[i - 1] + part * (shares[i] - shares[i - 1]))
