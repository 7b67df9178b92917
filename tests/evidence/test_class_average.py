"""Averages over the function: against quadrature, and input by input."""

import numpy as np
import pytest
import torch

from bayesinv.evidence.prediction import ClassAverage, even_normal_draws


def average(mean, variance, seed=0, num=64):
    found = ClassAverage(lambda f: f.log_softmax(-1), num, seed)
    found.add(mean, variance, 1.0)
    return found.result()


def test_two_classes_agree_with_quadrature():
    """softmax(f)_1 = sigmoid(f_1 - f_0), and f_1 - f_0 is normal: an integral along one line."""
    generator = torch.Generator().manual_seed(0)
    mean = 2.0 * torch.randn(50, 2, generator=generator, dtype=torch.float64)
    variance = 2.0 * torch.rand(50, 2, generator=generator, dtype=torch.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    gap = mean[:, 1:] - mean[:, :1] + variance.sum(1, keepdim=True).sqrt() * torch.from_numpy(nodes)
    exact = gap.sigmoid() @ torch.from_numpy(weights / weights.sum())
    found = average(mean, variance).probs
    assert found.sum(1).sub(1).abs().max() < 1e-12
    # Independent draws would be off by sd/8, which is 0.02 on average here.
    assert (found[:, 1] - exact).abs().mean() < 0.004


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch():
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    variance = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    whole = average(mean, variance)
    alone = average(mean[4:5], variance[4:5])
    torch.testing.assert_close(alone.probs, whole.probs[4:5], rtol=0, atol=1e-15)
    torch.testing.assert_close(alone.variance, whole.variance[4:5], rtol=0, atol=1e-15)


def test_maps_are_averaged_cell_by_cell():
    mean = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = average(mean, torch.ones_like(mean)).probs
    assert whole.shape == mean.shape
    torch.testing.assert_close(whole[1, 2], average(mean[1, 2], torch.ones(5, 3, dtype=torch.float64)).probs)


@pytest.mark.parametrize("num_columns", [1, 10])
def test_draws_are_normal(num_columns):
    z = even_normal_draws(1024, num_columns, seed=3)
    assert torch.isfinite(z).all()
    assert z.mean(0).abs().max() < 0.01
    assert (z.var(0) - 1).abs().max() < 0.02
    assert not torch.equal(z, even_normal_draws(1024, num_columns, seed=4))
