# An image for each service:  docker build --build-arg SERVICE=nlu --tag govor/nlu .
# compose.yaml builds all of them. No `# syntax=` line: the engine's own front end is enough.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG SERVICE=gateway

# Wheels that pip prefers to an index's. A folder under this name replaces the stage:
# `--build-context wheels=./wheels`.
FROM scratch AS wheels

# The bundled versions that a service may serve; the gateway and the trainer look at all of them.
FROM scratch AS models-stt
COPY models/stt-en /models/stt-en
COPY models/stt-ru /models/stt-ru
COPY models/vad /models/vad
FROM scratch AS models-nlu
COPY models/nlu /models/nlu
FROM scratch AS models-generator
COPY models/generator /models/generator
FROM scratch AS models-tts
COPY models/tts-en /models/tts-en
COPY models/tts-ru /models/tts-ru
FROM scratch AS models-gateway
COPY models /models
FROM models-gateway AS models-trainer
FROM models-${SERVICE} AS models

# What other people wrote, from pyproject.toml alone: a change of our code leaves these layers be.
# pip wants the two files that pyproject.toml names, whatever stands in them.
FROM ${PYTHON_IMAGE} AS packages
ARG PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN touch README.md LICENSE && python -m venv --without-pip /opt/venv
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install --constraint constraints.txt .
ARG SERVICE
ARG DEVICE=cpu
# An index besides the default one, for instance PyTorch's own with the CPU build: not for the GPU.
ARG PIP_EXTRA_INDEX_URL
# Of what comes along, 57 MB are tests of numpy and places of telephone numbers: nobody asks.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    case "$SERVICE $DEVICE" in \
        gateway\ *) extras=gateway,container ;; \
        # onnxruntime-genai needs onnxruntime for the CPU; the device of a training is torch's.
        trainer\ gpu) extras=trainer,nlu,cpu; unset PIP_EXTRA_INDEX_URL ;; \
        trainer\ *) extras=trainer,nlu,cpu; export PIP_FIND_LINKS=/wheels ;; \
        *) extras="$SERVICE,$DEVICE,container" ;; \
    esac && pip --python /opt/venv install --constraint constraints.txt ".[$extras]" \
    && find /opt/venv -type d \( -name tests -o -path '*/phonenumbers/geodata' \) \
        -prune -exec rm -r {} +

FROM ${PYTHON_IMAGE} AS code
# Volumes that are mounted here begin as these folders are: with their owner.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin govor \
    && install --directory --owner 10001 --group 10001 --mode 750 \
        /var/lib/govor /var/lib/govor/secrets /var/lib/govor/models /var/lib/govor/spool \
        /var/lib/govor/lake /var/lib/govor/runs
COPY --from=packages /opt/venv /opt/venv
COPY --from=models /models /app/models
WORKDIR /app
COPY domains domains
COPY govor govor
COPY services services
COPY trainer trainer
RUN ["/opt/venv/bin/python", "-m", "compileall", "-q", "govor", "services", "trainer"]
ARG SERVICE
# ORT_DISABLE_TELEMETRY: onnxruntime's Linux wheels report to their vendor by default.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    GOVOR_SERVICE=$SERVICE \
    GOVOR_VAR=/var/lib/govor \
    GOVOR_HOST=0.0.0.0 \
    GOVOR_PORT=8000 \
    GOVOR_METRICS_HOST=0.0.0.0 \
    GOVOR_METRICS_PORT=9000 \
    GOVOR_LOG_FORMAT=json
USER 10001:10001

FROM code AS image-gateway
ARG DEVICE=cpu
ENV GOVOR_DEVICE=$DEVICE
EXPOSE 8000 9000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --start-interval=2s \
    CMD ["python", "-S", "-m", "govor.health"]
CMD ["gunicorn", "--config", "python:govor.gunicorn"]
FROM image-gateway AS image-stt
FROM image-gateway AS image-nlu
FROM image-gateway AS image-generator
FROM image-gateway AS image-tts

FROM code AS image-trainer
EXPOSE 9000
# Whether it hears the broker, which takes a second of CPU.
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s --start-interval=5s \
    CMD ["python", "-m", "trainer", "ping"]
CMD ["python", "-m", "trainer", "worker"]

FROM image-${SERVICE}
