"""The picture at the top of the README: three sets of digits and what they say about rotation.

python tests/benchmarks/readme_figure.py docs/rotation_posteriors.png
"""

import math
import sys
import warnings
from pathlib import Path

from common import provenance

SETS = {"upright": None, "turned within ±45°": math.radians(45), "turned over the full circle": math.pi}
POSTERIOR, PRIOR = "#0072B2", "#E69F00"  # Okabe and Ito: apart in every common form of colour blindness
NUM_IMAGES = 5


def main() -> None:
    warnings.simplefilter("ignore")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    import bayesinv

    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(12, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 3 * NUM_IMAGES, height_ratios=[1, 2.4])
    for column, (name, rotation) in enumerate(SETS.items()):
        train, _ = bayesinv.datasets.digits(rotation, num_train=500, seed=0)
        model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(), "affine2d")
        posterior = bayesinv.fit(model, train, seed=0, num_draws=320)
        row = posterior.summary().loc["rotation"]
        for i in range(NUM_IMAGES):
            axis = figure.add_subplot(grid[0, NUM_IMAGES * column + i])
            axis.imshow(train.x[i, 0], cmap="gray")
            axis.axis("off")
        axis = figure.add_subplot(grid[1, NUM_IMAGES * column : NUM_IMAGES * (column + 1)])
        draws = posterior.sample(2000)[:, posterior.index("rotation")]  # by importance weights
        axis.hist(
            np.degrees(draws.numpy()), bins=np.arange(0, 181, 5.0), density=True, color=POSTERIOR, label="posterior"
        )
        axis.axhline(1 / 180, color=PRIOR, linestyle="--", linewidth=2, label="prior")
        axis.set(xlim=(0, 180), xticks=range(0, 181, 45), xlabel="extent of rotation, half-width (°)")
        axis.set_title(f"{name}\n{row['median']:.0f}° [{row['lower']:.0f}, {row['upper']:.0f}]", fontsize=13)
        if column == 0:
            axis.set_ylabel("density (1/°)")
            axis.legend(frameon=False)
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/rotation_posteriors.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"{provenance()}\nwritten to {path}")


if __name__ == "__main__":
    main()
