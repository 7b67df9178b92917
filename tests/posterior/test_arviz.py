"""The DataTree in ArviZ's layout, and what the installed ArviZ makes of it.

The tests marked `core` in their names need neither torch nor Pyro.
"""

import warnings
from importlib import metadata

import numpy as np
import pytest
import xarray as xr

from bayesinv.posterior.arviz import build_datatree, to_arviz

OLD_ARVIZ = metadata.version("arviz").startswith("0.")


def core_tree():
    rng = np.random.default_rng(0)
    extents = np.abs(rng.normal([50, 3], [2, 1], size=(2, 100, 2)))
    return build_datatree(
        extents,
        ["rotation", "shear"],
        ["°", "%"],
        prior=rng.uniform(0, [180, 100], size=(2, 100, 2)),
        predictive=rng.integers(0, 2, size=(2, 100, 6)),
        log_likelihood=-rng.random((2, 100, 6)),
        observed=np.array([0, 1, 0, 1, 1, 1]),
        attrs={"inference_library": "bayesinv", "pareto_k": None, "seed": 3},
    )


def test_core_layout():
    tree = core_tree()
    assert isinstance(tree, xr.DataTree)
    assert set(tree.children) == {
        "posterior",
        "prior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
    }
    extent = tree["posterior"]["extent"]
    assert extent.dims == ("chain", "draw", "symmetry")
    assert extent["symmetry"].values.tolist() == ["rotation", "shear"]
    assert extent.sel(symmetry="rotation")["unit"].item() == "°"
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "observation")
    assert tree["observed_data"]["y"].dims == ("observation",)
    assert tree.attrs == {"inference_library": "bayesinv", "seed": 3}
    assert tree["posterior"].attrs["seed"] == 3
    for group in ("prior", "posterior_predictive", "log_likelihood"):
        xr.testing.assert_equal(tree[group]["draw"], tree["posterior"]["draw"])


def test_core_labels_of_every_pixel():
    tree = build_datatree(np.ones((1, 3, 1)), ["shear"], ["%"], observed=np.zeros((5, 4, 2), int))
    assert dict(tree["observed_data"]["y"].sizes) == {"observation": 5, "row": 4, "column": 2}


def test_labels_of_every_pixel_are_drawn_one_by_one():
    import torch

    from bayesinv import InvarianceModel, Training, fit

    x = torch.rand(6, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0.5).long()
    net = torch.nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        net.weight[:, 0, 0, 0] = torch.tensor([-1e4, 1e4])
        net.bias[:] = torch.tensor([5e3, -5e3])  # certain of every pixel
    model = InvarianceModel(net, "rotation", evidence="plugin", priors={"rotation": 0.0}, num_orbit_samples=1)
    training = Training(batch_size=6, weight_rate=1e-9)
    tree = fit(model, (x, y), max_steps=1, num_draws=5, training=training).to_datatree(5, log_likelihood=True)
    predicted, observed = tree["posterior_predictive"]["y"], tree["observed_data"]["y"]
    assert predicted.dims == ("chain", "draw", "observation", "row", "column")
    assert bool((predicted == observed).all())
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "observation")


def test_core_several_outputs():
    tree = build_datatree(
        np.ones((1, 3, 1)),
        ["shear"],
        ["%"],
        observed=np.zeros((4, 2)),
        log_weights=np.zeros((1, 3)),
    )
    assert tree["observed_data"]["y"].dims == ("observation", "output")
    assert tree["sample_stats"]["log_weight"].dims == ("chain", "draw")


