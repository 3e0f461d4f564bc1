"""The distribution strategies by name, with checks that need no devices: no Keras."""

from keras_t2t.errors import did_you_mean

STRATEGIES = ("none", "mirrored", "tpu", "jax")


def check_strategy_options(
    strategy: str, cpu_devices: int, coordinator: str | None, processes: int | None, process: int | None
) -> None:
    """Checks that a distribution strategy exists, and that the other arguments of `make_strategy` suit it.

    Raises:
        ValueError: If the strategy does not exist, or does not match the other arguments.
    """
    if strategy not in STRATEGIES:
        hint = did_you_mean(strategy, STRATEGIES)
        raise ValueError(f"Expected strategy to be one of {STRATEGIES}; received: strategy={strategy!r}{hint}")
    if strategy in ("none", "tpu") and cpu_devices:
        raise ValueError(f"Expected the strategy 'mirrored' or 'jax' to split the CPU; received: {strategy=}, {cpu_devices=}")
    if strategy != "jax" and (coordinator, processes, process) != (None, None, None):
        raise ValueError(f"Expected the strategy 'jax' for several processes; received: strategy={strategy!r}")
