"""Messages of the library, which speak of Python arguments, in the words of the shell."""

import re

# Axes of the inputs in an .npz file: n examples, c channels, h height, w width.
LAYOUTS = ("nchw", "nhwc", "nhw")

# Names that are options of the commands under the same name.
_OPTIONS = [
    "max_steps",
    "num_draws",
    "num_features",
    "num_inducing",
    "num_orbit_samples",
    "num_samples",
    "likelihood",
    "evidence",
    "padding",
    "inference",
    "guide",
    "seed",
    "device",
    "level",
    "reweighted",
]
_ONE_OF = "|".join(_OPTIONS)
# The first that fits wins; a call in Python is replaced before the arguments inside it.
_RULES = (
    (r"pass overwrite=True", "add --overwrite"),
    (r"skip_broken=True", "--skip-broken"),
    (r"pass labels=False", "say --likelihood gaussian"),
    (r"\bpass reweighted=False|call with reweighted=False", "leave out --reweighted"),
    (r"bayesinv\.Data\(x, y, num_classes=\.\.\.\)", "that takes Python"),
    (rf"\b({_ONE_OF})=[\"']([\w-]+)[\"']", r"--\1 \2"),
    (r"\bdivide_by=([\d.e+]+)", r"--divide-by \1"),
    (r"\bdivide_by\b", "--divide-by"),
    (r"\bnum_inducing=None", "--num_inducing none"),
    (r"(?<![\w-])size=(\d+)", r"--size \1"),
    (r", or max_steps where it is given", ""),  # of trainings, whose length --epochs sets
    (r"\braise epochs or batch_size", "raise --epochs or --batch-size"),
    (r"\braise epochs", "raise --epochs"),
    (rf"^({_ONE_OF}):", r"--\1:"),
    (r"(?<![\w-])(max_steps|num_draws|num_features|num_inducing|num_orbit_samples|num_samples)\b", r"--\1"),
)


def in_shell_words(text: str) -> str:
    """A message with Python arguments written as options.

    Example:
        >>> in_shell_words('Try guide="flow", more max_steps, or pass overwrite=True')
        'Try --guide flow, more --max-steps, or add --overwrite'
    """
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text)
    return re.sub(r"--[a-z]+(?:_[a-z]+)+", lambda found: found.group().replace("_", "-"), text)
