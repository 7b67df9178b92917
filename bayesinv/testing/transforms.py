"""What every transform must satisfy, as checks that raise an AssertionError with the numbers in it.

One module although it is long: thirteen short checks of one suite, read in order.

By subclassing, which is all that a test file needs::

    from bayesinv.testing.transforms import TransformConformance


    class TestBrightness(TransformConformance):
        def make_transform(self):
            return Brightness()

        def make_input(self):
            return torch.rand(3, 1, 8, 8, dtype=torch.float64)

By parametrising::

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_brightness(check):
        check(TransformCase(Brightness(), torch.rand(3, 1, 8, 8, dtype=torch.float64)))
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesinv.errors import DataError
from bayesinv.orbits.orbit import base_draws
from bayesinv.transforms import Compose, Coordinate, Transform, from_config

__all__ = ["CHECKS", "TransformCase", "TransformConformance", "check_transform", "smooth_images"]


@dataclass(frozen=True)
class TransformCase:
    """A transform and what it is tested on.

    Args:
        transform: the transform under test.
        x: examples in float64, (batch, *event), at least two and not all equal. Where the transform
            interpolates they should be smooth (`smooth_images`): finite differences need it.
        reach: the extents of the test as a fraction of the largest sensible ones.
        inverse_tolerance: of ‖T_{t'} T_t x − x‖ / ‖T_t x − x‖. Exact transforms keep the default;
            one that interpolates blurs, and says how much here. A missing inverse gives 1.
        single_tolerance: of the largest difference between float32 and float64, relative to the
            largest |x|. Rounding is 1e-7; a pixel that is read across an edge amplifies it.
        registered: whether ``config`` must rebuild the transform. Say False for one that is never
            saved.
    """

    transform: Transform
    x: Tensor
    reach: float = 0.3
    inverse_tolerance: float = 1e-8
    single_tolerance: float = 1e-3
    registered: bool = True

    def extents(self) -> Tensor:
        """(K,) in float64."""
        largest = [coordinate.largest for coordinate in self.transform.coordinates]
        return self.reach * torch.tensor(largest, dtype=torch.float64)

    def draws(self, *leading: int, seed: int = 0) -> Tensor:
        """Coordinates t within the extents, (*leading, K + A) in float64; elements of groups in turn."""
        base = base_draws(math.prod(leading), self.transform.num_columns, "monte_carlo", seed)
        return self.at(self.extents(), base).reshape(*leading, -1)

    def at(self, extents: Tensor, base: Tensor) -> Tensor:
        """t of base draws: η·ε, auxiliaries as they are, and an element of each group by the row."""
        columns = []
        for column, k in enumerate(self.transform.columns):
            order = 0 if k is None else self.transform.coordinates[k].order
            eps = base[..., column]
            if order:
                rows = torch.arange(1, eps.numel() + 1, dtype=base.dtype).reshape(eps.shape)
                columns.append(rows % order)
            else:
                columns.append(eps if k is None else extents[k] * eps)
        return torch.stack(columns, -1)

    def identity(self, rows: int) -> Tensor:
        """(rows, K + A): zeros but for the auxiliary columns, which may be anything."""
        base = base_draws(rows, self.transform.num_columns, "monte_carlo", 5)
        auxiliary = torch.tensor([k is None for k in self.transform.columns])
        return torch.where(auxiliary, base, 0.0)

    @property
    def continuous(self) -> list[int]:
        """The coordinates that have a derivative."""
        return [k for k, c in enumerate(self.transform.coordinates) if not c.is_discrete]


def smooth_images(batch: int = 3, channel: int = 2, height: int = 20, width: int = 24) -> Tensor:
    """Sums of soft blobs away from the edges, float64, (batch, channel, height, width).

    Example:
        >>> smooth_images(batch=1, channel=1, height=8, width=8).shape
        torch.Size([1, 1, 8, 8])
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, width, dtype=torch.float64)
    centres = torch.rand(3, 2, batch, channel, 1, 1, generator=generator, dtype=torch.float64) - 0.5
    return sum(
        (torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.08) for cx, cy in centres),
        start=torch.zeros(batch, channel, height, width, dtype=torch.float64),
    )


