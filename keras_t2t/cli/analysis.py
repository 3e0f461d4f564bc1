"""Commands that analyze models: attention, cost and comparison."""

import dataclasses
import math
import pathlib
from typing import Annotated

import typer
from rich.table import Table

from keras_t2t.cli.app import LOOK_INSIDE, CropOption, check_picture, command, existing_path, print_table
from keras_t2t.cli.libraries import load_libraries
from keras_t2t.cli.models import Model, Models, check_kind, open_model
from keras_t2t.cli.predict import image_files, with_crop_fraction
from keras_t2t.errors import with_unit
from keras_t2t.figures import PALETTE
from keras_t2t.variants import VARIANTS, find_variant, variant_of

SIZES = (112, 160, 224, 320, 448, 640, 1024)
"""Image heights in pixels for plots of cost versus image size."""


@command("attention", LOOK_INSIDE)
def attention_command(
    model: Model,
    image: Annotated[pathlib.Path, typer.Argument(callback=existing_path, help="Image file.")],
    output: Annotated[pathlib.Path, typer.Option(help="PNG file to write.")] = pathlib.Path("attention.png"),
    crop_fraction: CropOption = None,
) -> None:
    """Draw attention maps and class evidence for an image.

    Example: keras-t2t attention t2t_vit_tiny_32:cifar10 photo.jpg
    """
    check_kind(model, trained=True, exported=False)
    check_picture(output)
    load_libraries()
    from keras_t2t import analysis
    from keras_t2t.data import load_image, read_view
    from keras_t2t.inference import predict_images
    from keras_t2t.models import preprocessing_of

    opened = open_model(model)
    preprocessing = with_crop_fraction(preprocessing_of(opened), crop_fraction)
    view, images = read_view(image, preprocessing), load_image(image, opened, preprocessing)
    ((label, probability),) = predict_images(opened, [image], 1, preprocessing=preprocessing)[0]
    panels = analysis.attention_panels(opened, images, label)
    analysis.draw_overlays(view, panels, output, f"{opened.name}: {label}, probability {probability:.2f}")
    print_table(_redundancy_table(analysis.redundancy(opened, images)))
    print(f"Top class: {label}, probability {probability:.4f}. Wrote {output}")


def _redundancy_table(redundancy):
    table = Table("block", "head cosine", "head divergence (bits)", "entropy (bits)", "distance (pixels)", "CKA to previous")
    values = redundancy.by_block()
    for i, name in enumerate(redundancy.blocks):
        table.add_row(name, *(_cell(values[key][i], key) for key in ("cosine", "divergence", "entropy", "distance", "cka")))
    return table


def _cell(value, key):
    return "" if math.isnan(value) else f"{value:.1f}" if key == "distance" else f"{value:.3f}"


