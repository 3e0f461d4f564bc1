"""A training from a recipe, from the first epoch or from where it stopped, to a model that predicts."""

import contextlib
import dataclasses
import os
import pathlib
import zlib

import keras
import numpy as np

from keras_t2t.applications import T2TViT, default_preprocessing
from keras_t2t.configs import find_variant
from keras_t2t.data import (
    cached,
    evaluation_batches,
    padded_evaluation_batches,
    training_batches,
    without_bad_files,
)
from keras_t2t.data.check import data_errors_named
from keras_t2t.errors import DataError, TrainingError
from keras_t2t.figures import new_figure
from keras_t2t.models import parts, preprocessing_of, replace_head
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.training.callbacks import (
    Evaluation,
    Progress,
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
    device_count,
    is_lost_connection,
    this_process,
    training_scope,
)
from keras_t2t.training.optimizers import make_optimizer, make_schedule
from keras_t2t.training.recipes import Recipe
from keras_t2t.training.report import draw_curves, model_card


def train(
    recipe: Recipe,
    sources: dict,
    output: str | os.PathLike,
    weights=None,
    strategy=None,
    command: str = "keras_t2t.training.trainer",
) -> tuple[keras.Model, list[dict]]:
    """Trains a model, or goes on with a training that was interrupted.

    Args:
        recipe: how to train.
        sources: `"train"` and `"val"` images, as `keras_t2t.data.from_folder` returns them.
        output: a folder for `recipe.yaml`, `data.yaml`, `checkpoints/`, `log.csv`, `tensorboard/`, `best.weights.h5`, and in
            the end `model.keras`, `curves.png` and `README.md`, the model card. If it has the state of the same training, that
            goes on.
        weights: what the body starts from: see `keras_t2t.T2TViT`.
        strategy: over whose devices every batch is divided: see `make_strategy`. Where it has several processes, the first one
            writes, and all of them read the same `output` and the same data.
        command: what the model card says the model was made by.

    Returns:
        The trained model, with the moving average of the weights if the recipe has one, and the logs of all epochs.

    Raises:
        DataError: if there are too few images, or labels outside of the classes.
        TrainingError: at a loss that is not finite, or when another process has ended.
        ValueError: for a recipe that the strategy cannot follow, or another training than that of the state in `output`.
    """
    output, process = pathlib.Path(output), this_process()
    check_strategy(recipe, strategy)
    output.mkdir(parents=True, exist_ok=True)
    new_figure(1, 1)  # fails now, not after the last epoch, if matplotlib is missing
    record_training(recipe, sources, weights, output, writes=process[0] == 0)
    keras.utils.set_random_seed(recipe.seed)
    held_out = "test" if sources["val"] is sources.get("test") else "val"
    sources = ready_sources(recipe, sources)
    steps = len(sources["train"]) // recipe.batch_size
    with building_scope(strategy):
        model = compiled_model(recipe, sources["train"].classes, steps, weights)
    final = build_model(recipe, sources["train"].classes, "softmax", training=False, preprocessing=preprocessing_of(model))
    with training_scope(strategy):
        done, history = restore_state(output / "checkpoints", model)
        recipe_number = zlib.crc32(recipe.to_yaml().encode()) >> 1
        check_equal_everywhere(recipe=recipe_number, finished_epochs=done, steps=steps, validation_images=len(sources["val"]))
        with data_errors_named(*sources.values()), lost_process_named(output):
            fit(model, final, recipe, sources, output, steps, done, history)
    final.set_weights(averaged_values(model))
    if process[0] == 0:
        final.save(output / "model.part.keras")
        os.replace(output / "model.part.keras", output / "model.keras")
        draw_curves(history, output / "curves.png")
        sources = {"train": sources["train"], held_out: sources["val"]}
        (output / "README.md").write_text(model_card(recipe, sources, history, command))
    return final, history


def ready_sources(recipe: Recipe, sources: dict) -> dict:
    """Returns the images to train on and to evaluate with that can be read, in memory if the recipe asks for it.

    Raises:
        DataError: if they cannot be trained on.
    """
    sources = {split: readable_source(recipe, split, sources[split]) for split in ("train", "val")}
    if recipe.class_weights and not hasattr(sources["train"], "labels"):
        raise DataError("class_weights needs the labels of all images at once: a folder or arrays, not a stream")
    if len(sources["train"]) < recipe.batch_size:
        raise DataError(
            f"Expected at least one batch of {recipe.batch_size} images to train on; found {len(sources['train'])} images"
        )
    if recipe.cache:
        with data_errors_named(*sources.values()):
            sources = {split: cached(source) for split, source in sources.items()}
    return sources


@contextlib.contextmanager
def lost_process_named(output):
    """Turns what JAX raises when another process ends into a `TrainingError` that says what to do."""
    try:
        yield
    except Exception as error:
        if not is_lost_connection(error):
            raise
        raise TrainingError(
            "Another process has ended, or cannot be reached. Start all of them again, with the same commands; the last good "
            f"checkpoint is {last_state(output)}. JAX says: {str(error).splitlines()[0]}"
        ) from error


def readable_source(recipe: Recipe, split: str, source):
    """Returns a source without the files that cannot be read, and says how many, if the recipe asks for it."""
    if not recipe.skip_bad_files or not source.from_files:
        return source
    source, bad = without_bad_files(source)
    print(f"{split}: {len(bad)} files cannot be read and are left out{': ' if bad else ''}{', '.join(bad[:3])}")
    return source


