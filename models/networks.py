"""The networks of the experiments: no batch statistics, no dropout, so that every evidence takes them; and SimpleConv.

Each is a module with logits as outputs and a ``seed`` that alone decides the initial weights; the global generators are
left as they were. Any of them takes images of any number of channels, size and classes.
"""

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bayesinv.numerics.randomness import seeded

__all__ = [
    "CNN13",
    "MLP",
    "NETWORKS",
    "LeNet",
    "ResNet8",
    "SimpleConv",
    "SmallLeNet",
    "SmallSimpleConv",
    "make_network",
]


class MLP(nn.Sequential):
    """One hidden layer of tanh units.

    Args:
        channels, size, num_classes: of square images and labels.
        seed: of the initial weights.
        width: hidden units.

    Example:
        >>> sum(p.numel() for p in MLP().parameters())  # 785 · 1000 + 1001 · 10
        795010
    """

    def __init__(self, channels: int = 1, size: int = 28, num_classes: int = 10, seed: int = 0, width: int = 1000):
        with seeded(seed):
            super().__init__(
                OrderedDict(
                    flatten=nn.Flatten(),
                    hidden=nn.Linear(channels * size * size, width),
                    tanh=nn.Tanh(),
                    logits=nn.Linear(width, num_classes),
                )
            )


class LeNet(nn.Sequential):
    """LeNet-5 with tanh and average pooling.

    conv 5×5 (padding 2) → 6, pool 2, conv 5×5 → 16, pool 2, then linear layers over ``hidden``; 400-120-84-10 at 28×28.

    Args:
        channels, size, num_classes: of square images, at least 12 pixels a side, and labels.
        seed: of the initial weights.
        hidden: widths of the linear layers between the convolutions and the logits.

    Raises:
        ValueError: images that are too small.

    Reference:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998). Gradient-based learning applied to document recognition.
        Proceedings of the IEEE 86.

    Example:
        >>> sum(p.numel() for p in LeNet().parameters())
        61706
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        num_classes: int = 10,
        seed: int = 0,
        hidden: tuple[int, ...] = (120, 84),
    ):
        left = (size // 2 - 4) // 2  # pixels a side after the second pooling
        if left < 1:
            raise ValueError(f"size is {size}; expected at least 12, so that something is left after two poolings")
        widths = (16 * left * left, *hidden)
        with seeded(seed):
            layers: list[tuple[str, nn.Module]] = [
                ("conv1", nn.Conv2d(channels, 6, 5, padding=2)),
                ("tanh1", nn.Tanh()),
                ("pool1", nn.AvgPool2d(2)),
                ("conv2", nn.Conv2d(6, 16, 5)),
                ("tanh2", nn.Tanh()),
                ("pool2", nn.AvgPool2d(2)),
                ("flatten", nn.Flatten()),
            ]
            for i, (fan_in, fan_out) in enumerate(zip(widths, hidden, strict=False), start=1):
                layers += [(f"linear{i}", nn.Linear(fan_in, fan_out)), (f"tanh{i + 2}", nn.Tanh())]
            layers.append(("logits", nn.Linear(widths[-1], num_classes)))
            super().__init__(OrderedDict(layers))


class SmallLeNet(LeNet):
    """`LeNet` with a single hidden linear layer of 32 units: a quarter of its weights, for quick runs.

    Args:
        channels, size, num_classes: of square images, at least 12 pixels a side, and labels.
        seed: of the initial weights.

    Example:
        >>> sum(p.numel() for p in SmallLeNet().parameters())
        15734
    """

    def __init__(self, channels: int = 1, size: int = 28, num_classes: int = 10, seed: int = 0):
        super().__init__(channels, size, num_classes, seed, hidden=(32,))


class ResNet8(nn.Module):
    """A residual network of eight layers without normalisation, by Fixup.

    conv → 16, three residual blocks (16, 32, 64 channels, each after the first at half the resolution), mean over the
    pixels, linear. Fixup keeps the output's size independent of the depth at the start: the last convolution of a
    block and the logits start at zero, the first at He's scale times L^(−1/2), L = 3 blocks; one scalar bias before
    every convolution and activation and one scalar gain a block replace what normalisation would learn.

    Args:
        channels, size, num_classes: of square images and labels; any size will do.
        seed: of the initial weights.
        width: channels of the first block.

    Reference:
        H. Zhang, Y. Dauphin, T. Ma (2019). Fixup initialization: residual learning without normalization.
        arXiv:1901.09321.

    Example:
        >>> ResNet8(channels=3, size=32)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int = 1, size: int = 28, num_classes: int = 10, seed: int = 0, width: int = 16):
        super().__init__()
        with seeded(seed):
            self.conv = _he_conv(channels, width, 1)
            self.bias = _Bias()
            self.blocks = nn.Sequential(
                _FixupBlock(width, width, stride=1),
                _FixupBlock(width, 2 * width, stride=2),
                _FixupBlock(2 * width, 4 * width, stride=2),
            )
            self.bias_out = _Bias()
            self.logits = nn.Linear(4 * width, num_classes)
            nn.init.zeros_(self.logits.weight)
            nn.init.zeros_(self.logits.bias)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        x = self.bias(self.conv(x)).relu()
        x = self.blocks(x).mean((2, 3))  # (batch, 4 width)
        return self.logits(self.bias_out(x))


