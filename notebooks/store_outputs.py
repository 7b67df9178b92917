"""Run notebooks at full size and store what they show: `python notebooks/store_outputs.py [--all] [NAME ...]`.

Without names those run whose code has changed since their outputs were stored. What is stored is small: pictures with
few colours, tables, and what is printed; progress bars and warnings are left out.
"""

import argparse
import base64
import hashlib
import io
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
COLOURS = 128
LARGEST_HTML = 20_000  # bytes; the plain text beside it is shown in its place


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of the code alone: words may change without a run."""
    code = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def small_png(encoded: str) -> str:
    """The same picture from a palette, in base64."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").quantize(COLOURS)
    stored = io.BytesIO()
    image.save(stored, "PNG", optimize=True)
    return base64.b64encode(stored.getvalue()).decode()


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what changes from run to run."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = None
            if len(output.get("data", {}).get("text/html", "")) > LARGEST_HTML:
                del output.data["text/html"]
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small_png(output.data["image/png"])
                output.metadata = {}
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",)}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["outputs_of"] = digest(notebook)
    return notebook


def main() -> None:
    """Run, clean, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 01_first_posterior")
    parser.add_argument("--all", action="store_true", help="also those whose outputs belong to their code")
    options = parser.parse_args()
    paths = [HERE / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.names] or sorted(HERE.glob("*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if not options.all and not options.names and notebook.metadata.get("outputs_of") == digest(notebook):
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            resources = {"metadata": {"path": folder}}
            NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
        text = nbformat.writes(cleaned(notebook)) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path.stem}: {time.perf_counter() - began:.0f} s, {len(text.encode()) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
