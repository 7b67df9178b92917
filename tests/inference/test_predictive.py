"""The second stage: `bayesinv.train` by itself, and as a part of ``fit``."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

import bayesinv
from bayesinv import InvarianceModel, SecondStage, Training
from bayesinv.data.container import Data
from bayesinv.inference.objective import Phase
from bayesinv.inference.predictive import PredictiveObjective, reset_weights
from bayesinv.inference.rates import made_optimiser, planned
from bayesinv.report.call import fit_call

QUICK = {"epochs": 4, "batch_size": 20, "num_copies": 2}
STAGES = Training(epochs=6, batch_size=20, extent_batch_size=16, extent_every=2, second_stage=SecondStage(0.5))


def net(outputs: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, outputs))


@pytest.fixture(scope="module")
def data() -> Data:
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Data(x, (x[:, 0, :, :4].mean((1, 2)) > x[:, 0, :, 4:].mean((1, 2))).long(), num_classes=2)


def model(**options) -> InvarianceModel:
    return InvarianceModel(net(), ["rotation", "translate_x"], num_orbit_samples=4, **options)


def by_hand(**extents) -> InvarianceModel:
    return model(priors={"rotation": 0.3, "translate_x": 0.0} | extents)


def fit(data: Data, training: Training = STAGES) -> bayesinv.InvariancePosterior:
    with pytest.warns(bayesinv.errors.NotConvergedWarning):
        return bayesinv.fit(model(), data, seed=3, training=training)


@pytest.fixture(scope="module")
def posterior(data):
    return fit(data)


class Tied(nn.Module):
    """Two layers with one weight, stochastic depth and dropout."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2)
        self.second.weight = self.first.weight
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        if not self.training or torch.rand(()) < 0.5:
            x = x + self.second(self.drop(x)).relu()
        return self.head(x)


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    net = VisionTransformer(8, 4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=2)
    net.conv_proj = nn.Conv2d(1, 8, 4, 4)
    return net


def resnet18() -> nn.Module:
    from torchvision.models import resnet18

    net = resnet18(num_classes=2)
    net.conv1 = nn.Conv2d(1, 64, 3, bias=False)
    return net


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))


@pytest.mark.parametrize("make", [batch_norm, Tied, vit, resnet18])
def test_any_module_is_trained_and_predicts_in_evaluation_mode(make, data, posterior):
    mine = make()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    trained = bayesinv.train(mine, data, posterior, epochs=1, batch_size=20, num_copies=2)
    assert all(torch.equal(before[name], value) for name, value in mine.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in trained.net.state_dict().items())
    assert len(trained.trace) == 3 and trained.seconds > 0 and not trained.net.training
    first, second = (trained.predict(data.x[:5], num_samples=2) for _ in range(2))
    assert torch.equal(first.probs, second.probs)
    assert torch.allclose(first.probs.sum(1), torch.ones(5).double())
    alone = trained.predict(data.x[:1], num_samples=2).probs
    assert torch.allclose(alone, first.probs[:1], atol=1e-5)


def test_training_learns_and_the_seed_decides(data):
    options = {"epochs": 30, "batch_size": 20, "num_copies": 4}
    trained, again = (bayesinv.train(batch_norm_seeded(), data, by_hand(), seed=1, **options) for _ in range(2))
    other = bayesinv.train(batch_norm_seeded(), data, by_hand(), seed=2, **options)
    assert trained.trace == again.trace != other.trace
    assert sum(trained.trace[-10:]) / 10 > sum(trained.trace[:10]) / 10 + 0.1
    assert torch.equal(trained.predict(data.x).probs, again.predict(data.x).probs)


def batch_norm_seeded() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return batch_norm()


def test_extents_of_every_batch_are_drawn_from_the_posterior(data):
    plain, turned = by_hand(rotation=0.0).plug_in(), by_hand().plug_in()
    for seen in (plain, turned):
        seen.initialise(data)
    draws = torch.tensor([[0.0, 0.0], [math.pi, 0.0]], dtype=torch.float64)
    objective = PredictiveObjective(turned, draws, SecondStage())
    losses = set()
    for seed in range(20):
        torch.manual_seed(seed)
        losses.add(round(float(objective.loss(data, 60).detach()), 4))
    still = -float(plain.evidence.mean_log_likelihood(plain.at(torch.zeros(2).double()), data).detach())
    assert round(still, 4) in losses  # an extent of zero leaves the batch as it is, whatever its copies
    assert len(losses) > 5  # and the others are new at every step


