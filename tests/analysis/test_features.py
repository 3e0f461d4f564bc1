import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.analysis import feature_maps, feature_pyramid
from keras_t2t.models import pyramid_levels
from tests.analysis import conftest
from tests.analysis.conftest import FAST_KINDS, SIZE
from tests.conftest import PYRAMID_CONFIGS, mostly_slow, relative_error, slow_on_tensorflow


def model_and_numpy(kind, **kwargs):
    return conftest.model_and_numpy(kind, configs=PYRAMID_CONFIGS, **kwargs)


@pytest.mark.parametrize("kind", mostly_slow(PYRAMID_CONFIGS, *FAST_KINDS))
def test_maps_match_numpy(kind, images):
    model, numpy_model = model_and_numpy(kind)
    *stages, final = pyramid_levels(numpy_model.config.soft_splits)
    maps = feature_maps(model, images, blocks=["block1"], batch_size=2)
    assert list(maps) == [*stages, final, "block1"]
    for i, image in enumerate(images):
        _, _, values_of_stages = numpy_model.tokens(image)
        for stage, expected in zip(stages, values_of_stages, strict=False):
            values = maps[stage][i]
            assert relative_error(values.reshape(-1, values.shape[-1]), expected) < 1e-5
        tokens, grid = numpy_model.encode(image)
        assert maps[final].shape[1:3] == grid
        assert relative_error(maps[final][i].reshape(-1, tokens.shape[-1]), tokens[1:]) < 1e-5


def final_of(maps):
    """Returns the map of the last level."""
    return next(values for name, values in reversed(maps.items()) if name.startswith("P"))


@pytest.mark.parametrize("kind", mostly_slow(["performer", "dense", "ghost", "squeeze_excite"], *FAST_KINDS))
def test_block_maps(kind, images):
    """The final norm turns the map of the last block into the final map."""
    model, _ = model_and_numpy(kind)
    last = [layer.name for layer in model.layers if layer.name.startswith("block")][-1]
    maps = feature_maps(model, images, blocks=[last, "block0"])
    assert maps["block0"].shape[:3] == maps[last].shape[:3]
    assert relative_error(keras.ops.convert_to_numpy(model.get_layer("norm")(maps[last])), final_of(maps)) < 1e-5


def test_strides_of_a_published_variant():
    pyramid = feature_pyramid(keras_t2t.T2TViT7(weights=None), blocks=["block2"], image_size=(64, 96))
    assert {name: (2, *values.shape[1:]) for name, values in pyramid.output.items()} == {
        "P2": (2, 16, 24, 64),
        "P3": (2, 8, 12, 64),
        "P4": (2, 4, 6, 256),
        "block2": (2, 4, 6, 256),
    }


