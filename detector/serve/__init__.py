"""A trained detector as an HTTP server: `detector serve`.

Read `server.py` first: the paths, and what a request goes through. `uploads.py` turns the body of a
request into an image within the limits of `request_limits.py`, `batcher.py` collects the images that wait
into batches, `metrics.py` counts, `listen.py` opens the socket, and `page.html` is the page on which one
drops a picture. It needs the extra `serve` (FastAPI, uvicorn).
"""
