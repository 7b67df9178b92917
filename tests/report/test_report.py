"""The page: complete, self-contained, readable by machines that read pages aloud."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import bayesinv
from bayesinv.errors import DataError
from bayesinv.report import write_comparison_report, write_report
from bayesinv.report.page import STYLE
from bayesinv.report.sections import extents, orbits, priors, settings, what_was_fitted
from tests.fakes import make_data, make_posterior, make_result

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects what the tests ask for, and refuses tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for found, attributes in self.found if found == tag]


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    posterior = make_posterior(weighted=True)
    comparison = bayesinv.compare({"a & b": posterior, "other": make_posterior()}, (posterior.data.x, posterior.data.y))
    assert posterior.report(path, title="1 < 2", comparison=comparison, classes=["x", "<script>"]) == path
    return path


def test_it_says_everything(report):
    page = read(report)
    text = " ".join(page.words)
    headings = ("What was fitted", "Verdicts", "How far each", "look like", "How the fit went", "Predictive quality")
    for words in (*headings, "Settings and versions", "How to reproduce it", "a & b", "1 < 2", "<script>"):
        assert words in text
    summary = make_posterior(weighted=True).summary()
    assert f"±{summary.loc['rotation', 'median']:.3g}" in text
    for verdict in make_posterior(weighted=True).check():
        assert verdict.message in text
    for package in ("torch", "numpy", "Python"):
        assert package in text


def test_it_is_self_contained(report):
    page = read(report)
    assert not page.all("script") and not page.all("link")
    images = page.all("img")
    assert len(images) >= 5
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert "url(" not in STYLE and "@import" not in STYLE
    assert all(link["href"].startswith("#") for link in page.all("a"))


def test_it_can_be_read_aloud(report):
    page = read(report)
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert all(head["scope"] in ("row", "col") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    identifiers = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert {link["href"].removeprefix("#") for link in page.all("a")} == set(identifiers)
    assert page.all("html")[0]["lang"] == "en"


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a, b):
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out(scheme):
    colours = dict(re.findall(r"--(\w+): (#\w{6})", STYLE.split("@media (prefers-color-scheme: dark)")[scheme]))
    assert len(colours) == 9
    for name in ("text", "soft", "link", "ok", "note", "serious"):
        for background in ("page", "card"):
            assert contrast(colours[name], colours[background]) >= 4.5, (name, background)


def test_of_extents_for_outputs_an_example_of_the_class_is_shown():
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), "rotation", outputs=["six", "nine"])
    draws = torch.full((1, 20, 2), 0.3, dtype=torch.float64) + 0.1 * torch.tensor([0.0, 1.0])
    posterior = bayesinv.InvariancePosterior(model, make_data(), make_result(extents=draws))
    assert "A training image of class nine under rotation[nine] alone" in orbits(posterior, False).body
    first = make_posterior()
    assert "The first training image" in orbits(first, False).body
    assert "The same image under rotation alone" in orbits(first, False).body


def test_signals_are_shown_too():
    data = bayesinv.Data(torch.randn(12, 2, 16), torch.arange(12) % 2, 2)
    shift = bayesinv.transforms.TimeShift(largest=4.0)
    model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), shift, num_orbit_samples=4)
    draws = torch.full((1, 20, 1), 2.0, dtype=torch.float64)
    body = orbits(bayesinv.InvariancePosterior(model, data, make_result(extents=draws)), False).body
    assert "The first training signal" in body and "The same signal under time shift alone" in body


def test_several_fits(tmp_path):
    path = tmp_path / "both.html"
    write_comparison_report({"first": make_posterior(), "second": make_posterior(chains=2)}, path)
    text = " ".join(read(path).words)
    for words in ("first", "second", "Extents side by side", "nuts", "full_rank"):
        assert words in text
    with pytest.raises(ValueError, match="at least one"):
        write_comparison_report({}, tmp_path / "none.html")


def test_test_data_bring_scores_and_a_verdict(tmp_path):
    posterior = make_posterior(weighted=True)
    test = make_data(n=20)
    posterior.report(tmp_path / "without.html")
    text = " ".join(read(tmp_path / "without.html").words)
    assert 'posterior.report("without.html", test=(x_test, y_test), overwrite=True)' in text
    posterior.report(tmp_path / "with.html", test=(test.x, test.y))
    page = read(tmp_path / "with.html")
    text = " ".join(page.words)
    scores = bayesinv.compare({"this fit": posterior}, test).text_table().loc["this fit"]
    for column in ("accuracy, %", "log loss, nat", "calibration error"):
        assert column in text and scores[column] in text
    assert posterior.check(test=test).named("predictive")[0].message in text
    assert len(page.all("img")) == len(read(tmp_path / "without.html").all("img"))  # its extents are not drawn twice
    comparison = bayesinv.compare({"a": posterior}, test)
    with pytest.raises(ValueError, match="test, comparison: expected one of the two"):
        posterior.report(tmp_path / "both.html", test=test, comparison=comparison)
    with pytest.raises(DataError, match="shape"):
        posterior.report(tmp_path / "wrong.html", test=(test.x[:, 0], test.y))
    assert {path.name for path in tmp_path.iterdir()} == {"with.html", "without.html"}


def test_triples_are_refused_where_no_model_has_groups(tmp_path):
    posterior = make_posterior()
    test = posterior.data
    triples = torch.utils.data.TensorDataset(test.x, test.y, torch.zeros(len(test), dtype=torch.int64))
    with pytest.raises(DataError, match="group"):
        posterior.report(tmp_path / "page.html", test=triples)
    assert not (tmp_path / "page.html").exists()


def test_test_data_are_read_once(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        """As a generator: gone after the first pass."""

        def __init__(self):
            self.left = list(zip(make_data(n=20).x, make_data(n=20).y, strict=True))

        def __iter__(self):
            taken, self.left = self.left, []
            return iter(taken)

    make_posterior().report(tmp_path / "page.html", test=Stream())
    assert "accuracy" in (tmp_path / "page.html").read_text()


def test_priors_are_written_as_they_are_given():
    def rows(**options):
        model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), ["rotation", "shear"], **options)
        return priors(model)

    spread = "Truncated(base=HalfNormal(scale=0.5), high=2); internal units"
    pooled = rows(groups=["north", "south"], priors={"shear": 0.2})
    assert pooled["prior of rotation"] == "UniformExtent(low=0, high=3.142); internal units"
    assert pooled["prior of rotation spread"] == spread
    assert "L Φ(Φ⁻¹(rotation / L) + (rotation spread) z)" in pooled["prior of rotation in each group"]
    assert pooled["prior of shear in each group"] == "as shear itself"
    assert len(pooled) == 6 and not any("north" in name for name in pooled)
    alone = rows(priors={"rotation": bayesinv.Outward(0.1), "shear": 0.2})
    assert alone == {
        "prior of rotation": "Outward(strength=0.1, high=3.142, num_total=None); internal units",
        "prior of shear": "fixed at 0.2; internal units",
    }
    slab = bayesinv.SpikeAndSlab(bayesinv.UniformExtent(0.0, 1.0))
    assert "SpikeAndSlab(slab=UniformExtent(low=0, high=1)" in rows(priors={"rotation": slab})["prior of rotation"]


def test_targets_are_named():
    def targets(posterior, *names):
        return what_was_fitted(posterior, *names).body

    assert ": a, b, c" in targets(make_posterior(), ["a", "b", "c"])
    assert "real number" in targets(make_posterior("gaussian"))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 1))
    model = bayesinv.InvarianceModel(net, "rotation", likelihood="bernoulli", num_orbit_samples=2)
    data = bayesinv.Data(torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 1, 0]), 2)
    result = make_result(extents=torch.full((1, 1, 1), 0.3, dtype=torch.float64))
    assert "labels of 2 classes" in targets(bayesinv.InvariancePosterior(model, data, result))


def test_what_an_extent_is_of_distributions_without_ends():
    def said(**options):
        model = bayesinv.InvarianceModel(bayesinv.GaussianProcess(num_features=64), ["rotation", "scale_x"], **options)
        result = make_result(extents=torch.full((1, 5, 2), 0.3, dtype=torch.float64))
        return extents(bayesinv.InvariancePosterior(model, make_data(), result), 0.9, False).body

    assert "without ends" not in said()
    text = said(augmentation={"rotation": "von_mises", "scale_x": "gaussian"})
    assert "Of rotation, scale x, drawn from a distribution without ends" in text


def test_point_estimates_and_real_targets(tmp_path):
    draws = make_posterior().result.extents[:, :1]
    point = make_posterior("gaussian", extents=draws, inference="augerino", guide=None)
    point.report(tmp_path / "point.html")
    text = " ".join(read(tmp_path / "point.html").words)
    assert "point estimate" in text and "1 real number" in text
    labels = [label.get_text() for label in point.plot_extents().legends[0].get_texts()]
    assert "point estimate (augerino)" in labels and "posterior" not in labels


def test_what_is_refused(tmp_path):
    posterior, path = make_posterior(), tmp_path / "report.html"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        posterior.report(tmp_path / "no" / "report.html")
    with pytest.raises(IsADirectoryError, match="name of a file"):
        posterior.report(tmp_path)
    with pytest.raises(TypeError, match=r"bayesinv\.select"):
        write_report(posterior, path, selection="rotation")
    with pytest.raises(TypeError, match=r"bayesinv\.compare"):
        write_report(posterior, path, comparison="better")
    with pytest.raises(ValueError, match="level"):
        posterior.report(path, level=90.0)
    assert not list(tmp_path.iterdir())
    path.write_text("kept")
    with pytest.raises(FileExistsError, match="overwrite"):
        posterior.report(path)
    assert path.read_text() == "kept"


def test_climbs_are_told_in_words():
    modes = [{"start": None, "log_joint": -3.04, "evaluations": 7, "merged": False}]
    body = settings(make_posterior(settings={"modes": modes}), {}).body
    assert "log joint -3.0 after 7 evaluations from a point of the population" in body and "merged" not in body
