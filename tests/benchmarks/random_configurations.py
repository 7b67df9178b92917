"""Random configurations at `fit` and `predict`: each ends in a finite result or in a named error.

    python tests/benchmarks/random_configurations.py --jobs 2                # 500, about 15 minutes on one core
    python tests/benchmarks/random_configurations.py --first-seed 137 --num 1 --traceback

A configuration is a function of its seed alone: images, signals, point clouds or tables of random shape and dtype, at
scales of 1e-6 to 1e6, random, constant, duplicated, sparse or with an outlier; one to forty examples; real targets or
labels with few or many classes, balanced or all but one of a class; a Gaussian process, a deep kernel or a network,
some with one layer at two places, each evidence, every kind of inference, priors that are default, extremely narrow,
fixed, off or pushing outwards. They come as arrays of any byte order and strides, memory maps, masked arrays without a
mask, lists, tensors, and as data sets and loaders of every kind of sampler, some of which draw with replacement or have
no end. One in five has something wrong with its data on purpose, and has to be refused.

What counts: "valid" is a fit whose extents, trace and evidence are finite and inside their supports, and whose
predictions at the training inputs, at new ones and at ones a thousand times larger are finite (probabilities that sum
to one, variances that are not negative); a loader counts for as many examples as it serves different ones. "named" is a
class of `bayesinv.errors` with a text that says what to do. In any case the caller's arrays and the generators of the
process are as they were. Everything else is an offender: another exception, a NaN, data that are wrong and were fitted,
or more than a minute.
"""

import argparse
import collections
import contextlib
import inspect
import itertools
import math
import os
import random
import signal
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset, WeightedRandomSampler

from bayesinv.data.arrays import as_tensor

KINDS = ("images", "signals", "points", "tables")
BACKBONES = ("gp", "deep_kernel", "frozen_deep_kernel", "network")
CONTENTS = (
    "normal",
    "uniform",
    "constant",
    "zero",
    "duplicated",
    "few_values",
    "sparse",
    "outlier",
    "constant_channel",
)
WRONGS = (
    "nan_x", "inf_x", "integer_x", "rank_x", "empty", "lengths", "nan_y", "labels_out_of_range", "negative_labels",
    "float_labels", "one_hot", "one_class", "object_x", "complex_x", "masked_x", "endless", "empty_loader", "stops",
)  # fmt: skip
LAYOUTS = ("plain", "big_endian", "reversed", "fortran", "read_only", "memory_map", "masked", "list", "requires_grad")
SOURCES = (
    "arrays", "tensors", "dataset", "loader", "shuffling", "replacement", "weighted", "batch_sampler", "iterable",
    "iterable_loader", "endless_sized", "workers",
)  # fmt: skip
POINT = ("augerino", "augnet", "fixed", "policy", "none")
LATENT = ("default", "narrow", "spike", "tiny", "outward", "spike_and_slab")
PRIORS = (*LATENT, "fixed", "off", "largest")
GROUPS = ("Flip", "CyclicRotation", "Dihedral", "SignFlip", "Reflection3d")
SECONDS = 60
SHORTEST_TEXT = 30  # of an error: shorter ones say neither what was expected nor what came


@dataclass(frozen=True)
class Configuration:
    """Everything that a fit takes, in words and numbers.

    Args:
        seed: what all of it was drawn from.
        wrong: what is wrong with the data on purpose; None if nothing is.
    """

    seed: int
    kind: str
    event: tuple[int, ...]
    n: int
    dtype: str
    scale: float
    content: str
    likelihood: str
    y_scale: float
    num_classes: int
    imbalance: str
    backbone: str
    evidence: str
    inference: str
    options: dict[str, Any] = field(default_factory=dict)
    priors: str = "default"
    symmetries: tuple[str, ...] = ()
    num_orbit_samples: int = 4
    precision: str = "mixed"
    steps: int = 4
    wrong: str | None = None
    layout: str = "plain"
    source: str = "arrays"
    in_place: bool = False
    shared: bool = False

    def __str__(self) -> str:
        facts = {k: v for k, v in vars(self).items() if k not in ("seed", "options") and v is not None}
        facts |= {f"options.{k}": v for k, v in self.options.items()}
        return f"seed {self.seed}: " + ", ".join(
            f"{k}={v:.3g}" if type(v) is float else f"{k}={v}" for k, v in facts.items()
        )


