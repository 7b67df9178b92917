"""fit: what it accepts, what it returns, repeatability, bad input, and failures in the middle."""

import math
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro.infer import MCMC
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoLaplaceApproximation
from torch.utils.data import DataLoader, TensorDataset

import bayesinv
from bayesinv.errors import DataError, ImportanceWarning, NonFiniteError
from bayesinv.inference.target import Target
from bayesinv.model.exact_evidence import weighing_model
from tests.fakes import Listed

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning"),
    pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning"),
]
QUICK = {"max_steps": 12, "num_draws": 12}


def small_model(**options):
    """Over sites of labels where nothing else is said, whose evidence needs no inner iteration."""
    fast = {} if options.get("likelihood") == "gaussian" else {"evidence": "dirichlet"}
    options = {"num_orbit_samples": 4} | fast | options
    return bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), ["rotation", "translate_x"], **options)


@pytest.fixture(scope="module")
def train():
    return bayesinv.datasets.digits(math.radians(45), size=8, num_train=40, seed=0).train


def draws(posterior):
    return posterior.result.extents


def test_all_kinds_of_data_give_the_same_result(train):
    kinds = [
        (train.x, train.y),
        (train.x.numpy(), train.y.numpy()),
        train,
        TensorDataset(train.x, train.y),
        DataLoader(TensorDataset(train.x, train.y), batch_size=7),
        DataLoader(TensorDataset(train.x, train.y), batch_size=7, shuffle=True),
    ]
    results = [draws(bayesinv.fit(small_model(), data, seed=3, **QUICK)) for data in kinds]
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_same_seed_same_result_and_nothing_global_moves(train):
    model = small_model()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = bayesinv.fit(model, train, seed=1, **QUICK)
    second = bayesinv.fit(model, train, seed=1, **QUICK)
    other = bayesinv.fit(model, train, seed=2, **QUICK)
    assert torch.equal(draws(first), draws(second))
    assert first.result.trace == second.result.trace
    assert not torch.equal(draws(first), draws(other))
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    assert len(pyro.get_param_store()) == 0
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


@pytest.mark.parametrize("guide", ["full_rank", "mean_field", "flow", AutoDiagonalNormal])
def test_every_guide_gives_draws_in_the_support(train, guide, monkeypatch):
    monkeypatch.setattr(bayesinv.inference.vi, "GUIDE_STEPS", 40)
    posterior = bayesinv.fit(small_model(), train, guide=guide, **QUICK)
    extents = draws(posterior)
    assert extents.shape == (1, 12, 2)
    assert bool((extents >= 0).all()) and float(extents[..., 0].max()) <= math.pi
    assert posterior.result.guide == (guide if isinstance(guide, str) else "AutoDiagonalNormal")
    assert math.isfinite(posterior.log_evidence)
    # Mixtures draw the hyperparameters too; guides of Pyro are trained with them held.
    held = guide not in ("full_rank", "mean_field")
    assert (posterior.result.hyperparameters is None) is held
    assert posterior.result.settings["hyperparameters"] == ("optimised" if held else "latent")


def test_a_single_symmetry_works_with_every_guide(train, monkeypatch):
    monkeypatch.setattr(bayesinv.inference.vi, "GUIDE_STEPS", 40)
    for guide in ("full_rank", "flow"):
        model = bayesinv.InvarianceModel(
            bayesinv.GaussianProcess(num_features=64), "rotation", evidence="dirichlet", num_orbit_samples=4
        )
        assert draws(bayesinv.fit(model, train, guide=guide, **QUICK)).shape == (1, 12, 1)


def test_fixed_extents_are_a_point_mass_with_their_evidence(train):
    model = small_model(priors={"rotation": 0.5, "translate_x": None})
    posterior = bayesinv.fit(model, train, **QUICK)
    assert draws(posterior).tolist() == [[[0.5, 0.0]]]
    exact = weighing_model(posterior.model, posterior.data, posterior.result.settings)
    value = exact.log_evidence(torch.tensor([0.5, 0.0], dtype=torch.float64), posterior.data)
    assert exact.backbone.space == "exact" and posterior.log_evidence == pytest.approx(float(value.detach()))
    assert posterior.predict(train.x[:3]).probs.shape == (3, 10)


