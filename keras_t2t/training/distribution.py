"""Training on several devices of one machine, on the engines of TensorFlow."""

import keras

STRATEGIES = ("none", "mirrored", "tpu")


def make_strategy(strategy: str, cpu_devices: int = 0):
    """Returns the `tf.distribute.Strategy` of a name, None for `"none"`.

    Args:
        strategy: `"none"`; `"mirrored"`, `tf.distribute.MirroredStrategy` over all devices of the machine, each of which takes
            its part of every batch; or `"tpu"`, `tf.distribute.TPUStrategy`.
        cpu_devices: divides the CPU into so many devices first, to try a strategy without accelerators. TensorFlow must not
            have been used before.

    Raises:
        ValueError: if the backend of Keras is not TensorFlow, or if there is no such strategy.
        RuntimeError: if TensorFlow has been used before the CPU was to be divided.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Expected a strategy of {STRATEGIES}; received: {strategy!r}")
    if strategy == "none":
        return None
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"The strategy {strategy!r} needs the TensorFlow backend of Keras; this is {keras.backend.backend()!r}"
        )
    import tensorflow as tf

    if strategy == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if cpu_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_devices)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
