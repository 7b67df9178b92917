"""log p(D | η): how well the data are explained at given extents, with the free function integrated out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bayesinv.evidence.base import ClassificationEvidence, Evidence
from bayesinv.evidence.collapsed import CollapsedEvidence
from bayesinv.evidence.dirichlet import DirichletEvidence
from bayesinv.evidence.gaussian import GaussianEvidence
from bayesinv.evidence.laplace import LaplaceEvidence
from bayesinv.evidence.network import NetworkEvidence
from bayesinv.evidence.plugin import PlugInEvidence
from bayesinv.evidence.softmax import SoftmaxEvidence
from bayesinv.evidence.statistics import FeatureStatistics
from bayesinv.evidence.stochastic import StochasticGPEvidence

__all__ = [
    "ClassificationEvidence",
    "CollapsedEvidence",
    "DirichletEvidence",
    "Evidence",
    "FeatureStatistics",
    "GaussianEvidence",
    "LaplaceEvidence",
    "NetworkEvidence",
    "PlugInEvidence",
    "SoftmaxEvidence",
    "StochasticGPEvidence",
    "as_evidence",
    "evidence_from_config",
]

LIKELIHOODS = ("categorical", "gaussian")
ALL_LIKELIHOODS = ("categorical", "bernoulli", "gaussian")

# A new evidence is one file and one line here: its name, its class, the likelihoods it serves. A class that serves both
# takes ``likelihood=``.
EVIDENCES: dict[str, tuple[Callable[..., Evidence], tuple[str, ...]]] = {
    "gaussian": (GaussianEvidence, ("gaussian",)),
    "dirichlet": (DirichletEvidence, ("categorical",)),
    "softmax": (SoftmaxEvidence, ("categorical",)),
    "stochastic": (StochasticGPEvidence, LIKELIHOODS),
    "laplace": (LaplaceEvidence, ALL_LIKELIHOODS),
    "plugin": (PlugInEvidence, ALL_LIKELIHOODS),
}
# Evidences of earlier versions, and what replaces them.
REMOVED = {
    "polya_gamma": 'its bound held the truth in 44-70 % of 90 % intervals; use "softmax"',
}
# The softmax is the likelihood of labels, and its evidence has intervals that hold the truth (docs/evidence.md has the
# table of candidates); Dirichlet targets are several times as fast and give intervals that do not.
DEFAULTS = {
    ("gp", "categorical"): "softmax",
    ("gp", "gaussian"): "gaussian",
    ("network", "categorical"): "laplace",
    ("network", "bernoulli"): "laplace",
    ("network", "gaussian"): "laplace",
}


def as_evidence(evidence: str | Evidence, likelihood: str, backbone: str = "gp") -> Evidence:
    """The evidence for a likelihood: "auto", a name, or an :class:`Evidence` with options of its own.

    Args:
        evidence: which.
        likelihood: "categorical", "bernoulli" (networks only) or "gaussian".
        backbone: "gp" or "network".

    Raises:
        ValueError: an unknown likelihood or evidence, or one that does not serve the likelihood or the backbone.
        TypeError: neither a name nor an evidence.
    """
    if likelihood not in ALL_LIKELIHOODS:
        raise ValueError(f"likelihood: expected one of {sorted(ALL_LIKELIHOODS)}, got {likelihood!r}")
    if (backbone, likelihood) not in DEFAULTS:
        raise ValueError(
            f'likelihood="{likelihood}" is for networks, and the backbone is a Gaussian process; use "categorical" '
            "with two classes"
        )
    if isinstance(evidence, str):
        name = DEFAULTS[backbone, likelihood] if evidence == "auto" else evidence
        if name in REMOVED:
            raise ValueError(f"evidence {name!r} is no longer part of bayesinv: {REMOVED[name]}")
        if name not in EVIDENCES:
            raise ValueError(f'evidence: expected "auto" or one of {sorted(EVIDENCES)}, got {evidence!r}')
        make, served = EVIDENCES[name]
        evidence = make(likelihood=likelihood) if len(served) > 1 and likelihood in served else make()
    elif not isinstance(evidence, Evidence):
        raise TypeError(f"evidence: expected a name or an Evidence, got {type(evidence).__name__}")
    fitting = sorted(
        name
        for name, (make, served) in EVIDENCES.items()
        if likelihood in served and make.backbone == backbone  # type: ignore[attr-defined]
    )
    if evidence.likelihood != likelihood:
        raise ValueError(
            f"evidence {evidence.name!r} is for likelihood={evidence.likelihood!r}, not {likelihood!r}; "
            f"for that one use one of {fitting}"
        )
    if evidence.backbone != backbone:
        what = {"gp": "a Gaussian process", "network": "a network"}
        raise ValueError(
            f"evidence {evidence.name!r} is for {what[evidence.backbone]}, and the backbone is {what[backbone]}; "
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
    if options.get("observation") == "custom":
        raise ValueError("the observation model is the user's own object; pass the model: load(path, model=model)")
    if kind in REMOVED:
        raise ValueError(f"the evidence {kind!r} is no longer part of bayesinv: {REMOVED[kind]}")
    if kind not in EVIDENCES:
        raise ValueError(f"unknown evidence {kind!r}; this version knows {sorted(EVIDENCES)}")
    if options.get("noise_prior", "none") is None:
        del options["noise_prior"]
    return EVIDENCES[kind][0](**options)
