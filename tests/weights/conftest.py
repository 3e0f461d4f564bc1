"""A local server for published weights, an empty cache, and a file of T2T-ViT-7."""

import http.server
import threading
import time

import pytest

from keras_t2t.variants import VARIANTS
from tests.conftest import seeded_parameters
from tests.torch_files import Ordered, legacy_file


class Server(http.server.ThreadingHTTPServer):
    """Serves the bytes in `files`. `faults` are the errors in the next responses, in this order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = {}, [], []
        self.url = f"http://127.0.0.1:{self.server_port}/mirror"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/mirror/")
        self.server.requests.append(name)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if name not in self.server.files or fault == "404":
            self.send_error(404)
            return
        data = self.server.files[name]
        self.send_response(200)
        if fault == "invalid length":
            self.send_header("Content-Length", "many")
        elif fault != "truncated without a length":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if fault is None else data[: len(data) // 3])
        if fault == "stalled":
            time.sleep(3)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch, server):
    """Returns the cache folder, which does not exist yet, and makes `server` the mirror."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_T2T_WEIGHTS_URL", server.url)
    return tmp_path / "home" / "models" / "keras_t2t"


@pytest.fixture(scope="session")
def published():
    """Returns the bytes of a file of T2T-ViT-7 in the published form, with seeded weights, and the weights by name."""
    parameters = seeded_parameters(VARIANTS["t2t_vit_7"].config, (224, 224))
    return legacy_file({"state_dict_ema": Ordered(parameters)}), parameters


@pytest.fixture
def file(server, published):
    """Returns the name of the file of T2T-ViT-7, which is on the server."""
    server.files["71.7_T2T_ViT_7.pth.tar"] = published[0]
    return "71.7_T2T_ViT_7.pth.tar"
