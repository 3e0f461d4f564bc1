"""Analysis follows the graph: whatever was put between the blocks, around the model, or on top of it is part of the result.

The expected values come from ordinary Keras models that end just before a block, and from attention computed there.
"""

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t import analysis
from keras_t2t.analysis.evidence import attention_gradients
from keras_t2t.analysis.tracing import run_with_attention
from keras_t2t.configs import token_grid
from tests.analysis.conftest import model_and_numpy
from tests.conftest import PYRAMID_CONFIGS, SMALL_CONFIGS, relative_error


@keras.saving.register_keras_serializable("tests")
class Adapter(keras.layers.Layer):
    """A bottleneck with a residual connection, as it is put between frozen blocks."""

    def build(self, input_shape):
        self.down = keras.layers.Dense(5, activation="gelu")
        self.down.build(input_shape)
        self.up = keras.layers.Dense(input_shape[-1], kernel_initializer=keras.initializers.RandomNormal(stddev=0.5, seed=3))
        self.up.build((*input_shape[:-1], 5))

    def call(self, x):
        return x + self.up(self.down(x))


def with_adapters(**kwargs):
    """Returns a model with an adapter before every block, and the inputs of its blocks."""
    keras.utils.set_random_seed(7)
    model, _ = model_and_numpy("performer", **kwargs)
    inputs = []

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras_t2t.layers.EncoderBlock):
            args = (Adapter(name=f"adapter_{layer.name}")(args[0]),)
            inputs.append((layer, args[0]))
        return layer(*args, **kwargs)

    images = keras.Input((31, 46, 3))
    adapted = keras.models.clone_model(
        model,
        input_tensors=images,
        clone_function=lambda layer: layer.__class__.from_config(layer.get_config()),
        call_function=call,
    )
    for layer in adapted.layers:
        if layer.weights and not isinstance(layer, Adapter):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return adapted, inputs


def expected_attention(adapted, inputs, images):
    """Attention maps of the blocks, each from a model that ends before it."""
    maps = {}
    for block, tensor in inputs:
        tokens = keras.Model(adapted.inputs, tensor)(images)
        normalized = block.norm1(tokens)
        maps[block.name] = keras.ops.convert_to_numpy(block.attention.compute_weights(normalized, normalized)[0])
    return maps


def test_adapters_between_blocks(images):
    adapted, inputs = with_adapters()
    expected = expected_attention(adapted, inputs, images)
    maps = analysis.attention_maps(adapted, images, batch_size=2)
    for name, values in expected.items():
        np.testing.assert_allclose(maps[name], values, rtol=1e-4, atol=1e-6)
    plain = analysis.attention_maps(model_and_numpy("performer")[0], images)
    assert np.abs(plain["block1"] - maps["block1"]).max() > 0.01  # the adapters matter
    np.testing.assert_allclose(
        analysis.attention_rollout(adapted, images), analysis.attention.rollout(expected.values()), rtol=1e-4
    )
    entropies = analysis.redundancy(adapted, images).entropy
    np.testing.assert_allclose(entropies[1], analysis.similarity.entropy(expected["block1"]).mean((0, 2)), rtol=1e-4)


def test_evidence_of_a_model_with_adapters_matches_differences(images):
    adapted, _ = with_adapters()
    tensor = keras.ops.convert_to_tensor(images[:1])
    weights, gradients, _ = attention_gradients(adapted, tensor, [2])
    offsets = [np.zeros_like(block) for block in weights]
    for block, position in ((0, (0, 1, 4, 2)), (0, (0, 2, 0, 5)), (1, (0, 0, 0, 3))):
        values = []
        for sign in (1, -1):
            changed = [offset.copy() for offset in offsets]
            changed[block][position] = sign * 1e-2
            logits = run_with_attention(adapted, tensor, offsets=[*map(keras.ops.convert_to_tensor, changed)], logits=True)
            values.append(keras.ops.convert_to_numpy(logits)[0, 2])
        expected = (values[0] - values[1]) / 2e-2
        assert gradients[block][position] == pytest.approx(expected, rel=2e-2, abs=2e-4)


