"""``bayesinv.train``: any network with learned extents, and what it returns."""

from __future__ import annotations

import copy
import dataclasses
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bayesinv.backbones import NeuralNetwork
from bayesinv.data.container import Data, as_data
from bayesinv.data.groups import numbered
from bayesinv.data.streams import stream_of
from bayesinv.evidence.prediction import Prediction
from bayesinv.fitted.result import InferenceResult
from bayesinv.inference.devices import choose_device
from bayesinv.inference.loop import Callback
from bayesinv.inference.predictive import KEPT_EXAMPLES, reset_weights, train_weights
from bayesinv.inference.rates import OptimiserFactory, ScheduleFactory
from bayesinv.inference.second_stage import SecondStage
from bayesinv.inference.training import Training
from bayesinv.metrics.temperature import fitted_temperature, tempered
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary
from bayesinv.posterior.invariance_posterior import InvariancePosterior


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """What :func:`train` returns: a network and how to predict with it.

    Attributes:
        posterior: the draws of the extents, with the trained network as its model: ``save``, ``compare`` and what else
            posteriors have.
        seconds: of the training.
        trace: mean log likelihood of every batch, nats per example.
        temperature: of predicted probabilities, p ∝ p^(1/T); see `calibrated`.
    """

    posterior: InvariancePosterior
    seconds: float
    trace: tuple[float, ...]
    temperature: float = 1.0

    @property
    def net(self) -> nn.Module:
        """The trained network, in evaluation mode: h_θ, without an orbit."""
        return self.posterior.model.network.net

    def predict(self, x: Any, num_samples: int = 32, seed: int = 0, groups: Any = None) -> Prediction:
        """p(y | x) averaged over the orbit and over draws of the extents.

        Args:
            x: inputs, (n, *event), as the training inputs.
            num_samples: draws of the extents.
            seed: of these.
            groups: of x, for a posterior with groups.

        Raises:
            DataError: x of the wrong shape or type, empty, or not finite.
        """
        prediction = self.posterior.predict(x, num_samples=num_samples, seed=seed, groups=groups)
        if self.temperature == 1.0 or prediction.probs is None:
            return prediction
        return dataclasses.replace(prediction, probs=tempered(prediction.probs, self.temperature))

    def calibrated(self, data: Any, num_samples: int = 32, seed: int = 0) -> TrainedNetwork:
        """The same with the temperature at which its predictions lose least on data that training has not seen.

        Args:
            data: (x, y), labels; a few hundred examples are enough for one number.
            num_samples, seed: of `predict`.

        Raises:
            ValueError: a regression.
        """
        model = self.posterior.model
        if model.likelihood == "gaussian":
            raise ValueError("calibrated: a temperature is for classes, and this is a regression")
        plain, kept = dataclasses.replace(self, temperature=1.0), self.posterior.data
        held = as_data(
            data,
            model.likelihood,
            model.orbit.transform,
            num_classes=plain.predict(kept.x[:1], num_samples=1).variance.shape[-1],
            one_class=True,
            with_groups=model.groups is not None,
            classes=kept.classes,
        )
        probs = plain.predict(held.x, num_samples, seed, self.posterior.groups_of(held)).probs
        if probs is None:
            raise ValueError("calibrated: expected predictions of classes")
        return dataclasses.replace(self, temperature=fitted_temperature(probs, held.y.to(probs.device)))


