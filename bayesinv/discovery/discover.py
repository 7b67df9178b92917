"""``bayesinv.discover``: generators and permutations that nobody listed, with a posterior."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones import GaussianProcess
from bayesinv.backbones.own_copy import own_copy
from bayesinv.data.container import Data, as_data, first_of
from bayesinv.discovery.algebra import Algebra, algebra_for
from bayesinv.discovery.evidence import FlowEvidence
from bayesinv.discovery.names import recognise
from bayesinv.discovery.permutations import find_permutations
from bayesinv.discovery.result import Discovery
from bayesinv.discovery.search import Candidate, Search
from bayesinv.errors import DataError, DataWarning, first_line
from bayesinv.evidence.gaussian import GaussianEvidence
from bayesinv.inference.fit import fit
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.arguments import as_integer, as_number
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.transforms import Transform

__all__ = ["discover"]

LIKELIHOODS = ("auto", "gaussian", "categorical")
FEWEST = 30  # examples
# By the number of coordinates; 0 is images. Too few end the search early: of three coordinates 256 gave one generator
# for four, and of four 512 gave one for the six of so(1,3), where 1,024 gave all.
FEATURES, MOST_FEATURES = {0: 512, 1: 256, 2: 256, 3: 512}, 1024
LARGEST_RATIO = 30.0  # of the columns' root mean squares, beyond which one lengthscale does not serve all
NUM_DRAWS = 400
LEVEL = 0.9
# Nats by which the function has to beat a constant: below, x says nothing, and everything is a symmetry.
LEAST_GAIN = 3.0
NETWORK_STEP = 1e-2  # of difference quotients through networks, which run in single precision


@ordinary(grad=True)
def discover(
    model: GaussianProcess | Kernel | nn.Module | None,
    data: Any,
    *,
    likelihood: str = "auto",
    algebra: str = "auto",
    permutations: bool = True,
    extents: bool = True,
    tolerance: float = 0.02,
    max_dimension: int | None = None,
    num_examples: int = 500,
    num_points: int = 500,
    num_features: int | None = None,
    seed: int = 0,
) -> Discovery:
    """Find generators A of transforms x ↦ exp(tA) x that leave y as it is, their number, and how sure that is.

        A is a symmetry of f   iff   ∇f(x)ᵀ A x = 0 for all x

    1. Gradients propose: the directions A along which a fitted function changes least (LieGG, LieSD).
    2. The evidence disposes: log p(D | V) of a Gaussian process that does not change along a subspace V of generators,
       in closed form (`bayesinv.discovery.evidence`), is maximised over V, and V grows until the evidence falls.
    3. V has to be a Lie algebra: a function that stays along A and B stays along AB − BA.
    4. Dimensions are compared, and cones drawn, by Laplace's method over the directions in which an algebra may move.
    5. Coordinates that may change places are proposed by the fitted function and weighed by the evidence of averages.

    Args:
        model: the Gaussian process (in feature space) or kernel whose evidence decides; a network that was fitted to
            the data, whose gradients then make the first proposal; or None for the default process.
        data: ``(x, y)``, a `Data`, a `Dataset` or a `DataLoader`. x: rows (n, d) or points (n, atoms, d) in the
            coordinates in which generators are linear, with columns of like scale; or images (n, channels, height,
            width). Symmetries are about the origin: centre points first.
        likelihood: "gaussian" (real targets), "categorical" (labels, as indicators with Gaussian noise), or "auto".
        algebra: "linear", all d x d matrices; "affine", with translations; "auto": linear, for images affine.
        permutations: whether to look for coordinates that may change places (not for images).
        extents: whether to fit the extents along what was found.
        tolerance: ε, the speed along a symmetry, as a share of the typical one, that still counts as none.
        max_dimension: of the largest subspace that is tried; all but one direction by default, and at most.
        num_examples: n of the evidence; random ones, where there are more.
        num_points: M, inputs at which the function may not change, the first so many of the examples. Fewer are
            faster, and leave room between them: in four dimensions 200 of 500 let a false generator in.
        num_features: random features of a default process; by default 256 for up to two coordinates, 512 for
            three and for images, else 1,024.
        seed: of everything random.

    Returns:
        A :class:`Discovery`: `.dimension`, `.probabilities`, `.generators`, `.cones`, `.permutations`, `.transforms()`,
        `.summary()`, `.plot()`.

    Raises:
        TypeError: a model of another kind.
        ValueError: an unknown likelihood or algebra, a process that is not in feature space, or numbers out of range.
        DataError: fewer than 30 examples, constant targets, more than 8 coordinates, one direction only, or inputs of
            another shape.

    Warns:
        DataWarning: columns of very different scales, or directions that move no input.

    References:
        A. Moskalev et al. (2022). LieGG: studying learned Lie group generators. arXiv:2210.04345.
        L. Hu, Y. Li, Z. Lin (2024). Symmetry discovery for different data types (LieSD). arXiv:2410.09841.

    Example:
        >>> x = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> found = discover(None, (x, x.norm(dim=1).sin()), extents=False, permutations=False)
        >>> found.dimension, found.group
        (1, 'so(2)')
    """
    began = time.perf_counter()
    as_integer("num_examples", num_examples, FEWEST)
    as_integer("num_points", num_points)
    if num_features is not None:
        as_integer("num_features", num_features)
    as_number("tolerance", tolerance)
    seed = as_integer("seed", seed, 0, 2**32 - 1)
    examples, targets = _examples(data, likelihood, num_examples, seed)
    x = examples.x.detach().cpu().double()
    directions = algebra_for(x, algebra)
    if directions.num_still:
        note = f"x: {directions.num_still} directions of the algebra move no input, and are left out"
        warnings.warn(note, DataWarning, stacklevel=3)  # of this function, `ordinary`, and who called
    if directions.size < 2:
        raise DataError(
            "x: expected at least two directions to tell apart, got one, which changes the only column that moves; "
            'pass more columns, or algebra="affine"'
        )
    _warn_of_scales(x, directions)
    largest = directions.size - 1  # along all directions only constants stay
    most = largest if max_dimension is None else as_integer("max_dimension", max_dimension, 1, largest)
    process, network = _process(model, num_features, directions)
    noise = GaussianEvidence()
    variance = noise.initialise(Data(x, targets))
    process.initialise(x, variance, seed)

    def embed(points: Tensor) -> Tensor:
        return process.embed(points[None])[0].flatten(1).double()

    few = x[: min(num_points, len(x))]
    step = None if process.features is None else NETWORK_STEP
    motions = directions.tangents(few, embed, step)
    evidence = FlowEvidence(process, noise, embed(x)[None], targets, motions, tolerance)
    proposals = None if network is None else _network_speeds(network, few, directions)
    candidates = Search(evidence, directions, proposals, most, seed).run()
    depends = candidates[0].log_evidence > _constant(targets) + LEAST_GAIN
    chosen = max(candidates, key=lambda c: c.log_evidence) if depends else candidates[0]
    swaps = None
    if permutations and depends and directions.kind != "image":
        none = candidates[0]
        swaps = find_permutations(evidence, x, none.u, none.log_joint, embed, _axes(examples, directions))
    found = _discovery(chosen, candidates, directions, examples, swaps, depends, seed)
    settings = {
        "tolerance": tolerance,
        "num_examples": len(x),
        "num_points": len(few),
        "num_features": process.num_features,
        "seed": seed,
    }
    posterior = None
    transforms = found.transforms()
    if extents and transforms:
        posterior = _extents(transforms, examples, process, seed)
    return dataclasses.replace(
        found,
        posterior=posterior,
        seconds=time.perf_counter() - began,
        evaluations=evidence.evaluations,
        settings=settings,
    )


def _examples(data: Any, likelihood: str, num_examples: int, seed: int) -> tuple[Data, Float[Tensor, "n C"]]:
    """Checked examples in random order, at most so many, and their targets as real numbers."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood: expected one of {list(LIKELIHOODS)}, got {likelihood!r}")
    if likelihood == "auto":
        likelihood = "gaussian" if first_of(data)[1].is_floating_point() else "categorical"
    examples = as_data(data, likelihood, seed=seed)
    if len(examples) < FEWEST:
        raise DataError(f"x holds {len(examples)} examples; expected at least {FEWEST}, or nothing can be told apart")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:num_examples]
    examples = examples.subset(order)
    if examples.num_classes is None:
        targets = examples.y.detach().cpu().double()
    else:
        if examples.y.ndim != 1:
            raise DataError(f"y: expected one label an input, (n,), got shape {tuple(examples.y.shape)}")
        targets = F.one_hot(examples.y.cpu(), examples.num_classes).double()
    if not bool(targets.var(0).sum() > 0):
        raise DataError("y is constant, so that every transform is a symmetry; expected targets that vary")
    return examples, targets


