"""Extents for groups of examples by a network: what every example sees, evidence, minibatches, fits and predictions."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import bayesinv
from bayesinv.data.container import Data, as_data
from bayesinv.data.groups import NEW_GROUP
from bayesinv.data.streams.sources import stream_of
from bayesinv.errors import CheckpointError, DataError, ExtentError, ImportanceWarning, NotConvergedWarning
from bayesinv.evidence import LaplaceEvidence
from bayesinv.inference import Fixed, Training
from bayesinv.orbits.groups import Grouped, GroupedOrbit
from bayesinv.orbits.orbit import Orbit
from bayesinv.report.sections import priors
from bayesinv.transforms import Affine2d, Flip, Rotation3d

GROUPS = ("a", "b", "c")
ROWS = [(0.3, 0.1), (1.5, 0.4), (0.0, 0.2)]  # extents of each group
QUICK = Training(batch_size=10, extent_batch_size=10)


class Unknown(nn.Module):
    """A linear layer whose use of its weight is none of those that the kernel takes apart."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))

    def forward(self, x):
        return torch.einsum("ni,oi->no", x, self.weight)


def small_net(outputs: int = 3, seed: int = 0, unknown: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        last = Unknown(3 * 36, outputs) if unknown else nn.Linear(3 * 36, outputs)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), last).double()


def make(likelihood="categorical", groups=GROUPS, evidence=None, **options) -> bayesinv.InvarianceModel:
    settings = {"num_orbit_samples": 4, "transforms": Affine2d(["rotation", "scale_x"]), **options}
    evidence = LaplaceEvidence(likelihood, num_outputs=None) if evidence is None else evidence
    net = settings.pop("backbone", None) or small_net(1 if likelihood == "bernoulli" else 3)
    return bayesinv.InvarianceModel(net, likelihood=likelihood, evidence=evidence, groups=groups, **settings)


