# The CPU server. Models are mounted at /models; the root file system may be read-only:
#
#   docker build -t penstock .
#   docker run --read-only --tmpfs /tmp -v "$PWD/model_repo:/models:ro" \
#     -p 8000:8000 -p 8001:8001 -p 8002:8002 penstock
#
# Arguments after the image's name go to `penstock serve`. What serves models of an MLflow registry, and captures requests:
#
#   docker build --build-arg EXTRAS=mlflow,capture -t penstock .

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .
ARG EXTRAS=""
# pip compiles what it installs: a read-only server could not.
RUN python -m venv /opt/penstock && /opt/penstock/bin/pip install "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}"

# The same image again: a virtual environment needs the interpreter it was made with, and Envoy loads its
# libpython3.11.so from /usr/local/lib.
FROM python:3.11-slim
RUN groupadd --gid 1000 penstock \
    && useradd --uid 1000 --gid penstock --create-home penstock \
    && install --directory --owner=penstock --group=penstock /models
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PENSTOCK_HOST=0.0.0.0 \
    PENSTOCK_MODEL_REPOSITORY=/models
# Numbers, not names: Kubernetes checks runAsNonRoot by number.
USER 1000:1000
WORKDIR /home/penstock
VOLUME /models
EXPOSE 8000 8001 8002
# Not ready is status 400, which urlopen raises.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PENSTOCK_HTTP_PORT', '8000') + '/v2/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["penstock", "serve"]
