"""Commands for models on their way to phones, boards and servers."""

import pathlib
import tempfile
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from keras_t2t.cli.app import app, check_picture, print_table
from keras_t2t.cli.models import MODEL_HELP, model_file, open_model
from keras_t2t.exporting import benchmark as benchmarks
from keras_t2t.exporting import export as export_model


@app.command("export")
def export_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    output: Annotated[pathlib.Path, typer.Option(help="A .tflite or .onnx file, or the folder of a SavedModel.")],
    format: Annotated[
        str | None, typer.Option(help="tflite, onnx or saved_model; by default what the ending of --output says.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="float16, int8 or full_int8 (needs --calibration) for tflite; int8 for onnx.")
    ] = None,
    calibration: Annotated[
        pathlib.Path | None, typer.Option(help="A folder of real images, to measure the ranges of full_int8 on.")
    ] = None,
    samples: Annotated[
        pathlib.Path | None,
        typer.Option(help="A folder of images to compare on; by default those of --calibration, or ten photographs."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="The batch of a TFLite file; the other formats take any.")] = 1,
    input_dtype: Annotated[str, typer.Option(help="float32 or uint8.")] = "float32",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="The largest difference of logits, over the largest, by default 1e-4, and 1e-2 for float16; for 8 bits the "
            "least part of images with the same likeliest class, by default 0.9."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
):
    """Export a model to a file for a runtime, which is checked by running it there."""
    keras_model = open_model(model)
    if quantize != "full_int8":  # needs no ranges
        samples, calibration = samples or calibration, None
    report = export_model(
        keras_model,
        output,
        format,
        quantize=quantize,
        batch_size=batch_size,
        input_dtype=input_dtype,
        calibration=calibration,
        samples=samples,
        tolerance=tolerance,
        force=force,
    )
    print(report)


@app.command("benchmark")
def benchmark_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODEL_HELP)],
    batch: Annotated[list[int], typer.Option(min=1, help="A batch size to measure the throughput at; may be repeated.")] = (8,),
    seconds: Annotated[float, typer.Option(min=0, help="How long to measure each file at each batch size.")] = 2.0,
    threads: Annotated[int | None, typer.Option(min=1, help="By default all cores of this process.")] = None,
    picture: Annotated[pathlib.Path | None, typer.Option(help="A PNG file for the same figures as bars.")] = None,
):
    """Measure models in their runtimes, side by side.

    Latency is that of one image, the median. Each file has a process of its own. Its peak memory is that of the whole process:
    Python, numpy, the runtime and the model with the largest batch. TensorFlow is in it for SavedModels and .keras files alone.
    """
    check_picture(picture)
    batches = tuple(dict.fromkeys(batch))
    rates = [f"images/s at {size}" for size in batches]
    table = Table("model", "runtime", "latency, ms", *rates, "peak memory, MiB", "size, MB")
    with tempfile.TemporaryDirectory() as folder:
        files = [_measurable_file(name, pathlib.Path(folder)) for name in models]
        measurements = [benchmarks.measure(file, batches, seconds, threads) for file in files]
    for each in measurements:
        table.add_row(
            Text(each.path.name),
            each.runtime,
            f"{1e3 * each.latency:.2f}",
            *(f"{each.throughput[size]:.1f}" for size in batches),
            f"{each.memory / 2**20:.0f}",
            f"{each.size / 1e6:.2f}",
        )
    print_table(table)
    if picture:
        benchmarks.draw(measurements, picture)
        print(f"Wrote {picture}")


def _measurable_file(name, folder):
    """Returns the file of a model that can be measured: its own, or one that is saved into a folder."""
    path = model_file(name)
    if path is not None and (path.suffix in (".keras", ".tflite", ".onnx") or path.is_dir()):
        return path
    saved = folder / f"{name.replace(':', '-').replace('/', '-')}.keras"
    open_model(name).save(saved)
    return saved