def images(likelihood="categorical", n=9) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    groups = torch.tensor([1, 0, 2] * n)[:n]
    if likelihood == "gaussian":
        return Data(x, torch.randn(n, 3, generator=generator, dtype=torch.float64), groups=groups)
    classes = 2 if likelihood == "bernoulli" else 3
    return Data(x, torch.arange(n) // 2 % classes, classes, groups)


def extents(rows=ROWS):
    """η with a population of 0.5 and 0.1, spreads of 0.3, and these groups."""
    return torch.tensor([0.5, 0.1, 0.3, 0.3, *(v for row in rows for v in row)], dtype=torch.float64)


def pair(data, *arguments, **options):
    """The same model with groups and without, initialised."""
    models = make(*arguments, **options), make(*arguments, groups=None, **options)
    for model in models:
        model.initialise(data, seed=0)
    return models


def drawn(model, eta, data):
    torch.manual_seed(3)  # of the outputs that are drawn
    return model.log_evidence(eta, data)


KINDS = [
    ("categorical", {}),
    ("categorical", {"evidence": "laplace"}),
    ("categorical", {"evidence": "plugin", "average": "log_likelihood"}),
    ("categorical", {"average": "probabilities", "transforms": ["rotation", Flip()]}),
    ("categorical", {"transforms": ["rotation", Flip()], "backbone": small_net(unknown=True)}),
    ("bernoulli", {"evidence": "laplace"}),
    ("gaussian", {}),
    ("gaussian", {"evidence": "laplace"}),
    ("gaussian", {"evidence": "plugin"}),
]


@torch.no_grad()
@pytest.mark.parametrize(("likelihood", "options"), KINDS)
def test_groups_alike_are_the_model_without_groups(likelihood, options):
    data = images(likelihood)
    grouped, plain = pair(data, likelihood, **options)
    alike, eta = extents([(0.6, 0.2)] * 3), torch.tensor([0.6, 0.2], dtype=torch.float64)
    torch.testing.assert_close(drawn(grouped, alike, data), drawn(plain, eta, data))
    got = grouped.function_posterior(data.x, data, alike, data.groups)
    for a, b in zip(got, plain.function_posterior(data.x, data, eta), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_blocks_of_inputs_keep_their_groups():
    data, values = images(), []
    for budget in (2**30, 2**15):  # all at once, and a few at a time
        model = make(memory_budget=budget)
        model.initialise(data, seed=0)
        values.append(model.function_posterior(data.x, data, extents(), data.groups)[0])
    assert model.at(extents())._block_size(data.x) < 5
    torch.testing.assert_close(*values)


class UnknownMap(nn.Module):
    """As `Unknown`, for maps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0], [0.3], [-2.0]]))

    def forward(self, x):
        return torch.einsum("nihw,oi->nohw", x, self.weight)


@torch.no_grad()
@pytest.mark.parametrize("evidence", [LaplaceEvidence(num_outputs=None), LaplaceEvidence(num_outputs=2), "plugin"])
@pytest.mark.parametrize("net", [nn.Conv2d(1, 3, 3, padding=1).double(), UnknownMap().double()])
def test_maps_whose_outputs_are_moved_back(evidence, net):
    """A copy of an example is undone by the transform of its own group."""
    x, groups = images().x[:6, ..., :5, :5], images().groups[:6]
    data = Data(x, torch.arange(6 * 25).reshape(6, 5, 5) % 3, 3, groups)
    grouped, plain = pair(data, backbone=net, output_action="image", evidence=evidence)
    alike, eta = extents([(0.6, 0.2)] * 3), torch.tensor([0.6, 0.2], dtype=torch.float64)
    torch.testing.assert_close(drawn(grouped, alike, data), drawn(plain, eta, data))
    f = grouped.function_posterior(x, data, extents(), groups)[0]
    for g, row in enumerate(ROWS):
        own = plain.function_posterior(x[groups == g], data, torch.tensor(row, dtype=torch.float64))[0]
        torch.testing.assert_close(f[groups == g], own)


@torch.no_grad()
@pytest.mark.parametrize("num_outputs", [None, 1])
def test_vectors_that_turn_with_points(num_outputs):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, *shape, 3, generator=generator, dtype=torch.float64) for shape in ((5,), ()))
    net = nn.Sequential(nn.Flatten(), nn.Linear(15, 3)).double()
    turn = Rotation3d(["rotation_z", "rotation_x"])
    evidence = LaplaceEvidence("gaussian", num_outputs=num_outputs)
    data = Data(x, y, groups=images().groups)
    options = {"backbone": net, "output_action": "vector", "evidence": evidence, "transforms": turn}
    grouped, plain = pair(data, "gaussian", **options)
    alike, eta = extents([(0.6, 0.2)] * 3), torch.tensor([0.6, 0.2], dtype=torch.float64)
    torch.testing.assert_close(drawn(grouped, alike, data), drawn(plain, eta, data))


@torch.no_grad()
def test_an_average_with_a_weight_of_its_own_for_every_example():
    """By ``vmap``, which sees one example at a time, as by the batch."""
    data, values = images(), []
    known = nn.Linear(3 * 36, 3, bias=False).double()
    unknown = small_net(unknown=True)
    known.weight.copy_(unknown[3].weight)
    for net in (unknown, nn.Sequential(*unknown[:3], known)):
        model = make(backbone=net, transforms=["rotation", Flip()])
        model.initialise(data, seed=0)
        values.append(model.log_evidence(extents([(0.3, 0.1), (1.5, 0.4), (0.0, 0.9)]), data))
    torch.testing.assert_close(*values)


@torch.no_grad()
def test_an_example_sees_copies_drawn_within_the_extents_of_its_group():
    data = images()
    grouped, plain = pair(data, transforms=["rotation", Flip()])
    f = grouped.function_posterior(data.x, data, extents(), data.groups)[0]
    for i, g in enumerate(data.groups.tolist()):
        own = torch.tensor(ROWS[g], dtype=torch.float64)
        h = plain.network(plain.orbit(data.x[i : i + 1], own)[:, 0])
        torch.testing.assert_close(f[i], plain.orbit.weights(own) @ h)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_the_exact_evidence_is_that_of_the_jacobians_by_hand(likelihood):
    data = images(likelihood)
    model = make(likelihood)
    model.initialise(data, seed=0)
    weights = {name: w.detach() for name, w in model.network.weights().items()}
    own = [torch.tensor(ROWS[g], dtype=torch.float64) for g in data.groups.tolist()]
    copies = torch.stack([model.orbit(x[None], eta)[:, 0] for x, eta in zip(data.x, own, strict=True)], 1)

    def f(weights):
        outputs = functional_call(model.network.net, weights, (copies.flatten(0, 1),)).unflatten(0, (4, 9))
        return model.network.in_unit(outputs).mean(0)

    jacobians, scales = jacrev(f)(weights), model.network.prior_scales()
    J = torch.cat([(scales[name].detach() * J).reshape(27, -1) for name, J in jacobians.items()], 1)
    p = f(weights).softmax(-1)
    noise = model.evidence.noise.detach()
    blocks = [p_i.diag() - torch.outer(p_i, p_i) if likelihood == "categorical" else torch.eye(3) / noise for p_i in p]
    curvature = torch.block_diag(*blocks).double() @ (J @ J.T)
    if likelihood == "categorical":
        log_likelihood = p.log()[torch.arange(9), data.y].sum()
    else:
        log_likelihood = torch.distributions.Normal(f(weights), noise.sqrt()).log_prob(data.y).sum()
    penalty = sum((w / scales[name].detach()).square().sum() for name, w in weights.items())
    expected = log_likelihood - 0.5 * penalty - 0.5 * torch.linalg.slogdet(torch.eye(27) + curvature)[1]
    value = model.log_evidence(extents(), data)
    torch.testing.assert_close(value.detach(), expected.detach().double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("likelihood", "options"),
    [
        ("categorical", {}),
        ("categorical", {"evidence": "laplace"}),
        ("categorical", {"evidence": "plugin", "transforms": ["rotation", Flip()]}),
        ("categorical", {"transforms": ["rotation", Flip()], "backbone": small_net(unknown=True)}),
        ("gaussian", {"evidence": "laplace"}),
    ],
)
def test_gradients_are_those_of_finite_differences(likelihood, options):
    data = images(likelihood)
    model = make(likelihood, **options)
    model.initialise(data, seed=0)
    eta = extents() + 0.05
    (gradient,) = torch.autograd.grad(drawn(model, eta.requires_grad_(), data), eta)
    for k in range(4, 10):
        step = 1e-6 * torch.eye(10, dtype=torch.float64)[k]
        with torch.no_grad():
            slope = (drawn(model, eta + step, data) - drawn(model, eta - step, data)) / 2e-6
        assert float(gradient[k]) == pytest.approx(float(slope), rel=1e-4, abs=1e-5)
    assert (gradient[4:] != 0).all()
    assert (gradient[:4] == 0).all()  # population and spreads act through the prior alone


def test_the_gradient_reaches_the_group_of_the_examples_alone():
    data = images()
    model = make()
    model.initialise(data)
    eta = extents().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_evidence(eta, Data(data.x, data.y, 3, torch.ones(9).long())), eta)
    assert (gradient[6:8] != 0).all()
    assert (gradient[[0, 1, 2, 3, 4, 5, 8, 9]] == 0).all()


def test_a_deep_kernel_is_a_network():
    data = images()
    features = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh()).double()
    grouped, plain = pair(data, backbone=bayesinv.DeepKernel(features, num_inducing=5))
    alike, eta = extents([(0.6, 0.2)] * 3), torch.tensor([0.6, 0.2], dtype=torch.float64)
    torch.testing.assert_close(drawn(grouped, alike, data).detach(), drawn(plain, eta, data).detach())


def test_the_orbit_of_groups_by_itself():
    orbit = Orbit(Affine2d(["rotation", "scale_x"]), 4)
    each, x = GroupedOrbit(Grouped(orbit.transform, GROUPS), orbit), images().x
    assert each.num_copies == 4 and each.of([0, 1]).weights(extents()) is None
    with pytest.raises(ValueError, match=r"orbit\.of\(groups\)"):
        each(x, extents())
    with pytest.raises(ValueError, match="expected 2 examples"):
        each.of([0, 1])(x, extents())
    with pytest.raises(DataError, match="is no group"):
        each.of([0, NEW_GROUP])
    t = each.of(images().groups).coordinates(extents())
    assert t.shape == (4, 9, 2)
    points = each.of(images().groups)(x, extents())
    torch.testing.assert_close(points, orbit.transform.orbit_per_example(x, t))
    each.new = torch.tensor([2.0, 0.0], dtype=torch.float64)
    unseen = each.of([0, NEW_GROUP]).coordinates(extents())
    torch.testing.assert_close(unseen[:, 1], orbit.coordinates(each.new))


# Data in minibatches: an example's first pixel says what group it is of.


def marked(n=30):
    data = images(n=n)
    x = data.x.clone()
    x[:, 0, 0, 0] = data.groups.double()
    return Data(x, data.y, 3, data.groups)


class Items(Dataset):
    def __init__(self, data, name=lambda g: g, parts=3):
        self.data, self.name, self.parts = data, name, parts

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return (self.data.x[i], self.data.y[i], self.name(int(self.data.groups[i])))[: self.parts]


class Iterated(IterableDataset):
    def __init__(self, data):
        self.items = Items(data)

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.items[i] for i in range(len(self)))


def sources():
    data = marked()
    tensors = TensorDataset(data.x, data.y, data.groups)
    return {
        "data": data,
        "numbers": Items(data),
        "names": Items(data, lambda g: GROUPS[g]),
        "tensors": tensors,
        "loader": DataLoader(tensors, batch_size=4, shuffle=True),
        "named loader": DataLoader(Items(data, lambda g: GROUPS[g]), batch_size=4),
        "iterated": Iterated(data),
    }


@pytest.mark.parametrize("name", sources())
def test_batches_carry_the_groups_of_their_examples(name):
    stream = stream_of(sources()[name], "categorical", groups=GROUPS)
    for batch in (stream.subset(7, 0), stream.subset(30, 0), *(stream.batch(0, "weights", t, 8) for t in range(5))):
        torch.testing.assert_close(batch.x[:, 0, 0, 0], batch.groups.double())


def test_data_sets_that_do_not_say_which_example_is_of_which_group():
    data = marked()
    with pytest.raises(DataError, match=r"of 2; expected \(x, y, group\)"):
        stream_of(Items(data, parts=2), "categorical", groups=GROUPS)
    with pytest.raises(DataError, match=r"of 3; expected pairs \(x, y\)"):
        stream_of(Items(data), "categorical")
    with pytest.raises(DataError, match="'group 1' not among a, b, c"):
        stream_of(Items(data, lambda g: f"group {g}"), "categorical", groups=GROUPS)
    with pytest.raises(DataError, match="3 is no group of this model"):
        stream_of(Items(data, lambda g: g + 2), "categorical", groups=GROUPS).batch(0, "weights", 0, 8)
    with pytest.raises(DataError, match=r"groups of the examples go into bayesinv\.Data"):
        bayesinv.fit(make(transforms="rotation"), (data.x, data.y, data.groups), max_steps=2)
    with pytest.raises(DataError, match="do not say which example is of which"):
        bayesinv.fit(make(transforms="rotation"), (data.x, data.y), max_steps=2)
    with pytest.raises(DataError, match="2 is no group of this model"):
        bayesinv.fit(make(transforms="rotation", groups=("a", "b")), data, max_steps=2)


def test_named_data_give_the_fit_of_numbered_data():
    data = marked()
    order = ("c", "a", "b")
    named = Data(data.x, data.y, 3, [order[g] for g in data.groups.tolist()])
    options = {"max_steps": 3, "training": QUICK, "seed": 0}
    one, other = (bayesinv.fit(make(groups=order), d, "none", **options) for d in (named, data))
    assert one.data.groups.tolist() == other.data.groups.tolist() == data.groups.tolist()
    torch.testing.assert_close(one.predict(data.x).probs, other.predict(data.x).probs)
    scores = [bayesinv.compare({"fit": one}, d).table["elpd"].item() for d in (named, data)]
    assert scores[0] == scores[1]
    with pytest.warns(UserWarning, match="gives each its own"):
        plain = bayesinv.fit(make(groups=None, transforms="rotation"), named, "none", **options)
    assert plain.data.groups is None


def test_a_data_set_is_scored_as_it_was_fitted(posterior, tmp_path):
    data = marked()
    names = Items(data, lambda g: GROUPS[g])
    test = {**sources(), "new": Items(data, lambda g: -1)}
    score = {name: bayesinv.compare({"fit": posterior}, d).table["elpd"].item() for name, d in test.items()}
    assert len({value for name, value in score.items() if name != "new"}) == 1
    assert score["new"] != score["data"]
    verdicts = [str(posterior.check(test=d)) for d in (names, DataLoader(names, batch_size=4), data)]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert posterior.report(tmp_path / "report.html", test=names).exists()
    plain = fitted(make(groups=None, transforms="rotation"), (data.x, data.y), "none")
    for call in (lambda: bayesinv.compare({"one": plain}, names), lambda: plain.check(test=names)):
        with pytest.raises(DataError, match=r"pair \(x, y\); groups of the examples go into bayesinv\.Data"):
            call()


def test_scores_say_where_no_test_example_is_of_a_known_group(posterior):
    data = marked()

    def notes(groups):
        return bayesinv.compare({"fit": posterior}, Data(data.x, data.y, 3, groups)).notes

    with pytest.warns(UserWarning, match="'nobody' not among a, b, c"):
        (note,) = notes(["nobody"] * 30)
    assert "as of a group that training has not seen" in note
    assert notes([NEW_GROUP] * 30) == (note,)
    assert notes(["a", *["b"] * 29]) == notes(data.groups) == ()


class Mixed(Items):
    def __getitem__(self, i):
        return super().__getitem__(i)[: 2 + i % 2]


def test_items_whose_groups_cannot_be_read():
    data = marked()
    for items, message in {
        Items(data, lambda g: [g, g]): r"the groups have shape \(30, 2\); expected the name",
        Items(data, float): "dtype float64; expected the name of a group",
        Mixed(data): "example 1 has 3 parts and those before it 2",
    }.items():
        with pytest.raises(DataError, match=message):
            as_data(items, "categorical")


def test_a_collapsed_evidence_reads_groups_from_a_data_set():
    data = marked()
    gp = bayesinv.GaussianProcess(num_inducing=5)

    def fit(groups, given):
        model = bayesinv.InvarianceModel(gp, "rotation", num_orbit_samples=2, groups=groups)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportanceWarning)
            warnings.simplefilter("ignore", NotConvergedWarning)
            return bayesinv.fit(model, given, max_steps=2, num_draws=5, seed=0)

    named = fit(GROUPS, Items(data, lambda g: GROUPS[g]))
    assert named.data.groups.tolist() == data.groups.tolist()
    with pytest.raises(DataError, match=r"groups of the examples go into bayesinv\.Data"):
        fit(None, Items(data))
    with pytest.warns(UserWarning, match="no training example is of 'd'"):
        fit((*GROUPS, "d"), Items(data))


@pytest.mark.parametrize("name", ["data", "numbers", "names", "tensors", "loader", "named loader"])
def test_groups_without_an_example_are_told_of_whatever_the_source(name, monkeypatch):
    options = {"max_steps": 2, "training": QUICK, "seed": 0}
    with pytest.warns(UserWarning, match="no training example is of 'd'") as caught:
        bayesinv.fit(make(groups=[*GROUPS, "d"]), sources()[name], "none", **options)
    assert len(caught) == 1
    # Of a data set that is not read whole only what is in memory is known.
    monkeypatch.setattr("bayesinv.inference.minibatch_fit.KEPT_EXAMPLES", 7)
    with warnings.catch_warnings(record=True) as few:
        warnings.simplefilter("always")
        bayesinv.fit(make(groups=[*GROUPS, "d"]), sources()[name], "none", **options)
    assert len(few) == (name in ("data", "tensors", "loader"))


def test_a_checksum_tells_other_groups_apart():
    data = marked()
    other = Data(data.x, data.y, 3, data.groups.flip(0))
    assert stream_of(data, "categorical").digest() != stream_of(other, "categorical").digest()


# Fits and what comes of them


def fitted(model, data=None, method="vi", **options):
    """A fit that is too short to converge, which is not what is tested here."""
    data = images(model.likelihood, n=30) if data is None else data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return bayesinv.fit(model, data, method, **{"max_steps": 20, "training": QUICK, "num_draws": 6, **options})


@pytest.fixture(scope="module")
def posterior():
    return fitted(make(transforms="rotation"), max_steps=60)


def test_tables_files_and_comparisons(posterior, tmp_path):
    names = ["rotation", "rotation spread", "rotation[a]", "rotation[b]", "rotation[c]"]
    assert list(posterior.summary().index) == names
    assert posterior.result.settings["training_copies"] == 4  # of one orbit, whatever the number of groups
    data = posterior.data
    again = bayesinv.load(posterior.save(tmp_path / "fit.npz"), model=make(transforms="rotation"))
    for groups in (None, data.groups[:4], ["a", "c", "c", "b"]):
        torch.testing.assert_close(
            again.predict(data.x[:4], groups=groups).probs, posterior.predict(data.x[:4], groups=groups).probs
        )
    table = bayesinv.compare({"one": posterior, "other": again}, data).table
    assert len(table) == 2 and table["accuracy"].nunique() == 1
    assert [verdict.level for verdict in posterior.check(test=data)]
    assert "log_likelihood" in posterior.to_datatree(num_draws=3, log_likelihood=True).children


def test_predictions_depend_on_the_group_and_new_groups_come_from_the_population(posterior):
    x = posterior.data.x[:5]
    a, b = (posterior.predict(x, groups=[g] * 5).probs for g in "ab")
    assert not torch.allclose(a, b)
    torch.testing.assert_close(posterior.predict(x).probs, posterior.predict(x, groups=[NEW_GROUP] * 5).probs)
    assert not torch.allclose(posterior.predict(x).probs, posterior.predict(x, seed=1).probs)
    some = posterior.predict(x, groups=[0, 0, 0, 0, NEW_GROUP]).probs
    torch.testing.assert_close(some[:4], a[:4])
    with pytest.raises(DataError, match="is no group"):
        posterior.predict(x, groups=[7] * 5)
    data = Data(x, posterior.data.y[:5], 3, torch.tensor([0, 1, 2, NEW_GROUP, NEW_GROUP]))
    values = [posterior.model.log_likelihood(data, posterior.data, posterior.sample(3), seed=5) for _ in range(2)]
    torch.testing.assert_close(values[0], values[1])


def test_a_new_group_under_a_spread_of_nothing_is_as_the_population():
    data = images()
    model = make(transforms="rotation", priors={"rotation spread": 0.0})
    model.initialise(data)
    eta = torch.tensor([0.5, 0.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    torch.manual_seed(0)
    new = model.at(eta, new_group=True).orbit.new
    assert 0.0 < abs(float(new) - 0.5) < 0.1  # 0.02 standard deviations, of the probit of a share of π


def test_labels_are_simulated_at_the_extents_of_groups():
    data, model = images(), make(transforms="rotation")
    model.initialise(data)
    eta = torch.tensor([0.5, 0.3, 0.0, 1.0, 2.0], dtype=torch.float64)
    drawn = model.simulate(data.x, eta, seed=0, groups=data.groups)
    torch.testing.assert_close(drawn.function, model.function_posterior(data.x, data, eta, data.groups)[0])
    assert drawn.y.shape == (9,)
    with pytest.raises(DataError, match="do not say which example is of which"):
        model.simulate(data.x, eta)
    with pytest.raises(ValueError, match="leave groups out"):
        make(groups=None).simulate(data.x, groups=data.groups)


@pytest.mark.parametrize("evidence", ["laplace", "plugin"])
@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_fits_of_both_evidences(evidence, likelihood):
    priors = {"rotation": bayesinv.Outward(1.0)} if evidence == "plugin" else None
    posterior = fitted(make(likelihood, evidence=evidence, transforms=["rotation", Flip()], priors=priors))
    assert torch.isfinite(posterior.sample(5)).all()
    assert posterior.predict(images().x, groups=images().groups).variance.shape == (9, 3)
    warned = [note for note in posterior.result.warnings if "never rewards" in note]
    assert len(warned) == (evidence == "plugin")
    assert all("spread" not in note and "[a]" not in note for note in warned)


def test_data_sets_are_fitted_as_arrays_are():
    data = marked()
    of_arrays, of_items = (fitted(make(transforms="rotation"), given) for given in (data, Items(data)))
    torch.testing.assert_close(of_items.result.extents, of_arrays.result.extents)


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    def run(path, **options):
        training = Training(batch_size=10, extent_batch_size=10, checkpoint=path, checkpoint_every=5)
        return fitted(make(transforms="rotation"), max_steps=30, training=training, **options)

    def kill(step):
        if step.step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", callbacks=[kill])
    resumed, whole = run(tmp_path / "killed"), run(tmp_path / "whole")
    torch.testing.assert_close(resumed.result.extents, whole.result.extents, rtol=0, atol=0)
    assert resumed.trace == whole.trace
    data = images(n=30)
    with pytest.raises(CheckpointError):
        run(tmp_path / "killed", data=Data(data.x, data.y, 3, data.groups.flip(0)))


@pytest.mark.parametrize("method", ["none", Fixed({"rotation": 0.4, "rotation[b]": 0.0})])
def test_hand_fixed_extents(method):
    model, data = make(transforms="rotation"), images(n=30)
    posterior = fitted(model, data, method, max_steps=5)
    eta = [0.0] * 5 if method == "none" else [0.4, 0.0, 0.4, 0.0, 0.4]
    torch.testing.assert_close(posterior.sample(1)[0], torch.tensor(eta).double())
    a, b, new = (posterior.predict(data.x, groups=[g] * 30).probs for g in (0, 1, NEW_GROUP))
    assert torch.allclose(a, b) == (method == "none")
    torch.testing.assert_close(a, new)
    h = posterior.model.network(data.x).softmax(-1).detach()
    torch.testing.assert_close(b, h)
    written = priors(posterior.model)["prior of rotation in each group"]
    assert written == ("as rotation itself" if method == "none" else "fixed at 0.4 (a), 0 (b), 0.4 (c); internal units")


def test_hand_fixed_extents_are_trained_with_the_groups_of_the_batch():
    data, model = images(), make(transforms=["rotation", Flip()])
    method = Fixed({"rotation": 0.0, "rotation[b]": 2.0, "flip_x": 0.0})
    objective = method.objective(model, QUICK, 9, 0)
    torch.manual_seed(0)
    still = objective.loss(data.subset(data.groups == 0), 9)
    torch.manual_seed(1)
    torch.testing.assert_close(objective.loss(data.subset(data.groups == 0), 9), still)
    turned = objective.loss(data.subset(data.groups == 1), 9)
    torch.manual_seed(2)
    assert abs(float((objective.loss(data.subset(data.groups == 1), 9) - turned).detach())) > 1e-6


def test_what_does_not_work_is_refused(posterior):
    for method in ("augerino", "augnet", "policy"):
        with pytest.raises(ValueError, match=r"all groups share.*one of \['fixed', 'none'\]"):
            bayesinv.fit(make(), images(), method)
    with pytest.raises(ValueError, match="leave num_copies out"):
        Fixed({"rotation": 0.4}, num_copies=2).prepare(make(transforms="rotation"))
    with pytest.raises(ExtentError, match="unknown symmetries \\['rotation spread'\\]"):
        Fixed({"rotation spread": 0.4}).prepare(make(transforms="rotation"))
    with pytest.raises(ValueError, match="leave one out"):
        make(outputs=GROUPS)
    with pytest.raises(ValueError, match="hang together"):
        bayesinv.select(posterior)
    with pytest.raises(ValueError, match="fit one without groups"):
        bayesinv.checks.refitted_extents(posterior)
    with pytest.warns(UserWarning, match="no training example is of 'd'"):
        bayesinv.fit(make(groups=[*GROUPS, "d"]), images(n=30), "none", max_steps=2, training=QUICK)
    plain = make(groups=None, transforms="rotation")
    with pytest.warns(UserWarning, match="gives each its own"):
        bayesinv.fit(plain, images(n=30), "none", max_steps=2, training=QUICK)


@pytest.mark.slow
def test_groups_that_differ_are_told_apart():
    """Targets by a network that sees one group within ±10° and the other within ±150°."""
    groups = torch.arange(360) % 2
    x = bayesinv.datasets.digits(math.pi, num_train=360, size=8, seed=0).train.x

    def model(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 3))
        net = bayesinv.NeuralNetwork(net, start_gain=2.0)
        return bayesinv.InvarianceModel(
            net, "rotation", likelihood="gaussian", groups=["narrow", "wide"], num_orbit_samples=8
        )

    teacher = model(0)
    teacher.network.sample_weights(0)
    with torch.no_grad():
        teacher.evidence.log_noise.fill_(math.log(0.01 * float(teacher.network(x).var())))
    eta = torch.tensor([0.0, 0.0, math.radians(10), math.radians(150)], dtype=torch.float64)
    y = teacher.simulate(x, eta, seed=0, groups=groups).y
    found = fitted(model(1), Data(x, y.float(), groups=groups), max_steps=400, training=Training(), num_draws=100)
    narrow, wide = found["rotation[narrow]"].rad2deg(), found["rotation[wide]"].rad2deg()
    assert float(narrow.quantile(0.95)) < 60 < 90 < float(wide.quantile(0.05))