def _process(
    model: Any, num_features: int | None, algebra: Algebra
) -> tuple[GaussianProcess, Callable[[Tensor], Tensor] | None]:
    """The process whose evidence decides, and a network that proposes, if one came."""
    axes = 0 if algebra.kind == "image" else algebra.num_axes
    features = FEATURES.get(axes, MOST_FEATURES) if num_features is None else num_features
    if isinstance(model, GaussianProcess):
        if model.space != "features":
            raise ValueError(
                f"model: expected a Gaussian process in feature space, got one in {model.space!r}; leave num_inducing "
                "out and take a stationary kernel"
            )
        process = copy.deepcopy(model).cpu()  # where the evidence is computed
        if not process.features_given or num_features is not None:
            kernel = None if process.is_default_kernel else process.kernel
            process = GaussianProcess(kernel, features=process.features, num_features=features)
        return process, None
    if isinstance(model, Kernel):
        return GaussianProcess(copy.deepcopy(model).cpu(), num_features=features), None
    process = GaussianProcess(num_features=features)
    if model is None:
        return process, None
    if isinstance(model, InvarianceModel) or not isinstance(model, nn.Module):
        raise TypeError(
            f"model: expected a GaussianProcess, a kernel, a fitted torch.nn.Module or None, got {type(model).__name__}"
        )
    network = own_copy(model, "model", replaces_weights=False).cpu().requires_grad_(False).eval()
    weight = next(network.parameters(), None)

    def outputs(points: Tensor) -> Tensor:
        try:
            out = network(points.to(torch.float32 if weight is None else weight.dtype))
        except Exception as error:
            came = tuple(points.shape)
            raise DataError(f"model: the network failed on inputs of shape {came}: {first_line(error)}") from error
        if not isinstance(out, Tensor) or len(out) != len(points):
            raise DataError(f"model: expected a network from (n, *event) to (n, outputs); {type(out).__name__} came")
        return out.flatten(1).double() if out.ndim > 1 else out[:, None].double()

    return process, outputs


