import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.analysis import attention_maps, compare, cost, redundancy
from keras_t2t.analysis.geometry import distances, token_centers
from keras_t2t.analysis.similarity import attention_distance, centered_gram, entropy, head_cosine, head_divergence
from keras_t2t.analysis.tracing import run_with_attention
from tests.analysis.conftest import SIZE, model_and_numpy


def test_metrics_match_the_attention_maps(pair, images):
    model, numpy_model, _ = pair
    result = redundancy(model, images, batch_size=2)
    maps = attention_maps(model, images)
    token_distances = distances(token_centers(numpy_model.config.soft_splits, SIZE))
    assert result.blocks == tuple(name for name in maps if name.startswith("block"))
    for i, name in enumerate(result.blocks):
        np.testing.assert_allclose(result.cosine[i], head_cosine(maps[name]), rtol=1e-5)
        np.testing.assert_allclose(result.divergence[i], head_divergence(maps[name]), atol=1e-5)
        np.testing.assert_allclose(result.entropy[i], entropy(maps[name]).mean((0, 2)), rtol=1e-5)
        np.testing.assert_allclose(result.distance[i], attention_distance(maps[name], token_distances), rtol=1e-5)


def test_cka_uses_the_tokens_of_each_image(pair, images):
    model, _, _ = pair
    outputs = []
    visit = lambda block, weights, output: outputs.append(keras.ops.convert_to_numpy(output))  # noqa: E731
    run_with_attention(model, keras.ops.convert_to_tensor(images), visit)
    result = redundancy(model, images, batch_size=2).cka
    first, last = ([centered_gram(image) for image in outputs[i]] for i in (0, -1))
    products = [
        sum((a * b).sum() for a, b in zip(left, right, strict=True))
        for left, right in ((first, last), (first, first), (last, last))
    ]
    assert result[0, -1] == pytest.approx(products[0] / np.sqrt(products[1] * products[2]), rel=1e-4)
    np.testing.assert_allclose(np.diagonal(result), 1)


def test_identical_heads_and_uniform_attention(images):
    model, numpy_model = model_and_numpy("performer")
    kernel = model.get_layer("block0").attention.qkv.kernel  # (18, 3 * 18): three heads of 6 for each of q, k, v
    copied = np.asarray(kernel)[:, [*range(6)] * 3 + [*range(18, 24)] * 3]
    kernel.assign(np.concatenate([copied, np.asarray(kernel)[:, 36:]], 1))
    model.get_layer("block1").attention.qkv.kernel.assign(np.zeros((18, 54)))
    result = redundancy(model, images)
    np.testing.assert_allclose(result.cosine, 1, rtol=1e-6)
    np.testing.assert_allclose(result.divergence, 0, atol=1e-6)
    centers = token_centers(numpy_model.config.soft_splits, SIZE)
    np.testing.assert_allclose(result.entropy[1], np.log2(1 + len(centers[0]) * len(centers[1])), rtol=1e-6)
    np.testing.assert_allclose(result.distance[1], distances(centers).mean(), rtol=1e-6)
    metrics = result.by_block()
    np.testing.assert_allclose(metrics["cosine"], 1, rtol=1e-6)
    np.testing.assert_allclose(metrics["entropy"], result.entropy.mean(1))
    assert np.isnan(metrics["cka"][0]) and metrics["cka"][1] == result.cka[0, 1]


def test_averages_exclude_the_diagonal(images):
    result = redundancy(model_and_numpy("dense")[0], images)
    np.testing.assert_allclose(result.by_block()["divergence"], result.divergence[:, 0, 1])
    np.testing.assert_allclose(result.by_block()["cosine"], result.cosine[:, 1, 0])


def test_compare(images):
    performer, patches = (model_and_numpy(kind)[0] for kind in ("performer", "patches"))
    first, second = compare([performer, patches], images)
    assert (first.name, second.name) == ("performer", "patches")
    assert first.cost == cost(performer) and second.cost == cost(patches)
    summary = second.summary()
    assert summary["parameters"] == patches.count_params()
    np.testing.assert_allclose(summary["distance"], redundancy(patches, images).distance.mean())
    np.testing.assert_allclose(summary["cka"], second.redundancy.cka[0, 1])
    any_size = keras_t2t.T2TViT(keras_t2t.config_of(patches), include_top=False)
    larger = np.random.default_rng(0).uniform(0, 255, (1, 45, 38, 3))
    results = compare([performer, any_size], [images, larger])
    assert [result.cost.input_shape for result in results] == [(31, 46, 3), (45, 38, 3)]


def test_invalid_arguments_raise(images):
    model, _ = model_and_numpy("patches")
    with pytest.raises(ValueError, match="Expected one array of images, or one for each of 2 models; received: 1 arrays"):
        compare([model, model], [images])
    with pytest.raises(ValueError, match="Expected images of shape"):
        redundancy(model, images[0])
    any_size = keras_t2t.T2TViT(keras_t2t.config_of(model), include_top=False)
    with pytest.raises(ValueError, match=r"Expected images with at least 3 tokens; received: image size \(5, 9\)"):
        redundancy(any_size, np.zeros((1, 5, 9, 3)))
