"""The notebooks run from top to bottom at a small size, and are stored with the outputs of their code at full size."""

import base64
import importlib.util
import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
spec = importlib.util.spec_from_file_location("store_outputs", FOLDER / "store_outputs.py")
store_outputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(store_outputs)
LARGEST = 300_000  # bytes of a notebook
# Replaces the cell tagged "parameters": the story stays, the numbers shrink.
SMALL = {
    "01_first_posterior": "NUM_TRAIN = 60\nNUM_FEATURES = 64\nNUM_DRAWS = 25\n",
    "02_neural_networks": "NUM_TRAIN = 60\nNUM_EPOCHS = 12\nNUM_TEST = 60\nGP_FEATURES = 64\nGP_DRAWS = 30\n",
    "03_posterior_against_point_estimates": "NUM_TRAIN = 60\nNUM_EPOCHS = 12\nNUM_TEST = 60\nSEEDS = (0, 1)\n",
    "04_eeg": "NUM_TRAIN = 24\nNUM_TEST = 30\nNUM_FEATURES = 32\nNUM_DRAWS = 30\nMAX_ROUNDS = 2\nNUM_EPOCHS = 2\n",
    "05_molecules_and_equivariance": (
        "NUM_TRAIN = 40\nNUM_TEST = 20\nNUM_FEATURES = 64\nNUM_DRAWS = 25\nNUM_EPOCHS = 8\n"
    ),
    "06_which_symmetries": (
        "NUM_TRAIN = 60\nNUM_FEATURES = 64\nNUM_DRAWS = 25\nMAX_ROUNDS = 2\nNUM_EPOCHS = 5\nNUM_TEST = 60\n"
    ),
    "07_can_i_trust_it": (
        "NUM_TRAIN = 60\nNUM_FEATURES = 64\nSHORT_STEPS = 1\nNUM_DRAWS = 100\nNUM_SENSITIVITY = 100\n"
        "NUM_ORBIT = 20\nNUM_EVIDENCE = 50\nNUM_TEST = 60\nNUM_SIMULATIONS = 3\nNUM_SIMULATED = 20\n"
        "NUM_SIMULATED_DRAWS = 100\nNUM_PRIOR = 40\n"
    ),
    "08_take_the_augmentation": (
        "NUM_TRAIN = 60\nNUM_TEST = 60\nNUM_FEATURES = 64\nNUM_DRAWS = 100\nNUM_EPOCHS = 2\nNUM_WORKERS = 0\n"
    ),
    "09_my_own_resnet": (
        "NUM_TRAIN = 60\nNUM_FIRST = 60\nNUM_TEST = 30\nNUM_FEATURES = 64\nNUM_DRAWS = 30\nNUM_EPOCHS = 2\n"
    ),
}
# Pictures to be drawn, at the least.
PICTURES = {
    "01_first_posterior": 4,  # digits, extents, evidence, orbit
    "02_neural_networks": 5,  # digits, extents, orbit, prediction, trace
    "03_posterior_against_point_estimates": 1,  # comparison
    "04_eeg": 3,  # recordings, orbit, selection
    "05_molecules_and_equivariance": 3,  # orbits, extents, dipoles
    "06_which_symmetries": 4,  # digits, two selections, comparison with AugNet
    "07_can_i_trust_it": 5,  # reliability, intervals, coverage, ranks, ranks of a wrong one
    "08_take_the_augmentation": 2,  # copies, masks and boxes
    "09_my_own_resnet": 2,  # extents, copies
}
# What has to be said in the printed outputs and tables.
SAID = {
    "01_first_posterior": ("log evidence",),
    "02_neural_networks": (
        "layer '1' (BatchNorm2d)",
        "layer '1' (Hardsigmoid)",
        "only upper_limit() says something",
        "went on at step 6 of 12",
        "same draws as without the cut: True",
        "frozen deep kernel",
    ),
    "03_posterior_against_point_estimates": ("fixed ±45°", "augnet", "elpd_difference", "seed 1"),
    "04_eeg": ("frequency_shift", "in truth:", "no augmentation", "Gaussian process"),
    "05_molecules_and_equivariance": (
        "rotation",
        "reflect_x",
        "learned",
        "predictions change by",
        "equivariance error after",
    ),
    "06_which_symmetries": ("likeliest set", "log_bf_last", "covered", "averaged over sets"),
    "07_can_i_trust_it": (
        "serious",
        "raise max_steps",
        "prior sensitivity",
        "they agree",
        "Mean confidence",
        "failed: 0",
        "blur of the same loss",
        "overconfident  inside the bands: False",
    ),
    "08_take_the_augmentation": (
        "RandomAffine",
        "neither Pyro nor GPyTorch nor ArviZ",
        "the same seed, the same pictures: True",
        "another seed, the same pictures: False",
    ),
    "09_my_own_resnet": ("rotation", "no augmentation", "8 copies averaged"),
}


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == list(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_those_of_the_code(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.metadata.get("outputs_of") == store_outputs.digest(notebook), "make notebooks"
    pictures = [out.data["image/png"] for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= PICTURES[path.stem]
    for picture in pictures:
        assert min(Image.open(io.BytesIO(base64.b64decode(picture))).size) > 50
    for cell in cells:
        assert cell.execution_count is None
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
            words = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            assert "site-packages" not in words and "/tmp/" not in words, words  # whose machine it was
    assert path.stat().st_size <= LARGEST


def test_other_code_or_words_change_the_digest_or_do_not():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("words"), nbformat.v4.new_code_cell("1")])
    first = store_outputs.digest(notebook)
    notebook.cells[0].source = "other words"
    assert store_outputs.digest(notebook) == first
    notebook.cells[1].source = "2"
    assert store_outputs.digest(notebook) != first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Proactor event loop")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, tmp_path):
    small = SMALL[path.stem]
    notebook = nbformat.read(path, as_version=4)
    parameters = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    defined = {line.split(" = ")[0] for line in parameters[0].source.splitlines() if " = " in line}
    assert defined == {line.split(" = ")[0] for line in small.splitlines()}
    parameters[0].source = small
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= PICTURES[path.stem]
    words = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    for said in SAID[path.stem]:
        assert said in words, said
    assert not list(tmp_path.iterdir())  # nothing is left behind
