"""Extents of groups: the prior that pools them, what an example sees of them, and new groups."""

import importlib
import math
import warnings

import numpy as np
import pyro.poutine as poutine
import pytest
import torch

import bayesinv
from bayesinv.checks.orbit import blur_matched_null, orbit_sensitivity
from bayesinv.data.container import Data, as_data
from bayesinv.data.groups import NEW_GROUP, as_groups
from bayesinv.errors import DataError, ExtentError
from bayesinv.extents.families import sample_extents
from bayesinv.extents.pooling import PooledExtent, PooledExtents
from bayesinv.extents.priors import UniformExtent
from bayesinv.orbits.groups import Grouped
from bayesinv.report.sections import extents as extents_section
from bayesinv.report.sections import furthest, orbits
from bayesinv.transforms import Affine2d, Compose, Flip

GROUPS = ("a", "b", "c")


def make(groups=GROUPS, symmetries=("rotation", "shear"), evidence="gaussian", **options):
    return bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=12),
        Affine2d(list(symmetries)),
        likelihood="gaussian" if evidence == "gaussian" else "categorical",
        evidence=evidence,
        groups=groups,
        **{"num_orbit_samples": 4, "precision": "double", **options},
    )


def images(evidence="gaussian", n=24):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    groups = torch.arange(n) % 3
    if evidence == "gaussian":
        return Data(x, torch.randn(n, 2, generator=generator, dtype=torch.float64), groups=groups)
    return Data(x, torch.arange(n) // 2 % 3, 3, groups)


def extents(*rows):
    """η with a population of 0.5 and 0.1, spreads of 0.3, and these groups."""
    return torch.tensor([0.5, 0.1, 0.3, 0.3, *(v for row in rows for v in row)], dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("evidence", ["gaussian", "dirichlet", "softmax"])
def test_groups_alike_are_the_model_without_groups(evidence):
    data = images(evidence)
    grouped, plain = make(evidence=evidence), make(None, evidence=evidence)
    for model in (grouped, plain):
        model.initialise(data)
    alike, eta = extents(*[(0.6, 0.2)] * 3), torch.tensor([0.6, 0.2], dtype=torch.float64)
    torch.testing.assert_close(grouped.log_evidence(alike, data), plain.log_evidence(eta, data))
    got = grouped.function_posterior(data.x, data, alike, data.groups)
    for a, b in zip(got, plain.function_posterior(data.x, data, eta), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_an_example_sees_the_extents_of_its_group_alone():
    data = images()
    model, plain = make(), make(None)
    for each in (model, plain):
        each.initialise(data)
    rows = [(0.1, 0.0), (1.5, 0.2), (3.0, 0.4)]
    cross, variance = model.at(extents(*rows)).statistics(data.x, data.groups)
    K = model.at(extents(*rows)).covariance(data.x, data.groups)
    torch.testing.assert_close(K.diagonal(), variance)
    for g, row in enumerate(rows):
        own = plain.at(torch.tensor(row, dtype=torch.float64))
        mine = data.groups == g
        expected = own.statistics(data.x[mine])
        torch.testing.assert_close(cross[mine], expected[0])
        torch.testing.assert_close(variance[mine], expected[1])
        torch.testing.assert_close(K[mine][:, mine], own.covariance(data.x[mine]))


def test_the_gradient_reaches_the_group_of_the_examples_alone():
    data = images()
    model = make()
    model.initialise(data)
    eta = extents((0.3, 0.1), (0.8, 0.2), (2.0, 0.3)).requires_grad_()
    of_b = Data(data.x, data.y, groups=torch.ones(len(data), dtype=torch.int64))
    (gradient,) = torch.autograd.grad(model.log_evidence(eta, of_b), eta)
    assert (gradient[[6, 7]] != 0).all()
    assert (gradient[[0, 1, 2, 3, 4, 5, 8, 9]] == 0).all()


def test_the_prior_has_a_plate_and_its_density_is_that_of_the_sites():
    model = make()
    trace = poutine.trace(sample_extents).get_trace(model.extents)
    assert trace.nodes["extent_rotation[groups]"]["value"].shape == (3,)
    assert [f.name for f in trace.nodes["extent_rotation[groups]"]["cond_indep_stack"]] == ["groups"]
    eta = trace.nodes["_RETURN"]["value"]
    torch.testing.assert_close(model.extents.log_prior(eta), trace.log_prob_sum())


def test_densities_of_groups_integrate_to_one():
    high = 2.0
    grid = torch.linspace(0, high, 20001, dtype=torch.float64)
    q = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    for spread in (0.0, 0.4, 0.9):  # beyond 1 it piles up at both ends
        prior = PooledExtent(torch.tensor(1.2), torch.tensor(spread), high)
        slope = (prior.icdf(q + 1e-6) - prior.icdf(q - 1e-6)) / 2e-6  # 1 / p
        torch.testing.assert_close(prior.log_prob(prior.icdf(q)), -slope.log(), rtol=1e-5, atol=1e-5)
        assert float(torch.trapezoid(prior.log_prob(grid).exp(), grid)) == pytest.approx(1.0, abs=2e-3)
        assert float(prior.icdf(torch.tensor(0.5))) == pytest.approx(1.2, abs=1e-6)
    assert float(prior.log_prob(torch.tensor(2.5))) == -math.inf


def test_a_spread_of_zero_keeps_groups_together_and_a_large_one_does_not():
    together = make(priors={"rotation spread": 0.0}).extents.sample_prior(200)
    apart = make(priors={"rotation spread": 2.0}).extents.sample_prior(200)
    gaps = [(draws[:, [4, 6, 8]] - draws[:, :1]).abs().mean() for draws in (together, apart)]
    assert gaps[0] < 0.06
    assert gaps[1] > 0.6


def test_marginals_of_the_prior():
    extents = make().extents
    draws = extents.sample_prior(4000, seed=1)
    column = extents.symmetries.index("rotation[b]")
    quantile = extents.prior_quantile(0.3)
    assert float((draws[:, column] < quantile[column]).double().mean()) == pytest.approx(0.3, abs=0.03)
    grid = torch.linspace(0.002, math.pi - 0.002, 400, dtype=torch.float64)
    mass = torch.trapezoid(extents.log_marginal_prior("rotation[b]", grid).exp(), grid)
    assert float(mass) == pytest.approx(1.0, abs=0.03)


def test_priors_of_population_and_spread():
    model = make(priors={"rotation": UniformExtent(0.0, 1.0), "shear": 0.2, "rotation spread": 0.7})
    assert model.active == ("rotation", "rotation[a]", "rotation[b]", "rotation[c]")
    draws = model.extents.sample_prior(50)
    assert (draws[:, 0] <= 1.0).all()
    np.testing.assert_allclose(draws[:, [1, 5, 7, 9]], 0.2)
    with pytest.raises(ExtentError, match="a group's is given by the population's"):
        make(priors={"rotation[a]": 0.1})
    with pytest.raises(ExtentError, match="leave it out, or give shear a distribution"):
        make(priors={"shear": 0.2, "shear spread": 0.4})
    assert make(priors=model.extents.config() | {"rotation": 0.1, "rotation spread": 0.0}).active == ()


def test_groups_by_number_and_by_name():
    with pytest.warns(UserWarning, match="'nobody' not among a, b, c"):
        assert as_groups(["c", "nobody", "a"], GROUPS, 3).tolist() == [2, NEW_GROUP, 0]
    assert as_groups(np.array([0, 2, -1]), GROUPS, 3).tolist() == [0, 2, -1]
    assert as_groups([np.int64(2), torch.tensor(1), 0], GROUPS, 3).tolist() == [2, 1, 0]
    assert as_groups(None, GROUPS, 2).tolist() == [-1, -1]
    with pytest.raises(DataError, match=r"3 is no group of this model; expected 0 \(a\)"):
        as_groups([0, 3], GROUPS, 2)
    with pytest.raises(DataError, match="2 entries for 3 inputs"):
        as_groups([0, 1], GROUPS, 3)
    with pytest.raises(DataError, match="whole numbers or names"):
        as_groups([0.5], GROUPS, 1)
    with pytest.raises(DataError, match="whole numbers or names, not both, got 'a'"):
        as_groups([0, "a"], GROUPS, 2)
    with pytest.raises(DataError, match="an entry for each of 3 inputs, got 'a'"):
        as_groups("a", GROUPS, 3)


def test_data_carry_their_groups():
    data = images()
    part = data.subset(torch.tensor([1, 4, 5]))
    assert part.groups.tolist() == [1, 1, 2]
    assert data.to(dtype=torch.float32).groups.tolist() == data.groups.tolist()
    assert as_data(data, "gaussian").groups.tolist() == data.groups.tolist()
    with pytest.raises(DataError, match=r"names\.index\(name\) in the model's groups"):
        Data(data.x, data.y, groups=torch.rand(24))
    with pytest.raises(DataError, match=r"\(24, 1\).*groups\[:, 0\]"):
        Data(data.x, data.y, groups=data.groups[:, None])
    with pytest.raises(DataError, match="groups holds nan; expected the name"):
        Data(data.x, data.y, groups=["a", float("nan")] * 12)
    with pytest.raises(DataError, match="24 examples and groups 3"):
        Data(data.x, data.y, groups=torch.tensor([0, 1, 2]))


def test_data_carry_names_of_their_groups():
    data = images()
    order = ("b", "c", "a")  # not that of the alphabet
    named = Data(data.x, data.y, groups=[order[g] for g in data.groups.tolist()])
    assert named.subset(torch.tensor([1, 4, 5])).groups.tolist() == ["c", "c", "a"]
    assert named.subset(data.groups == 2).groups.tolist() == ["a"] * 8
    assert named.subset(slice(0, 2)).to(dtype=torch.float32).groups.tolist() == ["b", "c"]
    assert as_data(named, "gaussian").groups.tolist() == named.groups.tolist()
    model = make(order)
    model.initialise(named)
    eta = extents((0.9, 0.2), (0.1, 0.3), (0.4, 0.1))
    torch.testing.assert_close(model.log_evidence(eta, named), model.log_evidence(eta, data))
    expected = model.function_posterior(data.x[:4], data, eta, data.groups[:4])
    torch.testing.assert_close(model.function_posterior(data.x[:4], named, eta, named.groups[:4]), expected)
    with pytest.raises(DataError, match="'b', 'c' not among a, d"):
        make(("a", "d")).initialise(named)


def test_names_that_are_no_names():
    for numbers in ([2, 0, 1], [1, 2, 3], np.array([1, 0]), [0, "b"]):
        with pytest.raises(ValueError, match=r'a position in this list.*groups=\[f"group \{i\}" for i in ids\]'):
            make(numbers)
    assert make(range(3)).groups == make(np.arange(3)).groups == ("0", "1", "2")
    with pytest.raises(TypeError, match=r"groups: expected a sequence of names .*, got 3; .* groups=range\(3\)"):
        make(3)
    with pytest.raises(TypeError, match=r"got tensors; which group an example is of goes into bayesinv\.Data"):
        make(images().groups)
    with pytest.raises(TypeError, match="got a set, and their order counts"):
        make({"a", "b"})
    with pytest.raises(TypeError, match="got a float"):
        make(3.0)
    with pytest.raises(ValueError, match="and 16 more; which group an example is of"):
        make(["a", "b"] * 12)


def test_what_is_refused():
    data = images()
    from_one = Data(data.x, data.y, groups=data.groups + 1)
    with warnings.catch_warnings(), pytest.raises(DataError, match="3 is no group of this model"):
        warnings.simplefilter("error")
        bayesinv.fit(make(), from_one, max_steps=2)
    with pytest.raises(DataError, match="do not say which example is of which"):
        bayesinv.fit(make(), Data(data.x, data.y), max_steps=2)
    with pytest.raises(DataError, match="is no group of this model"):
        bayesinv.fit(make(("a", "b")), data, max_steps=2)
    with pytest.raises(ValueError, match="leave one out"):
        make(outputs=["u", "v"])
    with pytest.raises(ValueError, match="at least two names"):
        make(["only"])
    with pytest.raises(ValueError, match="extents for every group need"):
        make(evidence="stochastic")
    flips = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=5), Compose([Flip()]), likelihood="gaussian", groups=GROUPS
    )
    flips.initialise(data)
    with pytest.raises(ValueError, match="count alike"):
        flips.simulate(data.x, groups=data.groups)


def test_pictures_of_one_group_at_a_time():
    grouped = Grouped(Affine2d(["rotation"]), GROUPS)
    x = torch.rand(2, 1, 6, 6)
    t = torch.zeros(2, 5)
    t[:, 3] = 0.4  # of group b
    t[:, 1] = 0.9  # a spread moves nothing
    torch.testing.assert_close(grouped(x, t), Affine2d(["rotation"])(x, torch.full((2, 1), 0.4)))
    t[:, 4] = 0.4
    with pytest.raises(ValueError, match="one group at a time"):
        grouped(x, t)


def fitted(model, *arguments, data=None, **options):
    """A fit that is too short to converge, which is not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return bayesinv.fit(model, images() if data is None else data, *arguments, seed=0, **options)


@pytest.fixture(scope="module")
def posterior():
    return fitted(make(symmetries=["rotation"]), max_steps=40, num_draws=50)


def test_tables_and_files(posterior, tmp_path):
    names = ["rotation", "rotation spread", "rotation[a]", "rotation[b]", "rotation[c]"]
    assert list(posterior.summary().index) == names
    assert posterior.summary().loc["rotation spread", "unit"] == "sd"
    assert isinstance(posterior.model.extents, PooledExtents)
    tree = posterior.to_datatree(num_draws=10)
    assert "posterior_predictive" in tree.children
    loaded = bayesinv.InvariancePosterior.load(posterior.save(tmp_path / "groups"))
    assert loaded.data.groups.tolist() == posterior.data.groups.tolist()
    x = posterior.data.x[:4]
    for groups in (None, [0, 1, 2, NEW_GROUP]):
        torch.testing.assert_close(loaded.predict(x, groups=groups).mean, posterior.predict(x, groups=groups).mean)
    (panel,) = posterior.plot_extents().axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["population", "a", "b", "c"]
    assert len(posterior.plot_orbit(x[:1], "rotation[b]").axes) == 21


def test_checks_and_reports_know_that_groups_have_orbits_of_their_own(posterior):
    measured = orbit_sensitivity(posterior, factors=(1,), num_seeds=1, num_draws=8).table
    assert len(measured) == 2  # the fit's own orbit and one other
    assert measured["log_evidence"].is_unique
    with pytest.raises(ValueError, match="orbit of its own"):
        blur_matched_null(posterior)
    widest = furthest(posterior)
    assert widest.startswith("rotation[")  # not the population or its spread, which move no example
    assert posterior.summary().attrs["prefixes"]["rotation spread"] == ""
    assert "rotation spread  0." in str(posterior)
    text = extents_section(posterior, 0.9, False).body
    assert (
        "“rotation spread” is by how much groups differ" in text
        and "“rotation[a]” is what moves the examples of a" in text
    )
    assert "density" not in text and "densities" not in text  # rows, which have none


def test_the_orbit_of_a_group_is_shown_at_an_example_of_that_group(posterior, monkeypatch):
    drawn = []
    plot = type(posterior).plot_orbit
    monkeypatch.setattr(type(posterior), "plot_orbit", lambda self, x, **o: drawn.append(x) or plot(self, x, **o))
    for group, name in enumerate("abc"):
        monkeypatch.setattr("bayesinv.report.sections.furthest", lambda _, name=name: f"rotation[{name}]")
        section = orbits(posterior, False)
        assert section is not None
        assert f"A training image of group {name} under rotation[{name}] alone" in section.body
        first = posterior.data.groups.tolist().index(group)
        assert torch.equal(drawn[-1], posterior.data.x[first])
    assert len({tuple(x.flatten().tolist()) for x in drawn}) == 3


def test_a_report_says_how_to_give_test_data_of_groups_and_what_becomes_of_those_without(posterior, tmp_path):
    data = posterior.data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the fit is short
        text = posterior.report(tmp_path / "without.html").read_text()
        assert "test=bayesinv.Data(x_test, y_test, groups=groups_test)" in text
        unseen = "predicted by &#x27;this fit&#x27; as of a group that training has not seen"
        assert unseen in posterior.report(tmp_path / "unseen.html", test=(data.x, data.y)).read_text()
        assert unseen not in posterior.report(tmp_path / "seen.html", test=data).read_text()


def test_predictions_depend_on_the_group(posterior):
    x = posterior.data.x[:4]
    a, b = (posterior.predict(x, groups=[g] * 4).mean for g in "ab")
    assert not torch.allclose(a, b)
    torch.testing.assert_close(posterior.predict(x).mean, posterior.predict(x, groups=[NEW_GROUP] * 4).mean)
    with pytest.raises(DataError, match="is no group"):
        posterior.predict(x, groups=[7] * 4)
    with pytest.warns(UserWarning, match="'d' not among") as caught:
        posterior.predict(x, groups=["a", "b", "c", "d"])
    assert len(caught) == 1


def test_the_orbit_is_judged_by_what_moves_one_copy(posterior):
    """Four copies for one rotation, whatever the number of groups."""
    assert not [verdict for verdict in posterior.check() if "symmetries leave parts" in verdict.text]


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_groups_for_a_model_without_them():
    data = images()
    with pytest.warns(UserWarning, match="gives each its own"):
        bayesinv.fit(make(None, ["rotation"], priors={"rotation": 0.1}), data, seed=0, max_steps=2)
    plain = fitted(make(None, ["rotation"]), max_steps=3, num_draws=10)
    with pytest.raises(ValueError, match="leave groups out"):
        plain.predict(data.x, groups=data.groups)


def test_test_data_without_groups_are_told_of(posterior):
    data = images()
    plain = Data(data.x, data.y)
    for call in (
        lambda d: bayesinv.compare({"grouped": posterior}, d),
        lambda d: posterior.check(test=d),
        lambda d: bayesinv.checks.probability_integral_transform(posterior, d),
    ):
        with pytest.warns(UserWarning, match=r"test data do not say .*groups=names.*\['a', 'b', 'c'\]") as caught:
            call(plain)
        assert len(caught) == 1
        call(data)  # warnings are errors
        call(Data(data.x, data.y, groups=torch.full((24,), NEW_GROUP)))  # said so on purpose


@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")
def test_a_group_without_an_example_is_named():
    data = images()
    some = Data(data.x, data.y, groups=data.groups % 2)
    model = make(symmetries=["rotation"])
    with pytest.warns(UserWarning, match="no training example is of 'c', .*order") as caught:
        bayesinv.fit(model, some, seed=0, max_steps=2, num_draws=5)
    assert sum("no training example" in str(each.message) for each in caught) == 1


def test_selection_is_refused(posterior):
    with pytest.raises(ValueError, match="hang together"):
        bayesinv.select(posterior)


def test_selection_is_refused_before_the_model_is_fitted(monkeypatch):
    module = importlib.import_module("bayesinv.selection.select")
    monkeypatch.setattr(module, "fit", lambda *a, **k: pytest.fail("fitted what it refuses"))
    with pytest.raises(ValueError, match="hang together"):
        bayesinv.select(make(symmetries=["rotation"]), images())


@pytest.mark.slow
def test_nuts_runs_with_vector_sites():
    settings = {"num_chains": 1, "num_draws": 6, "num_warmup": 4, "max_steps": 30}
    draws = fitted(make(symmetries=["rotation"]), "nuts", **settings).result.draws
    assert draws.shape == (6, 5)
    assert torch.isfinite(draws).all()


@pytest.mark.slow
def test_groups_that_differ_are_told_apart():
    """Targets drawn with rotation 10° in one group and 150° in the other, known noise."""
    x = bayesinv.datasets.digits(math.pi, num_train=60, size=8, seed=0).train.x
    groups = torch.arange(60) % 2
    model = make(("narrow", "wide"), ["rotation"], num_orbit_samples=8)
    model.backbone.num_inducing = 60
    model.backbone.initialise(x, 1.0, 0)
    model.backbone.kernel.base_kernel.lengthscale *= 2.0
    model.evidence.noise_model.noise = 0.1
    eta = torch.tensor([0.0, 0.0, math.radians(10), math.radians(150)], dtype=torch.float64)
    y = model.simulate(x, eta, num_outputs=3, seed=0, groups=groups).y
    found = fitted(model.hold_hyperparameters(), data=Data(x, y, groups=groups), max_steps=200)
    narrow, wide = found["rotation[narrow]"], found["rotation[wide]"]
    assert float((narrow < wide).double().mean()) > 0.95