def test_the_users_optimiser_and_schedule_are_those_that_train(data):
    made = []

    def sgd(params):
        made.append(torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.5))
        return made[-1]

    rates = []
    bayesinv.train(
        net(),
        data,
        by_hand(),
        optimiser=sgd,
        schedule=lambda optimiser, num_steps: LambdaLR(optimiser, lambda step: 1.0 - step / num_steps),
        callbacks=[lambda step: rates.append(made[0].param_groups[0]["lr"])],
        **QUICK,
    )
    assert rates == pytest.approx([0.1 * (1 - k / 12) for k in range(12)])
    frozen = bayesinv.train(net(), data, by_hand(), optimiser=lambda p: torch.optim.SGD(p, lr=0.0), **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(frozen.net.parameters(), net().parameters(), strict=True))


def test_a_plan_holds_what_the_scheduler_would_have_set():
    weight = nn.Parameter(torch.zeros(2))
    make = lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9)  # noqa: E731
    schedule = lambda optimiser, num_steps: OneCycleLR(optimiser, 0.5, total_steps=num_steps)  # noqa: E731
    groups = [{"params": [weight], "lr": 1.0}]
    phase = Phase("w", groups, lambda *_: weight.sum(), 2, optimiser=make, schedule=schedule)
    plan = planned(phase, 7)
    optimiser = make([weight])
    scheduler = schedule(optimiser, 7)
    for step in range(7):
        assert plan[step][0] == {key: optimiser.param_groups[0][key] for key in ("lr", "momentum")}
        optimiser.step()
        if step < 6:
            scheduler.step()
    assert planned(dataclasses.replace(phase, schedule="cosine"), 7) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimiser": lambda params: "adam"}, "optimiser: expected a function"),
        ({"optimiser": lambda params: torch.optim.LBFGS(params)}, "needs no closure"),
        ({"optimiser": lambda params: torch.optim.SGD([torch.zeros(1)], lr=1.0)}, "holds 1, 1 of them others"),
        ({"schedule": lambda optimiser, n: ReduceLROnPlateau(optimiser)}, "needs no score"),
        ({"num_copies": 0}, "num_copies: expected a positive integer"),
        ({"epochs": -1}, "epochs: expected a positive number"),
        ({"net": model()}, "net: expected a torch.nn.Module"),
        ({"augmentation": model()}, "latent; fit it first"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_to_do(options, message, data):
    arguments = {"net": net(), "data": data, "augmentation": by_hand()} | options
    with pytest.raises((TypeError, ValueError), match=message):
        bayesinv.train(**arguments)


def test_new_weights_are_drawn_where_every_layer_can(data):
    first = bayesinv.train(
        net(), data, by_hand(), reset=True, seed=1, optimiser=lambda p: torch.optim.SGD(p, lr=0.0), **QUICK
    )
    assert not torch.equal(first.net[0].weight, net()[0].weight)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match=r"the layer '1' \(Scaled\) has weights and no reset_parameters"):
        reset_weights(nn.Sequential(nn.Linear(2, 2), Scaled()))


def test_a_network_in_evaluation_mode_is_warned_of_and_stays_as_it_is(data):
    held = batch_norm().eval()
    with pytest.warns(UserWarning, match=r"call net.train\(\) first"):
        trained = bayesinv.train(held, data, by_hand(), **QUICK)
    assert torch.equal(trained.net[1].running_mean, held[1].running_mean)


def test_regression_learns_its_noise_and_takes_an_optimiser_for_the_weights(data):
    y = data.x.mean((1, 2, 3))
    hand = InvarianceModel(net(1), "rotation", "gaussian", priors={"rotation": 0.3})
    for optimiser in (None, lambda params: torch.optim.SGD(params, lr=0.01)):
        trained = bayesinv.train(net(1), (data.x, y), hand, optimiser=optimiser, **QUICK)
        prediction = trained.predict(data.x[:4])
        noise = float(trained.posterior.model.evidence.noise.detach())
        assert prediction.mean.shape == (4,) and noise != pytest.approx(0.1 * float(y.var(correction=0)), rel=1e-3)
        assert float(prediction.variance.min()) >= 0.99 * noise
    with pytest.raises(ValueError, match="this is a regression"):
        trained.calibrated((data.x, y))


def test_a_killed_training_goes_on_to_the_bit(data, tmp_path):
    options = {**QUICK, "schedule": lambda o, n: OneCycleLR(o, 0.01, total_steps=n), "seed": 5}
    whole = bayesinv.train(net(), data, by_hand(), **options)

    class Killed(Exception):
        pass

    def kill(step):
        if step.step == 7:
            raise Killed

    halves = {"checkpoint": tmp_path / "run"}
    import bayesinv.inference.predictive as module

    make = module.Training
    try:
        module.Training = lambda **given: make(**given, checkpoint_every=1)
        with pytest.raises(Killed):
            bayesinv.train(net(), data, by_hand(), callbacks=[kill], **options, **halves)
        resumed = bayesinv.train(net(), data, by_hand(), **options, **halves)
    finally:
        module.Training = make
    assert torch.equal(whole.predict(data.x).probs, resumed.predict(data.x).probs)


