"""Which extents an augmentation of a posterior has."""

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import InferenceResult, InvarianceModel, InvariancePosterior
from bayesinv.transforms import SO3, ColumnShift, Flip, TimeShift
from tests.fakes import make_data, make_posterior


def with_draws(draws: list[list[float]], **options) -> InvariancePosterior:
    """A posterior over rotations with these draws."""
    model = InvarianceModel(bayesinv.GaussianProcess(num_features=16), ["rotation"], **options)
    extents = torch.tensor([draws], dtype=torch.float64)
    return InvariancePosterior(model, make_data(), InferenceResult(inference="vi", guide=None, extents=extents, seed=0))


def test_draws_are_those_of_the_posterior():
    posterior = make_posterior(weighted=True)
    aug = posterior.augmentation()
    assert torch.equal(aug.extents, posterior.sample(400))
    assert torch.equal(posterior.augmentation(draws="median").extents[0], posterior.quantile(0.5))
    assert torch.allclose(posterior.augmentation(draws="mean").extents[0], posterior.sample(400).mean(0))
    assert (aug.draws, aug.event_shape) == ("posterior", (1, 8, 8))


def test_importance_weights_count():
    """All weight on one draw: nothing else is exported."""
    log_weights = torch.full((400,), -1e3, dtype=torch.float64)
    log_weights[7] = 0.0
    posterior = make_posterior(log_weights=log_weights, pareto_k=0.1)
    assert torch.equal(posterior.augmentation().extents.unique(dim=0)[0], posterior.result.draws[7])


def test_outputs_share_the_smallest_unless_one_is_named():
    posterior = with_draws([[0.5, 0.1], [0.2, 0.3]], outputs=["6", "0"], likelihood="categorical")
    assert sorted(posterior.augmentation().extents[:, 0].tolist()) == [0.1, 0.2]
    assert sorted(posterior.augmentation(of="0").extents[:, 0].tolist()) == [0.1, 0.3]


def test_groups_share_the_populations_unless_one_is_named():
    draws = [[0.5, 0.1, 0.3, 0.7]]  # population, spread, a, b
    posterior = with_draws(draws, groups=["a", "b"], likelihood="categorical")
    assert posterior.augmentation().extents.tolist() == [[0.5]]
    assert posterior.augmentation(of="b").extents.tolist() == [[0.7]]


def test_the_models_distributions_and_transform_come_along():
    posterior = with_draws([[0.5]], augmentation={"rotation": "von_mises"}, likelihood="categorical")
    aug = posterior.augmentation()
    assert aug.orbit.distributions == ("von_mises",)
    assert aug.transform_family is not posterior.model.orbit.transform  # which may move to another device


@pytest.mark.parametrize("options", [{"draws": "mode"}, {"of": "6"}, {"copies": 0}, {"seed": -1}])
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=r"expected|leave it out"):
        make_posterior().augmentation(**options)


def test_an_unknown_output_is_named():
    posterior = with_draws([[0.5, 0.1]], outputs=["6", "0"], likelihood="categorical")
    with pytest.raises(ValueError, match="outputs 6, 0"):
        posterior.augmentation(of="7")


FITS = {
    "images, process": (bayesinv.GaussianProcess(num_features=32), ["rotation", Flip()], (1, 8, 8)),
    "images, network": (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), ["rotation", "shear"], (1, 8, 8)),
    "signals": (bayesinv.GaussianProcess(num_features=32), [TimeShift(10.0)], (2, 20)),
    "points": (bayesinv.GaussianProcess(num_features=32), [SO3()], (4, 3)),
    "rows": (bayesinv.GaussianProcess(num_features=32), [ColumnShift([0, 1])], (3,)),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of fits that are this short
def test_fits_of_every_kind_can_be_taken_away(name, tmp_path):
    backbone, transforms, shape = FITS[name]
    priors = {"shear": None} if "network" in name else None
    x = torch.rand(16, *shape, generator=torch.Generator().manual_seed(0))
    model = InvarianceModel(backbone, transforms, num_orbit_samples=4, likelihood="categorical", priors=priors)
    short = {"training": bayesinv.Training(epochs=1, batch_size=8)}
    options = short if "network" in name else {"max_steps": 3, "num_draws": 20}
    posterior = bayesinv.fit(model, (x, torch.arange(16) % 2), seed=0, **options)
    aug = bayesinv.export.load(posterior.augmentation(seed=1).save(tmp_path / "aug.safetensors"))
    assert aug(x).shape == x.shape and not torch.equal(aug(x), x)
    assert aug(x[0]).shape == shape
    if "network" in name:
        assert bool((aug.extents[:, 1] == 0).all()) and bool((aug.draw(20)[:, 1] == 0).all())
        predictor = bayesinv.InvariantPredictor(posterior.model.network.net, posterior, 4)
        assert predictor(x).shape == (16, 2)


class Map(nn.Module):
    """As many outputs as pixels."""

    def forward(self, x):
        return x


def equivariant(transforms, backbone, action, x):
    model = InvarianceModel(backbone, transforms, likelihood="gaussian", output_action=action)
    y = x if action == "image" else x.mean(1)
    extents = torch.full((1, 2, model.transform.num_coordinates), 0.3, dtype=torch.float64)
    result = InferenceResult(inference="vi", guide=None, extents=extents, seed=0)
    return InvariancePosterior(model, bayesinv.Data(x, y), result)


def test_outputs_that_move_are_not_averaged_where_they_are(tmp_path):
    posterior = equivariant(["rotation"], nn.Sequential(nn.Conv2d(1, 1, 1)), "image", torch.rand(4, 1, 8, 8))
    with pytest.raises(ValueError, match=r"output_action='image'.*posterior.predict"):
        bayesinv.InvariantPredictor(Map(), posterior)
    loaded = bayesinv.export.load(posterior.augmentation().save(tmp_path / "aug.safetensors"))
    assert loaded.output_action == "image"
    with pytest.raises(ValueError, match="output_action='image'"):
        bayesinv.InvariantPredictor(Map(), loaded)


def test_targets_that_no_call_moves_are_named():
    posterior = equivariant(SO3(), nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "vector", torch.rand(4, 4, 3))
    with pytest.warns(UserWarning, match="output_action='vector'.*move the targets"):
        posterior.augmentation()
