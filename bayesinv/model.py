"""The one Pyro model that variational inference, NUTS, simulation and prediction all run.

    η ~ p(η),    h ~ GP(0, k),    f(x) = mean_s h(T_{η ε_s} x),    y_i ~ p(y | f(x_i)),

with h integrated out by the evidence, so that η is what is left to sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones import GaussianProcess
from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.data import Data
from bayesinv.errors import NumericalError
from bayesinv.evidence import Evidence, as_evidence, evidence_from_config
from bayesinv.evidence.linear_algebra import cholesky
from bayesinv.extents import Extents, PriorSpec, priors_from_config, sample_extents
from bayesinv.orbits import Orbit
from bayesinv.prediction import Prediction, standard_normal_draws
from bayesinv.randomness import seeded
from bayesinv.transforms import Transform, as_transform, from_config

PRECISIONS = {"mixed": torch.float32, "double": torch.float64}


@dataclass(frozen=True)
class Simulation:
    """One draw from the model: extents (K,), function values (n, C) and targets."""

    extents: Float[Tensor, " K"]
    function: Float[Tensor, "n C"]
    y: Tensor


class InvarianceModel(nn.Module):
    """A backbone seen through an orbit whose extents are latent.

    Args:
        backbone: a :class:`GaussianProcess`, or a GPyTorch kernel to make one around.
        transforms: a :class:`Transform`, a list of them (applied in order), or built-in names
            such as "affine2d" or ["rotation", "translate_x"].
        likelihood: "categorical" (labels 0..C-1) or "gaussian" (real targets).
        evidence: "auto", a name ("dirichlet", "polya_gamma", "gaussian"), or an ``Evidence`` object.
        priors: by symmetry name: a Pyro distribution, a number (fixed), or None (off); internal units.
        num_orbit_samples: S, the size of the sampled orbit. A finite S is part of the model.
        draws: base draws, "sobol" (scrambled) or "monte_carlo".
        orbit_seed: of the base draws, which are fixed for the life of the model.
        precision: "mixed" (orbit and cross kernels in float32, algebra in float64) or "double".
        memory_budget: bytes for the orbit and kernel of one block of inputs.

    Raises:
        TypeError, ValueError, ExtentError: what was expected, what came, and what to do.

    Example:
        >>> model = InvarianceModel(GaussianProcess(num_inducing=20), "rotation", likelihood="categorical")
        >>> model.symmetries, model.active, model.evidence_name
        (('rotation',), ('rotation',), 'dirichlet')
    """

    def __init__(
        self,
        backbone: GaussianProcess | Kernel,
        transforms: Transform | str | Sequence[Transform | str],
        likelihood: str = "categorical",
        evidence: str | Evidence = "auto",
        priors: Mapping[str, PriorSpec] | None = None,
        num_orbit_samples: int = 24,
        draws: str = "sobol",
        orbit_seed: int = 0,
        precision: str = "mixed",
        memory_budget: int = 2**30,
    ):
        super().__init__()
        if isinstance(backbone, Kernel):
            backbone = GaussianProcess(backbone)
        if not isinstance(backbone, GaussianProcess):
            raise TypeError(
                f"backbone: expected a bayesinv.GaussianProcess or a GPyTorch kernel, got {type(backbone).__name__}; "
                "networks are not supported in this version"
            )
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {sorted(PRECISIONS)}, got {precision!r}")
        self.backbone = backbone
        self.orbit = Orbit(as_transform(transforms), num_orbit_samples, draws=draws, seed=orbit_seed)
        self.evidence = as_evidence(evidence, likelihood)
        self.extents = Extents(self.transform.coordinates, priors)
        self.precision = precision
        self.memory_budget = memory_budget

    @property
    def transform(self) -> Transform:
        """T."""
        return self.orbit.transform

    @property
    def likelihood(self) -> str:
        """ "categorical" or "gaussian"."""
        return self.evidence.likelihood

    @property
    def evidence_name(self) -> str:
        """Which evidence."""
        return self.evidence.name

    @property
    def symmetries(self) -> tuple[str, ...]:
        """Names of all K coordinates."""
        return self.extents.symmetries

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the latent ones."""
        return self.extents.active

    def initialise(self, data: Data, seed: int = 0) -> None:
        """Start kernel, inducing points, noise and means at the scale of the data."""
        output_variance = self.evidence.initialise(data)
        self.backbone.initialise(data.x, output_variance, seed)

    def forward(self, data: Data) -> None:
        """The Pyro model: one site per latent extent, and the evidence as a factor.

        Raises:
            NumericalError: the evidence is not finite; names the extents.
        """
        eta = sample_extents(self.extents)
        value = self.log_evidence(eta, data)
        if not bool(torch.isfinite(value.detach())):
            at = ", ".join(f"{name}={e:.3g}" for name, e in zip(self.symmetries, eta.tolist(), strict=True))
            raise NumericalError(f"site 'evidence' is {float(value.detach())} at extents {at}")
        pyro.factor("evidence", value)
        pyro.factor("hyperpriors", self.log_hyperprior())

    def invariant_prior(self, eta: Float[Tensor, " K"]) -> InvariantPrior:
        """The prior over invariant functions at given extents."""
        identity = not self.active and not any(self.extents.fixed.values())
        return InvariantPrior(self.backbone, self.orbit, eta, PRECISIONS[self.precision], self.memory_budget, identity)

    def log_evidence(self, eta: Float[Tensor, " K"], data: Data) -> Float[Tensor, ""]:
        """log p(D | η), differentiable in η and the hyperparameters; on the CPU, where the guide is.

        Args:
            eta: extents, shape (K,), internal units, in the order of ``symmetries``.
            data: inputs and targets.
        """
        return self.evidence.log_evidence(self.invariant_prior(eta), data).to("cpu", torch.float64)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Log density of the priors on kernel hyperparameters and noise; zero without any."""
        return (self.backbone.log_hyperprior().cpu() + self.evidence.log_hyperprior().cpu()).to(torch.float64)

    def function_posterior(
        self, x: Float[Tensor, n * event], data: Data, eta: Float[Tensor, " K"]
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Mean and variance of f(x) given the data and the extents, each (n, C)."""
        return self.evidence.function_posterior(self.invariant_prior(eta), x, data)

    @torch.no_grad()
    def predict(
        self,
        x: Float[Tensor, n * event],
        data: Data,
        extents: Float[Tensor, "J K"],
        weights: Float[Tensor, " J"] | None = None,
        num_function_samples: int = 64,
        seed: int = 0,
    ) -> Prediction:
        """Predictions averaged over draws of the extents, the orbit and the function.

        Args:
            x: inputs, (n, *event).
            data: what the model was trained on.
            extents: J posterior draws.
            weights: of the draws, summing to one; equal if None.
            num_function_samples: draws of f(x) per draw of the extents (classification).
            seed: of those draws.
        """
        J = len(extents)
        shares = [1.0 / J] * J if weights is None else weights.tolist()
        average = self.evidence.average(num_function_samples, seed)
        for eta, share in zip(extents, shares, strict=True):
            average.add(*self.function_posterior(x, data, eta), share)
        return average.result()

    @torch.no_grad()
    def log_likelihood(
        self, data: Data, train: Data, extents: Float[Tensor, "J K"], seed: int = 0
    ) -> Float[Tensor, "J n"]:
        """log p(y_i | f_i), with f_i drawn from its posterior at each draw of the extents."""
        rows = []
        for j, eta in enumerate(extents):
            mean, variance = self.function_posterior(data.x, train, eta)
            z = standard_normal_draws(1, mean.numel(), seed + j).reshape(mean.shape).to(mean.device)
            rows.append(self.evidence.log_likelihood(mean + variance.sqrt() * z, data.y))
        return torch.stack(rows)

    @torch.no_grad()
    def simulate(
        self,
        x: Float[Tensor, n * event],
        extents: Float[Tensor, " K"] | None = None,
        num_outputs: int | None = None,
        seed: int = 0,
    ) -> Simulation:
        """Draw extents, function and targets from the same finite-orbit model that is fitted.

        The function is drawn from the dense prior covariance, n²S² kernel values: for n up to a thousand.

        Args:
            x: inputs, (n, *event).
            extents: (K,); drawn from the prior if None.
            num_outputs: classes, or outputs of a regression; by default those of the data that the model was
                initialised with, and one output for a regression that has seen none.
            seed: of everything drawn.

        Raises:
            ValueError: fewer than two classes, or another number than the model was initialised for.
        """
        default = 1 if self.likelihood == "gaussian" else len(self.evidence.mean)
        num_outputs = default if num_outputs is None else num_outputs
        if self.likelihood == "categorical" and num_outputs < 2:
            raise ValueError(f"num_outputs: expected the number of classes, at least 2, got {num_outputs}")
        seeds = torch.Generator().manual_seed(seed)
        # Seeds of their own: with one seed for both, the function would depend on the extents.
        extents_seed, function_seed = torch.randint(2**31, (2,), generator=seeds).tolist()
        eta = self.extents.sample_prior(1, extents_seed)[0] if extents is None else torch.as_tensor(extents).double()
        K = self.invariant_prior(eta).covariance(x)
        means = self.evidence.mean
        if len(means) not in (1, num_outputs):
            raise ValueError(f"num_outputs: this model has been initialised for {len(means)}, got {num_outputs}")
        with seeded(function_seed):
            z = torch.randn(len(x), num_outputs, dtype=torch.float64).to(K.device)
            f = means + cholesky(K, "k_ff of the simulated inputs", regularise=True) @ z
            return Simulation(eta, f, self.evidence.sample_targets(f))

    def config(self) -> dict[str, Any]:
        """A JSON-able description, from which :meth:`from_config` rebuilds an untrained model."""
        return {
            "backbone": self.backbone.config(),
            "orbit": self.orbit.config(),
            "likelihood": self.likelihood,
            "evidence": self.evidence.config(),
            "priors": self.extents.config(),
            "precision": self.precision,
            "memory_budget": self.memory_budget,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InvarianceModel:
        """Rebuild a model from ``config()``; learned values come with ``load_state``.

        Raises:
            ValueError: the kernel (or noise prior, or transform) is the user's own and cannot be rebuilt.
        """
        if config["backbone"]["kernel"] is not None:
            raise ValueError("the kernel is the user's own object; pass the model: load(path, model=model)")
        orbit = config["orbit"]
        return cls(
            GaussianProcess(
                num_inducing=config["backbone"]["num_inducing"],
                learn_inducing=config["backbone"]["learn_inducing"],
            ),
            from_config(orbit["transform"]),
            likelihood=config["likelihood"],
            evidence=evidence_from_config(config["evidence"]),
            priors=priors_from_config(config["priors"]),
            num_orbit_samples=orbit["num_samples"],
            draws=orbit["draws"],
            orbit_seed=orbit["seed"],
            precision=config["precision"],
            memory_budget=config["memory_budget"],
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """``load_state_dict`` for a model that has not seen the data: sizes its arrays first."""
        self.backbone.resize_inducing(*state["backbone.inducing"].shape)
        self.evidence.resize(len(state["evidence.mean"]))
        self.load_state_dict(dict(state))
