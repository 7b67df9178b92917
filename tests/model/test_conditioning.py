"""The function at several draws: the same next to each other, one after the other, and kept."""

import pytest
import torch

import bayesinv
from bayesinv.evidence import SoftmaxEvidence
from bayesinv.model.conditioning import conditioned_draws, copies_beside


@pytest.fixture(scope="module", params=["mode", "average"])
def fitted(request):
    train, test = bayesinv.datasets.digits(0.8, size=8, num_train=40, seed=0)
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=64),
        "rotation",
        likelihood="categorical",
        evidence=SoftmaxEvidence(request.param),
        num_orbit_samples=6,
    )
    model.initialise(train)
    generator = torch.Generator().manual_seed(0)
    eta = torch.linspace(0.3, 2.0, 7, dtype=torch.float64)[:, None]
    centre = torch.cat([h.u().detach().reshape(-1) for h in model.hyperparameters])
    u = centre + 0.3 * torch.randn(7, len(centre), generator=generator, dtype=torch.float64)
    return model, train, test.x[:5], eta, u


def moments(fitted, known, num_threads=1, rows=slice(None)):
    model, train, x, eta, u = fitted
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        return model.predict(x, train, eta[rows], hyperparameters=u[rows], known=known).probs
    finally:
        torch.set_num_threads(before)


def test_threads_change_nothing(fitted):
    alone, together = moments(fitted, {}), moments(fitted, {}, num_threads=3)
    torch.testing.assert_close(alone, together, atol=1e-12, rtol=0)  # products of the test images take three threads


def test_what_is_known_is_used_and_what_is_new_is_added(fitted):
    known = {}
    first = moments(fitted, known, num_threads=2)
    assert sorted(known) == list(range(7))
    kept = dict(known)
    assert torch.equal(moments(fitted, known), first)
    assert all(known[j] is kept[j] for j in kept)
    del known[3], known[5]
    torch.testing.assert_close(moments(fitted, known, num_threads=2), first, atol=1e-3, rtol=0)
    assert sorted(known) == list(range(7))


class Forgetful(dict):
    """A cache that is full."""

    def __setitem__(self, row, value):
        pass


def test_a_full_cache_costs_time_alone(fitted):
    assert torch.equal(moments(fitted, Forgetful(), num_threads=2), moments(fitted, {}))


def test_the_model_is_left_as_it_was(fitted):
    model = fitted[0]
    before = [p.detach().clone() for p in model.parameters()]
    model.evidence.warm_start = None
    moments(fitted, {}, num_threads=2)
    assert model.evidence.warm_start is None
    assert all(torch.equal(p.detach(), b) for p, b in zip(model.parameters(), before, strict=True))


def test_an_error_at_one_draw_is_raised(fitted):
    model, train, _, eta, u = fitted
    u = u.clone()
    u[4] = float("nan")
    with pytest.raises(bayesinv.errors.NumericalError):
        list(conditioned_draws(model, train, eta, u, {}))


def test_copies_are_as_many_as_threads_and_memory_allow(fitted):
    model, train, _, _, _ = fitted
    assert copies_beside(model, train, 3) == 2
    small = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=64), "rotation", num_orbit_samples=6, memory_budget=2**18
    )
    small.initialise(train)
    assert copies_beside(small, train, 3) == 0
