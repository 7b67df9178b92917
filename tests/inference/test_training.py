"""The loop on a regression with a closed form: two phases, whose every step can be repeated by hand."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from bayesinv.data.streams.sources import stream_of
from bayesinv.errors import DataError, NonFiniteError, NumericalError
from bayesinv.inference import training as loop
from bayesinv.inference.training import Objective, Phase, Training, train

N = 60


def make_stream(n=N, seed=0):
    """y = 2 x_0 - x_1 + 0.5 + noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    return stream_of((x, 2 * x[:, 0] - x[:, 1] + 0.5 + noise), "gaussian")


class Regression(Objective):
    """Weights by one phase, on inputs jittered at random, and the logarithm of the noise by another."""

    def __init__(self, every=4, start=0, stop=None, break_at=None, how=math.nan):
        self.linear = nn.Linear(2, 1).double()
        with torch.no_grad():
            self.linear.weight.fill_(0.1)
            self.linear.bias.fill_(0.0)
        self.noise = nn.ParameterDict({"log_scale": nn.Parameter(torch.zeros((), dtype=torch.float64))})
        self.modules = [self.linear, self.noise]
        self.every, self.start, self.stop = every, start, stop
        self.break_at, self.how = break_at, how
        self.calls: list[tuple[str, Tensor]] = []
        self.extent_calls = 0
        self.started: list[int] = []
        self.clip = False

    def phases(self, training, num_steps):
        weights = [{"params": list(self.linear.parameters()), "lr": training.weight_rate}]
        noise = [{"params": list(self.noise.parameters()), "lr": training.extent_rate}]
        return [
            Phase(
                "weights", weights, self.weight_loss, training.batch_size, schedule=training.schedule, clip=self.clip
            ),
            Phase(
                "extents",
                noise,
                self.noise_loss,
                training.extent_batch_size,
                every=self.every,
                start=self.start,
                stop=self.stop,
                schedule="cooldown",
                traced=True,
                on_start=lambda: self.started.append(len(self.calls)),
            ),
        ]

    def weight_loss(self, data, num_total):
        assert num_total == N
        self.calls.append(("weights", data.x.clone()))
        broken = sum(name == "weights" for name, _ in self.calls) - 1 == self.break_at
        if broken and isinstance(self.how, Exception):
            raise self.how
        jittered = data.x + 0.05 * torch.randn_like(data.x)
        # The noise is in the loss, and still no business of this phase.
        loss = self.nll(self.linear(jittered), data.y)
        return loss * self.how if broken else loss

    def noise_loss(self, data, num_total):
        self.calls.append(("extents", data.x.clone()))
        return num_total * self.nll(self.linear(data.x), data.y)

    def nll(self, mean, y):
        log_scale = self.noise["log_scale"]
        return (0.5 * ((y - mean) / log_scale.exp()).square() + log_scale).mean()

    def current_extents(self):
        self.extent_calls += 1
        return {"rotation": float(self.noise["log_scale"].detach().exp())}

    def state(self):
        return torch.cat([p.detach().flatten() for m in self.modules for p in m.parameters()])


def run(objective=None, num_steps=50, seed=0, training=None, **arguments):
    objective = Regression() if objective is None else objective
    training = Training(batch_size=8, extent_batch_size=12) if training is None else training
    trace = train(objective, make_stream(), training, num_steps, seed, {}, **arguments)
    return objective, trace


def test_it_finds_the_regression():
    settings = Training(batch_size=16, extent_batch_size=60, weight_rate=0.05, extent_rate=0.05)
    objective, trace = run(num_steps=600, training=settings)
    x, y = make_stream().data.x, make_stream().data.y[:, 0]
    design = torch.cat([x, torch.ones(N, 1, dtype=torch.float64)], 1)
    exact = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    # Jitter of 0.05 shrinks the weights by 0.05² ≈ 0.25 %, and the noise around a step's mean is 0.1 / √16.
    assert torch.allclose(objective.state()[:3], exact, atol=0.03)
    residual = (y - design @ exact).square().mean().sqrt()
    assert objective.current_extents()["rotation"] == pytest.approx(float(residual), rel=0.15)
    assert trace.objective[-1] > trace.objective[0] + 20
    assert len(trace.objective) == 150


