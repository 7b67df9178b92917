"""torchvision's ResNet-18 in a plain loop, with no augmentation, the true one set by hand, and the exported one.

    python tests/benchmarks/export_accuracy.py                                      # digits and CIFAR-10 within ±45°
    python tests/benchmarks/export_accuracy.py --sets digits --seeds 0 --num-train 200 --epochs 2 --max-steps 20

Extents are learned on the training images alone, on digits by a Gaussian process over the six affine symmetries, on
CIFAR-10 (read from --data, by default BAYESINV_DATA) by a small network over rotation and flip; the
augmentation is saved and loaded before it is used. --determinant upper is the default evidence of that network, which
pushes extents outwards. By hand: v2.RandomRotation(45), bilinear, and on CIFAR-10 a
flip. Every image of every epoch is moved by itself. "averaged" is the same network under InvariantPredictor.
"""

import argparse
import math
import os
import tempfile
import time
import warnings
from pathlib import Path

from common import mean_and_range, print_table, provenance, side_by_side

ANGLE = 45.0
ARMS = ("none", "by hand", "exported")


def split(name, options, seed):
    """Training and test data, turned within the angle."""
    import bayesinv

    if name == "digits":
        return bayesinv.datasets.digits(math.radians(ANGLE), num_train=options.num_train, seed=seed)
    root = options.data or os.environ.get("BAYESINV_DATA")
    sizes = {"num_train": options.num_train, "num_test": options.num_test}
    return bayesinv.datasets.cifar10(**sizes, seed=seed, rotation=math.radians(ANGLE), root=root)


def learned(name, train, options, seed):
    """The posterior's augmentation, by way of its file."""
    from torch import nn

    import bayesinv
    from bayesinv.transforms import Flip

    if name == "digits":
        model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(), "affine2d", likelihood="categorical")
        posterior = bayesinv.fit(model, train, seed=seed, max_steps=options.max_steps)
    else:
        net = nn.Sequential(
            *[nn.Conv2d(3, 16, 3, 2, 1), nn.Tanh(), nn.Conv2d(16, 32, 3, 2, 1), nn.Tanh(), nn.Conv2d(32, 32, 3, 2, 1)],
            *[nn.Tanh(), nn.Flatten(), nn.Linear(32 * 16, 10)],
        )
        evidence = bayesinv.evidence.LaplaceEvidence("categorical", determinant=options.determinant)
        model = bayesinv.InvarianceModel(net, ["rotation", Flip()], num_orbit_samples=6, evidence=evidence)
        own_weights = True if options.determinant == "equivalent" else None
        training = bayesinv.Training(epochs=options.learn_epochs, batch_size=100, own_weights=own_weights)
        posterior = bayesinv.fit(model, train, seed=seed, training=training)
    with tempfile.TemporaryDirectory() as folder:
        return bayesinv.export.load(posterior.augmentation().save(Path(folder) / "aug.safetensors"))


def trained(augment, train, num_classes, options, seed):
    """ResNet-18 for small images, after an ordinary loop."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.models import resnet18

    class Moved(Dataset):
        def __len__(self):
            return len(train.x)

        def __getitem__(self, i):
            return augment(train.x[i].float()), train.y[i]

    torch.manual_seed(seed)
    net = resnet18(num_classes=num_classes)
    net.conv1 = torch.nn.Conv2d(train.x.shape[1], 64, 3, padding=1, bias=False)
    if not options.pool:
        net.maxpool = torch.nn.Identity()
    net = net.to(options.device)
    loader = DataLoader(Moved(), batch_size=options.batch_size, shuffle=True, drop_last=True)
    optimiser = torch.optim.SGD(net.parameters(), lr=options.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, total_steps=options.epochs * len(loader))
    for _ in range(options.epochs):
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(net(x.to(options.device)), y.to(options.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def accuracy(net, test, options):
    """In percent."""
    import torch

    with torch.no_grad():
        outputs = torch.cat([net(part.float().to(options.device)).cpu() for part in test.x.split(options.batch_size)])
    return 100.0 * float((outputs.argmax(1) == test.y).double().mean())


def job(argument):
    """All arms on one set and seed."""
    name, options, seed = argument
    warnings.simplefilter("ignore")
    from torch import nn
    from torchvision.transforms import InterpolationMode, v2

    import bayesinv

    train, test = split(name, options, seed)
    began = time.perf_counter()
    aug = learned(name, train, options, seed)
    learning = time.perf_counter() - began
    turn = v2.RandomRotation(ANGLE, interpolation=InterpolationMode.BILINEAR)
    arms = {
        "none": nn.Identity(),
        "by hand": turn if name == "digits" else v2.Compose([turn, v2.RandomHorizontalFlip()]),
        "exported": aug,
    }
    found = {"set": name, "seed": seed, "learning": learning}
    for arm, augment in arms.items():
        net = trained(augment, train, int(train.y.max()) + 1, options, seed)
        found[arm] = accuracy(net, test, options)
        if arm == "exported":
            averaged = bayesinv.InvariantPredictor(net, aug, options.num_copies).eval().to(options.device)
            found["averaged"] = accuracy(averaged, test, options)
    found["extents"] = {s["name"]: s["words"] for s in aug.numbers()["symmetries"]}
    values = ", ".join(f"{arm} {found[arm]:.1f}" for arm in (*ARMS, "averaged"))
    print(f"{name} seed {seed}: {values}; {learning:.0f} s to learn", flush=True)
    return found


def paired(gaps):
    """ "-0.4 ± 0.3": mean and standard error over seeds, which needs two."""
    mean = math.fsum(gaps) / len(gaps)
    if len(gaps) < 2:
        return f"{mean:+.2f}"
    variance = math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    return f"{mean:+.2f} ± {math.sqrt(variance / len(gaps)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=["digits", "cifar10"], default=["digits", "cifar10"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--num-train", type=int, default=500)
    parser.add_argument("--num-test", type=int, default=2000, help="of CIFAR-10; digits take the rest")
    parser.add_argument("--epochs", type=int, default=60, help="of ResNet-18")
    parser.add_argument("--pool", action="store_true", help="keep the first pooling of ResNet-18: three times as fast")
    parser.add_argument("--learn-epochs", type=int, default=60, help="of the network that learns extents on CIFAR-10")
    parser.add_argument(
        "--determinant",
        default="equivalent",
        help="of that network, as in LaplaceEvidence; equivalent: and weights of its own at several extents",
    )
    parser.add_argument("--max-steps", type=int, default=None, help="of the Gaussian process on digits")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--num-copies", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", default=None)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    arguments = [(name, options, seed) for name in options.sets for seed in options.seeds]
    results = list(side_by_side(job, arguments, options.jobs))
    print(provenance())
    print(f"{options.num_train} training images, {options.epochs} epochs, seeds {options.seeds}; test accuracy, %\n")
    columns = (*ARMS, "averaged")
    rows = []
    for name in options.sets:
        these = [r for r in results if r["set"] == name]
        gaps = [r["exported"] - r["by hand"] for r in these]
        cells = [mean_and_range([r[c] for r in these]) for c in columns]
        rows.append(
            [name, *cells, mean_and_range(gaps), paired(gaps), mean_and_range([r["learning"] for r in these], 0)]
        )
    print_table(["set", *columns, "exported - by hand", "its mean ± error", "seconds to learn"], rows)
    print("\nlearned extents, medians:")
    for r in results:
        print(r["set"], "seed", r["seed"], ", ".join(f"{k} {v}" for k, v in r["extents"].items()))


if __name__ == "__main__":
    main()
