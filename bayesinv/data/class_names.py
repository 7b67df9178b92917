"""Names of classes: labels of text become whole numbers 0..C−1, and numbers that have names are matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from bayesinv.data.arrays import as_tensor
from bayesinv.errors import DataError

__all__ = ["as_text", "checked_names", "coded", "name_of", "names_in"]

SHOWN = 8  # names in a message


def as_text(values: Any, name: str, expected: str) -> np.ndarray | None:
    """The entries as an array of text; None where they are no text.

    Args:
        values: tensor, array, list or column of a data frame.
        name, expected: of the argument, and what it should hold, for messages.

    Raises:
        DataError: some entries are text and others are not.
    """
    if isinstance(values, Tensor) or np.ma.is_masked(values):
        return None
    try:
        entries = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # no array, as whoever reads numbers will say
        return None
    if entries.dtype.kind not in "UOT":
        return None
    if not isinstance(values, np.ndarray):
        entries = np.asarray(values, dtype=object)  # the other way, numbers and NaN among names became text
    flat = entries.ravel().tolist()
    odd = [entry for entry in flat if not isinstance(entry, str)]
    if len(odd) == len(flat):
        return None
    if odd:
        raise DataError(f"{name} holds {odd[0]!r}; expected {expected}")
    return entries.astype(np.str_)


def names_in(data: Any) -> tuple[str, ...] | None:
    """The class names that a data set or loader carries as ``.classes``, as torchvision's do; None where it has none.

    Looks through loaders and subsets. Names do not count where a ``target_transform`` gives the labels another meaning.

    Example:
        >>> from types import SimpleNamespace
        >>> names_in(SimpleNamespace(classes=["cat", "dog"]))
        ('cat', 'dog')
    """
    while isinstance(data, DataLoader | Subset):  # other wrappers may give labels another meaning
        data = data.dataset
    found: Any = getattr(data, "classes", None)
    if getattr(data, "target_transform", None) is not None or not isinstance(found, list | tuple):
        return None
    usable = len(found) > 1 and all(isinstance(name, str) for name in found) and len(set(found)) == len(found)
    return tuple(found) if usable else None


def checked_names(classes: Sequence[str], num_classes: int | None) -> tuple[str, ...]:
    """Names of classes that differ.

    Raises:
        DataError: a single text, names that are not text or occur twice, or more names than classes.
    """
    names = () if isinstance(classes, str) else tuple(classes)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise DataError(f"classes: expected a list of names, each once, such as ['cat', 'dog'], got {classes!r}")
    if num_classes is not None and len(names) > num_classes:
        raise DataError(f"classes: expected at most num_classes={num_classes} names, got {len(names)}; leave one out")
    return names


def coded(
    y: Any, own: Sequence[str] | None = None, classes: Sequence[str] | None = None
) -> tuple[Any, tuple[str, ...] | None]:
    """Labels as whole numbers, and the names of their classes.

    Args:
        y: labels, text or numbers, of any shape.
        own: names of the numbers in y.
        classes: those of a fit, whose order the numbers then have; None takes `own`, or sorts the text in y.

    Returns:
        Numbers, untouched where nothing had to be renumbered, and the names; None where there are none.

    Raises:
        DataError: a label that is none of `classes`, or that `own` has no name for.

    Example:
        >>> coded(["dog", "cat", "dog"])
        (array([1, 0, 1]), ('cat', 'dog'))
        >>> coded(["dog"], classes=("ant", "cat", "dog"))[0].tolist()
        [2]
    """
    text = as_text(y, "y", "the name of a class for each example")
    if text is not None:
        names, y = np.unique(text, return_inverse=True)
        own, y = tuple(names.tolist()), y.reshape(text.shape)
    if own is None or classes is None or tuple(own) == tuple(classes):
        found = own if classes is None else classes
        return y, None if found is None else tuple(found)
    y = as_tensor(y, "y")
    if y.is_floating_point() or y.numel() == 0:
        return y, tuple(classes)  # which is refused as such
    y = y.long()
    if int(y.min()) < 0 or int(y.max()) >= len(own):
        raise DataError(f"y reaches from {int(y.min())} to {int(y.max())}; expected 0..{len(own) - 1}, {_shown(own)}")
    position = y.new_tensor([classes.index(name) if name in classes else -1 for name in own])
    numbers = position[y]
    unknown = (numbers < 0).nonzero()
    if len(unknown):
        first = tuple(unknown[0].tolist())
        raise DataError(
            f"y holds {own[int(y[first])]!r} at index {first[0]}, which is none of the {len(classes)} classes of the "
            f"fit: {_shown(classes)}. Drop the {len(unknown)} such examples, or fit to data that have this class; "
            "bayesinv.Data(x, y, classes=names) says which classes there are where some have no example"
        )
    return numbers, tuple(classes)


def name_of(classes: Sequence[str], label: int) -> str:
    """The name of a class; its number where a network has more outputs than there are names."""
    return classes[label] if label < len(classes) else str(label)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
