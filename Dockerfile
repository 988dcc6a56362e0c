# slmrec_jax on an NVIDIA GPU. JAX's wheels bring CUDA; the host brings the driver and the container toolkit.
#
#   docker build --tag slmrec-jax .
#   docker run --rm --gpus all --volume "$PWD/data:/data:ro" --volume "$PWD/runs:/app/runs" slmrec-jax train --data /data/mine
FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 1000 slmrec
WORKDIR /app
COPY requirements.txt setup.cfg pyproject.toml README.md LICENSE /source/
COPY slmrec_jax /source/slmrec_jax
RUN pip install --no-cache-dir --constraint /source/requirements.txt '/source[cuda13]' && chown slmrec /app

USER 1000
ENTRYPOINT ["slmrec-jax"]