def test_the_same_seed_gives_the_same_bits_and_leaves_global_state():
    objectives = [Regression(), Regression()]  # whose layers draw from the global generator
    states = []
    for i, objective in enumerate(objectives):
        torch.manual_seed(99 + i)
        before = torch.random.get_rng_state()
        states.append(run(objective))
        assert torch.equal(torch.random.get_rng_state(), before)
    (one, first), (other, second) = states
    assert torch.equal(one.state(), other.state())
    assert first == second
    third, trace = run(seed=1)
    assert not torch.equal(one.state(), third.state())
    assert trace != first


def test_seeding_leaves_nothing_behind(monkeypatch):
    """torch.manual_seed keeps a stack trace for each accelerator that is not in use, once a call."""
    calls = []
    monkeypatch.setattr(torch, "manual_seed", lambda seed, real=torch.manual_seed: calls.append(seed) or real(seed))
    run(num_steps=3)
    few = len(calls)
    run(num_steps=30)
    assert len(calls) == 2 * few > 0


def test_watching_changes_nothing():
    seen = []

    def draw(step):
        torch.rand(3)
        seen.append(step)

    plain, trace = run()
    watched, also = run(callbacks=[draw], progress=True)
    assert torch.equal(plain.state(), watched.state())
    assert trace == also
    assert [step.step for step in seen] == list(range(1, 51))
    assert {step.max_steps for step in seen} == {50}
    assert seen[3].objective == seen[0].objective == trace.objective[0]  # of the last step of the extents
    assert seen[4].objective == trace.objective[1]
    assert seen[-1].extents == watched.current_extents()
    assert 0 < seen[0].seconds <= seen[-1].seconds


def test_a_step_by_hand():
    """Adam's first step is lr · sign(gradient) for each phase, with the gradient of its own loss alone."""
    settings = Training(batch_size=8, extent_batch_size=N, weight_rate=0.01, extent_rate=0.02)
    objective, trace = run(num_steps=1, training=settings)
    data, batch = make_stream().data, make_stream().batch(0, "weights", 0, 8)
    start = torch.tensor([0.1, 0.1, 0.0], dtype=torch.float64)
    design = torch.cat([batch.x, torch.ones(8, 1, dtype=torch.float64)], 1)
    gradient = -design.T @ (batch.y[:, 0] - design @ start) / 8
    assert float(gradient.abs().min()) > 0.2  # more than the jitter changes it by
    assert torch.allclose(objective.state()[:3], start - 0.01 * gradient.sign(), rtol=1e-6)
    # The extents came second and saw the new weights; the noise starts too small.
    mean = data.x @ objective.state()[:2] + objective.state()[2]
    nll = 0.5 * (data.y[:, 0] - mean).square().mean()
    assert trace.objective[0] == pytest.approx(-N * float(nll), rel=1e-12)
    # A run of one step is all cooldown: 5 % of the rate.
    assert float(objective.noise["log_scale"].detach()) == pytest.approx(0.05 * 0.02, rel=1e-4)


def test_other_phases_leave_no_gradient_behind():
    objective, _ = run(num_steps=3)  # ends on a step of the weights, whose loss has the noise in it
    assert objective.noise["log_scale"].grad is None
    assert objective.linear.weight.grad is not None


def test_phases_run_when_they_are_due():
    objective = Regression(every=3, start=2, stop=9)
    _, trace = run(objective, num_steps=12)
    order = [name for name, _ in objective.calls]
    per_step = ["we" if t in (2, 5, 8) else "w" for t in range(12)]
    assert "".join(name[0] for name in order) == "".join(per_step)
    assert len(trace.objective) == 3
    assert objective.started == [3]  # once, before its first loss


