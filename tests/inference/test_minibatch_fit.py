"""``fit`` on networks: what it returns, that it can be repeated, saved and resumed, and what it refuses."""

import dataclasses
import inspect
import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesinv
from bayesinv import InvarianceModel, Outward, Training
from bayesinv.data.container import Data
from bayesinv.errors import DataError, NotConvergedWarning
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior.invariance_posterior import InvariancePosterior

QUICK = Training(epochs=6, batch_size=20, extent_batch_size=16, extent_every=2)


def net(outputs: int = 2, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, outputs))


@pytest.fixture(scope="module")
def train() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 8, 8, generator=generator)
    return Data(x, (x[:, 0, :, :4].mean((1, 2)) > x[:, 0, :, 4:].mean((1, 2))).long(), num_classes=2)


def model(**options) -> InvarianceModel:
    return InvarianceModel(net(), ["rotation", "translate_x"], num_orbit_samples=4, **options)


@pytest.fixture(scope="module")
def posterior(train):
    return bayesinv.fit(model(), train, seed=3, training=QUICK)


def test_a_network_gets_a_posterior_with_everything_that_goes_with_it(posterior, train):
    assert posterior.result.inference == "vi"
    assert posterior.result.extents.shape == (1, 160, 2)
    assert math.isfinite(posterior.result.settings["elbo"]) and posterior.result.settings["elbo_se"] > 0
    assert (posterior.log_evidence is None) == bool(posterior.result.why_no_log_evidence)
    assert posterior.result.num_steps == 18
    assert posterior.result.settings["training_copies"] == posterior.result.settings["prediction_copies"] == 4
    # 18 steps: 3 of burn-in, 2 in which scales settle, 4 to finish; the extents move in every second one of the rest
    assert len(posterior.trace) == 5
    probs = posterior.predict(train.x[:5], num_samples=4).probs
    assert torch.allclose(probs.sum(1), torch.ones(5, dtype=probs.dtype))
    assert {"median", "lower", "upper"} <= set(posterior.summary().columns)
    assert posterior.evidence_profile("rotation", num_points=4)["log_evidence"].notna().all()
    assert "60 training examples" in repr(posterior)
    assert not posterior.result.converged and "raise epochs" in posterior.result.warnings[-1]
    tree = posterior.to_datatree(num_draws=5)
    assert tree["posterior"]["extent"].shape[-1] == 2


def test_too_few_steps_of_the_extents_warn_with_what_to_do(train):
    few = r"the extents took 5 steps and need at least 30 to cross their range: raise epochs 6-fold, or max_steps"
    with pytest.warns(NotConvergedWarning, match=few) as caught:
        fitted = bayesinv.fit(model(), train, seed=3, training=QUICK)
    assert len(caught) == 1
    assert not fitted.result.converged and fitted.result.warnings[-1] == str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = bayesinv.fit(model(), train, seed=3, training=dataclasses.replace(QUICK, epochs=42))
        bayesinv.fit(model(), train, "augerino", seed=3, training=QUICK)  # a point is not crossing a prior's range
    assert enough.result.converged and len(enough.trace) >= 30


def test_the_same_seed_gives_the_same_fit_and_another_one_does_not(posterior, train):
    again = bayesinv.fit(model(), train, seed=3, training=QUICK)
    assert torch.equal(again.result.extents, posterior.result.extents)
    assert torch.equal(again.predict(train.x).probs, posterior.predict(train.x).probs)
    other = bayesinv.fit(model(), train, seed=4, training=QUICK)
    assert not torch.equal(other.result.extents, posterior.result.extents)


def test_the_callers_model_and_generators_are_left_alone(train):
    mine = model()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    state = torch.random.get_rng_state()
    bayesinv.fit(mine, train, training=QUICK)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in mine.state_dict().items())


def test_datasets_and_loaders_give_what_tensors_give(posterior, train):
    dataset = TensorDataset(train.x, train.y)
    from_set = bayesinv.fit(model(), dataset, seed=3, training=QUICK)
    from_loader = bayesinv.fit(model(), DataLoader(dataset, batch_size=7, shuffle=True), seed=3, training=QUICK)
    assert torch.equal(from_set.result.extents, posterior.result.extents)
    assert torch.equal(from_loader.result.extents, posterior.result.extents)


