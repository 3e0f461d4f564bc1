"""Names what is on ten small photographs, then teaches the same model to read handwritten digits.

    ./scripts/demo                     the same as python examples/demo.py, after setting up .venv
    ./scripts/demo photograph.jpg      other photographs of an airplane, a car, a bird, a cat, a deer, a dog, ...

The model is `T2TViTTiny32(weights="cifar10")`, which comes with the package. The photographs are the first of each class of
CIFAR-10's test set, which it was not trained on; the digits are real scans of 8x8 pixels that come with scikit-learn. It takes
about two minutes on 2 cores.
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

PHOTOGRAPHS = sorted((pathlib.Path(__file__).parent / "images").glob("*.jpg"))


def name_photographs(paths):
    """Prints what the shipped model sees on each photograph."""
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    for path, predictions in zip(paths, keras_t2t.predict_images(model, paths, top=2), strict=True):
        (best, probability), (second, next_probability) = predictions
        print(f"  {path.name:16} {best:>10} {probability:6.1%}   or {second} {next_probability:.1%}")


def read_digits(output, epochs):
    """Fine-tunes the same body on digits; returns the accuracy on held-out ones."""
    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype("uint8")
    parts = train_test_split(images, digits.target, test_size=360, stratify=digits.target, random_state=0)
    sources = {"train": from_arrays(parts[0], parts[2]), "val": from_arrays(parts[1], parts[3])}
    recipe = load_recipe("finetune", len(parts[0]), "t2t_vit_tiny_32")
    recipe = recipe.replace(
        epochs=epochs, flip=False, crop_scale=(0.7, 1.0), rand_augment_num_ops=0
    )  # digits are no photographs
    _, history = train(recipe, sources, output, weights="cifar10")
    return history[-1]["ema_val_accuracy"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="*", type=pathlib.Path, default=PHOTOGRAPHS)
    parser.add_argument("--output", help="a folder for the fine-tuned model; by default it is not kept")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args(arguments)

    print('What T2TViTTiny32(weights="cifar10") sees:')
    name_photographs(options.photographs)
    print("Fine-tuning it on 1,437 handwritten digits:")
    with tempfile.TemporaryDirectory() as folder:
        accuracy = read_digits(options.output or folder, options.epochs)
    print(f"Held-out digits read correctly: {accuracy:.1%}")


if __name__ == "__main__":
    main()
