"""The Laplace evidence in little memory is the same number, with the same gradient."""

import pytest
import torch
from torch import nn

import bayesinv.backbones.gram_in_parts as module
from bayesinv import Data, InvarianceModel
from bayesinv.backbones.memory import counted
from bayesinv.evidence.laplace import LaplaceEvidence
from bayesinv.inference.target import start_extents
from bayesinv.numerics.randomness import seeded


class Twice(nn.Module):
    """One layer used twice, and a weight that only vmap takes apart."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.power = nn.Parameter(torch.full((6,), 1.1))

    def forward(self, x):
        h = torch.tanh(self.first(x.flatten(1)))
        h = torch.tanh(self.middle(torch.tanh(self.middle(h))))
        return self.last(torch.exp(h).pow(self.power))


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.GroupNorm(1, 3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 40), nn.Linear(40, 3)
    )


def maps():
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 3, 1))


def data_of(kind):
    torch.manual_seed(1)
    x = torch.rand(9, 1, 6, 6)
    if kind == "gaussian":
        return Data(x, torch.randn(9, 3))
    y = torch.randint(0, 3, (9, 6, 6) if kind == "maps" else (9,))
    groups = torch.arange(9) % 2 if kind == "groups" else None
    return Data(x, y, 3, groups)


CASES = {
    "conv": (conv, {}, {}),
    "twice": (Twice, {}, {}),
    "joint": (conv, {"num_outputs": None}, {}),
    "two outputs": (conv, {"num_outputs": 2, "determinant": "between"}, {}),
    "probabilities": (conv, {}, {"average": "probabilities"}),
    "gaussian": (Twice, {"likelihood": "gaussian"}, {}),
    "each output": (conv, {"likelihood": "gaussian"}, {"outputs": ["a", "b", "c"]}),
    "maps": (maps, {"num_outputs": 4}, {"output_action": "image"}),
    "groups": (conv, {}, {"groups": ["a", "b"]}),
}


def value_and_gradient(name, budget):
    make, options, more = CASES[name]
    likelihood = options.get("likelihood", "categorical")
    torch.manual_seed(0)
    net = make()
    evidence = LaplaceEvidence(**{"likelihood": likelihood, **options})
    model = InvarianceModel(
        net,
        ["rotation", "scale_x"],
        likelihood=likelihood,
        evidence=evidence,
        num_orbit_samples=3,
        memory_budget=budget,
        **more,
    )
    data = data_of(name if name in ("maps", "groups") else likelihood)
    model.initialise(data)
    eta = (0.3 * start_extents(model, 0.5)).requires_grad_()
    wanted = [eta, model.network.log_scales, *([evidence.log_noise] if likelihood == "gaussian" else [])]
    with seeded(3):
        value = model.log_evidence(eta, data, 30)
    return value.detach(), torch.autograd.grad(value, wanted)


@pytest.mark.parametrize("name", CASES)
def test_a_small_budget_gives_the_same_value_and_gradient(name, monkeypatch):
    jobs = []
    call = module.GramInParts.__call__
    monkeypatch.setattr(module.GramInParts, "__call__", lambda job, *a: (jobs.append(job), call(job, *a))[1])
    value, gradient = value_and_gradient(name, 2**30)
    assert not jobs
    small, other = value_and_gradient(name, 2**17 if name == "joint" else 2**15)
    assert jobs
    torch.testing.assert_close(small, value, rtol=1e-5, atol=1e-4)
    for a, b in zip(other, gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3 * float(b.abs().max()))
        assert float(b.abs().max()) > 0


def test_columns_and_blocks_follow_the_budget():
    torch.manual_seed(0)
    net = conv()
    weights = dict(net.named_parameters())
    points, A = torch.rand(2, 9, 1, 6, 6), torch.rand(1, 9, 3)
    average = lambda outputs, copies: outputs.mean(0)  # noqa: E731
    total = sum(w.numel() for w in weights.values())
    job = module.GramInParts(net, weights, average, False, True, 2 * 4 * 9 * total, 1000)  # half of J and its gradient
    groups = job.groups(points, A, {})
    sizes = [sum(end - begin for _, begin, end in group) for group in groups]
    assert sizes == [-(-total // 2), total // 2]
    assert [b.stop - b.start for b in job.blocks(points)] == [9]
    tight = module.GramInParts(net, weights, average, False, True, 20000, 1000)
    assert len(tight.groups(points, A, {})) == module.MOST_PASSES
    assert [b.stop - b.start for b in tight.blocks(points)] == [1] * 9


@pytest.mark.parametrize("orbit", [8, 16])
def test_the_weights_step_keeps_what_the_budget_allows(orbit):
    torch.manual_seed(0)
    kept = {}
    for budget in (2**30, 2**16):
        torch.manual_seed(0)
        model = InvarianceModel(conv(), "rotation", evidence="plugin", num_orbit_samples=orbit, memory_budget=budget)
        data = data_of("categorical")
        eta = torch.tensor([0.4], dtype=torch.float64)
        with counted() as saved:
            loss = -model.evidence.mean_log_likelihood(model.at(eta), data)
        grads = torch.autograd.grad(loss, list(model.network.weights().values()))
        kept[budget] = (saved.num_bytes, loss.detach(), grads)
    assert kept[2**16][0] < 0.6 * kept[2**30][0]
    torch.testing.assert_close(kept[2**16][1], kept[2**30][1])
    torch.testing.assert_close(kept[2**16][2], kept[2**30][2])
