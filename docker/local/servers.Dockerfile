# A server of Debian's packages, for where its own image cannot be pulled.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
ARG PACKAGES
ENV DEBIAN_FRONTEND=noninteractive PATH=/usr/lib/postgresql/15/bin:$PATH
# The distribution's own version, whichever it is: a stand-in.
# hadolint ignore=DL3008
RUN printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && groupadd --gid 999 postgres && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres \
 && apt-get update -q && apt-get install -qy --no-install-recommends ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /usr/sbin/policy-rc.d /etc/postgresql /var/lib/postgresql/15
