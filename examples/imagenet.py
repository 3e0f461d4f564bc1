"""Trains a T2T-ViT on ImageNet from scratch with the authors' recipe, on all devices of this machine.

    python examples/imagenet.py --data-dir /data/tensorflow_datasets
    python examples/imagenet.py --model t2t_vit_24 --output runs/t2t_vit_24

You have to download ImageNet manually. If TensorFlow Datasets does not find it, it tells you how. The authors report 81.5%
top-1 for T2T-ViT-14 after 310 epochs. We have not tried to reproduce this with this package. For several machines, see
`several_machines.py`.
"""

import argparse

from keras_t2t.data import open_data
from keras_t2t.training import load_recipe, make_strategy, train

RECIPES = {"t2t_vit_7": "imagenet_lite", "t2t_vit_10": "imagenet_lite", "t2t_vit_12": "imagenet_lite"}
RECIPES |= {f"t2t_vit_{depth}": "imagenet_large" for depth in ("19", "24", "t_19", "t_24")}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="tfds:imagenet2012")
    parser.add_argument("--data-dir", help="data folder of TensorFlow Datasets")
    parser.add_argument("--output", default="runs/imagenet")
    parser.add_argument("--model", default="t2t_vit_14")
    parser.add_argument("--epochs", type=int, help="number of epochs, without warm-up and cool-down, instead of the recipe's")
    parser.add_argument("--batch-size", type=int, default=512, help="across all devices")
    parser.add_argument("--dtype", default="float32", help="float32, mixed_bfloat16, or mixed_float16")
    options = parser.parse_args(arguments)

    strategy = make_strategy("mirrored")
    sources = open_data(options.data, options.data_dir)
    recipe = load_recipe(RECIPES.get(options.model, "imagenet"), model=options.model)
    recipe = recipe.replace(batch_size=options.batch_size, dtype=options.dtype)
    if options.epochs:
        recipe = recipe.replace(epochs=options.epochs, warmup_epochs=0, cooldown_epochs=0)
    _, history = train(recipe, sources, options.output, strategy=strategy)
    last = history[-1]
    print(f"Top-1 {last['val_accuracy']:.2%}, moving average {last['ema_val_accuracy']:.2%}")


if __name__ == "__main__":
    main()
