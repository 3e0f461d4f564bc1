"""Commands for training and its data."""

import contextlib
import pathlib
import shlex
import sys
from typing import Annotated

import typer

from keras_t2t.cli.app import DATA_AND_TRAINING, app, command, existing_path
from keras_t2t.cli.libraries import load_libraries
from keras_t2t.cli.models import MODEL_HELP, check_kind, check_models, variant_and_weights
from keras_t2t.errors import counted
from keras_t2t.recipes import RECIPES, load_recipe
from keras_t2t.strategies import STRATEGIES, check_strategy_options
from keras_t2t.variants import variant_called

DATA_HELP = "A folder with one subfolder per class, optionally inside train and val, or tfds:NAME."
DirOption = Annotated[pathlib.Path | None, typer.Option(help="Data folder of TensorFlow Datasets.")]
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="Inspect data before training.", rich_help_panel=DATA_AND_TRAINING)


def existing_data(data: str | None) -> str | None:
    """Returns a folder or `tfds:NAME` unchanged, after checking that the folder exists.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if data is not None and not data.startswith("tfds:"):
        existing_path(pathlib.Path(data))
    return data


def check_output_folder(output: pathlib.Path | None, data: str | None) -> None:
    """Checks that the output folder is not in the folder of the data, where its pictures would be those of a class.

    Raises:
        ValueError: If it is.
    """
    if output and data and pathlib.Path(data).resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"Expected --output outside of {data}, whose subfolders are classes; received: --output {output}")


@command("train", DATA_AND_TRAINING)
def train_command(
    data: Annotated[str | None, typer.Option(help=DATA_HELP, callback=existing_data)] = None,
    output: Annotated[pathlib.Path | None, typer.Option(help="Output folder. Use the same folder to resume training.")] = None,
    recipe: Annotated[
        str, typer.Option(help=f"One of {', '.join(RECIPES)}, finetune (for any folder), or a YAML file.")
    ] = "finetune",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help=f"The model to train. Defaults to the variant of the recipe. {MODEL_HELP}",
            callback=check_models,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs, without cool-down.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Number of images in a batch, across all devices.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change any setting of the recipe: NAME=VALUE.")] = None,
    data_dir: DirOption = None,
    device: Annotated[
        str | None, typer.Option(help="Train on one device: cpu, gpu, gpu:1, ... Defaults to what the backend finds.")
    ] = None,
    strategy: Annotated[str, typer.Option(help=f"How to use several devices: {', '.join(STRATEGIES)}.")] = "none",
    cpu_devices: Annotated[int, typer.Option(min=0, help="Split the CPU into this many devices to try a strategy.")] = 0,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of the first of several processes, or auto (TPU pods, Slurm, MPI).")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Number of processes.")] = None,
    process: Annotated[int | None, typer.Option(help="Index of this process, starting at 0.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as YAML and exit.")] = False,
) -> None:
    """Train a classifier, or continue an interrupted or finished training run.

    The same command resumes after the last finished epoch. With more --epochs, a finished run continues.

    The learning rate then follows the schedule for the new number of epochs, so it may rise at first.

    Example: keras-t2t train --data flowers --model t2t_vit_14:imagenet --output runs/flowers
    """
    options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    changes = _changes(model, options, settings or [])
    needs_no_data = show and recipe != "finetune"
    if not needs_no_data and (data is None or (output is None and not show)):
        raise ValueError("Expected --data and --output. With --show, the recipe finetune needs --data only")
    if device and strategy != "none":
        raise ValueError(f"Expected --device or --strategy, not both; received: --device {device}, --strategy {strategy}")
    check_strategy_options(strategy, cpu_devices, coordinator, processes, process)
    if model:
        check_kind(model, exported=False)
    named = variant_called(model.partition(":")[0]) if model else None
    base = load_recipe(recipe, 1, named)
    if named or not model:  # the settings depend on the variant, and a file may hold any variant
        base.replace(**changes)
    load_libraries()
    from keras_t2t.training import make_strategy
    from keras_t2t.training import train as train_model
    from keras_t2t.training.distribution import device_scope, this_process
    from keras_t2t.training.summary import closing
    from keras_t2t.training.trainer import check_extras

    check_output_folder(output, data)
    command_line = f"keras-t2t {shlex.join(sys.argv[1:])}"
    with _explain_interrupt(output, command_line), device_scope(None if show else device):
        # This must come first, because opening a model to find out its variant would initialize the backend.
        engine = None if show else make_strategy(strategy, cpu_devices, coordinator, processes, process)
        variant, weights = variant_and_weights(model) if model else (None, None)
        if needs_no_data or data is None:
            print(load_recipe(recipe, model=variant).replace(**changes).to_yaml(), end="")
            return
        check_extras()  # before a dataset is downloaded
        chosen, sources = _recipe_and_sources(recipe, variant, changes, data, data_dir)
        if show or output is None:
            print(chosen.to_yaml(), end="")
            return
        dataset = data.removeprefix("tfds:") if data.startswith("tfds:") else pathlib.Path(data).resolve().name
        _, history = train_model(chosen, sources, output, weights, engine, command_line, dataset)
        if this_process()[0] == 0:
            print(closing(chosen, history, output))


def _changes(model, options, settings):
    """Returns the changed settings of a recipe. None may be given twice."""
    given = [(name, value, f"--{name.replace('_', '-')}") for name, value in options.items() if value is not None]
    given += [(*_name_and_value(setting), "--set") for setting in settings]
    seen = {"model": f"{model} from --model"} if model else {}
    for name, value, option in given:
        if name in seen:
            raise ValueError(f"Expected one value of {name}; received: {seen[name]} and {value} from {option}")
        seen[name] = f"{value} from {option}"
    return {name: value for name, value, _ in given}


def _name_and_value(setting):
    name, equals, value = setting.partition("=")
    if not equals:
        raise ValueError(f"Expected --set NAME=VALUE; received: {setting!r}")
    return name, value


def _recipe_and_sources(name, variant, changes, data, data_dir):
    """Returns the recipe, which may depend on the number of images, and the images, which depend on the recipe."""
    from keras_t2t.data import open_data

    base = load_recipe(name, 1, variant).replace(**changes)
    sources = open_data(data, data_dir, base.validation_fraction)
    return load_recipe(name, len(sources["train"]), variant).replace(**changes), sources


@contextlib.contextmanager
def _explain_interrupt(output, command_line):
    """On Ctrl-C, prints how to resume and exits with the status of a process that was interrupted."""
    from keras_t2t.training.checkpoints import finished_epochs

    try:
        yield
    except KeyboardInterrupt:
        epochs = counted(finished_epochs(output) if output else 0, "finished epoch")
        print(f"Stopped after {epochs}. To resume, run: {command_line}", file=sys.stderr)
        raise typer.Exit(130) from None


@command("check", app=data_app)
def check_command(folder: Annotated[pathlib.Path, typer.Argument(help="A folder of images.", callback=existing_path)]) -> None:
    """Find unreadable files in a folder.

    Example: keras-t2t data check flowers
    """
    load_libraries()
    from keras_t2t.data import find_bad_files, from_folder
    from keras_t2t.data.check import other_files
    from keras_t2t.data.problems import describe_problem
    from keras_t2t.data.sources import SUFFIXES, images_in_folder

    bad, unused = [], set(images_in_folder(folder))
    for split, source in from_folder(folder).items():
        found = find_bad_files(source)
        print(
            f"{split}: {counted(len(source), 'image')} in {counted(len(source.classes), 'class')}, {len(found)} cannot be read"
        )
        bad += found
        unused -= set(source.images)
    if unused:
        print(f"Ignoring {counted(len(unused), 'image')} outside of the classes, such as {min(unused)}")
    others = other_files(folder)
    if others:
        print(f"Ignoring {counted(len(others), 'file')}, such as {others[0]}")
        print(f"Expected one of the extensions {', '.join(SUFFIXES)}")
    print("".join(f"{path}: {describe_problem(path)}\n" for path in dict.fromkeys(bad)), end="")
    raise typer.Exit(1 if bad else 0)
