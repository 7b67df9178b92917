"""Arguments of the wrong kind are named, with what came; NumPy's numbers count as numbers."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.errors import DataError
from bayesinv.numerics.arguments import as_integer, as_number, as_probability, counted

X = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 2


def model(**options):
    return InvarianceModel(GaussianProcess(num_inducing=5), "rotation", **{"num_orbit_samples": 2, **options})


@pytest.fixture(scope="module")
def posterior():
    with pytest.warns(UserWarning):
        return bayesinv.fit(model(), (X, Y), seed=0, max_steps=2, num_draws=5)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "8", None, np.float64(3.0), torch.tensor(3)])
def test_no_integer(value):
    with pytest.raises(ValueError, match="number: expected an integer of at least 1, got"):
        as_integer("number", value)


def test_integers_and_numbers_of_numpy():
    assert type(as_integer("number", np.int64(4))) is int
    assert as_number("rate", np.float32(0.5)) == 0.5 and as_number("rate", 0, zero=True) == 0.0
    assert as_integer("seed", 0, 0, 5) == 0
    with pytest.raises(ValueError, match="from 0 to 5, got 6"):
        as_integer("seed", 6, 0, 5)
    for bad in (0, -1.0, float("nan"), float("inf"), "x", True):
        with pytest.raises(ValueError, match="rate: expected a finite number > 0"):
            as_number("rate", bad)
    for bad in (0, 1, 95, "x", True, float("nan")):
        with pytest.raises(ValueError, match="level: expected a probability"):
            as_probability("level", bad)
    assert counted(1, "draw") == "1 draw" and counted(0, "draw") == "0 draws"


@pytest.mark.parametrize(
    "options",
    [{"num_orbit_samples": 0}, {"num_orbit_samples": True}, {"orbit_seed": -1}, {"memory_budget": 0}],
    ids=str,
)
def test_arguments_of_a_model(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected an integer"):
        model(**options)


def test_data_without_numbers_or_with_too_large_ones():
    with pytest.raises(DataError, match="meta"):
        bayesinv.fit(model(), (X.to("meta"), Y))
    regression = model(likelihood="gaussian")
    with pytest.raises(DataError, match=r"y reaches 1.*e[+]30.*scale it"):
        bayesinv.fit(regression, (X, torch.linspace(0, 1e30, 12, dtype=torch.float64)))


# What is asked, and a part of the answer. The tests check types on the way in, so that these have to be asked outside.
WRONG_KINDS = [
    *((f"model(num_orbit_samples={value})", "num_orbit_samples: expected") for value in ("2.5", "'8'", "None")),
    *((f"model(orbit_seed={value})", "orbit_seed: expected") for value in ("1.5", "'a'")),
    ("model(memory_budget='1GB')", "memory_budget: expected"),
    *((f"model(precision={value})", "precision: expected") for value in ("64", "['double']")),
    *((f"model(priors={value})", "priors: expected a mapping") for value in ("[1]", "{'rotation'}", "'x'")),
    ("bayesinv.Truncated(dist.Gamma(1.0, 1.0), 'a')", "high: expected a finite number, got 'a'"),
    ("bayesinv.Outward('a')", "strength: expected a finite number"),
    ("bayesinv.UniformExtent('a', 1.0)", "low: expected a finite number"),
    ("model(priors=[1], outputs=['a', 'b'])", "priors: expected a mapping"),
    ("model(priors=[1], groups=['a', 'b'])", "priors: expected a mapping"),
    *((f"Data(X, Y, num_classes={value})", "num_classes: expected") for value in ("2.0", "'2'")),
    *((f"fit(callbacks={value})", "callbacks: expected a list of functions") for value in ("'x'", "[1]", "3")),
    ("fit(num_draws='8')", "num_draws: expected"),
    ("fit(max_steps=2.5)", "max_steps: expected"),
    ("fit(learning_rate='x')", "learning_rate: expected"),
    ("bayesinv.datasets.load_image_folder('.', size='8')", "size: expected an integer"),
    ("bayesinv.checks.rank_evidences([p])", "posteriors: expected a mapping"),
    ("GaussianProcess(learn_inducing='no')", "learn_inducing: expected"),
    ("NeuralNetwork(torch.nn.Linear(2, 2), start_gain='x')", "start_gain: expected"),
    ("p.upper_limit('rotation')", "level: expected a probability"),
    ("p.summary(level='x')", "level: expected a probability"),
    ("p.quantile('x')", "probabilities: expected a number"),
    ("p.sample('x')", "num: expected an integer"),
    ("p.sample(2, seed=1.5)", "seed: expected an integer"),
    ("p.predict(X, num_samples='3')", "num_samples: expected an integer"),
    ("p.evidence_profile('rotation', num_points='x')", "num_points: expected an integer of at least 4"),
    ("p.to_datatree(num_draws='x')", "num_draws: expected an integer"),
    ("p.plot_orbit(X[0], num_copies='x')", "num_copies: expected an integer"),
    ("model(num_orbit_samples=np.int64(4)).orbit.num_copies == 4", "True"),
    ("GaussianProcess(num_inducing=np.int64(5)).num_inducing == 5", "True"),
    ("GaussianProcess(num_features=np.int64(64)).num_features == 64", "True"),
]
SCRIPT = """
import sys, warnings, numpy as np, torch, bayesinv, pyro.distributions as dist
from bayesinv import Data, GaussianProcess, InvarianceModel, NeuralNetwork
warnings.simplefilter("ignore")
X, Y = torch.rand(12, 1, 6, 6), torch.arange(12) % 2
def model(**options):
    options = {"num_orbit_samples": 2, **options}
    return InvarianceModel(GaussianProcess(num_inducing=5), "rotation", **options)
def fit(**options):
    return bayesinv.fit(model(), (X, Y), **{"max_steps": 2, "num_draws": 5, **options})
p = fit()
for line in sys.stdin.read().splitlines():
    try: print(eval(line))
    except (TypeError, ValueError) as error: print(str(error).splitlines()[0])
"""


def test_arguments_of_the_wrong_kind_are_named():
    asked = "\n".join(question for question, _ in WRONG_KINDS)
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=asked, capture_output=True, text=True, check=False)
    answers = done.stdout.splitlines()
    assert len(answers) == len(WRONG_KINDS), done.stderr
    unclear = [f"{q}: {a}" for (q, wanted), a in zip(WRONG_KINDS, answers, strict=True) if wanted not in a]
    assert not unclear


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"for a single input pass x\[None\]"),
        (X[0, 0], r"for a single input pass x.reshape\(1, 1, 6, 6\)"),
        (X[0, 0].numpy(), r"for a single input pass x.reshape\(1, 1, 6, 6\)"),
        (X[:, 0], r"axes of length one pass x.reshape\(-1, 1, 6, 6\)"),
        (torch.rand(5, 5), r"x has shape \(5, 5\); expected a batch, \(n, 1, 6, 6\): give it the axes"),
        (float("nan") * X, "Drop or fill them first"),
    ],
    ids=["single", "2d", "numpy", "without channels", "other", "nan"],
)
def test_inputs_to_predict_at(posterior, x, message):
    with pytest.raises(DataError, match=message):
        posterior.predict(x)
