"""The figures: what is on them, and what they refuse to draw."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from bayesinv import Affine2d, Data, GaussianProcess, Truncated
from bayesinv.errors import DataError
from bayesinv.posterior import InvariancePosterior
from tests.fakes import KnownModel, make_data, make_posterior, make_result


def all_figures(posterior):
    yield posterior.plot_extents()
    yield posterior.plot_orbit(posterior.data.x[0])
    yield posterior.plot_orbit(posterior.data.x[0], "rotation", num_copies=3)
    yield posterior.plot_evidence("rotation", num_points=5)
    yield posterior.plot_trace()


def test_every_figure_can_be_written_and_leaves_no_state(tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    for figure in all_figures(make_posterior(weighted=True)):
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 5000
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_axes_have_units():
    posterior = make_posterior()
    labels = [p.get_xlabel() for p in posterior.plot_extents().axes]
    assert labels == ["half-width (°)", "half-width (% of width)", "half-width (%)"]
    panel = posterior.plot_evidence("scale_x", num_points=4).axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == (
        "half-width of scale x (%)",
        "log evidence − maximum (nats)",
    )
    panel = posterior.plot_trace().axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("step", "ELBO (nats)")


def test_text_is_large_enough_at_half_size(tmp_path):
    import matplotlib.text

    for figure in all_figures(make_posterior()):
        figure.savefig(tmp_path / "figure.png")
        shown = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip()]
        assert min(t.get_fontsize() for t in shown) >= 12


def test_extents_shows_the_interval_of_the_draws():
    posterior = make_posterior(weighted=True)
    for reweighted in (False, True):
        row = posterior.summary(reweighted=reweighted).loc["rotation"]
        title = posterior.plot_extents(reweighted=reweighted).axes[0].get_title(loc="left")
        expected = f"{row['median']:.3g} [{row['lower']:.3g}, {row['upper']:.3g}]"
        assert title == f"rotation: {expected}"


def test_extents_draws_the_prior_in_the_units_of_the_axis():
    # U(0, log 2) in the log factor has density 1 / (100 + s) in s %: half as high at 100 % as at 0.
    extents = torch.linspace(0.1, 0.69, 50, dtype=torch.float64).repeat(3, 1).T[None].contiguous()
    panel = make_posterior(extents=extents).plot_extents().axes[2]
    s, density = panel.lines[0].get_data()
    np.testing.assert_allclose(density, (100 + s[0]) / (100 + s), rtol=0.01)
    assert panel.get_xlim()[1] == pytest.approx(100, rel=0.01)


def test_a_prior_that_stops_short_ends_there():
    from pyro.distributions import HalfNormal

    model = KnownModel(
        GaussianProcess(num_inducing=3),
        Affine2d(["rotation"]),
        priors={"rotation": Truncated(HalfNormal(0.5), high=np.pi / 2)},
    )
    extents = torch.full((1, 20, 1), 1.4, dtype=torch.float64)
    posterior = InvariancePosterior(model, make_data(), make_result(extents=extents))
    panel = posterior.plot_extents().axes[0]
    assert panel.get_xlim()[1] == pytest.approx(90, abs=1)


def test_orbit_goes_from_end_to_end():
    posterior = make_posterior()
    figure = posterior.plot_orbit(posterior.data.x[0], "rotation", num_copies=3)
    titles = [panel.get_title() for panel in figure.axes]
    for row, eta in enumerate(posterior.quantile([0.05, 0.5, 0.95])[:, 0].rad2deg()):
        assert titles[3 * row : 3 * row + 3] == [f"−{eta:.1f}°", "0°", f"+{eta:.1f}°"]
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(shown, posterior.data.x[0, 0], atol=1e-12)


def test_orbit_shows_the_models_own_copies():
    posterior = make_posterior()
    figure = posterior.plot_orbit(posterior.data.x[0], num_copies=2)
    eta = posterior.quantile(0.95)
    copies = posterior.model.orbit(posterior.data.x[:1], eta)[:2, 0, 0]
    for panel, copy in zip(figure.axes[7:9], copies, strict=True):  # third row: original, 1, 2
        np.testing.assert_allclose(panel.images[0].get_array(), copy, atol=1e-12)


def test_orbit_in_colour():
    posterior = make_posterior()
    data = Data(posterior.data.x.repeat(1, 3, 1, 1), posterior.data.y, 2)
    posterior = InvariancePosterior(posterior.model, data, posterior.result)
    picture = posterior.plot_orbit(data.x[:1]).axes[0].images[0].get_array()
    assert picture.shape == (8, 8, 3)


def test_what_cannot_be_drawn():
    posterior = make_posterior()
    with pytest.raises(ValueError, match="has no trace"):
        make_posterior(trace=()).plot_trace()
    with pytest.raises(ValueError, match="at least 1"):
        posterior.plot_orbit(posterior.data.x[0], num_copies=0)
    with pytest.raises(ValueError, match=r"pass x\[0\]"):
        posterior.plot_orbit(posterior.data.x[:2])
    with pytest.raises(DataError, match="as the training inputs"):
        posterior.plot_orbit(torch.zeros(1, 9, 8))
    for call in (posterior.plot_evidence, lambda s: posterior.plot_orbit(posterior.data.x[0], s)):
        with pytest.raises(KeyError, match="there are"):
            call("hue")
    two = Data(posterior.data.x.repeat(1, 2, 1, 1), posterior.data.y, 2)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        InvariancePosterior(posterior.model, two, posterior.result).plot_orbit(two.x[0])
    names = {"rotation": 0.3}
    fixed = KnownModel(GaussianProcess(num_inducing=3), Affine2d(["rotation"]), priors=names)
    result = make_result(extents=torch.full((1, 1, 1), 0.3, dtype=torch.float64))
    with pytest.raises(ValueError, match="every symmetry of this model is fixed"):
        InvariancePosterior(fixed, make_data(), result).plot_extents()


def test_a_name_in_the_wrong_place_says_what_to_write():
    posterior = make_posterior(weighted=True)
    with pytest.raises(TypeError, match=r"'rotation' came; .*plot_evidence\('rotation'\)"):
        posterior.plot_extents("rotation")
    with pytest.raises(TypeError, match=r"plot_orbit\(x, 'rotation'\)"):
        posterior.plot_orbit("rotation")
    assert posterior.plot_extents(reweighted=True).axes


def test_short_traces_and_equal_draws_are_drawn(tmp_path):
    extents = torch.zeros(1, 3, 3, dtype=torch.float64)
    posterior = make_posterior(extents=extents, trace=(-5.0,))
    for figure in all_figures(posterior):
        figure.savefig(tmp_path / "figure.png")


def test_matplotlib_is_not_imported_with_the_package():
    code = "import sys, bayesinv, bayesinv.plots; sys.exit('matplotlib.figure' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