def test_regression_end_to_end(train):
    y = train.x.mean((1, 2, 3)).numpy()
    posterior = bayesinv.fit(small_model(likelihood="gaussian"), (train.x, y), **QUICK)
    prediction = posterior.predict(train.x)
    assert prediction.mean.shape == prediction.variance.shape == (40,)
    assert bool((prediction.variance > 0).all())


def test_the_objective_rises(train):
    posterior = bayesinv.fit(small_model(), train, seed=0, max_steps=80, num_draws=12)
    trace = posterior.result.trace
    assert np.mean(trace[-3:]) > trace[0]


def test_callbacks_see_the_steps_and_can_end_the_run(train):
    seen = []

    def stop_at_five(step):
        seen.append((step.step, dict(step.extents)))
        return step.step == 5

    posterior = bayesinv.fit(small_model(), train, callbacks=[stop_at_five], **QUICK)
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    assert set(seen[0][1]) == {"rotation", "translate_x"}
    assert len(posterior.result.trace) == 5
    # For the curvature along each extent and hyperparameter one to three evaluations more, none for another start.
    directions = 2 + len(posterior.model.hyperparameters)
    assert 5 + directions <= posterior.result.num_steps <= 5 + 3 * directions
    assert not posterior.result.converged


def test_default_classes_go_through_a_softmax_with_hyperparameters_drawn(train):
    posterior = bayesinv.fit(small_model(evidence="auto"), train, seed=0, max_steps=40, num_draws=30)
    assert posterior.model.evidence_name == "softmax"
    assert posterior.result.hyperparameters.shape == (30, 2)
    assert bool((posterior.result.hyperparameters.std(0) > 0.05).all())
    prediction = posterior.predict(train.x[:5], num_samples=8)
    torch.testing.assert_close(prediction.probs.sum(1), torch.ones(5, dtype=torch.float64))


def test_hyperparameters_can_be_held_at_the_best_mode(train, monkeypatch):
    monkeypatch.setattr("bayesinv.model.exact_evidence.LARGEST_WEIGHED", 0)  # the model's own density is looked at
    held = bayesinv.fit(small_model(), train, hyperparameters="optimised", max_steps=60, num_draws=30)
    assert held.result.hyperparameters is None
    assert held.result.settings["hyperparameters"] == "optimised"
    # They are where the joint density is highest, and its gradient in them vanishes there.
    target = Target(held.model, held.data)
    best = held.result.settings["modes"][0]
    theta = target.start(0.5)
    theta[:2] = target.to_z(torch.tensor(best["extents"], dtype=torch.float64))
    value, gradient = target.with_gradient(theta)
    assert value == pytest.approx(best["log_joint"], abs=1e-4)
    assert float(gradient[2:].abs().max()) < 1.0
    with pytest.raises(ValueError, match="hyperparameters: expected one of"):
        bayesinv.fit(small_model(), train, hyperparameters="learned")


def test_importance_warning_past_the_threshold(train, monkeypatch):
    module = sys.modules["bayesinv.inference.collapsed_fit"]
    original = module.weigh
    monkeypatch.setattr(module, "weigh", lambda *a: replace(original(*a), pareto_k=0.9))
    with pytest.warns(ImportanceWarning, match=r"k̂ = 0.90 is above 0.07, the limit for 12 draws.*num_draws=48"):
        posterior = bayesinv.fit(small_model(), train, **QUICK)
    assert posterior.pareto_k == 0.9
    assert any("Pareto" in note for note in posterior.result.warnings)


