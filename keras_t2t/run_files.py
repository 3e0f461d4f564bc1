"""The files in the folder of a training run: their names, and how they are written."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

RECIPE = "recipe.yaml"
DATA = "data.yaml"
MODEL = "model.keras"
BEST_WEIGHTS = "best.weights.h5"
LOG = "log.csv"
CURVES = "curves.png"


def complete_model(weights: str | os.PathLike) -> pathlib.Path | None:
    """Returns the `.keras` file that has the complete model of a file of weights, or `None` if it is not known.

    That is the file itself, or the model next to the best weights of a training run.
    """
    path = pathlib.Path(weights)
    if path.name == BEST_WEIGHTS and (path.parent / MODEL).is_file():
        return path.parent / MODEL
    return path if path.suffix == ".keras" else None


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the same folder. The file there replaces `path` at the end, unless an error is raised.

    So `path` is never half written, even if the process is killed.
    """
    temporary = path.with_name(f"part-{path.name}")
    yield temporary
    os.replace(temporary, path)
