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