def test_a_checkpoint_is_gone_on_from_to_the_bit(posterior, train, tmp_path):
    training = Training(
        epochs=6, batch_size=20, extent_batch_size=16, extent_every=2, checkpoint=tmp_path / "fit", checkpoint_every=1
    )

    class Killed(Exception):
        pass

    def kill(step):
        if step.step == 11:
            raise Killed

    with pytest.raises(Killed):
        bayesinv.fit(model(), train, seed=3, training=training, callbacks=[kill])
    steps = []
    resumed = bayesinv.fit(model(), train, seed=3, training=training, callbacks=[lambda step: steps.append(step.step)])
    assert steps[0] in (11, 12)
    assert torch.equal(resumed.result.extents, posterior.result.extents)
    assert torch.equal(resumed.predict(train.x).probs, posterior.predict(train.x).probs)
    with pytest.raises(bayesinv.errors.CheckpointError):
        bayesinv.fit(model(), train, seed=4, training=training)


def test_a_saved_fit_predicts_the_same(posterior, train, tmp_path):
    path = posterior.save(tmp_path / "network.bayesinv")
    loaded = bayesinv.load(path, model=model())
    assert torch.equal(loaded.predict(train.x).probs, posterior.predict(train.x).probs)
    with pytest.raises(bayesinv.errors.SavedFileError, match="pass the model"):
        bayesinv.load(path)


def test_a_bare_network_is_fitted_to_images_under_all_six_affine_symmetries(train):
    posterior = bayesinv.fit(net(), train, training=Training(epochs=1, extent_batch_size=10))
    assert posterior.symmetries == bayesinv.Affine2d().names
    x, y = train.x, train.x.mean((1, 2, 3))
    assert bayesinv.fit(net(1), (x, y), training=Training(epochs=1)).model.likelihood == "gaussian"


def test_regression_learns_its_noise_and_gives_intervals(train):
    y = train.x[:, 0, :, :4].mean((1, 2))
    fitted = bayesinv.fit(
        InvarianceModel(net(1), "rotation", likelihood="gaussian", num_orbit_samples=4), (train.x, y), training=QUICK
    )
    prediction = fitted.predict(train.x)
    assert prediction.mean.shape == prediction.variance.shape == (60,)
    assert float(prediction.variance.min()) >= 0.99 * float(fitted.model.evidence.noise.detach()) > 0


def test_all_extents_fixed_gives_the_laplace_evidence_of_a_point(train):
    fitted = bayesinv.fit(model(priors={"rotation": 0.3, "translate_x": None}), train, training=QUICK)
    assert fitted.result.inference == "fixed"
    assert fitted.result.extents.tolist() == [[[0.3, 0.0]]]
    assert math.isfinite(fitted.result.settings["elbo"])


def test_a_plug_in_likelihood_under_a_flat_prior_says_that_only_its_limit_counts(train):
    flat = bayesinv.fit(model(evidence="plugin", average="log_likelihood"), train, training=QUICK)
    assert flat.log_evidence is None
    assert any("upper_limit()" in note for note in flat.result.warnings)
    assert (flat.upper_limit()["upper_limit"] <= flat.upper_limit()["largest"]).all()
    priors = {name: Outward(0.5) for name in ("rotation", "translate_x")}
    pushed = bayesinv.fit(model(evidence="plugin", average="log_likelihood", priors=priors), train, training=QUICK)
    assert not any("upper_limit()" in note for note in pushed.result.warnings)
    assert float(pushed["rotation"].median()) > float(flat["rotation"].median())


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (model, {"inference": "nuts"}, "inference=.nuts. needs"),
        (model, {"guide": "flow"}, "guide=.flow. needs"),
        (
            lambda: InvarianceModel(bayesinv.GaussianProcess(num_inducing=5), "rotation"),
            {"training": QUICK},
            "has no minibatches",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make, options, message, train):
    with pytest.raises(ValueError, match=message):
        bayesinv.fit(make(), train, **options)


