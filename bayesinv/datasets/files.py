"""Inputs and targets from `.npz` files and from folders of pictures."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from bayesinv.datasets.split import Examples
from bayesinv.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "load_image_folder", "load_npz"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def load_npz(path: str | Path, x_key: str = "x", y_key: str = "y") -> Examples:
    """Read inputs and targets from a NumPy `.npz` file. Nothing in the file is executed.

    Args:
        path: the file.
        x_key: name of the inputs, (n, *event).
        y_key: name of the targets, (n,) or (n, outputs); may be missing. An array ``classes`` is
            read as the names of the classes.

    Returns:
        The arrays as they are stored. `bayesinv.as_data` checks them.

    Raises:
        DataError: no such file, not an `.npz` file, damaged, or without inputs.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> from bayesinv.datasets import load_npz
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "images.npz"
        ...     np.savez(path, x=np.zeros((5, 1, 8, 8)), y=np.arange(5))
        ...     load_npz(path).x.shape
        (5, 1, 8, 8)
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected a .npz file with {x_key} and {y_key}")
    try:
        # Opened here, since np.load leaves its own handle open when a file turns out to be damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            named = (
                {}
                if isinstance(archive, np.ndarray)
                else {key: archive[key] for key in (x_key, y_key, "classes") if key in archive.files}
            )
    # A damaged zip fails in as many ways as it has fields, and a header may ask for more memory than there is.
    except Exception as error:
        reason = "it holds Python objects" if "pickle" in str(error) else str(error)
        raise DataError(
            f"{path} cannot be read as .npz ({reason}); expected a file of plain arrays written by numpy.savez"
        ) from error
    if isinstance(archive, np.ndarray):
        raise DataError(f"{path} holds a single array; expected .npz: numpy.savez(path, x=x, y=y)")
    if x_key not in named:
        raise DataError(
            f"{path} has no array {x_key!r}; it holds {', '.join(archive.files) or 'nothing'}. "
            "Name the inputs x and the targets y, or say what they are called."
        )
    for key, value in named.items():
        if not isinstance(value, np.ndarray):  # np.load hands out other members as bytes
            raise DataError(f"{path} cannot be read as .npz ({key!r} is not an array)")
    names = named.get("classes", np.array([])).tolist()
    return Examples(named[x_key], named.get(y_key), tuple(str(name) for name in names))


def load_image_folder(path: str | Path, size: int | None = None, channels: int | None = None) -> Examples:
    """Read pictures from a folder, one sub-folder a class.

    Pictures without classes lie directly in it.

        folder/cat/1.png, folder/cat/2.png, folder/dog/1.png, ...

    Args:
        path: the folder.
        size: side in pixels: the shorter side is resized to it and the middle is cut out, so that
            angles stay what they are. None expects pictures of one size.
        channels: 1 (grey), 3 (RGB), or None: grey where every picture is.

    Returns:
        x (n, channels, height, width), float32 in [0, 1]; y the labels, in the order of the sorted
        class names, or None; the class names; the files, relative to the folder.

    Raises:
        DataError: no such folder, no pictures, a picture that cannot be read, or sizes that differ.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from bayesinv.datasets import load_image_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         (pathlib.Path(folder) / name).mkdir()
        ...         Image.new("L", (8, 8)).save(pathlib.Path(folder) / name / "1.png")
        ...     examples = load_image_folder(folder)
        >>> examples.x.shape, examples.y.tolist(), examples.classes
        ((2, 1, 8, 8), [0, 1], ('cat', 'dog'))
    """
    folder = Path(path)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is {channels}; expected 1 (grey), 3 (RGB) or None")
    files, labels, classes = _pictures(folder)
    arrays = [_read_picture(file, size) for file in files]
    if channels is None:
        channels = 3 if any(array.ndim == 3 for array in arrays) else 1
    first = arrays[0].shape[:2]
    for file, array in zip(files, arrays, strict=True):
        if array.shape[:2] != first:
            raise DataError(
                f"{file} is {array.shape[1]}×{array.shape[0]} pixels and {files[0]} "
                f"{first[1]}×{first[0]}; expected one size. Give a size to resize to."
            )
    x = np.stack([_with_channels(array, channels) for array in arrays])
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return Examples(x, np.asarray(labels, dtype=np.int64) if classes else None, classes, names)


def _pictures(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """The files in sorted order, the label of each, and the class names."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; expected pictures, one sub-folder a class")
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files: list[Path] = []
    labels: list[int] = []
    for label, parent in enumerate(subfolders or [folder]):
        found = sorted(p for p in parent.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(f"{parent} holds no pictures; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
        files += found
        labels += [label] * len(found)
    return files, labels, tuple(p.name for p in subfolders)


def _read_picture(file: Path, size: int | None) -> np.ndarray:
    """One picture in [0, 1]: (height, width) if it is grey, else (height, width, 3)."""
    try:
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise DataError(f"{file} holds {frames} frames; expected one picture a file. Write the frames apart")
            if image.mode.startswith("I") or image.mode == "F":
                # Conversion to 8 bits would clip these, so their range has to be known first.
                if not image.mode.startswith("I;16"):
                    raise DataError(f"{file} has pixel type {image.mode}; expected 8 or 16 bits")
                picture = Image.fromarray(np.asarray(image, dtype=np.float32) / 65535)
            else:
                grey = image.mode in ("1", "L", "LA")
                picture = image.convert("L" if grey else "RGB")
            if size is not None:
                picture = _resized(picture, size)
            pixels = np.asarray(picture, dtype=np.float32)
            return pixels if picture.mode == "F" else pixels / 255
    except Image.DecompressionBombError as error:
        raise DataError(f"{file} is too large for a picture of training data; make it smaller: {error}") from error
    except DataError:
        raise
    # A damaged picture fails in as many ways as its format has fields, and for want of memory.
    except Exception as error:
        raise DataError(f"{file} cannot be read as a picture: {error}") from error


def _resized(picture: Image.Image, size: int) -> Image.Image:
    """The shorter side to `size`, then the middle square."""
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _with_channels(
    array: Float[np.ndarray, "height width *rgb"], channels: int
) -> Float[np.ndarray, "channels height width"]:
    """Channels first, as many as asked for; grey from RGB by the ITU-R 601 luma, as Pillow does."""
    if array.ndim == 2:
        return np.repeat(array[None], channels, axis=0)
    if channels == 3:
        return np.moveaxis(array, -1, 0)
    return (array @ np.array([0.299, 0.587, 0.114], dtype=array.dtype))[None]
