"""What the MODEL argument means, which is the same for every command."""

import os
import pathlib
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_t2t import run_files
from keras_t2t.cli.app import existing_path
from keras_t2t.cli.libraries import native_messages_hidden
from keras_t2t.configs import T2TConfig
from keras_t2t.errors import did_you_mean, did_you_mean_file, with_unit
from keras_t2t.export_formats import is_exported
from keras_t2t.registry import pretrained_weights_of
from keras_t2t.variants import VARIANTS, did_you_mean_variant, variant_called, variant_of

if TYPE_CHECKING:
    import keras

    from keras_t2t.runtime import Runtime

MODEL_HELP = (
    "A variant such as t2t_vit_14 (random weights); VARIANT:WEIGHTS, such as t2t_vit_14:imagenet or t2t_vit_14:FILE; a .keras "
    "file or a checkpoint; an exported file; or the folder of a training run."
)


def check_models(value: Any) -> Any:
    """Returns the values of a MODEL argument or option unchanged, after checking that each of them names something.

    Raises:
        FileNotFoundError: If it is the path of a file or folder that does not exist.
        ValueError: If there are no such weights, or no such variant, file or folder, or if it is a folder that is neither a
            training run nor a SavedModel.
    """
    for name in [value] if isinstance(value, str) else value or ():
        variant, path = name.partition(":")[0], pathlib.Path(name)
        if variant_called(variant):
            _check_weights(name)
        elif path.is_dir() and not is_exported(path) and not (path / run_files.MODEL).is_file():
            raise ValueError(f"Expected the folder of a training run or a SavedModel; there is no {run_files.MODEL} in {path}")
        elif not path.exists():
            if os.sep in variant:  # before a colon, so that a mistyped VARIANT:FILE gets its own hint
                existing_path(path)
            hint = did_you_mean_file(path) or did_you_mean_variant(variant)
            raise ValueError(
                f"Expected a file, a folder, or one of the variants {', '.join(VARIANTS)}; received: {name!r}{hint}"
            )
    return value


def _check_weights(name):
    """Raises an error if the weights in `VARIANT:WEIGHTS` are neither pretrained weights of the variant nor a file."""
    variant, weights = _split(name)
    pretrained = pretrained_weights_of(variant)
    if weights and weights not in pretrained and not pathlib.Path(weights).is_file():
        names = ", ".join(pretrained) or "none available"
        raise ValueError(
            f"Expected pretrained weights of {variant} ({names}) or a file after the colon; received: {name!r}"
            f"{did_you_mean(weights, pretrained) or did_you_mean_file(weights)}"
        )


Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=check_models)]
Models = Annotated[list[str], typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=check_models)]


def check_kind(name: str, *, trained: bool = False, exported: bool = True) -> None:
    """Checks that MODEL names a model of the kind that a command takes, without opening it.

    Args:
        name: See `MODEL_HELP`.
        trained: Whether a variant with random weights is an error.
        exported: Whether an exported file is allowed.

    Raises:
        ValueError: If there is no such model, or if it is of another kind.
    """
    path, (variant, weights) = model_file(name), _split(name)
    if path is None and weights is None and trained:
        choices = ", ".join(f"{variant}:{known}" for known in pretrained_weights_of(variant)) or f"{variant}:FILE"
        raise ValueError(f"{variant} has random weights. Specify its weights: {choices}")
    if path is not None and is_exported(path) and not exported:
        raise ValueError(f"Expected a Keras model; {name} is an exported file")


def open_model(name: str, *, num_heads: int | None = None) -> "keras.Model":
    """Returns the Keras model that MODEL names.

    Args:
        name: See `MODEL_HELP`.
        num_heads: Number of attention heads for a checkpoint of a model that is not a variant.

    Raises:
        ValueError: If there is no such model, if it is an exported file, or if `num_heads` is given for anything else than a
            checkpoint.
    """
    import keras

    from keras_t2t import analysis, inference  # noqa: F401  register all layers

    check_kind(name, exported=False)
    path = model_file(name)
    if path is None:
        if num_heads:
            raise ValueError(f"--num-heads applies only to checkpoints without a variant; received: {name}")
        return _open_variant(name)
    if path.suffix != ".keras":
        return open_checkpoint(path, num_heads=num_heads)
    if num_heads:
        raise ValueError(f"--num-heads applies only to checkpoints; {path} already contains a complete model")
    try:
        return keras.saving.load_model(path, compile=False)
    except TypeError as error:  # a layer that is not registered
        missing = re.search(r"Could not locate class '\w+'", str(error))
        reason = missing[0] if missing else str(error).partition(". ")[0]
        raise ValueError(
            f"Cannot open {path}: {reason}. Models with layers of your own can only be opened in Python"
        ) from error


