"""Files, folders, patterns, videos and streams as frames."""

import cv2
import numpy as np
import pytest

from detector.api import frame_sources
from detector.api.frame_sources import ImageFiles, Stream, Video, open_sources
from detector.errors import UserError


def write_video(path, frames=5, fps=10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), (200, 40 * number, 0), np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.png"):
        cv2.imwrite(str(tmp_path / name), np.full((8, 9, 3), 50, np.uint8))
    (tmp_path / "notes.txt").write_text("")
    write_video(tmp_path / "clip.mp4")
    return tmp_path


def test_files_patterns_and_folders(folder):
    images, video = open_sources([str(folder)])
    assert isinstance(images, ImageFiles)
    assert isinstance(video, Video)
    assert [frame.source for frame in images] == [str(folder / "a.png"), str(folder / "b.jpg")]
    assert [frame.name for frame in images] == ["0001_a", "0002_b"]
    (only,) = open_sources([str(folder / "*.jpg")])
    assert [frame.name for frame in only] == ["b"]
    with pytest.raises(UserError, match="no file matches this pattern"):
        open_sources([str(folder / "*.gif")])
    with pytest.raises(UserError, match="no such file"):
        open_sources([str(folder / "c.jpg")])


def test_a_video_frame_by_frame(folder):
    (video,) = open_sources([str(folder / "clip.mp4")])
    assert (video.count, video.fps) == (5, 10.0)
    frames = list(video)
    assert [frame.number for frame in frames] == list(range(5))
    assert frames[3].name == "clip_000003"
    red, _, blue = frames[0].image.reshape(-1, 3).mean(0)  # written as BGR
    assert (red < 40, blue > 160) == (True, True)


def test_what_is_no_video(folder):
    path = folder / "broken.mp4"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"broken\.mp4: not a video"):
        open_sources([str(path)])
    with pytest.raises(UserError, match="camera 77: cannot be opened"):
        open_sources(["77"])
    with pytest.raises(UserError, match=r"stream rtsp://127\.0\.0\.1:9/x: cannot be opened"):
        open_sources(["rtsp://127.0.0.1:9/x"])


class Capture:
    """A stream that gives two frames each time it is opened, and at last none."""

    def __init__(self, opened):
        self.left = 2 if opened <= 3 else 0

    def read(self):
        self.left -= 1
        return (True, np.zeros((4, 4, 3), np.uint8)) if self.left >= 0 else (False, None)

    def get(self, _):
        return 0.0

    def release(self):
        pass


def test_a_stream_is_reopened_a_few_times(monkeypatch):
    opened, waited = [], []

    def open_it(address):
        opened.append(address)
        return Capture(len(opened))

    monkeypatch.setattr(frame_sources, "_open", open_it)
    monkeypatch.setattr(frame_sources.time, "sleep", waited.append)
    stream = Stream("rtsp://camera/1")
    assert stream.fps == frame_sources.DEFAULT_FPS
    frames = list(stream)
    assert [frame.number for frame in frames] == [*range(6), None]
    assert frames[-1].error == "rtsp://camera/1: no frame after 5 attempts to reopen it"
    assert waited == [1, 1, 1, 2, 4, 8, 16]
    assert len(opened) == 1 + 2 + 5
