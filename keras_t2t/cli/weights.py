"""Commands for models and their weights."""

import math
import pathlib
from typing import Annotated

import typer
from rich.table import Table

from keras_t2t.cli.app import MODELS, command, print_table
from keras_t2t.cli.libraries import load_libraries
from keras_t2t.cli.models import (
    MODEL_HELP,
    Model,
    check_kind,
    check_models,
    description,
    model_file,
    open_model,
    open_runtime,
    variant_and_weights,
)
from keras_t2t.configs import token_grid
from keras_t2t.errors import with_unit
from keras_t2t.preprocessing import ModelSpec, Preprocessing
from keras_t2t.registry import PretrainedWeights, pretrained_weights_of
from keras_t2t.variants import VARIANTS, find_variant

HeadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of attention heads, if the checkpoint is not one of the variants. Defaults to one per 64 channels."
    ),
]


@command("convert", MODELS)
def convert_command(
    model: Model,
    output: Annotated[pathlib.Path, typer.Argument(help="A .keras file (the whole model) or a .weights.h5 file.")],
    num_heads: HeadsOption = None,
) -> None:
    """Convert a checkpoint to Keras.

    Example: keras-t2t convert checkpoint.pth.tar model.keras
    """
    if not output.name.endswith((".keras", ".weights.h5")):
        raise ValueError(f"Expected an output that ends in .keras or .weights.h5; received: {output}")
    check_kind(model, trained=True, exported=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    load_libraries()
    opened = open_model(model, num_heads=num_heads)
    (opened.save if output.suffix == ".keras" else opened.save_weights)(output)
    print(f"Wrote {output}: {description(opened)}")


@command("info", MODELS)
def info_command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=f"What to describe. {MODEL_HELP}", callback=check_models)
    ] = None,
) -> None:
    """List the variants and their pretrained weights, or describe one model.

    Example: keras-t2t info t2t_vit_14
    """
    load_libraries()
    if model is None:
        _print_variants()
    elif model_file(model) is None:
        _print_variant(variant_and_weights(model)[0])
    else:
        print(f"{model}\n{_spec_lines(open_runtime(model).spec)}")


def _print_variants():
    from keras_t2t.weights.pretrained import cache_folder

    table = Table("variant", "parameters", "weights (top-1 %)", "on this machine", title="Models")
    for name in VARIANTS:
        known = pretrained_weights_of(name).values()
        published = ", ".join(f"{weights.name} {weights.top1:.2f}" for weights in known)
        local = ", ".join(weights.name for weights in known if _local_file(weights))
        table.add_row(name, with_unit(_parameters(name)), published or "none", local)
    print_table(table)
    print(
        "Accuracies are as published and were not measured again, except for t2t_vit_tiny_32, which is our own.\n"
        f"Cache: {cache_folder()}"
    )


def _local_file(weights: PretrainedWeights) -> pathlib.Path | None:
    """Returns the path of weights on this machine, or `None` if they are not here."""
    from keras_t2t.weights.pretrained import cache_folder

    path = weights.path or cache_folder() / weights.file
    return path if path.exists() else None


def _print_variant(name):
    config = find_variant(name).config
    print(f"{name}: {with_unit(_parameters(name))} parameters\n{config}")
    for weights in pretrained_weights_of(name).values():
        table = Table(show_header=False, title=f'weights="{weights.name}"', title_justify="left")
        table.add_row("file", weights.file if weights.path else weights.url)
        accuracy = f"top-1 {weights.top1}%" + (f", top-5 {weights.top5}%" if weights.top5 else "")
        table.add_row("accuracy" if weights.path else "published accuracy", accuracy)
        table.add_row("data", f"{weights.dataset}, {weights.classes} classes")
        table.add_row("images", _images_line(weights.preprocessing))
        if not weights.path:
            table.add_row("verified by", weights.verified_by)
        table.add_row("license", weights.license)
        table.add_row("on this machine", str(_local_file(weights) or "no"))
        print_table(table)


def _images_line(preprocessing: Preprocessing) -> str:
    height, width = preprocessing.image_size
    return (
        f"{height}x{width}, {preprocessing.interpolation}, crop fraction {preprocessing.crop_fraction:g}, "
        f"mean {preprocessing.mean}, std {preprocessing.std}"
    )


def _spec_lines(spec: ModelSpec) -> str:
    labels = "unknown" if spec.labels is None else f"{len(spec.labels)}: {', '.join(spec.labels[:10])}"
    labels += ", ..." if spec.labels and len(spec.labels) > 10 else ""
    inputs = "pixels in [0, 255]" if spec.normalizes else "normalized images"
    return f"images: {_images_line(spec.preprocessing)}\ntakes: {inputs}\nreturns: {spec.output}\nclasses: {labels}"


def _parameters(variant):
    from keras_t2t.weights.names import name_map

    known = VARIANTS[variant]
    positions = 1 + math.prod(token_grid(known.config.soft_splits, *[known.image_size] * 2))
    counts = {weights.classes for weights in pretrained_weights_of(variant).values()}
    classes = counts.pop() if len(counts) == 1 else 1000
    return sum(math.prod(row.shape) for row in name_map(known.config, positions, classes=classes))
