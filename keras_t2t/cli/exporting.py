"""Commands that export models and benchmark them in their runtimes."""

import pathlib
import tempfile
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from keras_t2t.cli.app import EXPORT, check_picture, command, existing_path, print_table
from keras_t2t.cli.libraries import load_libraries, native_messages_hidden
from keras_t2t.cli.models import Model, Models, check_kind, model_file, open_model
from keras_t2t.export_formats import DEFAULT_OPSET, check_destination, check_settings, is_exported, resolve_format

DEFAULT_BATCH_SIZES = [8]


@command("export", EXPORT)
def export_command(
    model: Model,
    output: Annotated[pathlib.Path, typer.Option(help=".tflite, .onnx or .xml file, or folder of a SavedModel, to write.")],
    format: Annotated[
        str | None, typer.Option(help="tflite, onnx, openvino or saved_model. Defaults to the extension of --output.")
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            help="For tflite: float16, int8 or full_int8 (needs --calibration). For onnx: int8. For openvino: float16 or "
            "bfloat16. For saved_model: bfloat16."
        ),
    ] = None,
    calibration: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder of real images to calibrate full_int8.", callback=existing_path),
    ] = None,
    samples: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Folder of images for the comparison. Defaults to --calibration, or ten sample photos.", callback=existing_path
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=0, help="Batch size of a TFLite file, or 0 for any size. The other formats accept any.")
    ] = 1,
    opset: Annotated[
        int, typer.Option(help="Version of the operations in an ONNX file, such as 13 for older runtimes.")
    ] = DEFAULT_OPSET,
    input_dtype: Annotated[str, typer.Option(help="Dtype of the images: float32 or uint8.")] = "float32",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="For float32, float16 and bfloat16, the maximum difference relative to the largest logit (default 1e-4, 1e-2 "
            "and 1e-1). For 8 bits, the minimum fraction of images with the same top class or decision (default 0.9)."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file or SavedModel.")] = False,
    operators: Annotated[bool, typer.Option("--operators", help="List the operators in the file.")] = False,
) -> None:
    """Export a model to TFLite, ONNX, OpenVINO or a SavedModel, and check the file in its own runtime.

    Example: keras-t2t export t2t_vit_tiny_32:cifar10 --output model.tflite --quantize int8
    """
    if quantize != "full_int8":  # no ranges to measure: the images are for the comparison
        samples, calibration = samples or calibration, None
    format = resolve_format(output, format)
    check_settings(format, quantize, batch_size or None, opset, input_dtype, calibration)
    check_kind(model, exported=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    check_destination(output, force)
    load_libraries()
    from keras_t2t.exporting import export as export_model

    keras_model = open_model(model)
    with native_messages_hidden():
        report = export_model(
            keras_model,
            output,
            format,
            quantize=quantize,
            batch_size=batch_size or None,
            opset=opset,
            input_dtype=input_dtype,
            calibration=calibration,
            samples=samples,
            tolerance=tolerance,
            force=force,
        )
    print(report)
    if operators:
        print(report.list_operators())


@command("benchmark", EXPORT)
def benchmark_command(
    models: Models,
    batch: Annotated[
        list[int], typer.Option(min=1, help="Batch size for the throughput. May be repeated.")
    ] = DEFAULT_BATCH_SIZES,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds to spend on each file and batch size.")] = 2.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads. Defaults to all available cores.")] = None,
    picture: Annotated[pathlib.Path | None, typer.Option(help="PNG file for a bar chart of the results.")] = None,
) -> None:
    """Benchmark models in their runtimes, side by side.

    Latency is the median time for one image. Each file runs in a separate process. Peak memory is that of the whole process:
    Python, NumPy, the runtime and the model with the largest batch. Only SavedModels and .keras files load TensorFlow.

    Example: keras-t2t benchmark model.tflite model.onnx --picture latency.png
    """
    check_picture(picture)
    load_libraries()
    from keras_t2t.exporting import benchmark as benchmarks

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
    """Returns a file of the model that can be measured. If it has none, the model is saved into `folder`."""
    path = model_file(name)
    if path is not None and (path.suffix == ".keras" or is_exported(path)):
        return path
    saved = folder / f"{name.replace(':', '-').replace('/', '-')}.keras"
    open_model(name).save(saved)
    return saved
