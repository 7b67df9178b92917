"""The loop's schedule and end, importance weights against known answers, guides' gradients, NUTS against VI."""

import math

import numpy as np
import pyro
import pytest
import torch
from scipy import stats

import bayesinv
from bayesinv.errors import NonFiniteError
from bayesinv.extents.unconstrained import ExtentGuide, Unconstrained
from bayesinv.inference.guides import FullRankNormal, make_guide, normal_of
from bayesinv.inference.importance import extents_of_trace, pareto_smooth, weigh
from bayesinv.inference.loop import COOLDOWN_SHARE, FINAL_RATE, WINDOW, _rate, maximise, still_rising
from bayesinv.inference.vi import local_parameters
from bayesinv.model.exact_evidence import weighing_model


def run(objective, parameter, max_steps=400, callbacks=()):
    return maximise(
        objective,
        [{"params": [parameter], "lr": 0.1}],
        [Holder(parameter)],
        max_steps,
        current_extents=dict,
        describe=str,
        callbacks=callbacks,
    )


class Holder(torch.nn.Module):
    def __init__(self, parameter):
        super().__init__()
        self.parameter = parameter


def test_a_run_takes_every_step_and_settles_in_the_cooldown():
    generator = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.tensor(3.0))
    # The gradient is noisy, so that only a falling rate brings the parameter to rest.
    trace = run(lambda: -((p - torch.randn((), generator=generator)) ** 2), p, max_steps=400)
    assert trace.converged
    assert len(trace.objective) == 400
    assert abs(float(p.detach())) < 0.15


def test_a_callback_ends_the_run_which_then_has_not_converged():
    p = torch.nn.Parameter(torch.tensor(0.0))
    seen = []

    def stop(step):
        seen.append((step.step, step.max_steps))
        return step.step == 7

    trace = run(lambda: p, p, max_steps=50, callbacks=[stop])
    assert not trace.converged
    assert len(trace.objective) == 7
    assert seen == [(i, 50) for i in range(1, 8)]


def test_still_rising_takes_a_rise_that_is_more_than_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 2 * WINDOW))
    steps = np.arange(2 * WINDOW)
    error = math.sqrt(2.0 / WINDOW)  # of the difference of two means of the window, in standard deviations
    # A flat objective is called rising about one time in 44, a rise of five errors nearly always, a fall never.
    flat, steep, falling = (
        np.mean([still_rising((row + slope * error * (steps - WINDOW) / WINDOW).tolist()) for row in noise])
        for slope in (0.0, 5.0, -5.0)
    )
    assert flat < 0.07
    assert steep > 0.95
    assert falling == 0.0
    assert still_rising(steps[:-1].astype(float).tolist()) is None
    flat = noise[0].tolist()
    assert still_rising([-100.0, -50.0, *flat]) is still_rising(flat) is False  # what was long ago does not count


def test_rate_is_constant_then_falls_to_its_end():
    cooldown = round(COOLDOWN_SHARE * 100)
    rates = [_rate(step, 100, cooldown) for step in range(100)]
    assert rates[: 100 - cooldown - 1] == [1.0] * (100 - cooldown - 1)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(FINAL_RATE)


def test_the_last_good_state_is_restored():
    p = torch.nn.Parameter(torch.tensor(1.0))
    seen = []

    def objective():
        seen.append(float(p.detach()))
        return p * (float("inf") if len(seen) == 4 else 1.0)

    with pytest.raises(NonFiniteError, match="step 4: the objective is inf") as caught:
        run(objective, p)
    assert caught.value.step == 4
    assert float(p.detach()) == pytest.approx(seen[2])


def test_equal_weights_have_a_known_evidence():
    log_weights = torch.full((100,), -3.0, dtype=torch.float64)
    log_weights += 1e-3 * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = weigh(torch.zeros(100, 1, dtype=torch.float64), log_weights)
    assert drawn.log_evidence == pytest.approx(-3.0, abs=1e-3)
    assert drawn.log_evidence_se < 1e-3
    assert float(drawn.log_weights.logsumexp(0)) == pytest.approx(0.0, abs=1e-9)


