"""Commands for training and evaluation."""

import pathlib
import shlex
import sys
from typing import Annotated

import keras
import typer
from rich.table import Table
from rich.text import Text

from keras_t2t.cli.app import CropOption, app, print_table
from keras_t2t.data import default_crop, find_bad_files, from_folder, open_data
from keras_t2t.data.check import data_errors_named, other_files
from keras_t2t.data.sources import SUFFIXES
from keras_t2t.models import labels_of
from keras_t2t.training import RECIPES, Recipe, load_recipe, make_strategy
from keras_t2t.training import train as train_model
from keras_t2t.training.distribution import STRATEGIES, device_count, this_process
from keras_t2t.training.evaluate import draw_confusion
from keras_t2t.training.evaluate import evaluate as evaluate_model
from keras_t2t.training.train import readable_source

DATA_HELP = "A folder with one subfolder for each class, with or without train and val; or tfds:NAME."
DirOption = Annotated[pathlib.Path | None, typer.Option(help="Where TensorFlow Datasets keeps its data.")]
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="Look at data before training.")


@app.command()
def train(
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    output: Annotated[
        pathlib.Path | None, typer.Option(help="A folder for everything; the same one goes on where it stopped.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help=f"One of {', '.join(RECIPES)}, finetune (for any folder), or a YAML file.")
    ] = "finetune",
    model: Annotated[str | None, typer.Option(help="Another variant than that of the recipe.")] = None,
    weights: Annotated[str | None, typer.Option(help="Published weights, or a file, for the body to start from.")] = None,
    settings: Annotated[list[str], typer.Option("--set", help="A setting of the recipe, as NAME=VALUE.")] = (),
    data_dir: DirOption = None,
    strategy: Annotated[str, typer.Option(help=f"How to use several devices: {', '.join(STRATEGIES)}.")] = "none",
    cpu_devices: Annotated[int, typer.Option(min=0, help="Divide the CPU into so many devices, to try a strategy.")] = 0,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of the first of several processes, or auto (TPU pods, Slurm, MPI).")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes there are.")] = None,
    process: Annotated[int | None, typer.Option(help="The number of this one, from 0.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as YAML and stop.")] = False,
):
    """Train a classifier, or go on with an interrupted training."""
    changes = dict(_pair(setting) for setting in settings)
    if show and recipe != "finetune":
        print(load_recipe(recipe, model=model).replace(**changes).to_yaml(), end="")
        return
    if data is None or (output is None and not show):
        raise ValueError("Expected --data and --output; to --show the recipe finetune, --data")
    engine = make_strategy(strategy, cpu_devices, coordinator, processes, process)
    base = load_recipe(recipe, 1, model).replace(**changes)
    sources = open_data(data, data_dir, base.validation_fraction, base.seed)
    chosen = load_recipe(recipe, len(sources["train"]), model).replace(**changes)
    if show:
        print(chosen.to_yaml(), end="")
        return
    if engine:
        print(f"Training on {device_count(engine)} devices of {this_process()[1]} processes")
    command = f"keras-t2t {shlex.join(sys.argv[1:])}"
    _, history = train_model(chosen, sources, output, weights, engine, command)
    if this_process()[0] > 0:
        return
    table = Table("after the last epoch", "")
    for name, value in history[-1].items():
        table.add_row(name, f"{value:.5g}")
    print_table(table)
    print(f"Wrote {output}: model.keras, README.md, curves.png, log.csv")


def _pair(setting):
    name, equals, value = setting.partition("=")
    if not equals:
        raise ValueError(f"Expected --set NAME=VALUE; received: {setting!r}")
    return name, value


@app.command()
def evaluate(
    model: Annotated[pathlib.Path, typer.Argument(exists=True, help="A .keras file.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    crop: CropOption = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    picture: Annotated[pathlib.Path | None, typer.Option(help="A PNG for the confusion matrix.")] = None,
    data_dir: DirOption = None,
):
    """Measure the accuracy of a model, overall and for each class."""
    classifier = keras.saving.load_model(model, compile=False)
    recipe = _recipe_beside(model) or Recipe(eval_crop=default_crop(classifier.input_shape[1:3]))
    sources = open_data(data, data_dir, recipe.validation_fraction, recipe.seed)
    if split not in sources:
        raise ValueError(f"Expected a split of {', '.join(sources)}; received: {split!r}")
    source = readable_source(recipe, split, sources[split])
    names = labels_of(classifier) or source.classes
    if set(names) != set(source.classes):
        print(f"Note: the model calls the classes {_some(names)}, the data {_some(source.classes)}; they count by number")
    with data_errors_named(source):
        report = evaluate_model(
            classifier, source, batch_size, crop=crop or recipe.eval_crop, interpolation=recipe.eval_interpolation
        )
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


def _recipe_beside(model):
    """The recipe that a model was trained by, which says what was held out and how images were cropped."""
    path = model.parent / "recipe.yaml"
    if not path.is_file():
        return None
    print(f"Held-out images and crop are those of {path}")
    return load_recipe(path)


@data_app.command()
def check(folder: Annotated[str, typer.Argument(help="A folder of images.")]):
    """Find the files of a folder that cannot be read, before training does."""
    bad = []
    for split, source in from_folder(folder).items():
        found = find_bad_files(source)
        print(f"{split}: {len(source):,} images of {len(source.classes)} classes, {len(found)} of them cannot be read")
        bad += found
    others = other_files(folder)
    if others:
        print(f"{len(others)} files that end with none of {', '.join(SUFFIXES)} are left out, such as {others[0]}")
    print("".join(f"{path}\n" for path in dict.fromkeys(bad)), end="")
    raise typer.Exit(1 if bad else 0)
