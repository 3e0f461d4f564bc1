"""The words of error messages: options instead of Python arguments."""

import re
from collections.abc import Sequence
from typing import Any


def in_options(message: str, parameters: Sequence[Any]) -> str:
    """Returns an error message of the Python interface in terms of the options of a command.

    `received: batch_size=3` becomes `received: --batch-size 3`, for example, and `cache=False in the recipe` becomes
    `--set cache=false`.

    Args:
        message: The error message.
        parameters: The parameters of the Click command.
    """
    for parameter in parameters:
        if parameter.opts[0].startswith("--"):
            option, name = parameter.opts[0], re.escape(parameter.name)
            message = re.sub(rf"(?<![\w/.`-]){name}=None\b", f"no {option}", message)
            message = re.sub(rf"(?<![\w/.`-]){name}=True\b", option, message)
            message = re.sub(rf"(?<![\w/.`-]){name}=(?=\S)", f"{option} ", message)
            message = re.sub(rf"(?<=Expected ){name}(?= to be )", option, message)
        if parameter.opts[0] == "--set":
            message = re.sub(r"(\w+)=(\w+) in the recipe", lambda hint: f"--set {hint[1]}={hint[2].lower()}", message)
    return message
