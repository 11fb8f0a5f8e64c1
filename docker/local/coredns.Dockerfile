# A cluster's names: CoreDNS, of the program that toolchain.cluster_binaries compiled.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY coredns /usr/local/bin/coredns
USER 65532:65532
ENTRYPOINT ["coredns"]
