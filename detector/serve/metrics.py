"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counts of one server.

    Attributes:
        requests: finished requests for detections, by HTTP status.
        detections: detected objects, by class.
        seconds: from a request's first byte to its answer.
        batch_images: images in each batch.
        waiting: requests in work now.
    """

    def __init__(self) -> None:
        # of its own, not the process's: tests make several servers
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "detector_requests", "Requests for detections", ["status"], registry=self._registry
        )
        self.detections = Counter(
            "detector_detections", "Detected objects", ["name"], registry=self._registry
        )
        self.seconds = Histogram(
            "detector_request_seconds",
            "Seconds of a request",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.batch_images = Histogram(
            "detector_batch_images",
            "Images in a batch",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.waiting = Gauge(
            "detector_requests_waiting", "Requests in work", registry=self._registry
        )

    def format(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)
