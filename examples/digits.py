"""Trains a small T2T-ViT on handwritten digits, saves it, loads it back, and classifies held-out digits.

    python examples/digits.py
    python examples/digits.py --epochs 5 --output my_digits.keras

Expect an accuracy of 97% on held-out digits after one to two minutes on 2 cores. The 1,797 digits come with scikit-learn. They
are real scans, reduced to 8x8 pixels (UCI "Optical Recognition of Handwritten Digits").
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_t2t


def load_data() -> list[np.ndarray]:
    """Returns training images, held-out images, training labels, and held-out labels.

    Images are `(N, 8, 8, 1)`, float32 in [0, 255]. Labels are one-hot `(N, 10)`.
    """
    digits = load_digits()
    images = (digits.images[..., None] * (255 / 16)).astype("float32")
    labels = keras.utils.to_categorical(digits.target)
    return train_test_split(images, labels, test_size=360, stratify=digits.target, random_state=0)


def build_model(steps: int) -> keras.Model:
    """Returns a compiled T2T-ViT that turns 8x8 pixels into 8x8 tokens, and those into 4x4 tokens.

    Args:
        steps: Number of training steps, for the learning rate schedule.
    """
    config = keras_t2t.T2TConfig(
        token_attention="performer",
        token_dim=32,
        soft_splits=((3, 1, 1), (3, 2, 1), (3, 1, 1)),  # kernel, stride, padding
        embed_dim=96,
        depth=3,
        num_heads=4,
        mlp_ratio=2.0,
        drop_rate=0.1,
        drop_path_rate=0.1,
    )
    model = keras_t2t.T2TViT(config, input_shape=(8, 8, 1), classes=10, name="t2t_vit_digits")
    schedule = keras.optimizers.schedules.CosineDecay(1e-5, steps, warmup_target=2e-3, warmup_steps=steps // 10)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.05, clipnorm=1.0),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"],
    )
    return model


def print_predictions(model: keras.Model, images: np.ndarray, labels: np.ndarray, count: int = 12) -> None:
    """Prints the predictions for the first `count` images next to the true labels."""
    probabilities = model.predict(images[:count], verbose=0)
    print("image  predicted  probability  true")
    for i, (scores, label) in enumerate(zip(probabilities, labels, strict=False)):
        predicted, true = np.argmax(scores), np.argmax(label)
        print(f"{i:5}{predicted:11}{scores[predicted]:13.1%}{true:6}{'' if predicted == true else '  wrong'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir(), "t2t_vit_digits.keras"))
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    images, test_images, labels, test_labels = load_data()
    print(f"{len(images)} digits to train on, {len(test_images)} held out")

    model = build_model(steps=arguments.epochs * -(-len(images) // arguments.batch_size))
    model.fit(images, labels, batch_size=arguments.batch_size, epochs=arguments.epochs)

    model.save(arguments.output)
    loaded = keras.models.load_model(arguments.output)
    print(f"Saved to {arguments.output} and loaded back")

    _, accuracy = loaded.evaluate(test_images, test_labels, verbose=0)
    print_predictions(loaded, test_images, test_labels)
    print(f"{accuracy:.1%} of the {len(test_images)} held-out digits are classified correctly")


if __name__ == "__main__":
    main()
