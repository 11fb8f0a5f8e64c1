# What holds a pod's namespaces.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
USER 65535:65535
ENTRYPOINT ["sleep", "infinity"]