@dataclass(frozen=True)
class Outcome:
    """How a configuration ended: "valid", "named" or "offender", and what was seen."""

    configuration: Configuration
    result: str
    error: str
    text: str
    seconds: float


def draw(seed: int) -> Configuration:
    """The configuration of a seed."""
    rng = np.random.default_rng(seed)

    def pick(*values: Any, p: Any = None) -> Any:
        return values[int(rng.choice(len(values), p=p))]

    kind = pick(*KINDS, p=[0.4, 0.2, 0.2, 0.2])
    n = int(rng.integers(1, 6)) if rng.random() < 0.35 else int(rng.integers(6, 41))
    backbone = pick(*BACKBONES, p=[0.45, 0.08, 0.07, 0.4])
    is_gp = backbone in ("gp", "frozen_deep_kernel")
    likelihood = pick("categorical", "gaussian") if is_gp else pick("categorical", "gaussian", "bernoulli")
    evidences = {"categorical": ("dirichlet", "softmax", "stochastic"), "gaussian": ("gaussian", "stochastic")}
    evidence = pick(*evidences[likelihood]) if is_gp else pick("laplace", "plugin", p=[0.7, 0.3])
    if is_gp:
        inference = "nuts" if rng.random() < 0.08 and evidence != "stochastic" else "vi"
    elif backbone == "deep_kernel":
        inference = "vi"
    else:
        inference = "vi" if rng.random() < 0.5 else pick(*POINT)
    learns = inference in ("augerino", "augnet")  # which takes a latent extent of a continuous symmetry
    num_classes = 2 if likelihood == "bernoulli" else pick(2, 3, 5, int(rng.integers(6, 60)))
    options: dict[str, Any] = {}
    if inference == "vi":
        guides = (
            ("full_rank", "mean_field", "flow") if is_gp and evidence != "stochastic" else ("full_rank", "mean_field")
        )
        options["guide"] = pick(*guides)
    if rng.random() < 0.1 and is_gp:
        options["learning_rate"] = pick(1e-6, 3.0)
    return Configuration(
        seed=seed,
        kind=kind,
        event=_event(kind, rng),
        n=n,
        dtype=pick("float32", "float64", "float16", "numpy", p=[0.5, 0.3, 0.1, 0.1]),
        scale=float(10.0 ** rng.uniform(-6, 6)) if rng.random() < 0.6 else 1.0,
        content=pick(*CONTENTS) if rng.random() < 0.6 else "normal",
        likelihood=likelihood,
        y_scale=float(10.0 ** rng.uniform(-6, 6)) if rng.random() < 0.5 else 1.0,
        num_classes=num_classes,
        imbalance=pick("balanced", "one_of_the_rest", "missing_class", "long_tail", p=[0.5, 0.2, 0.15, 0.15]),
        backbone=backbone,
        evidence=evidence,
        inference=inference,
        options=options,
        priors=pick(*(LATENT if learns else PRIORS)) if rng.random() < 0.6 else "default",
        symmetries=_symmetries(kind, rng, continuous=learns),
        num_orbit_samples=int(rng.integers(1, 9)),
        precision=pick("mixed", "double", p=[0.7, 0.3]),
        steps=int(rng.integers(1, 9)),
        wrong=pick(*WRONGS) if rng.random() < 0.2 else None,
        layout=pick(*LAYOUTS) if rng.random() < 0.6 else "plain",
        source=pick(*SOURCES) if rng.random() < 0.6 else "arrays",
        in_place=bool(rng.random() < 0.3),
        shared=bool(rng.random() < 0.2),
    )


