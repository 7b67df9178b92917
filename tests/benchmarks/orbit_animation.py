"""The moving picture of the README: one digit, passing through copies of itself that a learned posterior draws.

    python tests/benchmarks/orbit_animation.py docs/orbit.gif

Extents η_j ~ p(η | D) are drawn anew for each copy, then the copy's coordinates t_j ~ U[−η_j, η_j]; frames between two
copies lie on the way from t_j to t_{j+1}. Bars at the right are ±η at its median; black ends are its 90 % interval.
"""

import math
import sys
import warnings
from pathlib import Path

from common import provenance

EXTENT, COPY, ENDS = "#56B4E9", "#D55E00", "#000000"  # Okabe and Ito: apart in every common form of colour blindness
NUM_COPIES = 6
FRAMES_BETWEEN = 9  # and as long a rest at each copy as a third of the way to the next
EXAMPLE = 7
NUM_COLOURS = 32
FRAMES_A_SECOND = 12
SIDE = 64  # pixels of the picture that moves; extents are shares of its width, so that size does not matter


def main() -> None:
    warnings.simplefilter("ignore")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import torch
    from PIL import Image

    import bayesinv

    train, _ = bayesinv.datasets.digits(math.radians(45), num_train=500, seed=0)
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(), "affine2d")
    posterior = bayesinv.fit(model, train, seed=0)
    aug = posterior.augmentation()
    torch.manual_seed(0)
    t = aug.draw(NUM_COPIES)  # (copies, K)
    t = torch.cat([torch.zeros_like(t[:1]), t])  # from the picture as it is, and back to it

    ease = 0.5 - 0.5 * np.cos(np.pi * np.arange(FRAMES_BETWEEN) / FRAMES_BETWEEN)
    ease = np.concatenate([np.zeros(FRAMES_BETWEEN // 3), ease])
    way = torch.cat([a + torch.from_numpy(ease)[:, None] * (b - a) for a, b in zip(t, t.roll(-1, 0), strict=True)])
    large = bayesinv.datasets.digits(math.radians(45), size=SIDE, num_train=500, seed=0).train.x[EXAMPLE]
    frames = aug.move(large.expand(len(way), *large.shape), way)[:, 0].clamp(0, 1)

    table = posterior.summary()
    coordinates = aug.transform_family.coordinates
    largest = np.array([c.largest for c in coordinates])
    quantiles = posterior.quantile([0.05, 0.5, 0.95]).numpy() / largest  # (3, K), shares of the range
    rows = np.arange(len(coordinates))

    plt.rcParams.update({"font.size": 11})
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.0), width_ratios=[1, 1.35], layout="constrained", dpi=80)
    picture = left.imshow(frames[0], cmap="gray", vmin=0, vmax=1)
    left.axis("off")
    right.barh(rows, 2 * quantiles[1], 0.5, -quantiles[1], color=EXTENT)
    for side in (-1, 1):
        right.hlines(rows, side * quantiles[0], side * quantiles[2], color=ENDS, lw=4)
    (dots,) = right.plot(way[0].numpy() / largest, rows, "o", color=COPY, ms=9, mec="white")
    words = [
        f"{name.replace('_', ' ')}  ±{row['median']:.0f} [{row['lower']:.0f}, {row['upper']:.0f}] {row['unit']}"
        for name, row in table.iterrows()
    ]
    right.set_yticks(rows, words)
    right.set(xlim=(-1.04, 1.04), xticks=[-1, 0, 1], xticklabels=["largest", "0", "largest"])
    right.set_title("this copy, within the learned extents", fontsize=11, color=COPY)
    right.invert_yaxis()
    right.tick_params(length=0)
    for spine in right.spines.values():
        spine.set_visible(False)
    right.axvline(0, color="0.8", lw=1, zorder=0)

    shots = []
    for frame, place in zip(frames, way.numpy() / largest, strict=True):
        picture.set_data(frame)
        dots.set_xdata(place)
        figure.canvas.draw()
        shots.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]))
    # One palette without dither: frames differ where something moves, and nowhere else. A tenth of the usual bytes.
    palette = shots[0].quantize(NUM_COLOURS, Image.Quantize.MAXCOVERAGE)
    shots = [shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot in shots]
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/orbit.gif")
    path.parent.mkdir(parents=True, exist_ok=True)
    shots[0].save(path, save_all=True, append_images=shots[1:], duration=1000 // FRAMES_A_SECOND, loop=0, optimize=True)
    print(table.to_string())
    print(f"{provenance()}\nwritten to {path}, {path.stat().st_size / 1e3:.0f} kB, {len(way)} frames")


if __name__ == "__main__":
    main()
