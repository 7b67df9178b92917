"""What moves with an image: masks, key points and boxes under the stages of a transform.

Points are isotropic, as in `bayesinv.transforms.affine2d`: the origin is the middle of the image, y points down, and
the unit is half its width. In pixels, the upper left corner of the image is (0, 0) and the lower right one
(width, height), so that the middle of the first pixel is (0.5, 0.5).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.transforms import Affine2d, CyclicRotation, Dihedral, Elastic, FiniteGroup, Flip, Permutation, SignFlip
from bayesinv.transforms.affine2d import MatrixWarp
from bayesinv.transforms.asymmetric import without_ends
from bayesinv.transforms.base import Transform
from bayesinv.transforms.warp import sample, warp

__all__ = ["Frame"]

_EDGE_POINTS = 64  # of an edge of a box, where straight lines bend: exact to 0.02 pixels of 224 at the largest extents
_ITERATIONS = 100  # a field that folds nowhere is inverted to 1e-4 of a pixel
_NEAR = 1e-3  # points behind the viewer are as far away as those at this share of the middle's distance
_EXACT_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.float32)


class Frame:
    """Where a draw of a transform carries what lies in the plane of the image.

    Args:
        stages: of the transform, those that act at all, in order.
        parts: what moves each of them, (draws, columns of the stage).

    Raises:
        DataError: a stage that does not say how things in the plane move.

    Example:
        >>> quarter = torch.tensor([[torch.pi / 2]])
        >>> frame = Frame([Affine2d(["rotation"])], [quarter])
        >>> frame.points(torch.tensor([[8.0, 4.0]]), (8, 8)).round()  # right of the middle goes up
        tensor([[4., 0.]])
    """

    def __init__(self, stages: Sequence[Transform], parts: Sequence[Float[Tensor, "draws _"]]) -> None:
        pairs = [without_ends(stage, part.to(torch.float64)) for stage, part in zip(stages, parts, strict=True)]
        moving = [(stage, t) for stage, t in pairs if not _stays(stage)]
        self._maps = [(stage, t, None if isinstance(stage, Elastic) else _matrix(stage, t)) for stage, t in moving]

    def masks(self, masks: Shaped[Tensor, "draws many height width"]) -> Shaped[Tensor, "draws many height width"]:
        """Labels (draws, many, height, width) of any type, read at the nearest pixel; 0 outside the image."""
        dtype = torch.float32 if masks.dtype in _EXACT_INTEGERS else torch.float64
        moved = masks.to(dtype)
        for stage, t, A in self._maps:
            padding = getattr(stage, "padding", "zeros")
            if isinstance(stage, Elastic):
                moved = sample(moved, stage.grid(t, moved), padding, "nearest")
            elif A is not None:
                back = stage.pullback(t) if isinstance(stage, MatrixWarp) else torch.linalg.inv(A)
                moved = warp(moved, back, padding, "nearest", getattr(stage, "projective", False))
        return moved.to(masks.dtype)

    def points(self, points: Num[Tensor, "*many 2"], size: tuple[int, int]) -> Num[Tensor, "*many 2"]:
        """Where points go under the first draw, in pixels; those that leave the image lie outside.

        Args:
            points: (x, y) in pixels.
            size: (height, width) of the image.
        """
        flat = _isotropic(points.reshape(-1, 2), size)
        return _pixels(self._forward(flat, size), size).reshape(points.shape).to(points.dtype)

    def boxes(self, boxes: Num[Tensor, "many 4"], size: tuple[int, int]) -> Num[Tensor, "many 4"]:
        """The box around what is still seen of each moved box under the first draw; zeros for those not seen.

        Args:
            boxes: (left, top, right, bottom) in pixels.
            size: (height, width) of the image.
        """
        height, width = size
        left, top, right, bottom = boxes.to(torch.float64).unbind(-1)
        steps = _EDGE_POINTS if any(A is None for _, _, A in self._maps) else 1
        share = torch.arange(steps, dtype=torch.float64, device=boxes.device) / steps
        corners = torch.stack([left, top, right, top, right, bottom, left, bottom], -1).unflatten(-1, (4, 2))
        after = corners.roll(-1, 1)
        corner = corners.new_tensor([width, height])
        edges = corners[:, :, None] + share[:, None] * (after - corners)[:, :, None]  # (n, 4, steps, 2)
        outline = edges.flatten(1, 2)
        moved = _pixels(self._forward(_isotropic(outline.flatten(0, 1), size), size), size).reshape(outline.shape)
        ends, seen = _clipped(moved, moved.roll(-1, 1), corner)
        # Corners of the image inside of a moved box bound it too.
        frame = outline.new_tensor([[0, 0], [width, 0], [width, height], [0, height]])
        source = _pixels(self._back(_isotropic(frame, size), size), size)[:, None]  # (4, 1, 2)
        covered = ((source >= corners[:, 0]) & (source <= corners[:, 2])).all(-1).T  # (n, 4)
        places = torch.cat([ends.clamp_min(0.0).minimum(corner), frame.expand(len(boxes), 4, 2)], 1)
        seen = torch.cat([seen, covered], 1)[..., None]
        low = torch.where(seen, places, math.inf).amin(1)
        high = torch.where(seen, places, -math.inf).amax(1)
        hull = torch.where(seen.any(1), torch.cat([low, high], -1), 0.0)
        return (hull if boxes.is_floating_point() else hull.round()).to(boxes.dtype)

    def _forward(self, p: Float[Tensor, "many 2"], size: tuple[int, int]) -> Float[Tensor, "many 2"]:
        """Where p goes."""
        for stage, t, A in self._maps:
            if A is not None:
                p = _apply(A[0], p)
            elif isinstance(stage, Elastic):  # read at q - t u(q) = p
                start = p
                for _ in range(_ITERATIONS):
                    p = start + stage.displacement(t[:1], p[None], size[0] / size[1])[0]
        return p

    def _back(self, p: Float[Tensor, "many 2"], size: tuple[int, int]) -> Float[Tensor, "many 2"]:
        """Where what is seen at p came from."""
        for stage, t, A in reversed(self._maps):
            if A is not None:
                p = _apply(torch.linalg.inv(A[0]), p)
            elif isinstance(stage, Elastic):
                p = p - stage.displacement(t[:1], p[None], size[0] / size[1])[0]
        return p


def _stays(stage: Transform) -> bool:
    """Whether a stage leaves everything where it is."""
    exchanges_channels = isinstance(stage, Flip | Permutation) and stage.dim < -2
    return stage.fixes_frame or isinstance(stage, SignFlip) or exchanges_channels


def _matrix(stage: Transform, t: Float[Tensor, "draws columns"]) -> Float[Tensor, "draws 3 3"]:
    """A(t), acting on columns (x, y, 1)."""
    if isinstance(stage, MatrixWarp):
        return stage.matrix(t)
    if not isinstance(stage, Flip | CyclicRotation | Dihedral):
        raise DataError(
            f"{type(stage).__name__} ({', '.join(stage.names)}) does not say how masks, boxes and key points move; "
            "pass images alone, or learn without it"
        )
    return torch.stack([_element(stage, g) for g in range(stage.order)]).to(t)[t[:, 0].round().long()]


def _element(stage: FiniteGroup, element: int) -> Float[Tensor, "3 3"]:
    """The matrix of an element of a group of the plane."""
    matrix = torch.eye(3, dtype=torch.float64)
    if isinstance(stage, Flip):
        matrix[-1 - stage.dim, -1 - stage.dim] = -1.0 if element else 1.0
        return matrix
    n = stage.n if isinstance(stage, CyclicRotation | Dihedral) else 1
    matrix[0, 0] = -1.0 if element >= n else 1.0  # mirrored first
    angle = torch.tensor([2.0 * math.pi * (element % n) / n], dtype=torch.float64)
    return Affine2d(["rotation"]).matrix(angle) @ matrix


def _apply(A: Float[Tensor, "3 3"], p: Float[Tensor, "many 2"]) -> Float[Tensor, "many 2"]:
    moved = p @ A[:, :2].T + A[:, 2]
    return moved[:, :2] / moved[:, 2:].clamp_min(_NEAR)


def _isotropic(points: Num[Tensor, "many 2"], size: tuple[int, int]) -> Float[Tensor, "many 2"]:
    height, width = size
    half = points.new_tensor([0.5 * width, 0.5 * height], dtype=torch.float64)
    return (points.to(torch.float64) - half) / (0.5 * width)


def _pixels(points: Float[Tensor, "many 2"], size: tuple[int, int]) -> Float[Tensor, "many 2"]:
    height, width = size
    return points * (0.5 * width) + points.new_tensor([0.5 * width, 0.5 * height])


def _clipped(
    start: Float[Tensor, "many lines 2"], end: Float[Tensor, "many lines 2"], corner: Float[Tensor, "2"]
) -> tuple[Float[Tensor, "many ends 2"], Tensor]:
    """Both ends of what lies of each line within [0, corner], and whether any of it does (Liang & Barsky, 1984)."""
    way = end - start
    enter, leave = (0.0 - start) / way, (corner - start) / way
    enter = torch.where(enter.isnan(), -math.inf, enter)  # on the border and along it
    leave = torch.where(leave.isnan(), math.inf, leave)
    first = torch.minimum(enter, leave).amax(-1, keepdim=True).clamp_min(0.0)
    last = torch.maximum(enter, leave).amin(-1, keepdim=True).clamp_max(1.0)
    seen = (first <= last)[..., 0]
    ends = [start + torch.where(first <= last, share, 0.0) * way for share in (first, last)]
    return torch.cat(ends, 1), torch.cat([seen, seen], 1)
