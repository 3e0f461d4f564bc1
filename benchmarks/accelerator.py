"""Measures T2T-ViT-14 under JAX on an accelerator, beside timm's ViT-S/16 under `torch.compile` on the same one.

    KERAS_BACKEND=jax python -m benchmarks.accelerator

Needs JAX and PyTorch with support for the accelerator, and timm. TensorFlow is not needed. Everything is computed in bfloat16.
Weights are in float32, except those of the optimized model, which are in bfloat16. The last column is the rate of the model's
floating-point operations, relative to that of a product of two 8192 x 8192 matrices in bfloat16.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import keras

import keras_t2t

MATRIX_SIZE = 8192


def seconds_of(function, turns=5, calls=10):
    """Returns the median time of a call. `function` starts a call and returns a function that waits for the last one."""
    function()()
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        for _ in range(calls):
            wait = function()
        wait()
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def matrix_rate():
    """Returns the floating-point operations per second of a matrix product in bfloat16."""
    a, b = (jax.random.normal(jax.random.key(i), (MATRIX_SIZE, MATRIX_SIZE), "bfloat16") for i in range(2))
    product = jax.jit(jnp.matmul)
    return 2 * MATRIX_SIZE**3 / seconds_of(lambda: product(a, b).block_until_ready)


def keras_inference(model, batch):
    """Returns a function that starts a prediction of a batch with a Keras model."""
    state = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])
    images = jax.random.uniform(jax.random.key(0), (batch, 224, 224, 3), maxval=255)
    predict = jax.jit(lambda state, images: model.stateless_call(*state, images, training=False)[0])
    return lambda: predict(state, images).block_until_ready


def keras_training(model, batch):
    """Returns a function that starts a training step of a Keras model with AdamW."""
    optimizer = keras.optimizers.AdamW(1e-4)
    optimizer.build(model.trainable_variables)
    images = jax.random.uniform(jax.random.key(0), (batch, 224, 224, 3), maxval=255)
    labels = jnp.arange(batch) % 1000

    def loss_of(trainable, non_trainable):
        logits, non_trainable = model.stateless_call(trainable, non_trainable, images, training=True)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean(), non_trainable

    def step(trainable, non_trainable, optimizer_state):
        (loss, non_trainable), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, non_trainable)
        trainable, optimizer_state = optimizer.stateless_apply(optimizer_state, gradients, trainable)
        return trainable, non_trainable, optimizer_state, loss

    step = jax.jit(step, donate_argnums=(0, 1, 2))
    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = [[jnp.array(variable.value) for variable in each] for each in variables]  # copies, because they are donated

    def start():
        *state[:], loss = step(*state)  # in place, so that the next step continues from here
        return loss.block_until_ready

    return start


def torch_model():
    import timm

    return timm.create_model("vit_small_patch16_224").cuda()


def torch_inference(model, batch):
    """Returns a function that starts a prediction of a batch with a PyTorch model."""
    import torch

    model = model.eval()
    images = torch.rand((batch, 3, 224, 224), device="cuda")

    def start():
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            model(images)
        return torch.cuda.synchronize

    return start


def torch_training(model, batch):
    """Returns a function that starts a training step of a PyTorch model with AdamW."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    images, labels = torch.rand((batch, 3, 224, 224), device="cuda"), torch.arange(batch, device="cuda") % 1000

    def start():
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return torch.cuda.synchronize

    return start


def torch_macs():
    """Returns the multiply-accumulates of timm's model for one image, as PyTorch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        torch_model()(torch.zeros((1, 3, 224, 224), device="cuda"))
    return counter.get_total_flops() / 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256)
    batch = parser.parse_args().batch_size
    import torch

    torch.set_float32_matmul_precision("high")
    model = keras_t2t.T2TViT14(weights=None, classifier_activation=None, dtype="mixed_bfloat16")
    macs = keras_t2t.analysis.cost(model).multiply_accumulates
    rate = matrix_rate()
    print(f"{jax.devices()[0].device_kind}, Keras {keras.__version__}, JAX {jax.__version__}, PyTorch {torch.__version__}")
    print(f"Batches of {batch}. A matrix product in bfloat16 runs at {rate / 1e12:.0f} TFLOP/s.\n")
    rows = {
        "T2T-ViT-14, inference": (lambda: keras_inference(model, batch), macs, 1),
        "T2T-ViT-14, optimized, inference": (
            lambda: keras_inference(keras_t2t.optimize_for_inference(model, "bfloat16"), batch),
            macs,
            1,
        ),
        "T2T-ViT-14, training": (lambda: keras_training(model, batch), macs, 3),
        "ViT-S/16, inference, eager": (lambda: torch_inference(torch_model(), batch), torch_macs(), 1),
        "ViT-S/16, inference": (lambda: torch_inference(torch.compile(torch_model()), batch), torch_macs(), 1),
        "ViT-S/16, training": (lambda: torch_training(torch.compile(torch_model()), batch), torch_macs(), 3),
    }
    print("| | images/s | fraction of the matrix rate |\n|---|---|---|")
    for name, (make, macs, passes) in rows.items():
        seconds = seconds_of(make())
        print(f"| {name} | {batch / seconds:,.0f} | {2 * macs * passes * batch / seconds / rate:.2f} |", flush=True)


if __name__ == "__main__":
    main()
