"""Training from a recipe, starting at the first epoch or at the last checkpoint, up to a saved model."""

import contextlib
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_t2t import run_files
from keras_t2t.data import (
    ImageSource,
    cached,
    evaluation_batches,
    padded_evaluation_batches,
    training_batches,
    without_bad_files,
)
from keras_t2t.data.check import explain_data_errors
from keras_t2t.errors import DataError, TrainingError, counted
from keras_t2t.extras import import_extra, yaml_module
from keras_t2t.models import preprocessing_of
from keras_t2t.recipes import Recipe
from keras_t2t.training.building import build_model, compiled_model
from keras_t2t.training.callbacks import (
    Evaluation,
    State,
    StopWhenNotFinite,
    StopWithoutImprovement,
    averaged_values,
    stops_early,
)
from keras_t2t.training.checkpoints import last_state, restore_state
from keras_t2t.training.distribution import (
    building_scope,
    check_equal_everywhere,
    describe_device,
    device_count,
    distributable,
    is_lost_connection,
    this_process,
    training_scope,
)
from keras_t2t.training.progress import Progress
from keras_t2t.training.record import record_training
from keras_t2t.training.report import draw_curves, model_card
from keras_t2t.training.summary import opening, resuming


def train(
    recipe: Recipe,
    sources: Mapping[str, ImageSource],
    output: str | os.PathLike,
    weights: str | os.PathLike | None = None,
    strategy: Any = None,
    command: str = "keras_t2t.training.train",
    dataset: str | None = None,
    augment: keras.Layer | None = None,
) -> tuple[keras.Model, list[dict]]:
    """Trains a model, or continues an interrupted or finished training run.

    If `output` contains a checkpoint, training resumes from there. If the recipe has more epochs than before, the run goes on
    up to the new number. Only `epochs` (upward only), `early_stopping_patience` and `rematerialize` may change. The schedule is
    computed again for the new number of epochs, so the learning rate may rise at first. The result differs from that of one
    long run, because the earlier epochs had smaller learning rates.

    Args:
        recipe: How to train.
        sources: The `"train"` and `"val"` images, as returned by `keras_t2t.data.from_folder`.
        output: Folder for `recipe.yaml`, `data.yaml`, `checkpoints/`, `log.csv`, `tensorboard/`, `best.keras`, and, at the
            end, `model.keras`, `curves.png`, and `README.md`, the model card in the form of the Hugging Face Hub. `model.keras`
            is the model after the last epoch, where the schedule ends; `best.keras` is the model after the
            epoch with the best validation accuracy.
        weights: Initial weights of the backbone. See `keras_t2t.T2TViT`.
        strategy: Distribution strategy. See `make_strategy`. With several processes, the first one writes the files, and all
            of them must read the same `output` and the same data.
        command: Command to mention in the model card.
        dataset: Name of the dataset for the model card, which otherwise has no metrics in its metadata.
        augment: A Keras preprocessing layer to apply after the augmentation of the recipe. See
            `keras_t2t.data.training_batches`.

    Returns:
        The model after the last epoch, with the moving average of the weights if the recipe has one, and the logs of all
        epochs.

    Raises:
        DataError: If there are too few images, or if labels are out of range.
        ImportError: If PyYAML, matplotlib, or TensorBoard is not installed. The message says how to install it.
        TrainingError: If the loss is not finite, if files cannot be written, or if another process has ended.
        ValueError: If the recipe does not work with the strategy or the number of images, if `"train"` or `"val"` is missing,
            or if `output` contains a different training run.
    """
    output, process = pathlib.Path(output), this_process()
    if not {"train", "val"} <= set(sources):
        raise ValueError(f"Expected sources under 'train' and 'val'; received: sources under {sorted(sources)}")
    check_extras()
    check_strategy(recipe, strategy)
    output.mkdir(parents=True, exist_ok=True)
    epochs_before = record_training(recipe, sources, weights, output, writes=process[0] == 0)
    keras.utils.set_random_seed(recipe.seed)
    images = prepare_sources(recipe, sources)
    held_out = "test" if sources["val"] is sources.get("test") else "val"
    splits = {"train": images["train"], held_out: images["val"]}
    classes, steps = images["train"].classes, len(images["train"]) // recipe.batch_size
    if recipe.gradient_accumulation_steps > steps * recipe.total_epochs:
        raise ValueError(
            f"Expected gradient_accumulation_steps of at most the {steps * recipe.total_epochs} steps of the run; received: "
            f"gradient_accumulation_steps={recipe.gradient_accumulation_steps}"
        )
    with building_scope(strategy):
        model = compiled_model(recipe, classes, steps, weights)
    inference_model = build_model(recipe, classes, "softmax", training=False, preprocessing=preprocessing_of(model))
    with training_scope(strategy):
        epochs, history = restore_state(output / run_files.CHECKPOINTS, model)
        checksum = zlib.crc32(recipe.to_yaml().encode()) >> 1
        check_equal_everywhere(recipe=checksum, finished_epochs=epochs, steps=steps, validation_images=len(images["val"]))
        if process[0] == 0:
            print(opening(recipe, model, splits, describe_device(model, strategy), output, weights))
            print(resuming(recipe, history, epochs_before))
        with explain_data_errors(*images.values(), can_skip=True), explain_lost_process(output):
            fit(model, inference_model, recipe, images, output, steps, epochs, history, strategy, augment)
    inference_model.set_weights(averaged_values(model))
    if process[0] == 0:
        with run_files.replacing(output / run_files.MODEL) as temporary:
            inference_model.save(temporary)
        draw_curves(history, output / run_files.CURVES)
        card = model_card(inference_model, recipe, splits, history, command, dataset)
        (output / run_files.CARD).write_text(card, encoding="utf-8")
    return inference_model, history


