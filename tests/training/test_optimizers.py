"""Optimizers, learning rate schedules, and moving averages match their formulas, for every weight."""

import math

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.recipes import RECIPES, Recipe
from keras_t2t.training.optimizers import layer_lr_multipliers, make_optimizer, make_schedule
from tests.conftest import SMALL_CONFIGS, variant_model


def small_model():
    keras.utils.set_random_seed(1)
    backbone = keras_t2t.T2TViT(
        keras_t2t.T2TConfig(**SMALL_CONFIGS["convolution"]), include_top=False, pooling="token", input_shape=(31, 23, 3)
    )
    return keras_t2t.replace_head(backbone, 4, None)


def descend(recipe, steps, rate=1e-2, schedule=None):
    """Applies random gradients. Returns the initial weights, gradients and weights of every step, paths, and the optimizer."""
    model = small_model()
    optimizer = make_optimizer(recipe, model, schedule or rate)
    optimizer.build(model.trainable_variables)
    before = [np.array(weight) for weight in model.trainable_weights]
    rng = np.random.default_rng(2)
    gradients = [[rng.standard_normal(weight.shape).astype("float32") for weight in before] for _ in range(steps)]
    history = []
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in step], model.trainable_variables)
        history.append([np.array(weight) for weight in model.trainable_weights])
    return before, gradients, history, [weight.path for weight in model.trainable_weights], optimizer


def is_decayed(path):
    return path.endswith("/kernel")


def lr_multiplier(path, recipe, depth=2):
    """Returns the learning rate of a weight relative to that of the head, for two blocks followed by a norm."""
    if path.startswith("head/"):
        return 1.0
    level = {"block0": 2, "block1": 1, "norm": 0}.get(path.split("/")[0], depth + 1)
    return recipe.backbone_lr_multiplier * recipe.layer_decay**level


@pytest.mark.parametrize("changes", [{}, {"backbone_lr_multiplier": 0.1, "layer_decay": 0.7}])
def test_adamw(changes):
    recipe = Recipe(weight_decay=0.3, ema_momentum=0.0, **changes)
    before, gradients, history, paths, _ = descend(recipe, 5)
    for i, path in enumerate(paths):
        weight, m, v, rate = before[i].astype("float64"), 0.0, 0.0, 1e-2 * lr_multiplier(path, recipe)
        for t, step in enumerate(gradients, 1):
            weight = weight * (1 - rate * 0.3 * is_decayed(path))
            m, v = 0.9 * m + 0.1 * step[i], 0.999 * v + 0.001 * step[i] ** 2
            weight = weight - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        # Keras adds epsilon before the bias correction, which matters for very small gradients.
        np.testing.assert_allclose(history[-1][i], weight, rtol=2e-4, atol=2e-5, err_msg=path)


@pytest.mark.parametrize("decay_all", [False, True])
def test_sgd(decay_all):
    recipe = RECIPES["transfer"].replace(weight_decay=0.3, shared_final_lr=False, decay_all_weights=decay_all)
    before, gradients, history, paths, _ = descend(recipe, 4)
    for i, path in enumerate(paths):
        weight, velocity, rate = before[i].astype("float64"), 0.0, 1e-2 * (1.0 if path.startswith("head/") else 0.01)
        for step in gradients:
            decay = 0.3 * (decay_all or is_decayed(path))
            velocity = 0.9 * velocity + step[i] + decay * weight  # as in PyTorch, at a constant learning rate
            weight = weight - rate * velocity
        np.testing.assert_allclose(history[-1][i], weight, rtol=2e-4, atol=2e-6, err_msg=path)


@pytest.mark.slow
def test_moving_average_warms_up():
    recipe = Recipe(ema_momentum=0.7, weight_decay=0.0)
    _, _, history, _, optimizer = descend(recipe, 25)
    averages = [np.array(average) for average in optimizer._model_variables_moving_average]
    for i in range(len(averages)):
        average = history[0][i].astype("float64")  # starts as a copy of the weights
        for step, weights in enumerate(history[1:], 1):
            momentum = min(0.7, (1 + step) / (10 + step))
            average = momentum * average + (1 - momentum) * weights[i]
        np.testing.assert_allclose(averages[i], average, rtol=1e-4, atol=1e-5)
    assert (1 + 24) / (10 + 24) > 0.7 > 1 / 10  # covers warm-up and the final momentum


def test_moving_average_with_gradient_accumulation():
    before, _, history, _, optimizer = descend(Recipe(ema_momentum=0.7, weight_decay=0.0, gradient_accumulation_steps=3), 9)
    average = before[0].astype("float64")  # the value after the first batch
    for step, weights in enumerate(history[2::3]):
        momentum = min(0.7, (1 + step) / (10 + step))
        average = momentum * average + (1 - momentum) * weights[0]
    np.testing.assert_allclose(np.array(optimizer._model_variables_moving_average[0]), average, rtol=1e-4, atol=1e-5)


def test_global_clipnorm_and_gradient_accumulation():
    before, gradients, history, _, _ = descend(
        RECIPES["transfer"].replace(global_clipnorm=1.0, backbone_lr_multiplier=1.0, weight_decay=0.0, shared_final_lr=False), 1
    )
    norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients[0]))
    assert norm > 1
    np.testing.assert_allclose(history[0][3], before[3] - 1e-2 * gradients[0][3] / norm, rtol=1e-4, atol=1e-7)
    recipe = RECIPES["transfer"].replace(gradient_accumulation_steps=3, backbone_lr_multiplier=1.0, weight_decay=0.0)
    recipe = recipe.replace(shared_final_lr=False)
    before, gradients, history, _, _ = descend(recipe, 3)
    np.testing.assert_array_equal(history[1][0], before[0])
    mean = np.mean([step[0] for step in gradients], 0)
    np.testing.assert_allclose(history[2][0], before[0] - 1e-2 * mean, rtol=1e-4, atol=1e-6)


