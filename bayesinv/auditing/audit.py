"""``bayesinv.audit``: every candidate operation on its own, the likely ones together, the others given those."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bayesinv.auditing.baseline import Baseline, against_constant
from bayesinv.auditing.operations import KINDS, Operation, candidates, columns_tried, kind_of, standardised
from bayesinv.auditing.permitted import losses, permitted
from bayesinv.auditing.result import Audit, Finding
from bayesinv.auditing.search import MOST_THREADS, Found, Search
from bayesinv.data.container import Data, as_data
from bayesinv.datasets.columns import are_labels
from bayesinv.errors import DataError
from bayesinv.inference.evaluation_record import EvaluationRecord, fingerprint
from bayesinv.io.progress import progress_bar
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.arguments import as_integer, as_number, as_probability, meant
from bayesinv.numerics.threads import one_thread, side_by_side

LEVELS = (0.05, 0.5, 0.95)
FEWEST = 20  # examples
MOST_NAMED = 10  # columns of a table that a note names
HELD_OUT = 0.3  # share of the examples that is left out, where there are not plenty


def audit(
    data: Any,
    *,
    likelihood: str = "auto",
    kind: str = "auto",
    operations: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    sampling_rate: float = 1.0,
    num_examples: int = 400,
    size: int = 16,
    num_orbit_samples: int = 16,
    num_features: int = 512,
    prior_inclusion: float = 0.5,
    seed: int = 0,
    progress: bool = False,
    checkpoint: str | Path | None = None,
) -> Audit:
    """Ask of every operation that fits this kind of data whether it helps, how far it is needed, and how far permitted.

    A Gaussian process over frozen random features of the inputs is the free function; pictures are shrunk for it.

    1. Each operation alone: its evidence, integrated over its extent, against that of none.
    2. The best is taken in, and the others are tried on top of it, until none has P(in) > 0.5, or six are in.
    3. Each of those that are in is tried on top of the others, and dropped where it has P(in) <= 0.5 there.
    4. Permitted: the extent up to which left-out examples are predicted as well (to 0.01 nat) as at the best extent.
    5. The evidence and the predictions are compared with those of a constant. Where they are no better, `.notes` and
       `.recommendations` begin with a serious note, and nothing is called harmless, or recommended without evidence.

    Args:
        data: ``(x, y)`` of tensors, arrays or a DataFrame, a `Data`, a `Dataset` or a `DataLoader`. x: images (n,
            channels, height, width), signals (n, channels, time), points (n, atoms, 3 + features) or rows (n, columns),
            which are standardised. y: labels of any type, or real numbers.
        likelihood: "categorical", "gaussian" or "auto": text and whole numbers of few values are labels, see
            `datasets.columns.are_labels`.
        kind: "images", "signals", "points", "tables", or "auto", by the shape.
        operations: names of those to try; None tries all.
        classes: names of the labels 0, 1, ...
        columns: names of the columns of a table; those of a DataFrame by default.
        sampling_rate: of signals, samples a second.
        num_examples: n of the evidence, and the most left-out examples; random ones, where there are more.
        size: side in pixels to which larger images are shrunk.
        num_orbit_samples, num_features: S and R of the model.
        prior_inclusion: π of every operation.
        seed: of everything random.
        progress: show a bar with the remaining time.
        checkpoint: file that keeps what was computed, so that the same call goes on where an interrupted one was.

    Returns:
        An :class:`Audit`: `.table`, `.recommendations`, `.augmentation()`, `.report(path)`.

    Raises:
        DataError: fewer than 20 examples, or data that do not fit. ValueError: an unknown operation or kind.
        CheckpointError: a checkpoint of something else, or a damaged one.

    Example:
        >>> from bayesinv.datasets import digits
        >>> train = digits(rotation=0.785, num_train=60, size=8).train
        >>> names = ["rotation", "flip_x"]
        >>> found = audit(train, operations=names, num_orbit_samples=8, num_features=128)  # doctest: +SKIP
        >>> found.recommendations[0]  # doctest: +SKIP
        'rotation: yes, within ±89.1° (needed; 90 % interval 84.6 to 93.2)'
    """
    began = time.perf_counter()
    as_integer("num_examples", num_examples, FEWEST)
    as_integer("size", size, 4)
    as_number("sampling_rate", sampling_rate)
    as_probability("prior_inclusion", prior_inclusion)
    if kind != "auto" and kind not in KINDS:
        raise ValueError(f"kind: expected auto, {', '.join(KINDS)}, got {kind!r}")
    whole, classes, columns = _read(data, likelihood, classes, columns)
    kind = kind_of(whole.x) if kind == "auto" else kind
    train, held_out, notes, scales = _prepared(whole, kind, num_examples, size, seed)
    chosen = None
    if kind == "tables":
        chosen = columns_tried(train.x, train.y, train.num_classes, columns, operations or ())
        if operations is None or "column_order" in operations:
            notes += _left_out(train, chosen, columns)
    tried = candidates(kind, train.x, sampling_rate, columns, chosen)
    if operations is not None:
        unknown = sorted(set(operations) - {o.name for o in tried})
        if unknown or not operations:
            known = [o.name for o in tried]
            said = f"operations: expected some of {', '.join(known)}, got {', '.join(unknown) or 'none'}"
            raise ValueError(said + meant(unknown, known))
        tried = tuple(o for o in tried if o.name in set(operations))
    settings = {"num_orbit_samples": num_orbit_samples, "num_features": num_features}
    with (
        warnings.catch_warnings(record=True) as caught,
        progress_bar(progress, "part", 2 * len(tried)) as bar,
        contextlib.ExitStack() as finish,
    ):
        warnings.simplefilter("always")
        search = Search(train, tried, settings, prior_inclusion, seed, bar)
        if checkpoint is not None:
            search.record = EvaluationRecord(checkpoint, _fingerprint(search, held_out))
            finish.enter_context(search.record.kept())
        found = search.run()
        model, extents = search.model(list(found.base), found.base)
        baseline = against_constant(model, train, held_out, extents)
        findings = _findings(search, found, held_out, baseline, seed)
    notes = [*([baseline.note] if baseline.note else []), *notes]
    notes += [f"{each.category.__name__}: {each.message}" for each in caught if issubclass(each.category, UserWarning)]
    return Audit(
        kind=kind,
        findings=tuple(findings),
        inside=tuple(o for o in tried if o.name in found.base),
        draws=found.draws,
        example=train.x[:1],
        event_shape=whole.event_shape,
        num_train=len(train),
        num_held_out=len(held_out),
        num_total=len(whole),
        classes=tuple(classes),
        scales=scales,
        settings={
            **settings,
            "likelihood": "gaussian" if whole.num_classes is None else "categorical",
            "prior_inclusion": prior_inclusion,
            "seed": seed,
            "input": "×".join(map(str, train.event_shape)),
        },
        seconds=time.perf_counter() - began,
        baseline=baseline,
        notes=tuple(dict.fromkeys(notes)),
    )


def _findings(search: Search, found: Found, held_out: Data, baseline: Baseline, seed: int) -> list[Finding]:
    """What the search found of each operation, and how far predictions permit it on top of those that are in."""

    def compute(case: tuple[Operation, InvarianceModel, Tensor]) -> np.ndarray:
        operation, model, extents = case
        place = model.symmetries.index(operation.name)

        def table() -> Tensor:
            return torch.from_numpy(losses(model, search.train, held_out, extents, place)).double().flatten()

        return search.kept(f"{operation.name} permitted", model, extents, table).reshape(-1, len(held_out)).numpy()

    inside = [o.name for o in search.tried if o.name in found.base]
    cases = [(o, *search.model([*found.base, o.name], found.base)) for o in search.tried]
    findings = []
    with one_thread() as threads:
        tables = side_by_side(compute, cases, min(threads, MOST_THREADS))
        for (operation, model, _), table in zip(cases, tables, strict=True):
            name = operation.name
            search.bar.set_description(f"{name}, permitted", refresh=False)
            search.bar.update()
            coordinate = model.coordinates[model.symmetries.index(name)]
            if name in found.base:
                own = found.draws[:, inside.index(name)]
                needed = np.quantile(own[own > 0].numpy(), LEVELS)
            else:
                needed = found.given[name].quantiles(LEVELS)
            finding = Finding(
                operation=operation,
                coordinate=coordinate,
                probability=found.given[name].inclusion(search.prior),
                log_bf_alone=found.alone[name].log_bf,
                log_bf_given=found.given[name].log_bf,
                needed=tuple(needed.tolist()),
                permitted=tuple(permitted(table, coordinate.largest, seed).tolist()),
                explained=baseline.explained,
                predicted=baseline.predicted,
            )
            findings.append(finding)
    return findings


def _fingerprint(search: Search, held_out: Data) -> dict[str, Any]:
    """What has to be the same for the parts of an audit to be those of this one."""
    model, _ = search.model([], {})
    of_held_out = fingerprint(model, held_out, search.seed)["data and start"]
    operations = {o.name: o.family([o.name]).config() for o in search.tried}
    made = {"operations": operations, "prior_inclusion": search.prior, "left-out data": of_held_out}
    return fingerprint(model, search.train, search.seed) | json.loads(json.dumps(made, default=repr))


def _left_out(train: Data, chosen: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """A note of the columns of a wide table that are not tried; none where all are."""
    names = [str(c) for c in (range(train.x.shape[1]) if columns is None else columns)]
    left_out = [n for n, sd in zip(names, train.x.std(0).tolist(), strict=True) if sd > 0 and n not in set(chosen)]
    if not left_out:
        return []
    more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
    how = "absolute rank correlation" if train.num_classes is None else "variance between classes over the total"
    return [
        f"{len(left_out)} of {len(names)} columns are left out, as each column takes time: the {len(chosen)} that say "
        f"most about the targets on their own ({how}) are tried. Left out: {', '.join(left_out[:MOST_NAMED])}{more}. "
        "Name shift_COLUMN among the operations to try one"
    ]


def _read(
    data: Any, likelihood: str, classes: Sequence[str], columns: Sequence[str] | None
) -> tuple[Data, tuple[str, ...], Sequence[str] | None]:
    """Checked data, names of the classes, and of the columns of a DataFrame."""
    if likelihood not in ("auto", "categorical", "gaussian"):
        raise ValueError(f"likelihood: expected auto, categorical or gaussian, got {likelihood!r}")
    if isinstance(data, Data):
        return data, tuple(classes) or data.classes or (), columns
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        columns = [str(c) for c in x.columns] if columns is None and hasattr(x, "columns") else columns
        targets = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        if likelihood == "auto":
            likelihood = "categorical" if classes or are_labels(targets) else "gaussian"
        if likelihood == "categorical" and (targets.dtype.kind not in "iu" or not classes):
            values, targets = np.unique(targets, return_inverse=True)
            classes = classes or [str(value) for value in values]
        x = x.to_numpy() if hasattr(x, "to_numpy") else x
        x = (
            x
            if isinstance(x, Tensor)
            else np.asarray(x, dtype=np.float64 if np.asarray(x).dtype.kind in "iub" else None)
        )
        return as_data((x, targets), likelihood, num_classes=len(classes) or None), tuple(classes), columns
    whole = as_data(data, "categorical" if likelihood == "auto" else likelihood)
    return whole, tuple(classes) or whole.classes or (), columns


def _prepared(
    whole: Data, kind: str, num_examples: int, size: int, seed: int
) -> tuple[Data, Data, list[str], tuple[np.ndarray, np.ndarray] | None]:
    """Examples for the evidence and left-out ones, what was done to them, and the scales of a table's columns."""
    n = len(whole)
    if n < FEWEST:
        raise DataError(f"{n} examples; expected at least {FEWEST} to say anything about extents; bring more data")
    notes = []
    held = min(num_examples, max(int(HELD_OUT * n), n - num_examples))
    train = min(num_examples, n - held)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    if train + held < n:
        notes.append(f"{train} examples for the evidence and {held} to predict, chosen at random out of {n}")
    x = whole.x.to("cpu", torch.float32)
    scales = None
    if kind == "images" and max(x.shape[-2:]) > size:
        height, width = x.shape[-2:]
        factor = size / max(height, width)
        small = (max(4, round(height * factor)), max(4, round(width * factor)))
        x = F.interpolate(x, size=small, mode="area")
        notes.append(f"images of {height}×{width} pixels shrunk to {small[0]}×{small[1]}")
    if kind == "tables":
        x, mean, sd = standardised(x)
        scales = (mean, sd)
        notes.append("columns standardised: extents are in standard deviations of a column")
    small_data = dataclasses.replace(whole.to("cpu"), x=x)
    if small_data.num_classes is None:  # losses in nats an example do not depend on the unit then
        y = small_data.y
        spread = y.std(0)
        small_data = dataclasses.replace(small_data, y=(y - y.mean(0)) / torch.where(spread > 0, spread, 1.0))
    return small_data.subset(order[:train]), small_data.subset(order[train : train + held]), notes, scales