def check_extras() -> None:
    """Checks that what training writes can be written, now rather than after the first epoch.

    Raises:
        ImportError: If an optional package is missing.
    """
    yaml_module()
    import_extra("tensorboard", "Training logs need TensorBoard", "train")
    import_extra("matplotlib", "Learning curves need matplotlib", "train")


def prepare_sources(recipe: Recipe, sources: Mapping[str, ImageSource]) -> dict[str, Any]:
    """Returns the training and validation images, skipping unreadable files and caching in memory if the recipe says so.

    Raises:
        DataError: If the recipe cannot be trained on these images.
    """
    readable: dict[str, Any] = {split: readable_source(recipe, split, sources[split]) for split in ("train", "val")}
    classes = [tuple(source.classes) for source in readable.values()]
    if classes[0] != classes[1]:
        raise DataError(f"Expected validation images of the same classes, {list(classes[0])}; received: {list(classes[1])}")
    if recipe.class_weights and not hasattr(readable["train"], "labels"):
        raise DataError("class_weights needs all labels in advance. Use images from a folder or arrays instead of a stream")
    if len(readable["train"]) < recipe.batch_size:
        raise DataError(
            f"Expected at least one batch of {recipe.batch_size} training images; received: {len(readable['train'])} images. "
            f"Use batch_size={len(readable['train'])} or less"
        )
    if not len(readable["val"]):
        raise DataError("Expected at least one validation image; received: none")
    if recipe.cache:
        with explain_data_errors(*readable.values(), can_skip=True):
            readable = {split: cached(source) for split, source in readable.items()}
    return readable


@contextlib.contextmanager
def explain_lost_process(output: pathlib.Path) -> Iterator[None]:
    """Converts the errors that JAX raises when another process ends into a `TrainingError` that says what to do."""
    try:
        yield
    except Exception as error:
        if not is_lost_connection(error):
            raise
        raise TrainingError(
            "Another process has ended or cannot be reached. Restart all processes with the same commands. The last good "
            f"checkpoint is {last_state(output)}. JAX reported: {str(error).splitlines()[0]}"
        ) from error


def readable_source(recipe: Recipe, split: str, source: Any) -> Any:
    """Returns a source without the files that cannot be read, if the recipe says so, and prints how many there are."""
    if not recipe.skip_bad_files or not source.from_files:
        return source
    source, bad = without_bad_files(source)
    print(f"{split}: skipping {counted(len(bad), 'file')} that cannot be read{': ' if bad else ''}{', '.join(bad[:3])}")
    return source


def check_strategy(recipe: Recipe, strategy: Any) -> None:
    """Checks that a recipe works with a distribution strategy.

    Raises:
        ValueError: If the recipe does not work with the strategy.
    """
    devices = device_count(strategy)
    if recipe.batch_size % devices:
        raise ValueError(
            f"Expected batch_size to be divisible by the number of devices, {devices}; received: batch_size={recipe.batch_size}"
        )
    if recipe.gradient_accumulation_steps > 1 and not isinstance(strategy, keras.distribution.DataParallel | None):
        raise ValueError(
            "Keras cannot accumulate gradients under tf.distribute. Use gradient_accumulation_steps=1 in the recipe, or the "
            f"strategy 'jax'; received: gradient_accumulation_steps={recipe.gradient_accumulation_steps}"
        )


def fit(
    model: keras.Model,
    inference_model: keras.Model,
    recipe: Recipe,
    sources: Mapping[str, Any],
    output: pathlib.Path,
    steps: int,
    first_epoch: int,
    history: list[dict],
    strategy: Any,
    augment: keras.Layer | None,
) -> None:
    """Trains a compiled model from `first_epoch` on, unless training is finished or has stopped early."""
    if first_epoch == recipe.total_epochs or stops_early(history, recipe.early_stopping_patience):
        return
    size, process = (recipe.image_size, recipe.image_size), this_process()
    batch_size = recipe.batch_size // process[1]
    batches = training_batches(
        sources["train"],
        size,
        batch_size,
        recipe,
        seed=recipe.seed,
        first_epoch=first_epoch,
        shard=process,
        augment=augment,
    )
    preprocessing = preprocessing_of(model)
    if keras.distribution.distribution():  # supports full batches only
        validation = padded_evaluation_batches(sources["val"], preprocessing, batch_size, shard=process)
    else:
        validation = evaluation_batches(sources["val"], preprocessing, batch_size)
    callbacks = [
        Evaluation(distributable(validation, strategy), recipe.evaluate_every, recipe.total_epochs),
        State(output, history, inference_model, writes=process[0] == 0),
        StopWhenNotFinite(output, steps),
    ]
    progress = Progress(recipe.total_epochs, steps, recipe.batch_size)
    if process[0] == 0:
        callbacks.append(progress)
    if recipe.early_stopping_patience:
        callbacks.append(StopWithoutImprovement(history, recipe.early_stopping_patience))
    try:
        model.fit(
            distributable(batches, strategy),
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=recipe.total_epochs,
            callbacks=callbacks,
            class_weight=balanced(sources["train"].labels) if recipe.class_weights else None,
            shuffle=False,
            verbose=0,
        )
    finally:
        progress.bar.stop()  # restores the cursor, even after an interrupt


def balanced(labels: np.ndarray) -> dict[int, float]:
    """Returns class weights that make all classes count the same, with a mean of 1 over the images."""
    classes, counts = np.unique(labels, return_counts=True)
    return {int(label): len(labels) / (len(classes) * count) for label, count in zip(classes, counts, strict=True)}
