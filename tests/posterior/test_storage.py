"""One file, written whole or not at all, and read without running anything."""

import dataclasses
import io
import json
import math
import os
import zipfile

import gpytorch
import numpy as np
import pytest
import torch
from torch import nn

import bayesinv
from bayesinv import GaussianProcess, InvarianceModel, Outward
from bayesinv.data.container import Data
from bayesinv.errors import SavedFileError
from bayesinv.io.archives import pack
from bayesinv.io.checkpoints import Checkpoint, CheckpointFile
from bayesinv.numerics.bend import Bend
from bayesinv.numerics.mixture import Mixture
from bayesinv.numerics.randomness import seeded
from bayesinv.posterior import storage
from bayesinv.posterior.invariance_posterior import InvariancePosterior, load
from tests.fakes import make_data, make_result


def build(kernel=None, num_inducing=4, **arguments):
    """A model over three symmetries that has seen the data, so that every array has its size."""
    settings = {"num_orbit_samples": 4, "priors": {"scale_x": 0.1}} | arguments
    model = InvarianceModel(
        GaussianProcess(kernel, num_inducing=num_inducing),
        bayesinv.Affine2d(["rotation", "translate_x", "scale_x"]),
        **settings,
    )
    model.initialise(make_data(settings.get("likelihood", "categorical")))
    return model


def posterior_of(model, **changes):
    return InvariancePosterior(model, make_data(model.likelihood), make_result(**changes))


def damage(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(bytes(content))


def rewrite(path, **changes):
    """The file again, with some arrays replaced (None: left out) and its checksums right."""
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    header |= changes.pop("header", {})
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def test_a_prior_that_counts_the_examples_comes_back(tmp_path):
    """Outward's strength is for each example, and a model that has not been fitted does not know how many there are."""

    def fresh(strength, **arguments):
        with seeded(0):
            net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        priors = {"rotation": Outward(strength, **arguments)}
        return InvarianceModel(net, "rotation", evidence="plugin", priors=priors, num_orbit_samples=2)

    model = fresh(0.1)
    data = make_data()
    model.initialise(data, num_total=500)
    result = make_result(extents=torch.full((1, 20, 1), 0.3, dtype=torch.float64), settings={"num_train": 500})
    path = InvariancePosterior(model, data, result).save(tmp_path / "outward.npz")
    given = fresh(0.1)
    loaded = bayesinv.load(path, model=given)
    assert loaded.model.extents.priors["rotation"].num_total == 500
    assert given.extents.priors["rotation"].num_total is None
    torch.testing.assert_close(
        loaded.model.extents.log_prior(torch.tensor([1.0])), model.extents.log_prior(torch.tensor([1.0]))
    )
    for other in (fresh(0.2), fresh(0.1, num_total=12)):
        with pytest.raises(SavedFileError, match="differs in priors"):
            bayesinv.load(path, model=other)


def test_a_checkpoint_of_a_training_is_called_one(tmp_path):
    path = tmp_path / "run.checkpoint"
    CheckpointFile(path, {}).write(Checkpoint(3, False, [], [], (), 0.0))
    with pytest.raises(SavedFileError, match=r"is the checkpoint of a training.*run the same fit again") as caught:
        bayesinv.load(path)
    assert f"Training(checkpoint={str(path)!r})" in str(caught.value) and "pickle" not in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(SavedFileError, match="not a posterior"):
        bayesinv.load(path)


def test_what_another_model_differs_in_is_short_and_begins_with_its_structure(tmp_path):
    def network(width=2, groups=None):
        with seeded(0):
            net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, width))
        return InvarianceModel(net, ["rotation", "shear"], num_orbit_samples=2, groups=groups)

    names = [f"site {i}" for i in range(12)]
    model = network(groups=names)
    data = make_data()
    data = Data(data.x.float(), data.y, 2, groups=torch.arange(len(data)) % 12)
    model.initialise(data)
    extents = torch.full((1, 20, len(model.symmetries)), 0.1, dtype=torch.float64)
    path = InvariancePosterior(model, data, make_result(extents=extents)).save(tmp_path / "groups.npz")
    with pytest.raises(SavedFileError) as caught:
        bayesinv.load(path, model=network())
    assert "differs in groups: groups is ['site 0', " in str(caught.value) and "None here" in str(caught.value)
    assert "prior" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(SavedFileError) as caught:
        bayesinv.load(path, model=network(3, names))
    assert "backbone.net, in its line 5, is '(3): Linear(in_features=8, out_features=2, " in str(caught.value)
    assert "Flatten" not in str(caught.value)


