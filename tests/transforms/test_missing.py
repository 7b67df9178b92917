"""Cut-out and patch dropout: conformance, and how much goes where."""

import pytest
import torch

from bayesinv.errors import DataError
from bayesinv.orbits.orbit import Orbit
from bayesinv.testing.transforms import TransformConformance
from bayesinv.transforms import CutOut, PatchDropout


def pictures(height=12, width=16):
    return torch.rand(3, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestCutOut(TransformConformance):
    def make_transform(self):
        return CutOut()

    def make_input(self):
        return pictures()


class TestPatchDropout(TransformConformance):
    def make_transform(self):
        return PatchDropout(5)  # 12 and 16 are no multiples

    def make_input(self):
        return pictures()


def test_a_square_of_the_side_that_is_said():
    x = pictures(30, 40)
    t = torch.tensor([[0.5, -0.5, 0.2]], dtype=torch.float64).expand(3, 3)  # 10 pixels, about x = 10, y = 18
    moved = CutOut(edge=1e-6)(x, t)
    changed = (moved != x).all(1)
    expected = torch.zeros(30, 40, dtype=torch.bool)
    expected[13:23, 5:15] = True
    assert torch.equal(changed, expected.expand(3, 30, 40))
    grey = x.mean((2, 3))[..., None].expand(3, 2, 100)
    torch.testing.assert_close(moved[:, :, 13:23, 5:15].flatten(2), grey, atol=1e-12, rtol=0)


def test_squares_lie_everywhere():
    orbit = Orbit(CutOut(edge=0.01), num_samples=256)
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[..., ::2] = 1.0
    covered = ((orbit(x, torch.tensor([1.0], dtype=torch.float64)) - x).abs() > 0.25).double().mean((0, 1, 2))
    assert float(covered.min()) > 0.02 and float(covered.max()) < 0.12  # E side² is a twelfth, less at the border


def test_each_patch_is_lost_with_the_probability_that_is_said():
    generator = torch.Generator().manual_seed(0)
    t = torch.cat([torch.full((400, 1), 0.3), 2 * torch.rand(400, 4, generator=generator) - 1], 1).double()
    x = torch.rand(1, 1, 20, 20, generator=generator, dtype=torch.float64).expand(400, 1, 20, 20)
    moved = PatchDropout(4)(x, t)
    share = (moved - x).abs() / (x.mean() - x).abs()
    assert float(share.mean()) == pytest.approx(0.3, abs=0.02)
    one = share[:, 0, 4:8, 8:12].flatten(1)  # all pixels of a patch together
    assert float((one - one[:, :1]).abs().max()) < 1e-9


def test_errors_say_what_to_do():
    with pytest.raises(DataError, match="height x width"):
        CutOut().check_input(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="edge"):
        CutOut(edge=0.0)
    with pytest.raises(ValueError, match="patch"):
        PatchDropout(0)
