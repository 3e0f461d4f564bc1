"""The command for evaluation."""

import pathlib
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from keras_t2t import run_files
from keras_t2t.cli.app import DATA_AND_TRAINING, CropOption, check_picture, command, print_table
from keras_t2t.cli.libraries import load_libraries
from keras_t2t.cli.models import Model, check_kind, model_file
from keras_t2t.cli.predict import open_classifier, with_crop_fraction
from keras_t2t.cli.training import DATA_HELP, DirOption, existing_data
from keras_t2t.errors import counted, did_you_mean


@command("evaluate", DATA_AND_TRAINING)
def evaluate_command(
    model: Model,
    data: Annotated[str, typer.Option(help=DATA_HELP, callback=existing_data)],
    split: Annotated[
        str, typer.Option(help="train, val, or test. If the data has only one split, part of it is held out as val.")
    ] = "val",
    crop_fraction: CropOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of images in a batch.")] = 64,
    picture: Annotated[pathlib.Path | None, typer.Option(help="Save the confusion matrix to this PNG file.")] = None,
    data_dir: DirOption = None,
) -> None:
    """Measure the accuracy of a model, overall and for each class, and its speed.

    Example: keras-t2t evaluate runs/flowers --data flowers --picture confusion.png
    """
    check_kind(model, trained=True)
    check_picture(picture)
    load_libraries()
    from keras_t2t.data import open_data
    from keras_t2t.training import Recipe, load_recipe
    from keras_t2t.training.evaluation import draw_confusion
    from keras_t2t.training.evaluation import evaluate as evaluate_model
    from keras_t2t.training.record import is_held_out
    from keras_t2t.training.trainer import readable_source

    classifier = open_classifier(model)
    run = _run_of(model)
    recipe = load_recipe(run / run_files.RECIPE) if run else Recipe()
    sources = open_data(data, data_dir, recipe.validation_fraction)
    if split not in sources:
        raise ValueError(
            f"Expected --split to be one of {', '.join(sources)}; received: {split!r}{did_you_mean(split, sources)}"
        )
    if run and split != "test":
        notes = {
            True: f"Using the {'held-out' if split == 'val' else 'training'} images of {run}",
            False: f"Note: {run} held out different images, so {split} may include training images",
            None: f"Note: {run} does not say which images it held out, so {split} may include training images",
        }
        print(notes[is_held_out(sources["val"], run)])
    source = readable_source(recipe, split, sources[split])
    names = classifier.spec.labels or source.classes
    if len(names) == len(source.classes) and set(names) != set(source.classes):
        print(
            f"Note: the model has the classes {_some(names)}, and the data has {_some(source.classes)}. Matching them by index"
        )
    preprocessing = with_crop_fraction(classifier.spec.preprocessing, crop_fraction)
    report = evaluate_model(classifier, source, batch_size, preprocessing)
    table = Table("class", "images", "accuracy")
    for name, count, accuracy in zip(report.classes, report.confusion.sum(1), report.class_accuracies, strict=True):
        table.add_row(Text(name), f"{count:,}", f"{accuracy:.4f}" if count else "")
    print_table(table)
    top5 = "" if report.top5 is None else f", top-5 {report.top5:.4f}"
    print(f"top-1 {report.top1:.4f}{top5}; {counted(report.confusion.sum(), 'image')} in {split}")
    print(f"{report.images_per_second:,.1f} images/s with {classifier.name}, including reading and resizing")
    if picture:
        draw_confusion(report, picture)
        print(f"Wrote {picture}")


def _some(names):
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _run_of(model):
    """Returns the output folder of the training run that wrote a model, or `None`."""
    file = model_file(model) or model.partition(":")[2]  # in VARIANT:FILE
    folder = pathlib.Path(file).parent
    return folder if file and pathlib.Path(file).exists() and (folder / run_files.RECIPE).is_file() else None
