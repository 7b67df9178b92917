"""Progress bars."""

from typing import Any

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(shown: bool, unit: str, total: int | None = None, initial: int = 0) -> Any:
    """A bar on standard error that counts; silent where it is not shown, or where the environment has TQDM_DISABLE=1.

    Args:
        shown: what the caller's ``progress`` says.
        unit: of what is counted, in the singular.
        total: how many there will be, if that is known.
        initial: how many are done.
    """
    # Given to tqdm, `disable=False` would override the environment.
    hidden = {} if shown else {"disable": True}
    return tqdm(total=total, initial=initial, unit=unit, dynamic_ncols=True, **hidden)
