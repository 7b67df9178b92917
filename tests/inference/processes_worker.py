"""What each of several processes does in the tests of :mod:`tests.inference.test_processes`.

    INIT=file:///FOLDER/meet RANK=0 WORLD_SIZE=2 python processes_worker.py all FOLDER &  # and the same with RANK=1
    python -m torch.distributed.run --standalone --nproc-per-node 2 processes_worker.py launched FOLDER

It writes what it found to FOLDER/RANK.pt. In the first case process 1 is killed in the end.
"""

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

import bayesinv
from bayesinv import Training
from bayesinv.data.container import Data
from bayesinv.data.streams import stream_of
from bayesinv.errors import DataError, NonFiniteError, NumericalError, RankError
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference.training import Objective, Phase, train
from bayesinv.model import condition_on_shards, initialise_on_shards, log_evidence_of_shards
from bayesinv.numerics.processes import Processes, current_group

NUM_TRAIN = 61  # odd, so that shares differ
STEPS = 24


def net(seed: int, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm2d(3)] if norm else []
        return nn.Sequential(nn.Conv2d(1, 3, 3), *middle, nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, 3))


def data(num: int = NUM_TRAIN) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(num, 1, 8, 8, generator=generator)
    stripes = torch.stack([x[:, 0, :, 3 * k : 3 * k + 2].mean((1, 2)) for k in range(3)], 1)
    return Data(x, stripes.argmax(1), num_classes=3)


def model(seed: int = 0, norm: bool = False, **options) -> bayesinv.InvarianceModel:
    return bayesinv.InvarianceModel(net(seed, norm), ["rotation", "translate_x"], num_orbit_samples=4, **options)


def settings(**options) -> Training:
    return Training(batch_size=20, extent_batch_size=15, extent_every=2, **options)


def fitted(model, training=None, inference="vi", **options):
    """What a fit found, as tensors."""
    few = mock.patch.multiple("bayesinv.inference.evidence_at_mode", FEW_DRAWS=2, NUM_DRAWS=3)
    with warnings.catch_warnings(), few:
        warnings.simplefilter("ignore")
        training = settings() if training is None else training
        posterior = bayesinv.fit(
            model, data(), inference, seed=3, device="cpu", training=training, max_steps=STEPS, **options
        )
    return {
        "extents": posterior.result.extents,
        "trace": torch.tensor(posterior.trace),
        "state": dict(posterior.model.state_dict()),
    }


# In parts: the budget holds a few of the examples. Jointly: all outputs of a batch.
MODELS = {
    "default": {},
    "in parts": {"memory_budget": 300_000},
    "jointly": {"evidence": LaplaceEvidence(num_outputs=None)},
    "equivalent": {"evidence": LaplaceEvidence(determinant="equivalent", num_outputs=2)},
}


def sharded(rank: int, size: int) -> dict:
    """Evidence, gradient and predictions of a Gaussian process whose examples lie on several processes."""
    generator = torch.Generator().manual_seed(1)
    x, y = (
        torch.rand(70, 1, 8, 8, generator=generator),
        torch.randn(70, 2, generator=generator) + torch.tensor([3.0, 0]),
    )
    whole = Data(x, y + x.mean((1, 2, 3))[:, None])
    mine = whole.subset(slice(70 * rank // size, 70 * (rank + 1) // size))
    shards = [mine.subset(slice(0, 9)), mine.subset(slice(9, None))]
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=24),
        ["rotation", "translate_x"],
        likelihood="gaussian",
        num_orbit_samples=5,
        precision="double",
    )
    num = initialise_on_shards(model, shards if rank == 0 or size == 1 else shards[::-1])
    if size == 1:  # the first shard starts the kernel; here it has to be that of process 0 of two
        first = whole.subset(slice(0, 35)).subset(slice(0, 9))
        num = initialise_on_shards(model, [first, whole.subset(slice(9, None))])
    eta = torch.tensor([0.4, 0.1], dtype=torch.float64, requires_grad=True)
    value = log_evidence_of_shards(model, eta, shards)
    parameters = [h.parameter for h in model.hyperparameters]
    gradients = torch.autograd.grad(value, [eta, *parameters])
    mean, variance = condition_on_shards(model, eta.detach(), shards).moments(x[:4])
    return {"num": num, "value": value, "gradients": gradients, "mean": mean, "variance": variance, "model": model}


class Numbered(Dataset):
    """Examples that say which they are."""

    def __len__(self):
        return 23

    def __getitem__(self, i):
        return torch.tensor([float(i)]), torch.tensor([0.5])