def test_cost_of_adapters(images):
    adapted, _ = with_adapters()

    class Known(keras.layers.Dense):
        """A dense layer is counted wherever it is."""

    tokens = keras.Model(adapted.inputs, adapted.get_layer("block0").output)
    dense = keras.Model(tokens.inputs, Known(7)(tokens.output))
    with pytest.raises(ValueError, match="received: layer 'adapter_block0' of type Adapter, which cannot be counted"):
        analysis.cost(dense)
    plain, numpy_model = model_and_numpy("performer")
    tokens = keras.Model(plain.inputs, plain.get_layer("block0").output)
    count = 1 + np.prod(keras_t2t.configs.token_grid(numpy_model.config.soft_splits, 31, 46))
    on_top = analysis.cost(keras.Model(tokens.inputs, Known(7)(tokens.output)))
    assert on_top.multiply_accumulates == analysis.cost(tokens).multiply_accumulates + count * 18 * 7


def transfer_models():
    """Models that contain one of ours, as tutorials build them."""
    backbone, _ = model_and_numpy("transformer", configs=PYRAMID_CONFIGS, include_top=False, pooling="token")
    average, _ = model_and_numpy("transformer", configs=PYRAMID_CONFIGS, include_top=False, pooling="avg")
    images = keras.Input((31, 46, 3))
    head = keras.layers.Dense(4, activation="softmax", name="norm_head")
    given = keras.Input((31, 46, 3), name="given")
    config = keras_t2t.config_of(backbone)
    from_tensor = keras_t2t.T2TViT(config, include_top=False, pooling="token", input_tensor=given, include_preprocessing=False)
    from_tensor.set_weights(backbone.get_weights())
    return {
        "nested": (keras.Model(images, head(keras.layers.Dropout(0.3)(backbone(images)))), backbone),
        "sequential": (keras.Sequential([keras.Input((31, 46, 3)), average, keras.layers.Dense(4)]), average),
        "functional": (keras.Model(backbone.input, keras.ops.softmax(keras.layers.Dense(4)(backbone.output))), backbone),
        "input tensor": (keras.Model(from_tensor.input, keras.layers.Dense(4)(from_tensor.output)), backbone),
    }


@pytest.mark.parametrize("kind", ["nested", "sequential", "functional", "input tensor"])
@pytest.mark.filterwarnings("error:The structure of")
def test_models_around_ours_and_heads_of_any_name(kind, images):
    model, backbone = transfer_models()[kind]
    for name, values in analysis.attention_maps(backbone, images).items():
        np.testing.assert_allclose(analysis.attention_maps(model, images)[name], values, rtol=1e-4, atol=1e-6)
    expected = analysis.cost(backbone)
    assert analysis.cost(model).multiply_accumulates == expected.multiply_accumulates + 18 * 4
    assert analysis.cost(model).parameters == model.count_params()
    assert keras_t2t.config_of(model) == keras_t2t.config_of(backbone)
    evidence = analysis.class_evidence(model, images, [0, 1, 3])
    logits = keras_t2t.replace_head(model, 4, None)  # the same head, without its activation
    logits.layers[-2].set_weights(next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense)).get_weights())
    np.testing.assert_allclose(evidence, analysis.class_evidence(logits, images, [0, 1, 3]), rtol=1e-4, atol=1e-7)
    assert evidence.any() and (evidence >= 0).all()
    pyramid = analysis.feature_pyramid(model)(images)
    for name, values in analysis.feature_pyramid(backbone)(images).items():
        assert relative_error(pyramid[name], values) < 1e-5


