"""What tutorials tell people to do with a Keras model, done to models of this package with nothing but `import keras_t2t`."""

import copy
import dataclasses
import gc
import os
import pickle
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_t2t
from keras_t2t.exporting.samples import images_for
from tests.conftest import mostly_slow
from tests.micro import MICRO

SHAPE = (72, 56, 3)
CONFIG = keras_t2t.T2TConfig(depth=2, embed_dim=48, num_heads=3, token_dim=12, mlp_ratio=2.0)  # with all kinds of operations


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return keras_t2t.T2TViT(CONFIG, input_shape=SHAPE, classes=11, classifier_activation=None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).uniform(0, 255, (5, *SHAPE)).astype("float32")


def small_model(**kwargs):
    return keras_t2t.T2TViT(MICRO, input_shape=(37, 45, 3), classes=4, **kwargs)


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    return rng.uniform(0, 255, (9, 37, 45, 3)).astype("float32"), rng.integers(0, 4, 9)


def difference(received, model, images):
    """Returns the largest difference of a logit, relative to the largest logit."""
    expected = model.predict(images, verbose=0)
    return np.abs(received - expected).max() / np.abs(expected).max()


def run_tflite(content, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)  # without the Flex operations, so these raise an error
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize("kind", ["float32", "dynamic range", "representative data set"])
@pytest.mark.slow
def test_tflite_converter(model, images, kind):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "representative data set":
        converter.representative_dataset = lambda: ([images[i : i + 1]] for i in range(len(images)))
    content = converter.convert()
    limit = {"float32": 1e-5, "dynamic range": 0.05, "representative data set": 0.5}[kind]
    assert difference(run_tflite(content, images), model, images) < limit
    assert difference(run_tflite(content, images[:2]), model, images[:2]) < limit


@pytest.mark.slow
def test_a_tflite_file_quantized_by_the_converter_still_classifies():
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    photos = images_for(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([photo[None]] for photo in photos)
    received = run_tflite(converter.convert(), photos)
    assert np.mean(received.argmax(-1) == model.predict(photos, verbose=0).argmax(-1)) >= 0.8


@pytest.mark.parametrize("format", ["tf_saved_model", "onnx", "litert", "openvino"])
@pytest.mark.slow
def test_export(model, images, tmp_path, format):
    suffix = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}[format]
    path = tmp_path / f"model{suffix}"
    model.export(str(path), format=format)
    if format == "tf_saved_model":
        loaded = tf.saved_model.load(str(path))
        received = loaded.serve(images).numpy()
    elif format == "onnx":
        received = run_onnx(path, images)
    elif format == "litert":
        received = run_tflite(path.read_bytes(), images)
    else:
        import openvino

        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        received = compiled(images)[0]
    assert difference(received, model, images) < 1e-5


@pytest.mark.slow
def test_predict_with_the_openvino_backend(model, images, tmp_path):
    """On processors that compute in bfloat16, the logits differ by about 1%."""
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    program = (
        "import keras, keras_t2t, numpy as np\n"
        "assert keras.backend.backend() == 'openvino'\n"
        "np.save('logits.npy', keras.models.load_model('model.keras').predict(np.load('images.npy')))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "openvino"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert difference(np.load(tmp_path / "logits.npy"), model, images) < 0.03


@pytest.mark.slow
def test_tf2onnx_command(model, images, tmp_path):
    model.export(tmp_path / "saved", verbose=False)
    paths = ["--saved-model", tmp_path / "saved", "--output", tmp_path / "model.onnx"]
    subprocess.run([sys.executable, "-m", "tf2onnx.convert", *paths], check=True, capture_output=True)
    assert difference(run_onnx(tmp_path / "model.onnx", images), model, images) < 1e-5


@pytest.mark.parametrize("pooling", mostly_slow([None, "avg", "max", "token"], "token"))
def test_h5_files_of_features(tmp_path, pooling):
    model = keras_t2t.T2TViT(MICRO, include_top=False, pooling=pooling, input_shape=(37, 45, 3))
    images = np.random.default_rng(7).uniform(0, 255, (2, 37, 45, 3)).astype("float32")
    model.save(tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


@pytest.mark.slow
def test_model_checkpoint_in_h5(data, tmp_path):
    model = small_model()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(*data, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "best.h5", monitor="loss")])
    expected = model.predict(data[0], verbose=0)
    loaded = keras.saving.load_model(tmp_path / "best.h5")
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), expected)
    other = small_model(weights=tmp_path / "best.h5")
    np.testing.assert_array_equal(other.predict(data[0], verbose=0), expected)


