"""Sockets: runs the application with uvicorn until it is interrupted."""

import socket

import uvicorn
from fastapi import FastAPI

from detector.errors import UserError
from detector.serve.request_limits import Limits

IDLE_SECONDS = 5  # that a connection without a request is kept open


def listen(app: FastAPI, limits: Limits, *, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM; requests in work are answered first.

    Raises:
        UserError: the address cannot be used.
    """
    bound = bind(host, port)
    number = bound.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{number}/  (page), POST /detect, GET /health, GET /metrics")
    make_server(app, limits).run(sockets=[bound])


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 takes any that is free.

    Raises:
        UserError: the address is taken, unknown, or not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{host}, port {port}: {reason}; give another --host or --port") from None


def make_server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """The server, not yet running."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="on",
            log_level="warning",
            access_log=False,
            # open connections: those in work, those that are told 503, and health checks
            limit_concurrency=4 * limits.waiting + 32,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=round(limits.upload_seconds + limits.seconds) + 1,
        )
    )
