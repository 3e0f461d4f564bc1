"""The exceptions that this package defines, and parts of messages.

- `ValueError`
    - `CheckpointError`
    - `DataError`
- `OSError`
    - `DownloadError`
- `RuntimeError`
    - `ExportError`
    - `TrainingError`
"""

import difflib
import math
import os
import pathlib
from collections.abc import Iterable


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit the model."""


class DataError(ValueError):
    """The data cannot be used for training or evaluation."""


class DownloadError(OSError):
    """Pretrained weights cannot be downloaded or cached, or the download is not the published file."""


class ExportError(RuntimeError):
    """An exported file failed its checks. No file is left behind."""


class TrainingError(RuntimeError):
    """Training cannot continue."""


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """Returns the end of an error message about a mistyped name.

    Args:
        name: What was received, of any type.
        choices: The valid names.

    Returns:
        `". Did you mean CHOICE?"` with the choice that is spelled most like the name, or an empty string if none is.
    """
    by_lower_case = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.7)
    return f". Did you mean {by_lower_case[close[0]]}?" if close else ""


def did_you_mean_file(path: str | os.PathLike) -> str:
    """Returns the end of an error message about a path that does not exist, like `did_you_mean`, from the same folder."""
    path = pathlib.Path(path)
    return did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() and not path.exists() else ""


def counted(number: int, noun: str) -> str:
    """Returns a number with a noun: `"1 file"` or `"1,200 files"`. The plural must end in `s` or, for `ss`, in `es`."""
    plural = "" if number == 1 else "es" if noun.endswith("ss") else "s"
    return f"{number:,} {noun}{plural}"


def with_unit(number: float) -> str:
    """Returns a number with three digits and its unit: 21545550 becomes `21.5 M`. Small numbers are returned as they are."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        rounded = float(f"{number / size:.3g}")
        if rounded >= 1 and number >= 1e6:
            return f"{rounded:,.{max(2 - int(math.log10(rounded)), 0)}f} {unit}"
    return f"{number:,}"
