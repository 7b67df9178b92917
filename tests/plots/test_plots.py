"""The figures: what is on them, and what they refuse to draw."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from bayesinv import Affine2d, Compose, Data, GaussianProcess, InvarianceModel, Truncated
from bayesinv.errors import DataError
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms import (
    SO3,
    Asymmetric,
    Colour,
    ColumnShift,
    CyclicRotation,
    Elastic,
    Flip,
    GaussianBlur,
    GaussianNoise,
    TimeShift,
)
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


def posterior_over(transform, data=None, num_draws=60, **options):
    """Draws between a tenth and a half of what each extent can be."""
    model = InvarianceModel(GaussianProcess(num_features=64), transform, **options)
    largest = torch.tensor([c.largest for c in model.transform.coordinates], dtype=torch.float64)
    share = 0.1 + 0.4 * torch.rand(num_draws, len(largest), dtype=torch.float64)
    for k, name in enumerate(model.symmetries):
        if name in model.extents.fixed:
            share[:, k] = model.extents.fixed[name] / largest[k]
    return InvariancePosterior(model, data or make_data(), make_result(extents=(share * largest)[None]))


def test_axes_say_what_an_extent_is():
    posterior = posterior_over(
        Compose([Affine2d(["rotation", "translate_x", "shear"]), Flip(), GaussianBlur()]),
        augmentation={"rotation": "von_mises", "translate_x": "gaussian", "shear": "one_sided"},
    )
    expected = [
        "scale (°)",
        "scale (% of width)",
        "upper end (%)",
        "probability (% of copies)",
        "upper end (% of width)",
    ]
    assert [panel.get_xlabel() for panel in posterior.plot_extents().axes if panel.get_visible()] == expected
    points = Data(torch.rand(6, 5, 3), torch.arange(6) % 2, 2)
    (panel,) = posterior_over(SO3(), points).plot_extents().axes
    assert panel.get_xlabel() == "largest angle (°)"
    grouped = posterior_over("rotation", groups=["a", "b"])
    labels = [panel.get_xlabel() for panel in grouped.plot_extents().axes if panel.get_visible()]
    assert labels == ["half-width (°)"]


def boxes(figure, texts):
    """Where texts lie on the page, after it has been laid out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [text.get_window_extent(canvas.get_renderer()) for text in texts]


@pytest.mark.parametrize(
    "options",
    [
        {"outputs": [f"a class with a name of its own, {i}" for i in range(2)]},
        {"outputs": [str(i) for i in range(10)]},
        {"groups": [f"site {i}" for i in range(12)]},
        {"groups": ["University hospital north", "University hospital south", "c"]},
    ],
    ids=["two long outputs", "ten outputs", "twelve groups", "long groups"],
)
def test_titles_and_names_keep_apart(options):
    posterior = posterior_over(["rotation", "translate_x"], **options)
    figure = posterior.plot_extents()
    panels = [panel for panel in figure.axes if panel.get_visible()]
    titles = boxes(figure, [panel.title if panel.get_title() else panel._left_title for panel in panels])
    page = figure.bbox
    for i, box in enumerate(titles):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in titles[:i])
    sides = boxes(figure, [label for label in panels[0].get_yticklabels() if label.get_text()])
    assert not any(a.overlaps(b) for i, a in enumerate(sides) for b in sides[:i])