def _event(kind: str, rng: np.random.Generator) -> tuple[int, ...]:
    if kind == "images":
        side = int(rng.integers(2, 13))
        return (int(rng.choice([1, 1, 3, 2])), side, side if rng.random() < 0.8 else int(rng.integers(2, 13)))
    if kind == "signals":
        return (int(rng.integers(1, 4)), int(rng.integers(2, 41)))
    if kind == "points":
        return (int(rng.integers(1, 9)), 3)
    return (int(rng.integers(1, 9)),)


NAMES = {
    "images": ("Affine2d", "Elastic", "Perspective", "GaussianBlur", "GaussianNoise", "Flip", "CyclicRotation",
               "Dihedral"),
    "signals": ("TimeShift", "TimeWarp", "AmplitudeScale", "FrequencyShift", "FourierSurrogate", "TimeMask", "BandStop",
                "ChannelDropout", "SignFlip"),
    "points": ("Rotation3d", "SO3", "Translation3d", "Scale3d", "Jitter3d", "Reflection3d"),
    "tables": ("ColumnShift", "ColumnScale", "ColumnNoise"),
}  # fmt: skip


def _symmetries(kind: str, rng: np.random.Generator, continuous: bool) -> tuple[str, ...]:
    names = [name for name in NAMES[kind] if not (continuous and name in GROUPS)]
    order = rng.permutation(len(names))[: int(rng.integers(1, 3))]
    return tuple(names[i] for i in order)


def _transforms(c: Configuration) -> list[Any]:
    import bayesinv.transforms as T

    made = []
    for name in c.symmetries:
        make = getattr(T, name)
        if name.startswith("Column"):
            made.append(make([0]))
        elif name == "Affine2d":
            made.append(make([["rotation"], ["translate_x", "shear"], None][c.seed % 3]))
        else:
            made.append(make())
    return made


def _values(c: Configuration, n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=(n, *c.event))
    if c.content == "uniform":
        x = rng.random((n, *c.event))
    elif c.content in ("constant", "zero"):
        x = np.full((n, *c.event), 1.0 if c.content == "constant" else 0.0)
    elif c.content == "duplicated":
        x = np.repeat(x[:1], n, 0)
    elif c.content == "few_values":
        x = np.sign(x)
    elif c.content == "sparse":
        x = x * (rng.random(x.shape) < 0.05)
    elif c.content == "outlier":
        x.flat[0] = 1e6
    elif c.content == "constant_channel":
        x[:, 0] = 1.0
    return x * c.scale


def _labels(c: Configuration, rng: np.random.Generator) -> np.ndarray:
    C, n = c.num_classes, c.n
    if c.imbalance == "one_of_the_rest":
        y = np.zeros(n, int)
        y[-1] = C - 1
    elif c.imbalance == "missing_class":
        y = np.arange(n) % max(2, C - 1) if C > 2 else np.arange(n) % 2
    elif c.imbalance == "long_tail":
        y = np.minimum(rng.geometric(0.6, n) - 1, C - 1)
    else:
        y = np.arange(n) % C
    return y


class Items(Dataset):
    """Items (x, y) as a data set gives them; where a seed is given, with what is drawn from every generator."""

    def __init__(self, x: Any, y: Any, stops: bool = False):
        self.x, self.y, self.stops = x, y, stops

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> Any:
        if self.stops and i == len(self.y) - 1:
            raise StopIteration
        torch.rand(()), np.random.rand(), random.random()  # drawn, and of no effect on the values
        return self.x[i], self.y[i]


class Iterated(IterableDataset):
    """The same in order, over and over where it has no end."""

    def __init__(self, items: Items, endless: bool):
        self.items, self.endless = items, endless

    def __iter__(self) -> Any:
        indices = range(len(self.items))
        return (self.items[i] for i in (itertools.cycle(indices) if self.endless else indices))


class Sized(Iterated):
    """One that says how many examples it has."""

    def __len__(self) -> int:
        return len(self.items)


