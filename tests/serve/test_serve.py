"""`detector serve`: a real server on a loopback socket; what it refuses leaves it up."""

import json
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from detector.api.detections import Detections
from detector.commands import cli, serve
from detector.errors import UserError
from detector.serve.listen import bind, make_server
from detector.serve.request_limits import Limits
from detector.serve.server import make_app

LIMITS = Limits(bytes=200_000, pixels=100_000, waiting=16, upload_seconds=0.6, batch_size=4)
BROKEN = 13  # an image of this width fails in the network


class StubDetector:
    """One box as large as the image, whose score is the mean of its red channel."""

    names = ("cat", "<b>")
    hardware = SimpleNamespace(device="cpu")

    def __init__(self):
        self.batches, self.seconds = [], 0.0

    def __call__(self, images, *, channels, batch_size):
        assert channels == "RGB"
        assert len(images) == batch_size
        self.batches.append(len(images))
        time.sleep(self.seconds)
        if any(image.shape[1] == BROKEN for image in images):
            raise ArithmeticError("a fault of the network")
        return [self.detect(image) for image in images]

    def detect(self, image):
        height, width = image.shape[:2]
        boxes = torch.tensor([[0.0, 0.0, width, height]] * 2)
        scores = torch.tensor([image[:, :, 0].mean() / 255, 0.1])
        return Detections(boxes, scores, torch.tensor([1, 0]), names=self.names, image=image)


@contextmanager
def running(model, limits):
    """The port of a server in a thread."""
    server = make_server(make_app(model, limits), limits)
    listening = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def model():
    return StubDetector()


@pytest.fixture(scope="module")
def port(model):
    with running(model, LIMITS) as port:
        yield port


def ask(port, path, body=None):
    """(status, body) of a request; a body makes it a POST."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def detect(port, body, query=""):
    status, content = ask(port, f"/detect{query}", body)
    return status, json.loads(content)


def encode(width=20, height=10, red=204, suffix=".png"):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 2] = red  # OpenCV writes BGR
    return cv2.imencode(suffix, image)[1].tobytes()


def png_header(width, height):
    """A PNG that claims a size, with hardly a byte of pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"x")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_an_image_gets_its_detections(port):
    status, content = detect(port, encode())
    assert status == 200
    assert content == {
        "width": 20,
        "height": 10,
        "detections": [
            {"box_xyxy": [0.0, 0.0, 20.0, 10.0], "score": 0.8, "label": 1, "name": "<b>"},
            {"box_xyxy": [0.0, 0.0, 20.0, 10.0], "score": 0.1, "label": 0, "name": "cat"},
        ],
    }
    assert [each["label"] for each in detect(port, encode(), "?conf=0.5")[1]["detections"]] == [1]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "no body"),
        (b"GIF89a not an image", 415, "not an image"),
        (encode(suffix=".tiff"), 415, "JPEG, PNG, WebP or BMP"),
        (png_header(30_000, 30_000), 413, "30000 x 30000 pixels"),
        (encode(300, 200)[:150], 400, "picture"),
        (encode(64, 64, suffix=".jpg")[:-30], 400, "truncated"),
        (bytes(LIMITS.bytes + 1), 413, "200,000 bytes"),
    ],
    ids=["empty", "text", "tiff", "pixels", "png-part", "jpeg-part", "bytes"],
)
def test_a_bad_image_is_a_4xx_with_one_line(port, body, status, reason):
    answer, content = detect(port, body)
    assert answer == status
    assert reason in content["error"]
    assert "\n" not in content["error"]
    assert detect(port, encode())[0] == 200


def test_a_bad_threshold_and_a_wrong_method(port):
    assert detect(port, encode(), "?conf=2")[0] == 422
    assert ask(port, "/detect")[0] == 405
    assert ask(port, "/nothing")[0] == 404


