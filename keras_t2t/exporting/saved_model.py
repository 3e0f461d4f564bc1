"""Export to a SavedModel, which plain TensorFlow can serve."""

import os
import pathlib
import re
from collections import Counter

import keras

from keras_t2t.exporting.graph import INPUT, inference_function
from keras_t2t.exporting.metadata import write_to_saved_model
from keras_t2t.inference.predict import display_labels
from keras_t2t.preprocessing import ModelSpec


def to_saved_model(model: keras.Model, path: pathlib.Path, spec: ModelSpec, input_dtype: str = "float32") -> None:
    """Writes a model as a SavedModel for batches of any size. Serving it requires no package except TensorFlow.

    Signatures:

    - `serving_default` takes `images` `(B, H, W, C)` and returns the outputs, under the name of `ModelSpec.output`.
    - `classify` exists for classifiers of RGB images. It takes `encoded` `(B,)`, the bytes of JPEG, PNG, BMP, GIF or WebP
      files, and prepares the images like `keras_t2t.load_image` without Pillow. It returns the top k classes, where k is at
      most five: `labels` `(B, k)`, strings, and `scores` `(B, k)`, probabilities (or the independent scores of a model that
      returns these).

    Args:
        model: The result of `optimize_for_inference`.
        path: The folder to write.
        spec: What the model takes and returns.
        input_dtype: Dtype of `images`: `"float32"` or `"uint8"`.
    """
    import tensorflow as tf

    infer = inference_function(model)
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    images = tf.TensorSpec((None, *model.input_shape[1:]), input_dtype, name=INPUT)
    module.serve = tf.function(lambda images: {spec.output: infer(images)}, [images])
    signatures = {"serving_default": module.serve}
    if spec.output != "features" and len(model.output_shape) == 2 and model.input_shape[-1] == 3:
        module.classify = tf.function(
            _classifier(spec, model.output_shape[-1], infer), [tf.TensorSpec((None,), "string", "encoded")], autograph=False
        )
        signatures["classify"] = module.classify
    tf.saved_model.save(module, str(path), signatures)
    write_to_saved_model(path, spec)
    _make_stable(path)


def _classifier(spec, classes, infer):
    import tensorflow as tf

    from keras_t2t.data import center_view, normalize_images
    from keras_t2t.data.decoding import decode

    names = display_labels(spec, classes)

    def view(encoded):
        return center_view(decode(encoded), spec.preprocessing)

    def classify(encoded):
        shape = (*spec.preprocessing.image_size, 3)
        images = tf.map_fn(view, encoded, fn_output_signature=tf.TensorSpec(shape))
        scores = infer(images if spec.normalizes else normalize_images(images, spec.preprocessing))
        if spec.output == "logits":
            scores = tf.nn.softmax(scores) if classes > 1 else tf.nn.sigmoid(scores)
        scores, indices = tf.math.top_k(scores, min(5, classes))
        return {"labels": tf.gather(tf.constant(names), indices), "scores": scores}

    return classify


def _make_stable(folder):
    """Makes the bytes reproducible: renumbers functions, which a global counter names, and removes the random fingerprint."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    (folder / "fingerprint.pb").unlink(missing_ok=True)
    file = folder / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    by_counter = sorted((function.signature.name for function in functions), key=lambda name: int(name.rpartition("_")[2]))
    new_names = {name: f"{name.rpartition('_')[0]}_{i}" for i, name in enumerate(by_counter)}
    old_name = re.compile("|".join(sorted(new_names, key=len, reverse=True)))
    _replace_strings(saved, lambda text: old_name.sub(lambda match: new_names[match[0]], text))
    functions.sort(key=lambda function: function.signature.name)
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _replace_strings(message, replace):
    """Replaces all strings in a protocol buffer, including keys of maps, but not weights."""
    if message.DESCRIPTOR.name == "TensorProto":
        return
    if message.DESCRIPTOR.name in ("NodeDef", "ArgAttrs"):
        for name in ("_gradient_op_type", "_user_specified_name"):  # contain counters, and are not needed
            message.attr.pop(name, None)
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            has_messages = field.message_type.fields_by_name["value"].message_type
            for key in list(value):
                if has_messages:
                    _replace_strings(value[key], replace)
                if has_messages and isinstance(key, str) and replace(key) != key:
                    value[replace(key)].CopyFrom(value.pop(key))
        elif field.message_type:
            for part in value if _is_repeated(value) else [value]:
                _replace_strings(part, replace)
        elif field.type == field.TYPE_STRING and _is_repeated(value):
            value[:] = [replace(text) for text in value]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, replace(value))


def _is_repeated(value):
    """Returns whether the value of a field is a list. `FieldDescriptor.is_repeated` only exists from protobuf 6.31 on."""
    return hasattr(value, "extend")


def saved_model_ops(path: str | os.PathLike) -> dict[str, int]:
    """Returns the number of operations of each kind in a SavedModel. Operations not built into TensorFlow are `custom:NAME`."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.python.framework import op_def_registry

    graph = SavedModel.FromString((pathlib.Path(path) / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    foreign = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}  # these call Python, which a server does not have

    def name_of(op):
        return op if op in functions or (op not in foreign and op_def_registry.get(op)) else f"custom:{op}"

    return dict(Counter(name_of(node.op) for node in nodes))
