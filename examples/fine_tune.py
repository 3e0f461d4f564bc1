"""Fine-tunes a published T2T-ViT on a folder of your own photographs, with one subfolder for each class.

    python examples/fine_tune.py flowers --output runs/flowers

It starts from the authors' ImageNet weights, which are downloaded the first time; the recipe depends on the number of images.
Interrupt it whenever you like: the same command goes on. `keras-t2t train --data flowers` does the same from the shell.
"""

import argparse

import keras_t2t
from keras_t2t.data import from_folder
from keras_t2t.training import evaluate, load_recipe, train


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--output", default="runs/fine_tune")
    parser.add_argument("--model", default="t2t_vit_14")
    parser.add_argument("--weights", default="imagenet", help="published weights, a file, or none")
    parser.add_argument("--epochs", type=int, help="instead of those that the recipe chooses")
    options = parser.parse_args(arguments)

    sources = from_folder(options.folder)
    recipe = load_recipe("finetune", len(sources["train"]), options.model)
    if options.epochs:
        recipe = recipe.replace(epochs=options.epochs)
    weights = None if options.weights == "none" else options.weights
    model, _ = train(recipe, sources, options.output, weights)

    report = evaluate(model, sources["val"])
    print(f"{options.output}/model.keras knows {', '.join(keras_t2t.labels_of(model))}; held-out accuracy {report.top1:.1%}:")
    for name, accuracy in zip(report.classes, report.class_accuracies, strict=True):
        print(f"  {name:20} {accuracy:.1%}")


if __name__ == "__main__":
    main()