# arviz and its plotting parts announce their own future; h5py's wheel was built against another
# numpy
@pytest.mark.filterwarnings("ignore")
def test_core_arviz_reads_it():
    import arviz

    tree = core_tree()
    converted = to_arviz(tree)
    if OLD_ARVIZ:
        assert isinstance(converted, arviz.InferenceData)
        table = arviz.summary(converted, var_names=["extent"], hdi_prob=0.9, round_to="none")
    else:
        assert converted is tree
        table = arviz.summary(converted, var_names=["extent"], ci_prob=0.9, round_to="none")
    assert list(table.index) == ["extent[rotation]", "extent[shear]"]
    mean = float(tree["posterior"]["extent"].sel(symmetry="rotation").mean())
    assert float(table.loc["extent[rotation]", "mean"]) == pytest.approx(mean, rel=1e-6)
    assert np.isfinite(float(np.ravel(arviz.loo(converted).elpd_loo if OLD_ARVIZ else arviz.loo(converted).elpd)[0]))


@pytest.mark.filterwarnings("ignore")
def test_core_netcdf_round_trip(tmp_path):
    pytest.importorskip("h5netcdf")
    tree = core_tree()
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again["posterior"]["extent"].load(), tree["posterior"]["extent"])


def make(**arguments):
    from tests.fakes import make_posterior

    return make_posterior(**arguments)


def test_extents_are_in_the_units_that_the_coordinate_names():
    posterior = make()
    extent = posterior.to_datatree(num_draws=None, predictive=False)["posterior"]["extent"]
    assert extent["unit"].values.tolist() == ["°", "% of width", "%"]
    eta = posterior.result.extents.numpy()
    np.testing.assert_allclose(extent.sel(symmetry="rotation"), np.degrees(eta[..., 0]))
    np.testing.assert_allclose(extent.sel(symmetry="translate_x"), 50 * eta[..., 1])
    np.testing.assert_allclose(extent.sel(symmetry="scale_x"), 100 * np.expm1(eta[..., 2]))


@pytest.mark.parametrize("chains", [1, 2])
def test_all_groups_belong_to_the_same_draws(chains):
    posterior = make(chains=chains)
    tree = posterior.to_datatree(num_draws=10, log_likelihood=True)
    shape = (chains, 10 // chains)
    assert tree["posterior"]["extent"].shape == (*shape, 3)
    assert tree["prior"]["extent"].shape == (*shape, 3)
    assert tree["posterior_predictive"]["y"].shape == (*shape, 12)
    p = np.radians(tree["posterior"]["extent"].sel(symmetry="rotation").values)[..., None] / np.pi
    likelihood = tree["log_likelihood"]["y"].values
    y = posterior.data.y.numpy()
    np.testing.assert_allclose(likelihood, np.where(y == 1, np.log(p), np.log1p(-p)), rtol=1e-6)


def test_log_likelihoods_of_training_data_are_left_out_unless_asked_for():
    """`az.loo` on them is wrong, and says nothing about it."""
    posterior = make()
    assert "log_likelihood" not in posterior.to_datatree(num_draws=5).children
    asked = posterior.to_datatree(num_draws=5, predictive=False, log_likelihood=True)
    assert "posterior_predictive" not in asked.children
    assert "not for leave-one-out" in asked["log_likelihood"].attrs["note"]


def fitted(hyperparameters="latent"):
    import torch

    import bayesinv

    data = bayesinv.datasets.digits(size=8, num_train=24, seed=0).train
    data = bayesinv.Data(data.x, torch.stack([data.y % 2, data.y % 3], 1).double())
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_features=64), "rotation", likelihood="gaussian", num_orbit_samples=4
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesinv.errors.ImportanceWarning)  # eighty draws are few, and enough here
        return bayesinv.fit(model, data, seed=0, num_draws=80, hyperparameters=hyperparameters)


