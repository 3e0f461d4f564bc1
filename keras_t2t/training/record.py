"""What identifies a training run, as files in its output folder: the recipe, the data, and the initial weights."""

import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

from keras_t2t import run_files
from keras_t2t.data import ImageSource, IndexedSource
from keras_t2t.extras import read_yaml, yaml_module
from keras_t2t.recipes import Recipe
from keras_t2t.training.checkpoints import last_state

CHANGEABLE = {"epochs", "early_stopping_patience", "rematerialize"}
"""Settings that may change when a training run goes on."""


def record_training(
    recipe: Recipe,
    sources: Mapping[str, ImageSource],
    weights: str | os.PathLike | None,
    output: pathlib.Path,
    writes: bool = True,
) -> int:
    """Writes what identifies a training run: the recipe (`recipe.yaml`), and the data and initial weights (`data.yaml`).

    Args:
        recipe: Recipe of the run.
        sources: Images by split.
        weights: Initial weights of the backbone.
        output: Output folder.
        writes: Whether this process writes files.

    Returns:
        The total number of epochs before: fewer than `recipe.total_epochs` if the run goes on with more epochs.

    Raises:
        ValueError: If the folder contains checkpoints of a different training run.
    """
    data: dict[str, Any] = {split: len(source) for split, source in sources.items()}
    data |= {"weights": None if weights is None else str(weights), "classes": list(map(str, sources["train"].classes))}
    data["val_checksum"] = file_checksum(sources["val"])
    texts = {run_files.RECIPE: recipe.to_yaml(), run_files.DATA: yaml_module().safe_dump(data, sort_keys=False)}
    epochs_before = recipe.total_epochs
    if last_state(output) != "none":
        old = {name: (output / name).read_text("utf-8") for name in texts if (output / name).exists()}
        if run_files.RECIPE in old:
            epochs_before = _epochs_before(recipe, old[run_files.RECIPE])
        for name, text in old.items():
            _check_same_run(output, name, text.splitlines(), texts[name].splitlines(), epochs_before <= recipe.total_epochs)
    for name, text in texts.items() if writes else ():
        with run_files.replacing(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return epochs_before


def check_recipe(run: pathlib.Path, recipe: Recipe) -> None:
    """Checks that a finished training run had this recipe, if its folder says which one it had.

    Raises:
        ValueError: If the recipe was different.
    """
    path = run / run_files.RECIPE
    if path.is_file() and path.read_text("utf-8") != recipe.to_yaml():
        raise ValueError(f"{run} was trained with a different recipe. Use another folder, or the settings in {path.name}")


def file_checksum(source: ImageSource) -> int | None:
    """Returns a checksum of the names of the image files and their folders, or `None` for images that are not files."""
    if not isinstance(source, IndexedSource) or not source.from_files:
        return None
    names = sorted("/".join(pathlib.PurePath(path).parts[-2:]) for path in source.images)
    return zlib.crc32(os.fsencode("\n".join(names)))


def is_held_out(source: ImageSource, run: pathlib.Path) -> bool | None:
    """Returns whether a training run held out these images, or `None` if it did not record it.

    Args:
        source: Images.
        run: Output folder of the run.
    """
    data = run / run_files.DATA
    recorded = read_yaml(data) if data.is_file() else {}
    checksums = recorded.get("val_checksum"), file_checksum(source)
    return None if None in checksums else checksums[0] == checksums[1]


def _epochs_before(recipe, text):
    values = yaml_module().safe_load(text)
    return values.get("epochs", 0) + recipe.cooldown_epochs


def _check_same_run(output, name, old, new, longer):
    """Checks that two versions of a file differ only in settings that may change."""
    before, now = [line for line in old if line not in new], [line for line in new if line not in old]
    changed = {line.partition(":")[0] for line in before + now}
    if old == new or (name == run_files.RECIPE and changed <= CHANGEABLE and longer):
        return
    raise ValueError(
        f"{output} contains a different training run. Use another folder, or the settings of that run. You can increase "
        f"its epochs but not decrease them. Lines of {name} before: "
        f"{'; '.join(before[:5]) or 'the same in another order'}; now: {'; '.join(now[:5]) or 'none of these'}"
    )
