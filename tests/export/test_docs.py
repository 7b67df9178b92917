"""The page on export runs as it stands there, at a small size."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of a fit of ten steps
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    learn, use = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[:2]
    learn = learn.replace("num_train=500", "num_train=60").replace(
        "fit(model, train,", "fit(model, train, max_steps=10,"
    )
    use = use.replace("range(20)", "range(1)").replace("num_copies=16", "num_copies=2")
    use = use.replace("test.x.", "test.x[:40].").replace("test.y)", "test.y[:40])")
    assert "num_train=60" in learn and "max_steps=10" in learn and "range(1)" in use and use.count("[:40]") == 2
    exec(compile(learn + use, "export.md", "exec"), {})
    assert 0 <= float(re.search(r"tensor\((\S+),", capsys.readouterr().out)[1]) <= 1
    assert (tmp_path / "aug.json").exists()
