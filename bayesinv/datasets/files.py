"""Inputs and targets from `.npz` files and from folders of pictures."""

import mimetypes
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from bayesinv.data.items import LARGEST_WHOLE
from bayesinv.datasets.pictures import SIXTEEN_BITS, open_picture, pixels, white_of
from bayesinv.datasets.split import Examples
from bayesinv.errors import DataError, DataWarning
from bayesinv.numerics.arguments import as_integer, as_number

__all__ = ["IMAGE_SUFFIXES", "load_image_folder", "load_npz"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SYSTEM_FILES = ("Thumbs.db", "desktop.ini")
SHOWN = 5  # files in a warning
DARK = 0.25  # of what 16 bits hold: what 14 bits do


def load_npz(path: str | Path, x_key: str = "x", y_key: str = "y") -> Examples:
    """Read inputs and targets from a NumPy `.npz` file. Nothing in the file is executed.

    Args:
        path: the file.
        x_key: name of the inputs, (n, *event).
        y_key: name of the targets, (n,) or (n, outputs); may be missing. An array ``classes`` is
            read as the names of the classes.

    Returns:
        The arrays as they are stored. `bayesinv.data.as_data` checks them.

    Raises:
        DataError: no such file, not an `.npz` file, damaged, without inputs, or of arrays that would take more than
            8 GB. How far they are compressed does not count: pictures may be empty for the most part.

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
            named = {} if isinstance(archive, np.ndarray) else _arrays(path, archive, (x_key, y_key, "classes"))
    except DataError:
        raise
    # A damaged zip fails in as many ways as it has fields, and a header may ask for more memory than there is.
    except Exception as error:
        reason = str(error)
        if "pickle" in reason:
            first = path.read_bytes()[:20]
            known = first.startswith((b"PK", b"\x93NUMPY"))
            reason = "it holds Python objects" if known else f"it is none, whatever its name, and begins with {first!r}"
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


def _arrays(path: Path, archive: np.lib.npyio.NpzFile, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays that are there, if they fit into memory."""
    wanted = [name for name in names if name in archive.files]
    with zipfile.ZipFile(path) as entries:
        size = sum(entry.file_size for entry in entries.infolist() if entry.filename.removesuffix(".npy") in wanted)
    if size > LARGEST_WHOLE:
        raise DataError(
            f"{path} holds arrays of {size / 2**30:.0f} GB under {', '.join(wanted)}; expected at most "
            f"{LARGEST_WHOLE / 2**30:.0f} GB. Take fewer examples, or a data set that reads them one by one"
        )
    return {name: archive[name] for name in wanted}


def load_image_folder(
    path: str | Path,
    size: int | None = None,
    channels: int | None = None,
    divide_by: float | int | None = None,
    skip_broken: bool = False,
) -> Examples:
    """Read pictures from a folder, one sub-folder a class.

    Pictures without classes lie directly in it. They are read as they are seen: turned as their EXIF data say, and
    where they are transparent over black.

        folder/cat/1.png, folder/cat/2.png, folder/dog/1.png, ...

    Args:
        path: the folder.
        size: side in pixels: the shorter side is resized to it and the middle is cut out, so that
            angles stay what they are. None expects pictures of one size.
        channels: 1 (grey), 3 (RGB), or None: grey where every picture is.
        divide_by: the grey level that becomes 1; None, or 1, takes the largest of 8 or 16 bits. Pictures of 12 bits in
            files of 16 need 4095, and those of floating point or 32 bits a number in any case.
        skip_broken: leave out pictures that cannot be read, with a warning that lists them, instead of raising.

    Returns:
        x (n, channels, height, width), float32 in [0, 1]; y the labels, in the order of the sorted
        class names, or None; the class names; the files, relative to the folder.

    Raises:
        DataError: no such folder, no pictures, a picture that cannot be read, or sizes that differ. Pictures of 8 bits
            beside others, for which one `divide_by` cannot be right.

    Warns:
        DataWarning: files left out, of another kind (text aside), beside the folders of the classes, or broken;
            pictures that are transparent in places; pictures of 16 bits that hold fewer.

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
    size = None if size is None else as_integer("size", size)
    files, labels, classes = _pictures(folder)
    divide_by = None if divide_by is None else as_number("divide_by", divide_by)
    stated = None if divide_by == 1 else divide_by  # by which no picture of 8 or 16 bits is in [0, 1]
    arrays, transparent, broken = [], [], []
    deep: dict[Path, float] = {}
    for file in files:
        try:
            picture = open_picture(file, divide_by)
        except DataError:
            if not skip_broken:
                raise
            broken.append(file)
            continue
        transparent += [file] if picture.is_transparent else []
        deep |= {} if picture.largest is None else {file: picture.largest}
        arrays.append(pixels(picture.image if size is None else _resized(picture.image, size), stated or 255.0))
    if broken:
        listed = ", ".join(file.relative_to(folder).as_posix() for file in broken)
        if not arrays:
            raise DataError(f"none of the {len(files)} pictures in {folder} can be read: {listed}")
        warnings.warn(
            f"left out {len(broken)} of {len(files)} pictures, which cannot be read: {listed}",
            DataWarning,
            stacklevel=2,
        )
        kept = [(file, label) for file, label in zip(files, labels, strict=True) if file not in set(broken)]
        files, labels = [file for file, _ in kept], [label for _, label in kept]
    _check_depth(files, deep, divide_by)
    if transparent:
        warnings.warn(
            f"{len(transparent)} of {len(files)} pictures are transparent in places, and read as if over "
            f"black ({_some(transparent, folder)}); where another background is meant, write them without transparency",
            DataWarning,
            stacklevel=2,
        )
    if channels is None:
        channels = 3 if any(array.ndim == 3 for array in arrays) else 1
    first = arrays[0].shape[:2]
    for file, array in zip(files, arrays, strict=True):
        if array.shape[:2] != first:
            raise DataError(
                f"{file} is {array.shape[1]}×{array.shape[0]} pixels and {files[0]} "
                f"{first[1]}×{first[0]}; expected pictures of one size; bring them to one side, such as size=32"
            )
    x = np.stack([_with_channels(array, channels) for array in arrays])
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    dtype = "uint16" if deep else "uint8"
    return Examples(x, np.asarray(labels, dtype=np.int64) if classes else None, classes, names, dtype)


def _check_depth(files: list[Path], deep: dict[Path, float], divide_by: float | None) -> None:
    """Refuse one divisor for several depths; warn of files of 16 bits that hold fewer."""
    if divide_by not in (None, 1) and 0 < len(deep) < len(files):
        shallow = next(file for file in files if file not in deep)
        raise DataError(
            f"{shallow} has 8 bits and {next(iter(deep))} more, and divide_by={divide_by:g} is for all; expected one "
            "depth: leave out divide_by, or convert them"
        )
    largest = max(deep.values(), default=0)
    if divide_by is None and 0 < largest < DARK * SIXTEEN_BITS:
        warnings.warn(
            f"pictures of 16 bits are divided by {SIXTEEN_BITS}, and the largest value in these {len(deep)} is "
            f"{largest:g}, as of a camera with fewer bits; where white is less, say so: "
            f"divide_by={white_of(largest):g}",
            DataWarning,
            stacklevel=3,
        )


def _pictures(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """The files in sorted order, the label of each, and the class names."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; expected pictures, one sub-folder a class")
    entries = _entries(folder)
    subfolders = [p for p in entries if p.is_dir()]
    files: list[Path] = []
    labels: list[int] = []
    left_out = [p for p in entries if p.is_file()] if subfolders else []
    for label, parent in enumerate(subfolders or [folder]):
        inside = _entries(parent)
        found = [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise DataError(f"{parent} holds no pictures; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
        files += found
        labels += [label] * len(found)
        left_out += [p for p in inside if p not in set(found)]
    left_out = [p for p in left_out if not (mimetypes.guess_type(p.name)[0] or "").startswith("text/")]
    if left_out:
        where = "in the folders of the classes" if subfolders else "in the folder"
        warnings.warn(
            f"left out {len(left_out)} files or folders ({_some(left_out, folder)}) and read {len(files)} pictures: "
            f"files {where} that end in {', '.join(IMAGE_SUFFIXES)}; convert or move what belongs to the data",
            DataWarning,
            stacklevel=3,
        )
    return files, labels, tuple(p.name for p in subfolders)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without what the system hides there."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in SYSTEM_FILES)


def _some(files: list[Path], folder: Path) -> str:
    """The first of these files, one of each kind before a second of any."""
    kinds: dict[str, Path] = {}
    for file in files:
        kinds.setdefault(file.suffix.lower(), file)
    first = [*kinds.values(), *(file for file in files if file not in kinds.values())][:SHOWN]
    return ", ".join(file.relative_to(folder).as_posix() for file in first) + ", ..." * (len(files) > len(first))


def _resized(picture: Image.Image, size: int) -> Image.Image:
    """The shorter side to `size`, then the middle square."""
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
