"""Whatever comes in, a fit ends in a finite result or a named error, leaks nothing, and disturbs no other."""

import contextlib
import gc
import math
import threading
import warnings

import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal
from torch import nn

import bayesinv
from bayesinv import InvarianceModel, Training
from bayesinv.data.container import Data
from bayesinv.errors import ExtentError
from bayesinv.inference import Fixed
from bayesinv.numerics.randomness import seeded
from bayesinv.transforms import FrequencyShift
from tests.benchmarks.random_configurations import Invalid, attempt, draw

QUICK, MORE = range(30), range(30, 90)


@contextlib.contextmanager
def quiet():
    """Without the warnings of short fits; in the main thread, since filters belong to the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tiny_gp(seed=0, **settings):
    x = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = InvarianceModel(bayesinv.GaussianProcess(num_inducing=4), "rotation", num_orbit_samples=2)
    data = Data(x, torch.arange(8) % 2, 2)
    with quiet():
        return bayesinv.fit(model, data, seed=seed, **({"max_steps": 12, "num_draws": 25} | settings))


def tiny_network(seed=0, **settings):
    x = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(3))
    with seeded(1):
        net = nn.Sequential(nn.Flatten(), nn.Linear(25, 4), nn.Tanh(), nn.Linear(4, 2))
    model = InvarianceModel(net, "rotation", num_orbit_samples=2)
    settings = {"max_steps": 12, "num_draws": 25, "training": Training(batch_size=4)} | settings
    with quiet():
        return bayesinv.fit(model, Data(x, torch.arange(8) % 2, 2), seed=seed, **settings)


def numbers_of(posterior):
    return (posterior.result.extents, *posterior.model.state_dict().values())


@pytest.mark.parametrize("seed", QUICK)
def test_a_random_configuration_ends_in_a_result_or_a_named_error(seed):
    outcome = attempt(seed)
    assert outcome.result in ("valid", "named"), f"{outcome.configuration}: {outcome.error}: {outcome.text}"


@pytest.mark.slow
def test_many_random_configurations_end_in_a_result_or_a_named_error():
    bad = [o for o in map(attempt, MORE) if o.result == "offender"]
    assert not bad, "\n".join(f"{o.configuration}: {o.error}: {o.text}" for o in bad)


def test_the_check_of_configurations_sees_what_is_wrong(monkeypatch):
    from tests.benchmarks import random_configurations

    def nothing(configuration):
        raise Invalid("a result that is none")

    assert draw(5) == draw(5) and draw(5) != draw(6)
    monkeypatch.setattr(random_configurations, "run", nothing)
    assert attempt(0).result == "offender"


@pytest.mark.slow
def test_a_thousand_steps_keep_nothing(monkeypatch):
    from bayesinv.inference import vi

    monkeypatch.setattr(vi, "GUIDE_STEPS", 20)
    tiny_gp(max_steps=20, guide=AutoDiagonalNormal)  # what is built once and kept
    monkeypatch.setattr(vi, "GUIDE_STEPS", 1000)
    held = {}

    def look(step):
        if step.step in (200, 1000):
            gc.collect()
            tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
            held[step.step] = (sum(each.numel() * each.element_size() for each in tensors), len(tensors))

    tiny_gp(max_steps=20, guide=AutoDiagonalNormal, callbacks=[look])
    (before, tensors_before), (after, tensors_after) = held[200], held[1000]
    assert after <= before + 4096, f"{after - before} bytes of tensors more after 800 steps"
    assert tensors_after <= tensors_before + 5


@pytest.mark.parametrize("fit", [tiny_gp, tiny_network])
def test_fits_in_threads_give_what_they_give_alone(fit):
    alone = [numbers_of(fit(seed)) for seed in (0, 1)]
    together: dict[int, tuple] = {}
    threads = [threading.Thread(target=lambda s=seed: together.update({s: numbers_of(fit(s))})) for seed in (0, 1)]
    with warnings.catch_warnings():  # filters belong to the process: those of two threads would be put back crosswise
        warnings.simplefilter("ignore")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(alone[seed], together[seed], strict=True))


def test_fits_one_after_the_other_do_not_meet():
    import pyro

    first = numbers_of(tiny_gp())
    pyro.param("extent_rotation", torch.ones(3))  # a name that a guide could take for its own
    try:
        tiny_network()
        again = numbers_of(tiny_gp())
        assert list(pyro.get_param_store()) == ["extent_rotation"]
    finally:
        pyro.clear_param_store()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_seeded_blocks_of_threads_wait_for_each_other():
    inside, order = threading.Event(), []

    def other():
        inside.wait()
        with seeded(1):
            order.append(float(torch.rand(())))

    thread = threading.Thread(target=other)
    with seeded(0):
        alone = torch.rand(2).tolist()
    thread.start()
    with seeded(0):
        first = float(torch.rand(()))
        inside.set()
        thread.join(0.2)
        assert not order  # still waiting
        second = float(torch.rand(()))
    thread.join()
    assert [first, second] == alone and len(order) == 1


def test_an_extent_of_fixed_is_named_as_it_was_written():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    model = InvarianceModel(net, "rotation")
    with pytest.raises(ExtentError, match=r"^Fixed: extents\['rotation'\]: expected a fixed extent"):
        Fixed({"rotation": 9.0}).prepare(model)
    with pytest.raises(ExtentError, match=r"^Fixed: extents: unknown symmetries \['rotatoin'\]"):
        Fixed({"rotatoin": 0.1}).prepare(model)


def test_frequency_shift_goes_by_one_sample_a_second_as_the_others_do():
    assert FrequencyShift().sampling_rate == bayesinv.transforms.TimeShift().sampling_rate == 1.0
    assert math.isclose(FrequencyShift().largest, 0.02) and math.isclose(FrequencyShift(100.0).largest, 2.0)


def test_an_inclusion_from_a_fit_that_has_not_settled_says_so():
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 2))
    x = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(3))
    model = InvarianceModel(net, "rotation", num_orbit_samples=2)
    with quiet():
        found = bayesinv.select(model, (x, torch.arange(8) % 2), method="relaxed", training=Training(epochs=2))
    assert not found.trusted and "NOT TO BE TRUSTED" in repr(found)
    assert set(found.summary()["words"]) == {"not to be trusted"} and "Not to be trusted" in found._repr_html_()
