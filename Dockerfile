# Two images: `serve`, which holds no torch, and `train`, which holds everything.
#
#   docker build --target serve --tag weir:serve .
#   docker run --rm -p 127.0.0.1:8001:8001 -v "$PWD/models:/models:ro" weir:serve

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build-serve
WORKDIR /source
RUN python -m venv /opt/weir
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY bundle bundle
COPY export export
COPY server server
COPY training training
COPY weir weir
RUN /opt/weir/bin/pip install --no-cache-dir --constraint constraints.txt '.[server]'

FROM build-serve AS train
RUN /opt/weir/bin/pip install --no-cache-dir --constraint constraints.txt '.[all]'
RUN useradd --uid 10001 --create-home weir
USER 10001:10001
WORKDIR /work
ENV PATH=/opt/weir/bin:$PATH
ENTRYPOINT ["weir"]

FROM ${PYTHON_IMAGE} AS serve
COPY --from=build-serve /opt/weir /opt/weir
ENV PATH=/opt/weir/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WEIR_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["weir", "health"]
ENTRYPOINT ["weir", "serve"]
CMD ["/models"]
