"""Builds the model that a recipe describes, with its head, its optimizer, and its loss."""

import dataclasses
import os
from collections.abc import Sequence

import keras

from keras_t2t.applications import T2TViT
from keras_t2t.layers import ClassToken, EncoderBlock, FastLayerNorm, PositionEmbedding
from keras_t2t.models import replace_head
from keras_t2t.models.graph import layers_of
from keras_t2t.models.parts import head_of
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.recipes import Recipe
from keras_t2t.studies.references import REFERENCES, reference_backbone
from keras_t2t.training.optimizers import make_optimizer, make_schedule
from keras_t2t.variants import find_variant
from keras_t2t.weights.initial import InitialWeights


def build_model(
    recipe: Recipe,
    classes: Sequence[str],
    activation: str | None = None,
    weights: str | os.PathLike | None = None,
    training: bool = True,
    preprocessing: Preprocessing | None = None,
) -> keras.Model:
    """Returns the classifier of a recipe, with a new head.

    Args:
        recipe: Recipe with the variant, the image size, and the dropout rates.
        classes: Names of the classes.
        activation: Activation of the head.
        weights: Initial weights of the backbone. See `keras_t2t.T2TViT`.
        training: Whether to use the dropout rates and the dtype of the recipe. An inference model needs neither.
        preprocessing: How images are prepared. Defaults to `evaluation_preprocessing(recipe, weights)`.

    Raises:
        ValueError: If there are initial weights for a convolutional network, which has none.
    """
    preprocessing, dtype = preprocessing or evaluation_preprocessing(recipe, weights), recipe.dtype if training else None
    if recipe.model in REFERENCES:
        if weights is not None:
            raise ValueError(f"{recipe.model} starts with random weights. Expected weights=None; received: weights={weights!r}")
        return replace_head(reference_backbone(recipe.model, preprocessing, dtype), list(classes), activation)
    names = ("token_drop_rate", "drop_rate", "drop_path_rate") if training else ()
    rates = {name: getattr(recipe, name) for name in names}
    backbone = T2TViT(
        dataclasses.replace(find_variant(recipe.model).config, **rates),
        include_top=False,
        weights=weights,
        input_shape=(recipe.image_size, recipe.image_size, 3),
        pooling="token",
        name=recipe.model,
        preprocessing=preprocessing,
        dtype=dtype,
    )
    return replace_head(backbone, list(classes), activation)


def evaluation_preprocessing(recipe: Recipe, weights: str | os.PathLike | None = None) -> Preprocessing:
    """Returns how images are prepared for a trained model. The mean and std are those of `weights` if the recipe has none."""
    initial = Preprocessing()
    if recipe.model not in REFERENCES:
        initial = InitialWeights(find_variant(recipe.model).config, weights).preprocessing
    return Preprocessing(
        image_size=(recipe.image_size, recipe.image_size),
        crop_fraction=recipe.eval_crop_fraction,
        interpolation=recipe.eval_interpolation,
        mean=recipe.mean or initial.mean,
        std=recipe.std or initial.std,
    )


def freeze(recipe: Recipe, model: keras.Model) -> None:
    """Freezes the layers that a recipe does not train."""
    head = head_of(model)
    embeddings = (ClassToken, PositionEmbedding, FastLayerNorm) if recipe.freeze_embeddings else ()
    for layer in layers_of(model):
        if (recipe.freeze_backbone and layer is not head) or isinstance(layer, embeddings):
            layer.trainable = False


def compiled_model(recipe: Recipe, classes: Sequence[str], steps: int, weights: str | os.PathLike | None = None) -> keras.Model:
    """Returns the classifier of a recipe, compiled with its optimizer and ready to train.

    Args:
        recipe: Recipe to train with.
        classes: Names of the classes.
        steps: Number of steps in an epoch.
        weights: Initial weights of the backbone. See `keras_t2t.T2TViT`.
    """
    model = build_model(recipe, classes, weights=weights)
    freeze(recipe, model)
    for layer in layers_of(model):
        if isinstance(layer, EncoderBlock):
            layer.rematerialize = recipe.rematerialize
    metrics = [keras.metrics.CategoricalAccuracy("accuracy")]
    if len(classes) > 5:
        metrics.append(keras.metrics.TopKCategoricalAccuracy(5, "top5"))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer = make_optimizer(recipe, model, make_schedule(recipe, steps))
    if recipe.dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    jit_compile = recipe.jit_compile or keras.backend.backend() == "jax"  # without it, JAX runs operation by operation
    model.compile(optimizer, loss, weighted_metrics=metrics, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model