def send(port, *parts, pause=0.0):
    """What comes back for raw bytes."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        return connection.recv(4096)


def test_a_request_that_breaks_off_or_stalls(port):
    head = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(head + b"\x89PNG")
    assert send(port, head + b"\x89PNG").startswith(b"HTTP/1.1 408")  # and the rest never arrives
    assert send(port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert detect(port, encode())[0] == 200
    metrics = ask(port, "/metrics")[1].decode()
    assert "detector_requests_waiting 0.0" in metrics
    # a body without its length is cut off at the limit, too
    chunked = b"POST /detect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (100_001, bytes(100_001))
    assert send(port, chunked + chunk, chunk).startswith(b"HTTP/1.1 413")


def test_a_hundred_at_once(port, model):
    model.seconds = 0.05
    model.batches.clear()
    try:
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda n: detect(port, encode(red=50 + n)), range(100)))
    finally:
        model.seconds = 0.0
    statuses = {status for status, _ in answers}
    assert statuses == {200, 503}
    for n, (status, content) in enumerate(answers):
        if status == 200:  # each has its own detections, not those of another of its batch
            assert content["detections"][0]["score"] == pytest.approx((50 + n) / 255, abs=1e-4)
        else:
            assert "16 requests are waiting" in content["error"]
    assert max(model.batches) == LIMITS.batch_size
    assert ask(port, "/health")[0] == 200


def test_a_fault_in_the_network_fails_one_request(port, model, capfd):
    model.seconds = 0.1  # so that the others wait in one batch
    try:
        with ThreadPoolExecutor(4) as pool:
            widths = [20, BROKEN, 20, 20]
            statuses = list(pool.map(lambda w: ask(port, "/detect", encode(w))[0], widths))
    finally:
        model.seconds = 0.0
    assert statuses == [200, 500, 200, 200]
    assert detect(port, encode())[0] == 200


def test_slow_detections_are_503():
    model = StubDetector()
    model.seconds = 0.5
    limits = Limits(seconds=0.1)
    with running(model, limits) as port:
        status, content = detect(port, encode())
        assert status == 503
        assert "overloaded" in content["error"]
        assert ask(port, "/health")[0] == 200  # answered while the network computes


def test_metrics_and_health(port):
    before = count(port, 'detector_requests_total{status="200"}')
    detect(port, encode())
    assert count(port, 'detector_requests_total{status="200"}') == before + 1
    assert count(port, "detector_batch_images_count") > 0
    status, content = ask(port, "/health")
    assert status == 200
    assert json.loads(content)["names"] == ["cat", "<b>"]


def count(port, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", ask(port, "/metrics")[1].decode(), re.M)
    return float(found[1]) if found else 0.0


def test_the_page_loads_nothing_from_elsewhere(port):
    status, page = ask(port, "/")
    assert status == 200
    assert not re.search(r'(src|href)="(?!data:)|https?://|innerHTML', page.decode())


def test_values_are_checked():
    with pytest.raises(UserError, match="batch size: 0"):
        Limits(batch_size=0)
    with bind("127.0.0.1", 0) as taken, pytest.raises(UserError, match="give another --host"):
        bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="port"):
        bind("no.such.host.invalid", 80)


def test_the_command_serves_loopback_by_default(monkeypatch, capsys):
    started = {}
    model = StubDetector()
    monkeypatch.setattr(serve, "Detector", lambda weights, **options: model)
    monkeypatch.setattr(
        "detector.serve.listen.listen",
        lambda app, limits, **where: started.update(where, limits=limits),
    )
    words = ["serve", "--weights", "best.pt", "--max-mb", "1.5"]
    monkeypatch.setattr("sys.argv", words)
    cli.run(serve.main)
    assert (started["host"], started["port"]) == ("127.0.0.1", 8000)
    assert started["limits"].bytes == 1_500_000
    assert "other machines" not in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*words, "--host", "0.0.0.0"])
    cli.run(serve.main)
    assert "other machines" in capsys.readouterr().out
