"""The networks of the experiments: shapes, sizes, and weights that the seed alone decides."""

import math

import pytest
import torch
from torch import nn

from models.networks import CNN13, MLP, NETWORKS, LeNet, ResNet8, SmallLeNet, make_network

SIZES = {
    # name: weights at 1×28×28 and 10 classes, and at 3×32×32 and 4 classes
    "mlp": (785 * 1000 + 1001 * 10, 3073 * 1000 + 1001 * 4),
    "lenet": (156 + 2416 + 401 * 120 + 121 * 84 + 85 * 10, 456 + 2416 + 577 * 120 + 121 * 84 + 85 * 4),
    "small_lenet": (156 + 2416 + 401 * 32 + 33 * 10, 456 + 2416 + 577 * 32 + 33 * 4),
    # convolutions without biases; 1 + 3 · 4 + 1 scalar biases and 3 gains
    "resnet8": (
        9 * (16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 17 + 65 * 10,
        9 * (48 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 17 + 65 * 4,
    ),
    "cnn13": (
        9 * (32 + 2 * 32 * 32 + 32 * 64 + 2 * 64 * 64 + 64 * 128)
        + 128 * 64
        + 64 * 32
        + 3 * 32
        + 3 * 64
        + 224
        + 33 * 10,
        9 * (96 + 2 * 32 * 32 + 32 * 64 + 2 * 64 * 64 + 64 * 128) + 128 * 64 + 64 * 32 + 3 * 32 + 3 * 64 + 224 + 33 * 4,
    ),
    # three vectors a convolution: bias, and the normalisation's gain and shift; 15 w channels in all
    **{
        name: (
            9 * w * (1 + 42 * w) + 3 * 15 * w + (8 * w + 1) * 10,
            9 * w * (3 + 42 * w) + 3 * 15 * w + (8 * w + 1) * 4,
        )
        for name, w in (("simple_conv", 32), ("small_simple_conv", 8))
    },
}


def num_weights(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_every_network_is_tested():
    assert set(SIZES) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_sizes(name):
    grey = make_network(name)
    colour = make_network(name, channels=3, size=32, num_classes=4)
    assert grey(torch.rand(5, 1, 28, 28)).shape == (5, 10)
    assert colour(torch.rand(5, 3, 32, 32)).shape == (5, 4)
    assert (num_weights(grey), num_weights(colour)) == SIZES[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_alone_decides_the_weights(name):
    state = torch.random.get_rng_state()
    first = make_network(name, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second, other = make_network(name, seed=3), make_network(name, seed=4)
    pairs = list(zip(first.parameters(), second.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("simple_conv")])  # batch statistics
def test_no_example_depends_on_the_others_and_nothing_is_drawn(name):
    net = make_network(name)
    for p in net.parameters():  # some start at zero, which would hide what lies below
        torch.nn.init.normal_(p, std=0.1)
    x = torch.rand(6, 1, 28, 28)
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(each[None]) for each in x])
    assert torch.allclose(together, alone, atol=1e-4)
    assert float(together.std(0).max()) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_can_learn(name):
    net = make_network(name)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    moved = {key: torch.zeros(()) for key, _ in net.named_parameters()}
    for _ in range(3):  # what starts at zero holds back the gradient of what lies below for a step each
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        for key, p in net.named_parameters():
            moved[key] = torch.maximum(moved[key], p.grad.abs().max())
        optimiser.step()
    assert all(float(size) > 0 for size in moved.values()), moved


def test_fixup_keeps_the_signal_and_starts_at_zero():
    net = ResNet8(channels=3, size=32)
    x = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        assert float(net(x).abs().max()) == 0
    # with the last convolution of each block at zero, only the shortcuts pass on what the first convolution made
    net.requires_grad_(False)
    first = net.bias(net.conv(x)).relu()
    assert torch.equal(net.blocks[0](first), first)
    assert torch.equal(net.blocks[1](first)[:, :16], first[:, :, ::2, ::2])
    assert float(net.blocks[1](first)[:, 16:].abs().max()) == 0
    scale = net.blocks[1].conv1.weight.std() / math.sqrt(2 / (9 * 32) / 3)
    assert float(scale) == pytest.approx(1, abs=0.05)


def test_unnormalised_layers_keep_the_size_of_the_signal():
    x = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        features = CNN13(channels=3, size=32).features(x)
    # He's scale keeps the mean square of what a layer sums up (1 at the start), in expectation, for wide layers
    assert 0.3 < float(features.square().mean().sqrt()) < 3
    normalised = CNN13(channels=3, size=32, groups=8)
    assert sum(isinstance(module, nn.GroupNorm) for module in normalised.modules()) == 9
    assert normalised(x).shape == (64, 10)


def test_odd_sizes_fit():
    for size in (13, 15, 27):
        x = torch.rand(2, 1, size, size)
        for make in (MLP, LeNet, SmallLeNet, ResNet8, CNN13):
            assert make(size=size)(x).shape == (2, 10)


def test_arguments():
    with pytest.raises(ValueError, match="network: expected one of mlp, lenet"):
        make_network("vgg")
    for make in (LeNet, CNN13):
        assert make(size=12)(torch.rand(1, 1, 12, 12)).shape == (1, 10)
        with pytest.raises(ValueError, match="size is 11; expected at least 12"):
            make(size=11)