@command("cost", LOOK_INSIDE)
def cost_command(
    model: Model,
    size: Annotated[
        str | None,
        typer.Option(help="Image size in pixels, such as 384 or 384x512 (height x width). Defaults to the model's image size."),
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Also measure the inference time for one image.")] = False,
    picture: Annotated[pathlib.Path | None, typer.Option(help="PNG file for a plot of cost versus image size.")] = None,
) -> None:
    """Count parameters, multiply-accumulates and memory, stage by stage.

    Example: keras-t2t cost t2t_vit_14 --size 384 --latency
    """
    check_kind(model, exported=False)
    given_size = None if size is None else _parse_size(size)
    check_picture(picture)
    load_libraries()
    from keras_t2t import analysis
    from keras_t2t.models import config_of

    opened = open_model(model)
    config = config_of(opened)
    if size is None and None in opened.input_shape[1:]:
        raise ValueError(f"Expected --size, because {model} takes images of any size")
    shape = None if given_size is None else (*given_size, opened.input_shape[3])
    result = analysis.cost(opened, shape)
    height, width, _ = result.input_shape
    print_table(_cost_table(result))
    macs = f"{result.multiply_accumulates / 1e9:.3f} G multiply-accumulates"
    print(f"{with_unit(result.parameters)} parameters; {macs} for a {height}x{width} image")
    variant = variant_of(config)
    if variant and find_variant(variant).authors_gmacs and result.input_shape == (224, 224, 3):
        print(_published(analysis.reconcile(variant)))
    if latency:
        milliseconds = 1000 * analysis.latency(_resized(opened, result.input_shape), result.input_shape)
        print(f"{milliseconds:.1f} ms per image on this machine")
    if picture:
        analysis.draw_growth(SIZES, analysis.growth(config, SIZES), picture)
        print(f"Wrote {picture}")


def _cost_table(result):
    table = Table("stage", "trainable", "frozen", "weight MACs", "attention MACs", "activations", "largest", title=result.name)
    for stage in (*result.stages, result):
        is_total = stage is result
        if is_total:
            table.add_section()
        macs = (with_unit(count) for count in (stage.weight_macs, stage.attention_macs))
        memory = (f"{count / 2**20:,.2f} MiB" for count in (stage.activation_bytes, stage.largest_bytes))
        table.add_row("total" if is_total else stage.name, with_unit(stage.trainable), with_unit(stage.frozen), *macs, *memory)
    return table


def _resized(model, shape):
    """Returns a model with the same layers for images `(H, W, C)`. Its random weights do not affect timing."""
    from keras_t2t.applications import T2TViT
    from keras_t2t.layers import PositionEmbedding
    from keras_t2t.models import config_of
    from keras_t2t.models.graph import layers_of, tokens_to_token_of
    from keras_t2t.models.parts import head_of

    def parameters(model):
        return sum(layer.count_params() for layer in layers_of(model) if not isinstance(layer, PositionEmbedding))

    if all(size in (None, expected) for size, expected in zip(model.input_shape[1:], shape, strict=True)):
        return model
    head = head_of(model)
    top = {"include_top": False} if head is None else {"classes": head.units}
    dtype = tokens_to_token_of(model).dtype_policy.name
    resized = T2TViT(config_of(model), input_shape=shape, dtype=dtype, **top)
    if parameters(resized) != parameters(model):
        raise ValueError("Cannot measure --latency at another --size: this model has layers that the constructors do not build")
    return resized


def _published(counts):
    openmmlab = f", OpenMMLab {counts.openmmlab / 1e9:.2f} G" if counts.openmmlab else ""
    return (
        f"Published: authors {counts.authors / 1e9:.1f} G{openmmlab}. Counted here: all matrix products "
        f"{counts.products / 1e9:.3f} G; with norms, but without attention products {counts.weights_and_norms / 1e9:.3f} G; "
        f"with only the class token in the last block {counts.class_token / 1e9:.3f} G."
    )


@command("compare", LOOK_INSIDE)
def compare_command(
    models: Models,
    image: Annotated[
        list[pathlib.Path], typer.Option(callback=existing_path, help="Image file or folder of images. May be repeated.")
    ],
    output: Annotated[pathlib.Path, typer.Option(help="PNG file to write.")] = pathlib.Path("compare.png"),
) -> None:
    """Compare the cost and redundancy of several models.

    Example: keras-t2t compare t2t_vit_14:imagenet runs/flowers --image photos
    """
    for name in models:
        check_kind(name, exported=False)
    if len(models) > len(PALETTE):
        raise ValueError(f"Expected at most {len(PALETTE)} models; received: {len(models)}")
    check_picture(output)
    load_libraries()
    from keras_t2t import analysis
    from keras_t2t.analysis.head_redundancy import TITLES
    from keras_t2t.data import load_images

    paths = image_files(image)
    opened = [open_model(name) for name in models]
    results = []
    for name, model in zip(models, opened, strict=True):
        images = load_images(paths, model)  # inside the loop, so that only one model's images are in memory
        (result,) = analysis.compare([model], images)
        results.append(dataclasses.replace(result, name=_label(name)))
    title = f"Averages over blocks and images; number of images: {len(paths)}"
    table = Table("", *(result.name for result in results), title=title)
    summaries = [result.summary() for result in results]
    for key in summaries[0]:
        table.add_row(TITLES.get(key, key.replace("_", "-")), *(_format(summary[key]) for summary in summaries))
    print_table(table)
    analysis.draw_comparison(results, output)
    print(f"Wrote {output}")


def _label(name):
    """Returns a short label for a model: a variant and its weights, or a file and its folder."""
    variant, _, weights = name.partition(":")
    return f"{variant} ({weights or 'random'})" if variant in VARIANTS else "/".join(pathlib.Path(name).parts[-2:])


def _format(value):
    return "" if math.isnan(value) else with_unit(round(value)) if value > 1000 else f"{value:.3f}"


def _parse_size(text):
    numbers = [int(part) for part in text.split("x") if part.isdecimal()]
    if len(numbers) != text.count("x") + 1 or len(numbers) > 2:
        raise ValueError(f"Expected --size PIXELS or HEIGHTxWIDTH; received: {text!r}")
    return numbers * 2 if len(numbers) == 1 else numbers
