"""p(η): how far each symmetry may reach, as Pyro latent variables with bounded supports."""

from bayesinv.extents.families import SITE_PREFIX, Extents, PriorSpec, as_priors, priors_from_config, sample_extents
from bayesinv.extents.per_input import in_common, shrinkage
from bayesinv.extents.priors import (
    Outward,
    Prior,
    ProbitInterval,
    Truncated,
    UniformExtent,
    build_prior,
    checked_prior,
    prior_config,
    register_prior,
)
from bayesinv.extents.spike_and_slab import SpikeAndSlab

__all__ = [
    "SITE_PREFIX",
    "Extents",
    "Outward",
    "Prior",
    "PriorSpec",
    "ProbitInterval",
    "SpikeAndSlab",
    "Truncated",
    "UniformExtent",
    "as_priors",
    "build_prior",
    "checked_prior",
    "in_common",
    "prior_config",
    "priors_from_config",
    "register_prior",
    "sample_extents",
    "shrinkage",
]
