"""``discover`` end to end on small data: what is there is found, what is not is not, and bad input is refused."""

import dataclasses
import math
import subprocess
import sys

import matplotlib.figure
import pandas as pd
import pytest
import torch
from gpytorch.kernels import LinearKernel, MaternKernel, RBFKernel
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, discover
from bayesinv.discovery import Discovery, FoundPermutation
from bayesinv.discovery.algebra import algebra_for
from bayesinv.discovery.discover import _process
from bayesinv.discovery.search import Search
from bayesinv.errors import DataError, DataWarning
from bayesinv.export import Augmentation
from bayesinv.transforms import ImageFlow, LinearFlow, Permutation

SMALL = {"num_features": 128, "num_points": 80}
TURN = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])


def round_data(n=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    return x, (1.5 * x.norm(dim=1)).sin() + 0.1 * torch.randn(n, dtype=torch.float64, generator=generator)


def crooked_data(n=120, seed=0):
    """A function without symmetry."""
    x, _ = round_data(n, seed)
    generator = torch.Generator().manual_seed(100 + seed)
    W, phase = torch.randn(2, 200, generator=generator).double(), 6.3 * torch.rand(200, generator=generator).double()
    f = (x @ W + phase).cos() @ torch.randn(200, generator=generator).double() / 10.0
    return x, f + 0.1 * torch.randn(n, dtype=torch.float64, generator=generator)


@pytest.fixture(scope="module")
def found():
    return discover(None, round_data(), extents=False, permutations=False, **SMALL)


class TestRotation:
    def test_one_generator_is_found(self, found):
        assert found.dimension == 1 and found.group == "so(2)" and found.names == ("rotation x-y",)
        assert found.probabilities[1] > 0.99 and sum(found.probabilities.values()) == pytest.approx(1.0)

    def test_its_direction_is_that_of_rotations_within_the_cone(self, found):
        angle = float(found.angle_to(TURN).max())
        assert angle < min(6.0, 2.0 * found.cone) and found.cones[0] == pytest.approx(found.cone, rel=1e-6)
        assert found.generators.flatten(1).norm(dim=1).tolist() == pytest.approx([1.0])

    def test_draws_lie_in_the_cone_nine_times_in_ten(self, found):
        cosines = (found.draws * found.generators).sum((-3, -2, -1)).abs().clamp(max=1.0)
        inside = torch.rad2deg(cosines.acos()) <= found.cone + 1e-9
        assert float(inside.double().mean()) == pytest.approx(0.9, abs=0.01)

    def test_it_is_handed_on_as_a_transform(self, found):
        (flow,) = found.transforms()
        assert isinstance(flow, LinearFlow) and flow.names == ("rotation_x-y",)
        assert InvarianceModel(GaussianProcess(), flow, "gaussian").symmetries == flow.names
        x, _ = round_data(20)
        moved = Augmentation(flow, torch.tensor([[1.0]]), (2,))(x)
        torch.testing.assert_close(moved.norm(dim=1), x.norm(dim=1), atol=0.1, rtol=0.1)
        assert not torch.equal(moved, x)

    def test_a_centre_in_a_name_leaves_a_plain_coordinate(self, found):
        (flow,) = dataclasses.replace(found, names=("rotation x-y about (12, -8)",)).transforms()
        assert flow.names == ("rotation_x-y_about_12_-8",)

    def test_it_says_what_it_found(self, found):
        text = str(found)
        assert "1 generator, so(2)" in text and "rotation x-y, within" in text
        table = found.summary()
        assert isinstance(table, pd.DataFrame) and list(table.index) == ["rotation x-y"]
        assert table.loc["rotation x-y", "kind"] == "generator" and table.loc["rotation x-y", "probability"] > 0.99
        assert isinstance(found.plot(), matplotlib.figure.Figure)

    def test_a_wide_cone_is_said_not_to_be_trusted(self, found):
        assert "do not trust" in str(dataclasses.replace(found, cone=7.6))
        assert "do not trust" not in str(dataclasses.replace(found, cone=3.0))

    def test_every_row_of_the_summary_has_its_extent(self, found, monkeypatch):
        both = tuple(FoundPermutation(order, f"cycle {order}", 3.0, 0.9) for order in ((1, 0), (0, 1)))
        extents = pd.DataFrame(
            {"median": [170.0, 0.8], "lower": [160.0, 0.5], "upper": [180.0, 1.0], "unit": ["°", ""]},
            index=["rotation_x-y", "permutation"],
        )
        monkeypatch.setattr(Discovery, "extents", property(lambda self: extents))
        table = dataclasses.replace(found, permutations=both, permutation_group=((0, 1), (1, 0))).summary()
        assert table["extent"].tolist() == [170.0, 0.8, 0.8] and table["unit"].tolist() == ["°", "", ""]
        alone = dataclasses.replace(found, names=(), cones=(), permutations=both[:1]).summary()
        assert alone["extent"].tolist() == [0.8] and list(alone.index) == [both[0].name]

    def test_results_compare_by_identity(self, found):
        assert found == found and found != dataclasses.replace(found)

    def test_the_same_seed_gives_the_same_result(self, found):
        again = discover(None, round_data(), extents=False, permutations=False, **SMALL)
        assert torch.equal(again.generators, found.generators) and again.cones == found.cones

    def test_angles_need_generators_of_the_same_shape(self, found):
        with pytest.raises(ValueError, match="expected"):
            found.angle_to(torch.zeros(1, 3, 3))


def test_the_kernel_given_decides(found):
    x, y = round_data()
    own = GaussianProcess(MaternKernel(nu=2.5), num_features=128)
    other = discover(own, (x, y), extents=False, permutations=False, num_points=80)
    assert other.dimension == 1 and other.log_evidences != found.log_evidences
    assert not own.is_initialised  # it is the caller's


def test_nothing_is_found_where_nothing_is():
    nothing = discover(None, crooked_data(), extents=False, **SMALL)
    assert nothing.dimension == 0 and nothing.probabilities == {0: 1.0} and nothing.permutations == ()
    assert nothing.transforms() == [] and len(nothing.summary()) == 0 and nothing.extents is None
    assert "no generator" in str(nothing)
    nothing.plot()
    with pytest.raises(ValueError, match="no generator"):
        nothing.angle_to(TURN)


def test_targets_that_do_not_depend_on_the_inputs_have_every_symmetry():
    x, _ = round_data()
    noise = discover(None, (x, torch.randn(len(x), generator=torch.Generator().manual_seed(5))), extents=False, **SMALL)
    assert not noise.depends and noise.dimension == 0 and noise.permutations == ()
    assert "does not depend" in str(noise)


def test_columns_that_may_change_places_are_found():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 3, dtype=torch.float64, generator=generator)
    y = x[:, :2].sin().sum(1) * x[:, 2].cos() + x.prod(1) + 0.1 * torch.randn(150, generator=generator)
    frame = pd.DataFrame(x.numpy(), columns=["left", "right", "weight"])
    swapped = discover(None, (frame, y), extents=False, max_dimension=1, **SMALL)
    assert swapped.dimension == 0
    assert [p.name for p in swapped.permutations] == ["exchange of left and right"]
    assert swapped.permutation_group == ((0, 1, 2), (1, 0, 2)) and swapped.permutations[0].probability > 0.99
    (transform,) = swapped.transforms()
    assert isinstance(transform, Permutation)
    assert "exchange of left and right: log Bayes factor" in str(swapped)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")  # of a fit that is kept short
