# Airflow's scheduler and triggerer where tasks are commands (PLUMBLINE_TASKS=commands, as in docker-compose.yml) and
# not pods: the pipeline's image with Airflow's environment beside the pipeline's.
#   make images IMAGES=worker
ARG AIRFLOW_IMAGE
ARG PIPELINE_IMAGE

FROM ${AIRFLOW_IMAGE} AS airflow

FROM ${PIPELINE_IMAGE}
COPY --from=airflow /opt/venvs/orchestration /opt/venvs/orchestration
ENV PATH=/opt/venvs/orchestration/bin:$PATH \
    PYTHONPATH=/app \
    AIRFLOW_HOME=/plumbline/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
EXPOSE 8793
ENTRYPOINT ["airflow"]