def test_too_few_draws_to_judge_say_so(train):
    # distinct weights, so that the tail would have to be fitted
    with pytest.warns(ImportanceWarning, match="weights of 8 draws have too short a tail.*raise num_draws"):
        bayesinv.fit(small_model(), train, max_steps=2, num_draws=8)


def test_the_climb_goes_on_past_a_place_without_an_evidence(train, monkeypatch):
    original = bayesinv.InvarianceModel.log_evidence
    calls = {"count": 0}

    def breaks_at_the_fifth(self, eta, data):
        calls["count"] += 1
        value = original(self, eta, data)
        return value * float("nan") if calls["count"] == 5 else value

    monkeypatch.setattr(bayesinv.InvarianceModel, "log_evidence", breaks_at_the_fifth)
    posterior = bayesinv.fit(small_model(), train, **QUICK)
    trace = posterior.result.trace
    assert all(map(math.isfinite, trace))
    assert max(trace[4:]) > max(trace[:4])


def test_an_evidence_that_is_gone_for_good_is_an_error(train, monkeypatch):
    original = bayesinv.InvarianceModel.log_evidence
    calls = {"count": 0}

    def breaks_from_the_fifth(self, eta, data):
        calls["count"] += 1
        value = original(self, eta, data)
        return value * float("nan") if calls["count"] >= 5 else value

    monkeypatch.setattr(bayesinv.InvarianceModel, "log_evidence", breaks_from_the_fifth)
    with pytest.raises(bayesinv.errors.NumericalError, match="log evidence is nan at extents rotation="):
        bayesinv.fit(small_model(), train, **QUICK)


def test_a_guide_that_breaks_in_training_keeps_its_last_good_state(train, monkeypatch):
    original = bayesinv.inference.vi.Trace_ELBO.differentiable_loss
    calls = {"count": 0}

    def breaks_at_the_fifth(self, *arguments):
        calls["count"] += 1
        value = original(self, *arguments)
        return value * float("nan") if calls["count"] == 5 else value

    monkeypatch.setattr(bayesinv.inference.vi.Trace_ELBO, "differentiable_loss", breaks_at_the_fifth)
    with pytest.raises(NonFiniteError, match="step 5: the objective is nan; the state of the step before") as caught:
        bayesinv.fit(small_model(), train, guide=AutoDiagonalNormal, **QUICK)
    assert caught.value.step == 5
    assert bool(torch.isfinite(caught.value.posterior.sample(5)).all())
    assert any("step 5" in note for note in caught.value.posterior.result.warnings)


def test_no_evidence_at_some_draws_costs_their_weight_only(train, monkeypatch):
    original = bayesinv.inference.many_points.Target.__call__
    calls = {"count": 0}

    def broken(target, *arguments, **named):
        calls["count"] += 1
        if calls["count"] in (15, 19, 20):  # after the mode and the looks around it
            raise bayesinv.errors.NumericalError("no evidence here")
        return original(target, *arguments, **named)

    monkeypatch.setattr(bayesinv.inference.many_points.Target, "__call__", broken)
    posterior = bayesinv.fit(small_model(), train, **QUICK)
    assert any("could not be computed at 3 draws" in note for note in posterior.result.warnings)
    assert int(torch.isinf(posterior.result.log_weights).sum()) == 3


def test_nuts_that_breaks_keeps_the_variational_posterior(train, monkeypatch):
    def broken(*_):
        raise bayesinv.errors.NumericalError("site 'evidence' is nan")

    monkeypatch.setattr(sys.modules["bayesinv.inference.collapsed_fit"], "run_nuts", broken)
    with pytest.raises(NonFiniteError, match="NUTS: site 'evidence' is nan") as caught:
        bayesinv.fit(small_model(), train, inference="nuts", **QUICK)
    assert caught.value.posterior.result.inference == "vi"


def test_a_bug_in_a_users_transform_stays_its_own_error(train):
    class Broken(bayesinv.Affine2d):
        def orbit(self, x, t):
            raise ValueError("a mistake of the user's own")

    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), Broken(["rotation"]))
    with pytest.raises(ValueError, match="a mistake of the user's own"):
        bayesinv.fit(model, train, **QUICK)


