/**
 * Resizing and cropping like `keras_t2t.load_image`, so that results agree with Python's. A canvas can resize, too, but every
 * browser does it differently.
 */

/** The radius of each kernel, and its weight at a distance. Both are in pixels of the smaller of the two images. */
const KERNELS = {
  bicubic: { radius: 2, weight: cubic },
  bilinear: { radius: 1, weight: (distance) => Math.max(1 - Math.abs(distance), 0) },
};

/**
 * Resizes an image until its shorter side fits, with antialiasing, and crops the center.
 *
 * @param {ImageData} image Image of any size. Alpha is ignored.
 * @param {object} preprocessing The `image_size`, `crop_fraction` and `interpolation` of a `keras_t2t.Preprocessing`.
 * @returns {Float32Array} Whole numbers in [0, 255], flattened from (height, width, 3).
 * @throws {Error} If the interpolation is neither bicubic nor bilinear.
 */
export function centerView(image, { image_size: size, crop_fraction: cropFraction, interpolation }) {
  const kernel = KERNELS[interpolation];
  if (!kernel) throw new Error(`This page supports bicubic and bilinear interpolation; the model needs ${interpolation}.`);
  const old = [image.height, image.width];
  // Python computes the new size in float32. With another precision, some images would be one pixel larger.
  const ratio = Math.max(...size.map((side, axis) => Math.fround(Math.floor(side / cropFraction) / old[axis])));
  const [rows, columns] = size.map((side, axis) => {
    const resized = Math.max(roundToEven(Math.fround(old[axis] * ratio)), side);
    return windows(kernel, old[axis], resized, Math.floor((resized - side) / 2), side);
  });
  const narrow = resizeAndTranspose(image.data, image.height, 4, columns); // (width, old height, 3)
  const view = resizeAndTranspose(narrow, columns.length, 3, rows); // (height, width, 3)
  return view.map((value) => Math.min(Math.max(roundToEven(value), 0), 255));
}

/**
 * Returns the window of old pixels that each new pixel is averaged over: the index of its first pixel, and the weights.
 *
 * A line of `old` pixels is resized to `resized` pixels, of which `count` pixels, starting at `first`, are needed.
 */
function windows({ radius, weight }, old, resized, first, count) {
  const scale = old / resized;
  const stretch = Math.max(scale, 1); // antialiasing: a smaller image averages over more pixels
  return Array.from({ length: count }, (_, index) => {
    const center = (first + index + 0.5) * scale - 0.5;
    const start = Math.max(Math.ceil(center - radius * stretch), 0);
    const end = Math.min(Math.floor(center + radius * stretch), old - 1);
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

/**
 * Resizes every line, and transposes the result so that a second call resizes the other axis.
 *
 * Pixels of shape (lines, old, channels) become (windows, lines, 3).
 */
function resizeAndTranspose(pixels, lines, channels, windows) {
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

/** Rounds halves to even, like Python and TensorFlow. */
function roundToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
