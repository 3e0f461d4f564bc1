"""The command for studies."""

import pathlib
import shlex
import sys
from typing import Annotated

import typer

from keras_t2t.cli.app import DATA_AND_TRAINING, command, existing_path
from keras_t2t.cli.libraries import load_libraries
from keras_t2t.cli.training import DATA_HELP, DirOption, check_output_folder, existing_data
from keras_t2t.recipes import load_recipe
from keras_t2t.studies import load_study, read_results, write_tables


@command("study", DATA_AND_TRAINING)
def study_command(
    description: Annotated[
        pathlib.Path, typer.Argument(help="YAML file with the models, seeds, and recipe.", callback=existing_path)
    ],
    output: Annotated[pathlib.Path, typer.Option(help="Output folder. Use the same folder to resume a study.")],
    data: Annotated[
        str | None, typer.Option(help=f"{DATA_HELP} Without it, only the tables are made.", callback=existing_data)
    ] = None,
    data_dir: DirOption = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Run every N-th training run, starting with run I.")] = "1/1",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure the latency and training speed of each model on this machine, with 10 classes if there is no --data.",
        ),
    ] = False,
) -> None:
    """Train several models with the same recipe and several seeds, and make a table of their accuracies.

    The same command resumes a study. With --shard, several processes or machines can share it.

    Example: keras-t2t study study.yaml --data cifar10 --output runs/study
    """
    check_output_folder(output, data)
    study, shard_and_count = load_study(description), _shard(shard)
    recipe = load_recipe(study.recipe).replace(**study.settings)
    load_libraries()
    from keras_t2t.data import open_data
    from keras_t2t.training import run_study
    from keras_t2t.training.study import measure_costs

    sources = None if data is None else open_data(data, data_dir, recipe.validation_fraction)
    if sources:
        run_study(study, sources, output, shard_and_count, f"keras-t2t {shlex.join(sys.argv[1:])}")
    if measure:
        measure_costs(study, output, len(sources["train"].classes) if sources else 10)
    has_results = bool(read_results(output))
    if sources and not has_results:
        print("There are no results yet. This shard has no runs, or other processes have not finished theirs")
    elif has_results or not measure:
        print(write_tables(output), end="")
        print(f"Wrote results.md, results.json, and pictures to {output}")


def _shard(value):
    """Returns `(index, number of shards)` for a value such as `"1/4"`, whose first number starts at 1."""
    index, slash, count = value.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"Expected --shard I/N with 1 <= I <= N; received: --shard {value}")
    return int(index) - 1, int(count)