@pytest.mark.parametrize("guide", [AutoDelta, AutoLaplaceApproximation])
def test_a_guide_without_spread_is_refused(train, guide):
    with pytest.raises(bayesinv.errors.NumericalError, match="all its mass on one point"):
        bayesinv.fit(small_model(), train, guide=guide, **QUICK)


def test_one_chain_runs(train):
    model = small_model(priors={"translate_x": None})
    posterior = bayesinv.fit(model, train, inference="nuts", num_chains=1, num_warmup=40, max_steps=60, num_draws=40)
    assert draws(posterior).shape == (1, 40, 2)
    assert float(posterior["rotation"].std()) > 0
    assert posterior.result.hyperparameters.shape == (40, 2)
    settings = posterior.result.settings
    assert settings["num_warmup"] == 40 and settings["guide"] == "full_rank"
    assert settings["modes"] and not settings["modes"][0]["merged"]  # of the climb that it started from


@pytest.mark.parametrize(("depth", "saturated"), [(1, 20), (10, 0)])
def test_divergences_and_tree_depths_are_counted(train, monkeypatch, depth, saturated):
    """One doubling at most: every trajectory ends there. Ten: none does."""
    original = MCMC.diagnostics
    monkeypatch.setattr(MCMC, "diagnostics", lambda self: original(self) | {"divergences": {"chain 0": [2, 7, 8]}})
    monkeypatch.setattr(bayesinv.inference.nuts, "MAX_TREE_DEPTH", depth)
    model = small_model(priors={"translate_x": None})
    posterior = bayesinv.fit(model, train, inference="nuts", num_chains=2, num_warmup=10, max_steps=60, num_draws=10)
    assert posterior.result.settings["divergences"] == 6  # three of each chain
    assert posterior.result.settings["saturated"] == saturated
    assert any("6 of 20 draws diverged" in note for note in posterior.result.warnings)


def test_stopping_at_the_limit_warns_and_says_so(train):
    with pytest.warns(bayesinv.errors.NotConvergedWarning, match="after 6 evaluations without reaching an optimum"):
        posterior = bayesinv.fit(small_model(), train, **QUICK | {"max_steps": 6})
    assert any("raise max_steps" in note for note in posterior.result.warnings)


def test_predictions_come_back_where_the_inputs_are(train):
    posterior = bayesinv.fit(small_model(), train, **QUICK)
    assert posterior.predict(train.x[:2]).probs.device == train.x.device
    assert posterior.predict(train.x[:2].numpy()).probs.device.type == "cpu"


def test_a_failure_at_the_first_step_leaves_nothing_behind(train, monkeypatch):
    monkeypatch.setattr(bayesinv.InvarianceModel, "log_evidence", lambda self, eta, data: torch.tensor(float("nan")))
    with pytest.raises(NonFiniteError, match="no earlier state") as caught:
        bayesinv.fit(small_model(), train, **QUICK)
    assert caught.value.posterior is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inference": "mcmc"}, ValueError, r"inference: expected one of \['vi', 'nuts', 'augerino'"),
        ({"guide": "iaf"}, ValueError, "guide: expected one of"),
        ({"device": "cuda:99"}, ValueError, "device: expected"),
        ({"device": "tpu"}, ValueError, "device: expected"),
        ({"max_steps": 0}, ValueError, "max_steps: expected an integer of at least 1"),
        ({"max_steps": True}, ValueError, "max_steps: expected an integer"),
        ({"num_warmup": -1}, ValueError, "num_warmup"),
        ({"num_draws": 4}, ValueError, "num_draws: expected an integer of at least 5"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate: expected a finite number > 0"),
        ({"device": "meta"}, ValueError, "device: expected"),
        ({"seed": -1}, ValueError, "seed: expected"),
    ],
)
def test_bad_options_name_the_choices(train, options, error, message):
    with pytest.raises(error, match=message):
        bayesinv.fit(small_model(), train, **options)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x.index_fill(0, torch.tensor([3]), float("nan")), y), r"64 .*NaN|NaN.*64"),
        (lambda x, y: ((255 * x).to(torch.uint8), y), "uint8"),
        (lambda x, y: (x[:, 0], y), "shape"),
        (lambda x, y: (x, y.float() + 0.5), "integer"),
        (lambda x, y: (x, y - 1), "-1"),
        (lambda x, y: (x[:5], y), "5"),
        (lambda x, y: (x[:0], y[:0]), "empty|no examples|0 examples"),
        (lambda x, y: (x, torch.zeros_like(y)), "class"),
    ],
    ids=["nan", "uint8", "rank", "float labels", "negative", "lengths", "empty", "one class"],
)
def test_bad_data_is_refused_before_anything_runs(train, spoil, message):
    with pytest.raises(DataError, match=message):
        bayesinv.fit(small_model(), spoil(train.x, train.y))


