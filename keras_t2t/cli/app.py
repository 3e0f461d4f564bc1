"""The application that the commands are added to."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from keras_t2t.training.distribution import keep_tensorflow_off_accelerators

app = typer.Typer(
    name="keras-t2t",
    help="T2T-ViT for Keras: published weights, predictions, training, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CropOption = Annotated[
    float | None,
    typer.Option(
        min=0.1, max=1.0, help="Side of the center crop as a fraction of the resized image; by default what the model says."
    ),
]


def main():
    """Runs the command line. Errors of the user's are a line on standard error and the exit status 1."""
    keep_tensorflow_off_accelerators()
    try:
        app()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


def print_table(table: Table):
    """Prints a table, on a pipe as wide as it wants to be."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def check_picture(path):
    """Raises before the work if a picture cannot be written."""
    if path is not None and (path.suffix.lower() != ".png" or not path.parent.is_dir()):
        raise ValueError(f"Expected a .png file in a folder that exists, for the picture; received: {path}")