def _network_speeds(
    network: Callable[[Tensor], Tensor], x: Float[Tensor, M * event], algebra: Algebra
) -> Float[Tensor, "p p"]:
    """mean_j ξ_i f(x_j) ξ_l f(x_j) of a network."""
    changes = algebra.tangents(x, network, NETWORK_STEP)  # (p, M, C)
    return torch.einsum("imc,jmc->ij", changes, changes) / len(x)


def _warn_of_scales(x: Tensor, algebra: Algebra) -> None:
    if algebra.kind == "image":
        return
    sizes = x.square().mean(tuple(range(x.ndim - 1))).sqrt()
    positive = sizes[sizes > 0]
    if len(positive) and float(positive.max() / positive.min()) > LARGEST_RATIO:
        note = (
            f"x: the root mean squares of the columns go from {float(positive.min()):.3g} to "
            f"{float(positive.max()):.3g}; the kernel has one lengthscale: standardise the columns, or give a kernel "
            "with one each (ard_num_dims)"
        )
        warnings.warn(note, DataWarning, stacklevel=4)


def _constant(y: Float[Tensor, "n C"]) -> float:
    """log p(y) of a constant and Gaussian noise, at its best variance less the cost of learning it."""
    variance = float(y.var(0, correction=0).mean())
    return -0.5 * y.numel() * (math.log(2.0 * math.pi * variance) + 1.0) - math.log(len(y))


