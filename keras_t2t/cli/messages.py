"""The words of messages: options instead of Python arguments, and large numbers with units."""

import re
from collections.abc import Sequence
from typing import Any


def in_options(message: str, parameters: Sequence[Any]) -> str:
    """Returns an error message of the Python interface in terms of the options of a command.

    `received: batch_size=3` becomes `received: --batch-size 3`, for example.

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
    return message


def with_unit(number: float) -> str:
    """Returns a number with three digits and its unit: 21545550 becomes `21.5 M`. Small numbers are returned as they are."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if number >= size:
            digits = 2 - min(len(str(int(number / size))) - 1, 2)
            return f"{number / size:.{digits}f} {unit}"
    return f"{number:,}"