def test_batches_of_a_phase_follow_its_own_steps():
    objective = Regression(every=4)
    run(objective, num_steps=40)
    stream = make_stream()
    for name, size in (("weights", 8), ("extents", 12)):
        batches = [x for called, x in objective.calls if called == name]
        for t, x in enumerate(batches):
            assert torch.equal(x, stream.batch(0, name, t, size).x)
        epoch = torch.cat(batches[: -(-N // size)])
        assert len(torch.unique(epoch, dim=0)) == N


@pytest.mark.parametrize(
    ("schedule", "start", "stop", "expected"),
    [
        ("constant", 0, None, {0: 1.0, 99: 1.0}),
        ("cosine", 0, None, {0: 1.0, 25: 0.5 + 0.5 * math.sqrt(0.5), 50: 0.5, 75: 0.5 - 0.5 * math.sqrt(0.5)}),
        ("cosine", 40, 80, {40: 1.0, 60: 0.5, 70: 0.5 - 0.5 * math.sqrt(0.5)}),
        ("cooldown", 0, None, {0: 1.0, 69: 1.0, 84: 0.525, 99: 0.05}),
        ("cooldown", 50, None, {50: 1.0, 84: 1.0, 99: 0.05}),
    ],
)
def test_schedules(schedule, start, stop, expected):
    phase = Phase("any", [], lambda data, n: data.x.sum(), 8, start=start, stop=stop, schedule=schedule)
    for step, rate in expected.items():
        assert phase.rate(step, 100) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("limit", [None, 0.5])
def test_the_gradient_of_a_phase_is_clipped_where_it_asks_for_it(limit, monkeypatch):
    norms = []

    def record(self, closure=None):
        params = [p for group in self.param_groups for p in group["params"]]
        norms.append((len(params), float(torch.stack([p.grad.norm() for p in params]).norm())))

    monkeypatch.setattr(torch.optim.Adam, "step", record)
    objective = Regression(every=1)
    objective.clip = True
    run(objective, num_steps=1, training=Training(batch_size=8, clip_norm=limit))
    (two, weights), (one, noise) = norms
    assert (two, one) == (2, 1)
    assert (weights == pytest.approx(0.5, rel=1e-4)) if limit else (weights > 1)
    assert noise > 10  # the other phase did not ask


def test_weights_that_decay_do_so_apart_from_the_gradient():
    class Decaying(Regression):
        def phases(self, training, num_steps):
            phases = super().phases(training, num_steps)
            phases[0].groups[0]["weight_decay"] = 0.5
            return phases

    settings = Training(batch_size=8, weight_rate=0.01)
    plain, _ = run(num_steps=1, training=settings)
    decayed, _ = run(Decaying(), num_steps=1, training=settings)
    # The first step of Adam, less rate · decay · weight.
    assert torch.allclose(plain.state()[:2] - decayed.state()[:2], torch.tensor(0.01 * 0.5 * 0.1).double(), rtol=1e-6)


def test_a_callback_ends_the_run():
    objective, trace = run(callbacks=[lambda step: step.step == 9])
    assert len(trace.objective) == 3
    assert sum(name == "weights" for name, _ in objective.calls) == 9
    short, _ = run(num_steps=50, callbacks=[lambda step: step.objective])  # a number is not True
    assert sum(name == "weights" for name, _ in short.calls) == 50


def state_after(num_steps):
    """Parameters after some steps of a run of 100."""
    objective, _ = run(num_steps=100, callbacks=[lambda step: step.step == num_steps])
    return objective.state()


@pytest.mark.parametrize("how", [math.nan, math.inf, NumericalError("no factor"), ValueError("loc is nan")])
@pytest.mark.parametrize("callbacks", [[], [lambda step: None]], ids=["unwatched", "watched"])
@pytest.mark.parametrize(("break_at", "kept"), [(20, 0), (25, 20), (39, 20), (61, 60)])
def test_the_last_good_state_is_kept(how, callbacks, break_at, kept):
    objective = Regression(break_at=break_at, how=how)
    with pytest.raises(NonFiniteError, match=rf"step {break_at + 1}: .*an earlier state is kept") as caught:
        run(objective, num_steps=100, callbacks=callbacks)
    assert caught.value.step == break_at + 1
    assert torch.equal(objective.state(), state_after(kept) if kept else Regression().state())


def test_a_failure_at_once():
    with pytest.raises(NonFiniteError, match=r"step 1: .*there is no earlier state") as caught:
        run(Regression(break_at=0))
    assert caught.value.step == 1


def test_a_gradient_that_is_not_finite():
    class Root(Regression):
        def weight_loss(self, data, num_total):
            loss = super().weight_loss(data, num_total)
            # Finite, with an infinite slope times zero.
            return loss + (0 * self.linear.bias.sum()).abs().sqrt() if len(self.calls) > 30 else loss

    objective = Root(every=1000)
    with pytest.raises(NonFiniteError):
        run(objective, num_steps=100)
    assert torch.isfinite(objective.state()).all()
    assert torch.equal(objective.state(), state_of_run_without_extents(20))


def state_of_run_without_extents(num_steps):
    objective, _ = run(Regression(every=1000), num_steps=100, callbacks=[lambda step: step.step == num_steps])
    return objective.state()


@pytest.mark.parametrize("error", [ValueError("a wrong option"), DataError("nan in x"), KeyError("nan")])
def test_other_errors_are_passed_on(error):
    with pytest.raises(type(error)) as caught:
        run(Regression(break_at=5, how=error))
    assert caught.value is error


def test_the_objective_is_read_now_and_then(monkeypatch):
    reads = []
    monkeypatch.setattr(loop, "_read", lambda values, read=loop._read: reads.append(len(values)) or read(values))
    objective, _ = run(num_steps=50)
    # Losses of 20, 20 and 10 steps, a quarter more for the extents, and whether each of three parameters is finite: one
    # wait for the device.
    assert reads == [25 + 3, 25 + 3, 13 + 3]
    assert objective.extent_calls == 0


def test_the_bar_is_drawn_a_few_times_a_second(capsys):
    objective, _ = run(num_steps=50, progress=True)
    assert "rotation" in capsys.readouterr().err
    assert 1 <= objective.extent_calls < 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "weights"}, "a name for each"),
        ({"traced": False}, "exactly one that is traced"),
        ({"schedule": "linear"}, "expected one of"),
        ({"every": 0}, "every and batch_size"),
        ({"start": -1}, "start from 0"),
        ({"groups": []}, "parameters that require a gradient"),
        ({"groups": [{"params": [torch.zeros(2)], "lr": 0.1}]}, "parameters that require a gradient"),
    ],
)
def test_phases_are_checked(changes, message):
    class Wrong(Regression):
        def phases(self, training, num_steps):
            phases = super().phases(training, num_steps)
            for name, value in changes.items():
                setattr(phases[1], name, value)
            return phases

    with pytest.raises(ValueError, match=message):
        run(Wrong())
    with pytest.raises(ValueError, match="num_steps"):
        run(num_steps=0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected a positive number, got 0"),
        ({"epochs": math.inf}, ValueError, "epochs"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1"),
        ({"batch_size": True}, ValueError, "batch_size"),
        ({"num_workers": -1}, ValueError, "num_workers: expected an integer of at least 0"),
        ({"weight_rate": -1e-3}, ValueError, "weight_rate"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm: expected a positive number or None"),
        ({"extent_start": 1.0}, ValueError, "extent_start"),
        ({"burn_in": 0.5, "finish": 0.5}, ValueError, "leaves steps for the extents"),
        ({"schedule": "cooldown"}, ValueError, "'cosine' or 'constant'"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every"),
    ],
)
def test_settings_are_checked(settings, error, message):
    with pytest.raises(error, match=message):
        Training(**settings)


@pytest.mark.cuda
def test_a_gpu_gives_the_same_fit():
    objective = Regression()
    for module in objective.modules:
        module.cuda()
    _, trace = run(objective)
    expected, also = run()
    # Other random numbers jitter the inputs: close, not equal.
    assert torch.allclose(objective.state().cpu(), expected.state(), atol=0.02)
    assert len(trace.objective) == len(also.objective)


def test_a_batch_keeps_its_groups_on_the_way_to_a_device():
    stream = make_stream()
    stream.data = dataclasses.replace(stream.data, groups=torch.arange(N) % 3)
    objective = Regression()
    objective.linear.to("meta")
    seen = []

    def weight_loss(data, num_total):
        seen.append(data)
        raise DataError("seen enough")

    objective.weight_loss = weight_loss
    with pytest.raises(DataError, match="enough"):
        train(objective, stream, Training(batch_size=8), 1, 0, {})
    batch = seen[0]
    assert batch.x.device.type == batch.y.device.type == "meta"
    assert batch.groups is not None and len(batch.groups) == 8
