"""The body of a request as an image, within the limits."""

import asyncio
import io

import numpy as np
from fastapi import Request
from starlette.requests import ClientDisconnect

from detector.data import UnreadableImage, decode_image, read_header
from detector.serve.request_limits import Limits

NAME = "the picture"  # in messages: a request's body has no file name


class Refusal(Exception):
    """A request that gets no detections.

    Attributes:
        status: of the answer, 4xx or 503.
        reason: one line for whoever sent it.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


async def receive_body(request: Request, limits: Limits) -> bytes:
    """The body of a request; no more than the limit is ever held.

    Raises:
        Refusal: 413: it is too large; 400: empty, or broken off; 408: it arrives too slowly.
    """
    too_large = Refusal(413, f"{NAME} has more than {limits.bytes:,} bytes; shrink it")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.bytes:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"{NAME} did not arrive in {limits.upload_seconds:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, f"the request broke off after {len(body):,} bytes") from None
    if not body:
        raise Refusal(400, "the request has no body: send the bytes of an image file")
    return bytes(body)


def decode_upload(data: bytes, limits: Limits) -> np.ndarray:
    """Decodes an image file into uint8 [H, W, 3], RGB, upright.

    Raises:
        Refusal: 415: not an image; 413: too many pixels, by its header, before memory is taken for
            them; 400: the file is damaged.
    """
    header = read_header(io.BytesIO(data))
    if header is None:  # tiff too: its size is known only after decoding
        raise Refusal(415, f"{NAME} is not an image: expected a JPEG, PNG, WebP or BMP file")
    if header.width * header.height > limits.pixels:
        raise Refusal(
            413,
            f"{NAME} has {header.width} x {header.height} pixels, more than {limits.pixels:,}; shrink it",
        )
    try:
        return decode_image(data, NAME)
    except UnreadableImage as error:
        raise Refusal(400, str(error)) from None
