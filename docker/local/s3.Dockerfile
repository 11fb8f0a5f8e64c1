# versitygw, from the program that toolchain.images compiled of its Go module.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY versitygw /usr/local/bin/versitygw
ENTRYPOINT ["versitygw"]
