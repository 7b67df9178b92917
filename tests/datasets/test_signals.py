"""Sinusoids against their own definition; sleep epochs from a small file of the same format, and the real one."""

import math
import os

import numpy as np
import pytest
import torch

from bayesinv.datasets import SINUSOID_FREQUENCIES, SLEEP_STAGES, data_root, sinusoids, sleep_edf
from bayesinv.errors import DataError


@pytest.fixture
def sleep_file(tmp_path):
    """Six subjects of 20 epochs; each subject's digital values are off by another factor and offset."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(6), 20).astype(np.uint8)
    folder = tmp_path / "signals"
    folder.mkdir()
    np.savez(
        folder / "sleep_edf_fpzcz_5s.npz",
        x=rng.integers(-200, 200, (120, 500)).astype(np.int16),
        y=(np.arange(120) % 5).astype(np.uint8),
        recording=subject,
        subject=subject,
        scale=np.linspace(0.1, 0.6, 6),
        offset=np.arange(6.0),
    )
    return tmp_path


def peaks(x):
    """The frequency of the highest bin, Hz, at 100 Hz."""
    spectrum = torch.fft.rfft(x[:, 0]).abs()
    return torch.fft.rfftfreq(x.shape[-1], 0.01)[spectrum.argmax(1)]


def test_frequencies_are_within_the_half_width_of_their_class():
    for part in sinusoids(seed=1):
        off = peaks(part.x) - torch.tensor(SINUSOID_FREQUENCIES)[part.y]
        assert off.abs().max() <= 0.5 + 0.05  # half a bin of 0.1 Hz
        assert off.min() < -0.4 and off.max() > 0.4


def test_noise_has_its_standard_deviation():
    train, _ = sinusoids(num_train=100, num_test=4, noise=0.5)
    assert float(train.x.var()) == pytest.approx(0.5 + 0.25, rel=0.02)
    clean, _ = sinusoids(num_train=100, num_test=4, noise=0.0)
    assert float(clean.x.abs().max()) <= 1 + 1e-6


def test_sinusoids_are_a_function_of_the_seed():
    first, again, other = (sinusoids(20, 10, seed=seed).train for seed in (3, 3, 4))
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x)


def test_test_sinusoids_are_others():
    train, test = sinusoids(20, 20)
    assert (train.x[:, None] - test.x[None]).abs().amax((2, 3)).min() > 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_test": 0}, "num_test is 0; expected at least 1"),
        ({"half_width": -0.1}, "half_width is -0.1"),
        ({"noise": math.inf}, "noise is inf"),
        ({"duration": 0.0}, "expected at least 2"),
        ({"frequencies": [2.0]}, "at least two classes"),
        ({"sampling_rate": 12.0}, "to 8.5 Hz; expected 0 to 6 Hz"),
    ],
)
def test_arguments_of_sinusoids(wrong, message):
    with pytest.raises(ValueError, match=message):
        sinusoids(**wrong)


def test_sleep_is_split_by_subject(sleep_file):
    train, test = sleep_edf(sleep_file, 60, 40, test_subjects=[1, 4], standardise=False)
    stored = np.load(sleep_file / "signals" / "sleep_edf_fpzcz_5s.npz")
    every = stored["x"] * stored["scale"][stored["recording"], None] + stored["offset"][stored["recording"], None]
    for part, subjects in ((train, {0, 2, 3, 5}), (test, {1, 4})):
        distance = torch.cdist(part.x[:, 0].double(), torch.from_numpy(every))
        assert float(distance.min(1).values.max()) < 1e-3  # microvolts as stored
        found = distance.argmin(1).numpy()
        assert set(stored["subject"][found].tolist()) <= subjects
        assert part.y.tolist() == stored["y"][found].tolist()
    assert train.num_classes == len(SLEEP_STAGES)


def test_sleep_draws_subjects_by_the_seed(sleep_file):
    first, again, other = (sleep_edf(sleep_file, 40, 20, seed=seed).test for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)


def test_sleep_is_standardised_by_subject(sleep_file):
    _, test = sleep_edf(sleep_file, 20, 20, test_subjects=[3])
    assert float(test.x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(test.x.std()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_train": 81, "test_subjects": [0, 1]}, "num_train is 81; expected 1..80"),
        ({"test_subjects": [7]}, "some but not all of"),
        ({"test_subjects": []}, "some but not all of"),
        ({"test_subjects": range(6)}, "some but not all of"),
    ],
)
def test_arguments_of_sleep(sleep_file, wrong, message):
    with pytest.raises(ValueError, match=message):
        sleep_edf(sleep_file, **{"num_train": 20, "num_test": 20, **wrong})


def test_files_that_are_not_sleep(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        sleep_edf(tmp_path)
    file = tmp_path / "other.npz"
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="is not a file of scored epochs"):
        sleep_edf(file)
    good = {"x": np.zeros((4, 9)), "y": np.zeros(4, int), "recording": np.zeros(4, int), "subject": np.zeros(4, int)}
    good |= {"scale": np.ones(1), "offset": np.zeros(1)}
    for change, message in (
        ({"y": np.zeros(3, int)}, "a label, a recording"),
        ({"y": np.full(4, 5)}, "expected labels 0..4"),
        ({"recording": np.ones(4, int)}, "for every recording"),
    ):
        np.savez(file, **{**good, **change})
        with pytest.raises(DataError, match=message):
            sleep_edf(file)


@pytest.mark.skipif(not os.environ.get("BAYESINV_DATA"), reason="BAYESINV_DATA names no folder with the recordings")
def test_the_recordings():
    if not (data_root() / "signals" / "sleep_edf_fpzcz_5s.npz").is_file():
        pytest.skip("BAYESINV_DATA holds no sleep recordings")
    train, test = sleep_edf(num_train=500, num_test=300, test_subjects=[0, 1])
    assert train.x.shape == (500, 1, 500) and test.x.shape == (300, 1, 500)
    assert len(train.y.unique()) == 5
    # Fast activity, 16-30 Hz, goes with being awake and is next to nothing in slow-wave sleep.
    power = torch.fft.rfft(train.x[:, 0]).abs().square()
    frequency = torch.fft.rfftfreq(500, 0.01)
    fast = power[:, (frequency >= 16) & (frequency < 30)].sum(1) / power[:, frequency >= 0.5].sum(1)
    awake, deep = (fast[train.y == SLEEP_STAGES.index(stage)].median() for stage in ("W", "N3"))
    assert awake > 3 * deep