def test_hyperparameters_are_exported_in_their_own_units_beside_their_extents():
    from bayesinv.model.hyperparameters import at

    posterior = fitted()
    group = posterior.to_datatree(num_draws=None, predictive=False, reweighted=False)["posterior"]
    names = [h.name for h in posterior.model.hyperparameters]
    assert set(group.data_vars) == {"extent", *names}
    kernel, evidence = posterior.model.backbone.kernel, posterior.model.evidence
    for j in (0, 7, 79):
        with at(posterior.model.hyperparameters, posterior.result.hyperparameters[j]):
            values = [float(v.detach()) for v in (kernel.outputscale, kernel.base_kernel.lengthscale, evidence.noise)]
        np.testing.assert_allclose([float(group[name][0, j]) for name in names], values, rtol=1e-6)
    assert all(group[name].dims == ("chain", "draw") for name in names)
    # The same rows are resampled for both.
    some = posterior.to_datatree(num_draws=30, predictive=False, reweighted=True)["posterior"]
    pairs = {
        (float(a), float(b)) for a, b in zip(group["extent"].values[0, :, 0], group[names[0]].values[0], strict=True)
    }
    taken = zip(some["extent"].values[0, :, 0], some[names[0]].values[0], strict=True)
    assert {(float(a), float(b)) for a, b in taken} <= pairs
    held = fitted("optimised").to_datatree(num_draws=5, predictive=False)
    assert set(held["posterior"].data_vars) == {"extent"}


def test_predictive_draws_use_the_hyperparameters_of_their_own_draw():
    """With a noise of its own for each draw, the targets of a draw spread by that noise."""
    import dataclasses

    from bayesinv.posterior.invariance_posterior import InvariancePosterior

    posterior = fitted()
    names = [h.name for h in posterior.model.hyperparameters]
    noise = next(k for k, name in enumerate(names) if "noise" in name)
    u = posterior.result.hyperparameters.clone()
    u[:, noise] = -8.0
    u[::2, noise] = 6.0
    result = dataclasses.replace(posterior.result, hyperparameters=u)
    posterior = InvariancePosterior(posterior.model, posterior.data, result)
    tree = posterior.to_datatree(num_draws=8, reweighted=False, log_likelihood=True)
    rows = np.arange(8) * 80 // 8
    y = tree["posterior_predictive"]["y"].values[0] - posterior.data.y.numpy()
    assert (np.abs(y[rows % 2 == 0]).mean((1, 2)) > 5).all()  # a noise of e³ = 20
    assert (np.abs(y[rows % 2 == 1]).mean((1, 2)) < 5).all()
    likelihood = tree["log_likelihood"]["y"].values[0]
    assert (likelihood[rows % 2 == 0] < -6).all()  # -2 log(20 √2π) = -7.8


def test_thinning_keeps_chains_and_order():
    posterior = make(chains=2)
    extent = posterior.to_datatree(num_draws=20, predictive=False)["posterior"]["extent"]
    kept = np.radians(extent.sel(symmetry="rotation").values)
    stored = posterior.result.extents[..., 0].numpy()
    np.testing.assert_allclose(kept, stored[:, ::40])


def test_predictive_targets_follow_the_probabilities():
    posterior = make()
    y = posterior.to_datatree(num_draws=None)["posterior_predictive"]["y"].values
    share = float(posterior["rotation"].mean()) / np.pi
    # 400 draws of 12 targets: s.e. sqrt(p (1 - p) / 4800) < 0.007
    assert set(np.unique(y)) == {0, 1}
    assert y.mean() == pytest.approx(share, abs=0.025)


def test_each_target_belongs_to_its_own_draw():
    import torch

    extents = torch.zeros(1, 7, 3, dtype=torch.float64)
    extents[0, [1, 2, 5], 0] = torch.pi  # p(y = 1) is one there and zero elsewhere
    y = make(extents=extents).to_datatree(num_draws=None)["posterior_predictive"]["y"].values
    assert y[0].tolist() == [[int(j in (1, 2, 5))] * 12 for j in range(7)]


def test_regression_targets():
    tree = make(likelihood="gaussian").to_datatree(num_draws=None)
    y = tree["posterior_predictive"]["y"]
    assert y.dims == ("chain", "draw", "observation")
    # N(rotation / π, 0.04) with rotation near 0.9 ± 0.05; 4800 draws
    assert float(y.mean()) == pytest.approx(0.9 / np.pi, abs=0.02)
    assert float(y.std()) == pytest.approx(0.2, abs=0.02)
    assert tree["observed_data"]["y"].dims == ("observation",)


