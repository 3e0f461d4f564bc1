"""Classifies ten sample photos, then fine-tunes the same model on handwritten digits.

    ./scripts/demo                sets up .venv, then runs python examples/demo.py
    ./scripts/demo photo.jpg      classifies your own photos of an airplane, a car, a bird, a cat, a deer, a dog, ...

The model is `T2TViTTiny32(weights="cifar10")`, which comes with the package. The sample photos are the first of each class in
the test set of CIFAR-10, which the model was not trained on. The digits are real scans of 8x8 pixels that come with
scikit-learn. The demo takes about two minutes on 2 cores.
"""

import argparse
import pathlib
import tempfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_t2t
from keras_t2t.data import from_arrays
from keras_t2t.training import load_recipe, train

PHOTOS = sorted((pathlib.Path(__file__).parent / "images").glob("*.jpg"))


def classify_photos(paths: list[pathlib.Path]) -> None:
    """Prints the top two predictions of the pretrained model for each photo."""
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    for path, predictions in zip(paths, keras_t2t.predict_images(model, paths, top=2), strict=True):
        (first, first_probability), (second, second_probability) = predictions
        print(f"  {path.name:16} {first:>10} {first_probability:6.1%}   or {second} {second_probability:.1%}")


def read_digits(output: str, epochs: int) -> float:
    """Fine-tunes the same backbone on digits and returns the accuracy on held-out digits."""
    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype("uint8")
    train_images, val_images, train_labels, val_labels = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    sources = {"train": from_arrays(train_images, train_labels), "val": from_arrays(val_images, val_labels)}
    recipe = load_recipe("finetune", len(train_images), "t2t_vit_tiny_32")
    # Digits need milder augmentation than photos. A mirrored digit is not a digit.
    recipe = recipe.replace(epochs=epochs, flip=False, crop_scale=(0.7, 1.0), rand_augment_num_ops=0)
    _, history = train(recipe, sources, output, weights="cifar10")
    return history[-1]["ema_val_accuracy"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=pathlib.Path, default=PHOTOS, help="image files to classify")
    parser.add_argument("--output", help="folder for the fine-tuned model; not saved by default")
    parser.add_argument("--epochs", type=int, default=8, help="number of epochs of fine-tuning")
    options = parser.parse_args(arguments)

    print('Predictions of T2TViTTiny32(weights="cifar10"):')
    classify_photos(options.photos)
    print("Fine-tuning on 1,437 handwritten digits:")
    with tempfile.TemporaryDirectory() as folder:
        accuracy = read_digits(options.output or folder, options.epochs)
    print(f"Held-out digits classified correctly: {accuracy:.1%}")


if __name__ == "__main__":
    main()