def train(
    net: nn.Module | NeuralNetwork,
    data: Any,
    augmentation: InvariancePosterior | InvarianceModel,
    *,
    optimiser: OptimiserFactory | None = None,
    schedule: ScheduleFactory | None = None,
    epochs: int | float = 60.0,
    batch_size: int = 100,
    num_copies: int = 8,
    reset: bool = False,
    clip_norm: float | None = 10.0,
    mixed_precision: bool = False,
    num_workers: int = 0,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainedNetwork:
    """Train any network with learned extents: the second stage of a fit by itself.

        L(θ) = -(1/n) Σ_i log p(y_i | f_η(x_i)),    f_η(x) = mean_s h_θ(T_{t_s} x),    η ~ p(η | D)

    one draw of η and fresh copies T_{t_s} for every batch. The network need not be the one that the extents were
    learned with, nor one that an evidence takes: layers work as they are (BatchNorm, dropout, stochastic depth, tied
    weights). Training begins with the weights that it has: those of its constructor, pretrained ones, or those
    of ``posterior.model.network.net`` to go on with. Layers train in the mode that they come in.

    Args:
        net: from (n, *event) to (n, outputs); copied.
        data: (x, y) tensors or arrays, a ``Data``, a ``Dataset`` or a ``DataLoader``.
        augmentation: the posterior whose extents are drawn, of any backbone; or a model whose extents are all fixed.
        optimiser: from a list of parameters to an optimiser, with rates and weight decay of its own; None is Adam
            at 0.003. The noise of a regression has Adam.
        schedule: from an optimiser and the number of steps to a scheduler, which takes one step a batch; None is a
            cosine from the optimiser's rate to zero.
        epochs: passes over the data.
        batch_size: examples in a step.
        num_copies: S, of each input in a step and in a prediction. Copies of one batch share their S draws.
        reset: whether to draw new weights first, by ``reset_parameters`` of every layer.
        clip_norm: the largest gradient norm; None for no limit.
        mixed_precision: the network runs under autocast to bfloat16.
        num_workers: processes that fetch the batches of a ``Dataset``.
        checkpoint: a file to keep the state of the run in, and to go on from where it is there.
        seed: of batches, copies, extents and new weights; the same seed gives the same result on the CPU.
        device: "auto" (CUDA if there is one), "cpu", "cuda", ...
        progress: show a bar.
        callbacks: called with a :class:`Step` after every step; True ends the run.

    Returns:
        ``.predict(x)``, averaged over the orbit and over draws of the extents, ``.net``, ``.seconds``, ``.trace``.

    Raises:
        TypeError: no module or posterior, or a factory that makes something else.
        ValueError: a number out of range, latent extents in a model, or a layer that cannot be drawn anew.
        DataError: unusable data, or a network that does not take them.
        NonFiniteError: the loss is not finite.

    Warns:
        UserWarning: the network is in evaluation mode, with a BatchNorm that is trained.

    Example:
        >>> from bayesinv.datasets import digits
        >>> split = digits(rotation=0.8, size=8, num_train=60, seed=0)
        >>> turned = InvarianceModel(
        ...     nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "rotation", priors={"rotation": 0.8}
        ... )
        >>> mine = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
        >>> sgd = lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=5e-4)
        >>> trained = train(mine, split.train, turned, optimiser=sgd, epochs=2, batch_size=20)
        >>> trained.predict(split.test.x[:20]).probs.shape
        torch.Size([20, 10])
    """
    began = time.perf_counter()
    training = Training(
        epochs=epochs,
        batch_size=batch_size,
        clip_norm=clip_norm,
        mixed_precision=mixed_precision,
        num_workers=num_workers,
        checkpoint=checkpoint,
    )
    second = SecondStage(optimiser=optimiser, schedule=schedule)
    posterior = _as_posterior(augmentation)
    place = choose_device(device)
    with ordinary(grad=True), seeded(seed):
        model = _with_network(posterior.model, net, num_copies, posterior.result.seed).to(place)
        _warn_of_held_statistics(model.network.net)
        if reset:
            reset_weights(model.network)
        if isinstance(data, Data) and data.groups is not None:
            data = numbered(data, model.groups)
        stream = stream_of(data, model.likelihood, model.orbit.transform, num_workers, model.groups)
        kept = stream.subset(min(KEPT_EXAMPLES, stream.num_total), seed).to(place)
        model.initialise(kept, seed, stream.num_total)
        size = min(batch_size, stream.num_total)
        num_steps = max(1, round(epochs * max(1, stream.num_total // size)))
        model.network.mixed_precision = mixed_precision
        fingerprint = {
            "net": repr(model.network.net),
            "training": {**second.described(), "epochs": epochs, "batch_size": batch_size, "num_copies": num_copies},
            "clip_norm": clip_norm,
            "num_steps": num_steps,
            "seed": seed,
            "extents": posterior.result.draws.double().sum(0).tolist(),
        }
        trace = train_weights(
            model, posterior, kept, stream, training, second, num_steps, seed, fingerprint, progress, callbacks
        )
        model.network.mixed_precision = False
    model.network.net.eval()
    result = dataclasses.replace(
        posterior.result,
        hyperparameters=None,
        log_evidence=None,
        log_evidence_se=None,
        trace=(),
        num_steps=num_steps,
        seconds=time.perf_counter() - began,
        seed=seed,
        settings={"device": str(place), "num_train": stream.num_total, "batch_size": size, "epochs": float(epochs)},
    )
    return TrainedNetwork(InvariancePosterior(model, kept, result), result.seconds, trace.objective)


def _as_posterior(augmentation: Any) -> InvariancePosterior:
    """A posterior as it is, or the point that a model with fixed extents is."""
    if isinstance(augmentation, InvariancePosterior):
        return augmentation
    if not isinstance(augmentation, InvarianceModel):
        raise TypeError(
            f"augmentation: expected an InvariancePosterior, or an InvarianceModel whose extents are fixed, got a "
            f"{type(augmentation).__name__}; train(net, data, posterior)"
        )
    if augmentation.active:
        raise ValueError(
            f"augmentation: expected a model whose extents are all fixed, got one in which {augmentation.active} are "
            "latent; fit it first: train(net, data, fit(model, data))"
        )
    eta = torch.tensor([augmentation.extents.fixed[name] for name in augmentation.symmetries], dtype=torch.float64)
    result = InferenceResult(inference="fixed", guide=None, extents=eta[None, None], seed=0)
    placeholder = Data(torch.zeros(1, 1), torch.zeros(1, 1))
    return InvariancePosterior(augmentation, placeholder, result)


def _with_network(model: InvarianceModel, net: Any, num_copies: int, seed: int) -> InvarianceModel:
    """A plug-in model of the same symmetries around another network."""
    if isinstance(num_copies, bool) or not isinstance(num_copies, int) or num_copies < 1:
        raise ValueError(f"num_copies: expected a positive integer, got {num_copies!r}")
    if not isinstance(net, nn.Module) or isinstance(net, InvarianceModel):
        raise TypeError(f"net: expected a torch.nn.Module, got {type(net).__name__}; train(net, data, posterior)")
    own = InvarianceModel(
        copy.deepcopy(net) if isinstance(net, NeuralNetwork) else NeuralNetwork(net),
        model.orbit.transform,
        model.likelihood,
        evidence="plugin",
        num_orbit_samples=num_copies,
        draws=model.orbit.draws,
        orbit_seed=model.orbit.seed,
        memory_budget=model.memory_budget,
        average=model.average,
        augmentation=model.orbit.augmentation,
        output_action=model.output_action,
        outputs=None if model.structure is None else model.structure.outputs,
        groups=model.groups,
    )
    own.extents = copy.deepcopy(model.extents)
    return own


def _warn_of_held_statistics(net: nn.Module) -> None:
    if net.training:
        return
    for name, module in net.named_modules():
        trained = any(p.requires_grad for p in module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training and trained:
            warnings.warn(
                f"the network is in evaluation mode, in which BatchNorm layers such as {name!r} hold their running "
                "statistics and dropout is off; call net.train() first to train them",
                UserWarning,
                stacklevel=3,  # the line that called train
            )
            return
