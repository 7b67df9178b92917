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


def test_a_first_generator_is_found_from_directions_at_random():
    """Without a proposal; the tolerance and, where nothing was found, the typical speed are as they were."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, dtype=torch.float64, generator=generator)
    y = x.norm(dim=1).mul(2.0).sin()[:, None]
    process, noise = GaussianProcess(num_features=60), GaussianEvidence()
    process.initialise(x, noise.initialise(Data(x, y)), 0)
    algebra = algebra_for(x, "linear")
    evidence = FlowEvidence(process, noise, x[None], y, algebra.tangents(x), 0.05)
    search = Search(evidence, algebra, None, max_dimension=3)
    V, u, value = search._or_annealed(None, -1e9)
    rotation = torch.tensor([[0.0], [-1.0], [1.0], [0.0]], dtype=torch.float64) / 2.0**0.5
    assert float((rotation.mT @ V).abs()) > 0.999
    assert value == pytest.approx(evidence.value_and_gradient(V, u)[0])
    assert evidence.tolerance == 0.05
    known = evidence.typical_speed
    assert known != 1.0  # it is that of the function that was found
    assert search._or_annealed((V, u, 1e6), -1e9) == (V, u, 1e6)
    assert search._or_annealed(None, 1e6) is None
    assert (evidence.tolerance, evidence.typical_speed) == (0.05, known)