def test_extents_come_from_a_fit(monkeypatch):
    def short(model, data, seed):
        return bayesinv.fit(model, data, seed=seed, max_steps=40, num_draws=40)

    monkeypatch.setattr("bayesinv.discovery.discover.fit", short)
    with_extents = discover(None, round_data(), permutations=False, **SMALL)
    table = with_extents.summary()
    assert with_extents.posterior is not None and table.loc["rotation x-y", "unit"] == "°"
    assert 0 < table.loc["rotation x-y", "lower"] < table.loc["rotation x-y", "extent"]
    assert "extents:" in str(with_extents) and "rotation_x-y" in str(with_extents)


def test_the_gradients_of_a_network_make_the_first_proposal(monkeypatch):
    seen = []
    starts = Search._starts

    def recorded(self, V, u):
        for start in starts(self, V, u):
            seen.append(start)
            yield start

    monkeypatch.setattr(Search, "_starts", recorded)

    class Radius(nn.Module):
        def forward(self, x):
            return x.square().sum(-1, keepdim=True)

    discover(Radius(), round_data(), extents=False, permutations=False, max_dimension=1, **SMALL)
    assert abs(float(seen[0][:, 0] @ TURN.double().flatten()) / math.sqrt(2.0)) > 0.999


class Elsewhere(nn.Module):
    """Like a network on an accelerator: it fails on tensors of the CPU until it is brought there."""

    here = False

    def _apply(self, fn, recurse=True):
        self.here = True
        return super()._apply(fn, recurse)

    def forward(self, x):
        if not self.here:
            raise RuntimeError("Expected all tensors to be on the same device")
        return x.square().sum(-1, keepdim=True)


