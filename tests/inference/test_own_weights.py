"""Posteriors from refits at a few extents: the design, the draws, and the fit that runs it."""

import math

import pytest
import torch

import bayesinv
from bayesinv.checks.approximations import own_weights_verdicts
from bayesinv.data.streams.sources import stream_of
from bayesinv.errors import EvidenceError
from bayesinv.extents.unconstrained import Unconstrained
from bayesinv.inference import own_weights as module
from bayesinv.inference.own_weights import design, own_weights
from bayesinv.inference.training import Training


def ends(A):
    return [torch.full((A,), end, dtype=torch.float64) for end in (-2.6, 2.6, -1.6, 1.6)]


def draws_of(mean, covariance, num=400):
    """Draws with exactly these moments."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num, len(mean), generator=generator, dtype=torch.float64)
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(z.T).reshape(len(mean), -1)), z.T, upper=False).T
    root = torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64))
    return torch.tensor(mean, dtype=torch.float64) + (z - z.mean(0)) @ root.T


@pytest.mark.parametrize(("A", "count"), [(1, 5), (2, 9), (3, 15), (4, 17), (5, 27), (6, 29)])
def test_the_design_is_central_composite(A, count):
    z = draws_of([0.0] * A, (0.25 * torch.eye(A)).tolist())
    low, high, *bulk = ends(A)
    points = design(z, low, high, bulk)
    assert points.shape == (count, A) and float(points[0].abs().max()) < 1e-6
    torch.testing.assert_close(points.mean(0), torch.zeros(A, dtype=torch.float64), atol=1e-6, rtol=0)
    # Every coordinate and every product of two of up to five can be told apart from the others.
    x = points[1:]
    columns = [torch.ones(count - 1, dtype=torch.float64), *x.T]
    assert torch.linalg.matrix_rank(torch.stack(columns, 1)) == A + 1


def test_the_design_follows_the_guide_at_twice_its_spread_and_stays_inside():
    z = draws_of([2.0, -1.0], [[0.25, 0.0], [0.0, 0.0001]])
    low, high, *bulk = ends(2)
    points = design(z, low, high, bulk)
    torch.testing.assert_close(points[0], torch.tensor([2.0, -1.0], dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(points[:, 0].max()) == pytest.approx(2.6) and float(points[:, 0].min()) == pytest.approx(2.0 - 1.6)
    # A guide that is nearly a point has a spread of 0.2 all the same.
    assert float(points[:, 1].max()) == pytest.approx(-1.0 + 2 * 0.2 * 1.6, abs=1e-3)


def test_the_design_of_one_extent_reaches_the_bulk_of_the_prior():
    low, high, *bulk = ends(1)
    narrow = design(draws_of([1.0], [[1e-4]]), low, high, bulk)[:, 0]
    assert narrow.tolist() == pytest.approx([1.0, -1.6, -0.3, 1.3, 1.6], abs=1e-6)
    wide = design(draws_of([1.0], [[0.49]]), low, high, bulk)[:, 0]
    assert wide.tolist() == pytest.approx([1.0, -1.8, -0.4, 1.8, 2.6], abs=1e-6)


class Known:
    """A refit whose log evidence is known: normal in z."""

    centre = torch.tensor([0.5, -0.2], dtype=torch.float64)
    precision = torch.tensor([[6.0, 3.0], [3.0, 5.0]], dtype=torch.float64)
    asked: list = []  # noqa: RUF012
    fail = staticmethod(lambda z: False)

    def __init__(self, start, eta, examples):
        self.model = start
        self.z = Unconstrained(start.extents).to_z(eta)

    def fit(self, *_):
        return self

    def log_evidence(self):
        Known.asked.append(self.z)
        if Known.fail(self.z):
            raise bayesinv.errors.NumericalError("not here")
        away = self.z - Known.centre[: len(self.z)]
        return float(-0.5 * away @ Known.precision[: len(away), : len(away)] @ away)


def two_extents():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net), ["rotation", "translate_x"], num_orbit_samples=3)
    data = bayesinv.Data(torch.rand(6, 1, 8, 8), torch.arange(6) % 3, 3)
    return model, stream_of(data, "categorical")


def seven_extents():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net), "rotation", groups=list("abcde"))
    return model, two_extents()[1]


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(module, "Refit", Known)
    monkeypatch.setattr(Known, "asked", [])
    return Known


def test_draws_follow_evidence_and_prior_and_not_the_guide(known):
    model, stream = two_extents()
    space = Unconstrained(model.extents)
    guide = space.extents(draws_of([0.9, 0.1], [[0.01, 0.0], [0.0, 0.01]]))
    found = own_weights(model, guide, stream, Training(), 100, 0, 2000)
    z = space.to_z(found.extents)
    # Flat priors are N(0, 1) in z.
    covariance = torch.linalg.inv(known.precision + torch.eye(2, dtype=torch.float64))
    mean = covariance @ known.precision @ known.centre
    torch.testing.assert_close(z.mean(0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), covariance, atol=0.03, rtol=0.1)
    log_evidence = -0.5 * float(torch.logdet(torch.eye(2).double() + torch.linalg.inv(known.precision)))
    log_evidence += 0.5 * float(torch.logdet(torch.linalg.inv(known.precision)))
    S = torch.linalg.inv(known.precision) + torch.eye(2, dtype=torch.float64)
    log_evidence -= 0.5 * float(known.centre @ torch.linalg.solve(S, known.centre))
    assert found.facts["log_evidence"] == pytest.approx(log_evidence, abs=0.1)
    assert found.facts["points"] == 13 == len(known.asked) and found.facts["error"] < 0.5
    assert torch.equal(found.extents, own_weights(model, guide, stream, Training(), 100, 0, 2000).extents)


def test_points_are_added_where_the_mass_is(known):
    model, stream = two_extents()
    space = Unconstrained(model.extents)
    guide = space.extents(draws_of([-1.5, 1.5], [[0.01, 0.0], [0.0, 0.01]]))
    own_weights(model, guide, stream, Training(), 100, 0, 50)
    added = torch.stack(known.asked[9:])
    first = torch.stack(known.asked[:9])
    height = [-0.5 * ((z - known.centre) @ known.precision * (z - known.centre)).sum(1) for z in (added, first)]
    assert len(added) == 4 and float(height[0].max()) > float(height[1].max())


def test_points_that_fail_are_left_out_and_too_few_leave_the_guide(known, monkeypatch):
    model, stream = two_extents()
    guide = Unconstrained(model.extents).extents(draws_of([0.9, 0.1], [[0.04, 0.0], [0.0, 0.04]]))
    monkeypatch.setattr(known, "fail", staticmethod(lambda z: bool(z[0] > 1.0)))
    found = own_weights(model, guide, stream, Training(), 100, 0, 50)
    assert 4 <= found.facts["points"] < 13 and float(found.surrogate.points[:, 0].max()) <= 1.0
    monkeypatch.setattr(known, "fail", staticmethod(lambda z: True))
    with pytest.warns(UserWarning, match="at 0 of 9 extents alone"):
        assert own_weights(model, guide, stream, Training(), 100, 0, 50) is None


def test_refits_that_differ_by_chance_leave_the_draws_of_the_guide(known, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    noisy = lambda self: float(40 * torch.rand((), generator=generator))  # noqa: E731
    monkeypatch.setattr(known, "log_evidence", noisy)
    with pytest.warns(bayesinv.errors.NotConvergedWarning, match="misses refits that it was not given by"):
        posterior = fitted(True)
    result = posterior.result
    assert result.surrogate is None and result.guide_extents is None
    assert torch.equal(result.extents, fitted(False).result.extents)
    assert result.settings["own_weights"]["error"] > 3 and "own_weights: the regression" in result.warnings[0]
    assert {v.name: v.level for v in posterior.check()}["own weights"] == "serious"


def test_refits_take_a_share_of_the_steps_of_the_fit(known, monkeypatch):
    from bayesinv.inference import refits

    model, stream = two_extents()
    guide = Unconstrained(model.extents).extents(draws_of([0.5, 0.1], [[0.04, 0.0], [0.0, 0.04]]))
    exact = [own_weights(model, guide, stream, Training(), n, 0, 50).facts["steps"] for n in (10, 200, 400)]
    assert exact == [10, 25, 50]
    monkeypatch.setattr(refits, "EXACT_WORK", 0)
    estimated = [own_weights(model, guide, stream, Training(), n, 0, 50).facts["steps"] for n in (10, 400, 10_000)]
    assert estimated == [10, 22, 50]


def fitted(own, n=24, **options):
    x = bayesinv.datasets.digits(math.pi, size=8, num_train=n, seed=0).train.x
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net), "rotation", num_orbit_samples=3, **options)
    training = Training(epochs=60, batch_size=n, extent_batch_size=n, extent_every=1, own_weights=own)
    return bayesinv.fit(model, bayesinv.Data(x, torch.arange(n) % 3, 3), training=training, seed=0, num_draws=30)


def test_small_data_refit_by_default_and_larger_data_where_it_is_asked_for(monkeypatch):
    from bayesinv.inference import refits

    asked, default = fitted(True), fitted(None)
    assert torch.equal(default.result.extents, asked.result.extents)
    assert default.result.settings["own_weights"] == {**asked.result.settings["own_weights"], "asked": False}
    monkeypatch.setattr(refits, "EXACT_WORK", 0)
    assert "own_weights" not in fitted(None).result.settings


def test_a_regression_that_misses_is_a_note_where_nobody_asked_for_it(monkeypatch):
    monkeypatch.setattr("bayesinv.inference.own_weights.LARGEST_ERROR", -1.0)
    posterior = fitted(None)  # without a warning
    assert {v.name: v.level for v in posterior.check()}["own weights"] == "note"


def test_a_fit_keeps_the_draws_of_its_guide_and_its_weights(tmp_path):
    shared, own = fitted(False), fitted(True)
    assert shared.result.guide_extents is None and shared.result.surrogate is None
    assert torch.equal(own.result.guide_extents, shared.result.extents)
    assert not torch.equal(own.result.extents, shared.result.extents)
    assert own.result.extents.shape == (1, 30, 1)
    state = shared.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.model.state_dict().items())
    assert "weights of their own at 7 extents" in repr(own)
    verdicts = {v.name: v for v in own.check()}
    assert "importance" not in verdicts and "refitted at 7 extents" in verdicts["own weights"].message
    note = {v.name: v for v in shared.check()}["own weights"]
    assert note.level == "note" and "One set of weights serves all extents" in note.message
    shared.recalibration = object()  # whose intervals do not come from these weights alone
    assert own_weights_verdicts(shared) == []
    shared.recalibration = None
    own.save(tmp_path / "own.npz")
    loaded = bayesinv.InvariancePosterior.load(tmp_path / "own.npz", model=own.model)
    assert torch.equal(loaded.result.guide_extents, own.result.guide_extents)
    at = own.result.surrogate.points
    torch.testing.assert_close(loaded.result.surrogate(at)[0], own.result.surrogate(at)[0])


@pytest.mark.parametrize(("error", "level"), [(0.4, "ok"), (2.0, "note"), (3.5, "serious")])
def test_the_verdict_goes_by_the_error(error, level):
    from bayesinv.checks.approximations import own_weights_verdicts
    from tests.fakes import make_posterior

    facts = {"error": error, "points": 7, "used": error <= module.LARGEST_ERROR}
    posterior = make_posterior(settings={"own_weights": facts})
    assert [v.level for v in own_weights_verdicts(posterior)] == [level]


def test_what_is_refused():
    outward = {"priors": {"rotation": bayesinv.Outward(1.0, math.pi)}, "evidence": "plugin"}
    with pytest.raises(EvidenceError, match="no Occam factor"):
        fitted(True, **outward)
    assert fitted(None, **outward).result.surrogate is None
    with pytest.raises(EvidenceError, match="at most 6 latent extents, got 7"):
        module.check_own_weights(*seven_extents())
    with pytest.raises(TypeError, match="own_weights"):
        Training(own_weights="yes")


def test_priors_of_many_extents_at_once():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    for options in (
        {"groups": ["a", "b"]},
        {"priors": {"rotation": bayesinv.Truncated(torch.distributions.HalfNormal(0.5), 1.0)}},
    ):
        model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net), ["rotation"], **options)
        eta = model.extents.sample_prior(5, 0)
        each = torch.stack([model.extents.log_prior(row) for row in eta])
        torch.testing.assert_close(model.extents.log_prior(eta.T), each)