def test_many_outputs_or_groups_are_rows():
    groups = [f"site {i}" for i in range(12)]
    posterior = posterior_over(["rotation", "translate_x"], groups=groups, priors={"translate_x": 0.1})
    (panel,) = posterior.plot_extents().axes  # nothing is learned about the translation
    assert [label.get_text() for label in panel.get_yticklabels()] == ["population", *groups]
    row = posterior.summary().loc["rotation[site 4]"]
    (low, _), (high, _) = panel.containers[2 * 5 + 1].lines[2][0].get_segments()[0]
    assert (low, high) == pytest.approx((row["lower"], row["upper"]))
    spread = posterior.summary().loc["rotation spread"]
    assert (
        panel.get_title("left")
        == f"rotation\nspread {spread['median']:.3g} [{spread['lower']:.3g}, {spread['upper']:.3g}] sd"
    )
    some = posterior_over(["rotation", "shear"], outputs=[str(i) for i in range(10)], priors={"shear[3]": 0.1})
    rotation, shear = some.plot_extents().axes
    assert (rotation.get_title("left"), shear.get_title("left")) == ("rotation", "shear")
    assert len(rotation.patches) == 10 and len(shear.patches) == 9  # no prior where an extent is fixed


def test_few_groups_are_rows_too():
    """Four panels of densities for one symmetry and two groups say less than three rows."""
    (panel,) = posterior_over("rotation", groups=["a", "b"]).plot_extents().axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["population", "a", "b"]
    assert len(posterior_over("rotation", outputs=["0", "1"]).plot_extents().axes) == 2  # densities


def test_rows_of_small_extents_are_not_lost_in_their_priors():
    posterior = posterior_over("rotation", outputs=[str(i) for i in range(10)])
    small = make_result(extents=0.01 * posterior.result.extents)
    (panel,) = InvariancePosterior(posterior.model, posterior.data, small).plot_extents().axes
    assert panel.get_xlim()[1] < 5 and "prior to 171 →" in panel.get_title("left")


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
        GaussianProcess(num_features=64),
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


@pytest.mark.parametrize("transform", [GaussianNoise(), Elastic(), Compose([GaussianNoise(), Affine2d(["rotation"])])])
def test_orbit_of_transforms_with_randomness_of_their_own(transform):
    posterior = posterior_over(transform)
    for name in posterior.symmetries:
        figure = posterior.plot_orbit(posterior.data.x[0], name, num_copies=3)
        shown = [panel.images[0].get_array() for panel in figure.axes]
        still = 1 if name == "rotation" else 0  # an amount starts at nothing
        np.testing.assert_allclose(shown[still], posterior.data.x[0, 0], atol=1e-6)
        assert not np.allclose(shown[2], posterior.data.x[0, 0], atol=1e-3)


def test_orbit_of_an_amount_starts_at_zero():
    posterior = posterior_over(GaussianBlur())
    figure = posterior.plot_orbit(posterior.data.x[0], "blur", num_copies=3)
    end = float(posterior.summary()["median"].iloc[0])
    assert [panel.get_title() for panel in figure.axes[3:6]] == ["0", f"{end / 2:.1f}", f"{end:.1f}"]


@pytest.mark.parametrize("options", [{}, {"outputs": ["a", "b"]}])
def test_orbit_of_one_end_of_a_range_goes_from_zero_to_it(options):
    posterior = posterior_over(Asymmetric(Colour(["brightness"])), **options)
    of = "[b]" if options else ""
    for side, sign, which in (("down", -1.0, 0), ("up", 1.0, 1)):
        name = f"brightness_{side}{of}"
        panels = posterior.plot_orbit(posterior.data.x[0], name, num_copies=3).axes
        k = posterior.index(name)
        end = sign * float(posterior.quantile(0.5)[k])
        for panel, share in zip(panels[3:6], (0.0, 0.5, 1.0), strict=True):
            moved = np.asarray(panel.images[0].get_array()) - posterior.data.x[0, 0].numpy()
            np.testing.assert_allclose(moved, share * end, atol=1e-5)
        assert panels[5].get_title() == f"{100 * end:+.1f}".replace("-", "−")
        assert (
            posterior.plot_extents()
            .axes[2 * bool(of) + which]
            .get_xlabel()
            .startswith(f"{'lower' if which == 0 else 'upper'} end")
        )