def test_only_matrices_decay(small_config):
    """Biases, norms, the class token, the position embedding, and the scales of ghost operations do not."""
    model = keras_t2t.T2TViT(small_config, input_shape=(31, 23, 3), classes=4)
    optimizer = make_optimizer(Recipe(), model, 1e-3)
    optimizer.build(model.trainable_variables)
    decayed = {weight.path for weight in model.trainable_weights if optimizer._use_weight_decay(weight)}
    expected = {weight.path for weight in model.trainable_weights if len(weight.shape) == 2 and "table" not in weight.path}
    assert decayed == expected
    assert {"class_token/token", "norm/gamma", "head/bias"} <= {w.path for w in model.trainable_weights} - decayed


def test_lr_multipliers_of_layers():
    model = variant_model("t2t_vit_7")
    multipliers = layer_lr_multipliers(model, 0.5, 0.9)
    assert multipliers["norm/gamma"] == 0.5
    assert multipliers["block6/mlp/fc1/kernel"] == pytest.approx(0.5 * 0.9)
    assert multipliers["block0/mlp/fc1/kernel"] == pytest.approx(0.5 * 0.9**7)
    assert multipliers["tokens_to_token/projection/kernel"] == multipliers["class_token/token"] == pytest.approx(0.5 * 0.9**8)
    assert "head/kernel" not in multipliers
    assert layer_lr_multipliers(model, 1.0, 1.0) == {}


def test_transitions_have_the_lr_multiplier_of_the_block_before():
    model = variant_model("t2t_vit_dense")
    multipliers = layer_lr_multipliers(model, 0.5, 0.9)
    blocks = sum(layer.name.startswith("block") for layer in model.layers)
    for transition, block in (("transition0", "block2"), ("transition1", "block8"), ("transition2", "block14")):
        (rate,) = {multipliers[weight.path] for weight in model.get_layer(transition).trainable_weights}
        (expected,) = {multipliers[weight.path] for weight in model.get_layer(block).trainable_weights}
        assert rate == expected == pytest.approx(0.5 * 0.9 ** (blocks - int(block.removeprefix("block"))))


def test_schedule():
    recipe = Recipe(learning_rate=1e-3, warmup_learning_rate=1e-6, final_learning_rate=1e-5, warmup_epochs=2, epochs=22)
    schedule = make_schedule(recipe, steps=5)
    for step, expected in {
        0: 1e-6,
        5: 1e-6 + (1e-3 - 1e-6) / 2,
        10: 1e-3,
        35: 1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2,
        60: (1e-3 + 1e-5) / 2,
        110: 1e-5,
        150: 1e-5,
    }.items():
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-4)
    plain = make_schedule(recipe.replace(warmup_epochs=0, learning_rate=0.1, final_learning_rate=0.0), steps=5)
    assert float(plain(0)) == pytest.approx(0.1)
    only_warmup = make_schedule(recipe.replace(warmup_epochs=22), steps=5)
    assert float(only_warmup(55)) == pytest.approx((1e-3 + 1e-6) / 2, rel=1e-4)
    assert float(only_warmup(111)) == pytest.approx(1e-5, rel=1e-4)
    assert float(make_schedule(recipe.replace(learning_rate=0.0, final_learning_rate=0.0), 5)(60)) == 0.0


def test_shared_final_lr():
    """In the authors' transfer to CIFAR, each group of weights has its own cosine decay to the same final learning rate."""
    recipe = RECIPES["transfer"].replace(weight_decay=0.0, momentum=0.0)
    peak, final = recipe.learning_rate, recipe.final_learning_rate
    for fraction in (0.0, 0.3, 1.0):  # of the cosine decay
        rate = final + (peak - final) * (1 + math.cos(math.pi * fraction)) / 2
        backbone_rate = final + (0.01 * peak - final) * (1 + math.cos(math.pi * fraction)) / 2
        before, gradients, history, paths, _ = descend(recipe, 1, rate=rate)
        for i, path in enumerate(paths):
            expected = before[i] - (rate if path.startswith("head/") else backbone_rate) * gradients[0][i]
            np.testing.assert_allclose(history[0][i], expected, rtol=1e-4, atol=1e-7, err_msg=path)


def test_shared_final_lr_without_decay():
    recipe = RECIPES["transfer"].replace(weight_decay=0.0, momentum=0.0, learning_rate=2e-4, final_learning_rate=2e-4)
    before, gradients, history, _, _ = descend(recipe, 1, rate=2e-4)
    for i, weights in enumerate(history[0]):
        np.testing.assert_allclose(weights, before[i] - 2e-4 * gradients[0][i], rtol=1e-4, atol=1e-7)


def test_multipliers_follow_the_graph():
    """Adapters between the blocks, a head with another name, and a nested backbone."""
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["convolution"])
    backbone = keras_t2t.T2TViT(config, include_top=False, pooling="token", input_shape=(31, 23, 3))
    expected = {path: value for path, value in layer_lr_multipliers(backbone, 0.5, 0.9).items() if path.startswith("block")}
    images = keras.Input((31, 23, 3))
    hidden = keras.layers.Dense(7, name="head")(backbone(images))
    model = keras.Model(images, keras.layers.Dense(4, name="block7")(hidden))
    multipliers = layer_lr_multipliers(model, 0.5, 0.9)
    assert {multipliers[path] for path in multipliers if path.startswith("head/")} == {0.5}  # a hidden layer after the norm
    assert not any(path.startswith("block7") for path in multipliers)
    for path, value in expected.items():
        assert multipliers[path] == pytest.approx(value)
