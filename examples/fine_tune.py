"""Fine-tunes a pretrained T2T-ViT on a folder of your own photos, with one subfolder per class.

    python examples/fine_tune.py flowers --output runs/flowers

Training starts from the authors' ImageNet weights, which are downloaded the first time. The recipe depends on the number of
images. You can interrupt training at any time and run the same command again to resume.
`keras-t2t train --data flowers --model t2t_vit_14:imagenet --output runs/flowers` does the same from the command line.
"""

import argparse

import keras_t2t
from keras_t2t.data import from_folder
from keras_t2t.training import evaluate, load_recipe, train


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--output", default="runs/fine_tune")
    parser.add_argument("--model", default="t2t_vit_14")
    parser.add_argument("--weights", default="imagenet", help="name of pretrained weights, a file, or none")
    parser.add_argument("--epochs", type=int, help="number of epochs, instead of the recipe's")
    options = parser.parse_args(arguments)

    sources = from_folder(options.folder)
    recipe = load_recipe("finetune", len(sources["train"]), options.model)
    if options.epochs:
        recipe = recipe.replace(epochs=options.epochs)
    weights = None if options.weights == "none" else options.weights
    model, _ = train(recipe, sources, options.output, weights)

    report = evaluate(model, sources["val"])
    print(f"Saved {options.output}/model.keras with the classes {', '.join(keras_t2t.labels_of(model))}")
    print(f"Held-out accuracy {report.top1:.1%}:")
    for name, accuracy in zip(report.classes, report.class_accuracies, strict=True):
        print(f"  {name:20} {accuracy:.1%}")


if __name__ == "__main__":
    main()