@pytest.fixture
def saved(tmp_path):
    return posterior_of(build(), weighted=True).save(tmp_path / "digits.posterior")


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.parametrize("chains", [1, 2])
def test_everything_comes_back(tmp_path, likelihood, chains):
    before = posterior_of(build(likelihood=likelihood), chains=chains, weighted=chains == 1)
    path = before.save(tmp_path / "any.name")
    assert path == tmp_path / "any.name"
    assert os.listdir(tmp_path) == ["any.name"]
    after = bayesinv.load(path)
    assert after.result.hyperparameters is None and after.result.density is None
    for field in ("extents", "log_weights"):
        old, new = getattr(before.result, field), getattr(after.result, field)
        assert (old is None and new is None) or torch.equal(old, new)
    for field in ("trace", *storage._SCALARS):
        assert getattr(before.result, field) == getattr(after.result, field)
    assert torch.equal(before.data.x, after.data.x)
    assert torch.equal(before.data.y, after.data.y)
    assert before.data.num_classes == after.data.num_classes
    assert before.model.config() == after.model.config()
    for name, value in before.model.state_dict().items():
        assert torch.equal(value, after.model.state_dict()[name]), name
    one, other = (p.predict(p.data.x[:3], num_samples=4) for p in (before, after))
    assert torch.equal(one.variance, other.variance)


def test_missing_diagnostics_come_back(tmp_path):
    before = posterior_of(build(), chains=2, rhat=(1.0, math.nan, 1.0), warnings=("one", "two"))
    after = bayesinv.load(before.save(tmp_path / "file"))
    assert math.isnan(after.result.rhat[1])
    assert after.result.warnings == ("one", "two")
    assert after.result.pareto_k is None


def test_the_file_says_what_wrote_it(saved):
    with np.load(saved, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
    assert header["format"] == "bayesinv.InvariancePosterior"
    assert header["format_version"] == storage.FORMAT_VERSION
    assert header["versions"]["torch"]


def test_nothing_is_overwritten_unasked(saved):
    content = saved.read_bytes()
    posterior = posterior_of(build(), draws=7)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        posterior.save(saved)
    assert saved.read_bytes() == content
    posterior.save(saved, overwrite=True)
    assert bayesinv.load(saved).result.num_draws == 7


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved, monkeypatch):
    content = saved.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        posterior_of(build()).save(saved, overwrite=True)
    assert saved.read_bytes() == content
    assert os.listdir(saved.parent) == [saved.name]


def test_bad_targets(tmp_path):
    posterior = posterior_of(build())
    with pytest.raises(FileNotFoundError, match="does not exist"):
        posterior.save(tmp_path / "missing" / "file")
    with pytest.raises(IsADirectoryError, match="name of a file"):
        posterior.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        bayesinv.load(tmp_path / "missing")


def test_damage_anywhere_is_noticed_or_harmless(saved):
    before, content = bayesinv.load(saved), saved.read_bytes()
    positions = np.random.default_rng(0).integers(0, len(content), 60)
    noticed = 0
    for position in positions:
        damage(saved, int(position))
        try:
            after = bayesinv.load(saved)
        except SavedFileError:
            noticed += 1
        else:  # fields of the zip that nobody reads, such as times
            assert torch.equal(after.result.extents, before.result.extents)
            assert torch.equal(after.data.x, before.data.x)
        saved.write_bytes(content)
    assert noticed >= 50


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_cut_short(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SavedFileError, match="damaged"):
        bayesinv.load(saved)


