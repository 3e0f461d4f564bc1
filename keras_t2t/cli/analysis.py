"""Commands that look inside models and count what they cost."""

import dataclasses
import pathlib
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from keras_t2t import analysis
from keras_t2t.applications import T2TViT
from keras_t2t.cli.app import CropOption, app, check_picture, print_table
from keras_t2t.cli.models import MODEL_HELP, head_units, open_model
from keras_t2t.cli.predict import with_crop_fraction
from keras_t2t.configs import VARIANTS, variant_of
from keras_t2t.data import load_image, load_images, read_view
from keras_t2t.data.sources import SUFFIXES
from keras_t2t.inference import predict_images
from keras_t2t.models import config_of, parts, preprocessing_of

SIZES = (112, 160, 224, 320, 448, 640, 1024)


@app.command("attention")
def attention_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    image: Annotated[pathlib.Path, typer.Argument(exists=True, help="A JPEG, PNG, BMP, GIF or WebP file.")],
    output: Annotated[pathlib.Path, typer.Option(help="The picture, a PNG.")] = pathlib.Path("attention.png"),
    crop_fraction: CropOption = None,
) -> None:
    """Draw where a classifier looks, and what speaks for its answer."""
    check_picture(output)
    opened = open_model(model, trained=True)
    preprocessing = with_crop_fraction(preprocessing_of(opened), crop_fraction)
    view, images = read_view(image, preprocessing), load_image(image, opened, preprocessing)
    ((label, _),) = predict_images(opened, [image], 1, preprocessing=preprocessing)[0]
    analysis.draw_overlays(view, analysis.attention_panels(opened, images, label), output, f"{opened.name}: {label}")
    print_table(_blocks_table(analysis.redundancy(opened, images)))
    print(f"Taken for {label}. Wrote {output}")


def _blocks_table(redundancy):
    table = Table("block", "cosine of heads", "divergence (bits)", "entropy (bits)", "distance (pixels)", "CKA to block before")
    rows = redundancy.by_block()
    for i, name in enumerate(redundancy.blocks):
        table.add_row(name, *(_cell(rows[key][i], key) for key in ("cosine", "divergence", "entropy", "distance", "cka")))
    return table


def _cell(value, key):
    return "" if np.isnan(value) else f"{value:.1f}" if key == "distance" else f"{value:.3f}"


@app.command("cost")
def cost_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    size: Annotated[str | None, typer.Option(help="Of the image, as 384 or 384x512; by default that of the model.")] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Measure the time for one image, too.")] = False,
    picture: Annotated[pathlib.Path | None, typer.Option(help="A PNG of how the cost grows with the image.")] = None,
):
    """Count parameters, multiply-accumulates and memory, stage by stage."""
    check_picture(picture)
    opened = open_model(model)
    if size is None and None in opened.input_shape[1:]:
        raise ValueError(f"Expected --size for {model}, which takes images of any size")
    shape = None if size is None else (*_size(size), opened.input_shape[3])
    counted = analysis.cost(opened, shape)
    height, width, _ = counted.input_shape
    table = Table(
        "stage", "trainable", "frozen", "MACs, weights", "MACs, attention", "activations", "largest", title=counted.name
    )
    for stage in (*counted.stages, counted):
        if stage is counted:
            table.add_section()
        name = "whole" if stage is counted else stage.name
        macs = (f"{count / 1e6:,.2f} M" for count in (stage.weight_macs, stage.attention_macs))
        memory = (f"{count / 2**20:,.2f} MiB" for count in (stage.activation_bytes, stage.largest_bytes))
        table.add_row(name, f"{stage.trainable:,}", f"{stage.frozen:,}", *macs, *memory)
    print_table(table)
    macs = f"{counted.multiply_accumulates / 1e9:.3f} G multiply-accumulates"
    print(f"{counted.parameters:,} parameters; {macs} for an image of {height}x{width}")
    variant = variant_of(config_of(opened))
    if variant and VARIANTS[variant].authors_gmacs and size is None:
        print(_published(analysis.reconcile(variant)))
    if latency:
        timed = _resized(opened, counted.input_shape)
        print(f"{1000 * analysis.latency(timed, counted.input_shape):.1f} ms for one image, on this machine")
    if picture:
        analysis.draw_growth(SIZES, analysis.growth(config_of(opened), SIZES), picture)
        print(f"Wrote {picture}")