def check_coordinates(case: TransformCase) -> None:
    """Names are distinct, units are monotone with 0 ↦ 0 and invertible, extents can be said in
    words.
    """
    transform = case.transform
    coordinates = transform.coordinates
    _require(len(coordinates) > 0, "the transform has no coordinates")
    _require(
        all(isinstance(coordinate, Coordinate) for coordinate in coordinates),
        f"`coordinates` has to hold Coordinate objects, and {coordinates!r} came",
    )
    _require(len(set(transform.names)) == len(coordinates), f"names repeat: {transform.names}")
    for coordinate in coordinates:
        name = coordinate.name
        values = torch.linspace(-coordinate.largest, coordinate.largest, 21, dtype=torch.float64)
        people = coordinate.to_people(values)
        zero = float(coordinate.to_people(0.0))
        _require(zero == 0.0, f"{name}: to_people(0) is {zero}, and 0 is expected")
        _require(bool((people.diff() > 0).all()), f"{name}: to_people does not increase")
        _close(coordinate.from_people(people), values, 1e-9, f"{name}: from_people(to_people(t))")
        one = float(coordinate.from_people(coordinate.to_people(0.5 * coordinate.largest)))
        _require(abs(one - 0.5 * coordinate.largest) < 1e-9, f"{name}: the units fail on plain floats")
        _require(coordinate.words(coordinate.largest) != "", f"{name}: words() says nothing")


def check_identity(case: TransformCase) -> None:
    """T_0 x = x on all paths, and the gradient in t there is finite."""
    zero = case.identity(case.x.shape[0])
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        x = case.x.to(dtype)
        each = case.transform.transform(x, zero.to(dtype))
        _close(each, x, tolerance, f"T_0 x against x, {dtype}")
        orbit = case.transform.orbit(x, zero[:1].to(dtype))
        _close(orbit[0], x, tolerance, f"orbit(x, 0) against x, {dtype}")
    if not case.continuous:
        return
    t = zero.clone().requires_grad_()
    value = case.transform.transform(case.x, t).sum()
    _require(value.requires_grad, "transform is detached from t")
    (gradient,) = torch.autograd.grad(value, t)
    _require(bool(gradient.isfinite().all()), "the gradient in t is not finite at t = 0")


def check_moves(case: TransformCase) -> None:
    """Every coordinate does something: T_t x ≠ x for t_k at the test's extent."""
    for k, coordinate in enumerate(case.transform.coordinates):
        column = case.transform.columns.index(k)
        values = range(1, coordinate.order) if coordinate.is_discrete else [float(case.extents()[k])]
        for value in values:
            t = case.identity(case.x.shape[0])
            t[:, column] = value
            moved = (case.transform.transform(case.x, t) - case.x).abs().max()
            _require(bool(moved > 1e-6), f"{coordinate.name}: at t = {value:.3g} nothing changes")


def check_shapes(case: TransformCase) -> None:
    """Output shapes for any leading orbit dimensions, a batch of one, and a K that does not fit."""
    transform, x = case.transform, case.x
    batch, num = x.shape[0], transform.num_columns
    _shape(transform.transform(x, case.draws(batch)), x.shape, "transform(x, t)")
    _shape(transform.transform(x[:1], case.draws(1)), x[:1].shape, "transform of a batch of one")
    for orbit in ((), (1,), (3,), (2, 3)):
        expected = (*orbit, *x.shape)
        points = transform.orbit(x, case.draws(*orbit))
        _shape(points, expected, f"orbit with leading dimensions {orbit}")
        points = transform.orbit_per_example(x, case.draws(*orbit, batch))
        _shape(points, expected, f"orbit_per_example with leading dimensions {orbit}")
    wrong = torch.zeros(batch, num + 1, dtype=x.dtype)
    for name in ("orbit", "orbit_per_example"):
        try:
            getattr(transform, name)(x, wrong)
        except ValueError:
            continue
        _require(False, f"{name} takes {num + 1} coordinates without a ValueError; K is {num}")


