"""Models on their way to servers, phones and browsers: the inference graph, the formats, the runtimes."""

from keras_t2t.deploy.export import export
from keras_t2t.deploy.inference_graph import optimize_for_inference
from keras_t2t.deploy.report import ExportError, ExportReport
from keras_t2t.deploy.runtimes import Runtime, open_exported

__all__ = ["ExportError", "ExportReport", "Runtime", "export", "open_exported", "optimize_for_inference"]
