"""Training with two processes on one machine matches training with one, even if each process is killed once."""

import csv
import signal
import socket
import subprocess
import time

import numpy as np
import PIL.Image
import pytest

from tests import micro

pytestmark = pytest.mark.slow

EPOCHS = 20
SETTINGS = {"epochs": EPOCHS, "batch_size": 8, "drop_path_rate": 0.0, "token_drop_rate": 0.0, "evaluate_every": 10}
SETTINGS |= {"optimizer": "sgd"}  # has fewer variables; JAX compares each new variable across processes
TIMEOUT = 600


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(folder, output, processes=1):
    """Starts training processes on the images in a folder."""
    command = [*micro.COMMAND, "train", "--data", "data", "--output", output, "--model", "micro"]
    command += [argument for name, value in SETTINGS.items() for argument in ("--set", f"{name}={value}")]
    coordinator, started = f"localhost:{free_port()}", []
    for index in range(processes):
        distributed = ["--coordinator", coordinator, "--processes", str(processes), "--process", str(index)]
        started.append(
            subprocess.Popen(
                [*command, "--strategy", "jax", *(distributed if processes > 1 else [])],
                cwd=folder,
                env={**micro.ENVIRONMENT, "KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(started):
    """Waits for processes and returns the standard output of each."""
    outputs = [process.communicate(timeout=TIMEOUT) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    return [output for output, _ in outputs]


def read_log(folder):
    with (folder / "log.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("processes"), np.random.default_rng(0)
    for name, color in {"blue": (0, 0, 1), "red": (1, 0, 0)}.items():
        (folder / "data" / name).mkdir(parents=True)
        for index in range(13):  # 10 for training and 3 held out, so that the last evaluation batch needs padding
            image = rng.integers(0, 128, (32, 32, 3)) + 100 * np.array(color)
            PIL.Image.fromarray(image.astype("uint8")).save(folder / "data" / name / f"{index}.png")
    return folder


def kill_one_after_an_epoch(folder, victim):
    """Kills one of two processes after another epoch. Returns the other process, its output, and its errors."""
    before = len(read_log(folder / "two")) if (folder / "two" / "log.csv").exists() else 0
    started, deadline = start(folder, "two", 2), time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if (folder / "two" / "log.csv").exists() and len(read_log(folder / "two")) > before:
            break
        time.sleep(0.05)
    started[victim].send_signal(signal.SIGKILL)
    started[victim].communicate()
    survivor = started[1 - victim]
    return survivor, *survivor.communicate(timeout=TIMEOUT)


def test_two_processes_match_one_after_each_was_killed_once(folder):
    finish(start(folder, "one"))
    alone = read_log(folder / "one")

    survivor, output, errors = kill_one_after_an_epoch(folder, victim=1)
    finished = len(read_log(folder / "two"))
    assert survivor.returncode == 1 and 0 < finished < EPOCHS, errors[-2000:]
    assert "\nDevice         2 devices of 2 processes\n" in output
    assert "Error: Another process has ended or cannot be reached. Restart all processes with the same commands" in errors
    assert f"The last good checkpoint is two/checkpoints/epoch-{finished:05d}.npz. JAX reported: " in errors

    survivor, _, errors = kill_one_after_an_epoch(
        folder, victim=0
    )  # the coordinator; JAX itself may end the other process first
    assert survivor.returncode != 0 and finished < len(read_log(folder / "two")) < EPOCHS
    assert "Error: Another process has ended" in errors or "This most likely indicates that another task died" in errors

    outputs = finish(start(folder, "two", 2))
    assert "Wrote two" in outputs[0] and "Wrote" not in outputs[1]
    together = read_log(folder / "two")
    assert [row["epoch"] for row in together] == list(range(1, EPOCHS + 1))
    for one, two in zip(alone, together, strict=True):
        for key in one:
            assert two[key] == pytest.approx(one[key], rel=1e-3), key
    assert (folder / "two" / "model.keras").exists()