def check_dtypes(case: TransformCase) -> None:
    """The output has the dtype of x, whatever that of t, and float32 agrees with float64."""
    t = case.draws(3)
    exact = case.transform.orbit(case.x, t)
    for x_dtype in (torch.float32, torch.float64):
        for t_dtype in (torch.float32, torch.float64):
            points = case.transform.orbit(case.x.to(x_dtype), t.to(t_dtype))
            what = f"x in {x_dtype} with t in {t_dtype}"
            _require(points.dtype == x_dtype, f"{what} gives {points.dtype}; that of x is expected")
            scale = max(1.0, float(case.x.abs().max()))
            _close(points.double(), exact, case.single_tolerance * scale, f"{what} against float64")


def check_shared_against_per_example(case: TransformCase) -> None:
    """orbit, orbit_per_example and transform agree, each with the definition out[s, i] = T_{t_si}
    x_i.
    """
    transform, x = case.transform, case.x
    batch = x.shape[0]
    t = case.draws(2, 3)
    each = t.unsqueeze(-2).expand(2, 3, batch, -1)
    shared = transform.orbit(x, t)
    _close(transform.orbit_per_example(x, each), shared, 1e-10, "orbit_per_example against orbit")
    for s in range(3):
        one = transform.transform(x, each[1, s])
        _close(shared[1, s], one, 1e-10, f"orbit[1, {s}] against transform")
    t = case.draws(2, batch, seed=1)
    points = transform.orbit_per_example(x, t)
    for i in range(batch):
        one = transform.transform(x[i : i + 1], t[1, i : i + 1])[0]
        _close(points[1, i], one, 1e-10, f"orbit_per_example[1, {i}] against example {i} alone")


def check_gradient(case: TransformCase) -> None:
    """d/dη and d/dx of ⟨w, T_{η·ε} x⟩ against central differences in float64, on both paths."""
    transform, x = case.transform, case.x
    batch, num = x.shape[0], transform.num_columns
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2, *x.shape, generator=generator, dtype=torch.float64)
    direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    # Short steps: bilinear interpolation has a kink wherever a sample crosses a pixel, and the
    # chance that one does grows with the step. Rounding costs about 1e-16 / 1e-7.
    step = 1e-7
    for name, eps in (
        ("orbit", base_draws(2, num, "monte_carlo", 2)),
        ("orbit_per_example", base_draws(2 * batch, num, "monte_carlo", 3).reshape(2, batch, num)),
    ):
        path: Callable[[Tensor, Tensor], Tensor] = getattr(transform, name)

        def objective(
            x: Tensor,
            eta: Tensor,
            path: Callable[[Tensor, Tensor], Tensor] = path,
            eps: Tensor = eps,
        ) -> Tensor:
            return (weight * path(x, case.at(eta, eps))).sum()

        eta = case.extents().requires_grad_()
        x_leaf = x.clone().requires_grad_()
        value = objective(x_leaf, eta)
        _require(value.requires_grad, f"{name} is detached from the extents")
        got_x, got_eta = torch.autograd.grad(value, (x_leaf, eta), allow_unused=True)
        _require(got_eta is not None or not case.continuous, f"{name} is detached from the extents")
        _require(got_x is not None, f"{name} is detached from x")
        with torch.no_grad():
            for k in case.continuous:
                coordinate = transform.coordinates[k]
                nudge = torch.zeros_like(eta)
                nudge[k] = step * coordinate.largest
                rise = objective(x, eta + nudge) - objective(x, eta - nudge)
                _derivative(got_eta[k], rise / (2 * nudge[k]), f"{name}: d/d{coordinate.name}")
            rise = objective(x + step * direction, eta) - objective(x - step * direction, eta)
            _derivative((got_x * direction).sum(), rise / (2 * step), f"{name}: d/dx")


