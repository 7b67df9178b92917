"""The notebooks run from top to bottom at a small size, and are stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# Replaces the cell tagged "parameters": the story stays, the numbers shrink.
SMALL = "NUM_TRAIN = 60\nMAX_STEPS = 15\nNUM_DRAWS = 25\nNUM_INDUCING = 20\n"


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == ["01_first_posterior.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Proactor event loop")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    defined = {line.split(" = ")[0] for line in parameters[0].source.splitlines() if " = " in line}
    assert defined == {line.split(" = ")[0] for line in SMALL.splitlines()}
    parameters[0].source = SMALL
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 4  # digits, extents, evidence, orbit
