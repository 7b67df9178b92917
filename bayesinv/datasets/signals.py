"""Signals, batch × channels × time: noisy sinusoids whose symmetry is known, and sleep EEG where it is on disk."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.data.container import Data
from bayesinv.datasets.split import Split, choose, data_root
from bayesinv.errors import DataError

__all__ = ["SINUSOID_FREQUENCIES", "SLEEP_STAGES", "sinusoids", "sleep_edf"]

SINUSOID_FREQUENCIES = (2.0, 4.0, 6.0, 8.0)
"""Centre of each class, Hz."""

SLEEP_STAGES = ("W", "N1", "N2", "N3", "REM")
"""In the order of the labels."""

FILE = Path("signals") / "sleep_edf_fpzcz_5s.npz"
ARRAYS = ("x", "y", "recording", "subject", "scale", "offset")


def sinusoids(
    num_train: int = 400,
    num_test: int = 200,
    seed: int = 0,
    half_width: float = 0.5,
    noise: float = 0.5,
    duration: float = 10.0,
    sampling_rate: float = 100.0,
    frequencies: Sequence[float] = SINUSOID_FREQUENCIES,
) -> Split:
    """Sinusoids of unit amplitude, whose class is the frequency that theirs is nearest to.

        x_i(t) = sin(2π (F_{y_i} + u_i) t + φ_i) + noise · z_i(t),    u_i ~ U[−half_width, half_width],   φ_i ~ U[−π, π]

    With the defaults, a shift of any signal by up to ±0.5 Hz leaves it on its own side of the middle between two
    centres, 1 Hz from either; beyond that, the outermost signals of a class would cross it.

    Args:
        num_train, num_test: signals; the classes are as even over both together as their number allows.
        seed: of frequencies, phases, noise and the split.
        half_width: of the frequencies of a class, Hz, at least 0.
        noise: standard deviation of the white noise, at least 0.
        duration: seconds.
        sampling_rate: Hz.
        frequencies: the centres of the classes, Hz, at least two.

    Returns:
        The split; x is (n, 1, duration · sampling_rate), float32.

    Raises:
        ValueError: an argument out of its range, or a frequency beyond half the sampling rate.

    Reference:
        C. Rommel, T. Moreau, A. Gramfort (2022). Deep invariant networks with differentiable augmentation layers.
        arXiv:2202.02142.

    Example:
        >>> train, test = sinusoids()
        >>> train.x.shape, len(test), train.num_classes
        (torch.Size([400, 1, 1000]), 200, 4)
        >>> (train.y.bincount() + test.y.bincount()).tolist()
        [150, 150, 150, 150]
    """
    for name, num in (("num_train", num_train), ("num_test", num_test)):
        if num < 1:
            raise ValueError(f"{name} is {num}; expected at least 1")
    for name, value in (("half_width", half_width), ("noise", noise)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value!r}; expected a number of at least 0")
    num_times = round(duration * sampling_rate)
    if not num_times >= 2:
        raise ValueError(f"{duration!r} s at {sampling_rate!r} Hz are {num_times} samples; expected at least 2")
    if len(frequencies) < 2:
        raise ValueError(f"frequencies: expected at least two classes, got {list(frequencies)}")
    low, high = min(frequencies) - half_width, max(frequencies) + half_width
    if not 0 <= low <= high <= sampling_rate / 2:
        raise ValueError(
            f"frequencies reach from {low:g} to {high:g} Hz; expected 0 to {sampling_rate / 2:g} Hz, half the sampling "
            "rate"
        )
    generator = torch.Generator().manual_seed(seed)
    total = num_train + num_test
    y = (torch.arange(total) % len(frequencies))[torch.randperm(total, generator=generator)]
    f = torch.tensor(frequencies)[y] + half_width * _uniform(total, generator)  # (total,)
    phase = math.pi * _uniform(total, generator)
    time = torch.arange(num_times, dtype=torch.float64) / sampling_rate
    clean = torch.sin(2 * math.pi * f[:, None].double() * time + phase[:, None].double()).float()
    x = (clean + noise * torch.randn(total, num_times, generator=generator))[:, None]  # (total, 1, time)
    parts = (slice(0, num_train), slice(num_train, total))
    return Split(*(Data(x[part], y[part], num_classes=len(frequencies)) for part in parts))


def sleep_edf(
    root: str | Path | None = None,
    num_train: int = 2000,
    num_test: int = 2000,
    seed: int = 0,
    test_subjects: Sequence[int] | None = None,
    standardise: bool = True,
) -> Split:
    """Five seconds of EEG (Fpz-Cz, 100 Hz) from scored epochs of sleep; training and test share no subject.

    Args:
        root: folder with signals/sleep_edf_fpzcz_5s.npz inside, or that file; None takes `data_root()`.
        num_train, num_test: epochs, drawn at random from those of the training and of the test subjects.
        seed: of the choice of epochs, and of the test subjects where none are given.
        test_subjects: numbers out of 0..11; None draws four.
        standardise: divide each subject's signals by their own standard deviation, from which the mean is taken off;
            amplitudes differ between people and electrodes by more than between stages. No label is used. False leaves
            microvolts.

    Returns:
        The split; x is (n, 1, 500), float32, labels index `SLEEP_STAGES`. Stages are as frequent as they are in sleep:
        report a balanced accuracy.

    Raises:
        DataError: the file is not there, or not of this format.
        ValueError: an argument out of its range, or a split that leaves nobody on one side.

    Reference:
        B. Kemp, A. H. Zwinderman, B. Tuk, H. A. C. Kamphuisen, J. J. L. Oberyé (2000). Analysis of a sleep-dependent
        neuronal feedback loop: the slow-wave microcontinuity of the EEG. IEEE Trans. Biomedical Engineering 47.
        A. L. Goldberger et al. (2000). PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101.

    Example:
        >>> from bayesinv.datasets import sleep_edf
        >>> train, test = sleep_edf(num_train=2000)  # doctest: +SKIP
    """
    folder = data_root() if root is None else Path(root)
    stored = _read(folder if folder.suffix == ".npz" else folder / FILE)
    generator = torch.Generator().manual_seed(seed)
    subject, recording = (torch.from_numpy(stored[name]).long() for name in ("subject", "recording"))
    held_out = _test_subjects(subject.unique(), test_subjects, generator)
    scale, offset = (torch.from_numpy(stored[name])[recording] for name in ("scale", "offset"))  # (n,)
    x = torch.from_numpy(stored["x"]).double() * scale[:, None] + offset[:, None]  # (n, time), microvolt
    if standardise:
        for each in subject.unique():
            own = subject == each
            x[own] = (x[own] - x[own].mean()) / x[own].std()
    y = torch.from_numpy(stored["y"]).long()
    tested = torch.isin(subject, held_out)
    parts = []
    for name, num, inside in (("num_train", num_train, ~tested), ("num_test", num_test, tested)):
        index = inside.nonzero()[:, 0]
        index = index[choose(num, len(index), name, generator)]
        parts.append(Data(x[index, None].float(), y[index], num_classes=len(SLEEP_STAGES)))
    return Split(*parts)


def _uniform(num: int, generator: torch.Generator) -> Float[Tensor, " num"]:
    """U[-1, 1]."""
    return 2 * torch.rand(num, generator=generator) - 1


def _test_subjects(known: Tensor, wanted: Sequence[int] | None, generator: torch.Generator) -> Tensor:
    """Those held out, checked."""
    if wanted is None:
        return known[torch.randperm(len(known), generator=generator)[: max(1, len(known) // 3)]]
    unknown = sorted(set(wanted) - set(known.tolist()))
    if unknown or not wanted or len(set(wanted)) >= len(known):
        raise ValueError(f"test_subjects: expected some but not all of {known.tolist()}, got {list(wanted)}")
    return torch.tensor(sorted(set(wanted)))


def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays that are needed, checked."""
    if not file.is_file():
        raise DataError(f"there is no file {file}; expected {FILE.as_posix()}. Nothing is downloaded.")
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ARRAYS}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is not a file of scored epochs with {', '.join(ARRAYS)}: {error}") from error
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or any(arrays[name].shape != (len(x),) for name in ("y", "recording", "subject")):
        raise DataError(f"{file}: x is {x.shape} and y {y.shape}; expected (n, time), and a label, a recording and a "
                        "subject for each")  # fmt: skip
    if len(y) == 0 or y.max() >= len(SLEEP_STAGES):
        raise DataError(f"{file}: expected labels 0..{len(SLEEP_STAGES) - 1}, for {', '.join(SLEEP_STAGES)}")
    if arrays["recording"].max() >= len(arrays["scale"]) or arrays["scale"].shape != arrays["offset"].shape:
        raise DataError(f"{file}: expected a scale and an offset for every recording")
    return arrays
