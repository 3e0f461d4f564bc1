"""Callbacks of a training run: evaluation, checkpoints, and early stopping."""

import contextlib
import csv
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_t2t import run_files
from keras_t2t.errors import TrainingError
from keras_t2t.keras_internals import moving_averages
from keras_t2t.training.checkpoints import last_state, save_state


def averaged_values(model: keras.Model) -> list[np.ndarray]:
    """Returns the weights of a model in the order of `get_weights`, using moving averages where they exist."""
    averages = {id(weight): average for weight, average in moving_averages(model.optimizer)}
    return [keras.ops.convert_to_numpy(averages.get(id(weight), weight).value) for weight in model.weights]


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Temporarily replaces the weights of a model with their moving averages. All processes must do this together."""
    pairs = moving_averages(model.optimizer)
    raw = [keras.ops.copy(weight.value) for weight, _ in pairs]
    for weight, average in pairs:
        weight.assign(keras.ops.copy(average.value))
    try:
        yield
    finally:
        for (weight, _), value in zip(pairs, raw, strict=True):
            weight.assign(value)


class Evaluation(keras.callbacks.Callback):
    """Evaluates the model at regular intervals, and after the last epoch.

    The results are added to the logs as `val_...`, and as `ema_val_...` for the moving average of the weights.

    Args:
        batches: Validation data for `model.evaluate`.
        every: Number of epochs between evaluations.
        epochs: Total number of epochs.
    """

    def __init__(self, batches: tf.data.Dataset, every: int, epochs: int):
        super().__init__()
        self.batches, self.every, self.epochs = batches, every, epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every and epoch + 1 != self.epochs:
            return
        model = self.model
        self._add(logs, "val_", model.evaluate(self.batches, verbose=0, return_dict=True))
        if moving_averages(model.optimizer):
            with averaged_weights(model):
                self._add(logs, "ema_val_", model.evaluate(self.batches, verbose=0, return_dict=True))

    def _add(self, logs, prefix, results):
        logs.update({f"{prefix}{name}": value for name, value in results.items()})


class State(keras.callbacks.Callback):
    """Saves the training state and the logs after every epoch, and the best model.

    Args:
        folder: Folder for `checkpoints/`, `log.csv`, `tensorboard/`, and `best.keras`.
        history: Logs of the epochs so far. The logs of each new epoch are appended.
        inference_model: Model that is used to save the best weights, with their labels and preprocessing.
        writes: Whether this process writes files.
    """

    def __init__(self, folder: pathlib.Path, history: list[dict], inference_model: keras.Model, writes: bool = True):
        super().__init__()
        self.folder, self.history, self.inference_model, self.writes = folder, history, inference_model, writes

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {"epoch": epoch + 1, "learning_rate": float(self.model.optimizer.learning_rate)}
        row.update({name: float(value) for name, value in logs.items()})
        best = max((accuracy_of(old) for old in self.history), default=-math.inf)
        self._check_weights(epoch, row)
        self.history.append(row)
        if not self.writes:
            return
        try:
            if accuracy_of(row) > best:
                self._save_best()
            write_log(self.folder / run_files.LOG, self.history)
            self._write_tensorboard(row)
            save_state(self.folder / run_files.CHECKPOINTS, self.model, epoch + 1, self.history)
        except (OSError, RuntimeError) as error:  # HDF5 raises RuntimeError
            raise TrainingError(
                f"Cannot write to {self.folder}: {error}. Free some disk space, then run the same command again. "
                f"The last good checkpoint is {last_state(self.folder)}"
            ) from error

    def _check_weights(self, epoch, row):
        """Checks that the weights are finite. The loss is computed before the update, so it misses a bad last step."""
        if not all(np.isfinite(value).all() for value in self.model.get_weights()):
            raise TrainingError(
                f"The weights are not finite after epoch {epoch + 1}, learning rate {row['learning_rate']:.3g}. "
                + divergence_advice(self.folder)
            )

    def _write_tensorboard(self, row):
        """Replaces Keras' own callback. That one computes on the devices, so every process would have to run it."""
        writer = tf.summary.create_file_writer(str(self.folder / run_files.TENSORBOARD))
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        writer.close()

    def _save_best(self):
        self.inference_model.set_weights(averaged_values(self.model))
        with run_files.replacing(self.folder / run_files.BEST) as temporary:
            self.inference_model.save(temporary)


def accuracy_of(row: dict) -> float:
    """Returns the validation accuracy of an epoch, preferably that of the moving average; -inf if there was no evaluation."""
    return row.get("ema_val_accuracy", row.get("val_accuracy", -math.inf))


def stops_early(history: list[dict], patience: int) -> bool:
    """Returns whether training should stop: the last epoch was evaluated, and the best one is `patience` epochs before it.

    Args:
        history: Logs of all epochs so far.
        patience: Number of epochs without improvement. 0 disables early stopping.
    """
    if not patience or not history or accuracy_of(history[-1]) == -math.inf:
        return False
    best = max(history, key=accuracy_of)  # the first one of equals
    return history[-1]["epoch"] - best["epoch"] >= patience


class StopWithoutImprovement(keras.callbacks.Callback):
    """Stops training when `stops_early` says so. Must come after `State`, which appends to the history.

    Args:
        history: Logs of all epochs so far.
        patience: Number of epochs without improvement.
    """

    def __init__(self, history: list[dict], patience: int):
        super().__init__()
        self.history, self.patience = history, patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if stops_early(self.history, self.patience):
            self.model.stop_training = True


def write_log(path: pathlib.Path, history: list[dict]) -> None:
    """Writes the logs of all epochs as CSV. The file is replaced atomically."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    with run_files.replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(history)


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends training when the loss is not finite.

    Args:
        folder: Output folder of the training run.
        steps: Number of steps in an epoch.

    Raises:
        TrainingError: If the loss is not finite. The message has the step, the learning rate, and the last good checkpoint.
    """

    def __init__(self, folder: pathlib.Path, steps: int):
        super().__init__()
        self.folder, self.steps = folder, steps

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            rate = float(self.model.optimizer.learning_rate)
            raise TrainingError(
                f"The loss is {logs['loss']} at step {self.epoch * self.steps + batch + 1} (epoch {self.epoch + 1}), learning "
                f"rate {rate:.3g}. " + divergence_advice(self.folder)
            )


def divergence_advice(folder: pathlib.Path) -> str:
    """Returns what to do after training has diverged."""
    return (
        f"The last good checkpoint is {last_state(folder)}. Try a lower learning rate or global_clipnorm in a new output folder"
    )