@pytest.mark.parametrize("size", [(None, None), (31, 46), (None, 46)])
def test_higher_levels_are_maxima_of_the_one_below(size, images):
    model, _ = model_and_numpy("convolution")  # strides of 2, 4 and 8; the maps are 2x5, so their edges are cut off
    pyramid = feature_pyramid(model, levels=["P5", "P3", "P1"], image_size=size)
    assert list(pyramid.output) == ["P5", "P3", "P1"]
    maps = {name: keras.ops.convert_to_numpy(values) for name, values in pyramid(images).items()}
    assert maps["P1"].shape[1:3] == (16, 23)
    expected = maps["P3"]
    for _ in range(2):
        below = expected
        rows, columns = (-(-side // 2) for side in below.shape[1:3])
        expected = np.array(
            [[below[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for j in range(columns)] for i in range(rows)]
        ).transpose(2, 0, 1, 3)
    np.testing.assert_array_equal(maps["P5"], expected)


def test_levels_that_a_model_does_not_have_are_named():
    plain = keras_t2t.ViTSmall16(weights=None, input_shape=(32, 32, 3), classes=2)
    assert list(feature_pyramid(plain, levels=["P4", "P6"]).output) == ["P4", "P6"]
    with pytest.raises(
        ValueError,
        match=r"vit_small_16 has no level P2, P3\. Its feature maps are P4; the levels from P5 on are made by max pooling",
    ):
        feature_pyramid(plain, levels=["P2", "P3", "P4"])
    for level in ("P05", "p5", "5", "stage1"):
        with pytest.raises(ValueError, match=f"has no level {level}"):
            feature_pyramid(plain, levels=[level])
    config = keras_t2t.T2TConfig(soft_splits=((7, 3, 2), (3, 2, 1)), embed_dim=18, depth=1, num_heads=3)
    with pytest.raises(ValueError, match=r"strides that are powers of two.*received: the strides \[3, 6\]"):
        feature_pyramid(keras_t2t.T2TViT(config, input_shape=(32, 32, 3)))


@slow_on_tensorflow
def test_saving_and_training_do_not_change_the_model(tmp_path, images):
    model, _ = model_and_numpy("performer")
    before = model.predict(images, verbose=0)
    pyramid = feature_pyramid(model)
    pyramid.save(tmp_path / "pyramid.keras")
    loaded = keras.models.load_model(tmp_path / "pyramid.keras")
    expected = feature_maps(model, images, blocks=())
    for name, values in loaded.predict(images, verbose=0).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)
    regressor = keras.Model(pyramid.input, keras.layers.GlobalAveragePooling2D()(final_of(pyramid.output)))
    regressor.compile("sgd", "mse")
    kernel = pyramid.get_layer("tokens_to_token").weights[2]
    old = kernel.numpy()
    regressor.fit(images, np.ones((3, 18)), verbose=0)
    assert np.abs(kernel.numpy() - old).max() > 0
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


def test_keeps_normalization_and_dtype():
    config = keras_t2t.config_of(model_and_numpy("transformer")[0])
    model = keras_t2t.T2TViT(config, include_top=False, input_shape=(*SIZE, 3), dtype="mixed_float16")
    images = np.random.default_rng(0).uniform(0, 255, (1, *SIZE, 3))
    pyramid = feature_pyramid(model)
    assert pyramid.output["P2"].dtype == "float16"
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(final_of(pyramid(images))), keras.ops.convert_to_numpy(model(images)), atol=2e-2
    )


def test_invalid_arguments_raise(images):
    with pytest.raises(
        ValueError, match=r"Expected a subset of the blocks \['block0', 'block1'\]; received: blocks=\['block7'\]"
    ):
        feature_pyramid(model_and_numpy("patches")[0], ["block7"])
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        feature_pyramid(keras.Sequential([keras.Input((31, 46, 3)), keras.layers.Flatten()]))


def test_stages_with_the_same_stride_are_refused():
    with pytest.raises(ValueError, match=r"Expected stages with different strides, .*; received: \[2, 2, 4\]"):
        pyramid_levels([(3, 2, 1), (3, 1, 1), (3, 2, 1)])


def test_lora_and_layers_that_are_adapted(images):
    """The pyramid computes what the model computes."""
    model, _ = model_and_numpy("performer")
    normalization = keras.layers.Normalization()
    normalization.adapt(images)
    whole = keras.Model(model.input, model(normalization(model.input)))
    model.get_layer("block0").attention.qkv.enable_lora(2)
    lora = model.get_layer("block0").attention.qkv
    lora.lora_kernel_b.assign(np.ones(lora.lora_kernel_b.shape))
    merged, _ = model_and_numpy("performer")
    merged.get_layer("block0").attention.qkv.kernel.assign(lora.kernel)
    expected = feature_maps(merged, (images - images.mean((0, 1, 2))) / images.std((0, 1, 2)))
    for name, values in feature_pyramid(whole, image_size=SIZE).predict(images, verbose=0).items():
        assert relative_error(values, expected[name]) < 1e-5
