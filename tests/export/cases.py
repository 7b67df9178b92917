"""Every kind of built-in transform, with what it acts on."""

import torch

from bayesinv.export import Augmentation
from bayesinv.transforms import (
    SO3,
    Affine2d,
    Affine3d,
    AffineVolume,
    AmplitudeScale,
    Asymmetric,
    BandStop,
    ChannelDropout,
    Colour,
    ColumnNoise,
    ColumnPermutation,
    ColumnScale,
    ColumnShift,
    Compose,
    CutOut,
    CyclicRotation,
    Dihedral,
    Elastic,
    Flip,
    FourierSurrogate,
    FrequencyShift,
    GaussianBlur,
    GaussianNoise,
    Jitter3d,
    PatchDropout,
    Permutation,
    Perspective,
    Reflection3d,
    Rotation3d,
    Scale3d,
    SignFlip,
    TimeMask,
    TimeShift,
    TimeWarp,
    Translation3d,
)

IMAGE, SIGNAL, POINTS, ROWS, VOLUME = (3, 16, 16), (3, 60), (7, 4), (5,), (2, 6, 8, 10)
TRANSFORMS = {
    "affine": (Affine2d(), IMAGE),
    "fused": (Compose([Affine2d(["rotation"], "border"), Perspective(padding="border")]), IMAGE),
    "unfused": (Compose([Affine2d(["rotation"]), Flip(), Elastic(), Colour(), GaussianBlur(), GaussianNoise()]), IMAGE),
    "flips": (Compose([Flip(-2), Flip(-3, "channels"), Permutation.cyclic(3, -3)]), IMAGE),
    "cyclic": (CyclicRotation(6), IMAGE),
    "dihedral": (Dihedral(4), IMAGE),
    "time": (Compose([TimeShift(10.0, 0.4), TimeWarp(), TimeMask(10.0, 2.0), Flip(-1, "reversal")]), SIGNAL),
    "spectrum": (Compose([FrequencyShift(10.0), FourierSurrogate(), BandStop(10.0, 2.0)]), SIGNAL),
    "amplitude": (Compose([AmplitudeScale(), SignFlip(), ChannelDropout(), GaussianNoise()]), SIGNAL),
    "points": (Compose([SO3(mask=3), Jitter3d(mask=3), Reflection3d("z", mask=3)]), POINTS),
    "affine points": (Compose([Rotation3d(), Translation3d(), Scale3d()]), POINTS),
    "affine in space": (Affine3d(), POINTS),
    "two ends": (Compose([Asymmetric(Affine2d(["rotation", "scale_x"])), Asymmetric(Colour(["brightness"]))]), IMAGE),
    "missing": (Compose([CutOut(), PatchDropout(5)]), IMAGE),
    "volumes": (Compose([AffineVolume(spacing=(2.0, 1.0, 1.0), largest_shift=5.0), Flip(-3, "flip_z")]), VOLUME),
    "rows": (Compose([ColumnShift([0]), ColumnScale([1]), ColumnNoise([2]), ColumnPermutation([3, 4])]), ROWS),
}


def inputs(shape: tuple[int, ...], n: int = 6) -> torch.Tensor:
    """n examples in float32, all of whose rows are points."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(3)) + 0.1


def augmentation(name: str, num_draws: int = 20, **options) -> Augmentation:
    """Extents of 0.2 to 0.5 of the largest, each another one."""
    transform, shape = TRANSFORMS[name]
    share = torch.rand(num_draws, transform.num_coordinates, generator=torch.Generator().manual_seed(4))
    largest = torch.tensor([c.largest for c in transform.coordinates])
    return Augmentation(transform, (0.2 + 0.3 * share.double()) * largest, shape, **options)
