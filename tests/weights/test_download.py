"""Downloads, from a server on loopback that breaks connections, sends wrong sizes and refuses."""

import hashlib
import http.server
import re
import threading

import pytest

from detector.errors import UserError
from detector.weights.download import download

CONTENT = bytes(range(256)) * 5000  # 1.28 MB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the class attributes select its faults."""

    cut_after: int | None = None  # bytes of one answer after which the connection is cut
    ranges = True
    status = 200
    log: list[str | None]

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).log.append(wanted)
        if self.status != 200:
            self.send_error(self.status)
            return
        start = int(re.match(r"bytes=(\d+)-$", wanted)[1]) if wanted and self.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) if self.cut_after is None else start + self.cut_after
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A fresh handler class and the address of its file."""
    handler = type("Handler", (Server,), {"log": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield handler, f"http://127.0.0.1:{running.server_address[1]}/a.weights"
        running.shutdown()
        thread.join()


def test_a_whole_file(server, tmp_path):
    handler, url = server
    path = tmp_path / "new" / "a.weights"
    digest = hashlib.sha256(CONTENT).hexdigest()
    download(url, path, size=len(CONTENT), sha256=digest)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["a.weights"]
    download(url, path, size=len(CONTENT), sha256=digest)
    assert len(handler.log) == 1, "a complete file is not downloaded again"


def test_a_broken_connection_is_resumed(server, tmp_path):
    handler, url = server
    handler.cut_after = 500_000
    path = tmp_path / "a.weights"
    download(url, path, size=len(CONTENT), pause=0)
    assert path.read_bytes() == CONTENT
    assert handler.log == [None, "bytes=500000-", "bytes=1000000-"]


def test_an_interrupted_download_is_resumed_by_the_next_call(server, tmp_path):
    handler, url = server
    handler.cut_after = 0
    path, part = tmp_path / "a.weights", tmp_path / "a.weights.part"
    part.write_bytes(CONTENT[:777])
    with pytest.raises(UserError, match=r"777 bytes are kept in .*run the command again") as caught:
        download(url, path, size=len(CONTENT), attempts=2, pause=0)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    handler.cut_after = None
    download(url, path, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert handler.log[-1] == "bytes=777-"


def test_without_range_requests_the_download_starts_again(server, tmp_path):
    handler, url = server
    handler.ranges = False
    (tmp_path / "a.weights.part").write_bytes(b"rubbish")
    download(url, tmp_path / "a.weights", size=len(CONTENT))
    assert (tmp_path / "a.weights").read_bytes() == CONTENT


def test_a_wrong_size_is_refused_before_it_is_fetched(server, tmp_path):
    _, url = server
    with pytest.raises(UserError, match=r"the file there has 1,280,000 bytes, expected 33,164,680"):
        download(url, tmp_path / "a.weights", size=33_164_680)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_too_long_is_discarded(server, tmp_path):
    _, url = server
    (tmp_path / "a.weights.part").write_bytes(CONTENT + b"more")
    download(url, tmp_path / "a.weights", size=len(CONTENT), pause=0)
    assert (tmp_path / "a.weights").read_bytes() == CONTENT


def test_a_complete_part_is_used(server, tmp_path):
    _, url = server
    (tmp_path / "a.weights.part").write_bytes(CONTENT)
    download(url, tmp_path / "a.weights", size=len(CONTENT))
    assert (tmp_path / "a.weights").read_bytes() == CONTENT


def test_a_wrong_hash_is_refused(server, tmp_path):
    _, url = server
    with pytest.raises(UserError, match=r"has sha256 \w{64}, expected 00"):
        download(url, tmp_path / "a.weights", sha256="00" * 32)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_other_file_is_not_overwritten(server, tmp_path):
    handler, url = server
    path = tmp_path / "a.weights"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"has 4 bytes, expected 1,280,000; move it away"):
        download(url, path, size=len(CONTENT))
    assert path.read_bytes() == b"mine"
    assert handler.log == []


@pytest.mark.parametrize(("status", "message"), [(404, "answered 404"), (503, "answered 503")])
def test_refusals(server, tmp_path, status, message):
    handler, url = server
    handler.status = status
    with pytest.raises(UserError, match=message):
        download(url, tmp_path / "a.weights", attempts=3, pause=0)
    assert len(handler.log) == (1 if status == 404 else 3)


def test_no_server(tmp_path):
    with pytest.raises(UserError, match="no connection"):
        download("http://127.0.0.1:9/a", tmp_path / "a", attempts=2, pause=0)
