"""A second implementation of T2T-ViT in plain numpy and float64, for one image, with the weight layout of the checkpoints.

It shares no code with the package, so any configuration can be checked against it. It uses a loop over windows instead of a
soft split, and an explicit `(N, N)` matrix instead of the linear form of the performer.
"""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def gelu(x):
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def unfold(image, kernel, stride, padding):
    """Cuts an image `(H, W, C)` into windows, each flattened in (channel, row, column) order.

    Returns:
        The windows `(h * w, C * kernel * kernel)`, and `(h, w)`.
    """
    image = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    rows = range(0, image.shape[0] - kernel + 1, stride)
    columns = range(0, image.shape[1] - kernel + 1, stride)
    windows = [image[i : i + kernel, j : j + kernel].transpose(2, 0, 1).ravel() for i in rows for j in columns]
    return np.stack(windows), (len(rows), len(columns))


class NumpyT2T:
    """A T2T-ViT with the parameters of a checkpoint.

    Args:
        config: The `T2TConfig` of the model.
        parameters: Arrays by the name of the parameter in the checkpoint.
        offsets: Arrays to add to the attention weights, by the name of the layer.

    Attributes:
        weights: Attention weights of the last image by the name of the layer, `(N, N)` or `(H, N, N)`, before `offsets`.
    """

    def __init__(self, config, parameters, offsets=None):
        self.config = config
        self.weights, self.offsets = {}, offsets or {}
        self.parameters = {name: np.asarray(value, "float64") for name, value in parameters.items()}

    def linear(self, name, x):
        weight = self.parameters[f"{name}.weight"]
        return x @ weight.reshape(len(weight), -1).T + self.parameters.get(f"{name}.bias", 0)

    def record(self, name, weights):
        self.weights[name] = weights
        return weights + self.offsets.get(name, 0)

    def norm(self, name, x, epsilon=1e-5):
        normalized = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return normalized * self.parameters[f"{name}.weight"] + self.parameters[f"{name}.bias"]

    def token_performer(self, name, x):
        k, q, v = np.split(self.linear(f"{name}.kqv", self.norm(f"{name}.norm1", x)), 3, -1)
        w = self.parameters[f"{name}.w"]

        def phi(t):
            return np.exp(t @ w.T - (t**2).sum(-1, keepdims=True) / 2) / math.sqrt(len(w))

        attention = phi(q) @ phi(k).T  # (N, N)
        y = self.record(name, attention / (attention.sum(-1, keepdims=True) + 1e-8)) @ v
        x = v + self.linear(f"{name}.proj", y)
        return x + self.linear(f"{name}.mlp.2", gelu(self.linear(f"{name}.mlp.0", self.norm(f"{name}.norm2", x))))

    def token_transformer(self, name, x):
        q, k, v = np.split(self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x)), 3, -1)
        y = self.record(name, softmax(q @ k.T / math.sqrt(x.shape[-1]))) @ v
        x = v + self.linear(f"{name}.attn.proj", y)
        return x + self.linear(f"{name}.mlp.fc2", gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x))))

    def tokens(self, image):
        """Returns the tokens `(h * w, D)` of an image `(H, W, C)`, `(h, w)`, and the outputs of the token attentions."""
        stages, x = [], np.asarray(image, "float64")
        *inner, last = self.config.soft_splits
        for i, split in enumerate(inner, 1):
            x, grid = unfold(x, *split)
            if self.config.token_attention == "convolution":
                x = self.linear(f"tokens_to_token.soft_split{i - 1}", x)
            else:
                x = getattr(self, f"token_{self.config.token_attention}")(f"tokens_to_token.attention{i}", x)
            stages.append(x)
            x = x.reshape(*grid, -1)
        x, grid = unfold(x, *last)
        is_plain_vit = self.config.token_attention == "convolution" and not inner
        return self.linear("patch_embed.proj" if is_plain_vit else "tokens_to_token.project", x), grid, stages

    def attention(self, name, x):
        heads = self.config.num_heads
        if self.config.block == "ghost":
            halves = [self.linear(f"{name}.{part}", x) for part in "qkv"]
            scales = [self.parameters[f"{name}.cheap_operation_{part}.weight"].ravel() for part in "qkv"]
            parts = [np.concatenate([half, half * scale], -1) for half, scale in zip(halves, scales, strict=True)]
        else:
            parts = np.split(self.linear(f"{name}.qkv", x), 3, -1)
        q, k, v = (part.reshape(len(x), heads, -1).transpose(1, 0, 2) for part in parts)
        y = self.record(name, softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))) @ v
        y = self.linear(f"{name}.proj", y.transpose(1, 0, 2).reshape(len(x), -1))
        if self.config.block == "squeeze_excite":
            squeezed = np.maximum(self.linear(f"{name}.se_layer.fc.0", y.mean(0)), 0)
            y = y / (1 + np.exp(-self.linear(f"{name}.se_layer.fc.2", squeezed)))
        return y

    def mlp(self, name, x):
        x = gelu(self.linear(f"{name}.fc1", x))
        if self.config.block == "ghost":
            ghosts = [gelu(x * self.parameters[f"{name}.cheap_operation{i}.weight"].ravel()) for i in (2, 3)]
            x = np.concatenate([x, *ghosts], -1)
        return self.linear(f"{name}.fc2", x)

    def block(self, name, x):
        epsilon = self.config.norm_epsilon
        y = x + self.attention(f"{name}.attn", self.norm(f"{name}.norm1", x, epsilon))
        y = y + self.mlp(f"{name}.mlp", self.norm(f"{name}.norm2", y, epsilon))
        return np.concatenate([x, self.linear(f"{name}.dense_linear", y)], -1) if self.config.block == "dense" else y

    def encode(self, image):
        """Returns the tokens `(1 + h * w, D)` of an image `(H, W, C)` after the last norm, and `(h, w)`."""
        x, grid, _ = self.tokens(image)
        x = np.concatenate([self.parameters["cls_token"][0], x]) + self.parameters["pos_embed"][0]
        names = {int(name.split(".")[1]) for name in self.parameters if name.startswith("blocks.")}
        for i in sorted(names):
            if f"blocks.{i}.linear.weight" in self.parameters:
                x = gelu(self.linear(f"blocks.{i}.linear", x))
            else:
                x = self.block(f"blocks.{i}", x)
        return self.norm("norm", x, self.config.norm_epsilon), grid

    def logits(self, image):
        """Returns the logits `(classes,)` of an image `(H, W, C)`."""
        return self.linear("head", self.encode(image)[0][0])
