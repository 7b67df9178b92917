"""Options of `bayesinv fit` that a fit has no use for: refused, with what to leave out."""

import argparse

__all__ = ["refuse_unused"]

_OF_NETWORKS = ("epochs", "batch_size")
_OF_PROCESSES = ("max_steps", "num_features", "num_inducing")


def refuse_unused(options: argparse.Namespace, kind: str) -> None:
    """Raise where an option was given that this fit would ignore; those that were not given are None.

    Args:
        options: of `bayesinv fit`.
        kind: of the data, "images", "signals", "points" or "tables".

    Raises:
        ValueError: there are such options.

    Example:
        >>> refuse_unused(argparse.Namespace(network=None, epochs=3.0, batch_size=None), "images")
        Traceback (most recent call last):
        ValueError: --epochs 3: expected nothing without --network, whose training it sets; leave it out
    """
    if options.network is None:
        _refuse(options, _OF_NETWORKS, "without --network, whose training {sets}")
    else:
        _refuse(
            options,
            _OF_PROCESSES,
            "with --network, since {sets} the fit of a Gaussian process (--epochs and --batch-size are for networks)",
        )
    if kind != "signals":
        _refuse(options, ("sampling_rate",), f"with {kind}, since {{sets}} the unit of time of signals")
    if kind != "images":
        _refuse(options, ("padding",), f"with {kind}, since {{sets}} what lies outside an image")


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if not given:
        return
    said = " ".join(
        f"--{name.replace('_', '-')} {format(value, 'g') if isinstance(value, float) else value}"
        for name, value in given.items()
    )
    one = len(given) == 1
    why = why.format(sets="it sets" if one else "they set")
    raise ValueError(f"{said}: expected nothing {why}; leave {'it' if one else 'them'} out")
