"""Trains the models of a study on one accelerator with JAX, all runs of a model at once. TensorFlow is not needed.

    KERAS_BACKEND=jax python examples/study/study_on_accelerator.py examples/study/cifar10.yaml --data cifar10 --output OUTPUT

The images stay in the memory of the accelerator and are augmented there, and each epoch is a single compiled call, so that
small models keep a large accelerator busy. The recipe is that of `keras-t2t study`, with other random numbers. The results have
the same form, so `keras-t2t study` makes the tables. Of the settings of a recipe, only those in `SETTINGS` are supported.
With `--teacher`, models also learn from the predictions of a model that was trained before, as the shipped checkpoint did.
"""

import argparse
import csv
import dataclasses
import functools
import json
import math
import pathlib
import re
import time

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax_augmentation import augment, cutmix  # in this folder
from PIL import Image

import keras_t2t
from keras_t2t.keras_internals import LayerwiseUpdates, moving_averages
from keras_t2t.models import replace_head
from keras_t2t.models.parts import NOT_DECAYED
from keras_t2t.studies.cells import Cell, load_study, stratified_indices
from keras_t2t.studies.references import REFERENCES, reference_backbone
from keras_t2t.studies.results import RESULT
from keras_t2t.variants import find_variant

EVALUATION_BATCH = 1000
WEIGHTS = "ema.weights.h5"
SETTINGS = {
    "image_size": 32,
    "epochs": 60,
    "warmup_epochs": 3,
    "batch_size": 128,
    "learning_rate": 1.5e-3,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "crop_padding": 4,
    "rand_augment_num_ops": 0,
    "rand_augment_magnitude": 9.0,
    "cutmix": 0.0,
    "mixup_prob": 1.0,
    "ema_momentum": 0.999,
    "token_drop_rate": 0.1,
}
"""The supported settings with their values in the recipe small_images."""


class AdamW(LayerwiseUpdates, keras.optimizers.AdamW):
    """AdamW with the moving average of `keras_t2t.training`, whose momentum warms up."""


