"""A model whose every answer is known in closed form, and posteriors around it."""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.evidence.prediction import Prediction
from bayesinv.fitted.result import InferenceResult
from bayesinv.model.hyperparameters import Hyperparameter
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.model.parts import ModelParts
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms import Affine2d


class ToyModel(ModelParts):
    """What searches ask of a model, where the density itself is a toy."""

    symmetries, backbone, evidence = ("rotation", "shear"), None, SimpleNamespace(warm_start=None)  # type: ignore[assignment]


class Listed(Dataset[Any]):
    """A data set of the items of a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


NAMES = ("rotation", "translate_x", "scale_x")


class KnownModel(InvarianceModel):
    """log p(D | η) = -|η − centre|² / (2 width²); p(y = 1 | x, η) = rotation / π."""

    centre = torch.tensor([0.9, 0.05, 0.02], dtype=torch.float64)
    width = 0.1

    @property
    def hyperparameters(self) -> list[Hyperparameter]:
        """None, as its evidence depends on nothing else."""
        return []

    def log_evidence(self, eta: Tensor, data: Data, num_total: int | None = None) -> Tensor:
        return -0.5 * ((eta - self.centre[: len(eta)]) / self.width).square().sum()

    def predict(
        self,
        x: Tensor,
        data: Data,
        extents: Tensor,
        weights: Tensor | None = None,
        num_function_samples: int = 64,
        seed: int = 0,
        groups: Any = None,
        hyperparameters: Tensor | None = None,
        known: Any = None,
        y: Tensor | None = None,
    ) -> Prediction:
        weights = torch.full((len(extents),), 1 / len(extents)) if weights is None else weights
        p = extents[:, 0] / math.pi  # (J,)
        mean = (weights.to(p) * p).sum()
        second = (weights.to(p) * p.square()).sum()
        if self.likelihood == "gaussian":
            column = mean.expand(len(x), 1)
            log_density = None
            if y is not None:
                log_density = torch.distributions.Normal(column, 0.2).log_prob(y).sum(-1)
            return Prediction(variance=torch.full_like(column, 0.04), mean=column, log_density=log_density)
        probs = torch.stack([1 - mean, mean]).expand(len(x), 2)
        return Prediction(variance=(second - mean.square()).expand(len(x), 2), probs=probs)

    def log_likelihood(
        self, data: Data, train: Data, extents: Tensor, seed: int = 0, hyperparameters: Tensor | None = None
    ) -> Tensor:
        p = extents[:, :1] / math.pi  # (J, 1)
        return torch.where(data.y[None, :].flatten(1) == 1, p.log(), torch.log1p(-p))


def make_data(likelihood: str = "categorical", n: int = 12) -> Data:
    """n images of 8×8, of two classes or with one real target."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    if likelihood == "gaussian":
        return Data(x, torch.randn(n, 1, generator=generator, dtype=torch.float64))
    return Data(x, torch.arange(n) % 2, num_classes=2)


def make_result(chains: int = 1, draws: int = 400, weighted: bool = False, **changes: Any) -> InferenceResult:
    """Draws around (0.9 rad, 0.05, 0.02), like those of a fit; with weights on request."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(chains, draws, 3, generator=generator, dtype=torch.float64)
    centre = torch.tensor([0.9, 0.05, 0.02], dtype=torch.float64)
    extents = (centre + noise * torch.tensor([0.05, 0.01, 0.01])).abs()
    fields: dict[str, Any] = {
        "inference": "vi" if chains == 1 else "nuts",
        "guide": "full_rank" if chains == 1 else None,
        "extents": extents,
        "seed": 0,
        "settings": {"learning_rate": 0.05},
    }
    if weighted:
        logits = torch.randn(draws, generator=generator, dtype=torch.float64)
        fields["log_weights"] = torch.log_softmax(logits, 0)
        fields["pareto_k"] = 0.31
    if chains == 1:
        fields["log_evidence"], fields["log_evidence_se"] = -123.4, 0.5
        climb = -120 - 4000 * torch.exp(-torch.arange(300) / 12.0)
        fields["trace"] = tuple((climb + 8 * torch.randn(300, generator=generator)).tolist())
    else:
        fields["rhat"], fields["ess"] = (1.01, 1.02, 1.0), (310.0, 290.0, 400.0)
    return InferenceResult(**(fields | changes))


def make_posterior(
    likelihood: str = "categorical", chains: int = 1, weighted: bool = False, **changes: Any
) -> InvariancePosterior:
    """A posterior over rotation, translate_x and scale_x with known answers."""
    model = KnownModel(GaussianProcess(num_features=64), Affine2d(NAMES), likelihood=likelihood)
    result = make_result(chains=chains, weighted=weighted, **changes)
    return InvariancePosterior(model, make_data(likelihood), result)