def test_not_a_model():
    with pytest.raises(ValueError, match="say which symmetries to consider"):
        bayesinv.fit(torch.nn.Linear(2, 2), (torch.rand(4, 2), torch.zeros(4)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([], []), "x is empty"),
        ((np.zeros((4, 1, 8, 8)), None), "data holds None"),
        ([(torch.zeros(1, 8, 8), 0, "left")] * 3, "of 3 parts; expected a pair .*groups of the examples go into"),
    ],
)
def test_a_bare_network_with_bad_data(data, message):
    if isinstance(data, list):
        data = Listed(data)
    with pytest.raises(DataError, match=message):
        bayesinv.fit(torch.nn.Flatten(), data)


def test_a_bare_network_with_labels_of_a_split_table(train):
    labels = pd.Series(train.y.numpy(), index=range(500, 500 + len(train)))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(train.x[0].numel(), 10))
    posterior = bayesinv.fit(net, (train.x.numpy(), labels), "none", max_steps=1)
    assert posterior.model.likelihood == "categorical"


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(train):
    eta = torch.tensor([0.5, 0.1], dtype=torch.float64)
    values = []
    for device in ("cpu", "cuda"):
        model = small_model(precision="double").to(device)
        data = train.to(device)
        model.initialise(data)
        values.append(float(model.log_evidence(eta, data).detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-8)
    posterior = bayesinv.fit(small_model(), train, device="cuda", **QUICK)
    assert posterior.predict(train.x[:3]).probs.shape == (3, 10)


@pytest.mark.slow
def test_many_examples_climb_on_a_part_of_them_first(monkeypatch):
    """The answer is that of all examples, in fewer evaluations on all of them."""
    train = bayesinv.datasets.digits(0.8, size=8, num_train=120, seed=0).train
    monkeypatch.setattr("bayesinv.model.exact_evidence.LARGEST_WEIGHED", 0)  # the cheaper evidence

    def fitted(part):
        monkeypatch.setattr("bayesinv.inference.vi.LARGEST_EXPLORED", part)
        monkeypatch.setattr("bayesinv.inference.vi.LARGEST_CLIMB", part)
        model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=128), "rotation", num_orbit_samples=8)
        return bayesinv.fit(model, train, seed=0, num_draws=1500)  # kinks of the orbit leave weights that differ

    whole, part_first = fitted(120), fitted(60)
    assert part_first.result.converged
    assert part_first.result.num_steps < whole.result.num_steps
    assert part_first.log_evidence == pytest.approx(whole.log_evidence, abs=0.1)
    torch.testing.assert_close(part_first.quantile(0.5), whole.quantile(0.5), atol=0.02, rtol=0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # few examples and draws
@pytest.mark.parametrize(
    ("backbone", "callbacks", "sizes"),
    [
        ({"num_features": 32}, [], [8, 12, 16]),
        ({"num_inducing": 6}, [], [16]),  # inducing inputs that a part has moved would be worse than the first ones
        ({"num_features": 32}, [lambda state: True], [8, 16]),  # a stop is a stop: no climb on the next part
    ],
)
def test_climbs_go_from_the_explored_part_to_all(monkeypatch, backbone, callbacks, sizes):
    module = sys.modules["bayesinv.inference.vi"]
    seen, real = [], module.find_modes

    def find_modes(target, *args, **kwargs):
        seen.append(len(target.data))
        return real(target, *args, **kwargs)

    monkeypatch.setattr(module, "find_modes", find_modes)
    monkeypatch.setattr(module, "LARGEST_EXPLORED", 8)
    monkeypatch.setattr(module, "LARGEST_CLIMB", 12)
    monkeypatch.setattr("bayesinv.model.exact_evidence.LARGEST_WEIGHED", 0)  # whose climb is another
    x = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(**backbone), "rotation", likelihood="gaussian", num_orbit_samples=2
    )
    bayesinv.fit(model, (x, x.mean((1, 2, 3))), seed=0, max_steps=21, num_draws=20, callbacks=callbacks)
    assert seen == sizes


