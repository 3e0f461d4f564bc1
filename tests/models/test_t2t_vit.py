import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.configs import VARIANTS
from tests.conftest import CONSTRUCTORS


@pytest.mark.parametrize("variant", VARIANTS)
def test_configuration_is_read_off_the_layers(variant):
    model = CONSTRUCTORS[variant](weights=None, include_top=False)
    assert keras_t2t.config_of(model) == VARIANTS[variant]


def test_configuration_with_other_values_is_read_off_a_cloned_model(small_config):
    model = keras_t2t.T2TViT(small_config, input_shape=(31, 23, 2), classes=3)
    assert keras_t2t.config_of(keras.models.clone_model(model)) == small_config


def test_drop_path_grows_linearly_over_the_blocks():
    model = keras_t2t.T2TViT7(weights=None, drop_path_rate=0.3, drop_rate=0.1, attention_drop_rate=0.2)
    blocks = [layer for layer in model.layers if isinstance(layer, keras_t2t.layers.EncoderBlock)]
    np.testing.assert_allclose([block.drop_path_rate for block in blocks], 0.05 * np.arange(7))
    assert {block.drop_rate for block in blocks} == {0.1} == {model.get_layer("dropout").rate}
    assert {block.attention_drop_rate for block in blocks} == {0.2}


def test_only_the_last_block_of_a_classifier_computes_the_class_token_alone():
    def flags(**kwargs):
        model = keras_t2t.T2TViT7(weights=None, **kwargs)
        return [layer.class_token_only for layer in model.layers if isinstance(layer, keras_t2t.layers.EncoderBlock)]

    assert flags() == [False] * 6 + [True]
    assert flags(include_top=False, pooling="token") == [False] * 6 + [True]
    assert flags(include_top=False) == [False] * 7
