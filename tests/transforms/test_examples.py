"""The tables of docs/transforms.md, and that no registered transform is missing from them."""

import sys
from pathlib import Path

import pytest

from bayesinv.transforms import from_config, known_transforms

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
from transform_examples import EXAMPLES, NOT_LISTED, examples, table  # noqa: E402

PAGE = (ROOT / "docs" / "transforms.md").read_text(encoding="utf-8")


def test_every_transform_of_the_package_has_an_example():
    def ours(name):  # other tests register transforms of their own
        from bayesinv.transforms import base

        return base._REGISTRY[name].__module__.startswith("bayesinv.transforms")

    listed = {type(transform).__name__ for _, _, transform, _ in examples()}
    assert {name for name in known_transforms() if ours(name)} == listed | NOT_LISTED


@pytest.mark.parametrize("kind", list(EXAMPLES))
def test_the_page_holds_the_table(kind):
    assert "\n".join(table(kind)) in PAGE, "run tests/benchmarks/transform_examples.py and copy the table"


@pytest.mark.parametrize("example", list(examples()), ids=lambda e: type(e[2]).__name__)
def test_examples_fit(example):
    _, shape, transform, make = example
    x = make(3)
    assert "×".join(map(str, x.shape[1:])) == shape
    transform.check_input(x)
    assert from_config(transform.config()).names == transform.names
