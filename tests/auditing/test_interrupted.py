"""An audit that was interrupted goes on where it was, and ends where it would have ended."""

import pandas as pd
import pytest

import bayesinv
from bayesinv import InvarianceModel
from bayesinv.errors import CheckpointError
from tests.auditing.findings import SMALL, two_rhythms

OPTIONS = {"operations": ["time_shift", "sign_flip", "noise"], **SMALL}


@pytest.fixture(scope="module")
def data():
    return two_rhythms()


class Counted:
    """Evaluations of the evidence and predictions, interrupted at the last."""

    def __init__(self, monkeypatch, last=10**9):
        self.number, self.last = 0, last
        for name in ("log_evidence", "predict"):
            monkeypatch.setattr(InvarianceModel, name, self.counted(getattr(InvarianceModel, name)))

    def counted(self, function):
        def call(*arguments, **options):
            self.number += 1
            if self.number == self.last:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_an_interrupted_audit_goes_on(data, share, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        count = Counted(patch)
        whole = bayesinv.audit(data, **OPTIONS)
        assert "time_shift" in {o.name for o in whole.inside}
    file = tmp_path / "audit.checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        Counted(patch, last=int(share * count.number))
        with pytest.raises(KeyboardInterrupt):
            bayesinv.audit(data, checkpoint=file, **OPTIONS)
    assert file.is_file()
    with pytest.MonkeyPatch.context() as patch:
        rest = Counted(patch)
        found = bayesinv.audit(data, checkpoint=file, **OPTIONS)
    assert rest.number < (1.2 - share) * count.number
    # Up to what the inner iterations leave, which go on from the evaluation before.
    pd.testing.assert_frame_equal(found.table, whole.table, rtol=0.01, atol=0.01)
    assert found.table["answer"].equals(whole.table["answer"])


def test_the_checkpoint_of_another_audit_is_refused(data, tmp_path):
    file = tmp_path / "audit.checkpoint"
    bayesinv.audit(data, checkpoint=file, **OPTIONS)
    x, y = data
    for changed in ({"seed": 1}, {"prior_inclusion": 0.3}, {"sampling_rate": 2.0}):
        with pytest.raises(CheckpointError, match="another fit"):
            bayesinv.audit(data, checkpoint=file, **(OPTIONS | changed))
    with pytest.raises(CheckpointError, match="another fit"):
        bayesinv.audit((2 * x, y), checkpoint=file, **OPTIONS)