def test_evidence_of_pooled_tokens_is_the_mean_over_them(images):
    model, _ = model_and_numpy("patches", include_top=False, pooling="avg")
    model = keras_t2t.replace_head(model, 3)
    weights, gradients, token_gradients = attention_gradients(model, keras.ops.convert_to_tensor(images), [0, 1, 2])
    assert not token_gradients[:, 0].any() and token_gradients[:, 1:].any((0, 2)).all()
    relevance = analysis.evidence.relevance(weights, gradients)
    expected = relevance[:, 1:, 1:].mean(1)
    np.testing.assert_allclose(analysis.class_evidence(model, images, [0, 1, 2]).reshape(3, -1), expected, rtol=1e-4)


class Noise(keras.layers.Layer):
    """Adds noise in inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


def test_a_model_that_ends_early(images):
    model, _ = model_and_numpy("convolution")
    maps = analysis.attention_maps(model, images)
    for name in ("block0", "block1"):
        cut = keras.Model(model.inputs, model.get_layer(name).output)
        for key, values in analysis.attention_maps(cut, images).items():
            np.testing.assert_allclose(values, maps[key], rtol=1e-5, atol=1e-7)
    first = keras.Model(model.inputs, model.get_layer("block0").output)
    assert list(analysis.attention_maps(first, images)) == ["block0"]
    assert analysis.redundancy(first, images).blocks == ("block0",)


@pytest.mark.parametrize("pack", [lambda one, two: [one, two], lambda one, two: {"b": one, "a": two}])
def test_models_with_several_outputs(images, pack):
    model, _ = model_and_numpy("convolution")
    several = keras.Model(model.inputs, pack(model.output, model.get_layer("block0").output))
    expected, received = analysis.attention_maps(model, images), analysis.attention_maps(several, images)
    assert list(received) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], values)
    outer = keras.Model(model.inputs, keras.tree.flatten(several(model.inputs))[-1])  # inside another model
    np.testing.assert_array_equal(analysis.attention_maps(outer, images)["block1"], expected["block1"])


def test_models_that_cannot_be_followed_say_so(images):
    model, _ = model_and_numpy("patches")
    images_in = keras.Input((31, 46, 3))
    other = keras.models.clone_model(model)
    other.name = "other"  # two backbones with the same names of layers
    both = keras.Model(images_in, keras.layers.Add()([model(images_in), other(images_in)]))
    with pytest.raises(ValueError, match=r"Expected blocks with different names; .* Pass one of the nested models instead"):
        analysis.attention_maps(both, images)
    with pytest.raises(ValueError, match="If this model was made by optimize_for_inference, pass the original model"):
        analysis.attention_maps(keras_t2t.optimize_for_inference(model), images)
    twice = keras.Model(
        images_in, keras.layers.Average()([model(images_in), model(keras.ops.flip(images_in, axis=2))]), name="twice"
    )
    with pytest.raises(ValueError, match="runs each block once; received: 'twice', which runs 'block0' again"):
        analysis.attention_maps(twice, images)
    noisy = keras.Model(model.input, keras.layers.Activation("tanh")(Noise(name="noise")(model.output)), name="noisy")
    nested = keras.Sequential([keras.Input((31, 46, 3)), noisy], name="around")
    for each, name in ((noisy, "noisy"), (nested, "around")):
        message = (
            f"Expected '{name}' to give the same output when run layer by layer; received: a different one, because of the "
            "layer 'noise'. Pass a model without it"
        )
        with pytest.raises(ValueError, match=message):
            analysis.attention_maps(each, images)


def test_a_block_of_another_class_is_named(images):
    class Squared(keras_t2t.layers.EncoderBlock):
        def call(self, tokens, training=None):
            return keras.ops.square(super().call(tokens, training=training))

    def clone(layer):
        kind = Squared if layer.name == "block1" else type(layer)
        return kind.from_config(layer.get_config())

    model = keras.models.clone_model(model_and_numpy("patches")[0], clone_function=clone)
    with pytest.raises(ValueError, match="because of the layer 'block1'"):
        analysis.attention_maps(model, images)


def test_layers_after_a_class_token_see_what_they_see_in_the_model(images):
    model, _ = model_and_numpy("patches")
    mean = keras.ops.mean(model.get_layer("block1").output, axis=1)  # of the class token alone
    maps = analysis.attention_maps(keras.Model(model.input, mean), images)
    for name, expected in analysis.attention_maps(model, images).items():
        np.testing.assert_allclose(maps[name], expected, rtol=1e-5, atol=1e-7)


def test_layers_that_change_images_in_training(images):
    """Called directly, the augmentation layers of Keras change images unless they are told not to."""
    model, _ = model_and_numpy("patches")
    flip = keras.layers.RandomFlip(name="flip")
    flipping = keras.Model(model.input, model(flip(model.input)))
    np.testing.assert_allclose(
        analysis.attention_maps(flipping, images)["block0"], analysis.attention_maps(model, images)["block0"], atol=1e-5
    )
    expected = analysis.class_evidence(model, images, [0, 1, 2])
    for _ in range(3):
        np.testing.assert_allclose(analysis.class_evidence(flipping, images, [0, 1, 2]), expected, rtol=1e-3, atol=1e-6)


def test_models_that_resize_their_images(images):
    model, _ = model_and_numpy("patches", size=(20, 24))
    inputs = keras.Input((40, 48, 3))
    resizing = keras.Model(inputs, model(keras.layers.Resizing(20, 24)(inputs)))
    larger = np.repeat(np.repeat(images[:, :20, :24], 2, 1), 2, 2)  # resized to the same images again
    np.testing.assert_allclose(
        analysis.class_evidence(resizing, larger, [0, 1, 2]),
        analysis.class_evidence(model, images[:, :20, :24], [0, 1, 2]),
        rtol=1e-3,
        atol=1e-6,
    )
    received, expected = analysis.redundancy(resizing, larger), analysis.redundancy(model, images[:, :20, :24])
    np.testing.assert_allclose(received.distance, expected.distance, rtol=1e-3)


def test_points_are_in_pixels_of_the_images_before_they_are_resized(images):
    model, _ = model_and_numpy("performer", size=(20, 24))
    inputs = keras.Input((40, 72, 3))
    resizing = keras.Model(inputs, model(keras.layers.Resizing(20, 24)(inputs)))
    larger = np.repeat(np.repeat(images[:, :20, :24], 2, 1), 3, 2)
    received = analysis.attention_maps(resizing, larger, "stage1", points=[(30, 6), (9, 70)])["stage1"]
    expected = analysis.attention_maps(model, larger[:, ::2, ::3], "stage1", points=[(15, 2), (4.5, 70 / 3)])["stage1"]
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="inside the 40x72 image"):
        analysis.attention_maps(resizing, larger, points=[(40, 6)])


def test_models_of_any_size_behind_a_resizing(images):
    """The input of the T2T module does not say what the size is."""
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    inner = keras_t2t.T2TViT(config, include_top=False, pooling="token", input_shape=(None, None, 3))
    inputs = keras.Input((40, 48, 3))
    resizing = keras.Model(inputs, keras.layers.Dense(3)(inner(keras.layers.Resizing(20, 24)(inputs))))
    larger = np.repeat(np.repeat(images[:, :20, :24], 2, 1), 2, 2)
    evidence = analysis.class_evidence(resizing, larger, [0, 1, 2])
    assert evidence.shape == (3, *token_grid(config.soft_splits, 20, 24))
    assert analysis.redundancy(resizing, larger).distance.max() < 32  # the diagonal of 20x24 pixels is 31


def test_evidence_of_pooled_maxima_does_not_depend_on_the_batch(images):
    backbone, _ = model_and_numpy("patches")
    pooled = keras_t2t.T2TViT(keras_t2t.config_of(backbone), include_top=False, pooling="max", input_shape=(31, 46, 3))
    model = keras_t2t.replace_head(pooled, 4)
    one, many = (analysis.class_evidence(model, images, [0, 1, 2], batch_size=n) for n in (1, 3))
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-7)
    dense = keras_t2t.models.graph.find_head(model).dense
    dense.kernel.assign(np.zeros(dense.kernel.shape))
    assert not analysis.class_evidence(model, images, [0, 1, 2]).any()