def check_composition(case: TransformCase) -> None:
    """Inside `Compose`, before and after another transform, T acts as it does alone."""
    transform, x = case.transform, case.x
    batch, num = x.shape[0], transform.num_columns
    gain = _Gain()
    t, log_gain = case.draws(2, batch), base_draws(2 * batch, 1).reshape(2, batch, 1)
    alone = Compose([transform])
    _close(alone.orbit(x, t[0]), transform.orbit(x, t[0]), 1e-10, "Compose([T]) against T")
    _require(alone.names == transform.names, f"Compose([T]) is named {alone.names}")

    after = Compose([transform, gain])
    _require(after.num_columns == num + 1, f"Compose([T, gain]) has {after.num_columns} columns; {num + 1} expected")
    layout = (0, *[None if k is None else k + 1 for k in transform.columns])
    _require(Compose([gain, transform]).columns == layout, "Compose([gain, T]) mixes up the columns of t")
    both = torch.cat([t, log_gain], -1)
    expected = torch.stack([gain.transform(transform.transform(x, t[s]), log_gain[s]) for s in range(2)])
    _close(after.orbit_per_example(x, both), expected, 1e-10, "Compose([T, gain]), per example")
    before = Compose([gain, transform])
    both = torch.cat([log_gain, t], -1)
    expected = torch.stack([transform.transform(gain.transform(x, log_gain[s]), t[s]) for s in range(2)])
    _close(before.orbit_per_example(x, both), expected, 1e-10, "Compose([gain, T]), per example")
    shared = both[:, 0]  # (2, K + 1)
    each = shared.unsqueeze(1).expand(2, batch, -1)
    expected = before.orbit_per_example(x, each)
    _close(before.orbit(x, shared), expected, 1e-10, "Compose([gain, T]), shared")


def check_inverse(case: TransformCase) -> None:
    """T_{t'} T_t x = x up to interpolation; without an inverse, a NotImplementedError."""
    transform, x = case.transform, case.x
    t = case.draws(x.shape[0])
    try:
        inverse = transform.inverse_coordinates(t)
    except NotImplementedError:
        _require(not transform.invertible, "`invertible` is True and there is no inverse")
        return
    _require(transform.invertible, "`invertible` is False and inverse_coordinates returns")
    _shape(inverse, t.shape, "inverse_coordinates(t)")  # auxiliary columns included
    moved = transform.transform(x, t)
    error = (transform.transform(moved, inverse) - x).norm() / (moved - x).norm()
    _require(
        bool(error <= case.inverse_tolerance),
        f"‖T_t' T_t x − x‖ is {float(error):.2g} of ‖T_t x − x‖; at most "
        f"{case.inverse_tolerance:.2g} is expected (1 is no inverse at all)",
    )


def check_negligible(case: TransformCase) -> None:
    """One positive extent a coordinate, below the largest sensible one."""
    event_shape = tuple(case.x.shape[1:])
    negligible = case.transform.negligible(event_shape)
    _shape(negligible, (case.transform.num_coordinates,), "negligible(event_shape)")
    for value, coordinate in zip(negligible.tolist(), case.transform.coordinates, strict=True):
        _require(
            0 < value < coordinate.largest,
            f"{coordinate.name}: the negligible extent {value} is not between 0 and {coordinate.largest}",
        )


def check_purity(case: TransformCase) -> None:
    """Same input, same output; inputs are left alone, and no global generator is used."""
    x, t = case.x.clone(), case.draws(3)
    before = torch.get_rng_state()
    first = case.transform.orbit(x, t)
    again = case.transform.orbit(x, t)
    _require(torch.equal(before, torch.get_rng_state()), "the global generator was used")
    _require(torch.equal(first, again), "the same x and t gave two different results")
    _require(torch.equal(x, case.x), "x was changed in place")
    _require(torch.equal(t, case.draws(3)), "t was changed in place")


def check_bad_input(case: TransformCase) -> None:
    """`check_input` takes the examples, and raises a DataError for integers and for arrays."""
    case.transform.check_input(case.x)
    case.transform.check_input(case.x.float())
    for bad, what in ((case.x.long(), "an integer tensor"), (case.x.numpy(), "an array")):
        try:
            case.transform.check_input(bad)
        except DataError:
            continue
        _require(False, f"check_input takes {what} without a DataError")


