"""The results of a study: reading them, means with confidence intervals, tables, and pictures."""

import collections
import dataclasses
import json
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_t2t.extras import import_extra
from keras_t2t.figures import MARKERS, PALETTE, new_figure

RESULT = "result.json"
COSTS = "costs.json"


@dataclasses.dataclass(frozen=True)
class Summary:
    """The results of a model on a fraction of the training images, over all seeds.

    Attributes:
        model: Name of the model.
        fraction: Fraction of the training images.
        seeds: The seeds.
        accuracy: Mean validation accuracy in [0, 1] after the last epoch.
        interval: Half the width of the 95% confidence interval of the accuracy; NaN with a single seed.
        ema_accuracy: Mean accuracy of the averaged weights, or `None` if the recipe does not average.
        ema_interval: Half the width of its confidence interval, or `None`.
    """

    model: str
    fraction: float
    seeds: tuple[int, ...]
    accuracy: float
    interval: float
    ema_accuracy: float | None
    ema_interval: float | None


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and half the width of the 95% confidence interval, by Student's t distribution.

    Args:
        values: Independent measurements.

    Returns:
        `(mean, half_width)`. The half width is NaN for a single value.

    Raises:
        ImportError: If SciPy is not installed.

    Example:

    >>> from keras_t2t.studies import confidence_interval
    >>> mean, half_width = confidence_interval([0.6, 0.7])
    >>> round(mean, 3), round(half_width, 3)
    (0.65, 0.635)
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan")
    scale = import_extra("scipy.stats", "Confidence intervals need SciPy", "train").t.ppf(0.975, len(values) - 1)
    return mean, float(scale * np.std(values, ddof=1) / len(values) ** 0.5)


def read_results(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the results of all finished training runs in the folder of a study, in the order of their paths."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(pathlib.Path(folder).glob(f"*/fraction-*/seed-*/{RESULT}"))]


def summarize(results: Iterable[dict[str, Any]]) -> list[Summary]:
    """Returns the summary of each model and fraction: by fraction from large to small, then by accuracy from high to low."""
    groups = collections.defaultdict(list)
    for result in sorted(results, key=lambda result: result["seed"]):
        groups[result["model"], result["fraction"]].append(result)
    summaries = []
    for (model, fraction), group in groups.items():
        averaged = all("ema_accuracy" in result for result in group)
        ema = confidence_interval([result["ema_accuracy"] for result in group]) if averaged else (None, None)
        accuracy = confidence_interval([result["accuracy"] for result in group])
        summaries.append(Summary(model, fraction, tuple(result["seed"] for result in group), *accuracy, *ema))
    return sorted(summaries, key=lambda summary: (-summary.fraction, -summary.accuracy))


def write_tables(folder: str | os.PathLike) -> str:
    """Writes the tables of a study to its folder (`results.md` and `results.json`), and pictures (`accuracy.png` and, if there
    are several fractions, `fractions.png`). The tables include the costs in `costs.json`, if there is one.

    Args:
        folder: Folder of the study.

    Returns:
        The tables as Markdown.

    Raises:
        ImportError: If SciPy or matplotlib is not installed.
        ValueError: If the folder contains no results.
    """
    folder = pathlib.Path(folder)
    summaries = summarize(read_results(folder))
    if not summaries:
        raise ValueError(f"Expected a folder with the results of a study; found none in {folder}")
    costs = json.loads((folder / COSTS).read_text("utf-8")) if (folder / COSTS).exists() else {}
    whole = [summary for summary in summaries if summary.fraction == summaries[0].fraction]
    text = _accuracy_table(whole, costs)
    _draw_accuracies(whole, folder / "accuracy.png")
    by_model = _with_fractions(summaries)
    if by_model:
        text += "\n" + _fraction_table(by_model)
        _draw_fractions(by_model, folder / "fractions.png")
    (folder / "results.md").write_text(text, encoding="utf-8")
    rows = [{**dataclasses.asdict(summary), **costs.get(summary.model, {})} for summary in summaries]
    rows = [{name: None if value != value else value for name, value in row.items()} for row in rows]  # JSON has no NaN
    (folder / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return text


def _percent(mean, half_width):
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + ("" if math.isnan(half_width) else f" ± {100 * half_width:.1f}")


def _markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _accuracy_table(summaries, costs):
    header = ["model", "accuracy", "averaged weights", "seeds"]
    cost_columns = {
        "parameters": lambda cost: f"{cost['parameters'] / 1e6:.2f} M",
        "MACs": lambda cost: f"{cost['multiply_accumulates'] / 1e6:.0f} M",
        "latency": lambda cost: f"{cost['latency'] * 1e3:.1f} ms",
        "training images/s": lambda cost: f"{cost['training_images_per_second']:,.0f}",
    }
    rows = []
    for summary in summaries:
        row = [
            summary.model,
            _percent(summary.accuracy, summary.interval),
            _percent(summary.ema_accuracy, summary.ema_interval),
            str(len(summary.seeds)),
        ]
        if costs:
            row += [column(costs[summary.model]) if summary.model in costs else "-" for column in cost_columns.values()]
        rows.append(row)
    return _markdown([*header, *(cost_columns if costs else ())], rows)


def _with_fractions(summaries):
    """Returns the summaries of each model that was trained on less than the largest fraction, from small to large fractions."""
    groups: dict[str, list[Summary]] = {}
    for summary in summaries:
        groups.setdefault(summary.model, []).insert(0, summary)
    return {model: group for model, group in groups.items() if group[0].fraction < summaries[0].fraction}


def _fraction_table(by_model):
    fractions = sorted({summary.fraction for group in by_model.values() for summary in group})
    rows = []
    for model, group in by_model.items():
        cells = {summary.fraction: _percent(summary.accuracy, summary.interval) for summary in group}
        rows.append([model, *(cells.get(fraction, "-") for fraction in fractions)])
    return _markdown(["model", *(f"{100 * fraction:g}% of the images" for fraction in fractions)], rows)


def _draw_accuracies(summaries, path):
    """Draws the accuracy of each model with its confidence interval."""
    figure = new_figure(7, 1 + 0.32 * len(summaries))
    axes = figure.subplots()
    for position, summary in enumerate(reversed(summaries)):
        half_width = 0 if math.isnan(summary.interval) else 100 * summary.interval
        axes.errorbar(100 * summary.accuracy, position, xerr=half_width, fmt="o", capsize=3, color=PALETTE[0])
    axes.set_yticks(range(len(summaries)), [summary.model for summary in reversed(summaries)])
    axes.set_xlabel("accuracy in %, mean over the seeds and its 95% confidence interval")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def _draw_fractions(by_model, path):
    """Draws the accuracy of each model over the fraction of the training images."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for index, (model, group) in enumerate(by_model.items()):
        style = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)], "capsize": 3}
        fractions, accuracies = [100 * each.fraction for each in group], [100 * each.accuracy for each in group]
        axes.errorbar(fractions, accuracies, [100 * each.interval for each in group], label=model, **style)
    ticks = sorted({100 * each.fraction for group in by_model.values() for each in group})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}%" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="fraction of the training images, at an equal number of steps", ylabel="accuracy in %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
