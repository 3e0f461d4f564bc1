"""The progress of a training run on the screen: a line for each epoch, and a bar within it."""

import time
from typing import Any

import keras
import rich.progress

from keras_t2t.training.callbacks import accuracy_of

HEADER = "    epoch     loss  accuracy  val. accuracy  learning rate  images/s  time left"


class Progress(keras.callbacks.Callback):
    """Prints one line for each epoch, at most 80 columns wide. On a terminal, also shows a progress bar within the epoch.

    Must come after `Evaluation`, which adds the validation accuracy to the logs. Call `bar.stop()` when training ends, because
    Keras does not notify callbacks when training ends with an error.

    Args:
        epochs: Total number of epochs.
        steps: Number of steps in an epoch.
        batch_size: Number of images in a step.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int):
        super().__init__()
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size
        columns = ("{task.description}", rich.progress.BarColumn(None), "{task.fields[text]}")
        self.bar = rich.progress.Progress(*columns, rich.progress.TimeRemainingColumn(), transient=True, expand=True)

    def on_train_begin(self, logs: Any = None) -> None:
        self._print(HEADER)
        self.task = self.bar.add_task("", total=self.steps, text="")
        self.compiled = False
        if self.bar.console.is_terminal:
            self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start, self.untimed = time.perf_counter(), 0
        self.bar.reset(self.task, description=f"epoch {epoch + 1}/{self.epochs}", text="")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        if not self.compiled and self.steps > 1:  # the first step is not timed, since it compiles the model
            self.compiled, self.start, self.untimed = True, now, 1
            return
        self.rate = (batch + 1 - self.untimed) * self.batch_size / (now - self.start)
        is_last = batch + 1 == self.steps
        text = "validating" if is_last else f"loss {logs['loss']:.3f}, {self.rate:,.0f} images/s"
        self.bar.update(self.task, completed=batch + 1, text=text)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds_left = (time.perf_counter() - self.start) * (self.epochs - epoch - 1)
        rate = float(self.model.optimizer.learning_rate)
        self._print(epoch_line(epoch + 1, self.epochs, logs, rate, self.rate, seconds_left))

    def _print(self, line):
        self.bar.console.print(line, soft_wrap=True, highlight=False, markup=False)


def epoch_line(epoch: int, epochs: int, logs: dict, learning_rate: float, images_per_second: float, seconds_left: float) -> str:
    """Returns the line of an epoch, with the columns of `HEADER`.

    Args:
        epoch: Number of the epoch, starting at 1.
        epochs: Total number of epochs.
        logs: Metrics of the epoch. Without a validation accuracy, the column has a dash.
        learning_rate: Learning rate at the end of the epoch.
        images_per_second: Training speed, without evaluation.
        seconds_left: Time until the end of the last epoch.
    """
    accuracy = accuracy_of(logs)
    validation = "-" if accuracy < 0 else f"{accuracy:.4f}"
    minutes, seconds = divmod(round(seconds_left), 60)
    return (
        f"{f'{epoch}/{epochs}':>9} {logs['loss']:8.4f} {logs['accuracy']:9.4f} {validation:>14} {learning_rate:14.2e} "
        f"{images_per_second:9,.0f} {f'{minutes // 60}:{minutes % 60:02}:{seconds:02}':>10}"
    )