def _laid_out(x: np.ndarray, layout: str, folder: str) -> Any:
    """The same values, as they may lie in memory or on disk."""
    if layout == "big_endian":
        return x.astype(x.dtype.newbyteorder(">"))
    if layout == "reversed":
        return x[(slice(None, None, -1),) * x.ndim].copy()[(slice(None, None, -1),) * x.ndim]
    if layout == "fortran":
        return np.asfortranarray(x)
    if layout == "read_only":
        x = x.copy()
        x.flags.writeable = False
        return x
    if layout == "memory_map":
        path = os.path.join(folder, f"{len(os.listdir(folder))}.dat")  # inputs to predict get a file of their own
        x.tofile(path)
        return np.memmap(path, x.dtype, "r", shape=x.shape)
    if layout == "masked":
        return np.ma.masked_array(x)
    if layout == "list":
        return [torch.from_numpy(row) for row in x]
    return torch.from_numpy(x).requires_grad_() if layout == "requires_grad" else x


def _from_source(x: Any, y: Any, c: Configuration) -> Any:
    """The arrays as data of the configuration's kind."""
    items, n, size = Items(x, y), len(y), 1 + c.seed % 7
    if c.source == "arrays":
        return x, y
    if c.source == "tensors":
        return TensorDataset(as_tensor(x, "x"), as_tensor(y, "y"))
    if c.source == "dataset":
        return items
    if c.source.startswith("iterable") or c.source == "endless_sized":
        iterated = Sized(items, endless=c.source == "endless_sized")
        return iterated if c.source == "iterable" else DataLoader(iterated, batch_size=size)
    samplers: dict[str, Any] = {
        "replacement": lambda: RandomSampler(range(n), replacement=True, num_samples=5 * n),
        "weighted": lambda: WeightedRandomSampler([1.0] * n, 5 * n),
        "batch_sampler": lambda: None,
    }
    if c.source == "batch_sampler":
        return DataLoader(items, batch_sampler=[[], *([i, (i + 1) % n] for i in range(n))])
    if c.source in samplers:
        return DataLoader(items, batch_size=size, sampler=samplers[c.source]())
    return DataLoader(items, size, shuffle=c.source == "shuffling", num_workers=c.source == "workers")


def make_data(c: Configuration, folder: str) -> tuple[Any, Any, list[Any]]:
    """(data for `fit`, new inputs for `predict`, the caller's arrays)."""
    from bayesinv import Data

    rng = np.random.default_rng([c.seed, 1])
    kind = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "numpy": np.float64}[c.dtype]
    x, new = _values(c, c.n, rng), _values(c, 3, rng)
    if kind is np.float16:
        x, new = (np.clip(v, -6e4, 6e4) for v in (x, new))
    x, new = x.astype(kind), new.astype(kind)
    y: np.ndarray
    if c.likelihood == "gaussian":
        outputs = 1 + c.seed % 3
        y = (rng.normal(size=(c.n, outputs)) * c.y_scale).astype(np.float64)
        if c.imbalance == "one_of_the_rest":
            y[:] = y[0]
    else:
        y = _labels(c, rng)
    if c.wrong is not None:
        return _spoiled(c, x, y), torch.from_numpy(new), [x, y]
    if c.layout != "plain" or c.source != "arrays":
        given = _laid_out(x, c.layout, folder)
        return _from_source(given, y, c), _laid_out(new, c.layout, folder), [given, y]
    if c.dtype == "numpy":
        return (x, y), new, [x, y, new]
    x_t, y_t = torch.from_numpy(x), torch.from_numpy(y)
    if c.likelihood == "categorical":
        x_t = x_t.float() if x_t.dtype == torch.float16 else x_t
        return Data(x_t, y_t.long(), c.num_classes), torch.from_numpy(new), [x_t, y, new]
    return (x_t, y_t), torch.from_numpy(new), [x_t, y, new]


