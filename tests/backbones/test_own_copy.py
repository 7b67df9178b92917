"""What users bring as networks."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from bayesinv import NeuralNetwork
from bayesinv.backbones.own_copy import own_copy


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "compiled": lambda n: torch.compile(n, backend="eager"),
    "both": lambda n: torch.compile(nn.DataParallel(n), backend="eager"),
    "inside": lambda n: nn.Sequential(nn.DataParallel(n[:2]), n[2]),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_taken_off(name):
    plain, x = net(), torch.rand(5, 4)
    own = own_copy(WRAPPERS[name](plain))
    assert torch.equal(own(x), plain(x))
    assert not any(isinstance(m, nn.DataParallel) or hasattr(m, "_orig_mod") for m in own.modules())
    assert not {id(p) for p in own.parameters()} & {id(p) for p in plain.parameters()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_single(dtype):
    given = net().to(dtype)
    given[2].double()
    network = NeuralNetwork(given)
    assert [p.dtype for p in network.net.parameters()] == [torch.float32] * 2 + [torch.float64] * 2
    assert torch.equal(network.net[0].weight, given[0].weight.float())
    assert given[0].weight.dtype == dtype


def test_tied_weights_stay_tied():
    tied = net().bfloat16()
    tied.append(nn.Linear(3, 2, dtype=torch.bfloat16))
    tied[3].weight = tied[2].weight
    own = own_copy(tied)
    assert own[3].weight is own[2].weight


def test_a_wrapper_is_taken_off_wherever_it_stands():
    wrapped = nn.DataParallel(nn.Linear(3, 3))
    own = own_copy(nn.Sequential(wrapped, nn.Tanh(), wrapped))
    assert type(own[0]) is nn.Linear and own[2] is own[0]


def pruned():
    n = net()
    prune.l1_unstructured(n[0], "weight", 0.5)
    return n


def locked():
    n = net()
    n.lock = threading.Lock()
    return n


class Refuses:
    """A module that says nothing about why it cannot be copied."""

    def __deepcopy__(self, memo):
        raise NotImplementedError


def silent():
    n = net()
    n.extra = Refuses()
    return n


REFUSED = {
    "silent": (silent, TypeError, "fails: NotImplementedError"),
    "script": (lambda: torch.jit.script(net()), TypeError, "torch.jit"),
    "script inside": (lambda: nn.Sequential(torch.jit.script(net())), TypeError, "layer '0'"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), ValueError, "lazy '0.weight'"),
    "meta": (lambda: net().to("meta"), ValueError, "to_empty"),
    "pruned": (pruned, TypeError, "prune.remove"),
    "weight_norm": (lambda: nn.utils.weight_norm(nn.Linear(4, 2)), TypeError, "parametrizations"),
    "complex": (
        lambda: nn.ParameterList([torch.zeros(2, dtype=torch.complex64)]),
        TypeError,
        "complex ones alone, such as '0'",
    ),
    "lock": (locked, TypeError, "deepcopy"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused(name):
    make, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        NeuralNetwork(make())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_frozen_features_may_be_scripts():
    x = torch.rand(5, 4)
    assert torch.equal(own_copy(torch.jit.script(net()), replaces_weights=False)(x), net()(x))
