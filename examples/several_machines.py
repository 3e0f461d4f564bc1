"""Trains on several machines or processes with JAX. Run the same script on each, with a different `--process`.

    KERAS_BACKEND=jax python examples/several_machines.py flowers --coordinator 10.0.0.1:9911 --processes 2 --process 0
    KERAS_BACKEND=jax python examples/several_machines.py flowers --coordinator 10.0.0.1:9911 --processes 2 --process 1

All processes need the same data and the same output folder on shared storage. Each trains on its own part of every batch, and
the first one writes the files. If one process ends, the others end with an error. If you restart them all, training resumes
from the last finished epoch. On TPU pods and under Slurm or MPI, `--coordinator auto` is enough. `keras-t2t train --strategy
jax` does the same from the command line.
"""

import argparse

from keras_t2t.data import open_data
from keras_t2t.training import load_recipe, make_strategy, train
from keras_t2t.training.distribution import this_process


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder, or tfds:NAME")
    parser.add_argument("--coordinator", help="HOST:PORT of the first process, or auto")
    parser.add_argument("--processes", type=int, help="number of processes")
    parser.add_argument("--process", type=int, help="index of this process, starting at 0")
    parser.add_argument("--output", default="runs/several_machines")
    parser.add_argument("--model", default="t2t_vit_14")
    parser.add_argument("--epochs", type=int, help="number of epochs, instead of the recipe's")
    options = parser.parse_args(arguments)

    strategy = make_strategy("jax", 0, options.coordinator, options.processes, options.process)  # must come first
    sources = open_data(options.data)
    recipe = load_recipe("finetune", len(sources["train"]), options.model)
    if options.epochs:
        recipe = recipe.replace(epochs=options.epochs)
    _, history = train(recipe, sources, options.output, strategy=strategy)
    if this_process()[0] == 0:
        print(f"Held-out accuracy {history[-1]['ema_val_accuracy']:.1%}")


if __name__ == "__main__":
    main()