def _axes(examples: Data, algebra: Algebra) -> tuple[str, ...]:
    if algebra.kind == "image":
        return ("x", "y")
    if examples.columns is not None and examples.x.ndim == 2:
        return tuple(examples.columns)
    d = algebra.num_axes
    return ("x", "y", "z")[:d] if d <= 3 else tuple(f"x{i + 1}" for i in range(d))


def _discovery(
    chosen: Candidate,
    candidates: list[Candidate],
    algebra: Algebra,
    examples: Data,
    swaps: Any,
    depends: bool,
    seed: int,
) -> Discovery:
    """The result without extents."""
    logs = {c.dimension: c.log_evidence for c in (candidates if depends else candidates[:1])}
    top = max(logs.values())
    total = sum(math.exp(value - top) for value in logs.values())
    probabilities = {k: math.exp(value - top) / total for k, value in sorted(logs.items())}
    axes = _axes(examples, algebra)
    group: str | None = None
    names: tuple[str, ...] = ()
    cones: tuple[float, ...] = ()
    cone: float | None = None
    V = chosen.V
    frames = torch.empty(0, *chosen.V.shape, dtype=torch.float64)
    if chosen.dimension:
        frames = chosen.draws(NUM_DRAWS, seed)
        outside = chosen.V - frames @ (frames.mT @ chosen.V)  # (draws, p, k): of each generator
        cone = _degrees(torch.linalg.matrix_norm(outside, 2))
        group, names, V = recognise(chosen.V, algebra, cone, axes)
        turn = chosen.V.mT @ V  # of the basis that the names are for
        outside, frames = outside @ turn, frames @ turn
        cones = tuple(_degrees(column) for column in outside.norm(dim=1).T)
        if group is None:  # signs are free: the largest entry is positive
            signs = torch.gather(V, 0, V.abs().argmax(0)[None]).sign()
            V, frames = V * signs, frames * signs
    return Discovery(
        dimension=chosen.dimension,
        probabilities=probabilities,
        log_evidences=dict(sorted(logs.items())),
        generators=_unit(algebra.outward(V)),
        names=names,
        group=group,
        cones=cones,
        cone=cone,
        draws=torch.stack([_unit(algebra.outward(W)) for W in frames]) if len(frames) else algebra.outward(V)[None, :0],
        permutations=() if swaps is None else swaps[0],
        permutation_group=() if swaps is None else swaps[1],
        posterior=None,
        kind=algebra.kind,
        axes=axes,
        depends=depends,
        seconds=0.0,
        evaluations=0,
    )


def _unit(G: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k rows columns"]:
    """|A|_F = 1."""
    return G / G.flatten(1).norm(dim=1)[:, None, None] if len(G) else G


def _degrees(sines: Float[Tensor, " draws"]) -> float:
    """The quantile of angles at LEVEL."""
    return math.degrees(float(sines.clamp(0.0, 1.0).asin().quantile(LEVEL)))


def _extents(transforms: list[Transform], examples: Data, process: GaussianProcess, seed: int) -> Any:
    """The posterior of the extents along what was found."""
    kernel = None if process.is_default_kernel else process.kernel
    backbone = GaussianProcess(kernel, features=process.features, num_features=process.num_features)
    likelihood = "gaussian" if examples.num_classes is None else "categorical"
    model = InvarianceModel(backbone, transforms, likelihood=likelihood)
    return fit(model, examples, seed=seed)
