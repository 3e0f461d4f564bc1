/** The exported model: model.tflite and model.tflite.labels.txt of this folder, run by LiteRT.js (WebAssembly, processor). */

const RUNTIME = new URL("node_modules/@litertjs/core/", import.meta.url);
const EXPORT =
  "keras-t2t export saved_models/t2t_vit_tiny_32_cifar10/model.keras --format tflite --output examples/browser/model.tflite";

/**
 * Loads runtime, model and labels, and runs the model once, since the first run takes longer.
 *
 * @returns {Promise<Model>}
 * @throws {Error} if runtime or model is missing, or something does not fit; its message tells a person what to do.
 */
export async function loadModel() {
  const downloads = ["model.tflite", "model.tflite.labels.txt"].map(download);
  const [litert, file, labels] = await Promise.all([loadRuntime(), ...downloads]);
  if (!file) throw new Error(`There is no model.tflite beside this page. Make it with: ${EXPORT}`);
  let compiled;
  try {
    compiled = await litert.loadAndCompile(new Uint8Array(file), { accelerator: "wasm" });
  } catch (error) {
    throw new Error(`LiteRT.js cannot read model.tflite. Export it anew. (${messageOf(error)})`);
  }
  const names = labels && new TextDecoder().decode(labels).trimEnd().split("\n");
  const model = new Model(litert, compiled, names, file.byteLength);
  const probabilities = await model.classify(new Float32Array(model.size[0] * model.size[1] * 3));
  const sum = probabilities.reduce((sum, probability) => sum + probability, 0);
  if (Math.min(...probabilities) < 0 || Math.abs(sum - 1) > 0.01) {
    throw new Error("The model should return probabilities of classes: export a classifier with softmax.");
  }
  return model;
}

class Model {
  #litert;
  #compiled;

  /** labels: a name for each class, or null if the model was exported without; bytes: size of the file. */
  constructor(litert, compiled, labels, bytes) {
    const [input] = compiled.getInputDetails();
    const [output] = compiled.getOutputDetails();
    const [inputs, classes] = [Array.from(input.shape), output.shape.at(-1)];
    const oneImage = inputs.length === 4 && inputs[0] === 1 && inputs[3] === 3;
    if (!oneImage || !["float32", "uint8"].includes(input.dtype)) {
      throw new Error(
        `The model should take one image, (1, height, width, 3) of float32 or uint8; it takes (${inputs}) of ${input.dtype}.`,
      );
    }
    if (input.name.includes("normalised_images")) {
      throw new Error("The model should normalise its images itself: export one built with include_preprocessing=True.");
    }
    if (labels && labels.length !== classes) {
      throw new Error(`The model has ${classes} classes, and model.tflite.labels.txt names ${labels.length}. Export both together.`);
    }
    this.#litert = litert;
    this.#compiled = compiled;
    this.labels = labels ?? Array.from({ length: classes }, (_, index) => `class ${index}`);
    this.bytes = bytes;
    this.dtype = input.dtype;
    /** Height and width of the images. */
    this.size = inputs.slice(1, 3);
  }

  /** Returns the probability of each class for pixels in [0, 255], (height, width, 3) in order. */
  async classify(pixels) {
    const data = this.dtype === "uint8" ? Uint8Array.from(pixels) : pixels;
    const image = new this.#litert.Tensor(data, [1, ...this.size, 3]);
    const [output] = await this.#compiled.run(image);
    const probabilities = Array.from(output.toTypedArray());
    for (const tensor of [image, output]) tensor.delete(); // WebAssembly's memory is not collected
    return probabilities;
  }
}

async function loadRuntime() {
  try {
    const litert = await import(new URL("dist/index.js", RUNTIME));
    // Threads need shared memory, which browsers only give to pages that the server isolates from others: see README.
    const threads = self.crossOriginIsolated && (await litert.supportsFeature("relaxedSimd"));
    await litert.loadLiteRt(new URL("wasm/", RUNTIME).href, { threads });
    return litert;
  } catch (error) {
    throw new Error(
      `The runtime did not load. Install it with: npm install --prefix examples/browser (${messageOf(error)})`,
    );
  }
}

/** Returns the bytes of a file beside this page, or null if there is none. */
async function download(name) {
  // Without no-cache, browsers guess how long a file stays the same, and a new export might not be seen.
  const response = await fetch(new URL(name, import.meta.url), { cache: "no-cache" });
  return response.ok ? response.arrayBuffer() : null;
}

/** Scripts that do not load reject with an event, which has no message. */
function messageOf(error) {
  return error.message ?? "a file is missing";
}
