"""Sinusoids, from end to end at a small size."""

import json

import pytest
import torch
from PIL import Image

from bayesinv import Outward
from models import sinusoids

TINY = ["--num-train", "40", "--num-test", "20", "--num-orbit-samples", "2", "--epochs", "1", "--batch-size", "20"]


def run(*options):
    return sinusoids.main([*TINY, "--duration", "2", "--device", "cpu", "--quiet", *map(str, options)])


@pytest.mark.parametrize(("question", "evidence"), [("permitted", "plugin"), ("needed", "laplace")])
def test_build(question, evidence):
    model, train, test = sinusoids.build(question, num_train=24, num_test=12, duration=2.0)
    assert model.evidence_name == evidence
    assert model.active == sinusoids.CANDIDATES
    outward = [name for name, prior in model.extents.priors.items() if isinstance(prior, Outward)]
    assert outward == (["frequency_shift"] if question == "permitted" else [])
    assert train.x.shape == (24, 1, 200) and len(test) == 12
    assert model.backbone(train.x).shape == (24, 4)


def test_a_flat_prior_is_strength_zero():
    model, _, _ = sinusoids.build("permitted", num_train=8, num_test=4, strength=0.0)
    assert not any(isinstance(prior, Outward) for prior in model.extents.priors.values())


@pytest.mark.parametrize(("layers", "units"), sinusoids.SIZES)
def test_networks_have_their_size_and_start_by_the_seed(layers, units):
    first, again, other = (sinusoids.SpectrumMLP(layers, units, seed=seed) for seed in (0, 0, 1))
    hidden = [module for module in first if isinstance(module, torch.nn.Linear)][:-1]
    assert [module.out_features for module in hidden] == [units] * layers
    assert hidden[0].in_features == 121  # 0 to 12 Hz, 10 s
    for one, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(first[-1].weight, other[-1].weight)


def test_the_first_layer_orders_frequencies():
    network = sinusoids.SpectrumMLP(1, 1)
    time = torch.arange(1000) / 100
    waves = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (2.0, 4.0, 6.0, 8.0)])[:, None]
    spectrum, first = list(network)[:2]
    hidden = first(spectrum(waves))[:, 0].detach()
    steps = hidden.diff()
    assert bool((steps > 0.2).all() or (steps < -0.2).all())


def test_spectra_are_shares_of_the_power():
    """A sinusoid on a bin has all of it there, whatever its loudness and phase."""
    spectrum = sinusoids.PowerSpectrum(121)
    time = torch.arange(1000) / 100
    waves = torch.stack([3 * torch.sin(2 * torch.pi * 4.0 * time), torch.cos(2 * torch.pi * 4.0 * time)])[:, None]
    shares = spectrum(waves) / sinusoids.SCALE
    assert shares[:, 40].tolist() == pytest.approx([1, 1], abs=1e-5)
    noise = spectrum(torch.randn(50, 1, 1000, generator=torch.Generator().manual_seed(0))) / sinusoids.SCALE
    assert noise.sum(1).tolist() == pytest.approx([1] * 50)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"question": "wanted"}, "question: expected one of permitted, needed, got 'wanted'"),
        ({"strength": -1.0}, "strength: expected a number of at least 0, got -1.0"),
        ({"units": 0}, "units: expected at least 1, got 0"),
    ],
)
def test_arguments_of_build(wrong, message):
    with pytest.raises(ValueError, match=message):
        sinusoids.build(**{"num_train": 4, "num_test": 4, **wrong})


@pytest.mark.parametrize("question", sinusoids.QUESTIONS)
def test_both_questions(question, tmp_path, capsys):
    assert run("--question", question, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["truth"] == {"frequency_shift": 0.5}
    assert (found["log_evidence"] is None) == (question == "permitted")
    assert set(found["extents"]) == set(sinusoids.CANDIDATES)
    said = capsys.readouterr().out
    assert "invariance under shifts within ±0.5 Hz" in said
    with Image.open(tmp_path / "extents.png") as picture:
        assert picture.width == 1200


@pytest.mark.parametrize("inference", ["fixed", "none", "augnet"])
def test_point_estimates(inference, tmp_path):
    assert run("--inference", inference, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    expected = {"fixed": 0.5, "none": 0.0}
    if inference in expected:
        assert found["extents"]["frequency_shift"]["median"] == expected[inference]
    assert all(extent["lower"] == extent["upper"] for extent in found["extents"].values())


def test_wrong_arguments_end_with_the_cure(capsys):
    with pytest.raises(SystemExit) as ended:
        run("--strength", "-1")
    assert ended.value.code == 2
    assert "expected a number from 0 to 100, got '-1'" in capsys.readouterr().err
