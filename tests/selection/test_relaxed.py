"""Selection by relaxed spikes, and paired Bayes factors."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bayesinv
from bayesinv.errors import ExtentError
from bayesinv.selection import RelaxedSelection
from bayesinv.selection.relaxed import with_spikes
from tests.fakes import make_posterior
from tests.selection.known import correlated_posterior, quadrature

NETWORK_TRAINING = bayesinv.Training(epochs=12, batch_size=30, extent_batch_size=30)


def relaxed_of(membership, weights=None, prior=0.5):
    J = len(membership)
    weights = torch.full((J,), 1.0 / J, dtype=torch.float64) if weights is None else weights
    names = ("a", "b", "c")[: membership.shape[1]]
    return RelaxedSelection(symmetries=names, prior_inclusion=prior, seed=0, membership=membership, weights=weights)


def network_model():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 2))
    return bayesinv.InvarianceModel(net, ["rotation", "shear"], num_orbit_samples=4)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(60, 1, 8, 8, generator=generator), torch.arange(60) % 2


@pytest.fixture(scope="module")
def network_posterior(images):
    torch.manual_seed(0)
    return bayesinv.fit(network_model(), images, training=NETWORK_TRAINING, max_steps=400, num_draws=30)


def test_averages_of_membership():
    membership = torch.tensor([[1.0, 0.0], [1.0, 0.5], [1.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    found = relaxed_of(membership)
    table = found.inclusion
    assert table["probability"].tolist() == pytest.approx([1.0, 0.5])
    assert table["standard_error"].tolist() == pytest.approx([0.0, math.sqrt(0.5 / 16)])
    factors = found.bayes_factors
    assert factors["at_limit"].tolist() == [True, False]
    assert factors.loc["b", "log_bf"] == pytest.approx(0.0)
    assert factors.loc["a", "log_bf"] == pytest.approx(math.log(7.0))  # half a draw of four against
    assert found.subsets["probability"].sum() == pytest.approx(1.0)
    assert found.subsets.loc["a + b", "probability"] == pytest.approx(0.5)


def test_contradictions_are_named():
    membership = torch.tensor([[0.9, 0.9, 0.1]] * 8, dtype=torch.float64)
    found = relaxed_of(membership)
    assert found.contradictions == ()
    paired = pd.DataFrame(
        {"log_bf_paired": [-5.0, -5.0, -5.0], "log_bf_paired_se": [1.0, 4.0, 1.0]},
        index=pd.Index(["a", "b", "c"], name="symmetry"),
    )
    # b is within its error, and c agrees
    assert dataclasses.replace(found, paired=paired).contradictions == ("a",)


def test_weights_count():
    membership = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    weights = torch.tensor([0.2, 0.8], dtype=torch.float64)
    assert float(relaxed_of(membership, weights).inclusion["probability"].iloc[0]) == pytest.approx(0.8)


def test_exact_membership_gives_the_posterior_odds():
    """Draws from the relaxed posterior of a known evidence: inclusion agrees with quadrature over the sets."""
    model = correlated_posterior().model
    # Only translate_x in question: {rotation, scale_x} against all three.
    without, full = (quadrature(model, row) for row in ([True, False, True], [True, True, True]))
    expected = 1.0 / (1.0 + math.exp(without - full))
    prior = with_spikes(model, 0.5, 0.001).extents.priors["translate_x"]
    num = 20_000
    eta = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    others = torch.cartesian_prod(
        torch.tensor([0.9], dtype=torch.float64), (torch.arange(100, dtype=torch.float64) + 0.5) / 100 * math.log(2.0)
    )
    r_scale = (others[:, 1] - model.centre[2]) / model.width
    r_x = (eta - model.centre[1]) / model.width
    # -½ (r_x² + 1.4 r_x r_s + r_s²), scale_x summed over
    log_l = (-0.5 * (r_x[:, None] ** 2 + 1.4 * r_x[:, None] * r_scale + r_scale**2)).logsumexp(1)
    weights = (log_l + prior.log_prob(eta)).softmax(0)
    probability = float((weights * prior.inclusion_given(eta)).sum())
    assert probability == pytest.approx(expected, abs=0.01)


def test_spikes_keep_the_slab_and_refuse_what_has_none():
    model = make_posterior().model
    spiked = with_spikes(model, {"rotation": 0.2}, 0.002)
    prior = spiked.extents.priors["rotation"]
    assert prior.inclusion == 0.2 and prior.slab is not None
    assert type(model.extents.priors["rotation"]).__name__ == "UniformExtent"  # the model stays as it was
    again = with_spikes(spiked, 0.4, 0.001)
    assert again.extents.priors["rotation"].slab is prior.slab
    with pytest.raises(ValueError, match="beta_binomial"):
        with_spikes(model, "beta_binomial", 0.002)
    model.extents.priors["rotation"] = bayesinv.Outward(0.1, high=1.0)
    with pytest.raises(ExtentError, match="Outward"):
        with_spikes(model, 0.5, 0.002)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning", "ignore::bayesinv.errors.ImportanceWarning")
def test_relaxed_agrees_with_subsets_on_digits():
    train, _ = bayesinv.datasets.digits(math.radians(45), num_train=80, seed=0)
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=40), ["rotation", "translate_x"], num_orbit_samples=8
    )
    posterior = bayesinv.fit(model, train, seed=0, max_steps=250, num_draws=50)
    exact = bayesinv.select(posterior, seed=0).inclusion["probability"]
    relaxed = bayesinv.select(posterior, method="relaxed", seed=0)
    assert isinstance(relaxed, RelaxedSelection) and relaxed.paired is None
    np.testing.assert_allclose(relaxed.inclusion["probability"], exact, atol=0.25)
    assert (relaxed.inclusion["probability"] > 0.5).tolist() == (exact > 0.5).tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")  # random labels, and few steps
def test_a_network(network_posterior, images, tmp_path):
    with pytest.raises(ValueError, match="estimate from minibatches"):
        bayesinv.select(network_posterior, method="subsets")
    found = bayesinv.select(network_posterior, training=NETWORK_TRAINING, num_paired=6)
    assert found.method == "relaxed"
    assert list(found.bayes_factors.columns)[-2:] == ["log_bf_paired", "log_bf_paired_se"]
    assert found.inclusion["probability"].between(0, 1).all()
    loaded = bayesinv.Selection.load(found.save(tmp_path / "selection"))
    assert loaded.bayes_factors.equals(found.bayes_factors) and loaded.subsets.equals(found.subsets)
    assert len(found.plot().axes) == 3


@pytest.mark.slow
def test_paired_bayes_factors(network_posterior, images):
    table = bayesinv.paired_bayes_factors(network_posterior, num_draws=8, seed=0)
    assert table.equals(bayesinv.paired_bayes_factors(network_posterior, num_draws=8, seed=0))
    assert list(table.index) == ["rotation", "shear"] and (table["log_bf_paired_se"] > 0).all()
    refitted = bayesinv.paired_bayes_factors(
        network_posterior, images, symmetries=["shear"], refit=True, training=NETWORK_TRAINING, num_draws=8
    )
    assert np.isfinite(refitted.to_numpy()).all()


def test_paired_refuses(images):
    with pytest.raises(ValueError, match="deterministic"):
        bayesinv.paired_bayes_factors(make_posterior())
    with pytest.raises(ValueError, match="not latent"):
        bayesinv.paired_bayes_factors(make_posterior(), symmetries=["hue"])
