"""Forwards and backwards through the operations, one extent integrated at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesinv.auditing.one_more import OneMore, one_more
from bayesinv.auditing.operations import Operation, transform_of
from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.errors import NumericalError
from bayesinv.inference.evaluation_record import EvaluationRecord
from bayesinv.inference.modes import Mode, find_modes
from bayesinv.inference.target import Target
from bayesinv.inference.vi import approximate
from bayesinv.model.hyperparameters import assign, vector
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.numerics.quantiles import systematic_resample
from bayesinv.numerics.threads import one_thread, side_by_side
from bayesinv.selection.evaluations import refitted_model

__all__ = ["Found", "Search"]

MOST_IN = 6
MOST_THREADS = 4  # for operations next to each other: each needs memory for its copies
IN = 0.5  # P(in) from which an operation is held in the model
FIRST_STEPS, MORE_STEPS = 60, 20  # evaluations at first and at last, and for what is fitted in between
NUM_DRAWS, NUM_WEIGHED = 2000, 240  # of extents; evaluations of the evidence that they come from


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        base: the operations that are in, and their extents at the mode, internal units.
        alone: each operation against none.
        given: each on top of the others that are in.
        draws: of the extents in `base`, in the order of the operations; exact zeros in 1 - P(in) of them, (J, |base|).
    """

    base: dict[str, float]
    alone: dict[str, OneMore]
    given: dict[str, OneMore]
    draws: Float[Tensor, "J inside"]


