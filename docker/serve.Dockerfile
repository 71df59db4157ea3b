# A server of detections; docs/serve.md has the commands. Build it from the root of the checkout.
FROM python:3.11-slim AS build
# the kernels: their CPU half needs a C++ compiler, once
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/detector
ENV PATH=/opt/detector/bin:$PATH DETECTOR_CUDA=0
# e.g. --build-arg PIP_OPTIONS="--extra-index-url ..." for a torch without CUDA, which is much smaller
ARG PIP_OPTIONS=""
WORKDIR /src
# before the sources, so that a change of the code does not install torch again
COPY requirements.txt .
RUN pip install --no-cache-dir ${PIP_OPTIONS} -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-build-isolation ${PIP_OPTIONS} ".[serve,onnx]"

FROM python:3.11-slim
COPY --from=build /opt/detector /opt/detector
ENV PATH=/opt/detector/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home detector
USER detector
WORKDIR /home/detector
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# 0.0.0.0: the container's own addresses; what reaches them is said by `docker run -p`
ENTRYPOINT ["detector", "serve", "--host", "0.0.0.0", "--port", "8000"]
