"""The learning curves and the model card of a training run."""

import pathlib
from collections.abc import Mapping

import keras

from keras_t2t import run_files
from keras_t2t.data import ImageSource
from keras_t2t.errors import counted
from keras_t2t.figures import new_figure
from keras_t2t.recipes import Recipe
from keras_t2t.sharing import card_text
from keras_t2t.training.callbacks import accuracy_of


def draw_curves(history: list[dict], path: pathlib.Path) -> None:
    """Saves a plot of the loss, the accuracy, and the learning rate of all epochs as a PNG."""
    figure = new_figure(11, 3.6)
    panels: dict[str, dict[str, str | None]] = {
        "loss": {"loss": "training", "val_loss": "validation", "ema_val_loss": "validation, averaged weights"},
        "accuracy": {"accuracy": "training", "val_accuracy": "validation", "ema_val_accuracy": "validation, averaged weights"},
        "learning rate": {"learning_rate": None},
    }
    for axes, (title, curves) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for (name, label), style in zip(curves.items(), ("-", "--", "-."), strict=False):
            points = [(row["epoch"], row[name]) for row in history if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, marker="." if len(points) < 30 else None)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        if title != "learning rate":
            axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def model_card(
    model: keras.Model,
    recipe: Recipe,
    sources: Mapping[str, ImageSource],
    history: list[dict],
    command: str,
    dataset: str | None = None,
) -> str:
    """Returns the model card of a training run, in the form of the Hugging Face Hub.

    Args:
        model: The trained model.
        recipe: Recipe of the run.
        sources: Images by split: `"train"` and the split that the model was evaluated on.
        history: Logs of all epochs.
        command: Command that trained the model.
        dataset: Name of the dataset. Without it, the head of the card has no metrics.
    """
    last, best = history[-1], max(history, key=accuracy_of)
    held_out = next(split for split in sources if split != "train")
    counts = ", ".join(f"{len(source):,} in {split}" for split, source in sources.items())
    prefix = "ema_val_" if recipe.ema_momentum else "val_"
    name = f"{recipe.model} on {dataset or counted(len(sources['train'].classes), 'class')}"
    sections = [
        "## Training",
        "",
        f"Trained with `{command}`.",
        "",
        f"- Images: {counts}.",
        f"- Epochs: {last['epoch']:.0f} of {recipe.total_epochs}.",
        f"- `{run_files.MODEL}` contains the moving average of the weights."
        if recipe.ema_momentum
        else f"- `{run_files.MODEL}` contains the weights of the last step.",
        f"- `{run_files.BEST}` contains the weights after epoch {best['epoch']:.0f}, which has the best validation accuracy.",
        "",
        "| Metric | After the last epoch |",
        "|---|---|",
        *(f"| {metric} | {value:.4f} |" for metric, value in last.items() if metric.startswith(("val_", "ema_val_"))),
        "",
        f"The metrics are measured on the {held_out} images. The prefix `ema_` marks those of the averaged weights.",
        "",
        "## Recipe",
        "",
        "```yaml",
        recipe.to_yaml().rstrip(),
        "```",
        "",
    ]
    return card_text(
        model,
        name,
        run_files.MODEL,
        sections,
        metrics={metric.removeprefix(prefix): value for metric, value in last.items() if metric.startswith(prefix)},
        dataset=dataset,
        split="validation" if held_out == "val" else held_out,
    )
