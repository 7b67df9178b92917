"""What a look at a network leaves behind: nothing."""

import torch
from torch import nn

from bayesinv.backbones.memory import unchanged


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("total", torch.zeros(2))
        self.register_buffer("last", None)

    def forward(self, x):
        self.steps += 1  # in place
        self.total = self.total + x.sum(0)  # another tensor
        self.last = x
        return x


def test_buffers_are_put_back_by_name():
    net = nn.Sequential(Counts(), nn.BatchNorm1d(2))
    net(torch.ones(4, 2))
    before = dict(net.named_buffers())
    values = {name: buffer.clone() for name, buffer in before.items()}
    with unchanged(net):
        net(torch.rand(5, 2))
        assert float(net[0].steps) == 2
    after = dict(net.named_buffers())
    assert list(after) == list(before)
    assert all(after[name] is before[name] and torch.equal(after[name], values[name]) for name in before)
