"""log p(D | η): how well the data are explained at given extents, with the free function integrated out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bayesinv.evidence.base import ClassificationEvidence, Evidence
from bayesinv.evidence.collapsed import CollapsedEvidence
from bayesinv.evidence.dirichlet import DirichletEvidence
from bayesinv.evidence.gaussian import GaussianEvidence
from bayesinv.evidence.polya_gamma import PolyaGammaEvidence

__all__ = [
    "ClassificationEvidence",
    "CollapsedEvidence",
    "DirichletEvidence",
    "Evidence",
    "GaussianEvidence",
    "PolyaGammaEvidence",
    "as_evidence",
    "evidence_from_config",
]

# A new evidence is one file and one line here.
EVIDENCES: dict[str, Callable[..., Evidence]] = {
    "gaussian": GaussianEvidence,
    "dirichlet": DirichletEvidence,
    "polya_gamma": PolyaGammaEvidence,
}
# Dirichlet targets are conjugate, so that one evaluation needs no inner iteration. tests/benchmarks/digits.py
# --evidences compares them with the others on accuracy, log loss and calibration.
DEFAULTS = {"categorical": "dirichlet", "gaussian": "gaussian"}


def as_evidence(evidence: str | Evidence, likelihood: str) -> Evidence:
    """The evidence for a likelihood: "auto", a name, or an :class:`Evidence` with options of its own.

    Raises:
        ValueError: an unknown likelihood or evidence, or one that does not serve the likelihood.
        TypeError: neither a name nor an evidence.
    """
    if likelihood not in DEFAULTS:
        raise ValueError(f"likelihood: expected one of {sorted(DEFAULTS)}, got {likelihood!r}")
    if isinstance(evidence, str):
        name = DEFAULTS[likelihood] if evidence == "auto" else evidence
        if name not in EVIDENCES:
            raise ValueError(f'evidence: expected "auto" or one of {sorted(EVIDENCES)}, got {evidence!r}')
        evidence = EVIDENCES[name]()
    elif not isinstance(evidence, Evidence):
        raise TypeError(f"evidence: expected a name or an Evidence, got {type(evidence).__name__}")
    if evidence.likelihood != likelihood:
        fitting = sorted(name for name, cls in EVIDENCES.items() if cls.likelihood == likelihood)  # type: ignore[attr-defined]
        raise ValueError(
            f"evidence {evidence.name!r} is for likelihood={evidence.likelihood!r}, not {likelihood!r}; "
            f"for that one use one of {fitting}"
        )
    return evidence


def evidence_from_config(config: Mapping[str, Any]) -> Evidence:
    """Rebuild an evidence from its ``config()``.

    Raises:
        ValueError: unknown, or with a noise prior that a file cannot hold.
    """
    options = dict(config)
    kind = options.pop("type")
    if options.get("noise_prior") == "custom":
        raise ValueError("the noise prior is the user's own object; pass the model: load(path, model=model)")
    if kind not in EVIDENCES:
        raise ValueError(f"unknown evidence {kind!r}; this version knows {sorted(EVIDENCES)}")
    return EVIDENCES[kind](**{key: value for key, value in options.items() if value is not None})
