"""The examples of README and docs/guide.md run as they stand there (at a small size), and what they point to exists."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.split()) <= 700


@pytest.mark.filterwarnings("ignore::bayesinv.errors.ImportanceWarning")
@pytest.mark.filterwarnings("ignore::bayesinv.errors.NotConvergedWarning")
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    assert len(block.strip().splitlines()) <= 15
    small = block.replace("num_train=500", "num_train=60").replace("progress=True", "max_steps=10, num_draws=20")
    assert small.count("60") == 1 and "max_steps=10" in small
    exec(compile(small, "README.md", "exec"), {})
    assert "rotation" in capsys.readouterr().out
    assert (tmp_path / "extents.png").stat().st_size > 1000
    assert (tmp_path / "digits.bayesinv").exists()
    assert (tmp_path / "aug.safetensors").exists()


def test_the_example_with_a_network_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)[1]
    small = block.replace("num_train=500", "num_train=60").replace("epochs=40", "epochs=2")
    assert small.count("num_train=60") == 1 and small.count("epochs=2") == 2
    exec(compile(small, "guide.md", "exec"), {})
    assert "augerino" in capsys.readouterr().out
    assert (tmp_path / "run.checkpoint").stat().st_size > 1000


def test_the_example_with_other_data_runs():
    import bayesinv

    block = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)[2]
    names: dict = {"bayesinv": bayesinv}
    exec(compile(block, "guide.md", "exec"), names)
    assert names["signals"].orbit.transform.names == ("time_shift", "frequency_shift", "sign_flip")
    assert names["table"].orbit.transform.names == ("shift_0", "shift_2")


def test_what_it_points_to_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if not link.startswith("https://")]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
    paths = re.findall(r"^\| `([^`]+/[^`]*)`", GUIDE, flags=re.MULTILINE)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_badges_say_what_the_project_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    torch = next(each for each in project["dependencies"] if each.startswith("torch>="))
    said = dict(re.findall(r"img\.shields\.io/badge/(licence|Python|torch)-([^-]+)-", README))
    python, torch = (
        each.removeprefix("torch").removeprefix(">=") + "+" for each in (project["requires-python"], torch)
    )
    assert said == {"licence": project["license"], "Python": python, "torch": torch}


def test_make_targets_are_those_of_the_makefile():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert target in targets


def test_the_transform_of_contributing_conforms():
    from bayesinv.testing.transforms import TransformCase, check_transform, smooth_images

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    check_transform(TransformCase(names["Brightness"](), smooth_images(), registered=False))
