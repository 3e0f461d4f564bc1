/**
 * The view of an image that a model classifies, as `keras_t2t.load_image` makes it, so that answers agree with Python's. A canvas
 * could resize, too, but every browser does it in another way.
 */

/** How far each kernel reaches, and its weight at a distance, in pixels of the smaller of both images. */
const KERNELS = {
  bicubic: { reach: 2, weight: cubic },
  bilinear: { reach: 1, weight: (distance) => Math.max(1 - Math.abs(distance), 0) },
};

/**
 * Resizes an image until its shorter side fits, with antialiasing, and crops the center.
 *
 * @param {ImageData} image pixels of any size; alpha is ignored.
 * @param {object} preprocessing `image_size`, `crop_fraction` and `interpolation`, as in `keras_t2t.Preprocessing`.
 * @returns {Float32Array} whole numbers in [0, 255], (height, width, 3) in order.
 * @throws {Error} if the interpolation is neither bicubic nor bilinear.
 */
export function centerView(image, { image_size: size, crop_fraction: cropFraction, interpolation }) {
  const kernel = KERNELS[interpolation];
  if (!kernel) throw new Error(`This page resizes with bicubic or bilinear interpolation; the model needs ${interpolation}.`);
  const old = [image.height, image.width];
  // Python computes the new size in float32. Anything else would make some images one pixel larger.
  const ratio = Math.max(...size.map((side, axis) => Math.fround(Math.floor(side / cropFraction) / old[axis])));
  const [rows, columns] = size.map((side, axis) => {
    const resized = Math.max(roundToEven(Math.fround(old[axis] * ratio)), side);
    return windows(kernel, old[axis], resized, Math.floor((resized - side) / 2), side);
  });
  const narrow = weighAndTranspose(image.data, image.height, 4, columns); // (width, old height, 3)
  const view = weighAndTranspose(narrow, columns.length, 3, rows); // (height, width, 3)
  return view.map((value) => Math.min(Math.max(roundToEven(value), 0), 255));
}

/**
 * Returns, for each of `count` pixels from `first` on of a line that was resized from `old` to `resized` pixels, where the old
 * pixels that make it start, and their weights.
 */
function windows({ reach, weight }, old, resized, first, count) {
  const scale = old / resized;
  const stretch = Math.max(scale, 1); // a smaller image averages over more pixels: this is the antialiasing
  return Array.from({ length: count }, (_, index) => {
    const center = (first + index + 0.5) * scale - 0.5;
    const start = Math.max(Math.ceil(center - reach * stretch), 0);
    const end = Math.min(Math.floor(center + reach * stretch), old - 1);
    const weights = Array.from({ length: end - start + 1 }, (_, tap) => weight((start + tap - center) / stretch));
    const sum = weights.reduce((total, weight) => total + weight);
    return { start, weights: weights.map((weight) => weight / sum) };
  });
}

/** The cubic convolution kernel of Keys (1981) with a = -0.5, which Pillow and TensorFlow use. */
function cubic(distance) {
  const x = Math.abs(distance);
  if (x >= 2) return 0;
  return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2;
}

/** Weighs the pixels of every line: (lines, old, channels) to (windows, lines, 3). A second call does the other axis. */
function weighAndTranspose(pixels, lines, channels, windows) {
  const stride = pixels.length / lines;
  const result = new Float32Array(windows.length * lines * 3);
  for (let line = 0; line < lines; line++) {
    windows.forEach(({ start, weights }, index) => {
      let [red, green, blue] = [0, 0, 0];
      let pixel = line * stride + start * channels;
      for (let tap = 0; tap < weights.length; tap++, pixel += channels) {
        red += weights[tap] * pixels[pixel];
        green += weights[tap] * pixels[pixel + 1];
        blue += weights[tap] * pixels[pixel + 2];
      }
      result.set([red, green, blue], (index * lines + line) * 3);
    });
  }
  return result;
}

/** Rounds halves to even, as Python and TensorFlow do. */
function roundToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
