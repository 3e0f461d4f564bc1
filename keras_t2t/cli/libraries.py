"""Loads TensorFlow and Keras for a command, without their messages."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def set_verbosity(verbose: bool) -> None:
    """Chooses which messages of TensorFlow and Keras are shown: all of them if `verbose` is `True`, otherwise errors only.

    The environment variable `TF_CPP_MIN_LOG_LEVEL` has priority over `verbose`; 0 shows everything. If TensorFlow has been
    imported already, messages are left as they are.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(LOG_LEVEL, "0" if verbose else "3")
        if not _shows_everything():
            _hide_python_messages()


def load_libraries() -> None:
    """Imports TensorFlow and Keras. Commands call this before they import anything else that needs them."""
    with native_messages_hidden():
        import tensorflow  # noqa: F401  writes messages before it reads its log level

        from keras_t2t.training.distribution import keep_tensorflow_off_accelerators

        keep_tensorflow_off_accelerators()


@contextlib.contextmanager
def native_messages_hidden() -> Iterator[None]:
    """Hides what libraries in C++ write to standard error, unless everything is to be shown. Exceptions are not affected."""
    if _shows_everything():
        yield
        return
    screen = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def _shows_everything():
    return os.environ.get(LOG_LEVEL) == "0"


def _hide_python_messages():
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module="(?!keras_t2t)")