@pytest.mark.cuda
def test_cuda_runs_the_same_fit(train):
    fitted = bayesinv.fit(model(), train, seed=3, device="cuda", training=QUICK)
    assert fitted.predict(train.x[:3]).probs.shape == (3, 2)


@pytest.mark.parametrize(
    "inference", ["augerino", "augnet", "none", "randaugment", bayesinv.inference.Fixed({"rotation": 0.4})]
)
def test_point_estimates_come_as_posteriors_of_one_point_and_take_any_layer(inference, train):
    layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, 2))
    mine = InvarianceModel(layers, ["rotation", "translate_x"], num_orbit_samples=4)
    fitted = bayesinv.fit(mine, train, inference, training=Training(epochs=2, batch_size=20))
    assert fitted.result.extents.shape == (1, 1, 2)
    assert fitted.log_evidence is None
    with pytest.raises(ValueError, match="point estimate"):
        fitted.upper_limit()
    assert (fitted.summary()["lower"] == fitted.summary()["upper"]).all()
    assert fitted.predict(train.x[:4]).probs.shape == (4, 2)
    assert {"training_copies", "prediction_copies", "method"} <= set(fitted.result.settings)


def test_double_inputs_are_taken_and_data_in_place_of_inputs_are_named(posterior, train):
    fitted = bayesinv.fit(model(), (train.x.double().numpy(), train.y.numpy()), training=Training(epochs=1))
    assert fitted.predict(train.x.double()).probs.shape == (60, 2)
    with pytest.raises(bayesinv.errors.DataError, match=r"expected inputs alone.*test\.x"):
        posterior.predict(train)


def test_settings_that_are_no_training_say_what_to_write(train):
    plain_fit = inspect.unwrap(bayesinv.fit)  # without the types that only the tests check
    with pytest.raises(TypeError, match=r"got a dict: training=bayesinv\.Training\(epochs=5\)"):
        plain_fit(model(), train, training={"epochs": 5})
    with pytest.raises(TypeError, match=r"callbacks=\[function\]"):
        plain_fit(model(), train, callbacks=print)


def test_labels_that_start_at_one_are_told_of(train):
    class FromOne(torch.utils.data.Dataset):
        def __len__(self):
            return len(train)

        def __getitem__(self, i):
            return train.x[i], int(train.y[i]) + 1

    with pytest.raises(DataError, match="if labels are to start at 0 and not at 1, take y - 1"):
        bayesinv.fit(model(), FromOne(), training=Training(epochs=1))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"learning_rate": 1e6}, "learning_rate: expected nothing.*learning_rate=1000000.0"),
        ({"num_chains": 77, "num_warmup": 12345}, "num_chains, num_warmup: .*does not use them"),
        ({"hyperparameters": "optimised"}, "hyperparameters"),
        ({"inference": "augerino", "guide": "mean_field"}, "guide: .*inference='augerino'"),
    ],
)
def test_arguments_that_a_network_does_not_use_are_refused(train, options, named):
    with pytest.raises(ValueError, match=named):
        bayesinv.fit(model(), train, training=QUICK, **options)


def test_arguments_at_their_defaults_are_not_refused(train):
    quick = dataclasses.replace(QUICK, epochs=0.2)
    options = {"learning_rate": 0.05, "num_chains": 2, "num_warmup": 150, "hyperparameters": "latent"}
    bayesinv.fit(model(), train, "none", training=quick, guide="full_rank", **options)


def test_a_profile_of_large_data_is_scaled_to_all_of_them(posterior):
    """As of a fit to twice as many examples as it keeps."""
    settings = posterior.result.settings | {"num_train": 2 * len(posterior.data)}
    larger = InvariancePosterior(
        posterior.model, posterior.data, dataclasses.replace(posterior.result, settings=settings)
    )
    profile = larger.evidence_profile("rotation", num_points=4)
    eta = posterior.quantile(0.5)
    for extent, found in zip(profile["extent"], profile["log_evidence"], strict=True):
        eta[0] = extent
        with torch.no_grad(), seeded(0):
            assert found == float(posterior.model.log_evidence(eta, posterior.data, settings["num_train"]))