def test_weights_stay_with_their_draws_or_are_used_up():
    posterior = make(weighted=True)
    tree = posterior.to_datatree(num_draws=100, predictive=False, reweighted=False)
    weights = tree["sample_stats"]["log_weight"].values
    assert np.logaddexp.reduce(weights, axis=1) == pytest.approx(0, abs=1e-12)
    stored = posterior.result.log_weights.numpy()[::4]
    np.testing.assert_allclose(weights[0] - weights[0, 0], stored - stored[0], atol=1e-12)
    tree = posterior.to_datatree(num_draws=2000, predictive=False, reweighted=True)
    assert "sample_stats" not in tree.children
    rotation = tree["posterior"]["extent"].sel(symmetry="rotation").values
    weight = posterior.result.log_weights.exp().numpy()
    expected = np.degrees(weight @ posterior["rotation"].numpy())
    # systematic resampling of 2000: each weight is met within 1/2000, over a range of about 20°
    assert rotation.mean() == pytest.approx(expected, abs=0.1)
    assert tree.attrs["reweighted"] == 1
    by_default = posterior.to_datatree(num_draws=2000, predictive=False)
    assert by_default.attrs["reweighted"] == 1
    np.testing.assert_array_equal(by_default["posterior"]["extent"], tree["posterior"]["extent"])
    poor = make(weighted=True, pareto_k=0.9).to_datatree(num_draws=100, predictive=False)
    assert poor.attrs["reweighted"] == 0 and "sample_stats" in poor.children


def test_without_predictions_there_are_no_such_groups():
    tree = make().to_datatree(num_draws=5, predictive=False)
    assert set(tree.children) == {"posterior", "prior", "observed_data"}
    with pytest.raises(ValueError, match="at least 1"):
        make().to_datatree(num_draws=0)


def test_the_seed_alone_decides():
    one, same, other = (make().to_datatree(num_draws=10, seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(one, same)
    assert not one["posterior_predictive"].equals(other["posterior_predictive"])


@pytest.mark.filterwarnings("ignore")
def test_to_arviz_of_a_posterior(tmp_path):
    converted = make(weighted=True).to_arviz(num_draws=8)
    assert float(converted.posterior["extent"].sel(symmetry="rotation").mean()) > 40
    converted.to_netcdf(str(tmp_path / "posterior.nc"))  # attributes that netCDF can hold


def test_maps_of_labels_go_through_netcdf(tmp_path):
    import torch
    from torch import nn

    from bayesinv import Data, InvarianceModel
    from bayesinv.posterior.invariance_posterior import InvariancePosterior
    from tests.fakes import make_result

    torch.manual_seed(0)
    x = torch.rand(6, 1, 5, 4)
    model = InvarianceModel(nn.Conv2d(1, 2, 3, padding=1), "rotation", output_action="image", num_orbit_samples=2)
    data = Data(x, (x[:, 0] > 0.5).long(), num_classes=2)
    model.initialise(data)
    result = make_result(extents=torch.full((1, 20, 1), 0.3, dtype=torch.float64))
    tree = InvariancePosterior(model, data, result).to_datatree(num_draws=3)
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "observation", "row", "column")
    assert tree["posterior_predictive"]["y"].shape == (1, 3, 6, 5, 4)
    assert tree["observed_data"]["y"].shape == (6, 5, 4)
    tree.to_netcdf(tmp_path / "maps.nc")
    with xr.open_datatree(tmp_path / "maps.nc") as read:
        assert read.equals(tree)


def test_core_names_with_slashes_and_blanks_go_through_netcdf(tmp_path):
    tree = build_datatree(np.full((1, 5, 2), 30.0), ["rotation[a/b]", "été c d"], ["°", "m/s"])
    tree.to_netcdf(tmp_path / "names.nc")
    with xr.open_datatree(tmp_path / "names.nc") as read:
        assert read.equals(tree)
        assert list(read["posterior"]["unit"].values) == ["°", "m/s"]
