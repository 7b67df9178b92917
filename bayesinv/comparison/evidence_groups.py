"""Which log evidences may be ranked against each other."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from bayesinv.data.container import Data
from bayesinv.errors import ComparisonWarning
from bayesinv.fitted.result import InferenceResult
from bayesinv.posterior.invariance_posterior import InvariancePosterior

if TYPE_CHECKING:
    pass


# What has to be the same for two log evidences to be ranked, in the order of the key, and how a message calls it.
_EVIDENCE_FACTS = ("kind of evidence", "average", "num_orbit_samples", "number of training examples", "training data")


# Relative; extents that agree so far were copied, since intervals are hundreds of times as wide.
MEDIAN_TOLERANCE = 1e-4


def num_train_of(result: InferenceResult, posterior: InvariancePosterior) -> int:
    return int(result.settings.get("num_train", len(posterior.data)))


def evidence_groups(posteriors: Mapping[str, InvariancePosterior]) -> dict[str, str]:
    """A letter for each set of evidences that may be ranked; warns where there is more than one."""
    twice = fixed_at_medians(posteriors)
    keys = {
        name: _evidence_key(p)
        for name, p in posteriors.items()
        if p.result.log_evidence is not None and name not in twice
    }
    letters = {key: _letters(i) for i, key in enumerate(dict.fromkeys(keys.values()))}
    if len(letters) > 1:
        differing = [
            fact for fact, values in zip(_EVIDENCE_FACTS, zip(*letters, strict=True), strict=True) if len({*values}) > 1
        ]
        listed = "; ".join(
            f"{letter}: {', '.join(str(name) for name in keys if keys[name] == key)} "
            f"({json.loads(key[0])['type']}, average of {key[1]}, S = {key[2]}, n = {key[3]})"
            for key, letter in letters.items()
        )
        warnings.warn(
            f"log evidences of different kinds, orbits or data may not be ranked against each other: {listed}. "
            f"They differ in: {', '.join(differing)}",
            ComparisonWarning,
            stacklevel=3,
        )
    return {name: letters[keys[name]] if name in keys else "" for name in posteriors}


def fixed_at_medians(posteriors: Mapping[str, InvariancePosterior]) -> dict[str, str]:
    """Which fits have all extents fixed at the posterior medians of which other fit to the same data."""
    found = {}
    for name, p in posteriors.items():
        if p.model.active or p.result.log_evidence is None:
            continue
        for other_name, other in posteriors.items():
            # Of groups what moves examples, and not the population and the spread.
            learned = [each for each in other.model.active if "[" in each] or list(other.model.active)
            if not learned or not set(learned) <= set(p.model.extents.fixed):
                continue
            # Medians with the weights and without: a baseline may come from either.
            medians = torch.stack([other.quantile(0.5, weighted) for weighted in {False, other.uses_weights()}])
            given = torch.tensor([p.model.extents.fixed[each] for each in learned], dtype=torch.float64)
            columns = [other.index(each) for each in learned]
            alike = torch.isclose(medians[:, columns], given, rtol=MEDIAN_TOLERANCE, atol=0.0).all(1).any()
            if alike and _evidence_key(p)[-2:] == _evidence_key(other)[-2:]:
                found[name] = other_name
                break
    return found


def evidence_facts(posterior: InvariancePosterior) -> dict[str, Any]:
    """What has to be the same for log evidences to be ranked, by name: kind, average, orbit, size and data."""
    return dict(zip(_EVIDENCE_FACTS, _evidence_key(posterior), strict=True))


def _evidence_key(posterior: InvariancePosterior) -> tuple[str, str, int, int, str]:
    """What has to be the same, in the order of _EVIDENCE_FACTS."""
    model, n = posterior.model, num_train_of(posterior.result, posterior)
    kind: dict[str, Any] = {**model.evidence.config(), "type": model.evidence_name}
    if model.evidence_name == "laplace":  # a bound whose gap depends on how many examples each step sees
        kind["batch"] = posterior.result.settings.get("training", {}).get("extent_batch_size")
    # Of large data a fit keeps some examples, another seed others; their number has to do then.
    content = _fingerprint(posterior.data) if n == len(posterior.data) else "not kept"
    return json.dumps(kind, sort_keys=True, default=repr), model.average, model.orbit.num_samples, n, content


def _fingerprint(data: Data) -> str:
    """The same for the same examples, in whatever order, precision and place."""
    x, y = data.x.detach().cpu().float().flatten(1).numpy(), data.y.detach().cpu().float().numpy()
    rows = sorted(hashlib.blake2b(a.tobytes() + b.tobytes()).digest() for a, b in zip(x, y, strict=True))
    return hashlib.blake2b(b"".join(rows)).hexdigest()


def _letters(i: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    return ("" if i < 26 else _letters(i // 26 - 1)) + chr(ord("A") + i % 26)
