"""Orbits: the base draws ε, the points T_{η·ε} x, and the two averages over them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms import Transform

__all__ = ["Orbit", "average_function", "average_probabilities", "base_draws"]

_KINDS = ("sobol", "monte_carlo")


def base_draws(
    num_samples: int,
    num_coordinates: int,
    kind: str = "sobol",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Float[Tensor, "num_samples num_coordinates"]:
    """Base draws ε of the augmentation distribution, each uniform on [−1, 1].

        t_s = η · ε_s,    ε_s ~ U[−1, 1]^K,    s = 1 … S

    Arguments:
        num_samples: S, the size of the sampled orbit.
        num_coordinates: K.
        kind: ``"sobol"`` for scrambled Sobol points, even over the cube, or ``"monte_carlo"`` for
            independent ones.
        seed: of the scrambling or of the draws. The global generator is neither used nor changed.
        dtype, device: of the result. The numbers are drawn on the CPU, so they are the same on
            every device.

    Returns:
        (S, K), each column marginally uniform on [−1, 1].

    Raises:
        ValueError: if a size is not a positive integer, or ``kind`` is unknown.

    Reference:
        A. B. Owen (1998). Scrambling Sobol' and Niederreiter-Xing points. Journal of Complexity 14.

    Example:
        >>> base_draws(4, 2, seed=1).shape
        torch.Size([4, 2])
        >>> bool((base_draws(4, 2, seed=1) == base_draws(4, 2, seed=1)).all())
        True
    """
    for name, size in (("num_samples", num_samples), ("num_coordinates", num_coordinates)):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} has to be a positive integer, and {size!r} came")
    if kind == "sobol":
        engine = torch.quasirandom.SobolEngine(num_coordinates, scramble=True, seed=seed)
        unit = engine.draw(num_samples, dtype=torch.float64)  # (S, K) in [0, 1)
    elif kind == "monte_carlo":
        generator = torch.Generator().manual_seed(seed)
        unit = torch.rand(num_samples, num_coordinates, generator=generator, dtype=torch.float64)
    else:
        raise ValueError(f"unknown kind of base draws {kind!r}; known are {', '.join(_KINDS)}")
    return (2.0 * unit - 1.0).to(dtype=dtype, device=device)


class Orbit(torch.nn.Module):
    """The sampled orbit {T_{η·ε_s} x : s = 1 … S}, with base draws ε that stay fixed.

    With fixed ε everything computed from the orbit is a deterministic, almost everywhere
    differentiable function of the extents η. The draws are a buffer: they move with the module and
    are saved in its ``state_dict``.

    Arguments:
        transform: T_t, with K coordinates.
        num_samples: S. A finite S is a model of its own, not only an approximation.
        draws: the kind of base draws, ``"sobol"`` or ``"monte_carlo"``.
        seed: of the base draws.

    Raises:
        ValueError: as `base_draws`.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> orbit = Orbit(Affine2d(["rotation", "translate_x"]), num_samples=8)
        >>> orbit(torch.zeros(5, 1, 16, 16), torch.tensor([0.5, 0.1])).shape
        torch.Size([8, 5, 1, 16, 16])
    """

    def __init__(self, transform: Transform, num_samples: int = 24, draws: str = "sobol", seed: int = 0) -> None:
        super().__init__()
        self.transform = transform
        self.num_samples = num_samples
        self.draws = draws
        self.seed = seed
        self.base: Tensor
        self.register_buffer("base", base_draws(num_samples, transform.num_coordinates, draws, seed))  # (S, K)

    def fresh_base(self) -> Float[Tensor, "S K"]:
        """The base draws moved by one uniform shift modulo their range, drawn from torch's global generator.

        A shifted Sobol set is as evenly spread, and its averages are unbiased over shifts (Cranley & Patterson,
        1976), so that a stochastic objective sees the whole orbit and not S fixed points of it.
        """
        shift = 2.0 * torch.rand(self.base.shape[1], dtype=self.base.dtype).to(self.base.device)
        return (self.base + 1.0 + shift) % 2.0 - 1.0

    def coordinates(
        self, extents: Float[Tensor, " K"], base: Float[Tensor, "S K"] | None = None
    ) -> Float[Tensor, "S K"]:
        """t_s = η · ε_s.

        Arguments:
            extents: η in internal units, (K,).
            base: other base draws than the orbit's own.

        Returns:
            (S, K), in the dtype and on the device of ``extents``.

        Raises:
            ValueError: if ``extents`` is not of shape (K,).
        """
        if tuple(extents.shape) != self.base.shape[1:]:
            raise ValueError(
                f"expected one extent for each of {', '.join(self.transform.names)}, shape "
                f"({self.base.shape[1]},), and shape {tuple(extents.shape)} came"
            )
        return extents * (self.base if base is None else base).to(extents)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        extents: Float[Tensor, " K"],
        base: Float[Tensor, "S K"] | None = None,
    ) -> Float[Tensor, "S batch *event"]:
        """The points T_{η·ε_s} x_i of one orbit shared by the batch.

        Arguments:
            x: the examples, (batch, *event).
            extents: η in internal units, (K,).
            base: other base draws than the orbit's own, such as `fresh_base()`.

        Returns:
            (S, batch, *event), in the dtype of ``x`` and differentiable in both.

        Raises:
            ValueError: if ``extents`` is not of shape (K,).
            DataError: if the transform cannot act on ``x``.
        """
        return self.transform.orbit(x, self.coordinates(extents, base))

    def config(self) -> dict[str, Any]:
        """A JSON-able description; ``"transform"`` is for `bayesinv.transforms.from_config`, the
        rest for `Orbit`.
        """
        return {
            "transform": self.transform.config(),
            "num_samples": self.num_samples,
            "draws": self.draws,
            "seed": self.seed,
        }


def average_function(
    h: Callable[[Tensor], Tensor], points: Float[Tensor, "S batch *event"]
) -> Float[Tensor, "batch *out"]:
    """The orbit average of function values, f_η(x) = (1/S) Σ_s h(T_s x).

    As a prior this is a prior over invariant functions: it asks how much invariance is *needed*.

    Arguments:
        h: a function of a batch (n, *event) to (n, *out); called once, on all S·batch points.
        points: the orbit, (S, batch, *event).

    Returns:
        (batch, *out).

    Reference:
        M. van der Wilk, M. Bauer, S. John, J. Hensman (2018). Learning invariances using the
        marginal likelihood. arXiv:1808.05563.

    Example:
        >>> average_function(lambda x: 10 * x, torch.tensor([[[1.0]], [[3.0]]])).tolist()
        [[20.0]]
    """
    return _outputs(h, points).mean(0)


def average_probabilities(
    h: Callable[[Tensor], Tensor], points: Float[Tensor, "S batch *event"]
) -> Float[Tensor, "batch classes"]:
    """The log of the orbit average of class probabilities, log (1/S) Σ_s softmax(h(T_s x)).

    As a prior this is a mixture over transformed inputs: an extent that carries single inputs
    across a class boundary is punished.

    Arguments:
        h: a function of a batch (n, *event) to logits (n, classes); called once, on all S·batch
            points.
        points: the orbit, (S, batch, *event).

    Returns:
        log probabilities, (batch, classes), each row normalised.

    Example:
        >>> average_probabilities(lambda x: x, torch.tensor([[[9.0, 0.0]], [[0.0, 9.0]]])).exp()
        tensor([[0.5000, 0.5000]])
    """
    log_probs = _outputs(h, points).log_softmax(-1)  # (S, batch, classes)
    return log_probs.logsumexp(0) - math.log(points.shape[0])


def _outputs(h: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """h at every point of the orbit, (S, batch, *out)."""
    outputs = h(points.flatten(0, 1))  # (S·batch, *out)
    if outputs.shape[:1] != (points.shape[0] * points.shape[1],):
        raise ValueError(
            f"the averaged function has to return one row per point, "
            f"{points.shape[0] * points.shape[1]} here, and shape {tuple(outputs.shape)} came"
        )
    return outputs.unflatten(0, points.shape[:2])