class CNN13(nn.Module):
    """The convolutional network of semi-supervised learning, often called 13-layer, without normalisation.

    Three groups of three convolutions with leaky rectifiers, w-w-w, 2w-2w-2w, 4w-2w-w, a maximum over 2×2 pixels after
    each of the first two (nine convolutions, three poolings, one linear layer). The last group works without padding
    and with 1×1 kernels, and its mean over the pixels feeds the logits. The original has w = 128, batch normalisation
    and dropout. Without them He's scale keeps the signal's size; normalised layers would leave the size of their
    weights without a meaning, and a Gaussian prior on them is what the evidence learns from.

    Args:
        channels, size, num_classes: of square images, at least 12 pixels a side, and labels.
        seed: of the initial weights.
        width: w; 128 for the original's 3.1 million weights.
        groups: of GroupNorm after every convolution, for comparison; 0 has none.

    Raises:
        ValueError: images that are too small.

    Reference:
        S. Laine, T. Aila (2017). Temporal ensembling for semi-supervised learning. arXiv:1610.02242.

    Example:
        >>> CNN13(channels=3, size=32)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        num_classes: int = 10,
        seed: int = 0,
        width: int = 32,
        groups: int = 0,
    ):
        super().__init__()
        if size < 12:
            raise ValueError(f"size is {size}; expected at least 12, so that a 3×3 kernel fits after two poolings")
        widths = [width] * 3 + [2 * width] * 3 + [4 * width, 2 * width, width]
        kernels = [3] * 7 + [1, 1]
        layers: list[nn.Module] = []
        with seeded(seed):
            for i, (fan_in, fan_out, kernel) in enumerate(zip([channels, *widths], widths, kernels, strict=False)):
                conv = nn.Conv2d(fan_in, fan_out, kernel, padding=1 if i < 6 else 0)
                nn.init.kaiming_normal_(conv.weight, a=_SLOPE)
                layers.append(conv)
                if groups:
                    layers.append(nn.GroupNorm(groups, fan_out))
                layers.append(nn.LeakyReLU(_SLOPE))
                if i in (2, 5):
                    layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers)
            self.logits = nn.Linear(width, num_classes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.logits(self.features(x).mean((2, 3)))


class SimpleConv(nn.Sequential):
    """The convolutional network that Augerino and AugNet were published with on two turned characters.

    Four 3×3 convolutions of w, 2w, 4w and 8w channels, each with batch normalisation and rectifiers; a maximum over 2×2
    pixels after all but the first, one over what is left, and a linear layer. It has batch statistics, which the
    Laplace evidence refuses: it is for the point methods, whose published weight decay would shrink a network without
    normalisation to nothing.

    Args:
        channels, size, num_classes: of square images, at least 8 pixels a side, and labels.
        seed: of the initial weights.
        width: w.

    Reference:
        G. Benton, M. Finzi, P. Izmailov, A. G. Wilson (2020). Learning invariances in neural networks.
        arXiv:2010.11882.

    Example:
        >>> SimpleConv(channels=3, size=32, width=4)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int = 1, size: int = 28, num_classes: int = 10, seed: int = 0, width: int = 32):
        layers: list[nn.Module] = []
        widths = [channels, *(width * 2**i for i in range(4))]
        with seeded(seed):
            for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
                layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.BatchNorm2d(fan_out), nn.ReLU()]
                if i > 0:
                    layers.append(nn.MaxPool2d(2))
            layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes)]
        super().__init__(*layers)


class SmallSimpleConv(SimpleConv):
    """`SimpleConv` with w = 8: a sixteenth of the products, for quick runs.

    Args:
        channels, size, num_classes: of square images, at least 8 pixels a side, and labels.
        seed: of the initial weights.

    Example:
        >>> sum(p.numel() for p in SmallSimpleConv().parameters())
        25194
    """

    def __init__(self, channels: int = 1, size: int = 28, num_classes: int = 10, seed: int = 0):
        super().__init__(channels, size, num_classes, seed, width=8)


_SLOPE = 0.1  # of the leaky rectifiers on negative inputs, as in the original


class _Bias(nn.Module):
    """One number, added everywhere: a module of its own, so that its prior has a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class _FixupBlock(nn.Module):
    """x + gain · conv(relu(conv(x))), then a rectifier; the shortcut halves the resolution and pads channels."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, channels_out - channels_in
        self.bias1, self.bias2, self.bias3, self.bias4 = (_Bias() for _ in range(4))
        self.conv1 = _he_conv(channels_in, channels_out, stride, scale=_NUM_BLOCKS**-0.5)
        self.conv2 = _he_conv(channels_out, channels_out, 1, scale=0.0)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bias2(self.conv1(self.bias1(x))).relu()
        branch = self.bias4(self.gain * self.conv2(self.bias3(branch)))
        if self.stride > 1:
            # The pixels that the strided convolution is centred on, so that any size fits.
            x = x[:, :, :: self.stride, :: self.stride]
        if self.extra:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.extra))
        return (x + branch).relu()


_NUM_BLOCKS = 3


def _he_conv(channels_in: int, channels_out: int, stride: int, scale: float = 1.0) -> nn.Conv2d:
    """A 3×3 convolution without bias, normal with variance 2 / (9 · channels_out) times scale²."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=scale * math.sqrt(2 / (9 * channels_out)))
    return conv


NETWORKS: dict[str, type[nn.Module]] = {
    "mlp": MLP,
    "lenet": LeNet,
    "small_lenet": SmallLeNet,
    "resnet8": ResNet8,
    "cnn13": CNN13,
    "simple_conv": SimpleConv,
    "small_simple_conv": SmallSimpleConv,
}


def make_network(name: str, channels: int = 1, size: int = 28, num_classes: int = 10, seed: int = 0) -> nn.Module:
    """A network by its name on the command line.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> type(make_network("lenet", channels=3, size=32, num_classes=4)).__name__
        'LeNet'
    """
    if name not in NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name](channels=channels, size=size, num_classes=num_classes, seed=seed)
