"""The learning curves and the model card of a training run."""

import pathlib
from collections.abc import Mapping

from keras_t2t.data import ImageSource
from keras_t2t.figures import new_figure
from keras_t2t.training.callbacks import accuracy_of
from keras_t2t.training.recipe import Recipe


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


def model_card(recipe: Recipe, sources: Mapping[str, ImageSource], history: list[dict], command: str) -> str:
    """Returns the model card of a training run as Markdown.

    Args:
        recipe: Recipe of the run.
        sources: Images by split: `"train"` and the split that the model was evaluated on.
        history: Logs of all epochs.
        command: Command that trained the model.
    """
    last, best = history[-1], max(history, key=accuracy_of)
    metrics = [f"| {name} | {last[name]:.4f} |" for name in last if name.startswith(("val_", "ema_val_"))]
    held_out = next(split for split in sources if split != "train")
    counts = ", ".join(f"{len(source):,} in {split}" for split, source in sources.items())
    lines = [
        f"# {recipe.model} on {len(sources['train'].classes)} classes",
        "",
        f"Trained with `{command}`.",
        "",
        f"- Images: {counts}; {recipe.image_size}x{recipe.image_size} pixels, normalized inside the model.",
        f"- Classes: {', '.join(sources['train'].classes)}.",
        f"- Epochs: {last['epoch']:.0f} of {recipe.total_epochs}.",
        "- `model.keras` contains the moving average of the weights."
        if recipe.ema_momentum
        else "- `model.keras` contains the weights of the last step.",
        f"- `best.weights.h5` contains the weights after epoch {best['epoch']:.0f}, which has the best validation accuracy.",
        "",
        "| Metric | After the last epoch |",
        "|---|---|",
        *metrics,
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
    return "\n".join(lines)
