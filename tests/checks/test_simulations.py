"""Calibration by simulation: right posteriors pass, wrong ones fail, and runs go on where they stopped."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm

import bayesinv
from bayesinv import checks
from bayesinv.errors import NumericalError
from bayesinv.model.invariance_model import Simulation

X = torch.zeros(6, 1, 4, 4)
NOISE = 0.6


class Seen(bayesinv.InvarianceModel):
    """y_i = rotation + N(0, NOISE²): under a flat prior on [0, π] the posterior is a truncated normal."""

    def simulate(self, x, extents=None, num_outputs=None, seed=0):
        eta = self.extents.sample_prior(1, seed)[0]
        noise = torch.randn(len(x), 1, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
        return Simulation(eta, eta[:1].expand(len(x), 1), eta[0] + NOISE * noise)


def make(symmetries="rotation", **options):
    return Seen(bayesinv.GaussianProcess(num_features=64), symmetries, likelihood="gaussian", **options)


def exact(model, data, seed, scale=1.0, shift=0.0):
    """Draws of the truncated normal, its width and its centre falsified on request."""
    sd = NOISE / math.sqrt(len(data))
    centre, sd = float(data.y.mean()) + shift * sd, sd * scale
    low, high = norm.cdf((0 - centre) / sd), norm.cdf((math.pi - centre) / sd)
    u = np.random.default_rng(seed).uniform(low, high, 300)
    return torch.from_numpy(centre + sd * norm.ppf(u)).clamp(0, math.pi)[:, None]


def prior(model, data, seed):
    return model.extents.sample_prior(300, seed)


def narrow(model, data, seed):
    return exact(model, data, seed, scale=0.5)


def wide(model, data, seed):
    return exact(model, data, seed, scale=2.0)


def biased(model, data, seed):
    return exact(model, data, seed, shift=0.7)


def run(fit, num=150, model=None, **options):
    return checks.simulation_based_calibration(model or make(), X, num, fit=fit, **options)


def test_the_right_posterior_passes():
    simulations = run(exact)
    table = checks.uniformity(simulations)
    assert table["inside"].all(), table
    covered = checks.coverage(simulations)
    off = (covered["actual"] - covered.index.get_level_values("level")) / covered["actual_se"]
    assert (off.abs() < 3).all(), covered
    assert (covered["bias"].abs() < 3 * covered["bias_se"]).all()


def test_the_prior_as_posterior_passes():
    model = make(["rotation", "translate_x"], priors={"translate_x": bayesinv.UniformExtent(0.1, 0.4)})
    table = checks.uniformity(run(prior, model=model))
    assert list(table.index.get_level_values("symmetry")) == ["rotation", "translate_x"]
    assert table["inside"].all(), table


@pytest.mark.parametrize(
    ("fit", "sign"), [(narrow, 1), (wide, -1), (biased, 0)], ids=lambda v: getattr(v, "__name__", v)
)
def test_a_wrong_posterior_fails(fit, sign):
    simulations = run(fit, 120)
    row = checks.uniformity(simulations).iloc[0]
    assert not row["inside"] and row["p_value"] < 0.01
    if sign:
        assert np.sign(row["spread"] - 1) == sign
    else:
        assert row["mean_rank"] < 0.4  # the truth lies low among draws that lie too high
    covered = checks.coverage(simulations).loc[("draws", "rotation", 0.9)]
    if sign > 0:
        assert covered["actual"] < 0.9 - 3 * covered["actual_se"]


def test_bands_hold_uniform_ranks_as_often_as_they_say():
    N, L = 80, 19
    ranks = np.random.default_rng(7).integers(0, L + 1, (1500, N))
    z, low, high = checks.simultaneous_band(N, L)
    ecdf = np.stack([(ranks <= r).mean(1) for r in range(L)], 1)
    inside = ((ecdf >= low - 1e-12) & (ecdf <= high + 1e-12)).all(1).mean()
    # the quantile of 4,000 simulated sets, and discrete ranks that cannot meet a level exactly
    assert 0.93 < inside < 0.98
    assert z[0] == pytest.approx(1 / 20)
    with pytest.raises(ValueError, match="level: expected a probability"):
        checks.simultaneous_band(N, L, level=1.0)


def test_p_values_of_uniform_ranks_are_uniform():
    rng = np.random.default_rng(3)
    ranks = rng.integers(0, 100, (1, 60, 200))
    dataset = xr.Dataset(
        {"rank": (("weighting", "simulation", "symmetry"), ranks)},
        {"weighting": ["draws"], "symmetry": [f"s{i}" for i in range(200)]},
        {"num_ranks": 99},
    )
    p = checks.uniformity(dataset)["p_value"].to_numpy()
    assert abs(p.mean() - 0.5) < 3 / math.sqrt(12 * 200)
    assert (p < 0.05).mean() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_coverage_of_recorded_intervals_in_numbers():
    truth = [[1.0], [2.0], [3.0], [4.0]]
    lower = [[[0.0]], [[0.0]], [[0.0]], [[0.0]]]
    upper = [[[2.0]], [[2.0]], [[2.0]], [[2.0]]]
    table = checks.coverage(checks.recorded(truth, lower, upper, [[1.0]] * 4, ["rotation"], [0.9], ["°"]))
    row = table.loc[("draws", "rotation", 0.9)]
    assert row["actual"] == 0.5 and row["width"] == 2.0 and row["bias"] == -1.5
    assert row["actual_se"] == pytest.approx(math.sqrt(0.25 / 8))
    assert row["bias_se"] == pytest.approx(math.sqrt(5 / 3) / 2)
    assert row["unit"] == "°" and row["simulations"] == 4
    with pytest.raises(ValueError, match=r"lower: expected shape \(4, 1, 1\)"):
        checks.recorded(truth, truth, upper, truth, ["rotation"], [0.9])


def test_a_run_goes_on_where_it_stopped(tmp_path):
    calls = []

    def counted(model, data, seed):
        calls.append(seed)
        return exact(model, data, seed)

    first = run(counted, 3, folder=tmp_path)
    assert len(calls) == 3
    second = run(counted, 7, folder=tmp_path)
    assert len(calls) == 7
    whole = run(counted, 7)
    xr.testing.assert_equal(second.drop_vars("seconds"), whole.drop_vars("seconds"))
    xr.testing.assert_equal(first["rank"], whole["rank"].isel(simulation=slice(3)))
    again = checks.load_simulations(tmp_path, ["rotation"], {"rotation": "°"})
    xr.testing.assert_equal(again, second)
    assert checks.coverage(again)["simulations"].iloc[0] == 7
    with pytest.raises(ValueError, match="holds simulations with other seed"):
        run(counted, 7, folder=tmp_path, seed=1)
    with pytest.raises(ValueError, match="holds simulations with other model"):
        run(counted, 7, folder=tmp_path, model=make(num_orbit_samples=5))
    with pytest.raises(ValueError, match="holds no simulations"):
        checks.load_simulations(tmp_path / "nowhere", ["rotation"])


def test_seeds_differ_between_simulations_and_repeat():
    one, again, other = run(exact, 4), run(exact, 4), run(exact, 4, seed=1)
    xr.testing.assert_equal(one["truth"], again["truth"])
    assert len(np.unique(one["truth"])) == 4
    assert not np.isin(other["truth"], one["truth"]).any()


def test_several_inferences_on_the_same_simulations(tmp_path):
    def both(model, data, seed):
        return {"right": exact(model, data, seed), "too narrow": narrow(model, data, seed)}

    together = run(both, 120, folder=tmp_path)
    assert together["weighting"].values.tolist() == ["right", "too narrow"]
    np.testing.assert_array_equal(together["rank"][0], run(exact, 120)["rank"][0])
    table = checks.uniformity(together)["inside"]
    assert table[("right", "rotation")] and not table[("too narrow", "rotation")]
    xr.testing.assert_equal(checks.load_simulations(tmp_path, ["rotation"], {"rotation": "°"}), together)


def test_failed_fits_are_counted_and_named():
    def breaks(model, data, seed):
        if float(data.y.mean()) > 2.0:
            raise NumericalError("no Cholesky factor")
        return exact(model, data, seed)

    simulations = run(breaks, 12)
    assert 0 < simulations.attrs["num_failed"] < 12
    assert simulations.sizes["simulation"] + simulations.attrs["num_failed"] == 12
    assert "NumericalError: no Cholesky factor" in simulations.attrs["errors"]

    def never(model, data, seed):
        raise NumericalError("nothing works")

    with pytest.raises(ValueError, match=r"all 2 simulations failed.*nothing works"):
        run(never, 2)


def test_a_truth_that_equals_draws_is_no_bias():
    class Exact(Seen):
        def simulate(self, x, extents=None, num_outputs=None, seed=0):
            eta = self.extents.sample_prior(1, seed)[0]
            return Simulation(eta, eta[:1].expand(len(x), 1), eta[:1].expand(len(x), 1))

    model = Exact(bayesinv.GaussianProcess(num_features=64), "rotation", likelihood="gaussian")
    # every draw lies at the truth: its rank is any of the ties'
    ranks = run(lambda m, d, s: torch.full((300, 1), float(d.y[0])), 60, model=model)["rank"].values
    assert 30 < ranks.mean() < 70


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_simulations": 0}, "num_simulations: expected an integer"),
        ({"jobs": 0}, "jobs: expected"),
        ({"hyperparameters": "guessed"}, "hyperparameters: expected one of"),
        ({"fit": exact, "fit_options": {"max_steps": 3}}, "fit_options belong to"),
        ({"model": make(priors={"rotation": 0.3})}, "every symmetry of this model is fixed"),
        ({"model": make(groups=["a", "b"])}, "simulated examples are of no group"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        checks.simulation_based_calibration(**({"model": make(), "x": X, "num_simulations": 2} | options))


def test_networks_have_no_known_hyperparameters():
    model = bayesinv.InvarianceModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), "rotation")
    with pytest.raises(ValueError, match="for Gaussian processes"):
        checks.simulation_based_calibration(model, X, 2, hyperparameters="known")


def test_draws_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected a posterior or draws \(J, 1\)"):
        run(lambda model, data, seed: torch.zeros(10, 2), 1)


def images(n=24):
    return bayesinv.datasets.digits(math.radians(40), size=8, num_train=n, seed=0).train.x


def small(likelihood="gaussian", **options):
    return bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=8), "rotation", likelihood=likelihood, num_orbit_samples=4, **options
    )


QUICK = {"max_steps": 15, "num_draws": 30}


def test_known_hyperparameters_are_held():
    kept = []

    def keeping(model, data, seed):
        posterior = checks.simulations.fit_with(model, data, seed, QUICK)
        kept.append(posterior.model)
        return posterior

    checks.simulation_based_calibration(small(), images(), 1, fit=keeping, hyperparameters="known")
    assert float(kept[0].evidence.noise.detach()) == pytest.approx(checks.simulations.NOISE_SHARE)
    assert float(kept[0].backbone.kernel.outputscale.detach()) == pytest.approx(1.0)
    checks.simulation_based_calibration(small(), images(), 1, fit=keeping)
    assert float(kept[1].evidence.noise.detach()) != pytest.approx(checks.simulations.NOISE_SHARE, rel=1e-3)


def test_a_fitted_model_is_checked_at_its_own_hyperparameters():
    model = small()
    model.initialise(bayesinv.Data(images(), torch.randn(24, 1, dtype=torch.float64)))
    model.evidence.noise_model.noise = 0.03
    held = model.hold_hyperparameters()
    assert [name for name, p in held.named_parameters() if p.requires_grad] == ["backbone.inducing"]
    held.initialise(bayesinv.Data(images(), torch.randn(24, 1, dtype=torch.float64)))
    assert float(held.evidence.noise.detach()) == pytest.approx(0.03)
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="holds none yet"):
        small().hold_hyperparameters()


def test_vi_comes_with_and_without_weights_and_nuts_without():
    vi = checks.simulation_based_calibration(small(), images(), 2, fit_options=QUICK)
    assert list(vi["weighting"].values) == ["draws", "reweighted"]
    assert {"pareto_k", "converged", "log_evidence"} <= set(vi)
    assert vi.attrs["fit"] == "bayesinv.fit" and vi["unit"].values.tolist() == ["°"]
    options = QUICK | {"inference": "nuts", "num_warmup": 10, "num_draws": 12, "num_chains": 1}
    nuts = checks.simulation_based_calibration(small(), images(), 1, fit_options=options, num_ranks=9)
    assert list(nuts["weighting"].values) == ["draws"] and int(nuts["rank"].max()) <= 9


def test_networks_and_classes_of_a_gaussian_process():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    model = bayesinv.InvarianceModel(bayesinv.NeuralNetwork(net), "rotation", num_orbit_samples=3)
    options = {"training": bayesinv.Training(epochs=3, batch_size=12), "num_draws": 20}
    network = checks.simulation_based_calibration(model, images(), 2, fit_options=options)
    assert list(network["weighting"].values) == ["draws"]
    # the labels of a teacher may all be of one class, which a fit refuses
    assert network.sizes["simulation"] + network.attrs["num_failed"] == 2
    classes = checks.simulation_based_calibration(small("categorical"), images(), 1, num_outputs=3, fit_options=QUICK)
    assert classes.attrs["num_failed"] == 0


@pytest.mark.slow
def test_side_by_side_is_the_same_as_one_after_another(tmp_path):
    one = checks.simulation_based_calibration(small(), images(), 2, fit_options=QUICK)
    two = checks.simulation_based_calibration(small(), images(), 2, fit_options=QUICK, jobs=2, folder=tmp_path)
    xr.testing.assert_equal(one["rank"], two["rank"])
    np.testing.assert_allclose(one["median"], two["median"], rtol=1e-6)


def test_labels_of_dirichlet_targets_follow_the_sites():
    evidence = bayesinv.evidence.DirichletEvidence()
    f = torch.tensor([[-0.3, -6.9, -6.9], [-2.0, -5.0, -1.0]], dtype=torch.float64)
    direct = []
    for label in range(3):
        sites = evidence.sites(bayesinv.Data(X[:2], torch.full((2,), label), num_classes=3))
        density = torch.distributions.Normal(f, sites.precision.rsqrt()).log_prob(sites.target)
        direct.append(density.sum(1))
    wanted = torch.stack(direct, 1).log_softmax(1)
    torch.testing.assert_close(evidence.log_site_probabilities(f), wanted)
    torch.manual_seed(0)
    labels = evidence.sample_targets(f[1:].expand(4000, 3))
    shares = torch.bincount(labels, minlength=3) / 4000
    torch.testing.assert_close(shares.double(), wanted[1].exp(), atol=0.03, rtol=0)


def test_pictures_have_a_panel_for_each_symmetry(tmp_path):
    model = make(["rotation", "translate_x"])
    simulations = run(prior, 20, model=model)
    for figure, title in ((checks.plot_ranks(simulations), "rank"), (checks.plot_coverage(simulations), "mass")):
        assert [axes.get_title() for axes in figure.axes] == ["rotation", "translate x"]
        assert figure.axes[0].get_xlabel().startswith(title) and figure.axes[0].get_ylabel()
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 5000
