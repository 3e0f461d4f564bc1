"""The Typer application that the commands are registered with, and what they share."""

import pathlib
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from keras_t2t.training.distribution import keep_tensorflow_off_accelerators

app = typer.Typer(
    name="keras-t2t",
    help="T2T-ViT for Keras: pretrained weights, predictions, training, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CropOption = Annotated[
    float | None,
    typer.Option(
        min=0.1, max=1.0, help="Side of the center crop as a fraction of the resized image. Defaults to that of the model."
    ),
]


def main() -> None:
    """Runs the command line. User errors are printed on one line of standard error, with exit status 1."""
    keep_tensorflow_off_accelerators()
    try:
        app()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


def print_table(table: Table) -> None:
    """Prints a table. If the output is piped, the table may be wider than a terminal."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def check_picture(path: pathlib.Path | None) -> None:
    """Checks that an image can be written, before any work is done.

    Raises:
        ValueError: If the path does not end with `.png`, or if its folder does not exist.
    """
    if path is not None and (path.suffix.lower() != ".png" or not path.parent.is_dir()):
        raise ValueError(f"Expected the path of a .png file in an existing folder; received: {path}")
