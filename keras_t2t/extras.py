"""Optional packages, what to install where one is missing, and YAML files, which need one."""

import importlib
import os
import pathlib
from typing import Any


def import_extra(module: str, need: str, extra: str) -> Any:
    """Returns a module of an optional package.

    Args:
        module: Name of the module.
        need: What needs which package, such as `"Recipes need PyYAML"`.
        extra: The extra of this package that installs it.

    Raises:
        ImportError: If the module is not installed or cannot be imported. The message says how to install it, or why.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ImportError(f'{need}: pip install "keras-t2t[{extra}]"') from error
        raise ImportError(f"{need}, which is installed but cannot be imported: {error}") from error


def yaml_module() -> Any:
    """Returns PyYAML; see `import_extra`."""
    return import_extra("yaml", "Recipes need PyYAML", "train")


def read_yaml(path: str | os.PathLike) -> Any:
    """Returns what a YAML file contains.

    Args:
        path: Path of the file.

    Raises:
        ImportError: If PyYAML is not installed.
        OSError: If the file cannot be read.
        ValueError: If it is not a YAML file.
    """
    yaml = yaml_module()
    try:
        return yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read {path} as YAML: {' '.join(str(error).split())}") from error