def test_models_on_another_device_are_brought_to_the_cpu(monkeypatch):
    x, _ = round_data(40)
    algebra, network = algebra_for(x, "linear"), Elsewhere()
    _, outputs = _process(network, None, algebra)
    assert outputs(x).shape == (40, 1) and not network.here
    moved = []
    monkeypatch.setattr(nn.Module, "cpu", lambda self: moved.append(type(self)) or self)
    for model in (RBFKernel(), GaussianProcess(RBFKernel()), GaussianProcess(RBFKernel(), num_features=64)):
        _process(model, None, algebra)
    assert moved == [RBFKernel, GaussianProcess, GaussianProcess]


def test_more_columns_have_more_features():
    numbers = []
    for d in (1, 2, 3, 4):
        x = torch.randn(30, d, generator=torch.Generator().manual_seed(0))
        numbers.append(_process(None, None, algebra_for(x, "linear"))[0].num_features)
    assert numbers == [256, 256, 512, 1024]


@pytest.mark.slow
def test_rotations_in_space_are_three_generators():
    """Two of them explain the data as well, and are no algebra."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, dtype=torch.float64, generator=generator)
    y = (1.5 * x.norm(dim=1)).sin() + 0.1 * torch.randn(300, generator=generator)
    sphere = discover(None, (x, y), extents=False, permutations=False, num_points=150)
    assert sphere.dimension == 3 and sphere.group == "so(3)" and 2 not in sphere.probabilities
    truth = torch.zeros(3, 3, 3)
    for k, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        truth[k, i, j], truth[k, j, i] = -1.0, 1.0
    assert float(sphere.angle_to(truth).max()) < 4.0
    assert max(sphere.cones) <= sphere.cone + 1e-6


@pytest.mark.slow
def test_rotated_pictures_have_a_rotation():
    train = bayesinv.datasets.digits(rotation=math.pi, num_train=300, size=8, seed=0).train
    turned = discover(None, train, extents=False, max_dimension=1, num_features=256, num_points=100)
    assert turned.dimension == 1
    (flow,) = turned.transforms()
    assert isinstance(flow, ImageFlow)
    moved = Augmentation(flow, torch.tensor([[0.5]]), (1, 8, 8))(train.x[0])
    assert moved.shape == (1, 8, 8) and not torch.equal(moved, train.x[0])
    assert math.cos(math.radians(float(turned.angle_to(torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]]))[0]))) > 0.95


class TestRefusals:
    @pytest.mark.parametrize(
        ("model", "error", "words"),
        [
            (InvarianceModel(GaussianProcess(), "rotation"), TypeError, "expected a GaussianProcess"),
            (GaussianProcess(num_inducing=10), ValueError, "feature space"),
            (LinearKernel(), ValueError, "spectral density"),
            (nn.Linear(7, 1), DataError, "network failed"),
        ],
        ids=["model", "inducing", "linear", "network"],
    )
    def test_models(self, model, error, words):
        with pytest.raises(error, match=words):
            discover(model, round_data(40), **SMALL)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"likelihood": "poisson"}, "likelihood"),
            ({"algebra": "cubic"}, "algebra"),
            ({"tolerance": 0.0}, "tolerance"),
            ({"num_examples": 5}, "num_examples"),
            ({"max_dimension": 0}, "max_dimension"),
            ({"max_dimension": 4}, "max_dimension: expected an integer from 1 to 3"),
            ({"num_features": 0}, "num_features"),
        ],
    )
    def test_options(self, options, words):
        with pytest.raises(ValueError, match=words):
            discover(None, round_data(40), **options)

    def test_data(self):
        x, y = round_data(40)
        with pytest.raises(DataError, match="at least 30"):
            discover(None, (x[:10], y[:10]))
        with pytest.raises(DataError, match="constant"):
            discover(None, (x, torch.ones(40)))
        with pytest.raises(DataError, match="at least two directions"):
            discover(None, (x[:, :1], y))

    def test_columns_of_other_units_are_warned_of(self):
        x, y = round_data(40)
        with pytest.warns(DataWarning, match="standardise"):
            discover(
                None,
                (x * torch.tensor([1.0, 1000.0]), y),
                extents=False,
                permutations=False,
                max_dimension=1,
                num_features=32,
                num_points=10,
            )

    @pytest.mark.slow
    def test_warnings_are_about_the_line_that_called(self, tmp_path):
        """In a process without type checks, which put calls of their own between."""
        script = tmp_path / "caller.py"
        script.write_text(
            "import torch, bayesinv\n"
            "x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1000.0, 0.0])\n"
            "options = dict(extents=False, permutations=False, max_dimension=1, num_features=32, num_points=10)\n"
            "bayesinv.discover(None, (x, x[:, 0].sin()), **options)\n"
        )
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
        assert done.stderr.count("caller.py:4: DataWarning") == 2