@pytest.mark.parametrize("predict_first", [False, True])
def test_quantize_refuses_and_says_what_to_do_instead(data, predict_first):
    model = small_model()
    if predict_first:
        model.predict(data[0], verbose=0)
    with pytest.raises(ValueError, match=r"cannot be quantized in place.*keras_t2t.export\(model, .* quantize=\"int8\"\)"):
        model.quantize("int8")


def test_fit_options(data):
    """With a learning rate of 0, the loss of the epoch is that of the initial weights."""
    images, labels = data
    model = keras_t2t.T2TViT(dataclasses.replace(MICRO, token_drop_rate=0.0), input_shape=(37, 45, 3), classes=4)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", steps_per_execution=3)
    executions = []
    counter = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: executions.append(batch))
    options = {"validation_split": 0.3, "class_weight": {label: 2.0**label for label in range(4)}, "callbacks": [counter]}
    history = model.fit(images, labels, batch_size=1, verbose=0, **options).history
    losses = -np.log(model.predict(images, verbose=0)[np.arange(9), labels])
    assert history["loss"] == pytest.approx([np.mean(losses[:6] * 2.0 ** labels[:6])], rel=1e-4)
    assert history["val_loss"] == pytest.approx([np.mean(losses[6:])], rel=1e-4)
    assert len(executions) == 2  # of three batches each


@pytest.mark.slow
def test_mirrored_strategy_with_an_empty_replica(tmp_path):
    """The last batch leaves one of two replicas empty, and Keras averages gradients over the replicas."""
    program = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, keras_t2t
images, labels = np.random.default_rng(0).uniform(0, 255, (3, 32, 48, 3)), np.arange(3)

def build():
    keras.utils.set_random_seed(0)
    config = keras_t2t.T2TConfig(depth=1, embed_dim=8, num_heads=2, token_dim=4, token_drop_rate=0.0)
    model = keras_t2t.T2TViT(config, input_shape=(32, 48, 3), classes=3)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    return model

with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    mirrored = build()
mirrored.fit(tf.data.Dataset.from_tensor_slices((images, labels)).batch(2), shuffle=False, verbose=0)
single = build()
single.fit(images[:2], labels[:2], shuffle=False, verbose=0)
single.optimizer.learning_rate = 0.05
single.fit(images[2:], labels[2:], verbose=0)
print(*(sum(float(abs(weight).sum()) for weight in model.get_weights()) for model in (mirrored, single)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    mirrored, single = map(float, result.stdout.split()[-2:])
    assert mirrored == pytest.approx(single, rel=1e-6)


def test_zero_sample_weights_leave_the_weights_unchanged(data):
    model = small_model()
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    before = model.get_weights()
    model.fit(*data, sample_weight=np.zeros(9), verbose=0)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


@pytest.mark.slow
def test_py_dataset(data):
    images, labels = data

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return images[3 * index : 3 * index + 3], labels[3 * index : 3 * index + 3]

    model = small_model()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(Batches(), verbose=0)
    assert model.evaluate(Batches(), verbose=0) == pytest.approx(model.evaluate(images, labels, verbose=0), rel=1e-5)


@pytest.mark.slow
def test_custom_train_step(data):
    class Custom(keras.Model):
        def train_step(self, data):
            images, labels = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=labels, y_pred=self(images, training=True))
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    keras.utils.set_random_seed(8)
    plain = small_model()
    custom = Custom(*(lambda copied: (copied.inputs, copied.outputs))(keras.models.clone_model(plain)))
    custom.set_weights(plain.get_weights())
    for model in (plain, custom):
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
        model.fit(*data, batch_size=9, shuffle=False, epochs=2, verbose=0)
    for one, other in zip(plain.get_weights(), custom.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_predict_the_same_and_share_no_weights(data, copy_of):
    model = small_model()
    expected = model.predict(data[0], verbose=0)
    copied = copy_of(model)
    for weight in model.weights:
        weight.assign(keras.ops.zeros_like(weight))
    np.testing.assert_array_equal(copied.predict(data[0], verbose=0), expected)


@pytest.mark.slow
def test_a_trained_model_is_freed(data):
    model = small_model()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(*data, verbose=0)
    alive = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None


def test_summary_and_diagram(model):
    lines = []
    keras.Sequential([keras.Input(SHAPE), model]).summary(expand_nested=True, print_fn=lines.append)
    assert "token_pool" in "".join(lines)
    names = keras.utils.model_to_dot(model, show_layer_names=True).to_string()
    assert all(layer.name in names for layer in model.layers)


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="needs keras.RematScope")
def test_known_fault_of_keras_remat_scope_fails_in_graph_mode(data):
    with keras.RematScope(mode="full"):
        model = small_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"keywords? arguments only when eager execution is enabled"):
        model.train_on_batch(*data)
