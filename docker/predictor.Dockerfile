# What answers about customers and images: the predictors, and beside them the judge and the job that moves the alias
# `champion`. The network that embeds pictures is built into the image's cache.
#   docker build -f docker/predictor.Dockerfile --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… \
#     --build-arg CODE_SHA=$(git rev-parse HEAD) .
# PYTHON_IMAGE has no default: a base image is named by its digest, and which one is for whoever builds to say.
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS build
ENV PLUMBLINE_CACHE=/opt/cache
WORKDIR /app
COPY requirements/uv.txt requirements/pipeline.txt requirements/
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
 && python -m venv --without-pip /opt/venvs/pipeline \
 && /opt/tools/bin/uv pip sync --no-cache --compile-bytecode --require-hashes \
      --python /opt/venvs/pipeline/bin/python requirements/pipeline.txt
COPY . .
RUN /opt/tools/bin/uv pip install --no-cache --no-deps --no-build-isolation --python /opt/venvs/pipeline/bin/python -e . \
 && /opt/venvs/pipeline/bin/python -m toolchain.network

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
EXPOSE 8080 9103
ENTRYPOINT ["plumb"]
