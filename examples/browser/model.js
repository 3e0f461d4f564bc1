/** The exported model: model.tflite in this folder, run by LiteRT.js (WebAssembly, on the CPU). */

import { centerView } from "./resize.js";

const RUNTIME = new URL("node_modules/@litertjs/core/", import.meta.url);
const EXPORT = "keras-t2t export t2t_vit_tiny_32:cifar10 --output examples/browser/model.tflite";

/**
 * Loads the runtime and the model, and runs the model once, because the first run takes longer.
 *
 * @returns {Promise<Model>}
 * @throws {Error} If the runtime or the model is missing, or if the page cannot use the model. The message says what to do.
 */
export async function loadModel() {
  const [litert, file] = await Promise.all([loadRuntime(), download("model.tflite")]);
  if (!file) throw new Error(`There is no model.tflite next to this page. Create it with: ${EXPORT}`);
  let compiled;
  try {
    compiled = await litert.loadAndCompile(new Uint8Array(file), { accelerator: "wasm" });
  } catch (error) {
    throw new Error(`LiteRT.js cannot read model.tflite. Export it again. (${messageOf(error)})`);
  }
  const model = new Model(litert, compiled, readSpec(file), file.byteLength);
  await model.classify(new Float32Array(model.size[0] * model.size[1] * 3));
  return model;
}

class Model {
  #litert;
  #compiled;
  #spec;

  /** `spec` is what `readSpec` returns; `bytes` is the size of the file. */
  constructor(litert, compiled, spec, bytes) {
    if (!spec) throw new Error("model.tflite has no metadata of keras_t2t. Export the model with: keras-t2t export");
    const [input] = compiled.getInputDetails();
    const [output] = compiled.getOutputDetails();
    const [shape, classes] = [Array.from(input.shape), output.shape.at(-1)];
    const isOneImage = shape.length === 4 && shape[0] === 1 && shape[3] === 3;
    if (!isOneImage || !["float32", "uint8"].includes(input.dtype)) {
      throw new Error(
        `Expected a model that takes (1, height, width, 3) in float32 or uint8; it takes (${shape}) in ${input.dtype}.`,
      );
    }
    if (spec.output === "features") throw new Error("Expected a classifier; the model returns features.");
    this.#litert = litert;
    this.#compiled = compiled;
    this.#spec = spec;
    this.labels = spec.labels ?? Array.from({ length: classes }, (_, index) => `class ${index}`);
    this.bytes = bytes;
    this.dtype = input.dtype;
    /** Height and width of the images. */
    this.size = shape.slice(1, 3);
  }

  /** Resizes and crops an ImageData for the model. Returns pixels in [0, 255], flattened from (height, width, 3). */
  prepare(image) {
    return centerView(image, this.#spec.preprocessing);
  }

  /** Returns the probability of each class for pixels from `prepare`. */
  async classify(pixels) {
    const data = this.dtype === "uint8" ? Uint8Array.from(pixels) : this.#normalized(pixels);
    const image = new this.#litert.Tensor(data, [1, ...this.size, 3]);
    const [output] = await this.#compiled.run(image);
    const scores = Array.from(output.toTypedArray());
    for (const tensor of [image, output]) tensor.delete(); // memory of WebAssembly is not garbage-collected
    return this.#spec.output === "logits" ? probabilities(scores) : scores;
  }

  #normalized(pixels) {
    const { mean, std } = this.#spec.preprocessing;
    if (this.#spec.normalizes) return pixels;
    return pixels.map((value, index) => (value / 255 - mean[index % 3]) / std[index % 3]);
  }
}

/** Returns the softmax of logits, or the sigmoid of a single logit. */
function probabilities(logits) {
  if (logits.length === 1) return [1 / (1 + Math.exp(-logits[0]))];
  const largest = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((total, value) => total + value);
  return exponentials.map((value) => value / sum);
}

/**
 * Returns the metadata that `keras_t2t` wrote into the file, or null if there are none: the fields of `keras_t2t.ModelSpec`.
 *
 * They are stored as JSON in a zip archive at the end of the file, which has one uncompressed entry.
 */
function readSpec(file) {
  const view = new DataView(file);
  const end = file.byteLength - 22; // start of the record at the end of an archive
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) return null;
  const directory = view.getUint32(end + 16, true);
  const [length, header] = [view.getUint32(directory + 20, true), view.getUint32(directory + 42, true)];
  const start = header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
  return JSON.parse(new TextDecoder().decode(new Uint8Array(file, start, length)));
}

async function loadRuntime() {
  try {
    const litert = await import(new URL("dist/index.js", RUNTIME));
    // Threads need shared memory, which browsers only allow on cross-origin isolated pages; see README.md.
    const threads = self.crossOriginIsolated && (await litert.supportsFeature("relaxedSimd"));
    await litert.loadLiteRt(new URL("wasm/", RUNTIME).href, { threads });
    return litert;
  } catch (error) {
    throw new Error(
      `The runtime did not load. Install it with: npm install --prefix examples/browser (${messageOf(error)})`,
    );
  }
}

/** Returns the bytes of a file next to this page, or null if there is none. */
async function download(name) {
  // Without no-cache, the browser might keep using an old export.
  const response = await fetch(new URL(name, import.meta.url), { cache: "no-cache" });
  return response.ok ? response.arrayBuffer() : null;
}

/** If a script does not load, the error is an event, which has no message. */
function messageOf(error) {
  return error.message ?? "a file is missing";
}
