import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keras_t2t

pytestmark = pytest.mark.slow


def test_from_a_folder_of_pictures_to_a_tflite_file(project):
    training, validation = keras.utils.image_dataset_from_directory(
        "photos", image_size=(32, 32), batch_size=12, validation_split=0.25, subset="both", seed=1, verbose=False
    )
    base = keras_t2t.T2TViTTiny32(weights="cifar10", include_top=False, pooling="token", input_shape=(32, 32, 3))
    base.trainable = False
    model = keras.Sequential([base, keras.layers.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [keras.callbacks.ModelCheckpoint("best.keras", monitor="val_accuracy", save_best_only=True)]
    model.fit(training, validation_data=validation, epochs=5, callbacks=callbacks, verbose=0)

    best = keras.saving.load_model("best.keras")
    assert best.evaluate(validation, verbose=0)[1] >= 0.9
    images, labels = next(iter(validation))
    scores = best.predict(images, verbose=0)
    converter = tf.lite.TFLiteConverter.from_keras_model(best)
    (project / "best.tflite").write_bytes(converter.convert())

    interpreter = Interpreter(str(project / "best.tflite"))
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], images.numpy())
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(outputs["index"]), scores, atol=1e-5)
    assert np.mean(scores.argmax(-1) == labels) >= 0.9