def read_images(folder):
    """Returns the pixels `(N, H, W, 3)` and labels `(N,)` of a folder with one subfolder per class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, directory in enumerate(classes) for path in sorted(directory.iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    return pixels, np.array([label for _, label in files], "int32")


def build(name, settings, classes, seed, dtype):
    """Returns a classifier of the study that returns logits."""
    keras.utils.set_random_seed(seed)
    size = settings["image_size"]
    preprocessing = keras_t2t.Preprocessing(image_size=(size, size), crop_fraction=1.0)
    if name in REFERENCES:
        return replace_head(reference_backbone(name, preprocessing, dtype), classes, None)
    return keras_t2t.T2TViT(
        dataclasses.replace(find_variant(name).config, token_drop_rate=settings["token_drop_rate"]),
        weights=None,
        classes=classes,
        classifier_activation=None,
        input_shape=(size, size, 3),
        preprocessing=preprocessing,
        dtype=dtype,
    )


def make_optimizer(model, settings, steps):
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-6,
        max(steps - settings["warmup_steps"], 1),
        1e-5 / settings["learning_rate"],
        warmup_target=settings["learning_rate"],
        warmup_steps=settings["warmup_steps"],
    )
    optimizer = AdamW(
        schedule, weight_decay=settings["weight_decay"], epsilon=1e-8, use_ema=True, ema_momentum=settings["ema_momentum"]
    )
    excluded = [variable for variable in model.trainable_variables if re.search(NOT_DECAYED, variable.path)]
    optimizer.exclude_from_weight_decay(excluded)
    optimizer.build(model.trainable_variables)
    return optimizer


def over_seeds(name, function):
    """Returns a function that calls `function` for each seed: at once, or one after the other for convolutional networks.

    Convolutions with a kernel for each seed would become grouped convolutions, which are slow.
    """
    if name in REFERENCES:
        return lambda *arguments: jax.lax.map(lambda each: function(*each), arguments)
    return jax.vmap(function)


def values(variables):
    return [variable.value for variable in variables]


def load_teacher(folder, settings, classes, dtype):
    """Loads a model that this script has trained with `--save`. Returns a function from images to its class probabilities."""
    model = build(json.loads((folder / RESULT).read_text("utf-8"))["model"], settings, classes, 0, dtype)
    model.load_weights(folder / WEIGHTS)
    weights = values(model.trainable_variables), values(model.non_trainable_variables)
    return lambda images: jax.nn.softmax(model.stateless_call(*weights, images, training=False)[0].astype("float32"))


def trained(name, settings, seeds, subsets, data, dtype, epoch_steps, epochs, teacher=None):
    """Trains a model from several seeds at once.

    Args:
        name: Name of the model.
        settings: Settings of the recipe.
        seeds: The seeds.
        subsets: For each seed, the indices of its training images.
        data: Training images and labels, then test images and labels.
        dtype: Dtype policy.
        epoch_steps: Number of steps in an epoch.
        epochs: Number of epochs.
        teacher: Folder of a trained model. If given, each target is the mean of the label and its probabilities.

    Returns:
        The losses and accuracies of all seeds in each epoch, the model, its trainable and its other weights of all seeds, and
        the averages of the trainable ones.
    """
    classes = int(data[1].max()) + 1
    models = [build(name, settings, classes, seed, dtype) for seed in seeds]
    model = models[0]
    optimizer = make_optimizer(model, settings, epoch_steps * epochs)
    state = (
        [jnp.stack(each) for each in zip(*(values(m.trainable_variables) for m in models), strict=True)],
        [jnp.stack(each) for each in zip(*(values(m.non_trainable_variables) for m in models), strict=True)],
        [jnp.stack([value] * len(seeds)) for value in values(optimizer.variables)],
    )
    images, labels = jnp.asarray(data[0]), jnp.asarray(data[1])
    batch = settings["batch_size"]
    teach = load_teacher(teacher, settings, classes, dtype) if teacher else None

    def loss_of(trainable, non_trainable, x, targets):
        logits, non_trainable = model.stateless_call(trainable, non_trainable, x, training=True)
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean(), (non_trainable, logits)

    def step(state, inputs):
        trainable, non_trainable, optimizer_state = state
        indices, key = inputs
        keys = jax.random.split(key, batch + 1)
        x = jax.vmap(functools.partial(augment, settings=settings))(keys[:batch], images[indices])
        smoothing = settings["label_smoothing"]
        targets = jax.nn.one_hot(labels[indices], classes) * (1 - smoothing) + smoothing / classes
        if settings["cutmix"]:
            x, targets = cutmix(keys[batch], x, targets, settings)
        if teach:
            targets = (targets + teach(x)) / 2
        (loss, (non_trainable, logits)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            trainable, non_trainable, x, targets
        )
        trainable, optimizer_state = optimizer.stateless_apply(optimizer_state, gradients, trainable)
        accuracy = (logits.argmax(-1) == targets.argmax(-1)).mean()
        return (trainable, non_trainable, optimizer_state), (loss, accuracy)

    @functools.partial(jax.jit, donate_argnums=0)
    @functools.partial(over_seeds, name)
    def run_epoch(state, indices, key):
        state, (losses, accuracies) = jax.lax.scan(step, state, (indices, jax.random.split(key, len(indices))))
        return state, losses.mean(), accuracies.mean()

    orders = [shuffled(subset, seed, epochs * epoch_steps, batch) for subset, seed in zip(subsets, seeds, strict=True)]
    rows = []
    for epoch in range(epochs):
        start = time.perf_counter()
        indices = jnp.stack([order[epoch * epoch_steps : (epoch + 1) * epoch_steps] for order in orders])
        keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), epoch) for seed in seeds])
        state, loss, accuracy = run_epoch(state, indices, keys)
        rows.append((np.asarray(loss), np.asarray(accuracy)))
        speed = len(seeds) * epoch_steps * batch / (time.perf_counter() - start)
        print(f"{name}, epoch {epoch + 1}/{epochs}: mean loss {rows[-1][0].mean():.3f}, {speed:,.0f} images/s", flush=True)
    optimizer_values = {id(variable): value for variable, value in zip(optimizer.variables, state[2], strict=True)}
    averages = [optimizer_values[id(average)] for _, average in moving_averages(optimizer)]
    return rows, model, state[0], state[1], averages


def shuffled(subset, seed, steps, batch):
    """Returns indices of training images `(steps, batch)`, one shuffled pass over the subset after another."""
    rng = np.random.default_rng(seed)
    per_pass = max(len(subset) // batch, 1) * batch
    passes = math.ceil(steps * batch / per_pass)
    order = np.concatenate([rng.permutation(np.resize(subset, max(len(subset), batch)))[:per_pass] for _ in range(passes)])
    return order[: steps * batch].reshape(steps, batch)


def evaluate(name, model, trainable, non_trainable, images, labels):
    """Returns the accuracy of each seed."""

    @jax.jit
    def predict(trainable, non_trainable, x):
        def call(trainable, non_trainable):
            return model.stateless_call(trainable, non_trainable, x, training=False)[0].argmax(-1)

        return over_seeds(name, call)(trainable, non_trainable)

    hits = 0
    for start in range(0, len(images), EVALUATION_BATCH):
        stop = start + EVALUATION_BATCH
        hits = hits + (predict(trainable, non_trainable, images[start:stop].astype("float32")) == labels[start:stop]).sum(-1)
    return np.asarray(hits) / len(images)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("description", type=pathlib.Path, help="YAML file, as for keras-t2t study")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with train/CLASS/ and test/CLASS/")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--models", nargs="+", help="train only these models of the study")
    parser.add_argument("--dtype", default="mixed_bfloat16")
    parser.add_argument("--save", action="store_true", help="save the averaged weights of the runs on all images")
    parser.add_argument(
        "--teacher", type=pathlib.Path, help="folder of a run with saved weights, to learn from its predictions"
    )
    options = parser.parse_args(arguments)

    study = load_study(options.description)
    unsupported = sorted(set(study.settings) - set(SETTINGS))
    if study.recipe != "small_images" or unsupported:
        raise ValueError(f"Expected the recipe small_images and some of the settings {list(SETTINGS)}; received: {unsupported}")
    settings = {**SETTINGS, **study.settings}
    data = (*read_images(options.data / "train"), *read_images(options.data / "test"))
    run = {
        "steps": len(data[0]) // settings["batch_size"] * settings["epochs"],
        "dtype": options.dtype,
        "teacher": str(options.teacher) if options.teacher else None,
    }
    for name in options.models or study.models:
        cells = [Cell(name, fraction, seed) for fraction in study.fractions for seed in study.seeds]
        finished = [is_finished(options.output / cell.folder / RESULT, run) for cell in cells]
        if not all(finished):
            train_model(name, settings, cells, data, options, run)


def is_finished(path, run):
    """Returns whether there is a result, after checking that it is one of the same kind of run."""
    if not path.exists():
        return False
    result = json.loads(path.read_text("utf-8"))
    found = {key: result.get(key) for key in run}
    if found != run:
        raise ValueError(f"Expected a result of a run with {run}; {path} has {found}. Pass another folder as --output")
    return True


def train_model(name, settings, cells, data, options, run):
    """Trains all runs of a model at once, and writes their logs and results."""
    steps_per_epoch, epochs = len(data[0]) // settings["batch_size"], settings["epochs"]
    settings = {**settings, "warmup_steps": settings["warmup_epochs"] * steps_per_epoch}
    subsets = [stratified_indices(data[1], cell.fraction, cell.seed) for cell in cells]
    rows, model, trainable, non_trainable, averages = trained(
        name, settings, [cell.seed for cell in cells], subsets, data, options.dtype, steps_per_epoch, epochs, options.teacher
    )
    accuracy = evaluate(name, model, trainable, non_trainable, data[2], data[3])
    ema_accuracy = evaluate(name, model, averages, non_trainable, data[2], data[3])
    for index, cell in enumerate(cells):
        folder = options.output / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", "loss", "accuracy"])
            for epoch, (loss, train_accuracy) in enumerate(rows, 1):
                writer.writerow([epoch, f"{loss[index]:.5f}", f"{train_accuracy[index]:.5f}"])
        if options.save and cell.fraction == 1:
            for variable, value in zip(model.trainable_variables, averages, strict=True):
                variable.assign(value[index])
            for variable, value in zip(model.non_trainable_variables, non_trainable, strict=True):
                variable.assign(value[index])
            model.save_weights(folder / WEIGHTS)
        result = {
            **dataclasses.asdict(cell),
            "images": len(subsets[index]),
            "accuracy": float(accuracy[index]),
            "ema_accuracy": float(ema_accuracy[index]),
            "device": str(jax.devices()[0].device_kind),
            **run,
        }
        (folder / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
