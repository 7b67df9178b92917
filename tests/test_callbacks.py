"""What is written for TensorBoard, with a writer that takes notes in its place."""

import sys
import types

import pytest

from bayesinv.callbacks import TensorBoardCallback
from bayesinv.inference.loop import Step


class Notes:
    """Stands in for torch.utils.tensorboard.SummaryWriter."""

    made: list["Notes"] = []  # noqa: RUF012 (emptied by the fixture)

    def __init__(self, log_dir):
        self.log_dir = log_dir
        self.scalars: list[tuple[str, float, int]] = []
        self.flushed = 0
        self.closed = False
        Notes.made.append(self)

    def add_scalar(self, tag, value, step):
        assert not self.closed
        self.scalars.append((tag, value, step))

    def flush(self):
        self.flushed = len(self.scalars)

    def close(self):
        self.closed = True


@pytest.fixture
def made(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Notes
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Notes.made.clear()
    return Notes.made


def steps(count, objective=-3.5):
    return [Step(i, count, objective, {"rotation": 0.1 * i, "shear": 0.0}, 0.5 * i) for i in range(1, count + 1)]


def test_every_step_is_written(made, tmp_path):
    with TensorBoardCallback(tmp_path / "runs") as callback:
        assert made == []  # nothing is made before there is something to write
        results = [callback(step) for step in steps(2)]
    assert results == [None, None]  # so that no run is ended
    (writer,) = made
    assert writer.log_dir == str(tmp_path / "runs")
    assert writer.scalars == [
        ("objective", -3.5, 1),
        ("seconds", 0.5, 1),
        ("extents/rotation", 0.1, 1),
        ("extents/shear", 0.0, 1),
        ("objective", -3.5, 2),
        ("seconds", 1.0, 2),
        ("extents/rotation", 0.2, 2),
        ("extents/shear", 0.0, 2),
    ]
    assert writer.closed
    assert writer.flushed == 8


def test_some_steps_and_the_last(made):
    callback = TensorBoardCallback("runs", every=4)
    for step in steps(10):
        callback(step)
    assert sorted({step for _, _, step in made[0].scalars}) == [4, 8, 10]
    callback.close()
    callback.close()
    assert made[0].closed


def test_no_objective_yet(made):
    callback = TensorBoardCallback("runs")
    callback(steps(1, objective=float("nan"))[0])
    assert [tag for tag, _, _ in made[0].scalars] == ["seconds", "extents/rotation", "extents/shear"]


def test_the_file_is_closed_when_the_fit_fails(made):
    with pytest.raises(RuntimeError), TensorBoardCallback("runs") as callback:
        callback(steps(1)[0])
        raise RuntimeError
    assert made[0].closed


def test_without_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "bayesinv\[tensorboard\]"'):
        TensorBoardCallback("runs")


@pytest.mark.parametrize("every", [0, -1, True])
def test_every_is_checked(made, every):
    with pytest.raises(ValueError, match="integer of at least 1"):
        TensorBoardCallback("runs", every=every)
