"""Extents as a function of the input: conformance, and which input moves how far."""

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.extents import Extents, in_common, shrinkage
from bayesinv.orbits.orbit import Orbit
from bayesinv.testing.transforms import TransformConformance, smooth_images
from bayesinv.transforms import Affine2d, Colour, Compose, Flip, PerInput


class TestPerInput(TransformConformance):
    def make_transform(self):
        return PerInput.near(Affine2d(["rotation", "scale_x"]), smooth_images(6, height=20, width=24), 2, 3)


class TestColours(TransformConformance):
    def make_transform(self):
        return PerInput.near(Colour(["brightness"]), smooth_images(6, height=20, width=24), 3)


def two_kinds():
    """Five dark images, five bright ones."""
    return torch.cat(
        [0.01 * torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(5, 1, 4, 4)]
    )


def test_inputs_move_as_far_as_their_kind():
    x = two_kinds()
    transform = PerInput.near(Colour(["brightness"]), x, num_landmarks=2, num_components=2)
    r = transform.responsibilities(x)
    assert torch.equal(r[:5].argmax(1), r[:1].argmax(1).expand(5)) and bool((r.amax(1) > 0.99).all())
    eta = torch.zeros(3, dtype=torch.float64)
    eta[0], eta[1 + int(r[9].argmax())] = 0.1, 0.3  # the bright ones by 0.4
    moved = Orbit(transform, num_samples=64)(x, eta) - x
    reach = moved.abs().amax((0, 2, 3, 4))
    assert reach[:5].tolist() == pytest.approx([0.1] * 5, abs=0.01)
    assert reach[5:].tolist() == pytest.approx([0.4] * 5, abs=0.02)
    torch.testing.assert_close(transform.extents(x, eta)[:, 0].max(), torch.tensor(0.4, dtype=torch.float64))


def test_without_more_it_is_the_transform():
    x, eta = smooth_images(4), torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    common = Orbit(PerInput.near("rotation", x, num_landmarks=2), num_samples=8, seed=2)
    alone = Orbit(Affine2d(["rotation"]), num_samples=8, seed=2)
    torch.testing.assert_close(common(x, eta), alone(x, eta[:1]))


def test_priors_shrink_or_hold_what_is_more():
    transform = Compose([PerInput.near(Affine2d(["rotation", "shear"]), smooth_images(5), 2), Flip()])
    names = ["rotation_near_1", "rotation_near_2", "shear_near_1", "shear_near_2"]
    assert list(shrinkage(transform)) == names and list(in_common(transform)) == names
    held = Extents(transform.coordinates, in_common(transform))
    assert held.active == ("rotation", "shear", "flip_x")
    free = Extents(transform.coordinates, shrinkage(transform, 0.1))
    drawn = free.sample_prior(400, seed=0)
    assert float(drawn[:, 1].mean()) < 0.3 < float(drawn[:, 0].mean())


def test_errors_say_what_to_do():
    x = smooth_images(3)
    with pytest.raises(ValueError, match="leave it outside"):
        PerInput.near(Flip(), x, 2)
    with pytest.raises(ValueError, match="at most one"):
        PerInput.near("rotation", x, 4)
    with pytest.raises(ValueError, match=r"PerInput.near makes them"):
        PerInput("rotation", [0.0], [[1.0, 2.0]], [[0.0]], 1.0)
    for scale in (None, float("nan"), 0.0, "1"):
        with pytest.raises(ValueError, match="scale: expected a finite number > 0"):
            PerInput("rotation", [0.0, 0.0], [[1.0, 2.0]], [[0.0]], scale)
    with pytest.raises(ValueError, match="not finite"):
        PerInput("rotation", [0.0, float("nan")], [[1.0, 2.0]], [[0.0]], 1.0)
    for other in (Flip(), [Flip()], "rotation"):
        with pytest.raises(ValueError, match="PerInput in it"):
            shrinkage(other)


def test_inputs_that_it_cannot_take_are_refused():
    x = smooth_images(4)
    holes = x.clone()
    holes[1, 0, 2, 3] = float("nan")
    holes[2, 0, 0, 0] = float("inf")
    with pytest.raises(DataError, match="NaN or infinity in 2 of 4 inputs"):
        PerInput.near("rotation", holes, 2)
    with pytest.raises(DataError, match="floating point"):
        PerInput.near("rotation", (255 * x).byte().numpy(), 2)
    transform = PerInput.near("rotation", x, 2)
    other, t = smooth_images(3, height=9, width=11), torch.zeros(3, transform.num_columns, dtype=torch.float64)
    for call in (
        lambda: transform.responsibilities(other),
        lambda: transform.extents(other, torch.zeros(3)),
        lambda: transform(other, t),
        lambda: transform.orbit_per_example(other, t[None]),
        lambda: Compose([transform, Flip()]).check_input(other),
    ):
        with pytest.raises(DataError, match=r"as the inputs that PerInput.near was given, and shape \(3, .* 9, 11\)"):
            call()
    with pytest.raises(ValueError, match=r"eta: expected 3 extents \(rotation, rotation_near_1"):
        transform.extents(x, torch.zeros(2))


def test_arrays_are_inputs_too():
    x = smooth_images(4)
    one, other = PerInput.near("rotation", x, 2), PerInput.near("rotation", x.numpy(), 2)
    assert torch.equal(one.landmarks, other.landmarks)
    assert torch.equal(one.responsibilities(x), one.responsibilities(x.numpy()))


def test_priors_are_those_of_a_list_too():
    transform = PerInput.near("rotation", smooth_images(5), 2)
    assert list(shrinkage([transform, Flip()])) == list(shrinkage(transform)) == list(in_common([transform]))


def test_exported_augmentations_and_files_keep_the_landmarks(tmp_path):
    import bayesinv
    from bayesinv import GaussianProcess, InvarianceModel

    x = two_kinds()
    transform = PerInput.near(Colour(["brightness"]), x, num_landmarks=2, num_components=2)
    model = InvarianceModel(
        GaussianProcess(num_features=16),
        transform,
        likelihood="gaussian",
        num_orbit_samples=3,
        priors=shrinkage(transform),
    )
    with pytest.warns(UserWarning):  # few steps
        posterior = bayesinv.fit(model, (x, x.mean((1, 2, 3))[:, None]), max_steps=3, num_draws=16)
    loaded = bayesinv.load(posterior.save(tmp_path / "own.bayesinv"))
    assert torch.equal(loaded.model.orbit.transform.landmarks, transform.landmarks)
    before = posterior.augmentation(seed=0)
    after = bayesinv.export.load(before.save(tmp_path / "own.safetensors"))
    assert torch.equal(before(x), after(x))
    panels = posterior.plot_orbit(x[9], "brightness", num_copies=3).axes
    end = float(posterior.quantile(0.5)[0])
    for panel, amount in zip(panels[3:6], (-end, 0.0, end), strict=True):
        moved = torch.as_tensor(panel.images[0].get_array()) - x[9, 0]
        torch.testing.assert_close(moved, torch.full_like(moved, amount), atol=1e-5, rtol=0)
