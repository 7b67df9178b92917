"""InvariantPredictor: any trained network, averaged over copies of its inputs."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.export.augmentation import Augmentation
from bayesinv.numerics.arguments import as_integer
from bayesinv.orbits.averages import weighted_mean
from bayesinv.orbits.orbit import Orbit
from bayesinv.orbits.structure import PerOutput
from bayesinv.transforms import Elastic, FiniteGroup, Transform
from bayesinv.transforms.affine2d import MatrixWarp
from bayesinv.transforms.asymmetric import without_ends
from bayesinv.transforms.warp import warp

if TYPE_CHECKING:
    from bayesinv.fitted.fitted_model import FittedModel

__all__ = ["FixedOrbit", "InvariantPredictor"]

AVERAGES = ("logits", "probabilities")


class InvariantPredictor(nn.Module):
    """A trained network averaged over copies within the learned extents, at test time.

        f(x) = Σ_s w_s net(T_{t_s} x),    η_s ~ p(η | D),  t_s ~ p(t | η_s)

    The copies are the same for all inputs and calls, evenly spread (Sobol), so that predictions are reproducible and
    the module can be exported to a graph. Over finite groups the average is exact: each copy meets all elements. A call
    passes all copies of a batch through the network at once.

    Args:
        net: returns (n, outputs); it is shared, not copied. Call ``.eval()`` on this module as on any network.
        posterior: of a fit, or an `Augmentation` of one, such as `bayesinv.export.load` returns. With extents by
            output, output c is averaged over the copies of c alone; with groups, these are the population's.
        num_copies: S; finite groups multiply it by their elements.
        average: "logits", the mean of what the network returns, or "probabilities", the mean of its softmax.
        seed: of the copies.

    Raises:
        ValueError: no copies, an unknown average, or outputs that move with the inputs (``output_action``), whose
            copies would have to be moved back first. TypeError: a net that is no module.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> aug = Augmentation(Affine2d(["rotation"]), torch.tensor([[0.5]]), (1, 8, 8))
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> InvariantPredictor(net, aug, num_copies=4)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 3])
    """

    weights: Tensor
    scales: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        posterior: "FittedModel | Augmentation",
        num_copies: int = 16,
        average: str = "logits",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected a torch.nn.Module, got a {type(net).__name__}")
        if average not in AVERAGES:
            raise ValueError(f"average: expected one of {', '.join(map(repr, AVERAGES))}, got {average!r}")
        num_copies = as_integer("num_copies", num_copies)
        action = posterior.output_action if isinstance(posterior, Augmentation) else posterior.model.output_action
        if action is not None:
            raise ValueError(
                f"the outputs of this model move with its inputs (output_action={getattr(action, 'name', action)!r}), "
                "and an average of what a network returns does not take them back; use posterior.predict, or "
                "bayesinv.train(net, data, posterior).predict"
            )
        augmentations = _by_output(posterior)
        self.register_buffer("scales", augmentations[0].scales)
        orbits = [_weighted_copies(augmentation, num_copies, seed) for augmentation in augmentations]
        self.net, self.average = net, average
        self.orbit = FixedOrbit(augmentations[0].transform_family, torch.cat([t for t, _ in orbits]))
        weights = torch.cat([w for _, w in orbits])  # (copies,)
        if len(orbits) > 1:  # output c counts copies of its own block alone: (copies, 1, C)
            own = torch.eye(len(orbits), dtype=weights.dtype).repeat_interleave(len(orbits[0][1]), 0)
            weights = (weights[:, None] * own)[:, None]
        self.register_buffer("weights", weights)

    @property
    def num_copies(self) -> int:
        """How often the network sees an input."""
        return len(self.weights)

    def forward(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch outputs"]:
        """Averaged logits or probabilities, (n, outputs)."""
        scales = None if self.scales is None else self.scales.to(x)
        copies = self.orbit(x if scales is None else (x - scales[0]) / scales[1])  # (copies, n, *event)
        copies = copies if scales is None else scales[0] + scales[1] * copies
        outputs = self.net(copies.flatten(0, 1)).unflatten(0, (self.num_copies, -1))
        if self.average == "probabilities":
            outputs = outputs.softmax(2)
        return weighted_mean(outputs, self.weights)

    def extra_repr(self) -> str:
        return f"num_copies={self.num_copies}, average={self.average!r}"


class FixedOrbit(nn.Module):
    """The points T_{t_s} x of draws that never change, as operations that graphs can hold.

    Equal to ``transform.orbit(x, t)``; matrices and elements of groups are worked out once.

    Args:
        transform: T.
        t: internal units, (S, columns).
    """

    def __init__(self, transform: Transform, t: Float[Tensor, "S columns"]) -> None:
        super().__init__()
        sizes = [stage.num_columns for stage in transform.stages]
        pairs = zip(transform.stages, t.split(sizes, dim=-1), strict=True)
        self.stages = nn.ModuleList([_FixedStage(*without_ends(stage, part)) for stage, part in pairs])
        self.size = len(t)

    def forward(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "S batch *event"]:
        """The points of all examples."""
        points = x.expand(self.size, *x.shape)
        for stage in self.stages:
            points = stage(points)
        return points


class _FixedStage(nn.Module):
    """One stage with fixed draws, on (S, n, *event)."""

    def __init__(self, stage: Transform, t: Tensor) -> None:
        super().__init__()
        self.stage = stage
        self.elements = t[:, 0].round().long().tolist() if isinstance(stage, FiniteGroup) else None
        fixed = stage.pullback(t) if isinstance(stage, MatrixWarp) else t
        self.fixed: Tensor
        self.register_buffer("fixed", fixed)

    def forward(self, points: Tensor) -> Tensor:
        stage = self.stage
        if isinstance(stage, FiniteGroup) and self.elements is not None:
            images = [stage.act(copy, g) if g else copy for copy, g in zip(points, self.elements, strict=True)]
            return torch.stack(images)
        if isinstance(stage, MatrixWarp):  # all examples of a draw as channels of one sampling
            flat = points.flatten(1, 2)
            return warp(flat, self.fixed, stage.padding, stage.interpolation, stage.projective).reshape(points.shape)
        if isinstance(stage, Elastic):
            return stage.transform(points.flatten(1, 2), self.fixed).reshape(points.shape)
        each = self.fixed[:, None].expand(*points.shape[:2], self.fixed.shape[-1])
        moved = stage.transform(points.flatten(0, 1), each.flatten(0, 1))
        return moved.reshape(points.shape)


def _by_output(posterior: Any) -> list[Augmentation]:
    """One augmentation, or one for each output of a model with extents by output."""
    if isinstance(posterior, Augmentation):
        return [posterior]
    if isinstance(posterior.model.transform, PerOutput):
        return [posterior.augmentation(of=output) for output in posterior.model.transform.outputs]
    return [posterior.augmentation()]


def _weighted_copies(
    augmentation: Augmentation, num_copies: int, seed: int
) -> tuple[Float[Tensor, "copies columns"], Float[Tensor, " copies"]]:
    """t of evenly spread copies, each with extents of its own, and what each counts."""
    own, extents = augmentation.orbit, augmentation.extents.cpu()
    orbit = Orbit(own.transform, num_copies, seed=seed, augmentation=own.augmentation)
    if len(orbit.base) < num_copies:  # finite groups alone: their elements, each once
        each = [orbit.weights(row) for row in extents]
        return orbit.coordinates(extents[0]), torch.stack([w for w in each if w is not None]).mean(0)
    rows = ((torch.arange(num_copies) + 0.5) * len(extents) / num_copies).long()  # evenly through the draws
    chosen = extents[rows[torch.randperm(num_copies, generator=torch.Generator().manual_seed(seed))]]
    weights = orbit.weights(chosen)
    t = orbit.coordinates(chosen)
    return t, t.new_full((len(t),), 1.0 / len(t)) if weights is None else weights