def test_foreign_files(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("rotation 54")
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("readme", "hello")
    np.savez(tmp_path / "foreign.npz", x=np.zeros(3))
    header = np.frombuffer(b'{"format": "another", "format_version": 1}', dtype=np.uint8)
    np.savez(tmp_path / "other.npz", header=header)
    torch.save({"x": torch.zeros(2)}, tmp_path / "weights.pt")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(SavedFileError, match="not a posterior saved by bayesinv"):
            bayesinv.load(path)


def test_no_code_in_the_file_is_run(saved):
    class Payload:
        def __reduce__(self):
            return (ran.append, ("yes",))

    ran: list[str] = []
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("state/extra.npy", buffer.getvalue())
    with pytest.raises(SavedFileError, match="allow_pickle=False"):
        bayesinv.load(saved)
    assert ran == []


def test_a_later_format(saved):
    rewrite(saved, header={"format_version": 99, "versions": {"bayesinv": "7.0"}})
    with pytest.raises(SavedFileError, match=r"format version 99.*bayesinv 7\.0"):
        bayesinv.load(saved)


@pytest.mark.parametrize("version", [0, storage.FORMAT_VERSION + 1])
def test_other_formats_are_refused_with_what_to_do(saved, version):
    rewrite(saved, header={"format_version": version, "versions": {"bayesinv": "0.0.7"}})
    reads = f"has format version {version}, this bayesinv reads up to {storage.FORMAT_VERSION}"
    with pytest.raises(SavedFileError, match=rf"{reads}.*written by bayesinv 0\.0\.7: load it with that"):
        bayesinv.load(saved)
    rewrite(saved, header={"format_version": storage.FORMAT_VERSION})
    assert bayesinv.load(saved).result.num_draws == 400


@pytest.mark.parametrize("degrees", [5.0, math.inf])
def test_q_and_the_hyperparameters_of_every_draw_come_back(tmp_path, degrees):
    generator = torch.Generator().manual_seed(0)
    scales = torch.linalg.cholesky(torch.eye(2, dtype=torch.float64) + 0.5).expand(2, 2, 2).clone()
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    bend = None if math.isinf(degrees) else Bend(*(0.5 + torch.rand(4, 2, generator=generator, dtype=torch.float64)))
    q = Mixture(shares, means, scales, degrees, bend)
    u = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    before = posterior_of(build(), weighted=True, density=q, hyperparameters=u)
    after = bayesinv.load(before.save(tmp_path / "file"))
    assert after.result.density.degrees == degrees
    assert torch.equal(after.result.hyperparameters, u)
    eta = after.result.draws[:20]
    assert torch.equal(after.guide.log_prob(eta), before.guide.log_prob(eta))
    assert torch.equal(after.guide.sample(5, seed=2), before.guide.sample(5, seed=2))
    one, other = (p.predict(p.data.x[:3], num_samples=4) for p in (before, after))
    assert torch.equal(one.probs, other.probs)
    held = InvariancePosterior(before.model, before.data, dataclasses.replace(before.result, hyperparameters=None))
    assert not torch.equal(held.predict(held.data.x[:3], num_samples=4).probs, one.probs)


def test_a_file_of_the_first_format_loads(tmp_path):
    """It knew neither q, hyperparameters of draws, feature space nor the unknown means of outputs."""
    before = posterior_of(build(evidence="dirichlet"), weighted=True)
    before.model.evidence.offset_variance.zero_()  # means were learned there
    path = before.save(tmp_path / "file")
    with np.load(path) as archive:
        header = json.loads(archive["header"].tobytes())
    config = header["model"]
    for name in ("space", "num_features"):
        del config["backbone"][name]
    removed = {"state/hyper_centre": None, "state/evidence.offset_variance": None}
    rewrite(path, header={"format_version": 1, "model": config}, **removed)
    after = bayesinv.load(path)
    assert after.result.density is None and after.result.hyperparameters is None
    assert after.model.backbone.space == "inducing"
    with pytest.raises(ValueError, match="keep their q"):
        _ = after.guide
    one, other = (p.predict(p.data.x[:3], num_samples=4) for p in (before, after))
    assert torch.equal(one.probs, other.probs)
    again = bayesinv.load(after.save(tmp_path / "again"))
    assert torch.equal(again.result.extents, before.result.extents)


def test_a_file_from_before_groups_and_other_options_existed_still_loads(tmp_path):
    """The first files of this format had neither the array nor the entries of options that came since."""
    before = posterior_of(build())
    path = before.save(tmp_path / "file")
    with np.load(path) as archive:
        assert "groups" not in archive.files
        config = json.loads(archive["header"].tobytes())["model"]
    for name in ("average", "output_action", "outputs", "groups"):
        config.pop(name, None)
    config["orbit"].pop("augmentation", None)
    rewrite(path, header={"model": config})
    after = bayesinv.load(path)
    assert after.data.groups is None and after.model.groups is None
    one, other = (p.predict(p.data.x[:3], num_samples=4) for p in (before, after))
    assert torch.equal(one.probs, other.probs)


@pytest.mark.parametrize("name", ["extents", "x", "y", "trace"])
def test_a_missing_array(saved, name):
    rewrite(saved, **{name: None})
    with pytest.raises(SavedFileError, match="incomplete"):
        bayesinv.load(saved)


@pytest.mark.parametrize("value", [3, {}, "text", [1]])
def test_columns_that_are_no_names(saved, value):
    rewrite(saved, header={"columns": value})
    with pytest.raises(SavedFileError, match="columns"):
        bayesinv.load(saved)


@pytest.mark.parametrize("field", ["result", "model", "symmetries", "num_classes"])
@pytest.mark.parametrize("value", [None, 3, {}, "text"])
def test_a_header_of_the_wrong_shape(saved, field, value):
    if field == "num_classes" and value in (None, 3):
        return  # a regression, and three classes: not shapes that can be told from the right ones
    rewrite(saved, header={field: value})
    with pytest.raises(SavedFileError):
        bayesinv.load(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inference", 3),
        ("guide", 3),
        ("log_evidence", "high"),
        ("log_evidence", True),
        ("log_evidence_se", [1.0]),
        ("pareto_k", "0.5"),
        ("seconds", "long"),
        ("num_steps", 1.5),
        ("converged", "yes"),
        ("seed", None),
        ("rhat", 1.0),
        ("settings", ["device"]),
        ("settings", None),
        ("warnings", "one"),
    ],
)
def test_a_fact_of_the_wrong_type(saved, name, value):
    with np.load(saved) as archive:
        stored = json.loads(archive["header"].tobytes())["result"]
    rewrite(saved, header={"result": stored | {name: value}})
    with pytest.raises(SavedFileError, match=f"damaged: {name} is "):
        bayesinv.load(saved)


