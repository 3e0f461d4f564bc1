"""The page in examples/browser, in headless Chromium: its results agree with Python's for the same model."""

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

pytestmark = pytest.mark.slow

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
        stop(f"{' and '.join(missing)} missing; install what this test needs with ./scripts/setup-browser")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for switch in [*SWITCHES.split(), f"user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(f"--{switch}")
    with webdriver.Chrome(options, webdriver.ChromeService(programs["chromedriver"])) as driver:
        yield driver


@pytest.fixture(scope="module")
def serve():
    """A function that serves a folder on localhost and returns the URL."""

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    servers = []

    def start(folder):
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=folder)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def page_folder(folder, model=None):
    """Fills a folder with the page, the runtime and the exported model."""
    ignored = shutil.ignore_patterns("node_modules", "model.tflite")
    shutil.copytree(EXAMPLES / "browser", folder, ignore=ignored, dirs_exist_ok=True)
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
    """The page with the bundled model, newly loaded."""
    return open_page(browser, address)


def open_page(browser, address):
    browser.get(address)
    wait(browser)
    return browser


def wait(browser):
    """Waits until the page shows a result or an error."""
    busy = ("Loading", "Classifying")
    WebDriverWait(browser, 60, 0.05).until(lambda _: not text(browser, "status").startswith(busy))


def text(browser, name):
    return browser.find_element("id", name).text


def drop(browser, path):
    """Drops a file on the page, as if with the mouse."""
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 150, "y": 100, "data": data})
    wait(browser)


def shown(browser):
    """Returns the classes and probabilities on the page, in the order shown."""
    rows = browser.find_elements("css selector", "#classes li")
    cells = [(row.find_element("tag name", "span").text, row.find_element("tag name", "data")) for row in rows]
    assert all(cell.text == f"{100 * float(cell.get_attribute('value')):.1f}%" for _, cell in cells)
    return {name: float(cell.get_attribute("value")) for name, cell in cells}


def seen(browser):
    """Returns the pixels `(height, width, 3)` that the page passed to the model."""
    script = """const view = document.getElementById("view");
        const { data, height, width } = view.getContext("2d").getImageData(0, 0, view.width, view.height);
        return [height, width, Array.from(data)];"""
    height, width, data = browser.execute_script(script)
    return np.reshape(data, (height, width, 4))[..., :3]


def check_result(browser, model, path, classes=5, run=None, atol=1e-3):
    """Compares the pixels, classes and probabilities on the page with Python's.

    Args:
        browser: The page.
        model: The Keras model.
        path: The image file.
        classes: Number of classes on the page.
        run: Function that computes the outputs for images `(n, H, W, 3)`. Defaults to `model.predict`.
        atol: Tolerance of the probabilities.
    """
    assert text(browser, "error") == ""
    spec = spec_of(model)
    image = read_view(path, spec.preprocessing)
    run = run or functools.partial(model.predict, verbose=0)
    probabilities = softmaxed(run(as_input(image[None], spec)), spec)[0]
    labels = keras_t2t.labels_of(model) or [f"class {index}" for index in range(model.output_shape[-1])]
    expected = dict(zip(labels, probabilities, strict=True))
    result = shown(browser)
    assert len(result) == classes
    assert list(result.values()) == sorted(result.values(), reverse=True)
    np.testing.assert_allclose(list(result.values()), sorted(expected.values(), reverse=True)[:classes], atol=atol)
    np.testing.assert_allclose(list(result.values()), [expected[name] for name in result], atol=atol)
    difference = np.abs(seen(browser) - image.astype("int"))
    assert difference.max() <= 2 and difference.mean() < 0.1  # decoders differ in the last bit
    top_class, probability = next(iter(result.items()))
    assert text(browser, "status") == f"{top_class}, {100 * probability:.1f}%"


@pytest.mark.parametrize("path", [EXAMPLES / "images" / "cat.jpg", CHINA], ids=lambda path: path.name)
def test_dropped_picture(page, tiny, path):
    drop(page, path)
    check_result(page, tiny, path)
    assert text(page, "name") == path.name
    assert page.find_element("id", "picture").get_attribute("alt") == path.name
    assert float(text(page, "time").split()[1]) > 0


def test_chosen_picture_and_sample(page, tiny, tmp_path):
    portrait = tmp_path / "portrait.png"
    PIL.Image.open(CHINA).convert("L").crop((31, 0, 310, 427)).save(portrait)
    page.find_element("id", "file").send_keys(str(portrait))
    wait(page)
    check_result(page, tiny, portrait)
    page.find_element("id", "sample").click()
    WebDriverWait(page, 60, 0.05).until(lambda _: text(page, "name") == "sample.jpg")
    wait(page)
    check_result(page, tiny, EXAMPLES / "browser" / "sample.jpg")


