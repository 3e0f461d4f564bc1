"""Trains on several machines or processes with JAX: the same script on each, with the number of each.

    KERAS_BACKEND=jax python examples/several_machines.py flowers --coordinator 10.0.0.1:9911 --processes 2 --process 0
    KERAS_BACKEND=jax python examples/several_machines.py flowers --coordinator 10.0.0.1:9911 --processes 2 --process 1

All of them read the same data and the same output, on storage that they share; each takes its part of every batch, and the
first one writes. If one ends, the others do too, and say so; started again, all go on from the last finished epoch. On TPU pods
and under Slurm or MPI, `--coordinator auto` is enough. `keras-t2t train --strategy jax` does the same from the shell.
"""

import argparse

from keras_t2t.data import open_data
from keras_t2t.training import load_recipe, make_strategy, train
from keras_t2t.training.distribution import this_process


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder, or tfds:NAME")
    parser.add_argument("--coordinator", help="HOST:PORT of the first process, or auto")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    parser.add_argument("--output", default="runs/several_machines")
    parser.add_argument("--model", default="t2t_vit_14")
    parser.add_argument("--epochs", type=int, help="instead of those that the recipe chooses")
    options = parser.parse_args(arguments)

    strategy = make_strategy("jax", 0, options.coordinator, options.processes, options.process)  # before all else
    sources = open_data(options.data)
    recipe = load_recipe("finetune", len(sources["train"]), options.model)
    if options.epochs:
        recipe = recipe.replace(epochs=options.epochs)
    _, history = train(recipe, sources, options.output, strategy=strategy)
    if this_process()[0] == 0:
        print(f"Held-out accuracy {history[-1]['ema_val_accuracy']:.1%}")


if __name__ == "__main__":
    main()