@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")
@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")  # few evaluations
def test_small_fits_in_feature_space_are_weighed_by_the_exact_evidence(monkeypatch):
    """With so few features another seed draws another model; the exact one has no seed."""
    x = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.sin(8.0 * x[:, 0, :3].mean((1, 2))) + 0.01 * x[:, 0, 0, 0]

    def evidence(seed, **backbone):
        process = bayesinv.GaussianProcess(**backbone)
        model = bayesinv.InvarianceModel(process, "rotation", likelihood="gaussian", num_orbit_samples=4)
        result = bayesinv.fit(model, (x, y), seed=seed, max_steps=20, num_draws=800).result  # few are off by 0.5 nat
        return result.log_evidence, result.settings["weighed_by"]

    exact, own = evidence(0, num_inducing=None)
    weighed = [evidence(seed, num_features=32) for seed in (1, 2)]
    assert own == "evidence" and {by for _, by in weighed} == {"exact evidence"}
    for value, _ in weighed:
        assert value == pytest.approx(exact, abs=0.3)
    monkeypatch.setattr("bayesinv.model.exact_evidence.LARGEST_WEIGHED", 0)
    assert abs(evidence(1, num_features=32)[0] - exact) > 0.4


@pytest.mark.filterwarnings("ignore::UserWarning")  # few steps and draws
@pytest.mark.parametrize(
    ("decrement", "above", "num_draws", "reached"),
    # The third: a kink, higher than all of many draws around it. The last has too few to say so.
    [(0.0, 9.0, 20, True), (9.0, 9.0, 200, False), (9.0, -0.1, 200, True), (9.0, -0.1, 20, False)],
)
def test_converged_is_said_of_the_modes_that_the_draws_lie_around(monkeypatch, decrement, above, num_draws, reached):
    module = sys.modules["bayesinv.inference.collapsed_fit"]
    real, approximate = module.on_exact, module.approximate
    monkeypatch.setattr(module, "approximate", lambda *args: replace(approximate(*args), above=above))
    monkeypatch.setattr(module, "on_exact", lambda *args: [replace(mode, decrement=decrement) for mode in real(*args)])
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=32), "rotation", likelihood="gaussian", num_orbit_samples=4
    )
    result = bayesinv.fit(model, (x, x.mean((1, 2, 3))), seed=0, max_steps=20, num_draws=num_draws).result
    assert result.settings["weighed_by"] == "exact evidence"
    assert result.converged == reached


