"""What was learned, for other people's pipelines, without Pyro, GPyTorch or ArviZ.

aug = posterior.augmentation()  # draws extents from the posterior, then copies within them
aug.save("aug.safetensors")  # and aug.json, the numbers in people's units
aug = bayesinv.export.load("aug.safetensors")
"""

from bayesinv.export.augmentation import Augmentation
from bayesinv.export.files import load
from bayesinv.export.predictor import InvariantPredictor

__all__ = ["Augmentation", "InvariantPredictor", "load"]
