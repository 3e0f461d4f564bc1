"""Trains a small T2T-ViT on CIFAR-10 from scratch, first at 24x24 pixels and then at 32x32.

    python examples/cifar10.py                     downloads CIFAR-10 with TensorFlow Datasets
    python examples/cifar10.py --data cifar10      uses a folder with train/CLASS/ and test/CLASS/

An epoch at 24x24 has half as many tokens and takes half the time. For the second part, the position embedding is resized. The
weights that ship with the package were trained for much longer, on a GPU: see `saved_models/README.md`.
"""

import argparse

from keras_t2t.data import open_data
from keras_t2t.training import load_recipe, train


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="tfds:cifar10")
    parser.add_argument("--output", default="runs/cifar10")
    parser.add_argument("--epochs", type=int, nargs=2, default=(30, 14), help="number of epochs at 24x24 and at 32x32")
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args(arguments)

    sources = open_data(options.data)
    recipe = load_recipe("small_images").replace(batch_size=options.batch_size)
    small = recipe.replace(image_size=24, epochs=options.epochs[0], warmup_epochs=2, learning_rate=1e-3, token_drop_rate=0.0)
    small = small.replace(crop_mode="resized", crop_scale=(0.5, 1.0))
    train(small, sources, f"{options.output}-24")
    large = recipe.replace(epochs=options.epochs[1], warmup_epochs=0, learning_rate=6e-4)
    _, history = train(large, sources, options.output, weights=f"{options.output}-24/model.keras")
    print(f"Test accuracy {history[-1]['ema_val_accuracy']:.1%}. The model is {options.output}/model.keras")


if __name__ == "__main__":
    main()
