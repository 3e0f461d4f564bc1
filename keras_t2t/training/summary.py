"""What a training run says on the screen before the first epoch and after the last one."""

import math
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import keras

from keras_t2t import run_files
from keras_t2t.data import ImageSource
from keras_t2t.errors import counted, with_unit
from keras_t2t.recipes import Recipe
from keras_t2t.training.callbacks import accuracy_of, stops_early

WIDTH = 80
INDENT = 15


def opening(
    recipe: Recipe,
    model: keras.Model,
    sources: Mapping[str, ImageSource],
    device: str,
    output: pathlib.Path,
    weights: str | os.PathLike | None = None,
) -> str:
    """Returns what is about to be trained, one line for each fact.

    Args:
        recipe: Recipe of the run.
        model: Model to train.
        sources: Images by split: `"train"` and the split that the model is evaluated on.
        device: Device to train on, in words.
        output: Output folder.
        weights: Initial weights of the backbone.
    """
    classes, images = sources["train"].classes, len(sources["train"])
    held_out = next(split for split in sources if split != "train")
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    names = textwrap.shorten(", ".join(classes), WIDTH - INDENT - 10, placeholder=" ...")
    total, cooldown = recipe.total_epochs, recipe.cooldown_epochs
    facts = {
        "Model": f"{recipe.model}, {'random weights' if weights is None else f'starting from {weights}'}",
        "Parameters": f"{with_unit(model.count_params())}, of which {with_unit(trained)} are trained",
        "Classes": f"{len(classes):,}: {names}",
        "Images": f"{images:,} for training, {len(sources[held_out]):,} for validation"
        + (" (the test images)" if held_out == "test" else ""),
        "Image size": f"{recipe.image_size}x{recipe.image_size}",
        "Batch size": f"{recipe.batch_size}, {counted(images // recipe.batch_size, 'step')} per epoch",
        "Learning rate": f"{recipe.learning_rate:g}, {recipe.optimizer}",
        "Epochs": f"{total}" + (f", the last {cooldown} at the final learning rate" if cooldown else ""),
        "Device": device,
        "Output": f"{output}",
    }
    return "\n".join(f"{name:{INDENT}}{fact}" for name, fact in facts.items())


def resuming(recipe: Recipe, history: Sequence[dict], epochs_before: int) -> str:
    """Returns where a training run resumes, between blank lines; an empty string if it starts at the first epoch.

    Args:
        recipe: Recipe of the run.
        history: Logs of the epochs so far.
        epochs_before: Total number of epochs that the recipe had before.
    """
    if not history:
        return ""
    finished, total = len(history), recipe.total_epochs
    if stops_early(list(history), recipe.early_stopping_patience):
        return f"\nTraining stopped early after epoch {finished}; nothing is left to do\n"
    if finished == total:
        return f"\nAll {total} epochs are finished; increase epochs to continue\n"
    text = f"Resuming after epoch {finished}"
    if epochs_before < total:
        text += (
            f". The run had {epochs_before} epochs and now has {total}. From here on, the learning rate follows the schedule "
            f"for {total} epochs, so it may rise at first"
        )
    return f"\n{textwrap.fill(text, WIDTH)}\n"


def closing(recipe: Recipe, history: Sequence[dict], output: pathlib.Path) -> str:
    """Returns the result of a training run: its best epoch, its last one, and the files in the output folder.

    Args:
        recipe: Recipe of the run.
        history: Logs of all epochs.
        output: Output folder.
    """
    best, last = max(history, key=accuracy_of), history[-1]  # the first one of equals
    average = " (moving average)" if recipe.ema_momentum else ""
    is_best = " and the best" if best is last else ""
    files = {
        run_files.MODEL: f"model after epoch {last['epoch']}, the last{is_best}{average}",
        run_files.BEST: f"model after epoch {best['epoch']}, the best{average}",
        run_files.CARD: "model card",
        run_files.CURVES: "loss, accuracy, and learning rate of all epochs",
        run_files.LOG: "the same values as numbers",
        run_files.TENSORBOARD: "the same for TensorBoard",
        run_files.CHECKPOINTS: "training state, for continuing with more epochs",
        run_files.RECIPE: "settings",
        run_files.DATA: "classes, numbers of images, and initial weights",
    }
    lines = [
        f"Best epoch: {best['epoch']}, validation accuracy {accuracy_of(best):.4f}",
        f"Last epoch: {last['epoch']}, validation accuracy {accuracy_of(last):.4f}",
        f"Wrote {output}:",
        *(f"  {name:13}{content}" for name, content in files.items()),
    ]
    if stops_early(list(history), recipe.early_stopping_patience):
        patience = recipe.early_stopping_patience
        lines.insert(0, f"Stopped early: no better validation accuracy for {patience} epochs (early_stopping_patience)")
    return "\n".join(lines)