def _resized(model, shape):
    """A model like another for images of (H, W, C), with random weights: to the time it takes they do not matter."""
    if all(size in (None, wanted) for size, wanted in zip(model.input_shape[1:], shape, strict=True)):
        return model
    classes = head_units(model)
    top = {"include_top": False} if classes is None else {"classes": classes}
    dtype = model.get_layer(parts.TOKENS_TO_TOKEN).dtype_policy.name
    return T2TViT(config_of(model), input_shape=shape, dtype=dtype, **top)


def _published(row):
    openmmlab = f", OpenMMLab {row.openmmlab / 1e9:.2f} G" if row.openmmlab else ""
    return (
        f"Published: the authors {row.authors / 1e9:.1f} G{openmmlab}. Counted here: all products of a full pass "
        f"{row.products / 1e9:.3f} G; without those of attention but with norms {row.weights_and_norms / 1e9:.3f} G; "
        f"the last block for the class token only {row.class_token / 1e9:.3f} G."
    )


@app.command("compare")
def compare_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODEL_HELP)],
    image: Annotated[list[pathlib.Path], typer.Option(exists=True, help="An image, or a folder of them; may be repeated.")],
    output: Annotated[pathlib.Path, typer.Option(help="The picture, a PNG.")] = pathlib.Path("compare.png"),
):
    """Put models side by side: what they cost, and how much of it is redundant."""
    check_picture(output)
    if len(models) > len(PALETTE):
        raise ValueError(f"Expected at most {len(PALETTE)} models in one picture; received {len(models)}")
    paths = [file for path in image for file in (_files(path) if path.is_dir() else [path])]
    opened = [open_model(name) for name in models]
    results = []
    for name, model in zip(models, opened, strict=True):
        images = load_images(paths, model)  # of one model at a time
        (result,) = analysis.compare([model], images)
        results.append(dataclasses.replace(result, name=_label(name)))
    table = Table("", *(result.name for result in results), title=f"Averages over blocks and {len(paths)} images")
    summaries = [result.summary() for result in results]
    for key, title in SUMMARY.items():
        table.add_row(title, *(_figure(summary[key]) for summary in summaries))
    print_table(table)
    analysis.draw_comparison(results, output)
    print(f"Wrote {output}")


def _label(name):
    """What a model is called beside others: a variant and its weights, or a file and its folder."""
    variant, _, weights = name.partition(":")
    return f"{variant} ({weights or 'random'})" if variant in VARIANTS else "/".join(pathlib.Path(name).parts[-2:])


def _figure(value):
    return "" if np.isnan(value) else f"{value:,.0f}" if value > 1000 else f"{value:.3f}"


SUMMARY = {
    "parameters": "parameters",
    "multiply_accumulates": "multiply-accumulates",
    "cosine": "cosine between heads",
    "divergence": "Jensen-Shannon divergence between heads (bits)",
    "entropy": "entropy of attention (bits)",
    "distance": "attention distance (pixels)",
    "cka": "CKA between neighboring blocks",
}


def _size(text):
    numbers = [int(part) for part in text.split("x") if part.isdecimal()]
    if len(numbers) != text.count("x") + 1 or len(numbers) > 2:
        raise ValueError(f"Expected --size PIXELS or HEIGHTxWIDTH; received: {text!r}")
    return numbers * 2 if len(numbers) == 1 else numbers


def _files(folder):
    """The images of a folder and of those in it."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"Expected images in {folder}; there are none")
    return files
