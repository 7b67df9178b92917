"""Output actions: what T' does is undone, exactly where the grid allows, and what cannot be undone is refused."""

import math

import pytest
import torch

from bayesinv.transforms import (
    SO3,
    Affine2d,
    Affine3d,
    AmplitudeScale,
    Colour,
    ColumnShift,
    Compose,
    Coordinate,
    CyclicRotation,
    Dihedral,
    Flip,
    ImageAction,
    Jitter3d,
    OutputAction,
    Permutation,
    Perspective,
    Reflection3d,
    Rotation3d,
    Scale3d,
    SignFlip,
    TimeShift,
    Transform,
    Translation3d,
    VectorAction,
    as_action,
    undo,
)


class Brightness(Transform):
    coordinates = (Coordinate.linear("brightness", "%", 1.0, 100.0),)
    fixes_frame = True

    def transform(self, x, t):
        return x + t[:, 0].to(x).reshape(-1, *[1] * (x.ndim - 1))


class Swirl(Brightness):
    fixes_frame = False


def images(n=2, channels=3, size=6):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


EXACT = [
    (CyclicRotation(4), [[0.0], [1.0], [2.0], [3.0]]),
    (Dihedral(4), [[float(g)] for g in range(8)]),
    (Compose([Flip(), Flip(-2)]), [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    (Compose([CyclicRotation(4), Flip()]), [[1.0, 1.0], [3.0, 1.0], [1.0, 0.0]]),
    (Permutation.cyclic(6, dim=-2), [[1.0], [4.0]]),
    (Compose([Affine2d(["rotation"]), Flip(-2)]), [[math.pi / 2, 1.0], [-math.pi / 2, 0.0], [math.pi, 1.0]]),
    (Compose([Affine2d(["rotation"]), Brightness(), Colour(["hue"]), Flip()]), [[math.pi / 2, 0.0, 0.0, 1.0]]),
]


@pytest.mark.parametrize(("transform", "t"), EXACT, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("each", [False, True])
def test_images_come_back_exactly(transform, t, each):
    x, t = images(), torch.tensor(t, dtype=torch.float64)
    if each:
        t = torch.stack([t, t.flip(0)], 1)  # (copies, n, columns)
        copies = transform.orbit_per_example(x, t)
    else:
        copies = transform.orbit(x, t)
    back, coverage = undo(ImageAction(transform), copies, t)
    assert torch.allclose(back, x.expand_as(back), atol=1e-12)
    assert coverage.shape == (len(t), 2 if each else 1, 6, 6)
    assert float(coverage.min()) > 1 - 1e-9


def test_perspective_is_taken_back_where_it_is_covered():
    transform, t = Perspective(), torch.tensor([[0.15, -0.1]], dtype=torch.float64)
    rows = torch.linspace(0, 1, 24, dtype=torch.float64)
    x = (rows[:, None] + rows)[None, None]  # linear, so that reading between pixels is exact
    back, coverage = undo(ImageAction(transform), transform.orbit(x, t), t)
    inner = coverage[0, :, 6:-6, 6:-6]
    assert float(inner.min()) > 1 - 1e-9
    assert float((back[0] - x)[..., 6:-6, 6:-6].abs().max()) < 0.02


def test_the_opposite_order_matters():
    transform = Compose([CyclicRotation(4), Flip()])
    x, t = images(), torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    same_order = Flip()(CyclicRotation(4)(transform.orbit(x, t)[0], torch.tensor([[3.0]] * 2)), torch.ones(2, 1))
    assert not torch.allclose(same_order, x)


def test_what_left_the_frame_is_not_covered():
    transform = Affine2d(["translate_x"])
    t = torch.tensor([[1.0 / 3.0]], dtype=torch.float64)  # one pixel of six to the right
    moved = transform.orbit(images(), t)
    back, coverage = undo(ImageAction(transform), moved, t)
    assert torch.allclose(coverage[0, 0, :, -1], torch.zeros(6, dtype=torch.float64))
    assert torch.allclose(coverage[0, 0, :, :-1], torch.ones(6, 5, dtype=torch.float64))
    assert torch.allclose(back[0, ..., :-1], images()[..., :-1])
    assert not bool(back[0, ..., -1].any())
    half = torch.tensor([[1.0 / 6.0]], dtype=torch.float64)
    ones, share = undo(ImageAction(transform), torch.ones(1, 1, 1, 6, 6, dtype=torch.float64), half)
    assert torch.allclose(share[0, 0, :, -1], torch.full((6,), 0.5, dtype=torch.float64))
    assert torch.allclose(ones, torch.ones_like(ones))  # a border does not fade


def test_outputs_of_another_resolution_move_by_the_same_part_of_the_frame():
    transform, t = Affine2d(["translate_x"]), torch.tensor([[1.0 / 3.0]], dtype=torch.float64)
    small, large = images(size=6), images(size=6).repeat_interleave(2, -1).repeat_interleave(2, -2)
    back = [undo(ImageAction(transform), transform.orbit(x, t), t)[0] for x in (small, large)]
    assert torch.allclose(back[1][..., ::2, ::2], back[0])


@pytest.mark.parametrize(
    ("transform", "columns"),
    [
        (Rotation3d(), 3),
        (SO3(), 3),
        (Compose([Rotation3d(["rotation_x"]), Reflection3d("y"), Scale3d(), Translation3d()]), 6),
        (Affine3d(), 12),
    ],
    ids=["Rotation3d", "SO3", "Compose", "Affine3d"],
)
@pytest.mark.parametrize("each", [False, True])
def test_differences_of_points_come_back(transform, columns, each):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    t = 0.7 * torch.randn(5, *([4] if each else []), columns, generator=generator, dtype=torch.float64)
    if any(c.is_discrete for c in transform.coordinates):
        t[..., 1] = (t[..., 1] > 0).double()
    moved = transform.orbit_per_example(x, t) if each else transform.orbit(x, t)
    v = moved[:, :, 0] - moved[:, :, 1]
    back, coverage = undo(VectorAction(transform), v, t)
    assert coverage is None
    assert torch.allclose(back, (x[:, 0] - x[:, 1]).expand_as(back), atol=1e-10)


def test_jitter_leaves_vectors_alone():
    v = torch.randn(3, 2, 3)
    assert torch.equal(VectorAction(Jitter3d()).inverse(v, torch.ones(3, 5)), v)


@pytest.mark.parametrize(
    ("action", "transform"),
    [
        ("image", Swirl()),
        ("image", Compose([Affine2d(["rotation"]), Swirl()])),
        ("image", Rotation3d()),
        ("image", Flip(-4)),
        ("image", TimeShift()),
        ("image", AmplitudeScale()),
        ("image", ColumnShift([0])),
        ("image", Jitter3d()),
        ("vector", Affine2d(["rotation"])),
        ("vector", Compose([Rotation3d(), Swirl()])),
    ],
)
def test_what_cannot_be_taken_back_is_refused(action, transform):
    with pytest.raises(ValueError, match=f'output_action="{action}": .* says neither how'):
        as_action(action, transform)


def test_channels_of_the_input_are_not_those_of_the_output():
    action = ImageAction(Permutation.symmetric(3, dim=-3))
    outputs = torch.rand(1, 2, 1, 4, 4)
    assert torch.equal(action.inverse(outputs, torch.tensor([[4.0]])), outputs)


def test_the_sign_of_the_input_is_not_that_of_the_output():
    outputs = torch.rand(2, 3, 1, 4, 4)
    assert torch.equal(ImageAction(SignFlip()).inverse(outputs, torch.tensor([[0.0], [1.0]])), outputs)


def test_names_objects_and_mistakes():
    transform = Affine2d(["rotation"])
    assert as_action(None, transform) is None
    assert isinstance(as_action("image", transform), ImageAction)

    class Negate:
        def inverse(self, outputs, t):
            return -outputs

    class Shorten:
        def inverse(self, outputs, t):
            return outputs[..., :1]

    own = as_action(Negate(), transform)
    assert isinstance(own, OutputAction)
    assert own.name == "custom"
    outputs = torch.ones(2, 3, 4)
    assert torch.equal(undo(own, outputs, torch.zeros(2, 1))[0], -outputs)
    with pytest.raises(ValueError, match="keep the shape"):
        as_action(Shorten(), transform).inverse(outputs, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="expected None, one of"):
        as_action("picture", transform)
    with pytest.raises(TypeError, match="expected None, one of"):
        as_action(3, transform)
    with pytest.raises(ValueError, match="expected outputs"):
        ImageAction(transform).inverse(outputs, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="three wide"):
        VectorAction(Rotation3d()).inverse(outputs, torch.zeros(2, 3))


def test_gradients_with_respect_to_t():
    transform = Affine2d(["rotation", "translate_x"])
    outputs = torch.rand(2, 2, 1, 5, 5, dtype=torch.float64)
    t = torch.tensor([[0.3, 0.1], [-0.2, 0.05]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: undo(ImageAction(transform), outputs, t)[0], t)
    points, v = Rotation3d(), torch.rand(2, 2, 3, dtype=torch.float64)
    angles = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: VectorAction(points).inverse(v, t), angles)
