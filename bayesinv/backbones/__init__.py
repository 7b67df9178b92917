"""h: the free function whose orbit average is the model."""

from bayesinv.backbones.deep_kernel import DeepKernel
from bayesinv.backbones.gp import GaussianProcess
from bayesinv.backbones.network import NeuralNetwork

__all__ = ["DeepKernel", "GaussianProcess", "NeuralNetwork"]
