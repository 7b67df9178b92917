"""A network called with other weights is as it was afterwards, whatever stands at two places."""

import pytest
import torch
from torch import nn

from bayesinv.backbones.per_example import example_gram
from bayesinv.backbones.replaced_weights import called_with


def layer_twice():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


def block_twice():
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return nn.Sequential(block, nn.GroupNorm(1, 3), block)


def tied_and_twice():
    net = nn.Sequential(*layer_twice(), nn.Linear(3, 3))
    net[3].weight = net[0].weight
    return net


NETS = [layer_twice, block_twice, tied_and_twice]


@pytest.mark.parametrize("make", NETS)
def test_a_gram_matrix_leaves_the_parameters(make):
    net, points = make(), torch.randn(2, 4, 3)
    before = [(name, id(p)) for name, p in net.named_parameters(remove_duplicate=False)]
    weights = dict(net.named_parameters())
    scales = {name: torch.tensor(1.0) for name in weights}
    for _ in range(2):
        example_gram(net, weights, scales, points, lambda f: torch.ones(1, *f.shape))
        assert [(name, id(p)) for name, p in net.named_parameters(remove_duplicate=False)] == before


@pytest.mark.parametrize("make", NETS)
def test_every_place_gets_the_weights(make):
    net, other, x = make(), make(), torch.randn(4, 3)
    weights = dict(other.named_parameters())
    assert torch.equal(called_with(net, weights, x), other(x))
    assert not torch.equal(net(x), other(x))
