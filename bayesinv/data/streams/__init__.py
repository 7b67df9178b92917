"""Minibatches of data of any size, each a pure function of (seed, purpose, step).

    batch t of an epoch = the examples π[t b], ..., π[t b + b - 1],   π a permutation drawn from (seed, purpose, epoch)

A run that stops can therefore go on at any step with the batches it would have had. Arrays in memory are checked once
and indexed; a map-style ``Dataset`` is fetched batch by batch and never read whole; what can only be iterated is served
as it comes.
"""

from bayesinv.data.streams.base import Stream
from bayesinv.data.streams.sources import stream_of
from bayesinv.numerics.randomness import derive_seed, set_seed

__all__ = ["Stream", "derive_seed", "set_seed", "stream_of"]
