"""Studies: the same recipe for many models, and tables of the results. `keras_t2t.training.run_study` trains them."""

from keras_t2t.studies.cells import Cell, Study, load_study
from keras_t2t.studies.results import Summary, confidence_interval, read_results, summarize, write_tables

__all__ = [
    "Cell",
    "Study",
    "Summary",
    "confidence_interval",
    "load_study",
    "read_results",
    "summarize",
    "write_tables",
]