def test_photos_are_upright_and_transparent_parts_white(page, tiny, tmp_path):
    photo = PIL.Image.open(CHINA).crop((31, 0, 310, 427))
    exif = PIL.Image.Exif()
    exif[0x112] = 6
    photo.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    drop(page, tmp_path / "turned.jpg")
    check_result(page, tiny, tmp_path / "turned.jpg")
    photo.putalpha(PIL.Image.radial_gradient("L").resize(photo.size))
    photo.save(tmp_path / "alpha.png")
    drop(page, tmp_path / "alpha.png")
    check_result(page, tiny, tmp_path / "alpha.png")


def test_everything_comes_from_the_folder(page, address):
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any(name.endswith(".wasm") for name in loaded) and address + "model.tflite" in loaded
    assert all(name.startswith((address, "data:")) for name in loaded)


def test_file_that_is_not_an_image(page, tiny, tmp_path):
    drop(page, EXAMPLES / "images" / "cat.jpg")
    notes = tmp_path / "notes.txt"
    notes.write_text("not a picture")
    drop(page, notes)
    assert text(page, "error").startswith("This browser cannot read notes.txt as a picture.")
    assert not page.find_element("id", "result").is_displayed()
    drop(page, EXAMPLES / "images" / "frog.jpg")  # the page still works
    check_result(page, tiny, EXAMPLES / "images" / "frog.jpg")


@pytest.mark.parametrize(
    "part, content, message",
    [
        ("model.tflite", None, "There is no model.tflite next to this page. Create it with: keras-t2t export"),
        ("model.tflite", b"not a model", "LiteRT.js cannot read model.tflite."),
        ("node_modules", None, "The runtime did not load. Install it with: npm install"),
    ],
)
def test_missing_or_damaged_file(browser, serve, tmp_path, tiny_folder, part, content, message):
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
    check_result(browser, model, CHINA, classes=3)
    assert re.search(r"sees 75 \S 101 pixels and knows 3 classes: daisy, rose, wild tulip\.", text(browser, "model"))


@pytest.mark.parametrize(
    "arguments",
    [{"classifier_activation": None}, {"classifier_activation": None, "classes": 1}, {"include_preprocessing": False}],
)
def test_models_with_logits_or_normalized_images(browser, serve, tmp_path, arguments):
    keras.utils.set_random_seed(3)
    preprocessing = keras_t2t.Preprocessing(
        crop_fraction=0.7, interpolation="bilinear", mean=(0.2, 0.4, 0.6), std=(0.3, 0.2, 0.1)
    )
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["patches"])
    model = keras_t2t.T2TViT(config, input_shape=(31, 47, 3), preprocessing=preprocessing, **{"classes": 6, **arguments})
    drop(open_page(browser, serve(page_folder(tmp_path, model))), CHINA)
    check_result(browser, model, CHINA, classes=min(5, model.output_shape[-1]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"include_top": False}, "Expected a classifier; the model returns features."),
        (
            {"classes": 3, "preprocessing": keras_t2t.Preprocessing(interpolation="area")},
            "This page supports bicubic and bilinear interpolation; the model needs area.",
        ),
    ],
)
def test_unsupported_models(browser, serve, tmp_path, arguments, message):
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["patches"]), input_shape=(31, 47, 3), **arguments)
    page = open_page(browser, serve(page_folder(tmp_path, model)))
    if not text(page, "error"):
        drop(page, CHINA)
    assert text(page, "error").startswith(message)


def test_file_without_metadata(browser, serve, tmp_path, tiny_folder):
    """Like a file from another exporter."""
    folder = shutil.copytree(tiny_folder, tmp_path / "page", symlinks=True)
    content = (folder / "model.tflite").read_bytes()
    (folder / "model.tflite").write_bytes(content[: content.rindex(b"PK\x03\x04")])
    assert text(open_page(browser, serve(folder)), "error").startswith("model.tflite has no metadata of keras_t2t.")


def test_model_without_labels(browser, serve, tmp_path):
    keras.utils.set_random_seed(3)
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["transformer"]), input_shape=(31, 47, 3), classes=4)
    drop(open_page(browser, serve(page_folder(tmp_path, model))), CHINA)
    check_result(browser, model, CHINA, classes=4)


def test_quantized_model_with_uint8_input(browser, serve, tmp_path, tiny):
    photo = EXAMPLES / "images" / "cat.jpg"
    folder = page_folder(tmp_path)
    keras_t2t.export(tiny, folder / "model.tflite", quantize="int8", input_dtype="uint8")
    runtime = open_exported(folder / "model.tflite")
    drop(open_page(browser, serve(folder)), photo)
    # Inputs of matrix products are rounded to 8 bits at run time, so a difference in the last bit can become a whole step.
    check_result(browser, tiny, photo, run=lambda images: runtime.run(images.astype("uint8")), atol=1e-2)


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
    assert difference.max() <= 1 and difference.mean() < 1e-3  # values near a half may be rounded either way