def _spoiled(c: Configuration, x: np.ndarray, y: np.ndarray) -> Any:
    """Data with one thing wrong; a fault of labels becomes one of real targets where there are no labels."""
    real = c.likelihood == "gaussian"
    wrong = c.wrong
    if wrong in ("nan_x", "inf_x"):
        x = x.copy()
        x.flat[x.size // 2] = np.nan if wrong == "nan_x" else np.inf
    elif wrong == "integer_x":
        x = np.zeros(x.shape, np.uint8)
    elif wrong == "rank_x":
        x = x.reshape(-1)[: c.n]
    elif wrong == "empty":
        x, y = x[:0], y[:0]
    elif wrong == "lengths":
        y = np.concatenate([y, y[:1]])
    elif wrong == "object_x":
        x = np.array([None] * c.n, object)
    elif wrong == "complex_x":
        x = x.astype(np.complex64)
    elif wrong == "masked_x":
        x = np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) == x.size - 1)
    elif wrong == "endless":
        return Iterated(Items(x, y), endless=True)
    elif wrong == "empty_loader":
        return DataLoader(Items(x, y), sampler=[])
    elif wrong == "stops":
        return DataLoader(Items(x, y, stops=True), batch_size=1 + c.seed % 7)
    elif real or wrong == "nan_y":
        y = y.astype(float)
        y.flat[0] = np.nan
    elif wrong == "labels_out_of_range":
        y = y.copy()
        y[0] = c.num_classes + 7
    elif wrong == "negative_labels":
        y = y.copy()
        y[0] = -1
    elif wrong == "float_labels":
        y = y + 0.5
    elif wrong == "one_hot":
        y = np.eye(c.num_classes, dtype=int)[np.minimum(y, c.num_classes - 1)]
    elif wrong == "one_class":
        y = np.zeros_like(y)
    return x, y


