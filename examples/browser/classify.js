/** The page. Classifies a picture from the file picker, drag and drop, or the sample, and shows the result. */

import { loadModel } from "./model.js";

const SHOWN = 5;
const element = (id) => document.getElementById(id);
const model = loadModel();
let pictures = 0; // counts pictures, so that a result is not shown if another picture was chosen in the meantime

model.then(describe, (error) => fail(error));

element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) classify(target.files[0]);
  target.value = ""; // otherwise choosing the same file again would have no effect
});

element("sample").addEventListener("click", async () => {
  const response = await fetch("sample.jpg");
  classify(new File([await response.blob()], "sample.jpg"));
});

addEventListener("dragover", (event) => {
  event.preventDefault(); // otherwise the browser would open the file
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging"); // the pointer left the window
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) classify(file);
  else fail(new Error("That was not a file. Drop an image file from this device."));
});

async function classify(file) {
  const picture = ++pictures;
  say(`Classifying ${file.name} …`);
  try {
    const loaded = await model;
    const start = performance.now();
    const view = loaded.prepare(await pixelsOf(file));
    const prepared = performance.now();
    const probabilities = await loaded.classify(view);
    const times = { preprocessing: prepared - start, model: performance.now() - prepared };
    if (picture === pictures) show(file, view, loaded, probabilities, times);
  } catch (error) {
    if (picture === pictures) fail(error);
  }
}

/** Returns the upright ImageData of a file. Transparent parts become white. Color profiles are ignored, as in Python. */
async function pixelsOf(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`This browser cannot read ${file.name} as a picture. Choose a JPEG, PNG, GIF, WebP or BMP file.`);
  }
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { alpha: false });
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

function show(file, view, { labels, size }, probabilities, times) {
  const ranking = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
  element("classes").replaceChildren(...ranking.slice(0, SHOWN).map((index) => row(labels[index], probabilities[index])));
  element("time").textContent = `Model ${milliseconds(times.model)}, preprocessing ${milliseconds(times.preprocessing)}`;
  URL.revokeObjectURL(element("picture").src);
  element("picture").src = URL.createObjectURL(file);
  element("picture").alt = element("name").textContent = file.name;
  draw(view, size);
  element("result").hidden = false;
  say(`${labels[ranking[0]]}, ${percent(probabilities[ranking[0]])}`);
}

function row(label, probability) {
  const [name, bar, value] = ["span", "div", "data"].map((tag) => document.createElement(tag));
  name.textContent = label;
  bar.className = "bar";
  bar.style.setProperty("--fraction", probability);
  value.value = probability;
  value.textContent = percent(probability);
  const item = document.createElement("li");
  item.append(name, value, bar);
  return item;
}

/** Draws the pixels that the model sees. */
function draw(view, [height, width]) {
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < height * width; pixel++) {
    image.data.set([...view.subarray(3 * pixel, 3 * pixel + 3), 255], 4 * pixel);
  }
  Object.assign(element("view"), { width, height });
  element("view").getContext("2d").putImageData(image, 0, 0);
}

function describe({ labels, size, bytes }) {
  const names = labels.length > 20 ? "" : `: ${labels.join(", ")}`;
  const megabytes = (bytes / 1e6).toFixed(1);
  const count = labels.length.toLocaleString("en");
  element("model").textContent =
    `The model (${megabytes} MB) sees ${size[1]} × ${size[0]} pixels and knows ${count} classes${names}.`;
  if (!pictures) say("Ready.");
}

function say(text) {
  element("error").textContent = "";
  element("status").textContent = text;
}

function fail(error) {
  element("result").hidden = true;
  element("status").textContent = "";
  element("error").textContent = error.message;
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

function milliseconds(time) {
  return `${time.toFixed(time < 10 ? 1 : 0)} ms`;
}
