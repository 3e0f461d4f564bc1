"""The page of examples/browser in headless Chromium: what it shows is what Python computes with the same model."""

import functools
import http.server
import os
import pathlib
import re
import shutil
import threading

import keras
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

import keras_t2t
from keras_t2t.data import as_input, center_view, read_view
from keras_t2t.exporting import open_exported
from keras_t2t.inference import probabilities as softmaxed
from keras_t2t.models import spec_of
from tests.conftest import SMALL_CONFIGS

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
RUNTIME = EXAMPLES / "browser" / "node_modules"
CHINA = pathlib.Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"  # 640x427
SWITCHES = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, driven by selenium."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None] + ["LiteRT.js"] * (not RUNTIME.exists())
    if missing:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(f"{' and '.join(missing)} missing; get what this test needs with ./scripts/setup-browser")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for switch in [*SWITCHES.split(), f"user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(f"--{switch}")
    with webdriver.Chrome(options, webdriver.ChromeService(programs["chromedriver"])) as driver:
        yield driver


@pytest.fixture(scope="module")
def serve():
    """A function that serves a folder on the loopback interface and returns its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    servers = []

    def start(folder):
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def page_folder(folder, model=None):
    """Fills a folder with the page, the runtime and the exported model."""
    made = shutil.ignore_patterns("node_modules", "model.tflite")
    shutil.copytree(EXAMPLES / "browser", folder, ignore=made, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(RUNTIME)
    if model is not None:
        keras_t2t.export(model, folder / "model.tflite", format="tflite")
    return folder


@pytest.fixture(scope="module")
def tiny():
    return keras_t2t.T2TViTTiny32(weights="cifar10")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory, tiny):
    return page_folder(tmp_path_factory.mktemp("page"), tiny)


@pytest.fixture(scope="module")
def address(serve, tiny_folder):
    return serve(tiny_folder)


@pytest.fixture
def page(browser, address):
    """The page with the shipped model, loaded afresh."""
    return open_page(browser, address)


def open_page(browser, address):
    browser.get(address)
    wait(browser)
    return browser


def wait(browser):
    """Waits until the page has an answer or an error."""
    busy = ("Loading", "Looking")
    WebDriverWait(browser, 60, 0.05).until(lambda _: not text(browser, "status").startswith(busy))


def text(browser, name):
    return browser.find_element("id", name).text


def drop(browser, path):
    """Drops a file on the page, as the mouse does."""
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 150, "y": 100, "data": data})
    wait(browser)


def shown(browser):
    """Returns the classes and probabilities on the page, in order."""
    rows = browser.find_elements("css selector", "#answer li")
    cells = [(row.find_element("tag name", "span").text, row.find_element("tag name", "data")) for row in rows]
    assert all(cell.text == f"{100 * float(cell.get_attribute('value')):.1f}%" for _, cell in cells)
    return {name: float(cell.get_attribute("value")) for name, cell in cells}


def seen(browser):
    """Returns the pixels (height, width, 3) that the page gave to the model."""
    script = """const view = document.getElementById("view");
        const { data, height, width } = view.getContext("2d").getImageData(0, 0, view.width, view.height);
        return [height, width, Array.from(data)];"""
    height, width, data = browser.execute_script(script)
    return np.reshape(data, (height, width, 4))[..., :3]


def check_answer(browser, model, path, classes=5, run=None, atol=1e-3):
    """Compares pixels, classes and probabilities on the page with Python's for the image at a path.

    The probabilities are those of the model, or of `run`, which takes images (n, H, W, 3).
    """
    assert text(browser, "error") == ""
    spec = spec_of(model)
    image = read_view(path, spec.preprocessing)
    run = run or functools.partial(model.predict, verbose=0)
    probabilities = softmaxed(run(as_input(image[None], spec)), spec)[0]
    labels = keras_t2t.labels_of(model) or [f"class {number}" for number in range(model.output_shape[-1])]
    expected = dict(zip(labels, probabilities, strict=True))
    answer = shown(browser)
    assert len(answer) == classes
    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    np.testing.assert_allclose(list(answer.values()), sorted(expected.values(), reverse=True)[:classes], atol=atol)
    np.testing.assert_allclose(list(answer.values()), [expected[name] for name in answer], atol=atol)
    difference = np.abs(seen(browser) - image.astype("int"))
    assert difference.max() <= 2 and difference.mean() < 0.1  # decoders differ in the last bit
    best, probability = next(iter(answer.items()))
    assert text(browser, "status") == f"{best}, {100 * probability:.1f}%"


@pytest.mark.parametrize("path", [EXAMPLES / "images" / "cat.jpg", CHINA], ids=lambda path: path.name)
def test_dropped_picture(page, tiny, path):
    drop(page, path)
    check_answer(page, tiny, path)
    assert text(page, "name") == path.name
    assert page.find_element("id", "picture").get_attribute("alt") == path.name
    assert float(text(page, "time").split()[1]) > 0


def test_chosen_picture_and_sample(page, tiny, tmp_path):
    portrait = tmp_path / "portrait.png"
    PIL.Image.open(CHINA).convert("L").crop((31, 0, 310, 427)).save(portrait)
    page.find_element("id", "file").send_keys(str(portrait))
    wait(page)
    check_answer(page, tiny, portrait)
    page.find_element("id", "sample").click()
    WebDriverWait(page, 60, 0.05).until(lambda _: text(page, "name") == "sample.jpg")
    wait(page)
    check_answer(page, tiny, EXAMPLES / "browser" / "sample.jpg")


def test_everything_comes_from_the_folder(page, address):
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any(name.endswith(".wasm") for name in loaded) and address + "model.tflite" in loaded
    assert all(name.startswith((address, "data:")) for name in loaded)


def test_file_that_is_no_image(page, tiny, tmp_path):
    drop(page, EXAMPLES / "images" / "cat.jpg")
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    drop(page, notes)
    assert text(page, "error").startswith("notes.txt is not a picture that this browser can read.")
    assert not page.find_element("id", "result").is_displayed()
    drop(page, EXAMPLES / "images" / "frog.jpg")  # and it goes on
    check_answer(page, tiny, EXAMPLES / "images" / "frog.jpg")


@pytest.mark.parametrize(
    "part, content, message",
    [
        ("model.tflite", None, "There is no model.tflite beside this page. Make it with: keras-t2t export"),
        ("model.tflite", b"no model", "LiteRT.js cannot read model.tflite."),
        ("node_modules", None, "The runtime did not load. Install it with: npm install"),
    ],
)
def test_part_that_is_missing_or_wrong(browser, serve, tmp_path, tiny_folder, part, content, message):
    folder = shutil.copytree(tiny_folder, tmp_path / "page", symlinks=True)
    (folder / part).unlink()
    if content is not None:
        (folder / part).write_bytes(content)
    page = open_page(browser, serve(folder))
    assert text(page, "error").startswith(message)
    drop(page, EXAMPLES / "images" / "cat.jpg")
    assert text(page, "error").startswith(message)


def test_model_of_another_size(browser, serve, tmp_path):
    keras.utils.set_random_seed(3)
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    model = keras_t2t.T2TViT(config, input_shape=(101, 75, 3), classes=3)  # large enough to be cropped
    model = keras_t2t.replace_head(model, ["daisy", "rose", "wild tulip"])
    drop(open_page(browser, serve(page_folder(tmp_path, model))), CHINA)
    check_answer(browser, model, CHINA, classes=3)
    assert re.search(r"sees 75 \S 101 pixels and knows 3 classes: daisy, rose, wild tulip\.", text(browser, "model"))


@pytest.mark.parametrize("arguments", [{"classifier_activation": None}, {"include_preprocessing": False}])
def test_models_of_logits_and_of_normalized_images(browser, serve, tmp_path, arguments):
    keras.utils.set_random_seed(3)
    preprocessing = keras_t2t.Preprocessing(
        crop_fraction=0.7, interpolation="bilinear", mean=(0.2, 0.4, 0.6), std=(0.3, 0.2, 0.1)
    )
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["patches"])
    model = keras_t2t.T2TViT(config, input_shape=(31, 47, 3), classes=6, preprocessing=preprocessing, **arguments)
    drop(open_page(browser, serve(page_folder(tmp_path, model))), CHINA)
    check_answer(browser, model, CHINA)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"include_top": False}, "The model should be a classifier; it returns features."),
        (
            {"classes": 3, "preprocessing": keras_t2t.Preprocessing(interpolation="area")},
            "This page resizes with bicubic or bilinear interpolation; the model needs area.",
        ),
    ],
)
def test_models_that_the_page_cannot_use(browser, serve, tmp_path, arguments, message):
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["patches"]), input_shape=(31, 47, 3), **arguments)
    page = open_page(browser, serve(page_folder(tmp_path, model)))
    if not text(page, "error"):
        drop(page, CHINA)
    assert text(page, "error").startswith(message)


def test_a_file_without_metadata(browser, serve, tmp_path, tiny_folder):
    """As another exporter would have written it."""
    folder = shutil.copytree(tiny_folder, tmp_path / "page", symlinks=True)
    content = (folder / "model.tflite").read_bytes()
    (folder / "model.tflite").write_bytes(content[: content.rindex(b"PK\x03\x04")])
    assert text(open_page(browser, serve(folder)), "error").startswith("model.tflite does not say what it takes and returns.")


def test_model_without_labels(browser, serve, tmp_path):
    keras.utils.set_random_seed(3)
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["transformer"]), input_shape=(31, 47, 3), classes=4)
    drop(open_page(browser, serve(page_folder(tmp_path, model))), CHINA)
    check_answer(browser, model, CHINA, classes=4)


def test_quantized_model_of_whole_gray_levels(browser, serve, tmp_path, tiny):
    photograph = EXAMPLES / "images" / "cat.jpg"
    folder = page_folder(tmp_path)
    keras_t2t.export(tiny, folder / "model.tflite", quantize="int8", input_dtype="uint8")
    drop(open_page(browser, serve(folder)), photograph)
    # What enters a product is rounded to 8 bits as it runs: where processors differ in a last bit, by a whole step.
    check_answer(browser, tiny, photograph, run=open_exported(folder / "model.tflite").run, atol=1e-2)


@pytest.mark.parametrize("old", [(213, 320), (65, 64), (31, 47), (224, 224), (9, 300)], ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size, crop_fraction", [((32, 32), 1.0), ((224, 224), 0.9), ((51, 37), 0.875)])
def test_resizing(page, old, size, crop_fraction, interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (*old, 4))
    script = """const [pixels, height, width, image_size, crop_fraction, interpolation, done] = arguments;
        import("./resize.js").then(({ centerView }) => {
            const image = new ImageData(Uint8ClampedArray.from(pixels), width, height);
            done(Array.from(centerView(image, { image_size, crop_fraction, interpolation })));
        });"""
    view = page.execute_async_script(script, pixels.ravel().tolist(), *old, size, crop_fraction, interpolation)
    preprocessing = keras_t2t.Preprocessing(image_size=size, crop_fraction=crop_fraction, interpolation=interpolation)
    difference = np.abs(np.reshape(view, (*size, 3)) - center_view(pixels[..., :3].astype("float32"), preprocessing))
    assert difference.max() <= 1 and difference.mean() < 1e-3  # a value within a rounding error of a half may fall either way
