"""Test-time averages are those of the library's orbit, and graphs hold them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bayesinv
from bayesinv.export import Augmentation, InvariantPredictor
from bayesinv.export.predictor import FixedOrbit
from bayesinv.orbits.averages import average_function, average_probabilities
from bayesinv.orbits.orbit import Orbit
from bayesinv.transforms import Affine2d, Compose, Dihedral, Flip
from tests.export.cases import TRANSFORMS, augmentation, inputs
from tests.fakes import make_posterior


def net(shape: tuple[int, ...], outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 8), nn.Tanh(), nn.Linear(8, outputs))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_copies_are_those_of_the_orbit(name):
    transform, shape = TRANSFORMS[name]
    t = augmentation(name).draw(7)
    x = inputs(shape, 4)
    assert (FixedOrbit(transform, t)(x) - transform.orbit(x, t)).abs().max() < 1e-4


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_the_average_at_one_extent_is_the_librarys(average):
    """With a single draw of the extents: a Sobol orbit, exact over the elements of the group."""
    transform, extents = Compose([Affine2d(["rotation"]), Flip()]), torch.tensor([0.7, 0.2], dtype=torch.float64)
    model, x = net((1, 8, 8)), inputs((1, 8, 8))
    predictor = InvariantPredictor(model, Augmentation(transform, extents[None], (1, 8, 8)), 6, average, seed=3)
    orbit = Orbit(transform, num_samples=6, seed=3)
    points, weights = orbit(x, extents), orbit.weights(extents)
    if average == "logits":
        expected = average_function(model, points, weights=weights)
    else:
        expected = average_probabilities(model, points, weights=weights).exp()
    assert predictor.num_copies == 12
    assert torch.allclose(predictor(x), expected.to(x), atol=1e-6)


def test_extents_are_averaged_over():
    """Copies see all draws: two extents of a flip, 0.1 and 0.5, count its image 0.3; and together with turns too."""
    for transform, copies in ((Flip(), 5), (Compose([Affine2d(["rotation"]), Flip()]), 6)):
        extents = torch.zeros(2, transform.num_coordinates)
        extents[:, -1] = torch.tensor([0.1, 0.5])
        model, x = net((1, 8, 8)), inputs((1, 8, 8))
        predictor = InvariantPredictor(model, Augmentation(transform, extents, (1, 8, 8)), copies)
        assert torch.allclose(predictor(x), 0.7 * model(x) + 0.3 * model(x.flip(-1)), atol=1e-5)


def test_the_average_is_invariant_where_the_group_is_whole():
    transform = Dihedral(4)
    whole = Augmentation(transform, torch.tensor([[7 / 8]]), (1, 8, 8))
    predictor, x = InvariantPredictor(net((1, 8, 8)), whole), inputs((1, 8, 8))
    assert torch.allclose(predictor(x), predictor(x.rot90(1, (-2, -1)).flip(-1)), atol=1e-6)
    assert not torch.allclose(predictor.net(x), predictor.net(x.flip(-1)), atol=1e-2)


def test_outputs_with_extents_of_their_own_are_averaged_over_their_own_copies():
    gp = bayesinv.GaussianProcess(num_features=16)
    model = bayesinv.InvarianceModel(gp, ["rotation"], outputs=["a", "b"], likelihood="categorical")
    posterior = make_posterior()
    draws = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    result = bayesinv.InferenceResult(inference="fixed", guide=None, extents=draws, seed=0)
    posterior = bayesinv.InvariancePosterior(model, posterior.data, result)
    x, network = inputs((1, 8, 8)), net((1, 8, 8), 2)
    predictor = InvariantPredictor(network, posterior, 9, seed=2)
    assert torch.allclose(predictor(x)[:, 0], network(x)[:, 0], atol=1e-5)  # extent zero
    orbit = Orbit(Affine2d(["rotation"]), 9, seed=2)
    expected = average_function(network, orbit(x, torch.tensor([1.0], dtype=torch.float64)))
    assert torch.allclose(predictor(x)[:, 1], expected[:, 1], atol=1e-5)
    assert not torch.allclose(predictor(x)[:, 1], network(x)[:, 1], atol=1e-2)


def test_same_seed_same_copies():
    x, model, aug = inputs((3, 16, 16)), net((3, 16, 16)), augmentation("affine")
    first, again, other = (InvariantPredictor(model, aug, 5, seed=seed)(x) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_graphs_hold_it(name):
    shape = TRANSFORMS[name][1]
    predictor, x = InvariantPredictor(net(shape), augmentation(name), 4).eval(), inputs(shape)
    graph = torch.export.export(predictor, (x,), strict=False).module()
    assert torch.allclose(graph(x), predictor(x), atol=1e-5)


@pytest.mark.slow
def test_graphs_take_any_batch():
    """In a process without the shape checks of the tests, for which a number that is not known yet is no number."""
    code = (
        "import torch, bayesinv\n"
        "from tests.export.cases import TRANSFORMS, augmentation, inputs\n"
        "for name in TRANSFORMS:\n"
        "    x = inputs(TRANSFORMS[name][1])\n"
        "    predictor = bayesinv.InvariantPredictor(torch.nn.Flatten(), augmentation(name), 4)\n"
        "    batch = {0: torch.export.Dim('n', min=2)}\n"
        "    graph = torch.export.export(predictor.eval(), (x,), dynamic_shapes=(batch,), strict=False).module()\n"
        "    assert torch.allclose(graph(x[:3]), predictor(x[:3]), atol=1e-5), name\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=Path(__file__).parents[2], check=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about what it imports and of features to come
def test_onnx_predicts_the_same():
    onnx = pytest.importorskip("onnx", reason="onnx, an extra for tests, is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, an extra for tests, is not installed")
    reference = pytest.importorskip("onnx.reference")
    predictor = InvariantPredictor(net((1, 8, 8)), make_posterior().augmentation(), 4, "probabilities").eval()
    x = inputs((1, 8, 8))
    batch = {0: torch.export.Dim("n", min=2)}
    program = torch.onnx.export(predictor, (x,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
    onnx.checker.check_model(program.model_proto)
    (found,) = reference.ReferenceEvaluator(program.model_proto).run(None, {"x": x[:3].numpy()})
    assert torch.allclose(torch.from_numpy(found), predictor(x[:3]), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"net": lambda x: x}, TypeError),
        ({"average": "log_likelihood"}, ValueError),
        ({"num_copies": 0}, ValueError),
    ],
)
def test_bad_arguments_are_named(arguments, error):
    with pytest.raises(error, match=r"(?i)expected"):
        InvariantPredictor(**({"net": nn.Flatten(), "posterior": augmentation("affine")} | arguments))
