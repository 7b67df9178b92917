"""R̂ and effective draws of chains whose mixing is known."""

import math

import pytest
import torch
from pyro.ops.stats import split_gelman_rubin

from bayesinv.inference.chain_diagnostics import effective_draws, rank_rhat


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoregressive(rho, chains=4, num=4000):
    z = noise(chains, num, 1)
    for i in range(1, num):
        z[:, i] = rho * z[:, i - 1] + math.sqrt(1 - rho**2) * z[:, i]
    return z


def test_chains_that_agree():
    z = noise(2, 500, 3)
    assert all(0.99 < value < 1.02 for value in rank_rhat(z))


def test_chains_of_another_spread_disagree():
    """The classical R̂ compares means and does not see it."""
    z = noise(2, 500, 1) * torch.tensor([1.0, 5.0], dtype=torch.float64)[:, None, None]
    assert rank_rhat(z)[0] > 1.2
    assert float(split_gelman_rubin(z, chain_dim=0, sample_dim=1)) < 1.02


def test_each_coordinate_has_its_own():
    z = noise(2, 500, 2)
    z[1, :, 1] += 3.0
    agree, apart = rank_rhat(z)
    assert agree < 1.02 and apart > 1.5


def test_a_single_chain_is_judged_by_its_halves():
    z = noise(1, 500, 1)
    drifting = z + torch.linspace(0, 4, 500, dtype=torch.float64)[:, None]
    assert rank_rhat(z)[0] < 1.03 and rank_rhat(drifting)[0] > 1.3
    assert math.isnan(rank_rhat(z[:, :7])[0]) and math.isfinite(rank_rhat(z[:, :9])[0])


def test_chains_that_never_moved_have_no_finite_value():
    stuck = torch.zeros(2, 50, 1) + torch.tensor([0.0, 1.0])[:, None, None]
    assert not math.isfinite(rank_rhat(stuck)[0]) and not math.isfinite(rank_rhat(0 * stuck)[0])


def test_effective_draws_of_an_autoregression():
    """Its mean is worth N (1 - ρ) / (1 + ρ) draws; quantiles keep more of them, so that the bulk is the smaller."""
    assert effective_draws(autoregressive(0.8))[0] == pytest.approx(16000 / 9, rel=0.15)


def test_the_tails_count():
    """|z| persists and the sign does not: the middle is worth all draws, the ends are not."""
    scale = autoregressive(0.98).abs()
    z = scale * noise(*scale.shape, seed=1).sign()
    total = z.shape[0] * z.shape[1]
    assert effective_draws(z)[0] < 0.2 * total
