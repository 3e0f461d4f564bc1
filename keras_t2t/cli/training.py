"""Commands for training and evaluation."""

import pathlib
import shlex
import sys
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from keras_t2t.cli.app import CropOption, app, print_table
from keras_t2t.cli.models import MODEL_HELP, model_file, open_runtime, variant_and_weights
from keras_t2t.cli.predict import with_crop_fraction
from keras_t2t.data import find_bad_files, from_folder, open_data
from keras_t2t.data.check import explain_data_errors, other_files
from keras_t2t.data.sources import SUFFIXES
from keras_t2t.training import RECIPES, Recipe, load_recipe, make_strategy
from keras_t2t.training import train as train_model
from keras_t2t.training.distribution import STRATEGIES, device_count, this_process
from keras_t2t.training.evaluation import draw_confusion
from keras_t2t.training.evaluation import evaluate as evaluate_model
from keras_t2t.training.trainer import readable_source

DATA_HELP = "A folder with one subfolder per class, optionally inside train and val, or tfds:NAME."
DirOption = Annotated[pathlib.Path | None, typer.Option(help="Data folder of TensorFlow Datasets.")]
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="Inspect data before training.")


@app.command("train")
def train_command(
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    output: Annotated[pathlib.Path | None, typer.Option(help="Output folder. Use the same folder to resume training.")] = None,
    recipe: Annotated[
        str, typer.Option(help=f"One of {', '.join(RECIPES)}, finetune (suits any folder), or a YAML file.")
    ] = "finetune",
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=f"The model to train. Defaults to the variant of the recipe. {MODEL_HELP}"),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a setting of the recipe: NAME=VALUE.")] = None,
    data_dir: DirOption = None,
    strategy: Annotated[str, typer.Option(help=f"How to use several devices: {', '.join(STRATEGIES)}.")] = "none",
    cpu_devices: Annotated[int, typer.Option(min=0, help="Split the CPU into this many devices to try a strategy.")] = 0,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of the first of several processes, or auto (TPU pods, Slurm, MPI).")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Number of processes.")] = None,
    process: Annotated[int | None, typer.Option(help="Index of this process, starting at 0.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as YAML and exit.")] = False,
) -> None:
    """Train a classifier, or resume an interrupted training run."""
    changes = dict(_name_and_value(setting) for setting in settings or [])
    needs_no_data = show and recipe != "finetune"
    if not needs_no_data and (data is None or (output is None and not show)):
        raise ValueError("Expected --data and --output, or --data with --show for the recipe finetune")
    # This must come first, because opening a model to find out its variant would initialize the backend.
    engine = None if show else make_strategy(strategy, cpu_devices, coordinator, processes, process)
    variant, weights = variant_and_weights(model) if model else (None, None)
    if needs_no_data or data is None:
        print(load_recipe(recipe, model=variant).replace(**changes).to_yaml(), end="")
        return
    base = load_recipe(recipe, 1, variant).replace(**changes)
    sources = open_data(data, data_dir, base.validation_fraction, base.seed)
    chosen = load_recipe(recipe, len(sources["train"]), variant).replace(**changes)
    if show or output is None:
        print(chosen.to_yaml(), end="")
        return
    if engine:
        print(f"Training on {device_count(engine)} devices of {this_process()[1]} processes")
    command = f"keras-t2t {shlex.join(sys.argv[1:])}"
    _, history = train_model(chosen, sources, output, weights, engine, command)
    if this_process()[0] > 0:
        return
    table = Table("metric", "after the last epoch")
    for name, value in history[-1].items():
        table.add_row(name, f"{value:.5g}")
    print_table(table)
    print(f"Wrote {output}: model.keras, README.md, curves.png, log.csv")


def _name_and_value(setting):
    name, equals, value = setting.partition("=")
    if not equals:
        raise ValueError(f"Expected --set NAME=VALUE; received: {setting!r}")
    return name, value


@app.command("evaluate")
def evaluate_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="train, val, or test.")] = "val",
    crop_fraction: CropOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of images in a batch.")] = 64,
    picture: Annotated[pathlib.Path | None, typer.Option(help="Save the confusion matrix to this PNG file.")] = None,
    data_dir: DirOption = None,
) -> None:
    """Measure the accuracy of a model, overall and for each class."""
    classifier = open_runtime(model)
    recipe = _recipe_next_to(model_file(model)) or Recipe()
    sources = open_data(data, data_dir, recipe.validation_fraction, recipe.seed)
    if split not in sources:
        raise ValueError(f"Expected --split to be one of {', '.join(sources)}; received: {split!r}")
    source = readable_source(recipe, split, sources[split])
    names = classifier.spec.labels or source.classes
    if set(names) != set(source.classes):
        print(f"Note: the model has the classes {_some(names)}, and the data {_some(source.classes)}. Matching them by index")
    with explain_data_errors(source):
        preprocessing = with_crop_fraction(classifier.spec.preprocessing, crop_fraction)
        report = evaluate_model(classifier, source, batch_size, preprocessing)
    table = Table("class", "images", "accuracy")
    for name, count, accuracy in zip(report.classes, report.confusion.sum(1), report.class_accuracies, strict=True):
        table.add_row(Text(name), f"{count:,}", f"{accuracy:.4f}")
    print_table(table)
    top5 = "" if report.top5 is None else f", top-5 {report.top5:.4f}"
    print(f"top-1 {report.top1:.4f}{top5}; {report.confusion.sum():,} images, {report.images_per_second:,.0f} images/s")
    if picture:
        draw_confusion(report, picture)
        print(f"Wrote {picture}")


def _some(names):
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _recipe_next_to(file):
    """Returns the recipe that a model was trained with, which determines the held-out images, or `None`."""
    path = file and file.parent / "recipe.yaml"
    if not path or not path.is_file():
        return None
    print(f"Using the held-out images of {path}")
    return load_recipe(path)


@data_app.command("check")
def check_command(folder: Annotated[str, typer.Argument(help="A folder of images.")]) -> None:
    """Find unreadable files in a folder."""
    bad = []
    for split, source in from_folder(folder).items():
        found = find_bad_files(source)
        print(f"{split}: {len(source):,} images in {len(source.classes)} classes, {len(found)} cannot be read")
        bad += found
    others = other_files(folder)
    if others:
        print(f"{len(others)} files are ignored, such as {others[0]}. Expected one of the extensions {', '.join(SUFFIXES)}")
    print("".join(f"{path}\n" for path in dict.fromkeys(bad)), end="")
    raise typer.Exit(1 if bad else 0)
