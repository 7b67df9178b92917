"""The evidence from sums over shards against that of all data at once; on two processes in tests/inference."""

import inspect

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


def calls(started):
    """The three functions of shards alone, as users call them: without the checks of types in tests."""
    eta = torch.tensor([0.5, 0.2], dtype=torch.float64)
    initialise, evidence, condition = map(
        inspect.unwrap, (initialise_on_shards, log_evidence_of_shards, condition_on_shards)
    )
    return [
        lambda shards: initialise(model(), shards),
        lambda shards: evidence(started, eta.clone().requires_grad_(), shards),
        lambda shards: condition(started, eta, shards),
    ]


@pytest.mark.parametrize("once", [lambda shards: (s for s in shards), lambda shards: map(lambda s: s, shards), iter])
def test_what_can_be_iterated_only_once_is_refused(started, once):
    for call in calls(started[0]):
        with pytest.raises(TypeError, match="shards: expected something that can be iterated twice, such as a list"):
            call(once(shards_of(started[1])))


def test_a_second_pass_with_other_examples_is_refused(started):
    class Used:
        """Gives what is left of its shards."""

        def __init__(self, shards):
            self.left = iter(shards)

        def __iter__(self):
            return self.left

    for call in calls(started[0])[1:]:
        with pytest.raises(DataError, match="the same examples whenever they are iterated"):
            call(Used(shards_of(started[1])))


def test_targets_without_a_second_axis_are_one_column(started):
    whole = started[1]
    rows, columns = ([Data(shard.x, shard.y[:, :1]) for shard in shards_of(whole)] for _ in range(2))
    for shard in rows:  # which the checks of types in tests refuse, and nothing else does
        object.__setattr__(shard, "y", shard.y[:, 0])
    eta, values = torch.tensor([0.5, 0.2], dtype=torch.float64), []
    for shards in (rows, columns):
        own = model()
        assert initialise_on_shards(own, shards) == 60
        values.append(log_evidence_of_shards(own, eta, shards).detach())
    assert torch.equal(*values)


def test_empty_shards_are_skipped(started):
    whole = started[1]
    empty = whole.subset(slice(0, 0))
    shards = [empty, *shards_of(whole), empty]
    own, eta = model(), torch.tensor([0.5, 0.2], dtype=torch.float64, requires_grad=True)
    assert initialise_on_shards(own, shards) == 60
    values = [log_evidence_of_shards(own, eta, some) for some in (shards, shards_of(whole))]
    gradients = [torch.autograd.grad(value, eta)[0] for value in values]
    assert torch.equal(*values) and torch.equal(*gradients)
    assert condition_on_shards(own, eta.detach(), shards).moments(whole.x[:3])[0].shape == (3, 2)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda whole: [(whole.x, whole.y)], "got a tuple in it; make each of them Data"),
        (lambda whole: whole, r"got a Data; a single one is \[data\]"),
        (lambda whole: 3, "got an int"),
    ],
)
def test_what_is_no_list_of_data_is_refused(started, wrong, got):
    for call in calls(started[0]):
        with pytest.raises(TypeError, match=f"shards: expected an iterable of bayesinv.Data, {got}"):
            call(wrong(started[1]))
