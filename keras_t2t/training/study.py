"""Training all models of a study, and measuring what they cost."""

import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_t2t.analysis import cost, latency
from keras_t2t.data import ImageSource
from keras_t2t.errors import DataError
from keras_t2t.recipes import Recipe, load_recipe
from keras_t2t.run_files import replacing
from keras_t2t.studies.cells import Cell, Study, stratified_indices
from keras_t2t.studies.references import REFERENCES, convolution_macs
from keras_t2t.studies.results import COSTS, RESULT
from keras_t2t.timing import median_time
from keras_t2t.training.building import compiled_model
from keras_t2t.training.record import check_recipe
from keras_t2t.training.trainer import train


def run_study(
    study: Study,
    sources: Mapping[str, ImageSource],
    output: str | os.PathLike,
    shard: tuple[int, int] = (0, 1),
    command: str = "keras_t2t.training.run_study",
) -> None:
    """Trains the models of a study, each run in its own folder.

    Finished runs are skipped and interrupted ones resume, so the same call resumes a study. The validation images are used
    once for each run, after its last epoch. `keras_t2t.studies.write_tables` makes the tables.

    Args:
        study: The study.
        sources: The `"train"` and `"val"` images, as returned by `keras_t2t.data.from_folder`.
        output: Folder of the study.
        shard: `(index of this shard, number of shards)`, to share a study among processes or machines. They may use the same
            folder, or folders that are merged later.
        command: Command to mention in the model cards.

    Raises:
        DataError: If the images are a stream, or too few for one batch.
        ValueError: If a run in the folder was trained with a different recipe.
    """
    if not hasattr(sources["train"], "subset"):
        raise DataError("A study needs all images in advance. Use images from a folder or arrays instead of a stream")
    cells = study.cells(shard)
    for number, cell in enumerate(cells, 1):
        folder = pathlib.Path(output) / cell.folder
        everything: Any = sources["train"]
        images = everything.subset(stratified_indices(everything.labels, cell.fraction, cell.seed))
        recipe = cell_recipe(study, cell, len(everything), len(images))
        state = "finished" if (folder / RESULT).exists() else "training"
        print(f"Run {number} of {len(cells)}: {cell.model}, {100 * cell.fraction:g}% of the images, seed {cell.seed}: {state}")
        if state == "training":
            _run_cell(cell, recipe, {**sources, "train": images}, folder, command)
        else:
            check_recipe(folder, recipe)


def _run_cell(cell, recipe, sources, folder, command):
    _, history = train(recipe, sources, folder, command=command)
    last, images = history[-1], sources["train"]
    result = {
        "model": cell.model,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "images": len(images),
        "steps": recipe.total_epochs * (len(images) // recipe.batch_size),
        "accuracy": last["val_accuracy"],
    }
    if "ema_val_accuracy" in last:
        result["ema_accuracy"] = last["ema_val_accuracy"]
    with replacing(folder / RESULT) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def cell_recipe(study: Study, cell: Cell, all_images: int, images: int) -> Recipe:
    """Returns the recipe of a training run. With fewer images, it has more epochs, for the same number of steps.

    Args:
        study: The study.
        cell: The training run.
        all_images: Number of all training images.
        images: Number of images of this run.

    Raises:
        DataError: If there are fewer images than in a batch.
    """
    recipe = load_recipe(study.recipe).replace(**study.settings)
    if images < recipe.batch_size:
        raise DataError(
            f"Expected at least one batch of {recipe.batch_size} images; {cell.fraction:g} of the images are {images}"
        )
    longer = (all_images // recipe.batch_size) / (images // recipe.batch_size)
    epochs = {name: round(longer * getattr(recipe, name)) for name in ("epochs", "warmup_epochs", "cooldown_epochs")}
    recipe = recipe.replace(model=cell.model, seed=cell.seed, **epochs)
    return recipe.replace(evaluate_every=recipe.total_epochs)


def measure_costs(study: Study, output: str | os.PathLike, classes: int = 10, seconds: float = 2.0) -> None:
    """Measures what the models of a study cost on this machine, and adds it to `costs.json` in the folder of the study.

    The file has, for each model, `parameters`, `multiply_accumulates` for one image, `latency` in seconds for one image, and
    `training_images_per_second`. Other processes on the machine affect the last two.

    Args:
        study: The study.
        output: Folder of the study.
        classes: Number of classes.
        seconds: Minimum duration of each measurement.
    """
    path = pathlib.Path(output) / COSTS
    costs = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name in study.models:
        recipe = load_recipe(study.recipe).replace(**study.settings, model=name)
        model = compiled_model(recipe, [str(label) for label in range(classes)], steps=1)
        shape = (recipe.batch_size, recipe.image_size, recipe.image_size, 3)
        images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
        targets = np.eye(classes, dtype="float32")[np.arange(recipe.batch_size) % classes]
        step = functools.partial(model.train_on_batch, images, targets)
        costs[name] = {
            "parameters": model.count_params(),
            "multiply_accumulates": convolution_macs(model) if name in REFERENCES else cost(model).multiply_accumulates,
            "latency": latency(model, seconds=seconds),
            "training_images_per_second": recipe.batch_size / median_time(step, seconds),
        }
        print(f"{name}: {json.dumps(costs[name])}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