def test_a_temperature_lowers_the_log_loss_of_what_it_was_fitted_to(data):
    trained = bayesinv.train(net(), data, by_hand(), **QUICK)
    fitted = trained.calibrated((data.x, data.y))
    losses = [
        float(bayesinv.metrics.log_loss(which.predict(data.x).probs, data.y).mean()) for which in (trained, fitted)
    ]
    assert losses[1] < losses[0] and fitted.temperature != 1.0
    assert torch.equal(trained.predict(data.x).labels, fitted.predict(data.x).labels)


def test_both_stages_together_take_the_passes_of_one(posterior, data):
    stage = posterior.result.settings["second_stage"]
    assert posterior.result.num_steps == 18 and stage["num_steps"] == 9
    # Of the first 9 steps: 3 of burn-in and 2 in which the scales settle, as of 18, and no finish.
    assert len(posterior.trace) == 2
    alone = fit(data, dataclasses.replace(STAGES, epochs=3, burn_in=0.3, settle=0.2, finish=0.0, second_stage=None))
    assert torch.equal(alone.result.extents, posterior.result.extents)
    assert alone.log_evidence == posterior.log_evidence
    assert not torch.equal(alone.predict(data.x).probs, posterior.predict(data.x).probs)


def test_predictions_are_those_of_the_second_network_and_the_evidence_of_the_first(posterior, data):
    first, second = posterior.model.network.net, posterior.model.predictive.network.net
    assert not torch.equal(first[0].weight, second[0].weight)
    seen = posterior.model.predictive
    expected = seen.predict(data.x, data, posterior.result.draws[posterior.distinct_draws(3)[0]])
    assert torch.allclose(posterior.predict(data.x, num_samples=3).probs, expected.probs)
    profile = posterior.evidence_profile("rotation", num_points=4)["log_evidence"]
    posterior.model.predictive = None
    try:
        assert torch.equal(
            torch.tensor(profile.to_numpy()),
            torch.tensor(posterior.evidence_profile("rotation", num_points=4)["log_evidence"].to_numpy()),
        )
    finally:
        posterior.model.predictive = seen


def test_the_second_stage_starts_at_the_weights_that_came_or_at_those_of_the_first(data):
    still = lambda params: torch.optim.SGD(params, lr=0.0)  # noqa: E731
    for start in ("given", "continued"):
        stages = dataclasses.replace(STAGES, second_stage=SecondStage(0.5, start, still))
        fitted = fit(data, stages)
        source = net() if start == "given" else fitted.model.network.net
        weights = zip(fitted.model.predictive.network.net.parameters(), source.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)


def test_a_fit_of_two_stages_is_saved_with_both_networks(posterior, data, tmp_path):
    loaded = bayesinv.load(posterior.save(tmp_path / "two"), model=model())
    assert torch.equal(loaded.predict(data.x).probs, posterior.predict(data.x).probs)
    assert "second_stage=bayesinv.SecondStage(share=0.5" in fit_call(posterior)


def test_two_stages_are_resumed_to_the_bit_from_either(posterior, data, tmp_path):
    class Killed(Exception):
        pass

    for name, stop in (("first", 6), ("second", 9 + 5)):
        seen = []

        def kill(step, seen=seen, stop=stop):
            seen.append(step.step)
            if len(seen) == stop:
                raise Killed

        training = dataclasses.replace(STAGES, checkpoint=tmp_path / name, checkpoint_every=1)
        with pytest.raises(Killed):
            bayesinv.fit(model(), data, seed=3, training=training, callbacks=[kill])
        resumed = fit(data, training)
        assert torch.equal(resumed.result.extents, posterior.result.extents)
        assert torch.equal(resumed.predict(data.x).probs, posterior.predict(data.x).probs)


def test_second_stages_that_mean_nothing_are_refused(data):
    with pytest.raises(ValueError, match="has no posterior of extents with a network"):
        bayesinv.fit(model(), data, "none", training=STAGES)
    with pytest.raises(ValueError, match="a step or more for each stage, got 0 of 18"):
        bayesinv.fit(model(), data, training=dataclasses.replace(STAGES, second_stage=SecondStage(0.01)))
    with pytest.raises(ValueError, match="burn_in \\+ settle \\+ share less than 1"):
        Training(second_stage=SecondStage(0.8))
    with pytest.raises(ValueError, match="between 0 and 1"):
        SecondStage(1.0)
    phase = made_optimiser(Phase("w", [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0}], lambda *_: 0, 2))
    assert type(phase) is torch.optim.Adam
