"""Transforms of signals, batch × channels × time: when, how loud, which frequencies, and what is missing."""

from bayesinv.transforms.signals.amplitude import AmplitudeScale, SignFlip
from bayesinv.transforms.signals.masks import BandStop, ChannelDropout, TimeMask
from bayesinv.transforms.signals.spectrum import FourierSurrogate, FrequencyShift
from bayesinv.transforms.signals.time import TimeShift, TimeWarp

__all__ = [
    "AmplitudeScale",
    "BandStop",
    "ChannelDropout",
    "FourierSurrogate",
    "FrequencyShift",
    "SignFlip",
    "TimeMask",
    "TimeShift",
    "TimeWarp",
]
