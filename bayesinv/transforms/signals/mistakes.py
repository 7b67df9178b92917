"""What signals and their transforms rarely mean together: axes in the other order, two clocks, shifts that go round."""

from collections.abc import Mapping, Sequence

from bayesinv.transforms.base import Transform
from bayesinv.transforms.signals.base import SignalTransform
from bayesinv.transforms.signals.masks import TimeMask
from bayesinv.transforms.signals.time import TimeShift

__all__ = ["signal_mistakes"]

# The end of a prior is computed in another order than the length of a recording.
ROUNDING = 1e-9


def signal_mistakes(
    stages: Sequence[Transform], event_shape: Sequence[int], reach: Mapping[str, float] | None = None
) -> list[str]:
    """What to warn of before a fit, each with what to do; empty where no stage is a transform of signals.

    Args:
        stages: what is applied in order.
        event_shape: of one example, (channels, time).
        reach: by symmetry, the largest extent that its prior allows, internal units; those left out reach as far as
            their transforms go.

    Example:
        >>> from bayesinv.transforms import AmplitudeScale
        >>> print(signal_mistakes([AmplitudeScale()], (64, 3))[0])
        signals have more channels, 64, than samples in time, 3; time is the last axis: if it is not, x.swapaxes(1, 2)
    """
    signals = [stage for stage in stages if isinstance(stage, SignalTransform)]
    if not signals or len(event_shape) != 2:
        return []
    channels, samples = event_shape
    if channels > samples:  # what else there is to say of their length follows from it
        return [
            f"signals have more channels, {channels}, than samples in time, {samples}; time is the last axis: if it is "
            "not, x.swapaxes(1, 2)"
        ]
    found = []
    rates = {type(stage).__name__: stage.sampling_rate for stage in signals if hasattr(stage, "sampling_rate")}
    if len(set(rates.values())) > 1:
        listed = " and ".join(f"{name}(sampling_rate={rate:g})" for name, rate in rates.items())
        found.append(
            f"{listed} take the same signals to be sampled at different rates (1 where none was given); give that of "
            "the recording to each"
        )
    reach = reach or {}
    for stage in signals:
        if isinstance(stage, TimeShift | TimeMask):
            far = reach.get(stage.names[0], stage.largest)
            found += _too_far(stage, far, samples)
    return found


def _too_far(stage: TimeShift | TimeMask, far: float, samples: int) -> list[str]:
    """Whether extents up to ``far`` seconds leave a recording, or go round it."""
    length, name = samples / stage.sampling_rate, stage.names[0]
    unit = stage.coordinates[0].unit
    circular = isinstance(stage, TimeShift) and stage.padding == "circular"
    limit = 0.5 * length if circular else length
    if far <= limit * (1.0 + ROUNDING):
        return []
    if circular:
        what = f"half of the recording ({limit:g} of {length:g} {unit}), from where on circular shifts come round again"
    else:
        what = f"the whole recording ({length:g} {unit}), of which nothing is left then"
    return [
        f"{name} reaches up to {far:g} {unit}, beyond {what}; give {type(stage).__name__} a largest= of at most "
        f"{limit:g}, or where that is wrong the sampling_rate= of the recording (now {stage.sampling_rate:g})"
    ]
