"""Fits that were interrupted: what is kept, what is computed again, and what is refused."""

import copy

import pytest
import torch

import bayesinv
from bayesinv.errors import CheckpointError, NumericalError
from bayesinv.inference import population
from bayesinv.inference.evaluation_record import EvaluationRecord
from bayesinv.inference.target import Target


def model(**options):
    process = bayesinv.GaussianProcess(num_features=32)
    return bayesinv.InvarianceModel(process, "rotation", num_orbit_samples=4, likelihood="gaussian", **options)


@pytest.fixture(scope="module")
def data():
    x = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return bayesinv.Data(x, x.flatten(1).double().mean(1, keepdim=True))


class Interrupt:
    """Ends a fit as Ctrl-C does, after so many steps."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self, step):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture
def computed(monkeypatch):
    """How often the evidence is computed; a small population saves time."""
    for name, number in {"EACH": 1, "FEWEST": 16, "MOVES": 1}.items():
        monkeypatch.setattr(population, name, number)
    count = []
    density = Target._log_density
    monkeypatch.setattr(Target, "_log_density", lambda self, *a: count.append(0) or density(self, *a))
    return count


def same(a, b):
    torch.testing.assert_close(a.result.draws, b.result.draws, rtol=0, atol=0)
    torch.testing.assert_close(a.result.log_weights, b.result.log_weights, rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")  # of so few draws
def test_an_interrupted_fit_goes_on_to_the_same_answer_and_a_finished_one_computes_nothing(tmp_path, data, computed):
    file = tmp_path / "fit.checkpoint"
    whole = bayesinv.fit(model(), data, num_draws=20)
    of_whole = len(computed)
    with pytest.raises(KeyboardInterrupt):
        bayesinv.fit(model(), data, num_draws=20, checkpoint=file, callbacks=[Interrupt(6)])
    before = len(computed) - of_whole
    assert 0 < before < of_whole
    resumed = bayesinv.fit(model(), data, num_draws=20, checkpoint=file)
    of_both = len(computed) - of_whole
    assert (
        0.9 * of_whole < of_both <= of_whole + 1
    )  # one is computed again as a check; points that a search meets twice are computed once
    same(resumed, whole)
    assert resumed.result.num_steps == whole.result.num_steps
    computed.clear()
    same(bayesinv.fit(model(), data, num_draws=20, checkpoint=file), whole)
    assert len(computed) == 1  # to see that the density is still the same


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")  # so few draws
def test_nuts_goes_on_too(tmp_path, data, computed):
    nuts = bayesinv.NUTS(num_draws=6, num_warmup=4, max_steps=15, checkpoint=tmp_path / "fit.checkpoint")
    first = bayesinv.fit(model(), data, nuts)
    computed.clear()
    second = bayesinv.fit(model(), data, nuts)
    assert len(computed) == 1
    torch.testing.assert_close(first.result.draws, second.result.draws, rtol=0, atol=0)


def test_other_data_seeds_and_models_are_refused(tmp_path, data):
    file = tmp_path / "fit.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        bayesinv.fit(model(), data, checkpoint=file, max_steps=15, callbacks=[Interrupt(2)])
    written = file.read_bytes()
    for other, of, seed in (
        (model(), bayesinv.Data(data.x, data.y + 1.0), 0),
        (model(), data, 1),
        (model(precision="double"), data, 0),
    ):
        with pytest.raises(CheckpointError, match="checkpoint of another fit"):
            bayesinv.fit(other, of, checkpoint=file, seed=seed)
        assert file.read_bytes() == written


def test_a_density_that_has_changed_is_refused(tmp_path, data, monkeypatch):
    file = tmp_path / "fit.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        bayesinv.fit(model(), data, checkpoint=file, max_steps=15, callbacks=[Interrupt(2)])
    monkeypatch.setattr(bayesinv.InvarianceModel, "log_hyperprior", lambda self: torch.tensor(-5.0))
    with pytest.raises(CheckpointError, match=r"its code has changed since. Delete .*fit.checkpoint to start anew"):
        bayesinv.fit(model(), data, checkpoint=file, max_steps=15)


def test_a_file_of_somebody_is_left_alone(tmp_path, data):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="some other file"):
        bayesinv.fit(model(), data, checkpoint=file)
    assert file.read_text() == "mine"


def test_networks_are_told_where_theirs_is(tmp_path, data):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 1))
    with pytest.raises(ValueError, match=r"checkpoint: expected nothing.*training=bayesinv.Training"):
        bayesinv.fit(
            bayesinv.InvarianceModel(net, "rotation", likelihood="gaussian"),
            data,
            checkpoint=tmp_path / "fit.checkpoint",
        )


def test_failures_are_not_kept(tmp_path):
    record = EvaluationRecord(tmp_path / "fit.checkpoint", {})
    with pytest.raises(NumericalError), record.kept():
        raise NumericalError("no value")
    assert len(record) == 0
    assert not (tmp_path / "fit.checkpoint").exists()


def test_values_and_gradients_have_names_of_their_own(tmp_path):
    theta, file = torch.tensor([0.5, -0.5], dtype=torch.float64), tmp_path / "fit.checkpoint"
    value, gradient = EvaluationRecord.name("value", theta), EvaluationRecord.name("gradient", theta)
    with EvaluationRecord(file, {}).kept() as record:
        record.add(value, (1.0, None))
        copy.deepcopy(record).add(gradient, (2.0, theta))
    again = EvaluationRecord(file, {})
    assert again.get(value) == (1.0, None)
    found = again.get(gradient)
    assert found[0] == 2.0
    assert torch.equal(found[1], theta)
    assert again.get(EvaluationRecord.name("value", theta + 1e-9)) is None


def test_the_file_is_written_while_evaluations_come_in(tmp_path, monkeypatch):
    monkeypatch.setattr("bayesinv.inference.evaluation_record.SECONDS", 0.0)
    file = tmp_path / "fit.checkpoint"
    record = EvaluationRecord(file, {})
    record.add(b"n" * 16, (1.0, None))
    assert EvaluationRecord(file, {}).get(b"n" * 16) == (1.0, None)
