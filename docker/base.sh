#!/bin/sh
# A base image of Debian's packages alone, for where no image registry is reachable: python3 with venv, and authorities.
#   docker/base.sh TAG
# Needs root, debootstrap and docker. The mirror is the one that apt uses here. Authorities that this machine trusts of
# its own (/usr/local/share/ca-certificates) go in too, for pip, uv and what is built with them: such an image is for this machine alone.
set -eu
tag=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PATH:/usr/sbin:/sbin
mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | awk '$2 == "bookworm" {print $1; exit}')
debootstrap --variant=minbase --include=ca-certificates,python3-venv bookworm "$work" "$mirror" > /dev/null
ln -sf python3 "$work/usr/bin/python"
set -- --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]'
if ls /usr/local/share/ca-certificates/*.crt > /dev/null 2>&1; then
  cp /usr/local/share/ca-certificates/*.crt "$work/usr/local/share/ca-certificates/"
  chroot "$work" update-ca-certificates > /dev/null
  certs=/etc/ssl/certs/ca-certificates.crt
  set -- "$@" --change "ENV SSL_CERT_FILE=$certs PIP_CERT=$certs"
fi
# What nobody reads in a container: documentation, translations, lists of packages that can be fetched.
rm -rf "$work"/var/cache/apt/* "$work"/var/lib/apt/lists/* "$work"/usr/share/doc/* "$work"/usr/share/man/* \
  "$work"/usr/share/locale/* "$work"/usr/share/info/*
: > "$work/etc/resolv.conf"
tar -C "$work" --numeric-owner -c . | docker import "$@" - "$tag"
