"""Extents for every output: the prior they make, its limits, and that names travel through tables, plots and files."""

import warnings

import numpy as np
import pytest
import torch

import bayesinv
from bayesinv.data.container import Data
from bayesinv.errors import DataError, ExtentError
from bayesinv.orbits.structure import PerOutput, by_output, priors_of_blocks
from bayesinv.transforms import Affine2d

OUTPUTS = ("a", "b", "c")
EVIDENCES = ("dirichlet", "softmax", "gaussian")


def make(evidence: str = "dirichlet", outputs=OUTPUTS, symmetries=("rotation", "scale_x"), **options):
    kind = "gaussian" if evidence == "gaussian" else "categorical"
    gp = bayesinv.GaussianProcess(num_inducing=12)
    settings = {"num_orbit_samples": 4, "precision": "double", **options}
    transform = Affine2d(list(symmetries))
    return bayesinv.InvarianceModel(gp, transform, likelihood=kind, evidence=evidence, outputs=outputs, **settings)


def images(evidence: str = "dirichlet", n: int = 24) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    if evidence == "gaussian":
        return Data(x, torch.randn(n, 3, generator=generator, dtype=torch.float64))
    return Data(x, torch.arange(n) % 3, num_classes=3)


@torch.no_grad()
@pytest.mark.parametrize("evidence", EVIDENCES)
def test_equal_extents_are_the_model_without_structure(evidence):
    data = images(evidence)
    with_structure, without = make(evidence), make(evidence, outputs=None)
    for model in (with_structure, without):
        model.initialise(data, seed=0)
    eta = torch.tensor([0.6, 0.2], dtype=torch.float64)
    # EP takes a precision for each class here and one for all of them there: two approximations of one number, which
    # differ by 1.2 nats on these labels, noise to the kernel. The mode, which predicts, is the same.
    atol = 0.1 * len(data) if evidence == "softmax" else 1e-6
    torch.testing.assert_close(
        with_structure.log_evidence(eta.repeat(3), data), without.log_evidence(eta, data), rtol=1e-8, atol=atol
    )
    for a, b in zip(
        with_structure.function_posterior(data.x, data, eta.repeat(3)),
        without.function_posterior(data.x, data, eta),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("evidence", EVIDENCES)
def test_an_output_sees_its_own_extents_only(evidence):
    data = images(evidence)
    model = make(evidence)
    model.initialise(data, seed=0)
    eta = torch.full((6,), 0.1, dtype=torch.float64)
    moved = eta.clone()
    moved[2:4] = torch.tensor([1.5, 0.4])  # of output b
    with torch.no_grad():
        before, after = (model.function_posterior(data.x, data, e)[0] for e in (eta, moved))
    if evidence != "softmax":  # under which the labels tie the classes together a posteriori
        torch.testing.assert_close(before[:, [0, 2]], after[:, [0, 2]], rtol=1e-10, atol=1e-10)
    prior = [model.at(e).statistics(data.x)[0] for e in (eta, moved)]
    assert torch.equal(prior[0][[0, 2]], prior[1][[0, 2]])
    assert float((before[:, 1] - after[:, 1]).abs().max()) > 1e-3


@torch.no_grad()
def test_evidence_is_that_of_the_dense_factors():
    """Gaussian noise, Z on every point of every orbit: Σ_c log N(y_c | m_c, K_c + s² 11ᵀ + σ² I)."""
    data = images("gaussian", n=6)
    model = make("gaussian", symmetries=("rotation",))
    eta = torch.tensor([0.1, 0.8, 2.0], dtype=torch.float64)
    points = torch.cat([model.orbit(data.x, e[None]).flatten(0, 1) for e in eta])
    model.backbone = bayesinv.GaussianProcess(num_inducing=len(points), inducing_points=points)
    model.initialise(data, seed=0)
    K = model.at(eta).covariance(data.x)  # (C, n, n)
    assert float((K[0] - K[2]).abs().max()) > 1e-3
    noise = model.evidence.noise * torch.eye(6, dtype=torch.float64) + model.evidence.offset_variance
    dense = sum(
        torch.distributions.MultivariateNormal(model.evidence.mean[c].expand(6), K[c] + noise).log_prob(data.y[:, c])
        for c in range(3)
    )
    assert float(model.log_evidence(eta, data)) == pytest.approx(float(dense), abs=0.05)


def test_gradient_reaches_every_extent():
    data = images()
    model = make()
    model.initialise(data, seed=0)
    eta = torch.tensor([0.3, 0.1, 0.5, 0.2, 0.7, 0.3], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.log_evidence(eta, data), eta)
    for k in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[k] = 1e-5
        with torch.no_grad():
            slope = (model.log_evidence(eta + step, data) - model.log_evidence(eta - step, data)) / 2e-5
        assert float(gradient[k]) == pytest.approx(float(slope), rel=1e-3, abs=1e-4)


def test_simulated_outputs_have_the_covariances_of_their_extents():
    """An output whose extent is the full circle gives an image and its turned copy the same value, another does not."""
    model = make("gaussian", outputs=("free", "fixed"), symmetries=("rotation",), num_orbit_samples=64)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    both = torch.cat([x, x.rot90(1, (2, 3))])
    model.backbone.initialise(both, 1.0, 0)
    f = model.simulate(both, extents=torch.tensor([np.pi, 0.0], dtype=torch.float64), seed=0).function
    apart = (f[0] - f[1]).abs()
    assert f.shape == (2, 2)
    assert float(apart[0]) < 0.2 * float(apart[1])


@pytest.mark.slow
def test_names_travel_through_tables_plots_arviz_and_files(tmp_path):
    model = make(symmetries=("rotation",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three steps do not converge, and 40 draws are few to weigh
        posterior = bayesinv.fit(model, images(), max_steps=3, num_draws=40)
    names = [f"rotation[{o}]" for o in OUTPUTS]
    assert list(posterior.symmetries) == names
    assert all(name in str(posterior.summary()) for name in names)
    assert list(posterior.to_arviz().posterior["symmetry"].values) == names
    assert len(posterior.plot_extents().axes) == 3
    assert posterior.plot_orbit(images().x[:1], "rotation[b]", num_copies=3) is not None
    with pytest.raises(ValueError, match="orbit of its own"):
        posterior.plot_orbit(images().x[:1])
    again = bayesinv.load(posterior.save(tmp_path / "fit.npz"))
    assert again.model.structure.outputs == OUTPUTS
    x = images().x[:5]
    torch.testing.assert_close(again.predict(x).probs, posterior.predict(x).probs)


def test_a_symmetry_s_prior_goes_to_every_output_but_those_named():
    model = make(symmetries=("rotation",), priors={"rotation": 0.5, "rotation[b]": None})
    assert model.extents.fixed == {"rotation[a]": 0.5, "rotation[b]": 0.0, "rotation[c]": 0.5}
    with pytest.raises(ExtentError, match=r"rotation\[d\]"):
        make(symmetries=("rotation",), priors={"rotation[d]": None})


def test_what_does_not_work_is_refused():
    with pytest.raises(ValueError, match="share one orbit"):
        make("stochastic")
    with pytest.raises(ValueError, match="no two of them equal"):
        make(outputs=("a", "a"))
    with pytest.raises(DataError, match="the data have 3"):
        make(outputs=("a", "b")).initialise(images())


def test_an_input_moves_by_one_output_at_a_time():
    inner = Affine2d(["rotation"])
    both = PerOutput(inner, ["6", "9"])
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(
        both(x, torch.tensor([[0.3, 0.0], [0.0, -0.4]])), inner(x, torch.tensor([[0.3], [-0.4]]))
    )
    with pytest.raises(ValueError, match="one output at a time"):
        both(x, torch.full((2, 2), 0.1))
    with pytest.raises(ValueError, match="expected 2 extents"):
        by_output(both, torch.zeros(3))
    assert priors_of_blocks(both, None) == {}
    assert both.negligible((1, 8, 8)).shape == (2,)


def test_a_class_that_does_not_occur_is_stated_as_the_error_says():
    backbone = bayesinv.GaussianProcess(num_features=16)
    model = bayesinv.InvarianceModel(backbone, "rotation", outputs=["a", "b", "c"], num_orbit_samples=2)
    x, y = torch.rand(6, 1, 5, 5), torch.arange(6) % 2
    with pytest.raises(DataError, match=r"does not occur in the data, say so: Data\(x, y, num_classes=3\)"):
        model.initialise(Data(x, y, 2))
    model.initialise(Data(x, y, num_classes=3))
