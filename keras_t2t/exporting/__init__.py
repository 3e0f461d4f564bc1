"""Export of models to servers, phones and browsers, with a check of every file in its own runtime."""

from keras_t2t.errors import ExportError
from keras_t2t.exporting.exporter import export
from keras_t2t.exporting.report import ExportReport
from keras_t2t.exporting.runtimes import open_exported
from keras_t2t.runtime import Runtime

__all__ = ["ExportError", "ExportReport", "Runtime", "export", "open_exported"]
