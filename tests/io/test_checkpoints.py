"""Checkpoints: whole or not at all, of one fit, and a resumed run that is the uninterrupted one to the last bit."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesinv.data.streams.sources import stream_of
from bayesinv.errors import CheckpointError
from bayesinv.inference.training import Training, train
from bayesinv.io import checkpoints
from bayesinv.io.checkpoints import Checkpoint, CheckpointFile
from tests.inference.test_training import Regression, make_stream

STEPS = 60
FINGERPRINT = {"seed": 0, "model": {"orbit": (8, "sobol"), "rate": 0.1}}


class Stop(BaseException):
    """What ends a run between two steps, as Ctrl-C does."""


def stop_at(number):
    def callback(step):
        if step.step == number:
            raise Stop

    return callback


def run(path, every=5, callbacks=(), fingerprint=FINGERPRINT, resume=True, objective=None, stream=None):
    objective = Regression(start=8) if objective is None else objective
    settings = Training(batch_size=8, extent_batch_size=12, checkpoint=path, checkpoint_every=every, resume=resume)
    stream = make_stream() if stream is None else stream
    trace = train(objective, stream, settings, STEPS, 3, fingerprint, callbacks=callbacks)
    return objective, trace


def unpacked(path):
    return checkpoints._unpack(Path(path).read_bytes())


def content(path):
    """All that is saved, but for the time it took."""
    return {k: v for k, v in unpacked(path).items() if k != "seconds"}


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def damage(path, position):
    written = bytearray(path.read_bytes())
    written[position] ^= 0xFF
    path.write_bytes(bytes(written))


def rewrite(path, **changes):
    path.write_bytes(checkpoints._pack(unpacked(path) | changes))


@pytest.fixture
def interrupted(tmp_path):
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        run(path, callbacks=[stop_at(33)])
    return path


@pytest.mark.parametrize("stop", [3, 7, 8, 9, 20, 41, 59])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, stop):
    path, whole = tmp_path / "interrupted", tmp_path / "whole"
    steps = []
    with pytest.raises(Stop):
        run(path, callbacks=[stop_at(stop)])
    objective, trace = run(path, callbacks=[lambda step: steps.append(step.step)])
    assert steps == list(range(stop // 5 * 5 + 1, STEPS + 1))
    # Once in a run, whether or not it was interrupted after it.
    assert len(objective.started) == (stop // 5 * 5 <= 8)
    expected, expected_trace = run(whole)
    assert torch.equal(objective.state(), expected.state())
    assert trace == expected_trace
    assert len(trace.objective) == 13
    assert_same(content(path), content(whole))


class Jittered(torch.utils.data.Dataset):
    """Items that are another each time they are read."""

    def __len__(self):
        return 60

    def __getitem__(self, i):
        x = torch.tensor([i / 30.0, np.random.randn()], dtype=torch.float64)
        return x, float(x.sum()) + random.random()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_random_items_of_a_data_set_are_those_of_the_uninterrupted_run(tmp_path):
    path, whole = tmp_path / "interrupted", tmp_path / "whole"
    with pytest.raises(Stop):
        run(path, callbacks=[stop_at(23)], stream=stream_of(Jittered(), "gaussian", num_workers=1))
    objective, _ = run(path, stream=stream_of(Jittered(), "gaussian"))
    expected, _ = run(whole, stream=stream_of(Jittered(), "gaussian"))
    assert torch.equal(objective.state(), expected.state())
    assert_same(content(path), content(whole))


def interrupt(path, seed, kills):
    """Train in processes that are killed at random moments, then in one that is not; prints where they were resumed."""
    generator, resumed = random.Random(seed), []
    for kill in range(kills + 1):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            run(path, every=2, callbacks=[lambda step, write=write: os.write(write, b".") and None])
            os._exit(0)
        os.close(write)
        if kill < kills:
            os.read(read, 1)
            for _ in range(generator.randrange(4, 60 // (kills + 1))):
                os.read(read, 1)
            # Most of two steps is the writing of their checkpoint.
            time.sleep(generator.uniform(0, 0.004))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(read)
        if kill < kills:
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
            resumed.append(unpacked(path)["step"])
        else:
            assert status == 0, status
    print(json.dumps(resumed))


@pytest.mark.parametrize(("seed", "kills"), [(0, 3), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, seed, kills):
    path, whole = tmp_path / "killed", tmp_path / "whole"
    code = f"from tests.io.test_checkpoints import interrupt; interrupt({str(path)!r}, {seed}, {kills})"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    resumed = json.loads(done.stdout.splitlines()[-1])
    assert len(resumed) == kills
    assert resumed[0] > 0
    assert resumed[-1] < STEPS
    assert resumed == sorted(set(resumed))  # each life got further than the one before
    run(whole, every=STEPS)
    assert_same(content(path), content(whole))
    assert sorted(os.listdir(tmp_path)) == ["killed", "whole"]


def test_a_finished_run_returns_at_once(tmp_path):
    path = tmp_path / "run.checkpoint"
    objective, trace = run(path)
    before = path.read_bytes()
    again = Regression(start=8)
    with pytest.warns(UserWarning, match=r"finished run of this fit.*resume=False"):
        _, same = run(path, objective=again, callbacks=[stop_at(1)])
    assert again.calls == []
    assert same == trace
    assert torch.equal(again.state(), objective.state())
    assert path.read_bytes() == before


def test_a_run_that_a_callback_ended_is_finished(tmp_path):
    path = tmp_path / "run.checkpoint"
    objective, trace = run(path, callbacks=[lambda step: step.step == 13])
    with pytest.warns(UserWarning, match="finished run"):
        again, same = run(path)
    assert again.calls == []
    assert same == trace
    assert torch.equal(again.state(), objective.state())


def test_starting_anew(interrupted):
    objective, _ = run(interrupted, resume=False)
    assert sum(name == "weights" for name, _ in objective.calls) == STEPS


def test_seconds_go_on(interrupted):
    rewrite(interrupted, seconds=1000.0)
    seen = []
    run(interrupted, callbacks=[lambda step: seen.append(step.seconds)])
    assert 1000 < seen[0] < seen[-1] < 1100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"model": {"orbit": (24, "sobol"), "rate": 0.1}}, r"model\.orbit is \[8, 'sobol'\] there and \[24, 'sobol'\]"),
        ({"more": None}, "more is only here"),
        ({"model": None}, "model is .* there and None here"),
    ],
)
def test_another_fit_is_refused(interrupted, changes, message):
    before = interrupted.read_bytes()
    with pytest.raises(CheckpointError, match=message) as caught:
        run(interrupted, fingerprint=FINGERPRINT | changes)
    assert str(interrupted) in str(caught.value)
    assert "resume=False" in str(caught.value)
    assert interrupted.read_bytes() == before


def test_of_another_network_the_first_line_that_differs_is_shown(tmp_path):
    def fingerprint(width):
        layers = [torch.nn.Linear(8, 8) for _ in range(12)]
        layers[9] = torch.nn.Linear(8, width)
        return {"model": {"net": repr(torch.nn.Sequential(*layers))}}

    CheckpointFile(tmp_path / "file", fingerprint(8)).write(Checkpoint(1, False, [], [], (), 0.0))
    with pytest.raises(CheckpointError) as caught:
        CheckpointFile(tmp_path / "file", fingerprint(9)).read()
    found = re.search("of another fit: (.*)\\. Give", str(caught.value))[1]
    assert "model.net, in its line 11, is '(9): Linear(in_features=8, out_features=8, bias=True)' there" in found
    assert "out_features=9" in found and "(8)" not in found and len(found) < 200


def test_many_differences_are_counted(interrupted):
    with pytest.raises(CheckpointError, match="and 2 more"):
        run(interrupted, fingerprint=FINGERPRINT | {name: 0 for name in "abcdef"})


def test_other_data_are_refused(interrupted):
    with pytest.raises(CheckpointError, match=r"data\.digest"):
        run(interrupted, stream=make_stream(seed=1))


def test_nan_in_a_fingerprint_is_itself(tmp_path):
    file = CheckpointFile(tmp_path / "file", {"rate": math.nan})
    file.write(Checkpoint(1, False, [], [], (), 0.0))
    assert CheckpointFile(tmp_path / "file", {"rate": math.nan}).read().step == 1


def test_a_model_of_another_shape_is_refused(interrupted):
    other = Regression(start=8)
    other.linear = torch.nn.Linear(3, 1).double()
    other.modules = [other.linear, other.noise]
    with pytest.raises(CheckpointError, match=r"does not fit this model: .*size mismatch"):
        run(interrupted, objective=other)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        fewer = Regression(start=8)
        fewer.modules = [fewer.linear]
        run(interrupted, objective=fewer)


def test_damage_anywhere_is_noticed(interrupted):
    written = interrupted.read_bytes()
    file = CheckpointFile(interrupted, json.loads(content(interrupted)["fingerprint"]))
    for position in [*range(60), *np.random.default_rng(0).integers(0, len(written), 60)]:
        damage(interrupted, int(position))
        foreign = position < len(checkpoints.FORMAT)  # as far as anybody can tell
        with pytest.raises(CheckpointError, match="choose another path" if foreign else f"delete {interrupted}"):
            file.read()
        interrupted.write_bytes(written)
    assert file.read().step == 30


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_cut_short(interrupted, share):
    written = interrupted.read_bytes()
    interrupted.write_bytes(written[: int(share * len(written))])
    with pytest.raises(CheckpointError, match=f"damaged.*delete {interrupted} to start anew"):
        run(interrupted)


@pytest.mark.parametrize(
    "changes",
    [{"step": "x"}, {"trace": None}, {"modules": 3}, {"fingerprint": "{"}, {"seconds": None}],
)
def test_a_file_of_the_wrong_shape(interrupted, changes):
    rewrite(interrupted, **changes)
    with pytest.raises(CheckpointError, match="a checkpoint of bayesinv that is damaged"):
        run(interrupted)


def test_foreign_files(tmp_path):
    path = tmp_path / "file"
    for written in (b"", b"bayesinv.checkpoint 1\n", checkpoints._pack([1, 2])):
        path.write_bytes(written)
        with pytest.raises(CheckpointError, match=f"damaged.*delete {path}"):
            run(path)
    torch.save({"step": 3}, path)
    for written in (b"rotation 54", b"import bayesinv\n", path.read_bytes()):
        path.write_bytes(written)
        for resume in (True, False):
            with pytest.raises(CheckpointError, match="some other file; leave it and choose another path") as caught:
                run(path, resume=resume)
            assert "delete" not in str(caught.value)
            assert path.read_bytes() == written


def test_a_later_format(interrupted, monkeypatch):
    saved = unpacked(interrupted)
    with monkeypatch.context() as later:
        later.setattr(checkpoints, "FORMAT_VERSION", 2)
        interrupted.write_bytes(checkpoints._pack(saved))
    with pytest.raises(CheckpointError, match="has format version 2, and this bayesinv reads 1"):
        run(interrupted)


class Payload:
    ran: list[str] = []  # noqa: RUF012 (what the payload would leave behind)

    def __reduce__(self):
        return (Payload.ran.append, ("yes",))


def test_no_code_in_the_file_is_run(interrupted):
    rewrite(interrupted, extra=Payload())
    with pytest.raises(CheckpointError):
        run(interrupted)
    assert Payload.ran == []


def test_leftovers_of_interrupted_writes_are_removed(interrupted):
    digits = "0123456789abcdef" * 2
    ours = interrupted.with_name(f".{interrupted.name}.{digits}.part")
    others = interrupted.with_name(f".{interrupted.name}.augerino.{digits}.part")
    for path in (ours, others):
        path.write_bytes(b"half")
    run(interrupted)
    assert sorted(os.listdir(interrupted.parent)) == [others.name, interrupted.name]


def test_what_unpacks_to_more_than_it_holds_is_refused_before_it_is_unpacked(interrupted):
    saved = content(interrupted)
    saved["trace"] = torch.zeros(1, dtype=torch.float64).expand(10**10)  # 80 GB in eight bytes
    rewrite(interrupted, **saved)
    with pytest.raises(CheckpointError, match="larger than what is stored"):
        run(interrupted)


def test_a_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="never replaced"):
        run(tmp_path / "pipe")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(interrupted, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    before = interrupted.read_bytes()
    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        run(interrupted)
    assert interrupted.read_bytes() == before
    assert os.listdir(interrupted.parent) == [interrupted.name]


def test_a_failed_run_leaves_a_checkpoint_that_is_finite(tmp_path):
    path = tmp_path / "run.checkpoint"
    with pytest.raises(ArithmeticError):
        run(path, every=1, objective=Regression(start=8, break_at=27))
    saved = content(path)
    assert saved["step"] == 27
    assert all(torch.isfinite(value).all() for state in saved["modules"] for value in state.values())


def test_bad_targets(tmp_path):
    with pytest.raises(FileNotFoundError, match="create it first"):
        run(tmp_path / "missing" / "file")
    with pytest.raises(IsADirectoryError, match="name of a file"):
        run(tmp_path)
    with pytest.raises(TypeError, match="what JSON can hold"):
        run(tmp_path / "file", fingerprint={"model": object()})
    file = CheckpointFile(tmp_path / "file", {})
    with pytest.raises(TypeError, match="only tensors can be saved"):
        file.write(replace(Checkpoint(1, False, [], [], (), 0.0), modules=[{"extra": "text"}]))
    assert os.listdir(tmp_path) == []