def open_runtime(name: str) -> "Runtime":
    """Returns the model that MODEL names, ready to run, whether it is a Keras model or an exported file.

    Raises:
        ValueError: If there is no such model.
    """
    from keras_t2t.exporting.runtimes import open_exported
    from keras_t2t.inference import keras_runtime

    path = model_file(name)
    if path is None or not is_exported(path):
        return keras_runtime(open_model(name))
    with native_messages_hidden():
        return open_exported(path)


def variant_and_weights(name: str) -> tuple[str, str | None]:
    """Returns the variant that MODEL names, and the weights to start training from: a name, a file, or `None`.

    Raises:
        ValueError: If there is no such model, or if it is not a variant.
    """
    from keras_t2t.models import config_of

    path = model_file(name)
    if path is None:
        return _split(name)
    found = variant_of(config_of(open_model(name)))
    if found is None:
        raise ValueError(f"Expected a model of one of the variants {', '.join(VARIANTS)}; {name} has a different configuration")
    return found, str(path)


def model_file(name: str) -> pathlib.Path | None:
    """Returns the file that MODEL names, or `None` if it names a variant.

    Raises:
        FileNotFoundError: See `check_models`.
        ValueError: See `check_models`.
    """
    path = pathlib.Path(check_models(name))
    if variant_called(name.partition(":")[0]):
        return None
    return path / run_files.MODEL if path.is_dir() and not is_exported(path) else path


def open_checkpoint(path: str | pathlib.Path, config: T2TConfig | None = None, num_heads: int | None = None) -> "keras.Model":
    """Builds the model of a checkpoint and loads its weights. Prints what was loaded and what was assumed to standard error.

    Args:
        path: The checkpoint.
        config: Configuration of the model, if it is known.
        num_heads: Number of attention heads of a model that is not a variant.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit the model.
    """
    from keras_t2t.applications import T2TViT
    from keras_t2t.weights.architecture import infer_architecture
    from keras_t2t.weights.loading import assign
    from keras_t2t.weights.reading import read_checkpoint

    checkpoint = read_checkpoint(path)
    fit = infer_architecture(checkpoint.arrays, config, num_heads)
    top: dict = {"include_top": False, "pooling": "token"} if fit.classes is None else {"classes": fit.classes}
    name = variant_of(fit.config) or "t2t_vit"
    if config is None and num_heads is None:
        print(
            f"Assuming {name} with {fit.config.num_heads} attention heads, which cannot be inferred from the weight shapes. If "
            f"this is another model, use VARIANT:{path}, or `convert --num-heads N`.",
            file=sys.stderr,
        )
    model = T2TViT(fit.config, input_shape=fit.image_shape, name=name, preprocessing=checkpoint.preprocessing, **top)
    print(f"Loaded {assign(model, checkpoint)}", file=sys.stderr)
    return model


def _open_variant(name):
    from keras_t2t.applications import T2TViT
    from keras_t2t.models import config_of

    variant, weights = _split(name)
    if weights in pretrained_weights_of(variant):
        return T2TViT(variant, weights=weights, name=variant)
    if weights and weights.endswith(".keras"):  # has its own preprocessing and head
        model = open_model(weights)
        if (found := variant_of(config_of(model))) != variant:
            raise ValueError(f"Expected a model of the variant {variant} after the colon; {weights} is a model of {found}")
        return model
    if weights:
        return open_checkpoint(weights, VARIANTS[variant].config)
    print(f"{variant} has random weights", file=sys.stderr)
    return T2TViT(variant, name=variant)


def _split(name):
    """Returns the variant and the weights in `VARIANT:WEIGHTS`. The weights are `None` if there is no colon."""
    variant, _, weights = name.partition(":")
    return variant_called(variant), weights or None


def description(model: "keras.Model") -> str:
    """Describes a model in one line: name, parameters, image size and outputs."""
    _, height, width, _ = model.input_shape
    size = "any size" if None in (height, width) else f"{height}x{width}"
    return f"{model.name}, {with_unit(model.count_params())} parameters, images of {size}, outputs {model.output_shape[1:]}"