class OneBreaks(Objective):
    """A weight under a loss that fails on process 1 at its seventh step."""

    def __init__(self, rank: int):
        self.linear = nn.Linear(1, 1).double()
        self.modules, self.rank, self.count = [self.linear], rank, 0

    def phases(self, training, num_steps):
        return [Phase("weights", [{"params": list(self.linear.parameters()), "lr": 0.01}], self.loss, 6, traced=True)]

    def loss(self, data, num_total):
        self.count += 1
        if self.rank == 1 and self.count == 7:
            raise NumericalError("the seventh step cannot be computed")
        return (self.linear(data.x.double()) - data.y.double()).square().mean()

    def current_extents(self):
        return {}


def beside(group: Processes) -> dict:
    """What a group of a GPU's backend does on the CPU: messages by one of gloo beside it, a look at who is there."""
    with mock.patch("torch.distributed.get_backend", return_value="nccl"):
        sums = torch.tensor([1.0 + group.rank])
        group.add([sums])
        told = group.from_first(lambda: f"process {group.rank}")
        group.check_alive()
        found = {"sums": sums, "told": told}
        with mock.patch("bayesinv.numerics.processes.LONGEST_WAIT", 1.0):
            if group.rank == 0:
                found["missing"] = caught(group.check_alive, RankError)
            else:
                time.sleep(3.0)
    return found


def caught(call, *kinds):
    try:
        call()
    except kinds as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def agree(rank: int, folder: Path) -> dict:
    """Everything that one launch can look at."""
    found = {name: fitted(model(seed=rank, **options)) for name, options in MODELS.items()}
    seen: list[int] = []
    stopping = [lambda step: (seen.append(step.step), step.step == 11)[1]]
    found["stopped"] = fitted(model(), callbacks=stopping if rank == 0 else []) | {"seen": torch.tensor(seen)}
    found["augerino"] = fitted(model(), inference="augerino")
    found["norm"] = fitted(model(norm=True))
    second = settings(checkpoint=folder / "second.checkpoint", second_stage=bayesinv.SecondStage(start="given"))
    found["second"] = fitted(model(seed=rank), second)
    found["resumed"] = fitted(model(), settings(checkpoint=folder / "one.checkpoint", checkpoint_every=4))
    group = current_group()
    found["sharded"] = sharded(rank, 2)
    started = found["sharded"].pop("model")
    part = [Data(torch.rand(6, 1, 8, 8), torch.rand(6, 2))] if rank == 0 else []
    found["no examples"] = [
        caught(lambda: initialise_on_shards(started, part), DataError),
        caught(lambda: log_evidence_of_shards(started, torch.zeros(2, dtype=torch.float64), part), DataError),
    ]
    stream = stream_of(Numbered(), "gaussian")
    found["shares"] = [stream.batch(0, "weights", step, 8, group).x[:, 0].long().tolist() for step in range(4)]
    broken = OneBreaks(rank)
    run = (broken, stream_of(Numbered(), "gaussian"), settings(), 40, 0, {})
    found["one breaks"] = caught(lambda: train(*run), NonFiniteError)
    found["beside"] = beside(group)
    found["state after"] = {"linear": broken.linear.weight.detach().clone()}
    other = bayesinv.Data(data().x + rank, data().y, num_classes=3)
    found["other data"] = caught(lambda: bayesinv.fit(model(), other, device="cpu", max_steps=5), ValueError)
    once = {"device": "cpu", "max_steps": 5}
    found["other seed"] = caught(lambda: bayesinv.fit(model(), data(), seed=rank, **once), ValueError)
    few = Training(batch_size=1, extent_batch_size=15)
    found["few"] = caught(lambda: bayesinv.fit(model(), data(), device="cpu", max_steps=5, training=few), ValueError)
    tensors = TensorDataset(data().x, data().y)
    loader = DataLoader(tensors, batch_size=4, sampler=DistributedSampler(tensors))
    found["sampler"] = caught(lambda: bayesinv.fit(model(), loader, device="cpu"), DataError)
    return found


class Deadly(nn.Module):
    """Kills its process in the middle of a run."""

    def __init__(self, inner: nn.Module, num_calls: int):
        super().__init__()
        self.inner, self.left = inner, num_calls

    def forward(self, x):
        if not torch.is_inference_mode_enabled() and dist.is_initialized():
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(x)


def deadly(num_calls: int) -> bayesinv.InvarianceModel:
    return bayesinv.InvarianceModel(Deadly(net(0), num_calls), ["rotation", "translate_x"], num_orbit_samples=4)


def main() -> None:
    case, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    if "INIT" in os.environ:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo", init_method=os.environ["INIT"], rank=rank, world_size=size)
    else:
        dist.init_process_group("gloo")
    group = current_group()
    assert isinstance(group, Processes)
    found = agree(group.rank, folder) if case == "all" else {"default": fitted(model(seed=group.rank))}
    torch.save(found, folder / f"{group.rank}.pt")
    if case == "all":
        training = settings(checkpoint=folder / "killed.checkpoint", checkpoint_every=4)
        fitted(deadly(16 if group.rank == 1 else -1), training)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
