"""The HTTP server: its paths, and what a request for detections goes through."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from detector.api.detections import Detections
from detector.api.detector import Detector
from detector.errors import UserError, explain
from detector.serve.batcher import Batcher
from detector.serve.metrics import Metrics
from detector.serve.request_limits import Limits
from detector.serve.uploads import Refusal, decode_upload, receive_body

# the page loads nothing from elsewhere, and shows only pictures that were dropped on it
PAGE_POLICY = (
    "default-src 'none'; img-src blob: data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
RETRY_SECONDS = 1


class Service:
    """A detector behind a queue, with limits.

    Attributes:
        model: the detector.
        limits: of a request.
        metrics: what is counted.
        batcher: collects the images that wait.
    """

    def __init__(self, model: Detector, limits: Limits) -> None:
        self.model, self.limits, self.metrics = model, limits, Metrics()
        self.batcher = Batcher(
            self._detect,
            batch_size=limits.batch_size,
            wait_seconds=limits.batch_seconds,
            batch_sizes=self.metrics.batch_images.observe,
        )
        self._in_work = 0
        # files wait undecoded: a decoded image takes up to 3 * limits.pixels bytes
        self._decoded = asyncio.Semaphore(2 * limits.batch_size)

    def _detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return self.model(list(images), channels="RGB", batch_size=len(images))

    async def answer(self, request: Request, conf: float) -> Response:
        """The answer to a request for detections: 200 with them, or a 4xx or 503 with the reason."""
        started = time.perf_counter()
        status = 500
        try:
            found = await self._admit(request)
            content = describe(found, conf)
            for each in content["detections"]:
                self.metrics.detections.labels(each["name"]).inc()
            status = 200
            return JSONResponse(content)
        except Refusal as refusal:
            status = refusal.status
            headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
            return JSONResponse({"error": refusal.reason}, status, headers)
        finally:
            self.metrics.requests.labels(str(status)).inc()
            self.metrics.seconds.observe(time.perf_counter() - started)

    async def _admit(self, request: Request) -> Detections:
        """The detections of a request, if it is not one too many.

        Raises:
            Refusal: why it gets none.
        """
        if self._in_work >= self.limits.waiting:  # before its body takes memory
            raise Refusal(503, f"{self.limits.waiting} requests are waiting; try again later")
        self._in_work += 1
        self.metrics.waiting.set(self._in_work)
        try:
            data = await receive_body(request, self.limits)
            async with asyncio.timeout(self.limits.seconds):
                return await self._detect_upload(data)
        except TimeoutError:
            raise Refusal(
                503, f"no detections after {self.limits.seconds:g} s: the server is overloaded"
            ) from None
        finally:
            self._in_work -= 1
            self.metrics.waiting.set(self._in_work)

    async def _detect_upload(self, data: bytes) -> Detections:
        async with self._decoded:
            image = await asyncio.to_thread(decode_upload, data, self.limits)
            try:
                return await self.batcher.detect(image)
            except UserError as error:
                raise Refusal(400, str(error)) from None
            except RuntimeError as error:
                if explain(error) is None:
                    raise
                raise Refusal(503, "the machine is out of memory; try again later") from None

    def describe_health(self) -> dict[str, Any]:
        """What runs here, for GET /health."""
        return {
            "status": "ok" if self.batcher.is_running else "stopped",
            "names": list(self.model.names),
            "device": str(self.model.hardware.device),
            "requests_waiting": self._in_work,
        }


def describe(found: Detections, conf: float) -> dict[str, Any]:
    """The detections with a score above `conf` as plain values, highest score first."""
    height, width = found.image.shape[:2]
    return {
        "width": width,
        "height": height,
        "detections": [
            {
                "box_xyxy": [round(x, 2) for x in each.box_xyxy],
                "score": round(each.score, 5),
                "label": each.label,
                "name": each.name,
            }
            for each in found
            if each.score > conf
        ],
    }


def make_app(model: Detector, limits: Limits) -> FastAPI:
    """The application of a detector, for uvicorn or another ASGI server."""
    service = Service(model, limits)
    page = resources.files("detector.serve").joinpath("page.html").read_text(encoding="utf-8")

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async with service.batcher:
            yield

    # without FastAPI's /docs: its page loads scripts from a content delivery network
    app = FastAPI(title="detector", lifespan=run, docs_url=None, redoc_url=None)

    @app.get("/", response_class=HTMLResponse)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.post("/detect")
    async def detect(request: Request, conf: Annotated[float, Query(ge=0, le=1)] = 0.0) -> Response:
        return await service.answer(request, conf)

    @app.get("/health")
    async def check_health() -> JSONResponse:
        health = service.describe_health()
        return JSONResponse(health, 200 if health["status"] == "ok" else 503)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(service.metrics.format(), media_type="text/plain; version=0.0.4")

    return app