@pytest.mark.parametrize("names", [[1, 2, 3], [None], [["rotation"]]])
def test_symmetries_that_are_no_names(saved, names):
    rewrite(saved, header={"symmetries": names})
    with pytest.raises(SavedFileError, match="not names"):
        bayesinv.load(saved)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("shares", np.ones(3) / 3, "shapes"),
        ("means", np.zeros(2), "shapes"),
        ("scales", np.ones((2, 1, 1)), "shapes"),
        ("means", np.full((2, 2), np.nan), "not finite"),
        ("scales", np.full((2, 2, 2), np.inf), "not finite"),
        ("shares", np.array([0.5, 0.6]), "sum to one"),
        ("bend", np.ones((3, 2)), "shapes"),
    ],
)
def test_a_density_that_is_none(saved, part, value, words):
    density = {"shares": np.array([0.5, 0.5]), "means": np.zeros((2, 2)), "scales": np.stack([np.eye(2)] * 2)}
    rewrite(saved, header={"degrees": 5.0}, **{f"density/{k}": v for k, v in density.items()})
    assert bayesinv.load(saved).result.density.degrees == 5.0
    rewrite(saved, **{f"density/{part}": value})
    with pytest.raises(SavedFileError, match=words):
        bayesinv.load(saved)


def test_impossible_draws(saved):
    rewrite(saved, extents=np.full((1, 400, 3), np.nan))
    with pytest.raises(SavedFileError, match="not finite"):
        bayesinv.load(saved)


def test_a_state_that_does_not_fit(saved):
    rewrite(saved, **{"state/evidence.offset_variance": np.zeros((9, 3))})
    with pytest.raises(SavedFileError, match="does not fit the model"):
        bayesinv.load(saved)
    rewrite(saved, **{"state/evidence.mean": None})
    with pytest.raises(SavedFileError, match="does not fit the model"):
        bayesinv.load(saved)
    rewrite(saved, **{"state/orbit.base": None})
    with pytest.raises(SavedFileError, match="cannot be rebuilt"):
        bayesinv.load(saved)


def custom_kernel():
    return gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=1.5))


def test_a_kernel_of_ones_own_needs_the_model(tmp_path):
    before = posterior_of(build(custom_kernel()))
    path = before.save(tmp_path / "file")
    with pytest.raises(SavedFileError, match="model=model"):
        bayesinv.load(path)
    fresh = build(custom_kernel())
    fresh.backbone.inducing.data.zero_()
    after = bayesinv.load(path, model=fresh)
    assert torch.equal(after.model.backbone.inducing, before.model.backbone.inducing)
    assert float(fresh.backbone.inducing.detach().abs().max()) == 0  # the caller's is not touched


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence": "dirichlet"}, "evidence"),
        ({"likelihood": "gaussian"}, "likelihood"),
        ({"priors": {}}, "priors"),
        ({"num_orbit_samples": 5}, "orbit"),
    ],
)
def test_another_model_is_refused(tmp_path, changes, message):
    path = posterior_of(build(custom_kernel())).save(tmp_path / "file")
    with pytest.raises(SavedFileError, match=message):
        bayesinv.load(path, model=build(custom_kernel(), **changes))


def test_other_symmetries_are_refused(tmp_path):
    path = posterior_of(build(custom_kernel())).save(tmp_path / "file")
    model = InvarianceModel(GaussianProcess(custom_kernel(), num_inducing=4), "affine2d")
    with pytest.raises(SavedFileError):
        bayesinv.load(path, model=model)


