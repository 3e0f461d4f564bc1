"""The files in the folder of a training run: their names, and how they are written."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

RECIPE = "recipe.yaml"
DATA = "data.yaml"
MODEL = "model.keras"
BEST = "best.keras"
LOG = "log.csv"
CURVES = "curves.png"
CARD = "README.md"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the same folder. The file there replaces `path` at the end, unless an error is raised.

    So `path` is never half written, even if the process is killed.
    """
    temporary = path.with_name(f"part-{path.name}")
    yield temporary
    os.replace(temporary, path)
