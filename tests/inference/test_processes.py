"""Fits of several processes: what they find is what one finds, they agree, and one that dies ends the run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import IterableDataset

from bayesinv.data.streams import stream_of
from bayesinv.inference.devices import choose_device
from bayesinv.inference.point import Augerino
from bayesinv.inference.together import average_gradients
from bayesinv.numerics import processes
from bayesinv.numerics.processes import Processes, not_connected

WORKER = Path(__file__).with_name("processes_worker.py")
spec = importlib.util.spec_from_file_location("processes_worker", WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


class Stopped(Exception):
    """A fit that ends as if it were interrupted."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes run; one alone has left a checkpoint of step 8, from which the two go on."""
    folder = tmp_path_factory.mktemp("processes")

    def interrupt(step):
        if step.step == 10:
            raise Stopped

    with pytest.raises(Stopped):
        training = worker.settings(checkpoint=folder / "one.checkpoint", checkpoint_every=4)
        worker.fitted(worker.model(), training, callbacks=[interrupt])
    return folder


@pytest.fixture(scope="module")
def ended(folder):
    """How the two processes ended: exit status and what they said."""
    command = [sys.executable, "-W", "ignore", str(WORKER), "all", str(folder)]
    meet = {"INIT": f"file://{folder / 'meet'}", "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(command, env={**ENVIRONMENT, **meet, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in reversed(started)][::-1]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


@pytest.fixture(scope="module")
def found(folder, ended):
    """What each of them found before."""
    assert (folder / "0.pt").exists(), ended[0][1][-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    """What one process finds."""
    return worker.fitted(worker.model())


def close(one, other):
    """Whether two fits are the same up to the rounding of sums in another order, over 24 steps of Adam in float32."""
    assert one["state"].keys() == other["state"].keys()
    torch.testing.assert_close(one["trace"], other["trace"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(one["extents"], other["extents"], rtol=2e-3, atol=1e-4)
    for name, value in one["state"].items():
        torch.testing.assert_close(value, other["state"][name], rtol=2e-3, atol=1e-3, msg=name)


def same(one, other):
    """Whether two fits are the same to the bit."""
    return (
        torch.equal(one["extents"], other["extents"])
        and torch.equal(one["trace"], other["trace"])
        and all(torch.equal(value, other["state"][name]) for name, value in one["state"].items())
    )


@pytest.mark.parametrize("name", worker.MODELS)
def test_two_processes_find_what_one_finds(found, name):
    close(found[0][name], worker.fitted(worker.model(**worker.MODELS[name])))


@pytest.mark.parametrize("name", [*worker.MODELS, "stopped", "augerino", "norm", "second", "resumed"])
def test_all_processes_have_the_same_bits(found, name):
    assert same(found[0][name], found[1][name])


def test_a_run_goes_on_with_another_number_of_processes(found, alone):
    close(found[0]["resumed"], alone)


def test_callbacks_run_on_the_first_process_and_end_all(found):
    assert found[0]["stopped"]["seen"].tolist() == list(range(1, 12))
    assert found[1]["stopped"]["seen"].tolist() == []


def test_running_statistics_are_those_of_all_examples(found):
    means = found[0]["norm"]["state"]
    (name,) = [name for name in means if name.endswith("running_mean")]
    alone = worker.fitted(worker.model(norm=True))["state"][name]
    # Each process normalises by its own half of a batch, as DistributedDataParallel does, so that they are close alone.
    assert 1e-6 < float((means[name] - alone).abs().max()) < 0.1


def test_processes_share_every_batch(found):
    stream = stream_of(worker.Numbered(), "gaussian")
    for step in range(4):
        whole = stream.batch(0, "weights", step, 8).x[:, 0].long().tolist()
        first, second = (each["shares"][step] for each in found)
        assert first + second == whole and not set(first) & set(second)
        assert len(first) == len(second) == 4


def test_a_gaussian_process_over_shards_is_one_over_everything(found):
    one = worker.sharded(0, 1)
    for each in found:
        each = each["sharded"]
        assert each["num"] == one["num"] == 70
        torch.testing.assert_close(each["value"], one["value"], rtol=1e-10, atol=0)
        for name in ("mean", "variance"):
            torch.testing.assert_close(each[name], one[name], rtol=1e-8, atol=0)
        for gradient, expected in zip(each["gradients"], one["gradients"], strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)


def test_a_process_without_examples_ends_all(found):
    message = "DataError: shards: expected at least one example on every process, got none on process 1"
    for each in found:
        assert each["no examples"] == [message] * 2


def test_a_loss_that_one_process_cannot_compute_ends_all_at_the_same_step(found):
    assert found[1]["one breaks"].startswith("NonFiniteError: step 7: the seventh step cannot be computed")
    assert found[0]["one breaks"].startswith("NonFiniteError: step 7: the objective is nan")
    assert same_weights(found)


def same_weights(found):
    one, other = (each["state after"]["linear"] for each in found)
    return torch.equal(one, other) and bool(torch.isfinite(one).all())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other data", "ValueError: the training data differ between processes"),
        ("other seed", "ValueError: the options of the fit differ between processes: ('seed', 0) on process 0"),
        ("few", "ValueError: phase 'burn-in': 2 processes share batches of 1; expected an example or more"),
        ("sampler", "DataError: the DataLoader has a DistributedSampler"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_all(found, name, message):
    for each in found:
        assert each[name].startswith(message)


def test_a_process_that_is_killed_ends_the_others_with_its_name_and_the_run_goes_on(folder, found, ended, alone):
    (status, said), (killed, _) = ended
    assert (status, killed) == (1, -9)
    last = [line for line in said.splitlines() if "RankError" in line][-1]
    assert "process 0 of 2: another process has stopped or cannot be reached" in last
    assert "killed.checkpoint holds an earlier step: start all processes again" in said  # gloo's words take lines
    training = worker.settings(checkpoint=folder / "killed.checkpoint", checkpoint_every=4)
    resumed = worker.fitted(worker.deadly(-1), training)
    close({**resumed, "state": {}}, {**alone, "state": {}})


@pytest.mark.slow
def test_torchrun_starts_them(tmp_path, alone):
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, str(WORKER), "launched", str(tmp_path)], env=ENVIRONMENT, check=True, timeout=200)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True)["default"] for rank in range(2))
    assert same(one, other)
    close(one, alone)


def test_beside_the_backend_of_a_gpu_the_cpu_has_messages_of_its_own(found):
    for each in found:
        assert float(each["beside"]["sums"]) == 3.0 and each["beside"]["told"] == "process 0"
    assert "another process has stopped or cannot be reached" in found[0]["beside"]["missing"]
    assert "Ranks 1 failed to pass" in found[0]["beside"]["missing"]


def test_shares_hold_everything_once():
    for size in (2, 3, 7):
        for num in (7, 8, 100):
            parts = [range(num)[Processes(rank, size).part(num)] for rank in range(size)]
            assert [i for part in parts for i in part] == list(range(num))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


class InOrder(IterableDataset):
    """What can only be iterated."""

    def __len__(self):
        return 11

    def __iter__(self):
        return iter([(torch.tensor([float(i)]), torch.tensor([0.5])) for i in range(11)])


def test_what_is_iterated_is_shared_too():
    whole, *streams = (stream_of(InOrder(), "gaussian") for _ in range(3))
    for step in range(4):
        x = whole.batch(0, "weights", step, 5).x
        parts = [stream.batch(0, "weights", step, 5, Processes(rank, 2)).x for rank, stream in enumerate(streams)]
        assert torch.equal(torch.cat(parts), x) and [len(part) for part in parts] == [2, 3]


def test_random_items_draw_apart_on_every_process():
    class Noisy(worker.Numbered):
        def __getitem__(self, i):
            return torch.rand(1), torch.tensor([0.5])

    first, second = (stream_of(Noisy(), "gaussian").batch(0, "weights", 0, 8, Processes(rank, 2)).x for rank in (0, 1))
    again = stream_of(Noisy(), "gaussian").batch(0, "weights", 0, 8, Processes(1, 2)).x
    assert torch.equal(second, again) and not torch.equal(first, second)


def test_gradients_are_weighted_by_examples(monkeypatch):
    added: list[torch.Tensor] = []
    monkeypatch.setattr(Processes, "add", lambda self, tensors: added.extend(tensors))
    one, none = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    one.grad, mean = torch.tensor([1.0, 2.0]), torch.tensor([4.0])
    value = average_gradients(Processes(0, 2), [one, none], [mean], torch.tensor(8.0), 0.25)
    assert float(value) == 2.0 and one.grad.tolist() == [0.25, 0.5]
    assert none.grad.tolist() == [0.0] and mean.tolist() == [1.0]
    assert len(added) == 4  # in one message for each type


def test_processes_that_nobody_connects_are_warned_of(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    assert not_connected() == 4
    with pytest.warns(UserWarning, match="4 processes were started and not connected"):
        worker.bayesinv.fit(
            worker.model(), worker.data(), Augerino(), training=worker.settings(), max_steps=1, device="cpu"
        )


def test_each_process_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr("bayesinv.inference.devices.current_group", lambda: Processes(3, 4))
    assert choose_device("auto") == torch.device("cuda", 3)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:80"),
        RuntimeError("Timed out waiting 1800000ms for recv operation to complete"),
        RuntimeError("Application timeout caused pair closure"),
        RuntimeError("writev [127.0.0.1]:80: Broken pipe"),
        RuntimeError("[Rank 0]: Ranks 1 failed to pass monitoredBarrier in 1000 ms"),
        torch.distributed.DistBackendError("NCCL communicator was aborted"),
        torch.distributed.DistNetworkError("failed to recv"),
    ],
)
def test_errors_of_the_connection_have_a_name(error):
    with (
        pytest.raises(processes.RankError, match="process 1 of 2: another process has stopped"),
        processes._named(Processes(1, 2)),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("[enforce fail at pair.cc:446] op.preamble.length <= op.nbytes. 16 vs 8"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error), match=str(error).split()[-1]) as caught, processes._named(Processes(1, 2)):
        raise error
    assert caught.value is error
