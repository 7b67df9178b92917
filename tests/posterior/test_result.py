"""What an InferenceResult refuses, and what it says of itself."""

import math

import pytest
import torch

from tests.fakes import make_result


def test_shapes_and_draws():
    result = make_result(chains=2, draws=5)
    assert (result.num_chains, result.num_draws, result.num_coordinates) == (2, 5, 3)
    assert torch.equal(result.draws[5:], result.extents[1])


GOOD = torch.rand(1, 4, 2, dtype=torch.float64)
EQUAL = torch.full((4,), -math.log(4), dtype=torch.float64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extents": GOOD[0]}, r"\(chains, draws, K\)"),
        ({"extents": GOOD[:, :0]}, "none of them 0"),
        ({"extents": GOOD.float()}, "float64"),
        ({"extents": GOOD.clone().requires_grad_()}, "detached"),
        ({"extents": GOOD * math.nan}, "8 values that are not finite"),
        ({"extents": -GOOD}, ">= 0"),
        ({"extents": GOOD.expand(2, 4, 2), "log_weights": EQUAL}, "single chain"),
        ({"log_weights": EQUAL[:3]}, r"\(4,\)"),
        ({"log_weights": EQUAL + 1}, "normalised"),
        ({"log_weights": EQUAL * math.nan}, "normalised"),
        ({"rhat": (1.0,)}, "2 symmetries"),
        ({"ess": (1.0, 2.0, 3.0)}, "2 symmetries"),
        ({"log_evidence_se": -1.0}, "standard error"),
        ({"log_evidence_se": math.nan}, "standard error"),
        ({"seconds": -1.0}, "seconds"),
        ({"num_steps": -1}, "num_steps"),
    ],
)
def test_impossible_values(changes, message):
    fields = {"extents": GOOD, "log_evidence": None, "log_evidence_se": None}
    with pytest.raises(ValueError, match=message):
        make_result(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extents": [[1.0]]}, "extents"),
        ({"log_weights": [0.0]}, "log_weights"),
        ({"settings": {"guide": object()}}, "JSON"),
        ({"warnings": (3,)}, "warnings"),
    ],
)
def test_wrong_types(changes, message):
    with pytest.raises(TypeError, match=message):
        make_result(**changes)


def test_settings_are_kept_as_json_gives_them_back():
    result = make_result(settings={"betas": (0.9, 0.99)})
    assert result.settings == {"betas": [0.9, 0.99]}


def test_fixed_symmetries_may_have_no_diagnostics():
    result = make_result(chains=2, rhat=(1.0, math.nan, 1.0))
    assert math.isnan(result.rhat[1])
