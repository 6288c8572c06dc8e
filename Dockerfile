# Three images: `serve`, without torch and compilers; `fetch`, which copies models from a storage
# (`weir fetch`); and `train`, with everything.
#
#   docker build --target serve --tag weir:serve .
#   docker build --target serve --tag weir:serve-cuda --build-arg VARIANT=cuda .
#   docker run --rm --read-only -e WEIR_INSECURE=true -p 127.0.0.1:8001:8001 \
#     -v "$PWD/models:/models:ro" weir:serve

ARG PYTHON_IMAGE=docker.io/library/python:3.11.16-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

FROM ${PYTHON_IMAGE} AS build
# A failure of any command, also within a pipe, fails the build.
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE deploy/image/*requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement build-requirements.txt; \
    python -m venv --without-pip /opt/weir

FROM build AS wheel
COPY bundle bundle
COPY export export
COPY server server
COPY training training
COPY weir weir
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /whole .

FROM build AS build-serve
# cpu, or cuda with CUDA's libraries for x86-64.
ARG VARIANT=cpu
RUN pip --python /opt/weir/bin/python install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.txt; \
    case "$VARIANT" in \
      # The runtime contains the CPU provider. These two need CUDA's libraries.
      cpu) rm -f /opt/weir/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so \
          /opt/weir/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_tensorrt.so ;; \
      cuda) pip --python /opt/weir/bin/python install --no-cache-dir --require-hashes --only-binary :all: --requirement cuda-requirements.txt; \
        mkdir /opt/weir/cuda; \
        ln -s /opt/weir/lib/python3*/site-packages/nvidia/*/lib/*.so* /opt/weir/cuda ;; \
      *) echo "VARIANT: expected cpu or cuda, got $VARIANT" >&2; exit 1 ;; \
    esac
COPY --from=wheel /whole /whole
RUN pip --python /opt/weir/bin/python install --no-cache-dir --no-deps /whole/*.whl; \
    pip --python /opt/weir/bin/python check

FROM ${PYTHON_IMAGE} AS serve
ARG REVISION=unknown
LABEL org.opencontainers.image.title="weir: serve" \
      org.opencontainers.image.description="Serves bundles and ONNX files over gRPC and HTTP, with metrics." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build-serve /opt/weir /opt/weir
# A container's loopback cannot be reached from outside, so the server listens beyond it. It then
# starts only with TLS and tokens, or with WEIR_INSECURE=true, which is right where published ports
# or networks decide what can connect. That is not the image's decision.
ENV PATH=/opt/weir/bin:$PATH \
    LD_LIBRARY_PATH=/opt/weir/cuda \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WEIR_HOST=0.0.0.0 \
    WEIR_REQUIRE_MODELS=true
USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s --retries=3 CMD ["weir", "health", "--timeout", "4"]
ENTRYPOINT ["weir", "serve"]
CMD ["/models"]

FROM build AS build-fetch
RUN pip --python /opt/weir/bin/python install --no-cache-dir --require-hashes --only-binary :all: --requirement fetch-requirements.txt
COPY --from=wheel /whole /whole
RUN pip --python /opt/weir/bin/python install --no-cache-dir --no-deps /whole/*.whl; \
    pip --python /opt/weir/bin/python check

FROM ${PYTHON_IMAGE} AS fetch
LABEL org.opencontainers.image.title="weir: fetch" \
      org.opencontainers.image.description="Copies models from a bucket, a hub or a web server to a folder." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build-fetch /opt/weir /opt/weir
# The user has no home; the storages' libraries look for their settings and caches there.
ENV PATH=/opt/weir/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["weir", "fetch"]

FROM build AS train
# As in the Makefile: for example --extra-index-url https://download.pytorch.org/whl/cpu
ARG PIP_FLAGS=
# A wheel without code has the dependencies: a change of the code does not install them again.
# hadolint ignore=SC2086
RUN mkdir weir; \
    pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /empty .; \
    wheel=$(echo /empty/*.whl); \
    pip --python /opt/weir/bin/python install --no-cache-dir --constraint constraints.txt $PIP_FLAGS "${wheel}[all]"
COPY --from=wheel /whole /whole
RUN pip --python /opt/weir/bin/python uninstall --yes --quiet weir; \
    pip --python /opt/weir/bin/python install --no-cache-dir --no-deps /whole/*.whl; \
    useradd --uid 10001 --create-home weir; \
    install --directory --owner=weir /work
LABEL org.opencontainers.image.title="weir: train" \
      org.opencontainers.image.description="Trains networks and exports them to bundles." \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/weir/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["weir"]
