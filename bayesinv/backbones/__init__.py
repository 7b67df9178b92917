"""h: the free function whose orbit average is the model."""

from bayesinv.backbones.gp import GaussianProcess

__all__ = ["GaussianProcess"]
