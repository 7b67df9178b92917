"""Weights that predict: trained on the likelihood alone, with extents drawn from a posterior."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones import NeuralNetwork
from bayesinv.data.container import Data
from bayesinv.data.streams import Stream, derive_seed
from bayesinv.evidence import NetworkEvidence
from bayesinv.inference.first_look import check_gradients
from bayesinv.inference.loop import Callback, Trace
from bayesinv.inference.second_stage import SecondStage
from bayesinv.inference.training import Objective, Phase, Training
from bayesinv.inference.training import train as run_loop
from bayesinv.inference.vi import describe_extents
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.posterior.invariance_posterior import InvariancePosterior

__all__ = ["PredictiveObjective", "second_stage"]

# Extents that training draws from, resampled from the posterior's own; predictions take their draws from the posterior.
NUM_DRAWS = 1000
# What a posterior keeps of its training data, for evidence profiles and checks of new inputs.
KEPT_EXAMPLES = 1000


class PredictiveObjective(Objective):
    """L = -(1/n) Σ_i log p(y_i | f_η(x_i)), η drawn from given extents and fresh copies for each batch.

    Args:
        model: with the plug-in likelihood; its network is trained in place.
        draws: extents, (J, K), internal units.
        second: optimiser and schedule.
    """

    def __init__(self, model: InvarianceModel, draws: Float[Tensor, "J K"], second: SecondStage):
        self.model, self.draws, self.second = model, draws, second
        self.modules = [model]

    def phases(self, training: Training, num_steps: int) -> list[Phase]:
        """One: weights, and the noise of a regression; weights alone decay."""
        weights = list(self.model.network.weights().values())
        noise = [p for p in self.model.evidence.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": weights, "lr": training.weight_rate, "weight_decay": training.weight_decay}
        ]
        schedule, size = self.second.schedule or training.schedule, training.batch_size
        if self.second.optimiser is None:
            groups += [{"params": noise, "lr": training.hyper_rate}] if noise else []
        phases = [
            Phase(
                "predictions",
                groups,
                self.loss,
                size,
                schedule=schedule,
                traced=True,
                clip=True,
                optimiser=self.second.optimiser,
            )
        ]
        if noise and self.second.optimiser is not None:  # which is for the weights
            phases.append(Phase("noise", [{"params": noise, "lr": training.hyper_rate}], self.loss, size))
        return phases

    def loss(self, data: Data, num_total: int) -> Float[Tensor, ""]:
        """L on a minibatch, nats per example."""
        evidence = self.model.evidence
        if not isinstance(evidence, NetworkEvidence):
            raise TypeError(f"expected the evidence of a network, got {evidence.name!r}")
        eta = self.draws[int(torch.randint(len(self.draws), ()))]
        return -evidence.mean_log_likelihood(self.model.at(eta, fresh=True), data)

    def current_extents(self) -> Mapping[str, float]:
        """Medians of the draws, internal units."""
        return dict(zip(self.model.symmetries, self.draws.median(0).values.tolist(), strict=True))

    def describe(self, extents: Mapping[str, float]) -> str:
        """The three largest extents in words."""
        return describe_extents(self.model, extents) if self.model.active else "extents fixed"


def second_stage(
    posterior: InvariancePosterior,
    given: InvarianceModel,
    stream: Stream,
    training: Training,
    num_steps: int,
    fingerprint: Mapping[str, Any],
    progress: bool,
    callbacks: Sequence[Callback],
) -> InvariancePosterior:
    """The posterior with a network that was trained to predict; the first one stays, with its evidence.

    Args:
        posterior: of the first stage.
        given: the model as it came to ``fit``.
        stream: the data.
        training: of the whole fit.
        num_steps: of this stage.
        fingerprint: what has to be the same for a checkpoint to be gone on from.
        progress, callbacks: as for ``fit``.
    """
    began = time.perf_counter()
    second, result = training.second_stage, posterior.result
    if second is None:
        return posterior
    seed = derive_seed(result.seed, "second stage")
    with ordinary(grad=True), seeded(seed):
        model = (posterior.model if second.start == "continued" else given).plug_in().to(posterior.data.x.device)
        if second.start == "given":
            model.initialise(posterior.data, seed, stream.num_total)
        model.network.mixed_precision = training.mixed_precision
        trace = train_weights(
            model,
            posterior,
            posterior.data,
            stream,
            training,
            second,
            num_steps,
            seed,
            fingerprint,
            progress,
            callbacks,
        )
        model.network.mixed_precision = False
    facts = {
        **second.described(),
        "num_steps": num_steps,
        "seconds": time.perf_counter() - began,
        "log_likelihood": _last(trace),
    }
    posterior.model.predictive = model
    result = dataclasses.replace(
        result,
        num_steps=result.num_steps + num_steps,
        seconds=result.seconds + time.perf_counter() - began,
        settings=result.settings | {"second_stage": facts},
    )
    return InvariancePosterior(posterior.model, posterior.data, result)


def train_weights(
    model: InvarianceModel,
    posterior: InvariancePosterior,
    kept: Data,
    stream: Stream,
    training: Training,
    second: SecondStage,
    num_steps: int,
    seed: int,
    fingerprint: Mapping[str, Any],
    progress: bool,
    callbacks: Sequence[Callback],
) -> Trace:
    """Train a plug-in model on extents of a posterior, in place."""
    if stream.num_classes is None and model.likelihood == "categorical":
        stream.num_classes = model.network.initialise(kept.x, 1.0, seed)
    check_gradients(model, kept.subset(slice(0, 2)), learns_extents=False)
    objective = PredictiveObjective(model, posterior.sample(NUM_DRAWS, seed), second)
    return run_loop(objective, stream, training, num_steps, seed, fingerprint, progress, callbacks)


def _last(trace: Trace) -> float | None:
    """Nats per example, mean over the last tenth of the steps."""
    values = trace.objective[-max(1, len(trace.objective) // 10) :]
    return sum(values) / len(values) if values else None


def reset_weights(network: nn.Module) -> None:
    """Draw the weights of every layer anew from torch's global generator, in place.

    Raises:
        ValueError: a layer with weights that has no ``reset_parameters``.
    """
    for name, module in network.named_modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if callable(reset):
            reset()
        elif own and not isinstance(module, NeuralNetwork):
            raise ValueError(
                f"reset: the layer {name!r} ({type(module).__name__}) has weights and no reset_parameters(), so that "
                "they cannot be drawn anew; build the network again and pass it with reset=False"
            )
