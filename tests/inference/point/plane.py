"""Points of the plane that turn and shift: a transform, data and networks on which fits take a second."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bayesinv import InvarianceModel, Training, Transform
from bayesinv.data.container import Data
from bayesinv.transforms import Coordinate

QUICK = Training(batch_size=100, weight_rate=0.02)


class Plane(Transform):
    """Turns a point about the origin, then shifts it to the right."""

    coordinates = (Coordinate.linear("turn", "°", math.pi, 180 / math.pi), Coordinate("shift", "", 2.0))

    def transform(self, x: Tensor, t: Tensor) -> Tensor:
        cos, sin, shift = t[:, 0].cos().to(x), t[:, 0].sin().to(x), t[:, 1].to(x)
        return torch.stack([cos * x[:, 0] - sin * x[:, 1] + shift, sin * x[:, 0] + cos * x[:, 1]], 1)


def sectors(n: int = 200, reach: float = 0.6, seed: int = 0, dtype: torch.dtype = torch.float32) -> Data:
    """Two classes on opposite sides of the unit circle, each within ±reach: turns by up to π/2 - reach keep labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    angle = y * math.pi + reach * (2 * torch.rand(n, generator=generator) - 1)
    return Data(torch.stack([angle.cos(), angle.sin()], 1).to(dtype), y, num_classes=2)


def heights(n: int = 40, seed: int = 0) -> Data:
    """Real targets."""
    data = sectors(n, seed=seed)
    return Data(data.x, data.x[:, 1:])


def network(outputs: int = 2, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, outputs))


def plane_model(outputs: int = 2, dtype: torch.dtype = torch.float32, **options: Any) -> InvarianceModel:
    options = {"evidence": "plugin", "num_orbit_samples": 6} | options
    return InvarianceModel(network(outputs).to(dtype), Plane(), **options)
