"""Batches of the images that wait: several requests share one run of the network."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np

from detector.api.detections import Detections

Detect = Callable[[Sequence[np.ndarray]], list[Detections]]


class WaitingImage(NamedTuple):
    """An image, uint8 [H, W, 3], RGB, and the future that gets its detections."""

    image: np.ndarray
    found: asyncio.Future[Detections]


class Batcher:
    """Runs `detect` in one thread, on up to `batch_size` images at a time.

    The first image waits up to `wait_seconds` for others. Images that arrive while the network computes
    make up the next batch, so under load batches fill without waiting. An async context manager.

    Attributes:
        batch_sizes: is called with the number of images of each batch.
    """

    def __init__(
        self,
        detect: Detect,
        *,
        batch_size: int,
        wait_seconds: float,
        batch_sizes: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._detect, self._batch_size, self._wait_seconds = detect, batch_size, wait_seconds
        self.batch_sizes = batch_sizes
        self._waiting: asyncio.Queue[WaitingImage] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        # one thread: two batches at once would share the cores and need twice the memory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="detect")

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def is_running(self) -> bool:
        """Whether images are being taken from the queue."""
        return self._task is not None and not self._task.done()

    async def detect(self, image: np.ndarray) -> Detections:
        """The detections of one image, uint8 [H, W, 3], RGB, once its batch is done.

        Cancelling takes the image out of the queue.

        Raises:
            Exception: whatever `detect` raises for this image alone.
        """
        found: asyncio.Future[Detections] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(WaitingImage(image, found))
        return await found

    async def _work(self) -> None:
        while True:
            batch = [each for each in await self._collect() if not each.found.done()]
            if batch:
                self.batch_sizes(len(batch))
                await self._run(batch)

    async def _collect(self) -> list[WaitingImage]:
        """The next batch: waits for a first image, then up to `wait_seconds` for others."""
        batch = [await self._waiting.get()]
        try:
            async with asyncio.timeout(self._wait_seconds):
                while len(batch) < self._batch_size:
                    batch.append(await self._waiting.get())
        except TimeoutError:
            pass
        return batch

    async def _run(self, batch: list[WaitingImage]) -> None:
        """Detects and sets the futures; if a batch fails, each image is tried alone.

        So an image that the network cannot take fails no other request, and a batch that does not fit
        into the memory is computed in parts.
        """
        loop = asyncio.get_running_loop()
        try:
            all_found = await loop.run_in_executor(
                self._thread, self._detect, [each.image for each in batch]
            )
        except Exception as error:  # the boundary: a request fails, the server stays up
            if len(batch) > 1:
                for each in batch:
                    await self._run([each])
            elif not batch[0].found.done():
                batch[0].found.set_exception(error)
            return
        for each, found in zip(batch, all_found, strict=True):
            if not each.found.done():  # its request may have ended meanwhile
                each.found.set_result(found)