def check_config(case: TransformCase) -> None:
    """Through JSON and back, and through a deep copy, it is the same transform."""
    transform, t = case.transform, case.draws(3)
    expected = transform.orbit(case.x, t)
    _close(copy.deepcopy(transform).orbit(case.x, t), expected, 0.0, "a deep copy")
    if not case.registered:
        return
    config = transform.config()
    try:
        rebuilt = from_config(json.loads(json.dumps(config)))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"config() cannot be rebuilt from {config!r}: {error}") from error
    rebuilt.load_state_dict(transform.state_dict())
    _require(type(rebuilt) is type(transform), f"config() rebuilds a {type(rebuilt).__name__}")
    _require(rebuilt.names == transform.names, f"config() rebuilds the names {rebuilt.names}")
    _require(rebuilt.config() == config, f"config() changes to {rebuilt.config()!r}")
    _close(rebuilt.orbit(case.x, t), expected, 0.0, "the transform rebuilt from config()")


CHECKS: dict[str, Callable[[TransformCase], None]] = {
    "coordinates": check_coordinates,
    "identity": check_identity,
    "moves": check_moves,
    "shapes": check_shapes,
    "dtypes": check_dtypes,
    "shared_against_per_example": check_shared_against_per_example,
    "gradient": check_gradient,
    "composition": check_composition,
    "inverse": check_inverse,
    "negligible": check_negligible,
    "purity": check_purity,
    "bad_input": check_bad_input,
    "config": check_config,
}
"""All checks by name."""


def check_transform(case: TransformCase) -> None:
    """Run all checks; the first that fails raises an AssertionError.

    Example:
        >>> from bayesinv.transforms import Affine2d
        >>> check_transform(TransformCase(Affine2d(), smooth_images(), inverse_tolerance=0.3))
    """
    for check in CHECKS.values():
        check(case)


class TransformConformance:
    """The suite as a test class: subclass it and give `make_transform` and `make_input`.

    pytest does the rest. The other attributes are those of `TransformCase`.
    """

    reach = 0.3
    inverse_tolerance = 1e-8
    single_tolerance = 1e-3
    registered = True

    def make_transform(self) -> Transform:
        """The transform under test."""
        raise NotImplementedError(f"{type(self).__name__} has to define make_transform()")

    def make_input(self) -> Tensor:
        """Examples in float64, (batch, *event); the default is a batch of smooth images."""
        return smooth_images()

    def case(self) -> TransformCase:
        """Transform, examples and tolerances together."""
        return TransformCase(
            self.make_transform(),
            self.make_input(),
            self.reach,
            self.inverse_tolerance,
            self.single_tolerance,
            self.registered,
        )

    def test_coordinates(self) -> None:
        check_coordinates(self.case())

    def test_identity(self) -> None:
        check_identity(self.case())

    def test_moves(self) -> None:
        check_moves(self.case())

    def test_shapes(self) -> None:
        check_shapes(self.case())

    def test_dtypes(self) -> None:
        check_dtypes(self.case())

    def test_shared_against_per_example(self) -> None:
        check_shared_against_per_example(self.case())

    def test_gradient(self) -> None:
        check_gradient(self.case())

    def test_composition(self) -> None:
        check_composition(self.case())

    def test_inverse(self) -> None:
        check_inverse(self.case())

    def test_negligible(self) -> None:
        check_negligible(self.case())

    def test_purity(self) -> None:
        check_purity(self.case())

    def test_bad_input(self) -> None:
        check_bad_input(self.case())

    def test_config(self) -> None:
        check_config(self.case())


class _Gain(Transform):
    """x·exp(t), an exact transform of any example, to compose with."""

    coordinates = (Coordinate("conformance_gain", "", 1.0),)

    def transform(self, x: Tensor, t: Tensor) -> Tensor:
        return x * t[:, 0].exp().to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _shape(value: Tensor, expected: tuple[int, ...], what: str) -> None:
    _require(
        tuple(value.shape) == tuple(expected),
        f"{what} has shape {tuple(value.shape)}; {tuple(expected)} is expected",
    )


def _close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    _shape(got, tuple(expected.shape), what)
    error = float((got - expected).abs().max())
    _require(error <= tolerance, f"{what}: off by {error:.3g}; at most {tolerance:.3g} is expected")


def _derivative(got: Tensor, expected: Tensor, what: str) -> None:
    error = float((got - expected).abs() / (1.0 + expected.abs()))
    _require(
        error <= 1e-4,
        f"{what} is {float(got):.8g}, and finite differences give {float(expected):.8g}",
    )
