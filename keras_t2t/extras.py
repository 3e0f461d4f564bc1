"""Optional packages, and what to install where one is missing."""

import importlib
from typing import Any


def import_extra(module: str, need: str, extra: str) -> Any:
    """Returns a module of an optional package.

    Args:
        module: Name of the module.
        need: What needs which package, such as `"Recipes need PyYAML"`.
        extra: The extra of this package that installs it.

    Raises:
        ImportError: If the module is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{need}: pip install "keras-t2t[{extra}]"') from error
