"""Commands for weights and predictions."""

import math
import pathlib
import sys
from typing import Annotated

import keras
import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from keras_t2t.applications import T2TViT
from keras_t2t.cli.app import CropOption, app, print_table
from keras_t2t.configs import VARIANTS, image_size_of, token_grid, variant_config, variant_of
from keras_t2t.data import default_crop, evaluation_image
from keras_t2t.deploy import open_exported
from keras_t2t.deploy.graph import as_probabilities
from keras_t2t.imagenet import preprocess_input
from keras_t2t.labels import dataset_labels
from keras_t2t.layers import Predictions
from keras_t2t.models import labels_of
from keras_t2t.weights import load_checkpoint
from keras_t2t.weights.infer import infer_architecture
from keras_t2t.weights.name_map import name_map
from keras_t2t.weights.pretrained import cache_folder, converted_path
from keras_t2t.weights.read import read_checkpoint
from keras_t2t.weights.registry import SHIPPED, SOURCES, sources_of

VariantOption = Annotated[str | None, typer.Option(help="The model, such as t2t_vit_14; by default what the weights fit.")]
HeadsOption = Annotated[
    int | None, typer.Option(min=1, help="Attention heads of a model that is no variant; by default one for 64 channels.")
]


@app.command()
def convert(
    file: Annotated[
        pathlib.Path, typer.Argument(exists=True, help="A checkpoint: of PyTorch, .safetensors, .npz, .weights.h5 or .keras.")
    ],
    out: Annotated[pathlib.Path, typer.Argument(help="A .keras file (the whole model) or a .weights.h5 file.")],
    variant: VariantOption = None,
    num_heads: HeadsOption = None,
):
    """Convert a checkpoint of T2T-ViT to Keras."""
    if not out.name.endswith((".keras", ".weights.h5")):
        raise ValueError(f"Expected an output that ends in .keras or .weights.h5; received: {out}")
    model, report = open_file(file, variant, num_heads)
    (model.save if out.suffix == ".keras" else model.save_weights)(out)
    print(f"Loaded {report}\nWrote {out}: {_description(model)}")


def open_file(file, variant=None, num_heads=None):
    """The model of a checkpoint, and what was loaded."""
    if file.suffix == ".keras":
        if variant or num_heads:
            raise ValueError(f"{file} says itself which model it is; leave out --variant and --num-heads")
        return keras.saving.load_model(file, compile=False), f"the model in {file}"
    config = None if variant is None else variant_config(variant)
    fit = infer_architecture(read_checkpoint(file).arrays, config, num_heads)
    head = {"include_top": False, "pooling": "token"} if fit.classes is None else {"classes": fit.classes}
    name = variant_of(fit.config) or "t2t_vit"
    if not variant and not num_heads:
        heads = f"{fit.config.num_heads} attention heads, which shapes do not tell"
        print(f"Taken for {name} with {heads}: set --variant or --num-heads if it has others.", file=sys.stderr)
    model = T2TViT(fit.config, input_shape=(*fit.image_size, 3), name=name, **head)
    return model, load_checkpoint(model, file)


def _description(model):
    _, height, width, _ = model.input_shape
    return f"{model.name}, {model.count_params():,} parameters, images of {height}x{width}, outputs {model.output_shape[1:]}"


@app.command()
def info(variant: Annotated[str | None, typer.Argument(help="One variant, for all that is known of it.")] = None):
    """List the variants, their published weights, and what is in the cache."""
    if variant is not None:
        _print_variant(variant, variant_config(variant))
        return
    table = Table("variant", "parameters", "weights (top-1 %)", "on this machine", title="Models")
    for name in VARIANTS:
        sources = sources_of(name).values()
        published = ", ".join(f"{source.name} {source.top1:.2f}" for source in sources)
        cached = ", ".join(source.name for source in sources if _cached(source))
        table.add_row(name, f"{_parameters(name):,}", published or "none", cached)
    print_table(table)
    print(
        "Accuracies were published by others and not measured again here; that of t2t_vit_tiny_32 is ours.\n"
        f"Cache: {cache_folder()}"
    )


def _cached(source):
    """Where weights are on this machine, None if they are not."""
    paths = (source.path,) if source.path else (converted_path(source), cache_folder() / source.file)
    return next((path for path in paths if path.exists()), None)