def check_strategy(recipe: Recipe, strategy):
    """Raises `ValueError` for a recipe that a strategy cannot follow."""
    devices = device_count(strategy)
    if recipe.batch_size % devices:
        raise ValueError(f"Expected a batch_size that divides over {devices} devices; received: {recipe.batch_size}")
    if recipe.gradient_accumulation_steps > 1 and not isinstance(strategy, keras.distribution.DataParallel | None):
        raise ValueError(
            "Keras does not accumulate gradients under tf.distribute: take gradient_accumulation_steps=1, or the strategy 'jax'; "
            f"received: gradient_accumulation_steps={recipe.gradient_accumulation_steps}"
        )


def record_training(recipe: Recipe, sources: dict, weights, output: pathlib.Path, writes: bool = True):
    """Writes what a training is by (`recipe.yaml`) and of (`data.yaml`).

    Raises:
        ValueError: if there are checkpoints of another training.
    """
    import yaml

    data = {split: len(source) for split, source in sources.items()}
    data |= {"weights": None if weights is None else str(weights), "classes": list(map(str, sources["train"].classes))}
    texts = {"recipe.yaml": recipe.to_yaml(), "data.yaml": yaml.safe_dump(data, sort_keys=False)}
    for name, text in texts.items():
        path = output / name
        old = path.read_text() if path.exists() else text
        if old != text and last_state(output) != "none":
            changed = sorted(set(text.splitlines()) ^ set(old.splitlines()))
            raise ValueError(
                f"{output} has another training; take another folder. What differs in {name}: {'; '.join(changed[:10])}"
            )
        if writes:
            temporary = path.with_suffix(".part")
            temporary.write_text(text)
            os.replace(temporary, path)


def build_model(recipe: Recipe, classes, activation=None, weights=None, training=True, preprocessing=None) -> keras.Model:
    """Returns the classifier of a recipe, with a fresh head."""
    names = ("token_drop_rate", "drop_rate", "drop_path_rate") if training else ()
    rates = {name: getattr(recipe, name) for name in names}
    backbone = T2TViT(
        dataclasses.replace(find_variant(recipe.model).config, **rates),
        include_top=False,
        weights=weights,
        input_shape=(recipe.image_size, recipe.image_size, 3),
        pooling="token",
        name=recipe.model,
        preprocessing=preprocessing or evaluation_preprocessing(recipe, weights),
        dtype=recipe.dtype if training else None,
    )
    return replace_head(backbone, list(classes), activation)


def evaluation_preprocessing(recipe: Recipe, weights: str | os.PathLike | None = None) -> Preprocessing:
    """Returns how images are prepared for a trained model, with the mean and std of `weights` if the recipe has none."""
    start = default_preprocessing(recipe.model, weights)
    return Preprocessing(
        image_size=(recipe.image_size, recipe.image_size),
        crop_fraction=recipe.eval_crop_fraction,
        interpolation=recipe.eval_interpolation,
        mean=recipe.mean or start.mean,
        std=recipe.std or start.std,
    )


def freeze(recipe: Recipe, model: keras.Model) -> None:
    """Freezes the layers that a recipe does not train."""
    head = parts.head_of(model)
    embeddings = (parts.CLASS_TOKEN, parts.POSITION_EMBEDDING, parts.NORM) if recipe.freeze_embeddings else ()
    for layer in model.layers:
        if (recipe.freeze_backbone and layer is not head) or layer.name in embeddings:
            layer.trainable = False


def compiled_model(recipe: Recipe, classes, steps: int, weights=None) -> keras.Model:
    """Returns the model of a recipe with its optimizer, ready to be trained."""
    model = build_model(recipe, classes, weights=weights)
    freeze(recipe, model)
    metrics = [keras.metrics.CategoricalAccuracy("accuracy")]
    if len(classes) > 5:
        metrics.append(keras.metrics.TopKCategoricalAccuracy(5, "top5"))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer = make_optimizer(recipe, model, make_schedule(recipe, steps))
    if recipe.dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    jit_compile = recipe.jit_compile or keras.backend.backend() == "jax"  # which computes step by step otherwise
    model.compile(optimizer, loss, weighted_metrics=metrics, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model, final, recipe, sources, output, steps, done, history):
    """Trains from the first epoch that is not done, unless the training has stopped early."""
    if stops_early(history, recipe.early_stopping_patience):
        return
    size, process = (recipe.image_size, recipe.image_size), this_process()
    batch_size = recipe.batch_size // process[1]
    batches = training_batches(sources["train"], size, batch_size, recipe, seed=recipe.seed, first_epoch=done, shard=process)
    preprocessing = preprocessing_of(model)
    if keras.distribution.distribution():  # takes whole batches only
        validation = padded_evaluation_batches(sources["val"], preprocessing, batch_size, shard=process)
    else:
        validation = evaluation_batches(sources["val"], preprocessing, batch_size)
    callbacks = [
        Evaluation(validation, recipe.evaluate_every, recipe.total_epochs),
        State(output, history, final, writes=process[0] == 0),
        StopWhenNotFinite(output, steps),
    ]
    progress = Progress(recipe.total_epochs, steps, recipe.batch_size)
    if process[0] == 0:
        callbacks.append(progress)
    if recipe.early_stopping_patience:
        callbacks.append(StopWithoutImprovement(history, recipe.early_stopping_patience))
    try:
        model.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=recipe.total_epochs,
            callbacks=callbacks,
            class_weight=balanced(sources["train"].labels) if recipe.class_weights else None,
            shuffle=False,
            verbose=0,
        )
    finally:
        progress.bar.stop()  # gives the cursor back, after an interrupt too


def balanced(labels: np.ndarray) -> dict[int, float]:
    """Returns weights that make all classes count the same, 1 on average over the images."""
    classes, counts = np.unique(labels, return_counts=True)
    return {int(label): len(labels) / (len(classes) * count) for label, count in zip(classes, counts, strict=True)}
