"""T'_t: how outputs move with the inputs, and how to move them back.

    f_η(x) = E_t T'_t⁻¹ h(T_t x)

An invariant function has outputs that stay (T' = 1: a class, an energy). A mask turns with its image, a dipole with its
molecule; an output action says how, and takes it back.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.transforms.affine2d import MatrixWarp
from bayesinv.transforms.asymmetric import Asymmetric, without_ends
from bayesinv.transforms.base import Transform
from bayesinv.transforms.discrete import FiniteGroup, Flip, Permutation, _PlaneGroup
from bayesinv.transforms.points.base import NUM_SPATIAL, AffinePoints, PointTransform
from bayesinv.transforms.signals.amplitude import SignFlip
from bayesinv.transforms.signals.base import SignalTransform
from bayesinv.transforms.tables import ColumnTransform
from bayesinv.transforms.volumes import AffineVolume, warp_volumes
from bayesinv.transforms.warp import warp

__all__ = ["ImageAction", "OutputAction", "VectorAction", "VolumeAction", "as_action", "undo"]

# Shares of a pixel below this are rounding: a pixel that a copy has left.
SMALLEST_COVERAGE = 1e-4


class OutputAction(ABC):
    """How outputs move with the inputs under one transform.

    One of your own is any object with ``inverse(outputs, t)``; a subclass may also say which part of an output a copy
    has left (`coverage`).

    Attributes:
        name: what ``output_action=`` calls it; "custom" for one of your own.
    """

    name: str = "custom"

    @abstractmethod
    def inverse(
        self, outputs: Float[Tensor, "copies n *out"], t: Float[Tensor, "copies *each"]
    ) -> Float[Tensor, "copies n *out"]:
        """T'_t⁻¹ of every output, zero where it has nothing to say.

        Args:
            outputs: h(T_t x), (copies, n, *out).
            t: (copies, columns) for an orbit that the batch shares, (copies, n, columns) for draws of each example.
        """

    def coverage(
        self, outputs: Float[Tensor, "copies n *out"], t: Float[Tensor, "copies *each"]
    ) -> Float[Tensor, "copies shared *cells"] | None:
        """Which share of each cell of the output a copy still covers, in [0, 1]; None if all of it.

        The cells are the axes after the first of an output (channels, *cells); the second axis is 1 where t is shared.
        """
        return None


class _Custom(OutputAction):
    """Any object with an ``inverse``."""

    def __init__(self, action: Any):
        self.action = action

    def inverse(
        self, outputs: Float[Tensor, "copies n *out"], t: Float[Tensor, "copies *each"]
    ) -> Float[Tensor, "copies n *out"]:
        moved: Tensor = self.action.inverse(outputs, t)
        if not isinstance(moved, Tensor) or moved.shape != outputs.shape:
            came = tuple(moved.shape) if isinstance(moved, Tensor) else type(moved).__name__
            raise ValueError(
                f"output_action: {type(self.action).__name__}.inverse has to keep the shape of the outputs, "
                f"{tuple(outputs.shape)}, and {came} came"
            )
        return moved


class _ByStages(OutputAction):
    """Undoes the stages of a transform in the opposite order, each in its own way."""

    event: ClassVar[str]

    def __init__(self, transform: Transform):
        self.transform = transform
        for stage in transform.stages:
            plain = stage.inner if isinstance(stage, Asymmetric) else stage
            self.inverse_of(plain)  # refuses what cannot be taken back

    @abstractmethod
    def inverse_of(self, stage: Transform) -> Any:
        """(outputs (B, *out), t (B, columns)) -> outputs, or None for a stage that leaves outputs alone.

        Raises:
            ValueError: nothing takes this stage back.
        """

    def refusal(self, stage: Transform) -> ValueError:
        """Why a stage cannot be taken back."""
        names = ", ".join(stage.names)
        return ValueError(
            f'output_action="{self.name}": {type(stage).__name__} ({names}) says neither how {self.event} move back '
            "nor that they stay. Leave it out; or give it `inverse_coordinates` and `invertible = True`, or "
            "`fixes_frame = True` if it only changes values; or pass an object with inverse(outputs, t)"
        )

    def undo_stages(self, outputs: Tensor, t: Tensor) -> Tensor:
        parts = t.split([stage.num_columns for stage in self.transform.stages], dim=-1)
        for stage, part in zip(reversed(self.transform.stages), reversed(parts), strict=True):
            plain, amounts = without_ends(stage, part)
            inverse = self.inverse_of(plain)
            outputs = outputs if inverse is None else inverse(outputs, amounts)
        return outputs


class _MapAction(_ByStages):
    """Outputs (n, C, *cells) whose last axes are those of an image or a volume."""

    cell_axes: ClassVar[int]

    def inverse(
        self, outputs: Float[Tensor, "copies n *out"], t: Float[Tensor, "copies *each"]
    ) -> Float[Tensor, "copies n *out"]:
        if outputs.ndim != 3 + self.cell_axes:
            axes = "D, H, W"[-3 * self.cell_axes + 2 :]
            raise ValueError(
                f'output_action="{self.name}": expected outputs (n, C, {axes}), and {tuple(outputs.shape[1:])} came; a '
                f"network for masks returns a map of logits for each of the {self.event}"
            )
        lead = t.ndim - 1  # axes with a t of their own; the others share a warp, as channels
        flat = outputs.flatten(0, lead - 1).flatten(1, -1 - self.cell_axes)  # (B, channels, *cells)
        return self.undo_stages(flat, t.flatten(0, lead - 1)).reshape(outputs.shape)

    def coverage(
        self, outputs: Float[Tensor, "copies n *out"], t: Float[Tensor, "copies *each"]
    ) -> Float[Tensor, "copies shared *cells"]:
        shared = t if t.ndim == 3 else t[:, None]  # (copies, n or 1, columns)
        cells = outputs.shape[-self.cell_axes :]
        ones = outputs.new_ones(shared.shape[0] * shared.shape[1], 1, *cells)
        whole = self.undo_stages(ones, shared.flatten(0, 1)).clamp(0.0, 1.0)
        return whole.reshape(*shared.shape[:2], *cells)


class ImageAction(_MapAction):
    """Outputs with pixels, (n, C, H, W), that move with the image.

        (T'_t⁻¹ o)(p) = o(A(t) p)

    Affine and perspective warps are taken back by reading at A(t) p, once for neighbours that are fused; flips,
    quarter turns and permutations of rows or columns exactly. Transforms that leave positions alone
    (``fixes_frame``) leave outputs alone. Everything else is refused, and what acts on signals, points or tables.

    A copy that was moved has left part of the frame: there it is not extrapolated but left out. `coverage` is 1 where
    o was read inside its frame, 0 outside, and between at the border.

    Args:
        transform: T.

    Raises:
        ValueError: the transform, or a member of it, cannot be taken back.

    Example:
        >>> from bayesinv.transforms import CyclicRotation
        >>> quarter, x = torch.tensor([[1.0]]), torch.rand(1, 1, 4, 4)
        >>> transform = CyclicRotation(4)
        >>> bool((ImageAction(transform).inverse(transform.orbit(x, quarter), quarter)[0] == x).all())
        True
    """

    name = "image"
    event = "images"
    cell_axes = 2

    def inverse_of(self, stage: Transform) -> Any:
        if isinstance(stage, SignalTransform | PointTransform | ColumnTransform | AffineVolume):
            raise self.refusal(stage)  # though it may be invertible: its inverse is not for maps of pixels
        if stage.fixes_frame or isinstance(stage, SignFlip):
            return None  # of the values of the input, which are not those of the output
        if isinstance(stage, MatrixWarp):

            def read_back(outputs: Tensor, t: Tensor) -> Tensor:
                return warp(outputs, stage.matrix(t), "zeros", stage.interpolation, stage.projective)

            return read_back
        if isinstance(stage, Flip | Permutation) and stage.dim == -3:
            return None  # channels of the input, which are not those of the output
        if isinstance(stage, Flip | Permutation) and stage.dim < -3:
            raise self.refusal(stage)
        member = type(stage)(stage.n, "zeros", stage.interpolation) if isinstance(stage, _PlaneGroup) else stage
        if not member.invertible:
            raise self.refusal(stage)
        return lambda outputs, t: member.transform(outputs, member.inverse_coordinates(t))


class VolumeAction(_MapAction):
    """Outputs with voxels, (n, C, D, H, W), that move with the volume and have its voxels.

        (T'_t⁻¹ o)(p) = o(M(t) p)

    As `ImageAction`: `AffineVolume` is taken back by reading at M(t) p, flips exactly, and transforms that leave
    positions alone leave outputs alone.

    Args:
        transform: T.

    Raises:
        ValueError: the transform, or a member of it, cannot be taken back.

    Example:
        >>> from bayesinv.transforms import AffineVolume
        >>> transform, t = AffineVolume(["translate_z"], (4.0, 1.0, 1.0)), torch.tensor([[4.0]])
        >>> x = torch.rand(1, 1, 5, 4, 4, dtype=torch.float64)
        >>> back = VolumeAction(transform).inverse(transform.orbit(x, t), t)[0]
        >>> bool(torch.allclose(back[:, :, :-1], x[:, :, :-1]))  # the last slice has left
        True
    """

    name = "volume"
    event = "volumes"
    cell_axes = 3

    def inverse_of(self, stage: Transform) -> Any:
        if stage.fixes_frame or isinstance(stage, SignFlip):
            return None
        if isinstance(stage, AffineVolume):
            return lambda outputs, t: warp_volumes(outputs, stage.matrix(t), stage.spacing, "zeros")
        if isinstance(stage, Flip | Permutation) and stage.dim == -4:
            return None  # channels of the input, which are not those of the output
        if isinstance(stage, Flip | Permutation) and stage.dim > -4:
            return lambda outputs, t: stage.transform(outputs, stage.inverse_coordinates(t))
        raise self.refusal(stage)


class VectorAction(_ByStages):
    """Outputs (n, 3) that turn with the points, as the difference of two points does.

        T'_t⁻¹ v = A(t)⁻¹ v    where T_t r = A(t) r + b(t)

    For rotations A⁻¹ = Aᵀ; a translation leaves vectors alone; a reflection mirrors them (polar vectors, such as
    dipoles); a scaling scales them too, which says that outputs grow with the points.

    Args:
        transform: T, of points.

    Raises:
        ValueError: the transform, or a member of it, cannot be taken back.

    Example:
        >>> from bayesinv.transforms import Rotation3d
        >>> action = VectorAction(Rotation3d(["rotation_z"]))
        >>> v = torch.tensor([[[0.0, 1.0, 0.0]]])  # one copy, one example: where x is carried by a quarter turn
        >>> (action.inverse(v, torch.tensor([[torch.pi / 2]])).round() + 0.0).tolist()
        [[[1.0, 0.0, 0.0]]]
    """

    name = "vector"
    event = "vectors"

    def inverse_of(self, stage: Transform) -> Any:
        if stage.fixes_frame:
            return None
        if isinstance(stage, AffinePoints):
            return lambda outputs, t: _solve(stage.affine(t)[0], outputs)
        if isinstance(stage, FiniteGroup) and isinstance(stage, PointTransform):
            axes = torch.eye(NUM_SPATIAL, dtype=torch.float64)[None]
            table = torch.cat([stage.act(axes, element).mT for element in range(stage.order)])  # (G, 3, 3)
            return lambda outputs, t: _solve(table.to(t)[t[..., 0].round().long()], outputs)
        raise self.refusal(stage)

    def inverse(
        self, outputs: Float[Tensor, "copies n *out"], t: Float[Tensor, "copies *each"]
    ) -> Float[Tensor, "copies n *out"]:
        if outputs.ndim != 3 or outputs.shape[-1] != NUM_SPATIAL:
            raise ValueError(
                f'output_action="vector": expected outputs (n, {NUM_SPATIAL}), and {tuple(outputs.shape[1:])} came; '
                "make the last layer of the network three wide"
            )
        each = t if t.ndim == 3 else t[:, None]  # (copies, n or 1, columns)
        return self.undo_stages(outputs, each)


def _solve(A: Float[Tensor, "*shared 3 3"], v: Float[Tensor, "*each 3"]) -> Float[Tensor, "*each 3"]:
    """A⁻¹ v, with axes of A that are one long shared."""
    return (torch.linalg.inv(A).to(v) @ v[..., None])[..., 0]


ACTIONS: dict[str, type[_ByStages]] = {"image": ImageAction, "volume": VolumeAction, "vector": VectorAction}


def as_action(action: Any, transform: Transform) -> OutputAction | None:
    """What ``output_action=`` takes, as an action of this transform.

    Args:
        action: None (outputs stay: an invariant model), "image", "volume", "vector", or an object with
            ``inverse(outputs, t)``.
        transform: T.

    Raises:
        ValueError: an unknown name, or a transform that the action cannot take back.
        TypeError: something else without an ``inverse``.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> as_action("image", Affine2d(["rotation"])).name
        'image'
    """
    if action is None or isinstance(action, OutputAction):
        return action
    if isinstance(action, str):
        if action not in ACTIONS:
            raise ValueError(
                f"output_action: expected None, one of {sorted(ACTIONS)} or an object with inverse(outputs, t), got "
                f"{action!r}"
            )
        return ACTIONS[action](transform)
    if callable(getattr(action, "inverse", None)) and not isinstance(action, type | Transform):
        return _Custom(action)
    raise TypeError(
        f"output_action: expected None, one of {sorted(ACTIONS)} or an object with inverse(outputs, t), got a "
        f"{type(action).__name__}"
    )


def undo(
    action: OutputAction | None, outputs: Float[Tensor, "copies n *out"], t: Float[Tensor, "copies *each"]
) -> tuple[Float[Tensor, "copies n *out"], Float[Tensor, "copies shared *cells"] | None]:
    """Outputs moved back, and the share of each cell that a copy covers; None for all of it.

    Where a copy covers a part of a pixel its value is that of the part inside, so that borders do not fade.
    """
    if action is None:
        return outputs, None
    moved, coverage = action.inverse(outputs, t), action.coverage(outputs, t)
    if coverage is None:
        return moved, None
    seen = coverage > SMALLEST_COVERAGE
    coverage = torch.where(seen, coverage, 0.0)
    share = torch.where(seen, coverage, 1.0)[:, :, None]  # an axis for the channels
    return torch.where(seen[:, :, None], moved / share, 0.0), coverage
