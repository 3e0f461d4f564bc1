"""Loading a mapping: all entries must match, or nothing is loaded; positions are resized."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.layers import EncoderBlock, FastLayerNorm, PositionEmbedding
from keras_t2t.layers.position_embedding import resize_positions
from tests.conftest import SMALL_CONFIGS, mostly_slow, seeded_parameters

CONFIG = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
SIZE = (31, 31)


def build(size=SIZE, **kwargs):
    return keras_t2t.T2TViT(CONFIG, input_shape=(*size, 3), **{"classes": 7, **kwargs})


@pytest.fixture
def parameters():
    return seeded_parameters(CONFIG, SIZE, classes=7)


def test_all_mismatches_are_listed_and_nothing_is_loaded(parameters):
    model = build()
    before = model.get_weights()
    parameters["head.bias"] = parameters["head.bias"][:5]
    parameters["blocks.2.norm1.weight"] = parameters.pop("norm.weight")
    del parameters["cls_token"]
    with pytest.raises(ValueError, match=r"not fit the model 't2t_vit'\. No weights were loaded from a mapping") as error:
        keras_t2t.load_checkpoint(model, parameters)
    assert str(error.value).splitlines()[1:] == [
        "  missing: cls_token (1, 1, 18)",
        "  missing: norm.weight (18,)",
        "  unexpected: blocks.2.norm1.weight (18,)",
        "  wrong shape: head.bias expected (7,), received (5,)",
        "If the checkpoint has other classes, pass skip_head=True to load_checkpoint, or build the model with as many classes "
        "as the checkpoint has, load it, and call keras_t2t.replace_head.",
    ]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_of_another_variant_are_refused():
    other = keras_t2t.T2TConfig(**SMALL_CONFIGS["transformer"])
    with pytest.raises(ValueError, match=r"unexpected: tokens_to_token\.attention1\.attn\.qkv\.weight"):
        keras_t2t.load_checkpoint(build(), seeded_parameters(other, SIZE, classes=7))


def test_a_model_without_a_head_skips_only_the_head(parameters):
    model = build(include_top=False, pooling="token")
    keras_t2t.load_checkpoint(model, parameters)
    np.testing.assert_array_equal(model.get_layer("norm").gamma, parameters["norm.weight"])
    with pytest.raises(ValueError, match=r"unexpected: heads\.weight"):
        keras_t2t.load_checkpoint(model, {**parameters, "heads.weight": np.zeros(3)})


@pytest.mark.parametrize("size", [(54, 54), (43, 61)])
def test_positions_of_another_grid_are_resized(parameters, size):
    model = build(size)
    layer = model.get_layer("position_embedding")
    old = build().get_layer("position_embedding").grid_size
    keras_t2t.load_checkpoint(model, parameters)
    expected = resize_positions(parameters["pos_embed"][0], old, layer.grid_size)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.table.value), expected, atol=1e-6)
    assert layer.table.shape[0] != parameters["pos_embed"].shape[1]


def test_a_grid_that_is_not_square_must_be_given():
    parameters = seeded_parameters(CONFIG, (43, 61), classes=7)
    with pytest.raises(
        ValueError,
        match=r"wrong shape: pos_embed .* \(1, 55, 18\), whose grid is unknown; pass position_grid=\(rows, columns\)",
    ):
        keras_t2t.load_checkpoint(build(), parameters)
    model = build()
    before = [np.array(weight) for weight in model.weights]
    for invalid in [(-6, -9), (6.0, 9.0), (6, 9, 1), "ab", 14]:
        with pytest.raises(ValueError, match=r"position_grid: expected \(rows, columns\), .* received: position_grid="):
            keras_t2t.load_checkpoint(model, parameters, position_grid=invalid)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    grid = build((43, 61)).get_layer("position_embedding").grid_size
    keras_t2t.load_checkpoint(model, parameters, position_grid=grid)
    layer = model.get_layer("position_embedding")
    expected = resize_positions(parameters["pos_embed"][0], grid, layer.grid_size)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.table.value), expected, atol=1e-6)


def test_float16_checkpoints_load(parameters):
    model = build()
    keras_t2t.load_checkpoint(model, {name: value.astype("float16") for name, value in parameters.items()})
    np.testing.assert_array_equal(model.get_layer("norm").beta, parameters["norm.bias"].astype("float16"))


def test_saved_models_can_load_checkpoints(parameters, tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    keras_t2t.load_checkpoint(model, parameters)
    keras_t2t.load_checkpoint(loaded, parameters)
    x = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3))
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_other_models_and_sources_are_refused():
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        keras_t2t.load_checkpoint(plain, {})
    with pytest.raises(
        ValueError,
        match="Expected the path of a checkpoint or a mapping of checkpoint names to arrays; received: source of type list",
    ):
        keras_t2t.load_checkpoint(build(), [1, 2])


def test_an_ambiguous_grid_must_be_given(parameters):
    model = build((13, 103))  # a grid of 1x16
    with pytest.raises(ValueError, match=r"received \(1, 17, 18\), whose grid is unknown"):
        keras_t2t.load_checkpoint(model, parameters)
    keras_t2t.load_checkpoint(model, parameters, position_grid=(1, 16))
    np.testing.assert_array_equal(model.get_layer("position_embedding").table, parameters["pos_embed"][0])


def test_a_file_saved_from_the_same_model_needs_no_grid(parameters, tmp_path):
    model = build((13, 103))
    model.get_layer("position_embedding").table.assign(np.arange(17 * 18).reshape(17, 18))
    model.save_weights(tmp_path / "model.weights.h5")
    model.save(tmp_path / "model.keras")
    same = build((13, 103), weights=tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(same.get_layer("position_embedding").table, np.arange(17 * 18).reshape(17, 18))
    square = build()  # a grid of 4x4 has as many positions, but a .keras file stores its grid
    report = keras_t2t.load_checkpoint(square, tmp_path / "model.keras")
    assert report.resized == ("position_embedding/vars/0",)


@pytest.mark.parametrize("shape", [(1, 1, 18), (1, 0, 18), (1, 18, 18), (17, 18)])
def test_an_invalid_position_table_is_listed_with_other_mismatches(parameters, shape):
    del parameters["cls_token"]
    parameters["pos_embed"] = np.zeros(shape)
    parameters["head.bias"] = np.array([None] * 7)
    with pytest.raises(ValueError, match="No weights were loaded") as error:
        keras_t2t.load_checkpoint(build(), parameters)
    kinds = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert kinds == ["missing", "wrong shape", "not numeric"]


@pytest.mark.parametrize("scope", ["my_head", "block1", "norm"])
def test_name_scopes_do_not_matter(parameters, scope):
    with keras.name_scope(scope):
        model = build()
    keras_t2t.load_checkpoint(model, parameters)
    np.testing.assert_array_equal(model.get_layer("head").bias, parameters["head.bias"])
    np.testing.assert_array_equal(model.get_layer("norm").gamma, parameters["norm.weight"])


def test_a_model_with_a_stem_can_load_checkpoints(parameters):
    inputs = keras.Input((*SIZE, 1))
    stem = keras.Sequential([keras.Input((*SIZE, 1)), keras.layers.Conv2D(3, 1)], name="stem")
    model = keras_t2t.T2TViT(CONFIG, input_tensor=stem(inputs), classes=7)
    keras_t2t.load_checkpoint(model, parameters)
    np.testing.assert_array_equal(model.get_layer("head").bias, parameters["head.bias"])


def test_lora_does_not_change_what_is_loaded(parameters):
    """Its factors of earlier fine-tuning would be added to the kernels that were loaded."""
    model, plain = build(), build()
    for block in ("block0", "block1"):
        for dense in (model.get_layer(block).mlp.fc1, model.get_layer(block).attention.qkv):
            dense.enable_lora(2)
            dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    for each in (model, plain):
        keras_t2t.load_checkpoint(each, parameters)
    images = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3))
    np.testing.assert_allclose(model.predict(images, verbose=0), plain.predict(images, verbose=0), rtol=1e-5, atol=1e-7)


def test_heads_are_loaded_whatever_they_are_called(parameters):
    backbone = build(include_top=False, pooling="token")
    hidden = keras.layers.Dense(7, name="head")(backbone.output)
    for model in (
        keras.Model(backbone.input, keras.layers.Dense(7, name="mine")(backbone.output)),
        keras_t2t.replace_head(keras.Model(backbone.input, hidden), 7),
    ):
        keras_t2t.load_checkpoint(model, parameters)
        head = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
        np.testing.assert_array_equal(head.kernel, parameters["head.weight"].T)
    on_top = keras.Model(backbone.input, keras.layers.Dense(3, name="last")(hidden))
    with pytest.raises(ValueError, match=r"wrong shape: head\.weight expected \(3, 18\)"):
        keras_t2t.load_checkpoint(on_top, parameters)
    keras_t2t.load_checkpoint(on_top, parameters, skip_head=True)


def nested(inner):
    images = keras.Input((*SIZE, 3))
    return keras.Model(images, keras.layers.Dense(7, name="mine")(keras.layers.Rescaling(1.0, name="norm")(inner(images))))


def test_a_model_inside_another_one_is_loaded(parameters):
    model = nested(build(include_top=False, pooling="token"))
    report = keras_t2t.load_checkpoint(model, parameters)
    assert report.loaded == len(model.weights)
    x = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3))
    flat = build(classifier_activation=None)
    keras_t2t.load_checkpoint(flat, parameters)
    np.testing.assert_allclose(model.predict(x, verbose=0), flat.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_file_of_a_model_inside_another_one_says_what_to_save(suffix, tmp_path):
    path = tmp_path / f"nested{suffix}"
    model = nested(build(include_top=False, pooling="token", name="inner"))
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    message = "contains a model nested in another one. Save the inner model by itself"
    with pytest.raises(keras_t2t.CheckpointError, match=message):
        build(weights=path)


def test_models_with_two_backbones_are_refused(parameters):
    images = keras.Input((*SIZE, 3))
    first, second = build(name="first"), build(name="second")
    model = keras.Model(images, keras.layers.Average()([first(images), second(images)]), name="ensemble")
    message = "Expected a model with one TokensToToken layer; received: 'ensemble', which has 2. Pass one of the nested models"
    with pytest.raises(ValueError, match=message):
        keras_t2t.load_checkpoint(model, parameters)


def test_a_head_without_a_bias_is_refused_before_anything_is_loaded(parameters):
    features = build(include_top=False, pooling="token")
    model = keras.Model(features.input, keras.layers.Dense(5, use_bias=False)(features.output), name="without_bias")
    before = model.get_weights()
    classes = {name: value[:5] if name.startswith("head") else value for name, value in parameters.items()}
    with pytest.raises(
        keras_t2t.CheckpointError, match=r"no weights of the same shape for head/bias\. For another head, pass skip"
    ):
        keras_t2t.load_checkpoint(model, classes)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_layers_of_a_backbone_may_have_any_names(parameters):
    def clone(layer):
        name = f"my_{layer.name}" if isinstance(layer, (EncoderBlock, FastLayerNorm, PositionEmbedding)) else layer.name
        return layer.from_config({**layer.get_config(), "name": name})

    expected = build()
    keras_t2t.load_checkpoint(expected, parameters)
    renamed = keras.models.clone_model(build(), clone_function=clone)
    keras_t2t.load_checkpoint(renamed, parameters)
    for weight, other in zip(renamed.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.parametrize(
    "changes", [{"num_heads": 6}, {"norm_epsilon": 1e-3}, {"soft_splits": ((5, 3, 2), (3, 2, 1), (3, 1, 1))}]
)
@pytest.mark.parametrize("suffix", mostly_slow(["keras", "h5"], "h5"))
def test_a_keras_file_of_a_model_that_computes_something_else_is_refused(changes, suffix, tmp_path):
    """Its weights have the same shapes."""
    config = dataclasses.replace(keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"]), **changes)
    other = keras_t2t.T2TViT(config, input_shape=(*SIZE, 3), classes=7)
    other.save(tmp_path / f"other.{suffix}")
    name = next(iter(changes))
    with pytest.raises(
        keras_t2t.errors.CheckpointError, match=f"It was saved from a model with {name}=.*; this model has {name}="
    ):
        keras_t2t.load_checkpoint(build(), tmp_path / f"other.{suffix}")
    keras_t2t.load_checkpoint(other, tmp_path / f"other.{suffix}")


@pytest.mark.parametrize("file", mostly_slow(["own.keras", "own.h5", "own.weights.h5"], "own.keras"))
@pytest.mark.parametrize("kind", mostly_slow(["performer", "dense"], "dense"))
def test_files_with_a_head_of_your_own(file, kind, tmp_path):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[kind])

    def features():
        return keras_t2t.T2TViT(config, include_top=False, pooling="token", input_shape=(*SIZE, 3))

    def with_head(model):
        return keras.Model(model.input, keras.layers.Dense(3, name="mine")(model.output))

    saved, backbone, same = with_head(features()), features(), with_head(features())
    for weight in saved.weights:
        weight.assign_add(np.random.default_rng(3).normal(size=weight.shape))
    (saved.save_weights if file.endswith(".weights.h5") else saved.save)(tmp_path / file)
    assert len(keras_t2t.load_checkpoint(backbone, tmp_path / file).skipped) == 2
    assert keras_t2t.load_checkpoint(same, tmp_path / file).skipped == ()
    images = np.random.default_rng(4).uniform(0, 255, (2, *SIZE, 3))
    expected = saved.predict(images, verbose=0)
    np.testing.assert_allclose(same.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)
    kernel, bias = map(np.array, saved.get_layer("mine").weights)
    np.testing.assert_allclose(backbone.predict(images, verbose=0) @ kernel + bias, expected, rtol=1e-3, atol=1e-4)


def test_a_head_that_is_not_found_is_not_left_out(parameters):
    model = build()
    several = keras.Model(model.input, [model.output, model.get_layer("norm").output], name="several")
    before = several.get_weights()
    with pytest.raises(
        keras_t2t.CheckpointError,
        match=r"It has a head, but it is unknown whether 'head' is the head of the model\. Pass skip_head=True to",
    ):
        keras_t2t.load_checkpoint(several, parameters)
    for old, new in zip(before, several.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(keras_t2t.load_checkpoint(several, parameters, skip_head=True).skipped) == 2


def test_numpy_numbers_in_a_configuration(tmp_path):
    splits = tuple(tuple(map(np.int64, split)) for split in SMALL_CONFIGS["performer"]["soft_splits"])
    config = keras_t2t.T2TConfig(**{**SMALL_CONFIGS["performer"], "soft_splits": splits, "mlp_ratio": np.float32(2)})
    model = keras_t2t.T2TViT(config, input_shape=(*SIZE, 3), classes=7)
    model.save(tmp_path / "model.keras")
    assert keras_t2t.load_checkpoint(model, tmp_path / "model.keras").loaded
