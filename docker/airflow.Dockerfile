# Airflow's parts (scheduler, API server, DAG processor, triggerer): the orchestration environment and the DAGs. Its
# tasks are pods of the pipeline's image (PLUMBLINE_TASKS=pods), so nothing of the pipeline is in here.
#   make images IMAGES=airflow
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
COPY requirements/uv.txt requirements/orchestration.txt requirements/
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
 && python -m venv --without-pip /opt/venvs/orchestration \
 && /opt/tools/bin/uv pip sync --no-cache --compile-bytecode --require-hashes \
      --python /opt/venvs/orchestration/bin/python requirements/orchestration.txt \
 && echo 'plumb:x:10001:10001::/plumbline:/usr/sbin/nologin' >> /etc/passwd
COPY pyproject.toml README.md LICENSE ./
RUN /opt/tools/bin/uv pip install --no-cache --no-deps --no-build-isolation \
      --python /opt/venvs/orchestration/bin/python -e .
COPY . .

FROM ${PYTHON_IMAGE}
COPY --from=build /etc/passwd /etc/passwd
COPY --from=build /opt/venvs /opt/venvs
COPY --from=build /app /app
ARG CODE_SHA
ENV PATH=/opt/venvs/orchestration/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AIRFLOW_HOME=/plumbline/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PLUMBLINE_HOME=/plumbline \
    PLUMBLINE_CODE_SHA=${CODE_SHA}
WORKDIR /plumbline
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["airflow"]
