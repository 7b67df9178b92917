"""Extents as a function of the input: a floor that all inputs share, and how much more those near a landmark have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.numerics.arguments import as_integer, as_number, counted
from bayesinv.transforms.base import PART, Coordinate, Transform, from_config, register
from bayesinv.transforms.compose import as_transform

__all__ = ["PerInput"]

ROUNDS = 50  # of k-means, which settles after a few
SMALLEST_SCALE = 1e-6


@register
class PerInput(Transform):
    """A transform whose extents depend on the input it moves.

        t ~ U[-η(x), η(x)],    η(x) = η_0 + Σ_m r_m(x) δ_m,    r_m(x) ∝ exp(-|φ(x) - c_m|² / 2 s²),  Σ_m r_m = 1

    η_0 is what every input may do, δ_m ≥ 0 how much more those near landmark c_m may, in the space of the first D
    principal components φ of the training inputs. Labels have no part in it, so that an input has its extent before it
    is predicted. η_0 (``rotation``) and each δ_m (``rotation_near_1``) are extents like any others. The model of
    extents in common is the one with every δ_m = 0: `bayesinv.extents.shrinkage` pulls there,
    `bayesinv.extents.in_common` is it, and the difference of the two log evidences is the Bayes factor. φ(x) is that of
    the input as it came, whatever copies of it are looked at.

    Made by `PerInput.near`; the arguments here are what it computes, and what files hold.

    Args:
        transform: one transform whose coordinates are drawn from U[-η, η].
        mean: of the inputs, flattened, (P,).
        projection: onto the components, (D, P).
        landmarks: c, (M, D).
        scale: s.

    Raises:
        ValueError: a list of transforms, one with other coordinates, or arrays that do not fit each other.

    Example:
        >>> x = torch.cat([torch.zeros(5, 1, 4, 4), torch.ones(5, 1, 4, 4)])
        >>> turns = PerInput.near("rotation", x, num_landmarks=2, num_components=1)
        >>> turns.names
        ('rotation', 'rotation_near_1', 'rotation_near_2')
        >>> each = turns.extents(x, torch.tensor([0.1, 0.5, 0.0]))[[0, 9], 0]  # of a dark and a bright image
        >>> sorted(round(float(v), 2) for v in each)
        [0.1, 0.6]
    """

    def __init__(
        self,
        transform: Transform | str,
        mean: Any,
        projection: Any,
        landmarks: Any,
        scale: Any,
    ) -> None:
        super().__init__()
        inner = as_transform(transform)
        if len(inner.stages) > 1:
            raise ValueError(f"PerInput: expected one transform, got a list of {len(inner.stages)}; wrap each member")
        wrong = [c.name for c in inner.coordinates if c.distribution != "uniform" or c.is_discrete]
        if wrong:
            raise ValueError(
                f"PerInput: expected coordinates that are drawn from U[-η, η]; {', '.join(wrong)} of "
                f"{type(inner).__name__} is not; leave it outside"
            )
        self.inner = inner
        arrays = [torch.as_tensor(v, dtype=torch.float64) for v in (mean, projection, landmarks)]
        fits = [a.ndim for a in arrays] == [1, 2, 2] and arrays[1].shape == (arrays[2].shape[1], len(arrays[0]))
        if not fits or not all(bool(a.isfinite().all()) for a in arrays):
            what = "numbers that are not finite" if fits else ", ".join(str(tuple(a.shape)) for a in arrays)
            raise ValueError(
                f"PerInput: expected finite mean (P,), projection (D, P) and landmarks (M, D), got {what}; "
                "PerInput.near makes them from inputs"
            )
        self.scale = as_number("scale", scale)
        self.mean: Tensor
        self.projection: Tensor
        self.landmarks: Tensor
        for name, array in zip(("mean", "projection", "landmarks"), arrays, strict=True):
            self.register_buffer(name, array.contiguous(), persistent=False)
        near = range(1, len(arrays[2]) + 1)
        self._coordinates = tuple(
            part
            for c in inner.coordinates
            for part in (
                replace(c, distribution=PART),
                *(replace(c, name=f"{c.name}_near_{m}", distribution=PART, meaning=_more(c.name, m)) for m in near),
            )
        )

    @classmethod
    def near(
        cls,
        transform: Transform | str,
        x: Any,
        num_landmarks: int = 4,
        num_components: int = 8,
        seed: int = 0,
    ) -> "PerInput":
        """With landmarks at the centres of k-means among the principal components of these inputs.

        Args:
            transform: as for the class.
            x: training inputs, (n, *event), a tensor or an array of floating point; their labels are not needed.
            num_landmarks: M.
            num_components: D, at most what the inputs have.
            seed: of the first centres.

        Raises:
            ValueError: fewer inputs than landmarks. DataError: inputs that the transform does not take, or that are not
                finite.
        """
        inner = as_transform(transform)
        x = _as_tensor(x)
        inner.check_input(x)
        num_landmarks, num_components = (
            as_integer(name, value)
            for name, value in (("num_landmarks", num_landmarks), ("num_components", num_components))
        )
        if len(x) < num_landmarks:
            raise ValueError(f"num_landmarks: expected at most one for each of {len(x)} inputs, got {num_landmarks}")
        flat = x.detach().cpu().flatten(1).double()
        bad = int((~flat.isfinite().all(1)).sum())
        if bad:
            raise DataError(
                f"PerInput.near: expected finite inputs, got NaN or infinity in {bad} of {counted(len(x), 'input')}; "
                "leave these out or fill them"
            )
        mean = flat.mean(0)
        _, sizes, components = torch.linalg.svd(flat - mean, full_matrices=False)
        projection = components[: min(num_components, int((sizes > 1e-9 * sizes.max().clamp_min(1e-300)).sum()) or 1)]
        z = (flat - mean) @ projection.T
        landmarks = _centres(z, num_landmarks, seed)
        scale = float(torch.cdist(z, landmarks).amin(1).square().mean().sqrt().clamp_min(SMALLEST_SCALE))
        return cls(inner, mean, projection, landmarks, scale)

    @property
    def num_landmarks(self) -> int:
        """M."""
        return len(self.landmarks)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """For each of the transform's, its floor and what inputs near each landmark may do beyond it."""
        return self._coordinates

    @property
    def num_auxiliary(self) -> int:  # type: ignore[override]
        """A number for each coordinate of the transform, then those of the transform."""
        return self.inner.num_coordinates + self.inner.num_auxiliary

    @property
    def fixes_frame(self) -> bool:  # type: ignore[override]
        """Whether the transform leaves everything where it is."""
        return self.inner.fixes_frame

    def responsibilities(self, x: Any) -> Float[Tensor, "n M"]:
        """r_m(x), which sum to one for each input.

        Args:
            x: inputs as large as the training inputs, (n, *event), a tensor or an array of floating point.

        Raises:
            DataError: inputs of another size.
        """
        x = _as_tensor(x)
        self.check_input(x)
        mean, projection, landmarks = (a.to(x) for a in (self.mean, self.projection, self.landmarks))
        z = (x.flatten(1) - mean) @ projection.T
        return torch.softmax(-0.5 * (z[:, None] - landmarks).square().sum(-1) / self.scale**2, -1)

    def extents(self, x: Any, eta: Float[Tensor, "*draws K"]) -> Float[Tensor, "*draws n inner"]:
        """η(x) of each input.

        Args:
            x: inputs, (n, *event), a tensor or an array.
            eta: η_0 and δ, internal units, such as draws of a posterior, (*draws, K).

        Returns:
            (*draws, n, coordinates of the transform), internal units.

        Raises:
            DataError: inputs of another size than the training inputs. ValueError: another number of extents.
        """
        if eta.shape[-1:] != (self.num_coordinates,):
            raise ValueError(
                f"eta: expected {self.num_coordinates} extents ({', '.join(self.names)}) along the last axis, got "
                f"shape {tuple(eta.shape)}"
            )
        parts = eta.unflatten(-1, (self.inner.num_coordinates, 1 + self.num_landmarks))
        r = self.responsibilities(x).to(eta)
        return parts[..., None, :, 0] + torch.einsum("nm,...km->...nk", r, parts[..., 1:])

    def transform(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch *event"]:
        self.check_coordinates(t, batch=x.shape[0])
        return self.inner.transform(x, self._amounts(x, t))

    def orbit_per_example(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "*orbit_batch columns"]
    ) -> Float[Tensor, "*orbit_batch_event"]:
        self.check_coordinates(t, batch=x.shape[0])
        return self.inner.orbit_per_example(x, self._amounts(x, t))

    def _amounts(self, x: Tensor, t: Float[Tensor, "*orbit batch columns"]) -> Float[Tensor, "*orbit batch inner"]:
        """What moves the inner transform, its own columns."""
        K, k = self.num_coordinates, self.inner.num_coordinates
        parts = t[..., :K].unflatten(-1, (k, 1 + self.num_landmarks))
        r = self.responsibilities(x).to(t)[:, None]  # (batch, 1, M)
        half = parts[..., 0] + (r * parts[..., 1:]).sum(-1)
        return torch.cat([t[..., K : K + k] * half, t[..., K + k :]], -1)

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " K"]:
        """That of the transform, for the floor and for what is more."""
        return self.inner.negligible(event_shape).repeat_interleave(1 + self.num_landmarks)

    def check_input(self, x: object) -> None:
        """As the transform does; and raise if the inputs are not as large as those that the landmarks lie among."""
        self.inner.check_input(x)
        if isinstance(x, Tensor) and x[:1].numel() != len(self.mean) and len(x) > 0:
            raise DataError(
                f"PerInput expects inputs of {len(self.mean):,} numbers, as the inputs that PerInput.near was given, "
                f"and shape {tuple(x.shape)} came, of {x[:1].numel():,} each; bring them to that size, or make it from "
                "these"
            )

    def config(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "projection", "landmarks")}
        return {**super().config(), "transform": self.inner.config(), **arrays, "scale": self.scale}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "PerInput":
        given = (arguments[name] for name in ("mean", "projection", "landmarks", "scale"))
        return cls(from_config(arguments["transform"]), *given)


def _as_tensor(x: Any) -> Any:
    return torch.from_numpy(x) if isinstance(x, np.ndarray) and x.dtype.kind in "fiub" else x


def _more(name: str, m: int) -> str:
    return f"How much farther {name} reaches for inputs near landmark {m}."


def _centres(z: Float[Tensor, "n D"], num: int, seed: int) -> Float[Tensor, "num D"]:
    """k-means by Lloyd's steps, from inputs that lie far from each other (k-means++)."""
    generator = torch.Generator().manual_seed(seed)
    centres = z[torch.randint(len(z), (1,), generator=generator)]
    while len(centres) < num:
        distance = torch.cdist(z, centres).amin(1).square()
        weights = distance if bool((distance > 0).any()) else torch.ones_like(distance)
        centres = torch.cat([centres, z[torch.multinomial(weights, 1, generator=generator)]])
    for _ in range(ROUNDS):
        nearest = torch.cdist(z, centres).argmin(1)
        own = [z[nearest == m] for m in range(num)]
        centres = torch.stack([rows.mean(0) if len(rows) else old for rows, old in zip(own, centres, strict=True)])
    return centres