def test_orbit_of_a_finite_group_shows_its_elements():
    posterior = posterior_over(CyclicRotation(4))
    figure = posterior.plot_orbit(posterior.data.x[0], "turns_4")
    eta = float(posterior.quantile(0.5)[0])
    assert [panel.get_title() for panel in figure.axes[4:8]] == [f"{100 * p:.0f} %" for p in (1 - eta, *[eta / 3] * 3)]
    for turns, panel in enumerate(figure.axes[4:8]):
        turned = torch.rot90(posterior.data.x[0, 0], turns)
        assert np.allclose(panel.images[0].get_array(), turned) or np.allclose(
            panel.images[0].get_array(), torch.rot90(posterior.data.x[0, 0], -turns)
        )
    assert len(posterior.plot_orbit(posterior.data.x[0], "turns_4", num_copies=2).axes) == 6


def test_orbit_of_a_spread_moves_nothing():
    posterior = posterior_over("rotation", groups=["a", "b"])
    with pytest.raises(ValueError, match=r"moves no image; choose .* 'rotation\[b\]'"):
        posterior.plot_orbit(posterior.data.x[0], "rotation spread")


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


def test_a_signal_is_drawn_as_a_line_a_channel():
    shift = TimeShift(largest=4.0)
    data = Data(torch.randn(12, 2, 16, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2, 2)
    result = make_result(extents=torch.full((1, 4, 1), 2.0, dtype=torch.float64))
    posterior = InvariancePosterior(InvarianceModel(GaussianProcess(num_features=64), shift), data, result)
    panels = posterior.plot_orbit(data.x[0], "time_shift", num_copies=3).axes
    assert len(panels) == 9 and all(len(panel.lines) == 2 for panel in panels)
    for panel, t in zip(panels[:3], (-2.0, 0.0, 2.0), strict=True):
        moved = shift(data.x[:1], torch.tensor([[t]]))[0]
        for line, channel in zip(panel.lines, moved, strict=True):
            np.testing.assert_allclose(line.get_ydata(), channel, atol=1e-6)
    assert len({panel.get_ylim() for panel in panels}) == 1
    points = Data(torch.zeros(12, 20, 3), data.y, 2)
    with pytest.raises(ValueError, match="signals of up to 8"):
        InvariancePosterior(posterior.model, points, posterior.result).plot_orbit(points.x[0])


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
    fixed = KnownModel(GaussianProcess(num_features=64), Affine2d(["rotation"]), priors=names)
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


@pytest.mark.parametrize("name", ["US$_rent / US$_", "$\\frac$", "cost [$] of a {$}"])
def test_dollar_signs_in_names_are_no_tex(name, tmp_path):
    from matplotlib.text import Text

    table = ColumnShift([name], table=[name, "b"])
    groups = Data(torch.rand(12, 2), torch.arange(12) % 2, groups=torch.arange(12) % 2)
    for posterior in (
        posterior_over(table, groups),
        posterior_over(table, groups, groups=[name, "b"]),
        posterior_over(table, groups, outputs=[name, "b"]),
    ):
        figure = posterior.plot_extents()
        figure.savefig(tmp_path / "figure.png")
        texts = [t.get_text() for t in figure.findobj(Text) if "$" in t.get_text()]
        assert texts
        assert all(text.count("$") == text.count(r"\$") for text in texts)


def test_a_short_trace_is_shown_from_its_first_step():
    """The default climbs within some twenty evaluations, of which a trial of the line search may lie far below."""
    panel = make_posterior(trace=(-100.0, -98.0, -500.0, -97.0)).plot_trace().axes[0]
    low, high = panel.get_ylim()
    assert -101.0 < low < -100.0 and -97.0 < high < -96.0
    assert panel.get_title(loc="left") == "1 trial below the axis"
    assert [line.get_ydata().tolist() for line in panel.lines][1] == [-100.0, -98.0, -98.0, -97.0]
    assert make_posterior(trace=(-5.0,)).plot_trace().axes[0].get_title(loc="left") == ""
