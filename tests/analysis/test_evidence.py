import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.analysis import class_evidence
from keras_t2t.analysis.evidence import attention_gradients, relevance
from keras_t2t.analysis.model_parts import run_encoder, split_model
from tests.analysis.conftest import model_and_numpy, spread
from tests.numpy_t2t import NumpyT2T


def derivative(numpy_model, image, name, place, chosen, step=1e-4):
    """The logit's derivative with respect to one attention weight, by central differences in numpy."""
    values = []
    for sign in (1, -1):
        offset = np.zeros(numpy_model.weights[name].shape)
        offset[place] = sign * step
        changed = NumpyT2T(numpy_model.config, numpy_model.parameters, {name: offset})
        values.append(changed.logits(image)[chosen])
    return (values[0] - values[1]) / (2 * step)


def test_gradients_are_those_of_central_differences(pair, images):
    model, numpy_model, _ = pair
    weights, gradients = attention_gradients(split_model(model), images[:2], np.array([3, 1]))
    numpy_model.logits(images[1])
    names = [name for name in numpy_model.weights if name.startswith("blocks.")]
    scale = float(max(np.abs(gradient).max() for gradient in gradients))
    for name, attention, gradient in zip(names, weights, gradients, strict=True):
        np.testing.assert_allclose(attention[1], numpy_model.weights[name], rtol=1e-4, atol=1e-6)
        for place in ((0, 0, 0), (1, 0, 3), (1, 4, 2)):
            expected = derivative(numpy_model, images[1], name, place, 1)
            assert gradient[1][place] == pytest.approx(expected, rel=1e-3, abs=1e-5 * scale)
    assert not gradients[-1][:, :, 1:].any() or "squeeze_excite" in model.name  # only its gate sees the others' results


def test_relevance_is_the_sum_over_all_paths():
    weights, gradients = ([spread((1, 2, 4, 4), 10 * i + j) - i * 0.2 for j in range(3)] for i in (0, 1))
    first, second, third = (np.maximum(a * g, 0).mean(1)[0] for a, g in zip(weights, gradients, strict=True))
    one = np.eye(4)
    expected = (one + third) @ (one + second) @ (one + first)
    np.testing.assert_allclose(relevance(weights, gradients)[0], expected)


def test_evidence_depends_on_the_class_and_not_on_the_batch(pair, images):
    model, _, _ = pair
    likeliest = model.predict(images, verbose=0).argmax(-1)
    whole = class_evidence(model, images, batch_size=3)
    grid = split_model(model).entry.output[1].shape[1] - 1
    assert whole.shape[0] == 3 and np.prod(whole.shape[1:]) == grid and (whole >= 0).all() and whole.any()
    np.testing.assert_allclose(class_evidence(model, images, likeliest, batch_size=2), whole, rtol=1e-3, atol=1e-7)
    other = class_evidence(model, images, (likeliest + 1) % 5)
    assert np.abs(other - whole).max() > 0.1 * whole.max()


def test_refuses(images):
    model, _ = model_and_numpy("patches")
    with pytest.raises(ValueError, match=r"Expected 3 classes from 0 to 4; received: classes=\[0 1 5\]"):
        class_evidence(model, images, [0, 1, 5])
    with pytest.raises(ValueError, match="Expected 3 classes from 0 to 4"):
        class_evidence(model, images, [1])
    with pytest.raises(ValueError, match=r"Expected 3 classes from 0 to 4; received: classes=\[0. 1. 2.\]"):
        class_evidence(model, images, [0.0, 1.0, 2.0])
    with pytest.raises(
        ValueError, match="Expected a classifier: the evidence is for a class; patches has no head on its class"
    ):
        class_evidence(model_and_numpy("patches", include_top=False)[0], images)
    pooled = keras_t2t.replace_head(model_and_numpy("patches", include_top=False, pooling="avg")[0], 4)
    with pytest.raises(ValueError, match="has no head on its class token"):
        class_evidence(pooled, images)


def test_a_head_of_several_layers(images):
    body, _ = model_and_numpy("performer", include_top=False, pooling="token")
    model = keras.Model(body.input, keras.layers.Dense(4, name="head")(keras.layers.Dense(7, "relu")(body.output)))
    model_parts = split_model(model)
    *_, (_, last) = run_encoder(model_parts, model_parts.entry(images)[1])
    np.testing.assert_allclose(model_parts.classifier(last[:, :1]), model.predict(images, verbose=0), rtol=1e-4, atol=1e-5)
    assert class_evidence(model, images, [3, 0, 1]).any()
