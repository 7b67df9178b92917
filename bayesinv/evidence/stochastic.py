"""The stochastic evidence of a Gaussian process: a variational bound that minibatches estimate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gpytorch
import torch
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.likelihoods import GaussianLikelihood, Likelihood, SoftmaxLikelihood
from gpytorch.variational import CholeskyVariationalDistribution, MeanFieldVariationalDistribution
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from bayesinv.backbones.invariant import InvariantPrior
from bayesinv.data.container import Data
from bayesinv.evidence.algebra import PrimalFactor
from bayesinv.evidence.base import Evidence
from bayesinv.evidence.basis import Whitened, whitened_inducing
from bayesinv.evidence.collapsed import SiteEvidence
from bayesinv.evidence.dirichlet import DirichletEvidence
from bayesinv.evidence.gaussian import SMALLEST_NOISE_SHARE, GaussianEvidence, _above
from bayesinv.evidence.prediction import Average, ClassAverage, GaussianAverage, Prediction, standard_normal_draws

COVARIANCES = {"full": CholeskyVariationalDistribution, "diagonal": MeanFieldVariationalDistribution}
SMALLEST_SHARE = 1e-12  # of the prior variance: k_ff - q_ff of a float32 orbit may round below zero


class _Softmax(Likelihood):
    """p(y | f) = softmax(f)_y.

    GPyTorch's ``SoftmaxLikelihood`` takes a batch of as many inputs as classes for one that is transposed.
    """

    def forward(self, function_samples: Tensor, *args: Any, **kwargs: Any) -> Categorical:
        return Categorical(logits=function_samples)


class StochasticGPEvidence(Evidence):
    """Sparse variational bound on log p(D | η), estimated from minibatches; any likelihood.

        n/b Σ_{i in batch} E_q log p(y_i | f_i)  -  Σ_c KL( N(μ_c, S_c) ‖ N(0, I) ),
        q(f_ic) = N( m_c + V_iᵀ μ_c,  k_ff,i - |V_i|² + V_iᵀ S_c V_i ),     V = L⁻¹ k_uf,  L Lᵀ = k_uu,

    over whitened inter-domain inducing values, one set of (μ_c, S_c) per output (Hensman et al., 2015; van der Wilk et
    al., 2018). Unlike the collapsed bounds it is not at its best for every η: μ, S, kernel, Z, noise and the guide
    over the extents are trained together. μ and S start at the collapsed solution on the first data without a
    transform, half as far from where they end as q = p.

    Args:
        likelihood: "categorical" or "gaussian".
        covariance: of q, "full" (M² numbers per output) or "diagonal".
        observation: a GPyTorch likelihood of n x C function values, such as ``StudentTLikelihood()``; copied. None is a
            softmax for classes and normal noise of one learned variance for real targets.
        num_samples: draws of f_i for the expectation where it has no closed form or quadrature.

    Raises:
        ValueError: an unknown covariance, or fewer than one sample.
        TypeError: ``observation`` is no GPyTorch likelihood, or does not fit ``likelihood``.

    Reference:
        J. Hensman, A. Matthews, Z. Ghahramani (2015). Scalable variational Gaussian process classification.
        arXiv:1411.2005. M. van der Wilk, M. Bauer, S. John, J. Hensman (2018). Learning invariances using the
        marginal likelihood. arXiv:1808.05563.

    Example:
        >>> from bayesinv import GaussianProcess, InvarianceModel
        >>> evidence = StochasticGPEvidence(covariance="diagonal")
        >>> InvarianceModel(GaussianProcess(), "rotation", evidence=evidence).evidence_name
        'stochastic'
    """

    name = "stochastic"
    minibatch: ClassVar[bool] = True

    def __init__(
        self,
        likelihood: str = "categorical",
        covariance: str = "full",
        observation: Likelihood | None = None,
        num_samples: int = 8,
    ):
        super().__init__()
        if covariance not in COVARIANCES:
            raise ValueError(f"covariance: expected one of {list(COVARIANCES)}, got {covariance!r}")
        if isinstance(num_samples, bool) or num_samples < 1:
            raise ValueError(f"num_samples: expected a positive integer, got {num_samples!r}")
        if observation is not None and not isinstance(observation, Likelihood):
            raise TypeError(
                f"observation: expected a gpytorch.likelihoods.Likelihood or None, got {type(observation).__name__}"
            )
        if isinstance(observation, SoftmaxLikelihood):
            raise TypeError(
                "observation: SoftmaxLikelihood reads a batch of as many inputs as classes as transposed; leave "
                "observation=None, which is a softmax without mixing weights"
            )
        self.likelihood = likelihood
        self.covariance = covariance
        self.num_samples = num_samples
        self._is_custom = observation is not None
        if observation is None:
            default = GaussianLikelihood(noise_constraint=_above(1e-10)) if likelihood == "gaussian" else _Softmax()
        self.observation: Any = (copy.deepcopy(observation) if observation is not None else default).double()
        self.mean = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self._unit = 1.0  # of the targets
        self.variational: Any  # GPyTorch's variational distribution, whose parameters are named by it
        self._make_room(1, 1)

    @property
    def constant_mean(self) -> Float[Tensor, " C"]:
        """The learned mean of each output."""
        return self.mean

    def parameter_units(self) -> dict[str, float]:
        """The means are in the unit of the targets."""
        return {"mean": self._unit}

    def _make_room(self, num_outputs: int, num_inducing: int) -> None:
        """q = p for so many outputs and inducing values."""
        kind = COVARIANCES[self.covariance]
        self.mean = nn.Parameter(torch.zeros(num_outputs, dtype=torch.float64, device=self.mean.device))
        q = kind(num_inducing, batch_shape=torch.Size([num_outputs]))
        self.variational = q.to(self.mean.device, torch.float64)

    def prepare_state(self, state: Mapping[str, Tensor]) -> None:
        """Make room for μ, S and the means."""
        C, M = state["variational.variational_mean"].shape
        if self.covariance == "full" and state["variational.chol_variational_covar"].shape != (C, M, M):
            raise ValueError(f"the covariance of q: expected shape {(C, M, M)}, beside its mean of shape {(C, M)}")
        self._make_room(C, M)

    def _start(self) -> SiteEvidence:
        """The collapsed evidence whose solution q starts at."""
        return GaussianEvidence() if self.likelihood == "gaussian" else DirichletEvidence()

    def initialise(self, data: Data) -> float:
        """Means and noise where the collapsed evidence of the same kind starts.

        Raises:
            TypeError: the observation model gives no classes where there are labels, or classes where there are none.
        """
        start = self._start().to(data.x.device)
        variance = start.initialise(data)
        self._unit = variance**0.5 if self.likelihood == "gaussian" else 1.0
        self._make_room(data.num_outputs, 1)
        with torch.no_grad():
            self.mean.copy_(start.constant_mean)
            if isinstance(self.observation, GaussianLikelihood) and not self._is_custom:
                constraint = _above(SMALLEST_NOISE_SHARE * variance)
                self.observation.noise_covar.register_constraint("raw_noise", constraint)
                self.observation.noise = 0.1 * variance
            probe = torch.zeros(2, data.num_outputs, dtype=torch.float64, device=data.x.device)
            conditional = self.conditional(probe)
        if isinstance(conditional, Categorical) != (self.likelihood == "categorical"):
            raise TypeError(
                f"observation: {type(self.observation).__name__} gives a {type(conditional).__name__}, which does not "
                f"fit likelihood={self.likelihood!r}; expected probabilities of classes for labels, densities for reals"
            )
        return variance

    @torch.no_grad()
    def prepare(self, prior: InvariantPrior, data: Data) -> None:
        """Start q at the collapsed solution; GPyTorch's modules hold μ and a root of S."""
        start = self._start().to(data.x.device)
        start.initialise(data)
        white = whitened_inducing(prior, data.x)
        sites = start.sites(data)
        factor = PrimalFactor(white.V, sites.precision, start.weighted_gram(white.V, sites, data))
        weights = factor.posterior(sites.precision * (sites.target - start.mean)).weights  # (G, M, C/G)
        num_outputs, M = sites.target.shape[1], len(white.V)
        mean = self.mean.detach().clone()
        self._make_room(num_outputs, M)
        self.mean.copy_(mean)
        self.variational.variational_mean.copy_(weights.mT.reshape(num_outputs, M))
        S = torch.cholesky_inverse(factor.L).expand(num_outputs, -1, -1)  # A⁻¹
        if self.covariance == "full":
            self.variational.chol_variational_covar.copy_(torch.linalg.cholesky(S))
        else:  # the diagonal that minimises KL(q ‖ N(μ, A⁻¹)) is that of A, inverted
            A = factor.L @ factor.L.mT
            self.variational._variational_stddev.copy_(A.diagonal(dim1=-2, dim2=-1).rsqrt().expand(num_outputs, -1))

    def conditional(self, f: Float[Tensor, "*draws n C"]) -> Distribution:
        """p(y | f)."""
        distribution: Distribution = self.observation(f)
        return distribution

    def marginals(self, white: Whitened) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Mean and variance of q(f) at the whitened inputs."""
        mean = self.mean + (self.variational.variational_mean @ white.V).T
        if self.covariance == "full":
            W = self.variational.chol_variational_covar.tril().mT @ white.V  # (C, M, n)
            spread = W.square().sum(1).T
        else:
            spread = (self.variational.variational_stddev.square() @ white.V.square()).T
        prior = white.residual.detach() + white.V.detach().square().sum(-2)
        return mean, (white.residual[:, None] + spread).clamp_min(SMALLEST_SHARE * float(prior.mean()))

    def divergence(self) -> Float[Tensor, ""]:
        """Σ_c KL( N(μ_c, S_c) ‖ N(0, I) )."""
        mean = self.variational.variational_mean
        if self.covariance == "full":
            root = self.variational.chol_variational_covar.tril()
            trace, diagonal = root.square().sum(), root.diagonal(dim1=-2, dim2=-1)
        else:
            diagonal = self.variational.variational_stddev
            trace = diagonal.square().sum()
        return 0.5 * (trace + mean.square().sum() - mean.numel() - diagonal.square().log().sum())

    def log_evidence(self, prior: InvariantPrior, data: Data, num_total: int | None = None) -> Float[Tensor, ""]:
        """The bound above; draws of f, where the likelihood needs them, come from torch's global generator."""
        mean, variance = self.marginals(whitened_inducing(prior, data.x))
        # GPyTorch draws f through pyro.sample: unblocked it becomes a site of the model, which the guide then learns.
        with poutine.block(), gpytorch.settings.num_likelihood_samples(self.num_samples):
            expected = self._expected_log_prob(mean, variance, data.y).sum()
        return (len(data) if num_total is None else num_total) / len(data) * expected - self.divergence()

    def _expected_log_prob(self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"], y: Tensor) -> Tensor:
        """E_q log p(y_i | f_i), per input or per input and output."""
        if isinstance(self.observation, GaussianLikelihood) or hasattr(self.observation, "quadrature"):
            # Likelihoods of one function: the outputs are a batch of them.
            q = MultivariateNormal(mean.T, DiagLinearOperator(variance.T))
            return self.observation.expected_log_prob(y.to(mean.dtype).T, q)
        q = MultitaskMultivariateNormal(mean, DiagLinearOperator(variance.reshape(-1)))
        return self.observation.expected_log_prob(y if self.likelihood == "categorical" else y.to(mean.dtype), q)

    def function_posterior(
        self, prior: InvariantPrior, x: Float[Tensor, n * event], data: Data
    ) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Mean and variance of f(x) under q, which holds all that was learned from the data."""
        return self.marginals(whitened_inducing(prior, x))

    def average(self, num_function_samples: int, seed: int) -> Average:
        """Class probabilities over draws of the function, or mean and variance of the targets."""
        if self.likelihood == "categorical":
            return ClassAverage(lambda f: self.conditional(f).logits, num_function_samples, seed)  # type: ignore[attr-defined]
        if isinstance(self.observation, GaussianLikelihood):
            return GaussianAverage(lambda: self.observation.noise.detach().reshape(()))
        return _MomentAverage(self.conditional, num_function_samples, seed)

    def log_likelihood(self, f: Float[Tensor, "*draws n C"], y: Tensor) -> Float[Tensor, "*draws n"]:
        """log p(y_i | f_i), summed over the outputs of a regression."""
        if self.likelihood == "categorical":
            return self.conditional(f).log_prob(y)
        log_p = self.conditional(f).log_prob(y.to(f.dtype))
        return log_p.sum(-1) if log_p.ndim == f.ndim else log_p

    def sample_targets(self, f: Float[Tensor, "n C"]) -> Tensor:
        """y ~ p(y | f): labels (n,), or real targets (n, C)."""
        with torch.no_grad():
            return self.conditional(f).sample()

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Log density of the priors on the observation model's parameters."""
        total = torch.zeros((), dtype=torch.float64, device=self.mean.device)
        for _, module, prior, closure, _ in self.observation.named_priors():
            total = total + prior.log_prob(closure(module)).sum()
        return total

    def config(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {
            "type": self.name,
            "likelihood": self.likelihood,
            "covariance": self.covariance,
            "observation": "custom" if self._is_custom else None,
            "num_samples": self.num_samples,
        }


class _MomentAverage(Average):
    """Mean and variance of the targets of any likelihood, by draws of the function."""

    def __init__(self, conditional: Callable[[Tensor], Distribution], num_samples: int, seed: int) -> None:
        super().__init__()
        self._conditional, self._num_samples, self._seed = conditional, num_samples, seed
        self._together = GaussianAverage(lambda: torch.zeros((), dtype=torch.float64))

    def _take(self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"], weight: float) -> None:
        y = self._conditional(self._functions(mean, variance))
        spread = y.variance.mean(0) + y.mean.var(0, correction=0)
        self._together.add(y.mean.mean(0), spread, weight)

    def log_density(
        self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"], y: Float[Tensor, "n C"]
    ) -> Float[Tensor, " n"]:
        """log mean_s p(y | f_s), of the likelihood itself."""
        log_p = self._conditional(self._functions(mean, variance)).log_prob(y.to(mean))
        log_p = log_p.sum(-1) if log_p.ndim > mean.ndim else log_p  # per output, or of all outputs jointly
        return log_p.logsumexp(0) - math.log(len(log_p))

    def _functions(self, mean: Float[Tensor, "n C"], variance: Float[Tensor, "n C"]) -> Float[Tensor, "draws n C"]:
        noise = standard_normal_draws(self._num_samples, mean.numel(), self._seed)
        return mean + variance.sqrt() * noise.reshape(-1, *mean.shape).to(mean.device)

    def _averaged(self) -> Prediction:
        return self._together.result()