def test_evidence_and_its_error_for_normal_proposals():
    """Target N(0, 1), proposal N(0, s²), s > 1: the weights have mean one and a variance in closed form."""
    s, J = 1.5, 20000
    x = s * torch.randn(J, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_weights = torch.distributions.Normal(0.0, 1.0).log_prob(x) - torch.distributions.Normal(0.0, s).log_prob(x)
    drawn = weigh(x[:, None], log_weights)
    variance = s**2 / math.sqrt(2 * s**2 - 1) - 1
    assert drawn.log_evidence_se == pytest.approx(math.sqrt(variance / J), rel=0.05)
    assert abs(drawn.log_evidence) < 4 * drawn.log_evidence_se
    assert drawn.pareto_k < 0.5


def test_k_hat_exposes_a_proposal_that_is_too_narrow():
    x = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_weights = torch.distributions.Normal(0.0, 1.0).log_prob(x) - torch.distributions.Normal(0.0, 0.1).log_prob(x)
    assert pareto_smooth(log_weights)[1] > 0.7


def test_k_hat_of_nearly_equal_weights_is_no_alarm():
    """Weights that lie within 6 % of each other: ArviZ's fit alone gives 2.1 on this ripple."""
    ripple = torch.cat(
        [torch.full((338,), -0.06), torch.linspace(-0.0556, -0.0549, 30), torch.linspace(-0.05, 0.0, 32)]
    )
    smoothed, k = pareto_smooth(ripple.double())
    assert k <= 0.0
    assert float(smoothed.logsumexp(0)) == pytest.approx(0.0, abs=1e-9)


def normal_model():
    """log p(z) of a correlated normal in the unconstrained space of two extents."""
    loc = torch.tensor([-0.5, 0.4], dtype=torch.float64)
    covariance = torch.tensor([[0.3, 0.15], [0.15, 0.2]], dtype=torch.float64)
    target = pyro.distributions.MultivariateNormal(loc, covariance)

    def model():
        values = []
        for name in ("a", "b"):
            values.append(pyro.sample(name, bayesinv.UniformExtent(0.0, 1.0)))
        z = torch.special.ndtri(torch.stack(values))
        prior = pyro.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0).log_prob(z).sum()
        pyro.factor("likelihood", target.log_prob(z) - prior)

    return model, loc, covariance


def test_full_rank_guide_recovers_a_normal_posterior():
    model, loc, covariance = normal_model()
    torch.manual_seed(0)
    with local_parameters():
        start = {"a": torch.tensor(0.1, dtype=torch.float64), "b": torch.tensor(0.1, dtype=torch.float64)}
        guide, _ = make_guide("full_rank", model, start)
        elbo = pyro.infer.Trace_ELBO()(model, guide)
        guide()
        optimiser = torch.optim.Adam(guide.parameters(), lr=0.03)
        for step in range(600):
            if step == 400:
                optimiser.param_groups[0]["lr"] = 0.005
            optimiser.zero_grad()
            elbo().backward()
            optimiser.step()
        fitted = guide.get_posterior()
    torch.testing.assert_close(fitted.loc.detach(), loc, atol=0.02, rtol=0.0)
    torch.testing.assert_close(fitted.covariance_matrix.detach(), covariance, atol=0.02, rtol=0.0)


def test_pathwise_gradient_vanishes_at_the_posterior():
    """The reason for the guide: at the optimum its gradient is zero draw by draw, not only on average."""
    model, loc, covariance = normal_model()
    with local_parameters():
        guide = FullRankNormal(model, init_scale=0.1)
        guide()
        L = torch.linalg.cholesky(covariance)
        guide.loc.data.copy_(loc)
        guide.scale = L.diagonal()
        guide.scale_tril = L / L.diagonal()[:, None]
        elbo = pyro.infer.Trace_ELBO()(model, guide)
        for _ in range(3):
            guide.zero_grad()
            elbo().backward()
            assert float(guide.loc.grad.abs().max()) < 1e-8


