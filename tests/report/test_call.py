"""The calls on the page run, and give the same posterior."""

import gpytorch
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, NeuralNetwork, Outward, Training
from bayesinv.data.container import Data
from bayesinv.errors import SavedFileError
from bayesinv.inference import Augerino, AugNet, Fixed, Policy
from bayesinv.report.call import fit_call, load_call, needs_model
from bayesinv.report.sections import reproduce

X = torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 2
SHORT = Training(batch_size=12, extent_batch_size=12, epochs=3, settle=0.0)

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning"),
    pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning"),
]


def network(**options) -> InvarianceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, 2))
    return InvarianceModel(net, "rotation", num_orbit_samples=2, **options)


def process(**options) -> InvarianceModel:
    return InvarianceModel(GaussianProcess(num_inducing=4), "rotation", num_orbit_samples=2, **options)


def again(posterior, model, names=()):
    """What the call on the page gives."""
    scope = {"bayesinv": bayesinv, "model": model, "x": X, "y": Y, "groups": torch.arange(24) % 3, **dict(names)}
    exec(fit_call(posterior), scope)
    return scope["posterior"]


def same(a, b):
    assert a.result.inference == b.result.inference and a.result.num_steps == b.result.num_steps
    assert torch.equal(a.result.extents, b.result.extents) and a.trace == b.trace


@pytest.mark.parametrize(
    ("model", "arguments", "options", "said"),
    [
        (
            network,
            (),
            {"training": SHORT},
            "training=bayesinv.Training(epochs=3, batch_size=12, settle=0.0, extent_batch",
        ),
        (network, (), {"training": SHORT, "max_steps": 4, "num_draws": 20, "seed": 3}, "max_steps=4"),
        (network, (), {"training": SHORT, "guide": "mean_field"}, "guide='mean_field'"),
        (network, (), {"training": SHORT, "guide": AutoNormal}, "guide=AutoNormal"),
        (network, ("augerino",), {"training": SHORT}, 'fit(model, (x, y), "augerino"'),
        (network, (Augerino(regularisation=0.1),), {"training": SHORT}, "Augerino(regularisation=0.1)"),
        (network, (AugNet(scales={"rotation": 0.5}),), {"training": SHORT}, "AugNet(scales={'rotation': 0.5})"),
        (network, (Fixed({"rotation": 0.5}),), {"training": SHORT}, "Fixed(extents={'rotation': 0.5})"),
        (
            network,
            (Policy("trivialaugment", num_copies=2),),
            {"training": SHORT},
            "name='trivialaugment', num_copies=2",
        ),
        (process, (), {"max_steps": 3, "num_draws": 5, "learning_rate": 0.1}, "learning_rate=0.1"),
        (process, ("nuts",), {"max_steps": 3, "num_draws": 5, "num_warmup": 60, "guide": "mean_field"}, "'mean_field'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_call_fits_the_same(model, arguments, options, said):
    posterior = bayesinv.fit(model(), (X, Y), *arguments, **options)
    call = fit_call(posterior)
    assert said in call.replace("\n    ", " ").replace("( ", "(")
    same(again(posterior, model(), {"AutoNormal": AutoNormal}), posterior)


def test_a_model_without_latent_extents_is_fitted_as_it_was():
    for make in (network, process):
        options = {"training": SHORT} if make is network else {"max_steps": 3}
        posterior = bayesinv.fit(make(priors={"rotation": 0.3}), (X, Y), **options)
        assert posterior.result.inference == "fixed" and '(x, y), "vi"' in fit_call(posterior).replace(",\n    ", ", ")
        same(again(posterior, make(priors={"rotation": 0.3})), posterior)


def test_groups_are_part_of_the_data():
    def make():
        return process(groups=["a", "b", "c"])

    posterior = bayesinv.fit(make(), Data(X, Y, 2, torch.arange(24) % 3), max_steps=2, num_draws=5)
    assert "bayesinv.Data(x, y, groups=groups)" in fit_call(posterior)
    same(again(posterior, make()), posterior)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("vi", "model=model)"),
        ("augerino", "model=bayesinv.inference.Augerino().prepare(model))"),
        (Fixed({"rotation": 0.5}), "Fixed(extents={'rotation': 0.5}).prepare(model))"),
        ("randaugment", "Policy().prepare(model))"),
    ],
    ids=str,
)
def test_the_file_of_a_network_is_read_with_its_model(method, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    posterior = bayesinv.fit(network(), (X, Y), method, training=SHORT)
    posterior.save("posterior.npz")
    assert load_call(posterior).endswith(expected)
    scope = {"bayesinv": bayesinv, "model": network()}
    exec(load_call(posterior), scope)
    same(scope["posterior"], posterior)
    assert "which no file holds" in reproduce(posterior, None).body
    if method != "vi":
        with pytest.raises(SavedFileError, match=r"load\(path, model=method\.prepare\(model\)\)"):
            bayesinv.load("posterior.npz", model=network())


def test_who_needs_a_model():
    assert not needs_model(process()) and not needs_model(process(priors={"rotation": Outward(0.1)}))
    own = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel())
    assert needs_model(InvarianceModel(own, "rotation"))
    assert needs_model(InvarianceModel(NeuralNetwork(nn.Linear(2, 2)), "rotation"))
    posterior = bayesinv.fit(process(), (X, Y), max_steps=2, num_draws=5)
    assert load_call(posterior) == 'posterior = bayesinv.load("posterior.npz")'
    section = reproduce(posterior, "bayesinv fit x.npz --out run")
    assert "bayesinv fit x.npz" in section.body and "bayesinv.fit(" not in section.body
