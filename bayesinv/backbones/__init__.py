"""h: the free function whose orbit average is the model."""

from typing import Any

from gpytorch.kernels import Kernel
from torch import nn

from bayesinv.backbones.deep_kernel import DeepKernel
from bayesinv.backbones.gp import GaussianProcess
from bayesinv.backbones.network import NeuralNetwork

__all__ = ["DeepKernel", "GaussianProcess", "NeuralNetwork", "as_backbone"]


def as_backbone(backbone: Any) -> GaussianProcess | NeuralNetwork:
    """A backbone as it is, or one made around a kernel or a module.

    Raises:
        TypeError: none of these.
    """
    if isinstance(backbone, GaussianProcess | NeuralNetwork):
        return backbone
    if isinstance(backbone, Kernel):
        return GaussianProcess(backbone)
    if isinstance(backbone, nn.Module):
        return NeuralNetwork(backbone)
    if isinstance(backbone, type):
        raise TypeError(f"backbone: got the class {backbone.__name__}; give an object of it, {backbone.__name__}(...)")
    raise TypeError(
        "backbone: expected a bayesinv.GaussianProcess, a GPyTorch kernel, a bayesinv.NeuralNetwork or a "
        f"torch.nn.Module, got {type(backbone).__name__}"
    )
