"""The name map has exactly the names and shapes of the authors' checkpoints."""

import numpy as np
import pytest

from keras_t2t.variants import VARIANTS
from keras_t2t.weights.names import Row, name_map
from tests.conftest import mostly_slow, variant_model


def test_names_and_shapes_equal_the_reference(reference):
    rows = name_map(VARIANTS[reference["variant"]].config, positions=197)
    assert {row.source: row.shape for row in rows} == {name: value.shape for name, value in reference["parameters"].items()}
    assert len(rows) == len(reference["parameters"])


@pytest.mark.parametrize("variant", mostly_slow(VARIANTS, "t2t_vit_7", "t2t_vit_16_ghost"))
def test_every_weight_has_exactly_one_row(variant):
    model = variant_model(variant)
    positions = model.get_layer("position_embedding").table.shape[0]
    rows = {row.target: row for row in name_map(VARIANTS[variant].config, positions)}
    assert set(rows) == {weight.path for weight in model.weights}
    for weight in model.weights:
        assert np.prod(rows[weight.path].shape) == np.prod(weight.shape), weight.path


def test_inputs_of_a_dense_layer_on_a_soft_split_are_reordered():
    row = next(
        row for row in name_map(VARIANTS["t2t_vit_7"].config, 197) if row.source == "tokens_to_token.attention1.kqv.weight"
    )
    weight = np.arange(192 * 147).reshape(192, 147)
    converted = row.convert(weight).reshape(147, 192)
    out, channel, i, j = 5, 2, 3, 6
    assert converted[(i * 7 + j) * 3 + channel, out] == weight[out, channel * 49 + i * 7 + j]


def test_convert_reshapes_and_transposes():
    row = Row("w", (2, 12), "kernel", (2, 1, 0), (2, 3, 4))
    array = np.arange(24).reshape(2, 12)
    np.testing.assert_array_equal(row.convert(array), array.reshape(2, 3, 4).transpose(2, 1, 0))
