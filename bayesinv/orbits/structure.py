"""Extents with structure: one set of them for each output, f_c(x) = E_{t ~ p(t | η_c)} h_c(T_t x).

A 6 that turns too far reads as a 9, a 0 never does: how far a symmetry reaches is then a matter of the class. The
extents η of shape (C, K) are C·K named coordinates, ``rotation[6]``, so that guides, samplers, tables, plots and files
treat them as they treat any others; only the prior over functions knows which belong to which output.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.errors import ExtentError
from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Coordinate, Transform

__all__ = ["Blocks", "PerOutput", "PerOutputOrbit", "priors_of_blocks"]


def _named(symmetry: str, output: str) -> str:
    return f"{symmetry}[{output}]"


class Blocks(Transform):
    """The coordinates of a transform several times over, a block of them for each of some names.

    A copy of an input is moved by one block alone.

    Args:
        inner: T, with K coordinates.
        kind: what the names are of, for messages: "output" or "group".
        names: of the blocks, in order.
        example: such names, for messages.

    Raises:
        ValueError: fewer than two names, two alike, or groups called by numbers that are not their positions.
        TypeError: no names.
    """

    inner: Transform

    def __init__(self, inner: Transform, kind: str, names: Any, example: Sequence[str]):
        super().__init__()
        self.kind, self.blocks = kind, _checked_names(kind, names, example)
        # Not a submodule: the orbit owns it, and a state with its arrays twice would be another file format.
        object.__setattr__(self, "inner", inner)

    @abstractmethod
    def moves(self, t: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch blocks K"]:
        """What moves an input, block by block."""

    def transform(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch columns"]
    ) -> Float[Tensor, "batch *event"]:
        """T_t x with the coordinates of one block, those of all others zero; auxiliary numbers are zero.

        Raises:
            ValueError: an example with coordinates of several blocks.
        """
        self.check_coordinates(t, batch=len(x))
        blocks = self.moves(t)
        if bool(((blocks != 0).any(-1).sum(-1) > 1).any()):
            raise ValueError(
                f"an input can be moved by the coordinates of one {self.kind} at a time, and those of several are not "
                f"zero; set all but one {self.kind}'s to zero, of {', '.join(self.blocks)}"
            )
        moves = blocks.sum(1)  # (batch, K)
        columns = [t.new_zeros(len(t)) if k is None else moves[:, k] for k in self.inner.columns]
        return self.inner.transform(x, torch.stack(columns, -1))

    def named(self, block: str) -> tuple[Coordinate, ...]:
        """The coordinates of one block, ``rotation[6]``."""
        return tuple(dataclasses.replace(c, name=_named(c.name, block)) for c in self.inner.coordinates)

    def check_input(self, x: object) -> None:
        """As the transform does."""
        self.inner.check_input(x)

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {"type": type(self).__name__, "inner": self.inner.config(), f"{self.kind}s": list(self.blocks)}


def _checked_names(kind: str, names: Any, example: Sequence[str]) -> tuple[str, ...]:
    """What the blocks are called, as text."""
    wanted = f"{kind}s: expected a sequence of names such as {list(example)}"
    if isinstance(names, str):
        raise ValueError(f"{wanted}, got the text {names!r}")
    if isinstance(names, int):
        raise TypeError(f"{wanted}, got {names!r}; {kind}s that are called 0, 1, ... are {kind}s=range({names})")
    if isinstance(names, Set | Mapping):
        raise TypeError(f"{wanted}, got a {type(names).__name__}, and their order counts: write a list")
    if not isinstance(names, Iterable):
        raise TypeError(f"{wanted}, got a {type(names).__name__}")
    listed = list(names)
    per_example = "; which group an example is of goes into bayesinv.Data(x, y, groups=...)" if kind == "group" else ""
    if any(isinstance(name, Tensor) for name in listed):
        raise TypeError(f"{wanted}, got tensors{per_example}")
    blocks = tuple(str(name) for name in listed)
    if len(blocks) < 2 or len(set(blocks)) < len(blocks):
        more = f" and {len(blocks) - 8} more" if len(blocks) > 8 else ""
        raise ValueError(
            f"{kind}s: expected at least two names, no two of them equal, got {list(blocks[:8])}{more}"
            f"{per_example if len(blocks) > 1 else ''}"
        )
    numbers = [int(name) for name in listed if isinstance(name, Integral)]
    if kind == "group" and numbers and listed != list(range(len(listed))):
        raise ValueError(
            f"groups: a number in the data is a position in this list, so that groups called {list(blocks[:8])} would "
            f"be taken for others; expected text, or the numbers 0 to {len(blocks) - 1} in order. Text that goes "
            f'with the numbers you have: groups=["group {numbers[0]}", ...] here, and '
            'bayesinv.Data(x, y, groups=[f"group {i}" for i in ids])'
        )
    return blocks


class PerOutput(Blocks):
    """The coordinates of a transform, once for every output: C·K of them, output by output.

    An input has no output before it is predicted, so that it is moved by the coordinates of one output at a time.

    Args:
        inner: T, with K coordinates.
        outputs: what the C outputs are called, in the order of the labels or of the columns of y.

    Raises:
        ValueError: fewer than two outputs, or two of one name.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> PerOutput(Affine2d(["rotation"]), ["6", "9"]).names
        ('rotation[6]', 'rotation[9]')
    """

    def __init__(self, inner: Transform, outputs: Sequence[str]):
        super().__init__(inner, "output", outputs, ("6", "9"))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the C outputs."""
        return self.blocks

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Output by output, each with the K of the transform."""
        return tuple(c for output in self.outputs for c in self.named(output))

    def moves(self, t: Float[Tensor, "batch CK"]) -> Float[Tensor, "batch C K"]:
        """Those of every output."""
        return by_output(self, t)

    def negligible(self, event_shape: Sequence[int]) -> Float[Tensor, " CK"]:
        """Those of the transform, repeated for every output."""
        return self.inner.negligible(event_shape).repeat(len(self.outputs))


def priors_of_blocks(structure: Blocks, priors: Mapping[str, Any] | None) -> dict[str, Any]:
    """Priors by full name; one that names a symmetry alone goes to every output or group that has none of its own.

    Raises:
        ExtentError: a name that is neither.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> both = PerOutput(Affine2d(["rotation"]), ["6", "9"])
        >>> priors_of_blocks(both, {"rotation": 0.5, "rotation[9]": None})
        {'rotation[6]': 0.5, 'rotation[9]': None}
    """
    given = dict(priors or {})
    names = [c.name for block in structure.blocks for c in structure.named(block)]
    unknown = sorted(set(given) - set(names) - set(structure.inner.names))
    if unknown:
        raise ExtentError(
            f"priors: unknown symmetries {unknown}; this model's are {names}, or for all {structure.kind}s "
            f"{list(structure.inner.names)}"
        )
    expanded = {}
    for block in structure.blocks:
        for symmetry in structure.inner.names:
            name = _named(symmetry, block)
            if name in given or symmetry in given:
                expanded[name] = given[name] if name in given else given[symmetry]
    return expanded


def by_output(structure: PerOutput, eta: Float[Tensor, "*draws CK"]) -> Float[Tensor, "*draws C K"]:
    """η of shape (C, K).

    Raises:
        ValueError: another number of extents.
    """
    C, K = len(structure.outputs), structure.inner.num_coordinates
    if eta.shape[-1:] != torch.Size([C * K]):
        raise ValueError(f"expected {C * K} extents, {K} for each of {C} outputs, got shape {tuple(eta.shape)}")
    return eta.unflatten(-1, (C, K))


class PerOutputOrbit:
    """One orbit for each output of a network, as a single one of C·S weighted copies.

        f_c(x) = E_{t ~ p(t | η_c)} h_c(T_t x) = Σ_{b,s} w_bs^c h_c(T_{t(ε_s; η_b)} x),    w_bs^c = w_s(η_b) 1[b = c]

    A network gives all its outputs for any input, so that it sees every input C·S times, and output c is read off block
    c alone: C times the copies of extents in common, in time and in memory. All blocks share their base draws, so that
    with equal η_c this is the orbit in common.

    Args:
        structure: whose outputs these are.
        orbit: of S copies, for one output.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> orbit = Orbit(Affine2d(["rotation"]), num_samples=8)
        >>> each = PerOutputOrbit(PerOutput(orbit.transform, ["6", "9"]), orbit)
        >>> eta = torch.tensor([0.5, 0.1])
        >>> each.num_copies, each(torch.zeros(5, 1, 16, 16), eta).shape, each.weights(eta).shape
        (16, torch.Size([16, 5, 1, 16, 16]), torch.Size([16, 1, 2]))
    """

    def __init__(self, structure: PerOutput, orbit: Orbit):
        self.structure, self.inner = structure, orbit

    @property
    def num_outputs(self) -> int:
        """C."""
        return len(self.structure.outputs)

    @property
    def num_copies(self) -> int:
        """C times those of one output."""
        return self.num_outputs * self.inner.num_copies

    def fresh_base(self) -> Float[Tensor, "S columns"]:
        """Base draws for all outputs, from torch's global generator."""
        return self.inner.fresh_base()

    def coordinates(
        self, extents: Float[Tensor, " CK"], base: Float[Tensor, "S columns"] | None = None
    ) -> Float[Tensor, "copies columns"]:
        """t of every point, output by output.

        Raises:
            ValueError: another number of extents.
        """
        return torch.cat([self.inner.coordinates(eta, base) for eta in by_output(self.structure, extents)])

    def weights(self, extents: Float[Tensor, " CK"]) -> Float[Tensor, "copies 1 C"]:
        """What every copy counts for each output: nothing for those whose block it is not in.

        Raises:
            ValueError: another number of extents.
        """
        size = self.inner.num_copies
        equal = extents.new_full((size,), 1.0 / size)
        of_blocks = [self.inner.weights(eta) for eta in by_output(self.structure, extents)]
        columns = torch.stack([equal if w is None else w for w in of_blocks])  # (C, S)
        own = torch.eye(self.num_outputs, dtype=extents.dtype, device=extents.device)
        return (columns[..., None] * own[:, None]).flatten(0, 1)[:, None]

    def __call__(
        self,
        x: Float[Tensor, "batch *event"],
        extents: Float[Tensor, " CK"],
        base: Float[Tensor, "S columns"] | None = None,
    ) -> Float[Tensor, "copies batch *event"]:
        """The points of every block, (C·S, batch, *event).

        Raises:
            ValueError: another number of extents. DataError: if the transform cannot act on ``x``.
        """
        return self.inner.transform.orbit(x, self.coordinates(extents, base))
