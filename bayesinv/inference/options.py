"""How a posterior is found: variational inference or NUTS with their options, or a point method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesinv.inference.guides import GuideFactory, check_guide
from bayesinv.inference.loop import Callback
from bayesinv.inference.point import POINT_METHODS, PointMethod, as_point_method
from bayesinv.inference.training import Training
from bayesinv.numerics.arguments import as_integer, as_number, meant

__all__ = ["NUTS", "VI"]

NUM_DRAWS = 160  # where nothing says how many it takes
HYPERPARAMETERS = ("latent", "optimised")


@dataclass(frozen=True, kw_only=True)
class VI:
    """Variational inference: climbs to the modes, then a mixture around them that the evidence weighs.

    Args:
        guide: "full_rank", "mean_field", "flow" (collapsed evidences only), or a callable from the Pyro model to a
            guide. The last two are trained with Adam around the best mode, hyperparameters held there.
        max_steps: the most evaluations of a collapsed evidence from each start, 200 if None; with minibatches the most
            optimiser steps, ``training.epochs`` passes over the data if None.
        hyperparameters: of a collapsed evidence: "latent", drawn along with the extents under weak priors (see
            :mod:`bayesinv.model.hyperparameters`), or "optimised", held at the best mode.
        learning_rate: of Adam, for the guides that it trains on a collapsed evidence.
        num_draws: posterior draws, at least 5. On a collapsed evidence None draws until the weighted draws are worth
            100 independent ones, at most 480 (on large data 50 and 200); elsewhere None stands for 160.
        checkpoint: of a collapsed evidence: a file that keeps every evaluation. The same fit, started again, reads them
            and goes on where it was interrupted; a finished one takes seconds. None keeps nothing. Minibatches have
            ``Training(checkpoint=...)``.

    Raises:
        ValueError, TypeError: an option out of range or of another kind.

    Example:
        >>> posterior = bayesinv.fit(model, data, bayesinv.VI(guide="mean_field"))  # doctest: +SKIP
    """

    guide: str | GuideFactory = "full_rank"
    max_steps: int | None = None
    hyperparameters: str = "latent"
    learning_rate: float = 0.05
    num_draws: int | None = None
    checkpoint: str | Path | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None and not isinstance(self.checkpoint, str | Path):
            raise TypeError(f"checkpoint: expected a path or None, got a {type(self.checkpoint).__name__}")
        for name, least in (("max_steps", 1), ("num_draws", 5)):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else as_integer(name, value, least))
        object.__setattr__(self, "learning_rate", as_number("learning_rate", self.learning_rate))
        check_guide(self.guide)
        if self.hyperparameters not in HYPERPARAMETERS:
            raise ValueError(f"hyperparameters: expected one of {list(HYPERPARAMETERS)}, got {self.hyperparameters!r}")


@dataclass(frozen=True, kw_only=True)
class NUTS(VI):
    """The no-U-turn sampler on a collapsed evidence, from the draws of `VI`, whose options it takes too.

    Args:
        num_chains: at least 1; 2 or more have an R̂.
        num_warmup: steps of each chain that adapt its step size.
        num_draws: of each chain.

    Example:
        >>> posterior = bayesinv.fit(model, data, bayesinv.NUTS(num_chains=4))  # doctest: +SKIP
    """

    num_chains: int = 2
    num_warmup: int = 150

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_chains", "num_warmup"):
            object.__setattr__(self, name, as_integer(name, getattr(self, name)))


METHODS: dict[str, type[VI]] = {"vi": VI, "nuts": NUTS}
DEFAULTS = NUTS()


def as_method(inference: Any, given: Mapping[str, Any]) -> tuple[VI | PointMethod, VI]:
    """The method, and the options that `fit` was given beside it, or that the method has.

    Args:
        inference: an object, or a name.
        given: options of `VI` and `NUTS` by name, at their defaults where nobody gave them.

    Raises:
        TypeError: neither. ValueError: an unknown name, or options that the method does not use or holds itself.
    """
    names = [*METHODS, *POINT_METHODS]
    options = NUTS(**given)
    other = [name for name, value in given.items() if value != getattr(DEFAULTS, name)]
    if isinstance(inference, type) and issubclass(inference, PointMethod | VI):
        raise TypeError(f"inference: expected an object, got the class {inference.__name__}: {inference.__name__}(...)")
    if isinstance(inference, VI):
        if other:
            raise ValueError(
                f"{', '.join(other)}: expected among the options of {type(inference).__name__}, which was given as an "
                f"object: {type(inference).__name__}({', '.join(f'{name}={given[name]!r}' for name in other)})"
            )
        return inference, inference
    if isinstance(inference, PointMethod):
        return inference, options
    if not isinstance(inference, str):
        raise TypeError(
            f"inference: expected one of {names}, a VI, a NUTS or a point method, got a {type(inference).__name__}; "
            "pass x and y together: fit(model, (x, y))"
        )
    if inference not in names:
        raise ValueError(f"inference: expected one of {names}, got {inference!r}")
    if inference not in METHODS:
        return as_point_method(inference), options
    kind = METHODS[inference]
    fields = {field.name for field in dataclasses.fields(kind)}
    unused = [name for name in other if name not in fields]
    if unused:
        raise ValueError(
            f"{', '.join(unused)}: expected nothing, since inference={inference!r} does not use "
            f"{'it' if len(unused) == 1 else 'them'}, got {', '.join(f'{name}={given[name]!r}' for name in unused)}; "
            'leave out, or sample with inference="nuts"'
        )
    method = kind(**{name: getattr(options, name) for name in fields})
    return method, method


def refuse_unused(evidence: str, method: VI | PointMethod, options: VI) -> None:
    """Refuse options that a fit over minibatches would ignore; those at their defaults may have been left out."""
    names = ["hyperparameters", "learning_rate", "checkpoint", "num_chains", "num_warmup"]
    if isinstance(method, PointMethod):
        names.append("guide")
    given = {name: getattr(options, name, getattr(DEFAULTS, name)) for name in names}
    unused = {name: value for name, value in given.items() if value != getattr(DEFAULTS, name)}
    if unused:
        what = f"inference={method.name!r}" if isinstance(method, PointMethod) else f"the {evidence} evidence"
        raise ValueError(
            f"{', '.join(unused)}: expected nothing, since {what} trains over minibatches and does not use "
            f"{'it' if len(unused) == 1 else 'them'}, got {', '.join(f'{k}={v!r}' for k, v in unused.items())}; rates, "
            "steps and the checkpoint of such a fit are in training=bayesinv.Training(...)"
        )


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise as Python does for an argument that does not exist, and say where it belongs.

    Raises:
        TypeError: there are such arguments.
    """
    for name, value in given.items():
        text = f"fit() got an unexpected keyword argument {name!r}"
        if name in Training.__dataclass_fields__:
            raise TypeError(f"{text}, an option of Training: fit(..., training=bayesinv.Training({name}={value!r}))")
        raise TypeError(text + (meant([name], known) or f"; expected one of {', '.join(known)}"))


def as_callbacks(callbacks: Any) -> list[Callback]:
    """Functions in a list.

    Raises:
        TypeError: something else.
    """
    if callable(callbacks):
        raise TypeError("callbacks: expected a list of functions, got one: callbacks=[function]")
    functions = list(callbacks or []) if isinstance(callbacks, Iterable | None) else [callbacks]
    if not all(callable(function) for function in functions):
        raise TypeError(f"callbacks: expected a list of functions of a Step, got {callbacks!r}: callbacks=[function]")
    return functions
