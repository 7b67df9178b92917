"""Augmentation: a torchvision v2 transform that moves its inputs as far as the data have said."""

import copy
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from bayesinv.errors import DataError
from bayesinv.export.conventions import numbers
from bayesinv.export.frames import Frame
from bayesinv.export.saving import save
from bayesinv.export.volumes import masks_of_volumes
from bayesinv.numerics.arguments import as_integer
from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Transform

__all__ = ["Augmentation"]

IMAGE_AXES = 3  # channel, height, width
PIL_MODES = ("L", "RGB", "RGBA")
_FRAMED = (tv_tensors.Mask, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)
# Images of whole numbers, and in which type these are exact.
_WHOLE = {torch.uint8: torch.float32, torch.uint16: torch.float32, torch.int16: torch.float32}
_LOW_PRECISION = (torch.float16, torch.bfloat16)


class Augmentation(v2.Transform):
    """A random copy of every input, as far away as the posterior says.

        η ~ p(η | D),    t ~ p(t | η),    x ↦ T_t x,    new η and t for every input of every call

    Images go through as `torchvision.transforms.v2` does it: any nesting of tensors, PIL images, `tv_tensors` and
    labels; the first plain tensor is an image, unless there is a `tv_tensors.Image`. Masks (nearest neighbour, 0
    outside), boxes and key points move with their image; coordinates count from the corner of the first pixel, whose
    middle is (0.5, 0.5). Images of bytes are read as [0, 1], moved, clipped and rounded back; floating point images are
    neither scaled nor clipped. Signals, points, tables and volumes come as tensors or arrays, tables as DataFrames
    too, of which the first is moved, and with a volume its masks (`tv_tensors.Mask`); or as an object with positions
    ``pos`` and perhaps ``batch``, as in PyTorch Geometric.

    Axes before those of one example are those of a batch, each with draws of its own; frames of a video share theirs.
    All numbers come from torch's global generator, which a DataLoader seeds in its workers; with a seed they come from
    a generator of its own, in a worker seeded by both.

    Args:
        transform: T, as for an `InvarianceModel`.
        extents: draws of η in internal units, (J, K), all as likely.
        event_shape: of one training example; its length says how many axes an input has.
        distributions: how t is drawn, by symmetry, where not as usual; `InvarianceModel`'s ``augmentation``.
        copies: how many; more than one give outputs a first axis of that length.
        draws: what the extents are, "posterior", "median" or "mean"; for people, the numbers are in ``extents``.
        seed: of a generator of its own, or None.
        scales: of a table, means and standard deviations of the columns, (d,) each, where the extents were learned from
            standardised rows; inputs are then rows as they come.
        output_action: what the model's ``output_action`` was called, where its outputs move with the inputs.

    Raises:
        ValueError: extents of another shape, negative or not finite, scales of another shape or not positive, no
            copies, or an unknown symmetry.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> aug = Augmentation(Affine2d(["rotation"]), torch.tensor([[0.5], [0.6]]), (1, 8, 8))
        >>> aug(torch.rand(1, 8, 8)).shape, aug(torch.rand(16, 1, 8, 8)).shape
        (torch.Size([1, 8, 8]), torch.Size([16, 1, 8, 8]))
    """

    extents: Tensor
    scales: Tensor | None  # means and standard deviations, (2, d)

    def __init__(
        self,
        transform: Transform,
        extents: Float[Tensor, "J K"],
        event_shape: tuple[int, ...],
        distributions: Mapping[str, str] | None = None,
        copies: int = 1,
        draws: str = "posterior",
        seed: int | None = None,
        scales: tuple[ArrayLike, ArrayLike] | None = None,
        output_action: str | None = None,
    ) -> None:
        super().__init__()
        extents = torch.as_tensor(extents, dtype=torch.float64).detach().cpu()
        wanted = f"extents: expected draws of {', '.join(transform.names)}, (J, {transform.num_coordinates})"
        if extents.ndim != 2 or len(extents) == 0 or extents.shape[1] != transform.num_coordinates:
            raise ValueError(f"{wanted}, got shape {tuple(extents.shape)}")
        if not bool((extents.isfinite() & (extents >= 0)).all()):
            raise ValueError(f"{wanted}, finite and not negative; some are not")
        self.register_buffer("extents", extents)
        self.orbit = Orbit(transform, num_samples=1, augmentation=distributions)
        self.event_shape = tuple(int(size) for size in event_shape)
        self.register_buffer("scales", None if scales is None else _as_scales(scales, self.event_shape))
        self.output_action = output_action
        self.copies, self.draws = as_integer("copies", copies), draws
        self.seed = None if seed is None else as_integer("seed", seed, 0, 2**32 - 1)
        self._generator: torch.Generator | None = None
        self._seeded_for: int | None = None
        # A stage all of whose extents are zero is left out: it neither costs, nor blurs, nor refuses.
        sizes = [stage.num_coordinates for stage in transform.stages]
        self._acts = tuple(bool((part > 0).any()) for part in extents.split(sizes, 1))

    @property
    def transform_family(self) -> Transform:
        """T."""
        return self.orbit.transform

    @property
    def moves_images(self) -> bool:
        """Whether an input is an image."""
        return len(self.event_shape) == IMAGE_AXES

    def draw(self, *shape: int, device: torch.device | str | None = None) -> Float[Tensor, "*shape columns"]:
        """t of new copies: a row of the extents for each, and coordinates within it, internal units.

        Args:
            shape: how many.
            device: of the result.
        """
        unit = self._uniform((*shape, self.orbit.base.shape[1] + 1), device)
        rows = (unit[..., 0] * len(self.extents)).long()
        extents = self.extents.to(unit)[rows]  # (*shape, K)
        return self.orbit.coordinates_at(2.0 * unit[..., 1:] - 1.0, extents)

    def move(self, x: Float[Tensor, "*lead_event"], t: Float[Tensor, "*lead columns"]) -> Float[Tensor, "*lead_event"]:
        """T_t x of given draws.

        Args:
            x: floating point, (*lead, *more, *event); what lies in the axes `more` shares its draw.
            t: internal units, (*lead, columns).
        """
        event = x.shape[x.ndim - len(self.event_shape) :]
        flat = x.reshape(-1, *event)
        flat = flat.float() if x.dtype in _LOW_PRECISION else flat
        scales = None if self.scales is None else self.scales.to(flat)
        flat = flat if scales is None else (flat - scales[0]) / scales[1]
        more = x.ndim - len(event) - (t.ndim - 1)
        each = t.reshape(*t.shape[:-1], *[1] * more, t.shape[-1]).expand(*x.shape[: -len(event)], t.shape[-1])
        for stage, part in self._acting(each.reshape(-1, t.shape[-1]).to(x.device)):
            flat = stage.transform(flat, part)
        flat = flat if scales is None else scales[0] + scales[1] * flat
        return flat.reshape(x.shape).to(x.dtype)

    def forward(self, *inputs: Any) -> Any:
        """Inputs in the form in which they came, one of them moved, and what belongs to it.

        Raises:
            DataError: an input of too few axes, or one that this transform cannot act on.
        """
        if self.moves_images:
            return super().forward(*inputs)
        flat, spec = tree_flatten(inputs if len(inputs) > 1 else inputs[0])
        for i, entry in enumerate(flat):
            if isinstance(entry, tv_tensors.Mask):
                continue
            if isinstance(entry, Tensor | np.ndarray):
                x = torch.from_numpy(np.ascontiguousarray(entry)) if isinstance(entry, np.ndarray) else entry
                x = x if x.is_floating_point() else x.double()  # whole numbers of a table do not stay whole
                t = self._drawn_for(x)
                moved = self.move(self._copied(x), t)
                along = [self._moved_volume_mask(e, t) if isinstance(e, tv_tensors.Mask) else e for e in flat]
                along[i] = moved.numpy() if isinstance(entry, np.ndarray) else moved
                return tree_unflatten(along, spec)
            if hasattr(entry, "to_numpy") and hasattr(entry, "columns"):
                flat[i] = self._moved_frame(entry)
                return tree_unflatten(flat, spec)
            if hasattr(entry, "pos"):
                flat[i] = self._moved_positions(entry)
                return tree_unflatten(flat, spec)
        raise DataError(
            f"expected a tensor, an array, a DataFrame or an object with `pos`, got {type(inputs[0]).__name__}"
        )

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws for one sample of torchvision's pipeline."""
        axes = {tv_tensors.Video: IMAGE_AXES + 1}
        images = [x for x in flat_inputs if isinstance(x, Tensor) and not isinstance(x, _FRAMED)]
        lead = tuple(images[0].shape[: -axes.get(type(images[0]), IMAGE_AXES)]) if images else ()
        device = images[0].device if images else None
        return {"t": self.draw(*self._lead(lead), device=device)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """One entry of a sample of torchvision's pipeline."""
        t = params["t"]
        if isinstance(inpt, PIL.Image.Image):
            return self._moved_picture(inpt, t)
        wrapped = isinstance(inpt, tv_tensors.TVTensor)
        plain = inpt.as_subclass(Tensor) if wrapped else inpt
        if isinstance(inpt, _FRAMED):
            return tv_tensors.wrap(self._moved_along(inpt, plain, t), like=inpt)
        moved = self._moved_image(plain, t)
        return tv_tensors.wrap(moved, like=inpt) if wrapped else moved

    def numbers(self) -> dict[str, Any]:
        """In people's units, and for images in torchvision's and kornia's; see `conventions.numbers`."""
        return numbers(self)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write this and, beside it, a .json of `numbers`; see `export.saving.save`."""
        return save(self, path, overwrite)

    def extra_repr(self) -> str:
        return f"copies={self.copies}, draws={self.draws!r}, seed={self.seed}"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the generator, which goes on from the seed: a copy in a worker gets one of its own."""
        return {**self.__dict__, "_generator": None}

    def _acting(self, t: Tensor) -> list[tuple[Transform, Tensor]]:
        stages = self.transform_family.stages
        parts = t.split([stage.num_columns for stage in stages], dim=-1)
        return [(s, part) for s, part, acts in zip(stages, parts, self._acts, strict=True) if acts]

    def _lead(self, lead: tuple[int, ...]) -> tuple[int, ...]:
        return lead if self.copies == 1 else (self.copies, *lead)

    def _copied(self, x: Tensor) -> Tensor:
        return x if self.copies == 1 else x.expand(self.copies, *x.shape)

    def _moved_image(self, x: Tensor, t: Tensor) -> Tensor:
        if x.ndim < IMAGE_AXES:
            raise DataError(
                f"expected an image, (..., channel, height, width), got shape {tuple(x.shape)}; a grey image without a "
                "channel gets one with x[None]"
            )
        if x.is_floating_point():
            return self.move(self._copied(x), t)
        if x.dtype not in _WHOLE:
            raise DataError(f"expected an image of floating point numbers or of bytes, got {x.dtype}; use x.float()")
        white = torch.iinfo(x.dtype).max
        moved = self.move(self._copied(x.to(_WHOLE[x.dtype]) / white), t)
        return (moved.clamp(0.0, 1.0) * white).round().to(x.dtype)

    def _moved_picture(self, picture: PIL.Image.Image, t: Tensor) -> PIL.Image.Image:
        if picture.mode not in PIL_MODES or self.copies > 1:
            many = f"{self.copies} copies of it" if self.copies > 1 else f'mode "{picture.mode}"'
            cure = "put v2.ToImage() before" if self.copies > 1 else 'use picture.convert("RGB")'
            raise DataError(f"expected a PIL image of mode {', '.join(PIL_MODES)}, got {many}; {cure}")
        moved = self._moved_image(functional.pil_to_tensor(picture), t)
        return functional.to_pil_image(moved, mode=picture.mode)

    def _moved_along(self, inpt: Any, x: Tensor, t: Tensor) -> Tensor:
        """A mask, boxes or key points."""
        if isinstance(inpt, tv_tensors.Mask):
            x = self._copied(x)
            lead = t.shape[:-1]
            if x.shape[: len(lead)] != lead or x.ndim < len(lead) + 2:
                raise DataError(f"expected a mask for each of {tuple(lead)} images, got shape {tuple(x.shape)}")
            flat = x.reshape(lead.numel(), -1, *x.shape[-2:])
            return self._frame(t.reshape(-1, t.shape[-1]).to(x.device)).masks(flat).reshape(x.shape)
        name = type(inpt).__name__
        if t.ndim > 1:
            raise DataError(
                f"{name}: expected one image and one copy of it, got {tuple(t.shape[:-1])}; augment samples before "
                "they are batched, with copies=1"
            )
        frame = self._frame(t[None].to(x.device))
        if isinstance(inpt, tv_tensors.KeyPoints):
            return frame.points(x, inpt.canvas_size)
        if tv_tensors.is_rotated_bounding_format(inpt.format):
            raise DataError(f"expected upright boxes, got {inpt.format.name}; pass their corners as KeyPoints")
        upright = tv_tensors.BoundingBoxFormat.XYXY
        corners = functional.convert_bounding_box_format(x, inpt.format, upright)
        return functional.convert_bounding_box_format(frame.boxes(corners, inpt.canvas_size), upright, inpt.format)

    def _frame(self, t: Float[Tensor, "draws columns"]) -> Frame:
        acting = self._acting(t)
        return Frame([stage for stage, _ in acting], [part for _, part in acting])

    def _drawn_for(self, x: Tensor) -> Float[Tensor, "*lead columns"]:
        """Draws for signals, points, rows or volumes."""
        axes = len(self.event_shape)
        if x.ndim < axes:
            raise DataError(f"expected inputs (..., {axes} axes of one example), got shape {tuple(x.shape)}")
        return self.draw(*self._lead(tuple(x.shape[: x.ndim - axes])), device=x.device)

    def _moved_volume_mask(self, mask: tv_tensors.Mask, t: Float[Tensor, "*lead columns"]) -> tv_tensors.Mask:
        """Labels of voxels, (*lead, *many, depth, height, width)."""
        x = self._copied(mask.as_subclass(Tensor))
        lead, voxels = t.shape[:-1], self.event_shape[1:]
        if len(voxels) != 3 or x.shape[: len(lead)] != lead or x.ndim < len(lead) + 3:
            raise DataError(
                f"expected a mask of voxels for each of {tuple(lead)} volumes, got shape {tuple(x.shape)} beside "
                f"inputs of shape {self.event_shape}"
            )
        flat = x.reshape(lead.numel(), -1, *x.shape[-3:])
        moved = masks_of_volumes(self._acting(t.reshape(-1, t.shape[-1]).to(x.device)), flat)
        return tv_tensors.wrap(moved.reshape(x.shape), like=mask)

    def _moved_frame(self, frame: Any) -> Any:
        """A pandas DataFrame of rows, with its columns and index."""
        if len(self.event_shape) != 1 or self.copies > 1 or frame.shape[1] != self.event_shape[0]:
            raise DataError(
                f"a DataFrame: expected the {self.event_shape[0]} columns of a table, as in the fit, and copies=1, got "
                f"{frame.shape[1]} columns and copies={self.copies}; frame.to_numpy() gives an array for more copies"
            )
        x = torch.from_numpy(np.ascontiguousarray(frame.to_numpy(dtype=np.float64)))
        return type(frame)(self.move(x, self._drawn_for(x)).numpy(), index=frame.index, columns=frame.columns)

    def _moved_positions(self, data: Any) -> Any:
        """A copy of a graph, or of a batch of them, with moved ``pos`` (nodes, 3)."""
        if len(self.event_shape) != 2 or self.copies > 1:
            raise DataError(
                "an object with `pos`: expected transforms of points and copies=1; for more copies call this as often"
            )
        pos, graph = data.pos, getattr(data, "batch", None)
        graph = torch.zeros(len(pos), dtype=torch.long, device=pos.device) if graph is None else graph
        # A column of ones where padded rows would have a zero: all nodes are points.
        width = max(getattr(stage, "mask", None) or 0 for stage in self.transform_family.stages) + 1
        points = torch.cat([pos, pos.new_ones(len(pos), max(0, width - pos.shape[1]))], 1)
        moved = pos.clone()
        for which in graph.unique():
            rows = graph == which
            moved[rows] = self.move(points[rows], self.draw(device=pos.device))[:, : pos.shape[1]]
        data = copy.copy(data)
        data.pos = moved
        return data

    def _uniform(self, shape: tuple[int, ...], device: torch.device | str | None) -> Tensor:
        """Numbers on [0, 1) in float64."""
        if self.seed is None:
            return torch.rand(shape, dtype=torch.float64, device=device)
        if torch.compiler.is_exporting():
            raise ValueError("seed: an exported program draws from torch's global generator; expected seed=None")
        return self._from_own_generator(shape).to(device)

    @torch.compiler.disable
    def _from_own_generator(self, shape: tuple[int, ...]) -> Tensor:
        worker = get_worker_info()
        key = None if worker is None else worker.seed  # another one in each worker and each epoch
        if self._generator is None or self._seeded_for != key:
            seed = self.seed if key is None else random.Random(f"{self.seed} {key}").getrandbits(63)
            self._generator, self._seeded_for = torch.Generator().manual_seed(int(seed or 0)), key
        return torch.rand(shape, dtype=torch.float64, generator=self._generator)


def _as_scales(scales: tuple[ArrayLike, ArrayLike], event_shape: tuple[int, ...]) -> Float[Tensor, "2 d"]:
    """Means and standard deviations of columns, checked."""
    both = torch.stack([torch.as_tensor(np.asarray(part), dtype=torch.float64) for part in scales])
    if len(event_shape) != 1 or both.shape != (2, *event_shape):
        raise ValueError(
            f"scales: expected means and standard deviations of the columns of a table, (d,) each, for inputs of shape "
            f"{event_shape}, got {tuple(both.shape)}"
        )
    if not bool(both.isfinite().all() & (both[1] > 0).all()):
        raise ValueError("scales: expected finite means and positive standard deviations; some are not")
    return both
