# Training on an NVIDIA GPU; docs/serve.md has the commands. Build it from the root of the checkout.
# The base has CUDA's compiler, of the same version as torch's CUDA: the kernels are compiled against both.
ARG BASE=pytorch/pytorch:2.11.0-cuda12.8-cudnn9-devel
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
# a build has no GPU to ask for its architecture: without a list, setup.py compiles all that it knows
ARG TORCH_CUDA_ARCH_LIST=""
ARG PIP_OPTIONS=""
ENV DETECTOR_CUDA=1 PYTHONUNBUFFERED=1
WORKDIR /src
# before the sources; torch is the base's
COPY requirements.txt .
RUN pip install --no-cache-dir ${PIP_OPTIONS} -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-build-isolation ${PIP_OPTIONS} ".[tensorboard]"
# runs/ and data/ are written under the current folder, which is mounted
WORKDIR /work
ENTRYPOINT ["detector"]
CMD ["--help"]
