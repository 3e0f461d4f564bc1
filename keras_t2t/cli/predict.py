"""The command for predictions."""

import dataclasses
import pathlib
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from keras_t2t.cli.app import MODELS, CropOption, command, existing_path, print_table
from keras_t2t.cli.libraries import load_libraries
from keras_t2t.cli.models import Model, check_kind, open_runtime
from keras_t2t.cli.records import check_records_file, write_records
from keras_t2t.errors import counted
from keras_t2t.preprocessing import Preprocessing

if TYPE_CHECKING:
    from keras_t2t.runtime import Runtime


@command("predict", MODELS)
def predict_command(
    model: Model,
    images: Annotated[
        list[pathlib.Path],
        typer.Argument(metavar="IMAGE", callback=existing_path, help="Image files, or folders to search recursively."),
    ],
    output: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Write a .csv file, or a .json file with a list, instead of printing. There is one row for each image: path, "
            "label1, probability1, label2, ..."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show for each image.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of images in a batch.")] = 32,
    crop_fraction: CropOption = None,
) -> None:
    """Predict the classes of images.

    Example: keras-t2t predict runs/flowers photos --output predictions.csv
    """
    check_kind(model, trained=True)
    check_records_file(output)
    load_libraries()
    from keras_t2t.inference import stream_predictions

    paths = image_files(images)
    runtime = open_classifier(model)
    preprocessing = with_crop_fraction(runtime.spec.preprocessing, crop_fraction)
    results = stream_predictions(runtime, paths, top, batch_size=batch_size, preprocessing=preprocessing)
    unreadable: dict[str, str] = {}
    predicted = _set_aside(_with_progress_bar(results, len(paths), to_file=output is not None), unreadable)
    if output:
        count = write_records(output, (_record(path, predictions) for path, predictions in predicted))
        print(f"Wrote {output}: {counted(count, 'image')}")
    else:
        for path, predictions in predicted:
            (_print_table if len(paths) == 1 else _print_line)(path, predictions)
    if unreadable:
        lines = "".join(f"\n  {path}: {reason}" for path, reason in unreadable.items())
        raise ValueError(f"{len(unreadable):,} of {counted(len(paths), 'image')} cannot be read:{lines}")


def image_files(paths: Sequence[pathlib.Path]) -> list[str]:
    """Returns the files among some paths, and the images in the folders among them and in their subfolders, sorted.

    Raises:
        ValueError: If there is no image in a folder.
    """
    return [file for path in paths for file in (_images_in(path) if path.is_dir() else [str(path)])]


def _images_in(folder):
    from keras_t2t.data.sources import images_in_folder

    files = images_in_folder(folder)
    if not files:
        raise ValueError(f"Expected a folder that contains images; received: {folder}")
    return files


def open_classifier(name: str) -> "Runtime":
    """Returns the classifier that MODEL names, ready to run; see `open_runtime`.

    Raises:
        ValueError: If there is no such model, or if it returns features.
    """
    runtime = open_runtime(name)
    if runtime.spec.output == "features":
        raise ValueError(f"Expected a classifier; {name} returns features")
    return runtime


def _with_progress_bar(results, count, to_file):
    """Shows progress on a terminal, unless the results themselves appear there."""
    console = Console(stderr=True)
    hidden = count == 1 or not console.is_terminal or (sys.stdout.isatty() and not to_file)
    return track(results, "Predicting", count, console=console, disable=hidden)


def _set_aside(results, unreadable):
    """Yields the results that are predictions. Puts the reasons of the others into a dictionary by path."""
    for path, result in results:
        if isinstance(result, Exception):
            reason = result.strerror if isinstance(result, OSError) else None
            unreadable[path] = reason or str(result).removeprefix(f"Cannot read {path}: ")
        else:
            yield path, result


def _record(path, predictions):
    record = {"path": path}
    for rank, (label, probability) in enumerate(predictions, 1):
        record |= {f"label{rank}": label, f"probability{rank}": float(f"{probability:.7g}")}
    return record


def _print_table(path, predictions):
    print(f"{pathlib.Path(path).name}:")
    table = Table("class", "probability")
    for label, probability in predictions:
        table.add_row(Text(label), f"{probability:.4f}")
    print_table(table)


def _print_line(path, predictions):
    line = f"{path}: {', '.join(f'{label} {probability:.4f}' for label, probability in predictions)}"
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    print(line)


def with_crop_fraction(preprocessing: Preprocessing, crop_fraction: float | None) -> Preprocessing:
    """Returns the preprocessing with the crop fraction of the option, if there is one."""
    return preprocessing if crop_fraction is None else dataclasses.replace(preprocessing, crop_fraction=crop_fraction)
