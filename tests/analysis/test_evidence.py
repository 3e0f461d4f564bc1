import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.analysis import class_evidence
from keras_t2t.analysis.evidence import attention_gradients, relevance
from tests.analysis.conftest import model_and_numpy, random_attention
from tests.numpy_t2t import NumpyT2T


def derivative(numpy_model, image, name, position, class_index, step=1e-4):
    """Returns the derivative of a logit with respect to one attention weight, by central differences in NumPy."""
    values = []
    for sign in (1, -1):
        offset = np.zeros(numpy_model.weights[name].shape)
        offset[position] = sign * step
        perturbed = NumpyT2T(numpy_model.config, numpy_model.parameters, {name: offset})
        values.append(perturbed.logits(image)[class_index])
    return (values[0] - values[1]) / (2 * step)


def test_gradients_match_central_differences(pair, images):
    model, numpy_model, _ = pair
    tensor = keras.ops.convert_to_tensor(images[:2])
    weights, gradients, token_gradients = attention_gradients(model, tensor, np.array([3, 1]))
    assert token_gradients[:, 0].all() and not token_gradients[:, 1:].any()
    numpy_model.logits(images[1])
    names = [name for name in numpy_model.weights if name.startswith("blocks.")]
    scale = float(max(np.abs(gradient).max() for gradient in gradients))
    for name, attention, gradient in zip(names, weights, gradients, strict=True):
        np.testing.assert_allclose(attention[1], numpy_model.weights[name], rtol=1e-4, atol=1e-6)
        for position in ((0, 0, 0), (1, 0, 3), (1, 4, 2)):
            expected = derivative(numpy_model, images[1], name, position, 1)
            assert gradient[1][position] == pytest.approx(expected, rel=1e-3, abs=1e-5 * scale)
    assert not gradients[-1][:, :, 1:].any() or "squeeze_excite" in model.name  # only its gate depends on the other tokens


def test_relevance_sums_over_all_paths():
    weights, gradients = ([random_attention((1, 2, 4, 4), 10 * i + j) - i * 0.2 for j in range(3)] for i in (0, 1))
    first, second, third = (np.maximum(a * g, 0).mean(1)[0] for a, g in zip(weights, gradients, strict=True))
    identity = np.eye(4)
    expected = (identity + third) @ (identity + second) @ (identity + first)
    np.testing.assert_allclose(relevance(weights, gradients)[0], expected)


def test_evidence_depends_on_the_class_but_not_on_the_batch_size(pair, images):
    model, _, _ = pair
    top = model.predict(images, verbose=0).argmax(-1)
    evidence = class_evidence(model, images, batch_size=3)
    grid = np.prod(keras_t2t.configs.token_grid(keras_t2t.config_of(model).soft_splits, 31, 46))
    assert evidence.shape[0] == 3 and np.prod(evidence.shape[1:]) == grid and (evidence >= 0).all() and evidence.any()
    np.testing.assert_allclose(class_evidence(model, images, top, batch_size=2), evidence, rtol=1e-3, atol=1e-7)
    other = class_evidence(model, images, (top + 1) % 5)
    assert np.abs(other - evidence).max() > 0.1 * evidence.max()


def test_invalid_arguments_raise(images):
    model, _ = model_and_numpy("patches")
    with pytest.raises(ValueError, match=r"Expected 3 class indices from 0 to 4; received: classes=\[0 1 5\]"):
        class_evidence(model, images, [0, 1, 5])
    with pytest.raises(ValueError, match="Expected 3 class indices from 0 to 4"):
        class_evidence(model, images, [1])
    with pytest.raises(ValueError, match=r"Expected 3 class indices from 0 to 4; received: classes=\[0. 1. 2.\]"):
        class_evidence(model, images, [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="a model that ends in a dense layer; received: model='patches'"):
        class_evidence(model_and_numpy("patches", include_top=False)[0], images)


def test_head_with_several_layers(images):
    backbone, _ = model_and_numpy("performer", include_top=False, pooling="token")
    model = keras.Model(backbone.input, keras.layers.Dense(4, name="head")(keras.layers.Dense(7, "relu")(backbone.output)))
    assert class_evidence(model, images, [3, 0, 1]).any()