class Search:
    """Which operations the targets call for.

    Forwards: with A the operations that are in, the one with the largest log BF given A joins it, as long as its P(in)
    is above a half; the extents of A and the hyperparameters then climb together to a mode. Which has the largest is
    found lazily: the values of earlier rounds say in which order to try, and the first that keeps its lead joins. All
    that are out are tried on top of the last A. Backwards: each member is tried on top of the others, whose extents
    adapt to its absence, and leaves where its P(in) is no more than a half.

    Args:
        train: the examples.
        tried: the candidates.
        settings: num_features and num_orbit_samples.
        prior: of each operation.
        seed: of features and draws.
        bar: what is told of the progress.
        record: of what an earlier run has computed, and for what this one does; None for no record.
    """

    def __init__(
        self,
        train: Data,
        tried: tuple[Operation, ...],
        settings: Mapping[str, int],
        prior: float,
        seed: int,
        bar: Any,
        record: EvaluationRecord | None = None,
    ):
        self.train, self.tried = train, tried
        self.settings, self.prior, self.seed, self.bar = settings, prior, seed, bar
        self.record = record
        self.threads = 1
        self.hyper: Tensor | None = None  # latent coordinates of kernel and noise, where they were fitted last

    def run(self) -> Found:
        """Forwards, then backwards."""
        names = [o.name for o in self.tried]
        with one_thread() as threads:
            self.threads = min(threads, MOST_THREADS)
            alone = self.tried_on({}, names, self.without({}, FIRST_STEPS), "alone")
            base, given = self._forwards({}, dict(alone))
            base, given = self._backwards(base, given)
            probability = {name: given[name].inclusion(self.prior) for name in base}
            return Found(base, alone, given, self._draws(base, probability))

    def _forwards(
        self, base: dict[str, float], given: dict[str, OneMore]
    ) -> tuple[dict[str, float], dict[str, OneMore]]:
        """Takes in the best until none that is out, tried on top of all that are in, has P(in) above a half."""
        fresh, without = set(given), 0.0  # tried on top of `base` as it is; its own log evidence

        def again(names: list[str]) -> None:
            given.update(self.tried_on(base, names, without, "given the others"))
            fresh.update(names)

        while True:
            outside = sorted((n for n in given if n not in base), key=lambda n: given[n].log_bf, reverse=True)
            stale = [name for name in outside if name not in fresh]
            self.expect(len(stale) + len(base))
            could_join = [name for name in outside if given[name].inclusion(self.prior) > IN]
            if len(base) < MOST_IN and could_join:
                best = could_join[0]
                # An operation mostly gains less on top of another than before it, so that only what led then is tried
                # again now, and the others before the end.
                if best in stale:
                    again(stale[:1])
                    continue
                base, _ = self._settled({**base, best: float(given[best].quantiles((0.5,))[0])})
                fresh, without = set(), self.without(base, MORE_STEPS)
            elif stale:
                again(stale)
            else:
                return base, given

    def _backwards(
        self, base: dict[str, float], given: dict[str, OneMore]
    ) -> tuple[dict[str, float], dict[str, OneMore]]:
        """Drops the least likely member until all have P(in) above a half."""
        while base:
            kept = self.hyper
            self.expect(len(base))
            for name in base:
                others = {other: eta for other, eta in base.items() if other != name}
                adapted, without = self._settled(others)
                given |= self.tried_on(adapted, [name], without, "given the others")
                self.hyper = kept
            worst = min(base, key=lambda name: given[name].log_bf)
            if given[worst].inclusion(self.prior) > IN:
                break
            base, _ = self._settled({name: eta for name, eta in base.items() if name != worst})
        return base, given

    def model(self, names: Sequence[str], eta: Mapping[str, float]) -> tuple[InvarianceModel, Tensor]:
        """A model of these operations at the last hyperparameters, and its extents with those of `eta`, else 0."""
        chosen = [o for o in self.tried if o.name in set(names)] or [self.tried[0]]
        model = InvarianceModel(
            GaussianProcess(num_features=self.settings["num_features"]),
            transform_of(chosen),
            likelihood="gaussian" if self.train.num_classes is None else "categorical",
            num_orbit_samples=self.settings["num_orbit_samples"],
        )
        model.initialise(self.train, seed=self.seed)
        if self.hyper is not None:
            assign(model.hyperparameters, self.hyper)
        return model, torch.tensor([eta.get(name, 0.0) for name in model.symmetries], dtype=torch.float64)

    def without(self, eta: Mapping[str, float], steps: int) -> float:
        """log p(D | η) with kernel and noise fitted at η, from which following models start."""
        model, extents = self.model(list(eta), eta)

        def compute() -> Tensor:
            fitted = refitted_model(model, self.train, extents, steps, polish=False) or model
            with torch.no_grad():
                value = fitted.log_evidence(extents, self.train)
            return torch.cat([value.reshape(1), vector(fitted.hyperparameters).detach()])

        value, self.hyper = _value_and_rest(self.kept(f"without, {steps} steps", model, extents, compute))
        return value

    def tried_on(self, eta: Mapping[str, float], names: Sequence[str], without: float, what: str) -> dict[str, OneMore]:
        """What each of `names` is worth on top of the operations in `eta`, whose log evidence is `without`."""

        def compute(case: tuple[str, InvarianceModel, Tensor]) -> OneMore:
            name, model, extents = case

            def result() -> Tensor:
                found = one_more(model, self.train, extents, model.symmetries.index(name), without, MORE_STEPS)
                numbers = [np.array([found.log_bf]), found.extents, found.log_evidence]
                return torch.from_numpy(np.concatenate(numbers))

            log_bf, grid = _value_and_rest(self.kept(f"{name} on top of {without!r}", model, extents, result))
            return OneMore(log_bf, *np.split(grid.numpy(), 2))

        cases = [(name, *self.model([*eta, name], eta)) for name in names]
        found = {}
        for name, each in zip(names, side_by_side(compute, cases, self.threads), strict=True):
            self.bar.set_description(f"{name}, {what}", refresh=False)
            self.bar.update()
            found[name] = each
        return found

    def expect(self, parts: int) -> None:
        """Tell the bar how many parts are to come: these, and a prediction of left-out examples for each operation."""
        self.bar.total = self.bar.n + parts + len(self.tried)
        self.bar.refresh()

    def _settled(self, eta: dict[str, float]) -> tuple[dict[str, float], float]:
        """Extents at the mode nearest to η, with the hyperparameters there, and the log evidence."""
        if not eta:
            return {}, self.without({}, MORE_STEPS)
        self.bar.set_description(f"{', '.join(eta)} together")
        model, target, mode = self._mode(eta, MORE_STEPS, curvature=False)
        if mode is None:
            return eta, self.without(eta, MORE_STEPS)
        target.move(mode.theta)
        self.hyper = vector(model.hyperparameters).detach().clone()
        extents = target.extents(mode.theta[: target.num_extents])
        with torch.no_grad():
            value = float(model.log_evidence(extents, self.train))
        return dict(zip(model.symmetries, extents.tolist(), strict=True)), value

    def kept(self, what: str, model: InvarianceModel, extents: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """A vector that a model gives at some extents, computed unless the record has it.

        Args:
            what: its name, with every number that it depends on beside the model and the extents.
            model: whose operations and hyperparameters it depends on.
            extents: (K,), internal units.
            compute: gives the vector, in float64.
        """
        if self.record is None:
            return compute()
        at = torch.cat([extents, vector(model.hyperparameters).detach()])
        name = EvaluationRecord.name(f"{what}: {', '.join(model.symmetries)}", at)
        known = self.record.get(name)
        if known is not None and known[1] is not None:
            return known[1]
        found = compute()
        self.record.add(name, (0.0, found))
        return found

    def _mode(
        self, eta: Mapping[str, float], steps: int, curvature: bool
    ) -> tuple[InvarianceModel, Target, Mode | None]:
        model, extents = self.model(list(eta), eta)
        target = Target(model, self.train, record=self.record)
        theta = torch.cat([target.to_z(extents), vector(model.hyperparameters).detach()])
        start = Mode(theta, 0.0, torch.eye(len(theta), dtype=torch.float64), 0.0, 0, (), None)
        try:
            (mode,) = find_modes(target, steps, found=[start], curvature=curvature)
        except NumericalError:
            return model, target, None
        return model, target, mode

    def _draws(self, base: dict[str, float], probability: Mapping[str, float]) -> Float[Tensor, "J inside"]:
        """As a fit draws them: around the mode, and taken in proportion to weights by the evidence."""
        if not base:
            return torch.zeros(1, 0, dtype=torch.float64)
        model, target, mode = self._mode(base, FIRST_STEPS, curvature=True)
        A = target.num_extents
        generator = torch.Generator().manual_seed(self.seed)
        eta = torch.tensor([base[name] for name in model.symmetries], dtype=torch.float64).expand(NUM_DRAWS, A)
        if mode is not None:
            self.bar.set_description(f"{', '.join(base)}, draws")
            with contextlib.suppress(NumericalError):  # no evidence anywhere around the mode, which then stands alone
                found = approximate(target, [mode], NUM_WEIGHED, True, False, self.seed, num_threads=self.threads)
                weights = found.log_weights.numpy()
                eta = found.extents[systematic_resample(NUM_DRAWS, len(weights), weights, self.seed)]
        share = torch.tensor([probability[name] for name in model.symmetries], dtype=torch.float64)
        inside = torch.rand(NUM_DRAWS, A, dtype=torch.float64, generator=generator) < share
        return torch.where(inside, eta, 0.0)


def _value_and_rest(kept: Float[Tensor, " size"]) -> tuple[float, Tensor]:
    return float(kept[0]), kept[1:]
