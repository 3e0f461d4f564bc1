import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.analysis import attention_maps, attention_rollout
from keras_t2t.analysis.attention import rollout, stage_weights
from keras_t2t.analysis.tracing import run_with_attention
from keras_t2t.models.graph import tokens_to_token_of
from tests.analysis.conftest import model_and_numpy, random_attention
from tests.conftest import SMALL_CONFIGS, relative_error


def test_maps_match_numpy(pair, images):
    model, numpy_model, kind = pair
    maps = attention_maps(model, images, points="all", batch_size=2)
    stages = [] if kind in ("convolution", "patches") else [f"stage{i}" for i in range(1, len(numpy_model.config.soft_splits))]
    blocks = len(numpy_model.config.block_widths)
    assert list(maps) == stages + [f"block{i}" for i in range(blocks)]
    for i, image in enumerate(images):
        numpy_model.logits(image)
        for values, expected in zip(maps.values(), numpy_model.weights.values(), strict=True):
            assert relative_error(values[i], expected.reshape(values.shape[1:])) < 1e-5
            np.testing.assert_allclose(values[i].sum(-1), 1, rtol=1e-5)


def test_encoder_output_matches_the_model(pair, images):
    model, _, _ = pair
    before = model.predict(images, verbose=0)
    assert relative_error(run_with_attention(model, keras.ops.convert_to_tensor(images)), before) < 1e-5
    logits = run_with_attention(model, keras.ops.convert_to_tensor(images), logits=True)
    assert relative_error(keras.ops.softmax(logits), before) < 1e-5
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)  # the model is not modified


@pytest.mark.parametrize("points", [(10, 20), [], "center", [(31, 0)], [(-1, 5)], [(1, 2, 3)], [("a", "b")]])
def test_invalid_points_raise(points, images):
    with pytest.raises(
        ValueError, match=r"Expected points='all' or \(row, column\) pairs inside the 31x46 image; received: points="
    ):
        attention_maps(model_and_numpy("performer")[0], images, "stage1", points)


@pytest.mark.parametrize("kind", ["performer", "transformer"])
def test_points_select_rows(kind, images):
    model, _ = model_and_numpy(kind)
    full = attention_maps(model, images, points="all")
    selected = attention_maps(model, images, ["stage1"], points=[(0, 0), (30, 45), (12, 12)])
    assert list(selected) == ["stage1"]
    rows, columns = (11, 16) if kind == "performer" else (10, 15)
    assert full["stage1"].shape == (3, 1, rows * columns, rows * columns)
    nearest = [0, rows * columns - 1, 4 * columns + 4]  # the centers are 3 i and 3 i + 0.5
    np.testing.assert_allclose(selected["stage1"], full["stage1"][:, :, nearest], rtol=1e-5, atol=1e-7)
    center = attention_maps(model, images, ["stage1", "block1"])
    assert center["stage1"].shape == (3, 1, 1, rows * columns)
    np.testing.assert_allclose(center["block1"], full["block1"], rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="inspects a TensorFlow graph")
@pytest.mark.parametrize(("points", "quadratic"), [(None, False), ("all", True)])
def test_performer_maps_are_quadratic_only_on_request(points, quadratic):
    import tensorflow as tf

    module = tokens_to_token_of(model_and_numpy("performer")[0])
    function = tf.function(lambda pixels: list(stage_weights(module, pixels, points)))
    graph = function.get_concrete_function(tf.TensorSpec((2, 31, 46, 3))).graph
    shapes = [tensor.shape for operation in graph.get_operations() for tensor in operation.outputs]
    assert any(tuple(shape[-2:]) == (176, 176) for shape in shapes if shape.rank) == quadratic


def test_loaded_models_new_heads_and_any_image_size(tmp_path, images):
    model, _ = model_and_numpy("squeeze_excite")
    expected = attention_maps(model, images)
    model.save(tmp_path / "model.keras")
    for derived in (
        keras.models.load_model(tmp_path / "model.keras"),
        keras_t2t.replace_head(model, 2),
        model_and_numpy("squeeze_excite", include_top=False)[0],
    ):
        for name, values in attention_maps(derived, images).items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-7)
    any_size = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["dense"]), include_top=False)
    assert attention_maps(any_size, np.zeros((1, 46, 61, 3)))["block5"].shape == (1, 2, 1 + 6 * 9, 1 + 6 * 9)


def test_rows_sum_to_1_in_mixed_precision(images):
    model, _ = model_and_numpy("performer", dtype="mixed_float16")
    for name, values in attention_maps(model, images).items():
        assert values.dtype == "float32"
        np.testing.assert_allclose(values.sum(-1), 1, rtol=1e-5 if name.startswith("stage") else 5e-3)


def test_rollout_of_uniform_attention():
    blocks, tokens = 3, 7
    uniform = [np.full((2, 4, tokens, tokens), 1 / tokens)] * blocks
    expected = np.eye(tokens) / 2**blocks + (1 - 1 / 2**blocks) / tokens
    np.testing.assert_allclose(rollout(uniform), [expected] * 2)


def test_rollout_multiplies_later_blocks_from_the_left():
    weights = [random_attention((1, 3, 5, 5), seed) for seed in range(3)]
    steps = [(block[0].mean(0) + np.eye(5)) / 2 for block in weights]
    np.testing.assert_allclose(rollout(weights)[0], steps[2] @ steps[1] @ steps[0])


def test_attention_rollout_of_a_model(pair, images):
    model, _, _ = pair
    maps = attention_maps(model, images)
    result = attention_rollout(model, images, batch_size=2)
    np.testing.assert_allclose(result, rollout(maps[name] for name in maps if name.startswith("block")), rtol=1e-4)
    np.testing.assert_allclose(result.sum(-1), 1, rtol=1e-5)


def test_invalid_arguments_raise(images):
    model, _ = model_and_numpy("performer")
    with pytest.raises(
        ValueError, match=r"one or more of the layers \['stage1', 'stage2', 'block0', 'block1'\]; .*\['block2'\]"
    ):
        attention_maps(model, images, ["block2"])
    with pytest.raises(ValueError, match=r"Expected images of shape \(None, 31, 46, 3\) for performer.* \(3, 46, 31, 3\)"):
        attention_maps(model, images.transpose(0, 2, 1, 3))
    with pytest.raises(ValueError, match="Expected images of shape"):
        attention_rollout(model, images[0])
    with pytest.raises(
        ValueError, match="Expected at least one image and a positive batch_size; received: 0 images, batch_size=8"
    ):
        attention_rollout(model, images[:0])
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        attention_maps(keras.Sequential([keras.Input((31, 46, 3)), keras.layers.Flatten()]), images)