@pytest.mark.parametrize("kind", ["full_rank", "mean_field"])
@pytest.mark.parametrize("groups", [None, ("a", "b", "c")])
def test_q_of_a_built_in_guide_is_the_density_that_pyro_draws_from(kind, groups):
    """Also where one site holds the extents of all groups, whose columns lie apart."""
    data = bayesinv.datasets.digits(size=8, num_train=9, seed=0).train
    data = bayesinv.Data(data.x, data.y, 10, groups=None if groups is None else torch.arange(9) % 3)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    model = bayesinv.InvarianceModel(
        net, ["rotation", "shear", "scale_x"], priors={"scale_x": 0.1}, groups=groups, num_orbit_samples=2
    )
    model.initialise(data)
    with local_parameters():
        eta = model.extents.prior_quantile(0.3)
        guide, _ = make_guide(kind, model, {site: eta[where] for site, where in model.extents.sites.items()})
        guide(data, 9)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in guide.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        q = ExtentGuide(Unconstrained(model.extents), normal_of(guide, model.extents))
        for _ in range(3):
            trace = pyro.poutine.trace(guide).get_trace(data, 9)
            trace.compute_log_prob()
            # Pyro's auxiliary site has the density in z, its deltas the Jacobians.
            log_q = sum(site["log_prob"].sum() for site in trace.nodes.values() if site["type"] == "sample")
            drawn = extents_of_trace(model, trace).detach()
            assert float(q.log_prob(drawn)) == pytest.approx(float(log_q.detach()), abs=1e-5)
    assert normal_of(pyro.infer.autoguide.AutoDiagonalNormal(model), model.extents) is None


@pytest.mark.slow
def test_nuts_agrees_with_vi_on_the_same_evidence(monkeypatch):
    monkeypatch.setattr("bayesinv.model.exact_evidence.LARGEST_WEIGHED", 0)  # NUTS takes that of the random features
    train = bayesinv.datasets.digits(math.radians(45), size=8, num_train=80, seed=0).train
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=64),
        ["rotation", "translate_x"],
        evidence="dirichlet",
        priors={"translate_x": 0.05},
        num_orbit_samples=8,
    )
    vi = bayesinv.fit(model, train, seed=0, num_draws=400)
    nuts = bayesinv.fit(model, train, seed=0, inference="nuts", num_draws=300, num_warmup=100)
    assert nuts.result.extents.shape == (2, 300, 2)
    assert nuts.result.rhat[0] < 1.05 and math.isnan(nuts.result.rhat[1])
    a, b = vi["rotation"].numpy(), nuts["rotation"].numpy()
    spread = np.quantile(b, 0.95) - np.quantile(b, 0.05)
    assert abs(np.median(a) - np.median(b)) < 0.25 * spread
    assert 1 / 1.7 < (np.quantile(a, 0.95) - np.quantile(a, 0.05)) / spread < 1.7
    assert vi.log_evidence == pytest.approx(
        nuts.log_evidence, abs=4 * (vi.log_evidence_se + nuts.log_evidence_se) + 0.05
    )


@pytest.mark.slow
def test_posterior_on_a_grid_is_what_vi_and_its_weights_report():
    """One latent symmetry: the posterior by quadrature on the same evidence."""
    train = bayesinv.datasets.digits(math.radians(45), size=8, num_train=80, seed=1).train
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=64), "rotation", num_orbit_samples=8, precision="double"
    )
    posterior = bayesinv.fit(model, train, seed=0, num_draws=400, hyperparameters="optimised")
    grid = torch.linspace(1e-3, math.pi - 1e-3, 400, dtype=torch.float64)
    with torch.no_grad():
        model = weighing_model(posterior.model, posterior.data, posterior.result.settings)
        assert model.backbone.space == "exact"
        log_p = torch.stack([model.log_evidence(r[None], posterior.data) for r in grid])
    log_evidence = float(log_p.logsumexp(0)) + math.log(float(grid[1] - grid[0])) - math.log(math.pi)
    cdf = torch.cumsum((log_p - log_p.logsumexp(0)).exp(), 0).numpy()
    exact = np.degrees(np.interp([0.05, 0.5, 0.95], cdf, grid.numpy()))
    row = posterior.summary(reweighted=True).loc["rotation"]
    assert abs(row["median"] - exact[1]) < 0.2 * (exact[2] - exact[0])
    assert (row["upper"] - row["lower"]) == pytest.approx(exact[2] - exact[0], rel=0.3)
    assert posterior.log_evidence == pytest.approx(log_evidence, abs=4 * posterior.log_evidence_se + 0.05)


def test_seeded_restores_every_generator():
    from bayesinv.numerics.randomness import seeded

    state = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(3):
        torch.rand(2)
        raise RuntimeError
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="seed"), seeded(-1):
        pass


def test_normal_draws_are_standard_normal():
    from bayesinv.evidence.prediction import standard_normal_draws

    z = standard_normal_draws(64, 50, seed=0)
    assert z.shape == (64, 50)
    assert float(z.mean().abs()) < 1e-12  # antithetic
    assert stats.kstest(z[:32].reshape(-1).numpy(), "norm").pvalue > 0.01
