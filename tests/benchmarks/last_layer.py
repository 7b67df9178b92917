"""Why features are not trained with the evidence of their last layer alone.

    python tests/benchmarks/last_layer.py            # under two minutes on one core

Digits turned within ±45°, a small convolutional network, and a Gaussian process with 64 inducing points as its last
layer, on one-hot targets with normal noise. Three ways to learn the extent of rotation:

- "last layer": network, process and extent climb the collapsed evidence of the process together. Nothing in it charges
  for the network's weights, which turn the inputs into whatever the process explains best: once they fit every label,
  noise and extent go to zero while the evidence still rises, and test accuracy falls (Ober, Rasmussen & van der Wilk,
  2021, arXiv:2102.12108).
- "all weights": the Laplace evidence over every weight, those of the process among them (`bayesinv.DeepKernel`).
- "frozen": the collapsed evidence on features of a plain classifier of 500 other images, which stay as they are. What
  those images taught it about rotation, the process need not learn again.
"""

import argparse
import math
import time
import warnings

from common import print_table, provenance

NUM_COPIES = 8
NUM_INDUCING = 64
FEATURE_RATE = 3e-3
NUM_OTHER = 500  # images that the frozen features are trained on
REPORTS = (0, 50, 100, 200, 400)


def make_net():
    """Features of an image: (n, 1, 16, 16) to (n, 32)."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Tanh()),
        *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(256, 32), nn.Tanh()),
    )


def one_hot(data):
    """Centred targets, one column a class."""
    import torch

    from bayesinv import Data

    return Data(data.x, torch.nn.functional.one_hot(data.y, 10).double() - 0.1)


def accuracy(mean, y):
    """Percent of the largest outputs that are right."""
    return f"{100 * float((mean.argmax(-1) == y).double().mean()):.1f}"


def last_layer(train, test, steps, seed):
    """Everything on the collapsed evidence of the last layer; the extent is a point."""
    import torch

    import bayesinv

    data = one_hot(train)
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=NUM_INDUCING, features=make_net()),
        "rotation",
        likelihood="gaussian",
        num_orbit_samples=NUM_COPIES,
    )
    model.initialise(data, seed)
    features = list(model.backbone.features.requires_grad_(True).parameters())
    others = [p for p in model.parameters() if p.requires_grad and all(p is not f for f in features)]
    log_eta = torch.tensor([math.log(0.3)], dtype=torch.float64, requires_grad=True)
    groups = [{"params": features, "lr": FEATURE_RATE}, {"params": [*others, log_eta], "lr": 0.05}]
    optimiser = torch.optim.Adam(groups)
    began, rows = time.perf_counter(), []
    for step in range(steps + 1):
        value = model.log_evidence(log_eta.exp(), data)
        if step in REPORTS or step == steps:
            with torch.no_grad():
                mean, _ = model.function_posterior(test.x, data, log_eta.exp())
            noise = float(model.evidence.noise.detach()) / float(data.y.var())
            name = f"last layer, step {step}"
            degrees = f"{math.degrees(float(log_eta.detach().exp())):.1f}"
            cells = [f"{100 * noise:.2f}", f"{float(value.detach()):.0f}", accuracy(mean, test.y)]
            rows.append([name, degrees, *cells, f"{time.perf_counter() - began:.0f}"])
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
    return rows


def row_of(name, posterior, noise, train, test, began):
    """A fit in the cells of the table."""
    low, mid, high = (math.degrees(float(q)) for q in posterior.quantile([0.05, 0.5, 0.95])[:, 0])
    mean = posterior.predict(test.x).mean
    cells = [f"{100 * noise / float(train.y.var()):.2f}", f"{posterior.log_evidence:.0f}", accuracy(mean, test.y)]
    return [name, f"{mid:.1f} [{low:.1f}, {high:.1f}]", *cells, f"{time.perf_counter() - began:.0f}"]


def all_weights(train, test, epochs, seed):
    """One Laplace evidence over network and process."""
    import bayesinv
    from bayesinv.backbones.deep_kernel import DeepKernel

    began, data = time.perf_counter(), one_hot(train)
    model = bayesinv.InvarianceModel(
        DeepKernel(make_net(), num_inducing=NUM_INDUCING),
        "rotation",
        likelihood="gaussian",
        num_orbit_samples=NUM_COPIES,
    )
    posterior = bayesinv.fit(model, (data.x, data.y), seed=seed, training=bayesinv.Training(epochs=epochs))
    noise = float(posterior.model.evidence.noise.detach())
    return row_of("all weights (Laplace)", posterior, noise, data, test, began)


def frozen(train, other, test, steps, seed):
    """The collapsed evidence on the features of a classifier of other images."""
    import torch
    from torch import nn

    import bayesinv
    from bayesinv.backbones.deep_kernel import DeepKernel

    began, data = time.perf_counter(), one_hot(train)
    net = make_net()
    classifier = nn.Sequential(net, nn.Linear(32, 10))
    optimiser = torch.optim.Adam(classifier.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = torch.randint(len(other), (100,))
        loss = nn.functional.cross_entropy(classifier(other.x[chosen].float()), other.y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model = bayesinv.InvarianceModel(
        DeepKernel(net, num_inducing=NUM_INDUCING, frozen=True),
        "rotation",
        likelihood="gaussian",
        num_orbit_samples=NUM_COPIES,
    )
    posterior = bayesinv.fit(model, (data.x, data.y), seed=seed, max_steps=steps)
    noise = float(posterior.model.evidence.noise.detach())
    return row_of("frozen features", posterior, noise, data, test, began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-train", type=int, default=150)
    parser.add_argument("--steps", type=int, default=600, help="of the joint training; half as many elsewhere")
    parser.add_argument("--epochs", type=float, default=200, help="of the Laplace fit")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import torch

    import bayesinv

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    num = options.num_train
    both, test = bayesinv.datasets.digits(rotation=math.radians(45), num_train=num + NUM_OTHER, seed=options.seed)
    train, other = both.subset(slice(0, num)), both.subset(slice(num, None))
    rows = last_layer(train, test, options.steps, options.seed)
    rows.append(all_weights(train, test, options.epochs, options.seed))
    rows.append(frozen(train, other, test, options.steps // 2, options.seed))
    print(provenance())
    print(f"{num} digits turned within ±45°, S = {NUM_COPIES}, seed {options.seed}\n")
    print_table(["trained on", "rotation, °", "noise, % of variance", "log evidence", "test accuracy, %", "s"], rows)


if __name__ == "__main__":
    main()
