"""The Typer application that the commands are registered with, and what they share."""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from keras_t2t import __version__
from keras_t2t.cli.libraries import set_verbosity
from keras_t2t.cli.messages import in_options
from keras_t2t.errors import did_you_mean_file
from keras_t2t.figures import new_figure

MODELS = "Models"
DATA_AND_TRAINING = "Data and training"
EXPORT = "Export"
LOOK_INSIDE = "Look inside"

app = typer.Typer(
    name="keras-t2t",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

CropOption = Annotated[
    float | None,
    typer.Option(
        min=0.1, max=1.0, help="Side of the center crop as a fraction of the resized image. Defaults to the model's value."
    ),
]


def main() -> None:
    """Runs the command line. User errors are printed to standard error, with exit status 1."""
    with _user_errors():
        app(prog_name="keras-t2t")


class Command(TyperCommand):
    """A command whose errors speak of its options."""

    def invoke(self, ctx: Any) -> Any:
        with _user_errors(self.params):
            return super().invoke(ctx)


def command(name: str, panel: str | None = None, app: typer.Typer = app) -> Callable[[Callable], Callable]:
    """Returns a decorator that registers a function as a command, which the help lists in a panel.

    So that mistakes show at once, the function checks all that it can before it calls `load_libraries`, which takes seconds.
    """
    return app.command(name, cls=Command, rich_help_panel=panel)


@contextlib.contextmanager
def _user_errors(parameters: Sequence[Any] = ()) -> Iterator[None]:
    """Prints errors that a user can mend, in terms of the options of a command, and exits."""
    try:
        yield
    except (typer.Exit, typer.Abort):  # are `RuntimeError`s
        raise
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"Error: {in_options(str(error), parameters)}", file=sys.stderr)
        sys.exit(1)


def _print_version(value: bool) -> None:
    if value:
        print(f"keras-t2t {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the messages of TensorFlow and other libraries.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """T2T-ViT for Keras: pretrained weights, predictions, training, export.

    Example: keras-t2t predict t2t_vit_tiny_32:cifar10 photo.jpg
    """
    set_verbosity(verbose)


def existing_path(value: Any) -> Any:
    """Returns the paths of an argument or option unchanged, after checking that they exist.

    Raises:
        FileNotFoundError: If there is no such file or folder.
    """
    for path in [value] if isinstance(value, pathlib.Path) else value or ():
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path}{did_you_mean_file(path)}")
    return value


def print_table(table: Table) -> None:
    """Prints a table. Cells are folded at the width of the terminal. If the output is piped, the table may be wider."""
    for column in table.columns:
        column.overflow = "fold"
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def check_picture(path: pathlib.Path | None) -> None:
    """Checks that an image can be written, before any work is done, and creates its folder.

    Raises:
        ValueError: If the path does not end with `.png`.
        OSError: If the folder cannot be created.
        ImportError: If matplotlib is not installed.
    """
    if path is not None:
        if path.suffix.lower() != ".png":
            raise ValueError(f"Expected the path of a .png file; received: {path}")
        new_figure(1, 1)  # raises if matplotlib is not installed
        path.parent.mkdir(parents=True, exist_ok=True)
