"""The evidence from sums over shards against that of all data at once; on two processes in tests/inference."""

import pytest
import torch

from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.evidence import FeatureStatistics
from bayesinv.model import condition_on_shards, initialise_on_shards, log_evidence_of_shards


def data(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 6, 6, generator=generator)
    return Data(
        x, torch.stack([x[:, 0, 0].sum(1), x[:, 0, :, 1].mean(1)], 1) + 0.1 * torch.randn(n, 2, generator=generator)
    )


def model(**options):
    settings = {"likelihood": "gaussian", "num_orbit_samples": 4, "precision": "double"} | options
    return InvarianceModel(GaussianProcess(num_features=16), ["rotation", "scale_x"], **settings)


def shards_of(whole, sizes=(25, 34, 1)):
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [whole.subset(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


@pytest.fixture(scope="module")
def started():
    whole = data()
    started = model()
    assert initialise_on_shards(started, shards_of(whole)) == 60
    return started, whole


def test_value_and_gradient_are_those_of_all_data_at_once(started):
    started, whole = started
    eta = torch.tensor([0.5, 0.2], dtype=torch.float64, requires_grad=True)
    parameters = [h.parameter for h in started.hyperparameters]
    value = log_evidence_of_shards(started, eta, shards_of(whole))
    expected = started.log_evidence(eta, whole)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    for own, other in zip(
        torch.autograd.grad(2 * value, [eta, *parameters]),
        torch.autograd.grad(2 * expected, [eta, *parameters]),
        strict=True,
    ):
        assert float(other.abs().max()) > 1e-3
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-10)


def test_a_gradient_that_nobody_asks_for_is_not_computed(started):
    started, whole = started
    counted = []

    class Shards(list):
        def __iter__(self):
            counted.append(1)
            return super().__iter__()

    with torch.no_grad():
        log_evidence_of_shards(started, torch.zeros(2, dtype=torch.float64), Shards(shards_of(whole)))
    assert len(counted) == 1


def test_predictions_are_those_of_all_data_at_once(started):
    started, whole = started
    eta, x = torch.tensor([0.5, 0.2], dtype=torch.float64), data(5, seed=1).x
    mean, variance = condition_on_shards(started, eta, shards_of(whole)).moments(x)
    expected = started.function_posterior(x, whole, eta)
    torch.testing.assert_close(mean, expected[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(variance, expected[1].expand_as(variance), rtol=1e-8, atol=1e-10)


def test_it_starts_at_the_scale_of_all_targets(started):
    started, whole = started
    y = whole.y.double()
    torch.testing.assert_close(started.evidence.mean, y.mean(0))
    torch.testing.assert_close(started.evidence.offset_variance, y.var(0, correction=0).mean())


def test_statistics_add_up():
    V, r = torch.randn(5, 30).double(), torch.randn(30, 2).double()
    whole, noise = FeatureStatistics.of(V, r), torch.tensor(0.3).double()
    parts = FeatureStatistics.of(V[:, :11], r[:11]) + FeatureStatistics.of(V[:, 11:], r[11:])
    for a, b in zip(whole.tensors(), parts.tensors(), strict=True):
        torch.testing.assert_close(a, b)
    K = V.T @ V + noise * torch.eye(30).double()
    normal = torch.distributions.MultivariateNormal(torch.zeros(30).double(), K)
    torch.testing.assert_close(parts.log_evidence(noise), normal.log_prob(r.T).sum())


@pytest.mark.parametrize(
    "other",
    [
        lambda: InvarianceModel(GaussianProcess(num_features=8), "rotation"),
        lambda: InvarianceModel(GaussianProcess(num_inducing=5), "rotation", likelihood="gaussian"),
        lambda: model(outputs=["a", "b"]),
    ],
)
def test_what_is_no_sum_over_examples_is_refused(other):
    with pytest.raises(ValueError, match="is no sum over examples; expected GaussianProcess"):
        initialise_on_shards(other(), [data()])


def test_no_example_is_refused(started):
    for call in (
        lambda: initialise_on_shards(model(), []),
        lambda: log_evidence_of_shards(started[0], torch.zeros(2, dtype=torch.float64), []),
    ):
        with pytest.raises(DataError, match="expected at least one example on every process"):
            call()
