"""Training on several devices or machines, on the engines of TensorFlow and JAX.

None of this has been run on a TPU or on several GPUs yet, only on divided CPUs and on processes of one machine.
"""

import contextlib

import keras
import numpy as np

STRATEGIES = ("none", "mirrored", "tpu", "jax")
LOST = ("ABORTED:", "CANCELLED:", "DEADLINE_EXCEEDED:", "INTERNAL:", "UNAVAILABLE:", "UNKNOWN:")
SHUTDOWN_TIMEOUT = 10  # seconds that a process waits for the others when it ends


def make_strategy(
    strategy: str,
    cpu_devices: int = 0,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
):
    """Returns what divides batches over devices: a thing with a `scope()`; None for `"none"`.

    Args:
        strategy: `"none"`; on the TensorFlow backend `"mirrored"`, `tf.distribute.MirroredStrategy` over all devices of the
            machine, or `"tpu"`, `tf.distribute.TPUStrategy`; on the JAX backend `"jax"`, `keras.distribution.DataParallel` over
            all devices of all processes.
        cpu_devices: divides the CPU into so many devices first, to try a strategy without accelerators. The backend must not
            have been used before.
        coordinator: HOST:PORT of the first process, where there are several, the same for all of them; `"auto"` on TPU pods and
            under Slurm or MPI, where JAX finds out by itself. With `"jax"` only.
        processes: how many processes there are.
        process: the number of this one, from 0.

    Raises:
        ValueError: if the strategy does not exist or does not go with the backend of Keras or the other arguments.
        RuntimeError: if the backend was used before the CPU was to be divided.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Expected a strategy of {STRATEGIES}; received: {strategy!r}")
    if strategy in ("none", "tpu") and cpu_devices:
        raise ValueError("Only the strategies 'mirrored' and 'jax' divide the CPU into devices")
    if strategy != "jax" and (coordinator, processes, process) != (None, None, None):
        raise ValueError(f"Several processes need the strategy 'jax'; received: {strategy!r}")
    keep_tensorflow_off_accelerators()
    if strategy == "none":
        return None
    needed = "jax" if strategy == "jax" else "tensorflow"
    if keras.backend.backend() != needed:
        raise ValueError(
            f"The strategy {strategy!r} needs another backend of Keras than {keras.backend.backend()!r}: set "
            f"KERAS_BACKEND={needed}"
        )
    if strategy == "tpu":
        return _tpu()
    return _mirrored(cpu_devices) if strategy == "mirrored" else _jax(cpu_devices, coordinator, processes, process)


def keep_tensorflow_off_accelerators():
    """Where TensorFlow only reads images, on another backend, it must not take the memory of a GPU."""
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
        raise ValueError("Several processes need a coordinator, HOST:PORT of the first one")
    if coordinator not in (None, "auto") and (processes is None or process not in range(processes)):
        raise ValueError(
            f"Expected how many processes there are, and the number of this one, from 0; received: {processes=}, {process=}"
        )
    if cpu_devices:
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    if coordinator is not None:
        jax.config.update("jax_enable_recoverability", True)  # else JAX aborts a process as soon as another one ends
        address = None if coordinator == "auto" else coordinator
        jax.distributed.initialize(address, processes, process, shutdown_timeout_seconds=SHUTDOWN_TIMEOUT)
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def building_scope(strategy):
    """Returns the context that a model and its optimizer are made in."""
    return strategy.scope() if strategy else contextlib.nullcontext()


def training_scope(strategy):
    """Returns the context that `fit` runs in: JAX looks up the distribution there, TensorFlow finds it in the variables."""
    return strategy.scope() if isinstance(strategy, keras.distribution.DataParallel) else contextlib.nullcontext()


def device_count(strategy) -> int:
    """Returns over how many devices a strategy divides a batch."""
    if strategy is None:
        return 1
    if isinstance(strategy, keras.distribution.DataParallel):
        return strategy.num_model_replicas
    return strategy.num_replicas_in_sync


def this_process() -> tuple[int, int]:
    """Returns the number of this process, from 0, and how many there are."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def is_lost_connection(error: Exception) -> bool:
    """Whether an error comes from another process that has ended; JAX tells by the status at the beginning of the text."""
    return this_process()[1] > 1 and str(error).startswith(LOST)


def check_equal_everywhere(**values: int):
    """Raises `ValueError` if processes have different values, which would leave them waiting for each other."""
    if this_process()[1] == 1:
        return
    from jax.experimental import multihost_utils

    found = multihost_utils.process_allgather(np.array(list(values.values())))
    for name, column in zip(values, found.T.tolist(), strict=True):
        if len(set(column)) > 1:
            raise ValueError(
                f"Expected the same {name.replace('_', ' ')} in all processes; they have {column}. All need the same data and "
                "the same output"
            )