def test_arguments_that_do_not_exist_say_where_they_belong():
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=8), "rotation")
    data = torch.rand(2, 1, 4, 4), [0, 1]
    with pytest.raises(TypeError, match=r"training=bayesinv\.Training\(epochs=3\)"):
        bayesinv.fit(model, data, epochs=3)
    with pytest.raises(TypeError, match="'sead'; did you mean 'seed'"):
        bayesinv.fit(model, data, sead=3)
    with pytest.raises(TypeError, match=r"'zzz'; expected one of model, .*, callbacks$"):
        bayesinv.fit(model, data, zzz=3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # weights that are no good
def test_draws_that_miss_the_posterior_do_not_tell_of_convergence(monkeypatch):
    """All of them are lower than the mode, and say nothing of what lies around it."""
    module = sys.modules["bayesinv.inference.collapsed_fit"]
    real, approximate = module.on_exact, module.approximate

    def missing(*args):
        found = approximate(*args)
        worthless = torch.cat([found.log_weights[:1], torch.full_like(found.log_weights[1:], -torch.inf)])
        return replace(found, log_weights=worthless, above=-100.0)

    monkeypatch.setattr(module, "approximate", missing)
    monkeypatch.setattr(module, "on_exact", lambda *args: [replace(mode, decrement=9.0) for mode in real(*args)])
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=32), "rotation", likelihood="gaussian", num_orbit_samples=4
    )
    with pytest.warns(bayesinv.errors.NotConvergedWarning):
        result = bayesinv.fit(model, (x, x.mean((1, 2, 3))), seed=0, max_steps=20, num_draws=200).result
    assert not result.converged


@pytest.mark.filterwarnings("ignore::UserWarning")  # few draws
def test_the_limit_of_a_climb_on_a_part_does_not_limit_that_on_all(monkeypatch):
    module = sys.modules["bayesinv.inference.vi"]
    limits, real = [], module.find_modes

    def find_modes(target, max_evaluations, **kwargs):
        limits.append((len(target.data), max_evaluations))
        return [replace(mode, ended=len(target.data) < 16) for mode in real(target, max_evaluations, **kwargs)]

    monkeypatch.setattr(module, "find_modes", find_modes)
    monkeypatch.setattr(module, "LARGEST_EXPLORED", 8)
    monkeypatch.setattr(module, "LARGEST_CLIMB", 12)
    monkeypatch.setattr("bayesinv.model.exact_evidence.LARGEST_WEIGHED", 0)
    x = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=32), "rotation", likelihood="gaussian", num_orbit_samples=2
    )
    bayesinv.fit(model, (x, x.mean((1, 2, 3))), seed=0, max_steps=30, num_draws=20)
    assert limits == [(8, 30), (12, 30), (16, 30)]


@pytest.mark.filterwarnings("ignore::UserWarning")  # few draws
@pytest.mark.parametrize(("light", "number"), [(True, 130), (False, 80)])
def test_large_data_get_fewer_draws(monkeypatch, train, light, number):
    module = sys.modules["bayesinv.inference.vi"]
    monkeypatch.setattr(module, "is_light", lambda *_: light)
    monkeypatch.setattr(module, "are_enough", lambda *_, **__: False)
    monkeypatch.setattr(module, "MOST_DRAWS", 130)
    monkeypatch.setattr(module, "MOST_DRAWS_OF_LARGE", 80)
    assert draws(bayesinv.fit(small_model(), train, seed=0, max_steps=30)).shape[1] == number


def test_how_far_draws_lie_above_the_mode():
    """From a place down the slope of a normal density draws are higher, and from its top none is."""
    module = sys.modules["bayesinv.inference.vi"]
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=32), "rotation", likelihood="gaussian", num_orbit_samples=4
    )
    data = bayesinv.Data(x, x.mean((1, 2, 3))[:, None])
    model.initialise(data, 0)
    target = Target(model, data)
    modes = module.climb(target, 40)
    top = module.approximate(target, modes, 60, True, False, seed=0).above
    d = len(modes[0].precision)
    aside = modes[0].theta.clone()
    aside[:d] += 2.0 * modes[0].precision.diagonal().rsqrt()
    slope = module.approximate(target, [replace(modes[0], theta=aside)], 60, True, False, seed=0).above
    assert top < 0.1 and slope > 0.3
