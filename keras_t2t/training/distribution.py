"""Training on several devices or machines, with the distribution APIs of TensorFlow and JAX.

None of this has been run on a TPU or on several GPUs yet, only on CPUs split into several devices and on several processes of
one machine.
"""

import contextlib
from typing import Any

import keras
import numpy as np

from keras_t2t.strategies import check_strategy_options

LOST_CONNECTION_STATUSES = ("ABORTED:", "CANCELLED:", "DEADLINE_EXCEEDED:", "INTERNAL:", "UNAVAILABLE:", "UNKNOWN:")
SHUTDOWN_TIMEOUT = 10
"""Number of seconds that a process waits for the others when it ends."""


def make_strategy(
    strategy: str,
    cpu_devices: int = 0,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> Any:
    """Returns a distribution strategy, which splits each batch across devices.

    Args:
        strategy: `"none"`; on the TensorFlow backend, `"mirrored"` (`tf.distribute.MirroredStrategy` on all devices of the
            machine) or `"tpu"` (`tf.distribute.TPUStrategy`); on the JAX backend, `"jax"` (`keras.distribution.DataParallel` on
            all devices of all processes).
        cpu_devices: Number of devices to split the CPU into, to try a strategy without accelerators. Requires that the backend
            has not been used yet.
        coordinator: `HOST:PORT` of the first of several processes, the same for all of them. Use `"auto"` on TPU pods and under
            Slurm or MPI, where JAX detects it. Only for `"jax"`.
        processes: Number of processes.
        process: Index of this process, starting at 0.

    Returns:
        An object with a `scope()` method, or `None` for `"none"`.

    Raises:
        ValueError: If the strategy does not exist, or does not match the Keras backend or the other arguments.
        RuntimeError: If the CPU cannot be split because the backend has been used already.
    """
    check_strategy_options(strategy, cpu_devices, coordinator, processes, process)
    keep_tensorflow_off_accelerators()
    if strategy == "none":
        return None
    needed = "jax" if strategy == "jax" else "tensorflow"
    if keras.backend.backend() != needed:
        raise ValueError(
            f"Expected the Keras backend {needed!r} for the strategy {strategy!r}; received: {keras.backend.backend()!r}. Set "
            f"KERAS_BACKEND={needed}"
        )
    if strategy == "tpu":
        return _tpu()
    return _mirrored(cpu_devices) if strategy == "mirrored" else _jax(cpu_devices, coordinator, processes, process)


def keep_tensorflow_off_accelerators() -> None:
    """Keeps TensorFlow from claiming GPU memory when it only reads images for another backend."""
    if keras.backend.backend() != "tensorflow":
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")


def _tpu():
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def _mirrored(cpu_devices):
    import tensorflow as tf

    if cpu_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_devices)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _jax(cpu_devices, coordinator, processes, process):
    import jax

    if coordinator is None and (processes, process) != (None, None):
        raise ValueError(f"Expected a coordinator (HOST:PORT of the first process); received: {processes=}, {process=}")
    if coordinator not in (None, "auto") and (processes is None or process not in range(processes)):
        raise ValueError(
            f"Expected the number of processes and the index of this process, starting at 0; received: {processes=}, {process=}"
        )
    if cpu_devices:
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    if coordinator is not None:
        jax.config.update("jax_enable_recoverability", True)  # otherwise, JAX aborts a process as soon as another one ends
        address = None if coordinator == "auto" else coordinator
        jax.distributed.initialize(address, processes, process, shutdown_timeout_seconds=SHUTDOWN_TIMEOUT)
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def building_scope(strategy: Any) -> contextlib.AbstractContextManager:
    """Returns the context to build a model and its optimizer in."""
    return strategy.scope() if strategy else contextlib.nullcontext()


def training_scope(strategy: Any) -> contextlib.AbstractContextManager:
    """Returns the context to call `fit` in. JAX needs the distribution there; TensorFlow finds it in the variables."""
    return strategy.scope() if isinstance(strategy, keras.distribution.DataParallel) else contextlib.nullcontext()


def distributable(batches: Any, strategy: Any) -> Any:
    """Returns a dataset with an option that lets `strategy` start it quickly.

    `tf.distribute` starts a dataset again for every epoch and every evaluation. By default, TensorFlow then looks for possible
    optimizations in all functions of the program, which takes longer than a short epoch. The datasets of this package already
    run in parallel and prefetch.
    """
    if strategy is None or isinstance(strategy, keras.distribution.DataParallel):
        return batches
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return batches.with_options(options)


def device_count(strategy: Any) -> int:
    """Returns the number of devices that a strategy splits each batch across."""
    if strategy is None:
        return 1
    if isinstance(strategy, keras.distribution.DataParallel):
        return strategy.num_model_replicas
    return strategy.num_replicas_in_sync


def device_scope(device: str | None) -> contextlib.AbstractContextManager:
    """Returns the context to build and train a model in, so that it uses only one device.

    On TensorFlow, the other devices stay hidden for the rest of the process.

    Args:
        device: `"cpu"`, `"gpu"` (the first GPU), or `"gpu:1"` and so on. `None` leaves the choice to the backend.

    Raises:
        ValueError: If there is no such device.
        RuntimeError: If TensorFlow has been used already and would have to hide a device.
    """
    if device is None:
        return contextlib.nullcontext()
    gpus = _gpu_count()
    names = ["cpu", *(["gpu"] if gpus else []), *(f"gpu:{index}" for index in range(gpus))]
    if device not in names:
        none = "" if gpus else f" ({keras.backend.backend()} finds no GPU)"
        raise ValueError(f"Expected device to be {' or '.join(names)}{none}; received: {device=}")
    if keras.backend.backend() != "tensorflow":
        return keras.device(device)
    import tensorflow as tf

    index = int(device.partition(":")[2] or 0)
    visible = [] if device == "cpu" else tf.config.list_physical_devices("GPU")[index]
    tf.config.set_visible_devices(visible, "GPU")
    return contextlib.nullcontext()


def _gpu_count():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.device_count()
    import jax

    try:
        return len(jax.devices("gpu"))
    except RuntimeError:  # there is no such platform
        return 0


def describe_device(model: keras.Model, strategy: Any = None) -> str:
    """Returns the device that holds the weights of a model, such as `"gpu:0"`, or how many devices a strategy uses."""
    if strategy is not None:
        processes = this_process()[1]
        return f"{device_count(strategy)} devices" + (f" of {processes} processes" if processes > 1 else "")
    value = model.weights[0].value
    if keras.backend.backend() == "jax":
        (device,) = value.devices()
        return f"{device.platform}:{device.id}"
    return str(value.device).rpartition("device:")[2].lower()


def this_process() -> tuple[int, int]:
    """Returns the index of this process, starting at 0, and the number of processes."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def is_lost_connection(error: Exception) -> bool:
    """Returns whether an error means that another process has ended. JAX puts a status at the start of the message."""
    return this_process()[1] > 1 and str(error).startswith(LOST_CONNECTION_STATUSES)


def check_equal_everywhere(**values: int) -> None:
    """Checks that all processes have the same values. Otherwise, they would wait for each other forever.

    Raises:
        ValueError: If a value differs between processes.
    """
    if this_process()[1] == 1:
        return
    from jax.experimental import multihost_utils

    gathered = multihost_utils.process_allgather(np.array(list(values.values())))
    for name, column in zip(values, gathered.T.tolist(), strict=True):
        if len(set(column)) > 1:
            raise ValueError(
                f"Expected the same {name.replace('_', ' ')} in all processes; received: {column}. All processes need the same "
                "data and the same output folder"
            )
