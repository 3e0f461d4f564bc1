import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.analysis import feature_maps, feature_pyramid
from tests.analysis.conftest import SIZE, model_and_numpy
from tests.conftest import relative_error


def test_maps_match_numpy(pair, images):
    model, numpy_model, _ = pair
    count = len(numpy_model.config.soft_splits) - 1
    maps = feature_maps(model, images, blocks=["block1"], batch_size=2)
    assert set(maps) == {"final", "block1", *(f"stage{i + 1}" for i in range(count))}
    for i, image in enumerate(images):
        _, _, stages = numpy_model.tokens(image)
        for index, stage in enumerate(stages, 1):
            values = maps[f"stage{index}"][i]
            assert relative_error(values.reshape(-1, values.shape[-1]), stage) < 1e-5
        tokens, grid = numpy_model.encode(image)
        assert maps["final"].shape[1:3] == grid
        assert relative_error(maps["final"][i].reshape(-1, tokens.shape[-1]), tokens[1:]) < 1e-5


@pytest.mark.parametrize("kind", ["performer", "dense", "ghost", "squeeze_excite"])
def test_block_maps(kind, images):
    """The final norm turns the map of the last block into the final map."""
    model, _ = model_and_numpy(kind)
    last = [layer.name for layer in model.layers if layer.name.startswith("block")][-1]
    maps = feature_maps(model, images, blocks=[last, "block0"])
    assert maps["block0"].shape[:3] == maps[last].shape[:3]
    assert relative_error(keras.ops.convert_to_numpy(model.get_layer("norm")(maps[last])), maps["final"]) < 1e-5


def test_strides_of_a_published_variant():
    pyramid = feature_pyramid(keras_t2t.T2TViT7(weights=None), blocks=["block2"])
    maps = pyramid(np.zeros((2, 64, 96, 3)))
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        "stage1": (2, 16, 24, 64),
        "stage2": (2, 8, 12, 64),
        "final": (2, 4, 6, 256),
        "block2": (2, 4, 6, 256),
    }


def test_saving_and_training_do_not_change_the_model(tmp_path, images):
    model, _ = model_and_numpy("performer")
    before = model.predict(images, verbose=0)
    pyramid = feature_pyramid(model)
    pyramid.save(tmp_path / "pyramid.keras")
    loaded = keras.models.load_model(tmp_path / "pyramid.keras")
    expected = feature_maps(model, images, blocks=())
    for name, values in loaded.predict(images, verbose=0).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)
    regressor = keras.Model(pyramid.input, keras.layers.GlobalAveragePooling2D()(pyramid.output["final"]))
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
    assert pyramid.output["stage1"].dtype == "float16"
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(pyramid(images)["final"]), keras.ops.convert_to_numpy(model(images)), atol=2e-2
    )


def test_invalid_arguments_raise(images):
    with pytest.raises(
        ValueError, match=r"Expected a subset of the blocks \['block0', 'block1'\]; received: blocks=\['block7'\]"
    ):
        feature_pyramid(model_and_numpy("patches")[0], ["block7"])
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        feature_pyramid(keras.Sequential([keras.Input((31, 46, 3)), keras.layers.Flatten()]))
