"""The selection over all sets: shares of their evidences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesinv.io.tables import ConsoleTable
from bayesinv.numerics.psis import weights_are_good
from bayesinv.numerics.quantiles import systematic_resample
from bayesinv.selection.evidence_of_set import effective_size, relative_error
from bayesinv.selection.result import Selection
from bayesinv.selection.search import FEW
from bayesinv.selection.sets import InclusionPrior, inclusion_probabilities, log_prior_of_sets, set_name

FULL = 1.0  # slab scale: the slab as it is


@dataclass(frozen=True)
class SetDraws:
    """What is known about one set A.

    Attributes:
        extents: η_A of the draws, internal units, (N, |A|).
        log_weights: log p(D | η_j, 0) p(η_j) / q̄(η_j), not normalised, (N,); Z_A is the mean of their exponentials.
        pareto_k: of the weights; NaN where no tail could be fitted.
        num_failed: draws at which the evidence could not be computed.
    """

    extents: Float[Tensor, "N k"]
    log_weights: Float[Tensor, " N"]
    pareto_k: float = math.nan
    num_failed: int = 0

    @property
    def exact(self) -> bool:
        """Whether nothing was integrated, and there are no weights to judge: the empty set."""
        return self.extents.shape[1] == 0

    @property
    def num_weights(self) -> int:
        """Draws with a weight."""
        return int(torch.isfinite(self.log_weights).sum())

    @property
    def good_weights(self) -> bool:
        """Whether Z_A can be trusted: k̂ within the limit for so many draws, or no integral at all."""
        return self.exact or weights_are_good(self.pareto_k, self.num_weights)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SubsetSelection(Selection, method="subsets"):
    """Every set A with its evidence Z_A, its prior p(A), and so its posterior probability.

        p(A | D) = p(A) Z_A / Σ_B p(B) Z_B,      p(γ_k = 1 | D) = Σ_{A ∋ k} p(A | D)

    Standard errors are those of the importance sampling alone, by the delta method from independent estimates of
    the Z_A. What they leave out: hyperparameters held at learned values, and an evidence that is a bound.

    Args:
        sets: (sets, K), the symmetries in each.
        draws: what is known of each.
        fixed: extents of all coordinates of the model with every candidate off, (coordinates,).
        places: where the candidates are among the coordinates.
        slab_log_mass: by scale c of the slab, log of each slab's mass on [0, c · high], (K,); for `with_prior`.
        slab_high: the ends of the slabs, (K,).
        slab_scales: by name, where `with_prior` has cut the slabs; empty for slabs as they are.
    """

    sets: Bool[Tensor, "sets K"]
    draws: tuple[SetDraws, ...]
    fixed: Float[Tensor, " coordinates"]
    places: tuple[int, ...]
    slab_high: Float[Tensor, " K"]
    slab_log_mass: dict[float, Float[Tensor, " K"]]
    slab_scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def log_evidence(self) -> Float[Tensor, " sets"]:
        """log Z_A."""
        return torch.stack([d.log_weights.logsumexp(0) - math.log(len(d.log_weights)) for d in self.draws])

    @property
    def log_evidence_se(self) -> Float[Tensor, " sets"]:
        """Standard errors of log Z_A, nats; 0 for the empty set.

        They exist whatever k̂ says: a fifth of every proposal is the slab, so that no weight exceeds five times the
        largest likelihood, and the variance is finite (Hesterberg, 1995, "Weighted average importance sampling and
        defensive mixture distributions"). A large k̂ says that few draws have seen the largest weights.
        """
        errors = [0.0 if d.exact else relative_error(d.log_weights) for d in self.draws]
        return torch.tensor(errors, dtype=torch.float64)

    @property
    def log_probability(self) -> Float[Tensor, " sets"]:
        """log p(A | D)."""
        joint = self.log_evidence + log_prior_of_sets(self.sets, self.prior_inclusion, self.symmetries)
        return joint - joint.logsumexp(0)

    @property
    def inclusion(self) -> pd.DataFrame:
        """Index `symmetry`; columns `probability`, `standard_error` and `prior`."""
        shares = self.log_probability.exp()
        included = self.sets.to(torch.float64)
        probability = shares @ included  # (K,)
        # d p_k / d log Z_A = s_A ([k in A] - p_k)
        slopes = shares[:, None] * (included - probability)
        error = _root_sum(slopes, self.log_evidence_se)
        prior = inclusion_probabilities(self.prior_inclusion, self.symmetries)
        return _table(self.symmetries, probability=probability.clamp(0, 1), standard_error=error, prior=prior)

    @property
    def bayes_factors(self) -> pd.DataFrame:
        """Natural logarithms of Bayes factors for each symmetry against its absence.

        `log_bf`: averaged over what the others do, posterior odds of inclusion over prior odds; `log_bf_alone`:
        log Z_{k} - log Z_{}; `log_bf_last`: log Z_{all} - log Z_{all but k}. Each with `_se`, nats.
        """
        log_p, se = self.log_probability, self.log_evidence_se
        prior = log_prior_of_sets(self.sets, self.prior_inclusion, self.symmetries)
        columns: dict[str, list[float]] = {name: [] for name in ("bf", "bf_se", "alone", "alone_se", "last", "last_se")}
        size = self.sets.sum(1)
        K = len(self.symmetries)
        for k in range(K):
            inside = self.sets[:, k]
            odds = log_p[inside].logsumexp(0) - log_p[~inside].logsumexp(0)
            before = prior[inside].logsumexp(0) - prior[~inside].logsumexp(0)
            slopes = torch.where(inside, log_p - log_p[inside].logsumexp(0), log_p - log_p[~inside].logsumexp(0)).exp()
            slopes = slopes.nan_to_num(nan=0.0)  # no set with k has any weight, or none without it
            columns["bf"].append(float(odds - before))
            columns["bf_se"].append(float(_root_sum(slopes[:, None], se)[0]))
            pairs = {
                "alone": (inside & (size == 1), size == 0),
                "last": (size == K, ~inside & (size == K - 1)),
            }
            for name, (with_k, without) in pairs.items():
                i, j = int(with_k.nonzero()[0]), int(without.nonzero()[0])
                columns[name].append(float(self.log_evidence[i] - self.log_evidence[j]))
                columns[f"{name}_se"].append(float(torch.hypot(se[i], se[j])))
        renamed = {
            "log_bf": columns["bf"],
            "log_bf_se": columns["bf_se"],
            "log_bf_alone": columns["alone"],
            "log_bf_alone_se": columns["alone_se"],
            "log_bf_last": columns["last"],
            "log_bf_last_se": columns["last_se"],
        }
        return ConsoleTable(renamed, index=pd.Index(self.symmetries, name="symmetry"))

    @property
    def subsets(self) -> pd.DataFrame:
        """All sets, the likeliest first.

        Index `set`; columns `size`, `log_evidence` and `log_evidence_se` (nats), `log_prior`, `probability` and
        `standard_error`, `num_draws`, `effective_draws` and `pareto_k`. A set whose probability is tiny has had the
        first round alone: its error is as large as it says, and more.
        """
        log_p, se = self.log_probability, self.log_evidence_se
        p = log_p.exp()
        se = torch.where(p > 0, se, 0.0)  # a set without any estimate has no share, and an infinite error
        # d p_A / d log Z_B = p_A ([A = B] - p_B)
        total = (p * se).square().sum()
        variance = (p * (1 - p) * se) ** 2 + p**2 * (total - (p * se) ** 2).clamp_min(0)
        names = [set_name([n for n, inside in zip(self.symmetries, row, strict=True) if inside]) for row in self.sets]
        table = ConsoleTable(
            {
                "size": self.sets.sum(1).tolist(),
                "log_evidence": self.log_evidence.tolist(),
                "log_evidence_se": self.log_evidence_se.tolist(),
                "log_prior": log_prior_of_sets(self.sets, self.prior_inclusion, self.symmetries).tolist(),
                "probability": p.tolist(),
                "standard_error": variance.sqrt().tolist(),
                "num_draws": [len(d.log_weights) for d in self.draws],
                "effective_draws": [effective_size(d.log_weights) for d in self.draws],
                "pareto_k": [d.pareto_k for d in self.draws],
            },
            index=pd.Index(names, name="set"),
        )
        return table.sort_values("probability", ascending=False, kind="stable")

    @property
    def rough_share(self) -> float:
        """Posterior probability of the sets that fewer than five effective draws speak for."""
        p = self.log_probability.exp()
        rough = [not d.exact and effective_size(d.log_weights) < FEW for d in self.draws]
        return float(p[torch.tensor(rough)].sum())

    def with_prior(
        self, prior_inclusion: InclusionPrior | None = None, slab_scale: float | Mapping[str, float] = FULL
    ) -> SubsetSelection:
        """The same evidences under other priors; nothing is evaluated anew.

        A slab cut to the share c of its reach, p_c(η) = p(η) 1[η ≤ c · high] / P(η ≤ c · high), only changes the
        weights of the draws: those beyond get none.

        Args:
            prior_inclusion: as for ``select``; None keeps what is there.
            slab_scale: c, one for all or by name; of the scales that ``select`` prepared, `slab_log_mass`.

        Raises:
            ValueError: an unknown scale or name, or a selection whose slab is cut already.
        """
        given = slab_scale if isinstance(slab_scale, Mapping) else dict.fromkeys(self.symmetries, slab_scale)
        scales = {name: float(given.get(name, FULL)) for name in self.symmetries}
        unknown = set(given) - set(self.symmetries) or set(scales.values()) - set(self.slab_log_mass)
        if unknown:
            raise ValueError(
                f"slab_scale: {sorted(unknown, key=str)} is none of the scales {sorted(self.slab_log_mass)} or of the "
                f"symmetries {list(self.symmetries)}; prepare others with select(..., slab_scales=...)"
            )
        prior = self.prior_inclusion if prior_inclusion is None else prior_inclusion
        inclusion_probabilities(prior, self.symmetries)  # refuses what is none
        if all(scale == FULL for scale in scales.values()):
            return dataclasses.replace(self, prior_inclusion=prior)
        if self.slab_scales:
            raise ValueError("slab_scale: this selection's slabs have been cut already; start from the original one")
        mass = torch.stack([self.slab_log_mass[scale][k] for k, scale in enumerate(scales.values())])
        end = torch.tensor(list(scales.values()), dtype=torch.float64) * self.slab_high
        cut = []
        for row, d in zip(self.sets, self.draws, strict=True):
            inside = (d.extents <= end[row]).all(1)
            weights = torch.where(inside, d.log_weights - mass[row].sum(), -torch.inf)
            cut.append(dataclasses.replace(d, log_weights=weights, pareto_k=math.nan))
        return dataclasses.replace(self, prior_inclusion=prior, draws=tuple(cut), slab_scales=scales)

    def sensitivity(self, prior_inclusion: Sequence[InclusionPrior] | None = None) -> pd.DataFrame:
        """How each symmetry's probability depends on the reach of its own slab and on the prior probability.

        A Bayes factor against a point depends on how wide the alternative is: a slab of half the reach doubles it as
        long as the data leave nothing beyond (Lindley, 1957). A conclusion that holds over the rows holds. Where
        `covered`, the posterior probability that the extent lies within the cut slab if the symmetry is in, is
        small, that slab is too short for what the data say, and its row is a statement about another model.

        Args:
            prior_inclusion: prior probabilities to try; None keeps the one there is.

        Returns:
            Index `symmetry`, `slab_scale`; columns `prior_inclusion`, `probability`, `standard_error`, `log_bf`,
            `log_bf_se` and `covered`.
        """
        priors = [self.prior_inclusion] if prior_inclusion is None else list(prior_inclusion)
        rows = []
        for k, name in enumerate(self.symmetries):
            for scale in sorted(self.slab_log_mass):
                for prior in priors:
                    cut = self.with_prior(prior, {name: scale})
                    included, factor = cut.inclusion.loc[name], cut.bayes_factors.loc[name]
                    # Z with the cut slab is Z with the whole one, times P(η ≤ end | D, in) / P(η ≤ end)
                    whole = self.with_prior(prior).bayes_factors.loc[name, "log_bf"]
                    covered = math.exp(min(0.0, factor["log_bf"] - whole + float(self.slab_log_mass[scale][k])))
                    rows.append(
                        {
                            "symmetry": name,
                            "slab_scale": scale,
                            "prior_inclusion": prior,
                            "probability": float(included["probability"]),
                            "standard_error": float(included["standard_error"]),
                            "log_bf": float(factor["log_bf"]),
                            "log_bf_se": float(factor["log_bf_se"]),
                            "covered": covered,
                        }
                    )
        return ConsoleTable(rows).set_index(["symmetry", "slab_scale"])

    def sample(self, num: int, seed: int = 0) -> Float[Tensor, "num coordinates"]:
        """Extents from the spike-and-slab posterior, averaged over the sets: exact zeros where a symmetry is out.

        They go into ``posterior.model.predict(x, posterior.data, extents)`` for predictions averaged over sets.

        Args:
            num: how many.
            seed: of the resampling.
        """
        shares = self.log_probability.numpy()
        rng = np.random.default_rng(seed)
        chosen, counts = np.unique(systematic_resample(num, len(shares), shares, seed), return_counts=True)
        rows = []
        places = torch.tensor(self.places)
        for a, count in zip(chosen.tolist(), counts.tolist(), strict=True):
            d = self.draws[a]
            index = systematic_resample(count, len(d.log_weights), d.log_weights.numpy(), seed + 1 + a)
            eta = self.fixed.repeat(count, 1)
            eta[:, places[self.sets[a]]] = d.extents[torch.from_numpy(index)]
            rows.append(eta)
        return torch.cat(rows)[torch.from_numpy(rng.permutation(num))]

    def _packed(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        draws = self.draws
        header = {
            "places": list(self.places),
            "slab_scales": dict(self.slab_scales),
            "num_draws": [len(d.log_weights) for d in draws],
            "num_failed": [d.num_failed for d in draws],
            "scales": list(self.slab_log_mass),
        }
        arrays = {
            "sets": self.sets.numpy(),
            "extents": torch.cat([d.extents.flatten() for d in draws]).numpy(),
            "log_weights": torch.cat([d.log_weights for d in draws]).numpy(),
            "pareto_k": np.array([d.pareto_k for d in draws]),
            "fixed": self.fixed.numpy(),
            "slab_high": self.slab_high.numpy(),
            "log_mass": torch.stack(list(self.slab_log_mass.values())).numpy(),
        }
        return header, arrays

    @classmethod
    def _unpacked(cls, header: dict[str, Any], arrays: dict[str, Tensor], common: dict[str, Any]) -> SubsetSelection:
        sizes = arrays["sets"].sum(1).tolist()
        counts = header["num_draws"]
        extents = arrays["extents"].split([n * k for n, k in zip(counts, sizes, strict=True)])
        weights = arrays["log_weights"].split(counts)
        facts = zip(extents, weights, sizes, arrays["pareto_k"].tolist(), header["num_failed"], strict=True)
        draws = tuple(SetDraws(eta.reshape(len(w), k), w, k_hat, failed) for eta, w, k, k_hat, failed in facts)
        return cls(
            **common,
            sets=arrays["sets"],
            draws=draws,
            fixed=arrays["fixed"],
            places=tuple(header["places"]),
            slab_high=arrays["slab_high"],
            slab_log_mass=dict(zip(header["scales"], arrays["log_mass"], strict=True)),
            slab_scales=header["slab_scales"],
        )

    def _facts(self) -> str:
        evaluations = sum(len(d.log_weights) for d in self.draws)
        return f"{len(self.draws)} sets, {evaluations} evaluations of the evidence, {self.seconds:.0f} s"


def _root_sum(slopes: Float[Tensor, "sets K"], errors: Float[Tensor, " sets"]) -> Float[Tensor, " K"]:
    """Standard errors by the delta method; a set without any estimate has no share and no say."""
    return (slopes * errors.nan_to_num(posinf=0.0)[:, None]).square().sum(0).sqrt()


def _table(symmetries: Sequence[str], **columns: Tensor) -> pd.DataFrame:
    return ConsoleTable(
        {name: values.tolist() for name, values in columns.items()}, index=pd.Index(symmetries, name="symmetry")
    )