def _print_variant(name, config):
    print(f"{name}: {_parameters(name):,} parameters\n{config}")
    for source in sources_of(name).values():
        table = Table(show_header=False, title=f'weights="{source.name}"', title_justify="left")
        table.add_row("file", source.file if source.path else source.url)
        table.add_row(
            "accuracy" if source.path else "published accuracy",
            f"top-1 {source.top1}%" + (f", top-5 {source.top5}%" if source.top5 else ""),
        )
        table.add_row("data", f"{source.dataset}, {source.classes} classes")
        table.add_row("images", f"{source.image_size}x{source.image_size}, {source.interpolation}, crop {source.crop}")
        if not source.path:
            table.add_row("held to", source.verified_by)
        table.add_row("licence", source.licence)
        table.add_row("on this machine", str(_cached(source) or "no"))
        print_table(table)


def _parameters(variant):
    config = VARIANTS[variant]
    positions = 1 + math.prod(token_grid(config.soft_splits, *[image_size_of(variant)] * 2))
    return sum(math.prod(row.shape) for row in name_map(config, positions))


@app.command()
def predict(
    image: Annotated[pathlib.Path, typer.Argument(exists=True, help="A JPEG, PNG, BMP, GIF or WebP file.")],
    weights: Annotated[
        str, typer.Option(help="The name of published weights, a .keras file, any checkpoint, or what export wrote.")
    ] = "imagenet",
    variant: VariantOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 5,
    crop: CropOption = None,
):
    """Print the likeliest classes of an image."""
    if is_exported(weights):
        name, labels, scores = _exported_scores(image, weights, variant, crop)
    else:
        model, source = open_classifier(weights, variant)
        size = model.input_shape[1:3]
        crop = crop or (source.crop if source else default_crop(size))
        name, labels, scores = model.name, labels_of(model), _scores(model, evaluation_image(image, size, crop))
    labels = class_labels(labels, len(scores))
    print(f"{image.name}, as {name} sees it:")
    table = Table("class", "probability")
    for index in np.argsort(-scores, kind="stable")[:top]:
        table.add_row(Text(str(labels[index])), f"{scores[index]:.4f}")
    print_table(table)


def model_of(weights, variant):
    """The model of a file or of published weights, and its published source if it has one."""
    if pathlib.Path(weights).is_file():
        return open_file(pathlib.Path(weights), variant)[0], None
    source = _published(weights, variant)
    return T2TViT(source.variant, weights=weights, name=source.variant), source


def open_classifier(weights, variant):
    """The model to predict with, and its published source if it has one."""
    model, source = model_of(weights, variant)
    if not any(isinstance(layer, Predictions) for layer in model.layers):
        raise ValueError(f"Expected a classifier; {weights} has no head")
    return model, source


def class_labels(names, classes):
    """What to call the classes of a model: their names if there are any, or their numbers."""
    return names or (dataset_labels("imagenet") if classes == 1000 else range(classes))


def _published(weights, variant):
    """The published weights of a name, of T2T-ViT-14 where nothing else is said."""
    found = [source for source in SOURCES + SHIPPED if source.name == weights and variant in (None, source.variant)]
    if not found:
        names = dict.fromkeys(source.name for source in SOURCES + SHIPPED if variant in (None, source.variant))
        raise ValueError(
            f"Expected a file, or published weights of {variant or 'any variant'} ({', '.join(names) or 'there are none'}); "
            f"received: {weights!r}"
        )
    return next((source for source in found if source.variant == "t2t_vit_14"), found[0])


def _scores(model, pixels):
    """Probabilities of the classes of one image, (classes,)."""
    if not any(layer.name == "normalisation" for layer in model.layers):
        pixels = preprocess_input(pixels.astype("float32"))
    scores = model(pixels[None], training=False)[0]
    if model.get_layer("predictions").activation is keras.activations.linear:
        scores = keras.ops.softmax(scores)
    return keras.ops.convert_to_numpy(scores)


def is_exported(path):
    """Whether a path is that of what `export` writes. A folder may have the name of published weights, and be of images."""
    return pathlib.Path(path).suffix.lower() in (".tflite", ".onnx") or (pathlib.Path(path) / "saved_model.pb").is_file()


def _exported_scores(image, path, variant, crop):
    """Name, labels if it has any, and probabilities of the classes (classes,), of an exported model."""
    if variant:
        raise ValueError(f"{path} says itself which model it is; leave out --variant")
    runtime = open_exported(path)
    _, *size, channels = runtime.input_shape
    if runtime.output != "scores" or channels != 3:
        raise ValueError(f"Expected a classifier of RGB images; {path} gives {runtime.output} of {channels} channels")
    pixels = evaluation_image(image, size, crop or default_crop(size)).astype(runtime.input_dtype)
    scores = runtime.run(pixels[None] if runtime.normalises else preprocess_input(pixels[None]))
    return pathlib.Path(path).name, runtime.labels, as_probabilities(scores)[0]
