"""What happens between the epochs of a training: evaluation, state, records, progress."""

import contextlib
import csv
import math
import os
import pathlib
import time

import keras
import numpy as np
import rich.progress
import tensorflow as tf

from keras_t2t.errors import TrainingError
from keras_t2t.keras_internals import moving_averages
from keras_t2t.training.checkpoints import last_state, save_state


def averaged_values(model: keras.Model) -> list[np.ndarray]:
    """Returns the weights of a model as `get_weights` does, with the moving average of those that have one."""
    averages = {id(weight): average for weight, average in moving_averages(model.optimizer)}
    return [keras.ops.convert_to_numpy(averages.get(id(weight), weight).value) for weight in model.weights]


@contextlib.contextmanager
def averaged_weights(model: keras.Model):
    """Puts the moving average into the model for a while; all processes have to."""
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
    """Adds `val_...` to the logs of some epochs, and `ema_val_...` for the moving average of the weights."""

    def __init__(self, batches, every: int, epochs: int):
        super().__init__()
        self.batches, self.every, self.epochs = batches, every, epochs

    def on_epoch_end(self, epoch, logs=None):
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
    """Writes the state and the log after every epoch, and the best weights.

    Args:
        folder: for `checkpoints/`, `log.csv`, `tensorboard/` and `best.weights.h5`.
        history: the logs of the epochs before; those to come are appended.
        final: the model for the best weights.
        writes: whether this is the process that writes.
    """

    def __init__(self, folder: pathlib.Path, history: list[dict], final: keras.Model, writes: bool = True):
        super().__init__()
        self.folder, self.history, self.final, self.writes = folder, history, final, writes

    def on_epoch_end(self, epoch, logs=None):
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
            write_log(self.folder / "log.csv", self.history)
            self._write_tensorboard(row)
            save_state(self.folder / "checkpoints", self.model, epoch + 1, self.history)
        except (OSError, RuntimeError) as error:  # of the file system, of HDF5
            raise TrainingError(
                f"Cannot write to {self.folder}: {error}. Make room there, then start the same command again; the last good "
                f"checkpoint is {last_state(self.folder)}"
            ) from error

    def _check_weights(self, epoch, row):
        """The loss of a step comes before its update: the last one of an epoch shows in the weights only."""
        if not all(np.isfinite(value).all() for value in self.model.get_weights()):
            raise TrainingError(
                f"The weights are not finite after epoch {epoch + 1}, learning rate {row['learning_rate']:.3g}. "
                + last_good(self.folder)
            )

    def _write_tensorboard(self, row):
        """Keras' own callback computes on the devices, which processes may only do together."""
        writer = tf.summary.create_file_writer(str(self.folder / "tensorboard"))
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        writer.close()

    def _save_best(self):
        temporary = self.folder / "best.part.weights.h5"
        self.final.set_weights(averaged_values(self.model))
        self.final.save_weights(temporary)
        os.replace(temporary, self.folder / "best.weights.h5")


def accuracy_of(row: dict) -> float:
    """Returns the validation accuracy of an epoch, that of the moving average if there is one; -inf if it was not evaluated."""
    return row.get("ema_val_accuracy", row.get("val_accuracy", -math.inf))


def stops_early(history: list[dict], patience: int) -> bool:
    """Returns whether the last epoch was evaluated, and the best one is `patience` epochs or more before it; never for 0."""
    if not patience or not history or accuracy_of(history[-1]) == -math.inf:
        return False
    best = max(history, key=accuracy_of)  # the first of equals
    return history[-1]["epoch"] - best["epoch"] >= patience


class StopWithoutImprovement(keras.callbacks.Callback):
    """Ends a training as `stops_early` says; after `State`, which appends to `history`."""

    def __init__(self, history: list[dict], patience: int):
        super().__init__()
        self.history, self.patience = history, patience

    def on_epoch_end(self, epoch, logs=None):
        if stops_early(self.history, self.patience):
            self.model.stop_training = True


def write_log(path: pathlib.Path, history: list[dict]):
    """Writes the logs of all epochs as CSV, in one step."""
    temporary = path.with_suffix(".part")
    columns = list(dict.fromkeys(name for row in history for name in row))
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(history)
    os.replace(temporary, path)


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the training at a loss that is no number.

    Raises:
        TrainingError: names the step, the learning rate, and the last state that is good.
    """

    def __init__(self, folder: pathlib.Path, steps: int):
        super().__init__()
        self.folder, self.steps = folder, steps

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            rate = float(self.model.optimizer.learning_rate)
            raise TrainingError(
                f"The loss is {logs['loss']} at step {self.epoch * self.steps + batch + 1} (epoch {self.epoch + 1}), learning "
                f"rate {rate:.3g}. " + last_good(self.folder)
            )


def last_good(folder: pathlib.Path) -> str:
    """What to do after a training has diverged."""
    return f"The last good checkpoint is {last_state(folder)}; try a lower learning rate or global_clipnorm, in another output folder"


class Progress(keras.callbacks.Callback):
    """A bar with images a second and the time that is left; on a pipe, a line for every epoch.

    `bar.stop()` ends it: Keras does not tell callbacks when a training ends with an error.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int):
        super().__init__()
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size
        columns = ("{task.description}", rich.progress.BarColumn(), "{task.fields[text]}", rich.progress.TimeRemainingColumn())
        self.bar = rich.progress.Progress(*columns)

    def on_train_begin(self, logs=None):
        self.task = self.bar.add_task("training", total=self.epochs * self.steps, text="")
        if self.bar.console.is_terminal:
            self.bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.start = epoch, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        rate = (batch + 1) * self.batch_size / (time.perf_counter() - self.start)
        self.rate = f"{rate:,.0f} images/s"
        text = f"loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.3f}, {self.rate}"
        done, name = self.epoch * self.steps + batch + 1, f"epoch {self.epoch + 1} of {self.epochs}"
        self.bar.update(self.task, completed=done, description=name, text=text)

    def on_epoch_end(self, epoch, logs=None):
        shown = ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
        self.bar.console.print(f"epoch {epoch + 1} of {self.epochs}: {shown}, {self.rate}", soft_wrap=True, highlight=False)
