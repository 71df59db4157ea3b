"""What a request may take."""

from dataclasses import dataclass

from detector.errors import UserError


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the server; a request beyond one gets a 4xx or 503.

    In the worst case it holds `waiting * bytes` of undecoded files and `3 * pixels` bytes for each of two
    batches of decoded images.

    Attributes:
        bytes: of an image file.
        pixels: of an image.
        waiting: requests in work at once; more get 503.
        upload_seconds: for a file to arrive.
        seconds: for the detections, once the file is there.
        batch_size: images that the network computes at once.
        batch_seconds: that the first image of a batch waits for others.
    """

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    waiting: int = 64
    upload_seconds: float = 20.0
    seconds: float = 30.0
    batch_size: int = 8
    batch_seconds: float = 0.005

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (value >= 0 if name == "batch_seconds" else value > 0):
                raise UserError(f"{name.replace('_', ' ')}: {value}: expected more than 0")
