"""The picture of docs/signals.md: what an extent of each signal transform does to one signal.

python tests/benchmarks/signal_pictures.py docs/signal_transforms.png
"""

import math
import sys

import matplotlib.axes
import matplotlib.figure
import torch
from common import write_picture

from bayesinv.transforms import (
    AmplitudeScale,
    BandStop,
    ChannelDropout,
    Flip,
    FourierSurrogate,
    FrequencyShift,
    GaussianNoise,
    SignFlip,
    TimeMask,
    TimeShift,
    TimeWarp,
)

RATE, DURATION = 100.0, 4.0  # Hz, s
# One draw of the auxiliary columns: which warp, which phases and noise, where a mask lies (1.4 s) and a band (2.5 Hz).
DRAWS = {"time_warp": [1.0, 0.6, 0.3], "time_mask": [-0.3], "band_stop": [-0.9]}
BEFORE, HALF, WHOLE = "0.6", "#E69F00", "#0072B2"
# Transform, extent in internal units.
ROWS = (
    (TimeShift(RATE, largest=1.0), 0.4),
    (TimeWarp(), 0.9),
    (AmplitudeScale(), math.log(2)),
    (FrequencyShift(RATE, largest=2.0), 0.5),
    (FourierSurrogate(), math.pi),
    (GaussianNoise(), 0.5),
    (TimeMask(RATE, largest=2.0), 1.0),
    (BandStop(RATE, largest=10.0), 6.0),
    (SignFlip(), 1.0),
    (Flip(-1, "time_reversal"), 1.0),
)


def signal() -> torch.Tensor:
    """Three waves under an envelope that has a beginning and an end, (1, 1, time)."""
    time = torch.arange(int(RATE * DURATION), dtype=torch.float64) / RATE
    waves = sum(a * torch.sin(2 * math.pi * f * time) for f, a in ((1.0, 0.6), (2.5, 1.0), (6.0, 0.4)))
    return (waves * torch.exp(-(((time - 1.4) / 0.8) ** 2)))[None, None]


def channel_dropout(panel: matplotlib.axes.Axes, x: torch.Tensor, time: list[float]) -> None:
    """Four channels, two of which are lost, one below the other."""
    transform = ChannelDropout()
    channels = torch.cat([0.25 * x.roll(10 * c, -1) for c in range(4)], 1)
    moved = transform(channels, torch.tensor([[0.5, -1.0, -0.7, -0.4, 0.0]], dtype=x.dtype))
    for c, offset in enumerate((1.2, 0.4, -0.4, -1.2)):
        panel.plot(time, channels[0, c] + offset, color=BEFORE, lw=3)
        panel.plot(time, moved[0, c] + offset, color=WHOLE, lw=1.6)
    panel.set_title("channel_dropout: two of four lost, t = 50 %", loc="left", fontsize=13)
    panel.spines[["top", "right"]].set_visible(False)


def draw() -> matplotlib.figure.Figure:
    """A panel a transform: the signal as it is, at half the extent and at all of it."""
    x = signal()
    time = [i / RATE for i in range(x.shape[-1])]
    figure = matplotlib.figure.Figure(figsize=(11, 12), layout="constrained")
    panels = figure.subplots(6, 2, sharex=True, sharey=True).flatten()
    channel_dropout(panels[-2], x, time)
    panels[-1].axis("off")
    for panel, (transform, extent) in zip(panels[:-2], ROWS, strict=True):
        coordinate = transform.coordinates[0]
        auxiliary = DRAWS.get(coordinate.name, [-0.3, 0.7, -0.6, 0.2][: transform.num_auxiliary])
        panel.plot(time, x[0, 0], color=BEFORE, lw=3, label="as it is")
        shares = (1.0,) if coordinate.is_discrete else (0.5, 1.0)
        for share in shares:
            moved = transform(x, torch.tensor([[share * extent, *auxiliary]], dtype=x.dtype))
            style = (WHOLE, "-", "t = η") if share == 1 else (HALF, "--", "t = η/2")
            panel.plot(time, moved[0, 0], color=style[0], ls=style[1], lw=1.6, label=style[2])
        words = "the other element" if coordinate.is_discrete else f"η = {coordinate.words(extent)}"
        panel.set_title(f"{coordinate.name}: {words}", loc="left", fontsize=13)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[-3:-1]:
        panel.set_xlabel("time (s)", fontsize=12)
        panel.tick_params(labelbottom=True)
    for panel in panels[::2]:
        panel.set_ylabel("amplitude", fontsize=12)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=12)
    return figure


if __name__ == "__main__":
    sys.exit(write_picture(draw, __doc__))
