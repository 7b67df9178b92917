"""Where the search for generators starts."""

import pytest
import torch

from bayesinv import Data, GaussianProcess
from bayesinv.discovery.algebra import algebra_for
from bayesinv.discovery.evidence import FlowEvidence
from bayesinv.discovery.search import Search
from bayesinv.evidence.gaussian import GaussianEvidence


@pytest.fixture(scope="module")
def evidence():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 2, dtype=torch.float64, generator=generator)
    y = x.norm(dim=1).sin()[:, None]
    process, noise = GaussianProcess(num_features=40), GaussianEvidence()
    process.initialise(x, noise.initialise(Data(x, y)), 0)
    evidence = FlowEvidence(process, noise, x[None], y, algebra_for(x, "linear").tangents(x[:15]), 0.02)
    evidence.typical_speed = 0.7
    return evidence


def starts(evidence, proposals):
    search = Search(evidence, algebra_for(evidence.data.x, "linear"), proposals, max_dimension=3)
    return list(search._starts(torch.zeros(4, 0, dtype=torch.float64), evidence.centre))


@pytest.mark.parametrize("factor", [1e-2, 1.0, 1e2])
def test_a_network_in_any_unit_proposes_the_same(evidence, factor):
    """Two slow directions of four, in units of the squared output."""
    speeds = torch.diag(torch.tensor([1e-6, 2e-6, 1.0, 2.0], dtype=torch.float64))
    found = starts(evidence, factor**2 * speeds)
    assert [start.shape[1] for start in found] == [2, 1, 1]
    torch.testing.assert_close(found[0].abs(), torch.eye(4, dtype=torch.float64)[:, :2])


def test_a_network_that_does_not_change_proposes_nothing(evidence):
    own, none = starts(evidence, None), starts(evidence, torch.zeros(4, 4, dtype=torch.float64))
    assert len(own) == len(none) and all(map(torch.equal, own, none))


@pytest.fixture
def turned():
    """A function of the radius, with a process that has not been told."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, dtype=torch.float64, generator=generator)
    y = x.norm(dim=1).mul(2.0).sin()[:, None]
    process, noise = GaussianProcess(num_features=60), GaussianEvidence()
    process.initialise(x, noise.initialise(Data(x, y)), 0)
    algebra = algebra_for(x, "linear")
    return Search(FlowEvidence(process, noise, x[None], y, algebra.tangents(x), 0.05), algebra, None, max_dimension=3)


ROTATION = torch.tensor([[0.0], [-1.0], [1.0], [0.0]], dtype=torch.float64) / 2.0**0.5


def test_a_first_generator_is_found_from_directions_at_random(turned):
    """Without a proposal; the typical speed is that of the function that was found."""
    V, u, value = turned._or_annealed(None, -1e9)
    assert float((ROTATION.mT @ V).abs()) > 0.999
    assert value == pytest.approx(turned.evidence.value_and_gradient(V, u)[0])
    assert turned.evidence.tolerance == 0.05
    assert turned.evidence.typical_speed != 1.0


def climbs_to(search, monkeypatch, value, at_new_speed=None):
    """Climbs from directions at random end at one value, and at another where the typical speed has changed."""

    def optimise(V, u, *rest):
        changed = search.evidence.typical_speed != 1.0
        return V / V.norm(), u, at_new_speed if changed and at_new_speed is not None else value

    monkeypatch.setattr(search, "optimise", optimise)


@pytest.mark.parametrize(("directions", "above", "taken"), [(1, 9.0, 0), (1, 11.0, 1), (2, 59.0, 0), (2, 61.0, 1)])
def test_it_is_taken_where_it_explains_far_more(turned, monkeypatch, directions, above, taken):
    """More than the noise of features, which larger spaces pay."""
    grown = torch.eye(4, dtype=torch.float64)[:, :directions], turned.evidence.centre, 50.0
    climbs_to(turned, monkeypatch, 50.0 + above)
    found = turned._or_annealed(grown, 0.0)
    assert (found is not grown) == bool(taken)
    assert (turned.evidence.typical_speed != 1.0) == bool(taken)


def test_what_gradients_found_stays_where_it_is_no_better_at_its_own_speed(turned, monkeypatch):
    grown = torch.eye(4, dtype=torch.float64)[:, :1], turned.evidence.centre, 50.0
    climbs_to(turned, monkeypatch, 100.0, at_new_speed=-100.0)
    assert turned._or_annealed(grown, 0.0) is grown
    assert turned.evidence.typical_speed == 1.0
    assert turned._or_annealed(None, 200.0) is None


def test_another_seed_has_other_directions(turned, monkeypatch):
    found = []
    climbs_to(turned, monkeypatch, 0.0)
    for turned.seed in (0, 0, 1):
        found.append(turned._or_annealed(None, -1.0)[0])
        turned.evidence.typical_speed = 1.0
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize(("share", "looks"), [(0.04, False), (0.06, True)])
def test_directions_at_random_are_for_functions_that_are_not_known(turned, monkeypatch, share, looks):
    calls = []
    monkeypatch.setattr(FlowEvidence, "noise_share", share)
    monkeypatch.setattr(turned, "_grow", lambda V, u, best: None if V.shape[1] else (ROTATION, u, best))
    monkeypatch.setattr(turned, "_or_annealed", lambda grown, least: calls.append(least) or grown)
    found = turned.run()
    assert [candidate.dimension for candidate in found] == [0, 1]
    assert len(calls) == looks  # and not for a second generator
    assert all(least == found[0].log_joint - 60.0 for least in calls)


def test_the_share_of_noise_is_of_the_variance_of_the_targets(turned):
    assert turned.evidence.noise_share == pytest.approx(0.1, rel=1e-4)  # with which a process begins
