# What fetches a model's files before its predictor starts: KServe's own code, from PyPI, called as KServe's controller
# calls its image, with an address and a folder.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE} AS build
RUN python -m venv /opt/storage && /opt/storage/bin/pip install --no-cache-dir --no-compile kserve-storage==0.21.0
FROM ${PYTHON_IMAGE}
COPY --from=build /opt/storage /opt/storage
USER 10001:10001
ENTRYPOINT ["/opt/storage/bin/python", "-c", "import sys; from kserve_storage import Storage; Storage.download(*sys.argv[1:3])"]