def _network(c: Configuration, outputs: int) -> nn.Module:
    size = math.prod(c.event)
    with torch.random.fork_rng():
        torch.manual_seed(c.seed)
        first = [nn.LeakyReLU(0.9, inplace=True)] if c.in_place else []
        if c.kind == "images" and c.seed % 2:
            return nn.Sequential(
                *first,
                nn.Conv2d(c.event[0], 4, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(16, outputs),
            )
        again = [nn.Linear(6, 6), nn.Tanh()] * 2 if c.shared else []
        return nn.Sequential(*first, nn.Flatten(), nn.Linear(size, 6), nn.Tanh(), *again, nn.Linear(6, outputs))


def _priors(c: Configuration, coordinates: Any) -> dict[str, Any]:
    import pyro.distributions as dist

    from bayesinv import Outward, SpikeAndSlab, Truncated, UniformExtent

    made: dict[str, Any] = {}
    for k in coordinates:
        high = k.largest
        if k.is_discrete and c.priors not in ("off", "fixed", "largest"):
            continue  # a finite group has a prior of its own
        made |= {
            "narrow": {k.name: Truncated(dist.HalfNormal(1e-6 * high), high)},
            "spike": {k.name: dist.Uniform(0.5 * high, 0.5 * high * (1 + 1e-6))},
            "tiny": {k.name: UniformExtent(0.0, 1e-9 * high)},
            "fixed": {k.name: 0.5 * high},
            "largest": {k.name: high},
            "off": {k.name: None},
            "outward": {k.name: Outward(100.0)},
            "spike_and_slab": {k.name: SpikeAndSlab(UniformExtent(0.0, high), inclusion=0.999)},
        }.get(c.priors, {})
    return made


def run(c: Configuration) -> None:
    """Fit and predict; raises what goes wrong, and `Invalid` for a result that is not one."""
    with tempfile.TemporaryDirectory() as folder:
        data, new, given = make_data(c, folder)
        before, states = [_copy(part) for part in given], _states()
        try:
            _fit_and_predict(c, data, new)
        finally:  # also where it was refused
            if not all(map(_same, before, given)):
                raise Changed("the caller's arrays are not as they were")
            if not _same(states, _states()):
                raise Changed("the generators of the process are not as they were")


def _copy(part: Any) -> Any:
    return [_copy(p) for p in part] if isinstance(part, list) else np.array(as_tensor(part, "x"))


def _states() -> list[Any]:
    """Of torch's and NumPy's generators; the shape checks of the tests draw from Python's."""
    return [torch.random.get_rng_state().numpy().copy(), np.random.get_state()[1].copy()]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return np.array_equal(one, np.asarray(other.detach() if torch.is_tensor(other) else other), equal_nan=True)


def _fit_and_predict(c: Configuration, data: Any, new: Any) -> None:
    import bayesinv
    from bayesinv.inference import Augerino, AugNet, Fixed, Policy

    transform = bayesinv.Compose(_transforms(c)) if len(c.symmetries) > 1 else _transforms(c)[0]
    outputs = {"gaussian": 1 + c.seed % 3, "bernoulli": 1}.get(c.likelihood, c.num_classes)
    backbone: Any
    num_inducing = 1 + c.seed % 20
    if c.backbone == "gp":
        backbone = bayesinv.GaussianProcess(num_inducing=num_inducing)
    elif c.backbone == "network":
        backbone = _network(c, outputs)
    else:
        backbone = bayesinv.DeepKernel(
            _network(c, 4), num_inducing=num_inducing, frozen=c.backbone.startswith("frozen")
        )
    model = bayesinv.InvarianceModel(
        backbone,
        transform,
        likelihood=c.likelihood,
        evidence=c.evidence,
        priors=_priors(c, transform.coordinates),
        num_orbit_samples=c.num_orbit_samples,
        precision=c.precision,
    )
    inference: Any = c.inference
    if inference == "fixed":
        inference = Fixed({name: 0.0 for name in transform.names})
    elif inference == "augerino":
        inference = Augerino(regularisation=[0.01, 10.0][c.seed % 2])
    elif inference == "augnet":
        inference = AugNet()
    elif inference == "policy":
        inference = Policy("trivialaugment")
    settings: dict[str, Any] = {"max_steps": c.steps, "num_draws": 5 + c.seed % 20, "seed": c.seed % 7, **c.options}
    if c.backbone in ("deep_kernel", "network") or c.evidence == "stochastic":
        settings["training"] = bayesinv.Training(batch_size=1 + c.seed % 16, extent_batch_size=1 + c.seed % 9)
        settings.pop("learning_rate", None)
    if inference == "nuts":
        settings |= {"num_chains": 1, "num_warmup": 3, "num_draws": 5}
    posterior = bayesinv.fit(model, data, inference, **settings)
    if c.wrong is not None:
        raise Invalid(f"data with the fault {c.wrong!r} were fitted")
    _check_fit(posterior)
    if posterior.result.settings["num_train"] != c.n:
        raise Invalid(f"{posterior.result.settings['num_train']} examples count, of {c.n}")
    scale = 1000 if c.dtype != "float16" else 1
    for inputs in (posterior.data.x, new, as_tensor(new, "x") * scale):
        _check_prediction(posterior.predict(inputs, num_samples=3), len(inputs))


class Changed(Exception):
    """What belongs to the caller is another after the call."""


class Invalid(Exception):
    """A result that is none: not finite, outside its support, or of data that are wrong."""


def _check_fit(posterior: Any) -> None:
    result = posterior.result
    if not bool(torch.isfinite(result.extents).all()):
        raise Invalid("extents that are not finite")
    high = torch.tensor([c.largest for c in posterior.model.transform.coordinates], dtype=torch.float64)
    too_far = result.extents > high * (1 + 1e-6) + 1e-9
    if bool((result.extents < -1e-9).any() or (result.inference != "augerino" and too_far.any())):  # it has no bounds
        raise Invalid("extents outside [0, largest]")
    if not all(map(math.isfinite, result.trace)):
        raise Invalid("a trace that is not finite")
    if result.log_evidence is not None and not math.isfinite(result.log_evidence):
        raise Invalid(f"log evidence {result.log_evidence}")
    table = posterior.summary()
    numbers = table[["median", "lower", "upper"]] if "median" in table else table.select_dtypes("number")
    if not bool(np.isfinite(numbers.to_numpy(dtype=float)).all()):
        raise Invalid("a summary that is not finite")
    posterior.check()


def _check_prediction(prediction: Any, n: int) -> None:
    if len(prediction) != n:
        raise Invalid(f"{len(prediction)} predictions for {n} inputs")
    for name in ("probs", "mean", "variance"):
        value = getattr(prediction, name)
        if value is not None and not bool(torch.isfinite(value).all()):
            raise Invalid(f"prediction.{name} that is not finite")
    if prediction.probs is not None:
        p = prediction.probs.double()
        if bool((p < -1e-6).any()) or float((p.sum(-1) - 1).abs().max()) > 1e-4:
            raise Invalid("probabilities that do not sum to one")
    if prediction.variance is not None and bool((prediction.variance < 0).any()):
        raise Invalid("a negative variance")


def attempt(seed: int) -> Outcome:
    """Run the configuration of a seed and say how it ended."""
    from bayesinv import errors

    named = tuple(
        v
        for v in vars(errors).values()
        if inspect.isclass(v) and issubclass(v, Exception) and not issubclass(v, Warning)
    )
    c = draw(seed)
    began = time.perf_counter()
    result, error, text = "valid", "", ""
    try:
        with warnings.catch_warnings(), _limited(SECONDS):
            warnings.simplefilter("ignore")
            run(c)
    except named as e:
        result, error, text = "named", type(e).__name__, " ".join(str(e).split())
        if len(text) < SHORTEST_TEXT:
            result = "offender"
    except Exception as e:
        own = [f for f in traceback.extract_tb(e.__traceback__)][-1]
        where = f"{'/'.join(own.filename.split('/')[-3:])}:{own.lineno}"
        result, error, text = "offender", type(e).__name__, f"{' '.join(str(e).split())[:400]} [{where}]"
    return Outcome(c, result, error, text, time.perf_counter() - began)


@contextlib.contextmanager
def _limited(seconds: int):
    """Raise in the main thread after so many seconds, where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: Any) -> None:
        raise Invalid(f"took longer than {seconds} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def report(outcomes: list[Outcome]) -> None:
    """Tables of what came out, and every offender with its seed."""
    from common import print_table

    for title, key in {
        "data": lambda c: c.kind,
        "backbone and evidence": lambda c: f"{c.backbone}, {c.evidence}",
        "inference": lambda c: " ".join([c.inference, c.options.get("guide", "")]).strip(),
        "fault": lambda c: c.wrong or "none",
        "source": lambda c: c.source,
        "layout": lambda c: c.layout,
    }.items():
        counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for o in outcomes:
            counts[key(o.configuration)][o.result] += 1
            counts["all"][o.result] += 1
        rows = sorted(counts.items(), key=lambda item: (item[0] == "all", item[0]))
        print_table(
            [title, "valid", "named error", "offender"], [[k, n["valid"], n["named"], n["offender"]] for k, n in rows]
        )
        print()
    named = collections.Counter(
        (o.error, o.configuration.wrong or "-", o.text[:90]) for o in outcomes if o.result == "named"
    )
    print_table(["error", "fault", "text", "number"], [[*k, n] for k, n in sorted(named.items())])
    seconds = [o.seconds for o in outcomes]
    print(
        f"\n{len(outcomes)} configurations in {sum(seconds):.0f} s of one core; the longest took {max(seconds):.0f} s"
    )
    for o in outcomes:
        if o.result == "offender":
            print(f"\nOFFENDER {o.configuration}\n  {o.error}: {o.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=500, help="configurations (500)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (1)")
    parser.add_argument("--traceback", action="store_true", help="run in this process, and let the first error through")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.num)
    if options.traceback:
        for seed in seeds:
            print(draw(seed), flush=True)
            run(draw(seed))
        return
    from common import provenance, side_by_side

    print(provenance(), "\n")
    torch.set_num_threads(1)
    outcomes = list(side_by_side(attempt, seeds, options.jobs))
    report(outcomes)
    raise SystemExit(any(o.result == "offender" for o in outcomes))


if __name__ == "__main__":
    main()