class Hidden(nn.Module):
    """Layers that print the same whatever is done between them."""

    def __init__(self, between=torch.tanh, noise=0.0):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)
        self.between, self.noise = between, noise

    def forward(self, x):
        h = self.between(self.norm(self.first(x.flatten(1))))
        return self.last(h + self.noise * torch.randn_like(h))


def network_model(**options):
    with seeded(0):
        net = Hidden(**options)
    transforms = bayesinv.Affine2d(["rotation", "translate_x", "scale_x"])
    model = InvarianceModel(net, transforms, evidence="plugin", num_orbit_samples=2)
    model.initialise(make_data())
    return model


def test_a_network_that_prints_the_same_and_computes_something_else_is_refused(tmp_path):
    before = posterior_of(network_model())
    path = before.save(tmp_path / "file")
    after = bayesinv.load(path, model=network_model())
    one, other = (p.predict(p.data.x[:3], num_samples=4) for p in (before, after))
    assert torch.equal(one.probs, other.probs)
    relu = network_model(between=torch.relu)
    assert repr(relu.network.net) == repr(before.model.network.net)
    with pytest.raises(SavedFileError, match=r"differ by up to .* its forward computes something else; pass a model"):
        bayesinv.load(path, model=relu)
    with pytest.raises(SavedFileError, match="no definite outputs"):
        bayesinv.load(path, model=network_model(noise=1.0))
    rewrite(path, outputs_at_first=None)  # as files were before
    assert bayesinv.load(path, model=relu).result.num_draws == 400


def test_neither_the_mode_nor_the_statistics_of_a_network_count_or_change(tmp_path):
    model = network_model()
    mean = model.network.net.norm.running_mean.clone()
    path = posterior_of(model).save(tmp_path / "file")
    assert model.network.net.norm.training and torch.equal(model.network.net.norm.running_mean, mean)
    frozen = network_model()
    frozen.network.eval()
    loaded = bayesinv.load(path, model=frozen)
    assert not loaded.model.network.net.norm.training


def test_a_network_that_draws_at_random_and_a_process_keep_no_outputs(tmp_path, saved):
    noisy = posterior_of(network_model(noise=1.0)).save(tmp_path / "noisy")
    for path in (noisy, saved):
        with np.load(path) as archive:
            assert "outputs_at_first" not in archive.files
    assert bayesinv.load(noisy, model=network_model(noise=1.0)).result.num_draws == 400


@pytest.mark.parametrize(
    "parts", [{"num_samples": 5 * 10**7}, {"transform": {"type": "Elastic", "frequencies": 10**9}}]
)
def test_a_model_of_more_draws_than_the_file_holds_is_refused_before_they_are_made(saved, parts):
    with np.load(saved) as archive:
        config = json.loads(archive["header"].tobytes())["model"]
    rewrite(saved, header={"model": {**config, "orbit": {**config["orbit"], **parts}}})
    with pytest.raises(SavedFileError, match=r"cannot be rebuilt: (it describes base draws|frequencies: expected)"):
        load(saved)


def test_more_features_than_the_file_holds_are_refused_before_they_are_drawn(tmp_path):
    model = InvarianceModel(GaussianProcess(num_features=20), "rotation", num_orbit_samples=2)
    data = make_data()
    model.initialise(data)
    path = InvariancePosterior(model, data, make_result(extents=torch.full((1, 20, 1), 0.3, dtype=torch.float64))).save(
        tmp_path / "a"
    )
    assert load(path).model.backbone.num_features == 20
    with np.load(path) as archive:
        config = json.loads(archive["header"].tobytes())["model"]
    rewrite(path, header={"model": {**config, "backbone": {**config["backbone"], "num_features": 10**9}}})
    with pytest.raises(SavedFileError, match="1000000000 random features"):
        load(path)


def test_a_header_that_is_nested_without_end(saved):
    with np.load(saved) as archive:
        arrays = dict(archive)
    arrays["header"] = np.frombuffer(b"[" * 10**6, dtype=np.uint8)
    saved.write_bytes(pack(arrays))
    with pytest.raises(SavedFileError, match="not a posterior"):
        load(saved)


def test_a_folder_of_the_command_line_is_loaded(saved, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder without posterior\.npz"):
        bayesinv.load(folder)
    (folder / "posterior.npz").write_bytes(saved.read_bytes())
    assert bayesinv.load(folder).symmetries == bayesinv.load(saved).symmetries
