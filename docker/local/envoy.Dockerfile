# Envoy, out of the wheel that the laptop's canaries run too.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY envoy /usr/local/bin/envoy
ENTRYPOINT ["envoy"]
