"""The certificates of a PEM file as a store that Java reads: `python toolchain/trust.py AUTHORITIES.pem STORE.p12`."""

import argparse
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12
from cryptography.utils import CryptographyDeprecationWarning


def java_store(authorities: bytes) -> bytes:
    """A PKCS #12 trust store without a password of every certificate in `authorities` (PEM)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # an authority's odd serial number
        certificates = x509.load_pem_x509_certificates(authorities)
    return pkcs12.serialize_java_truststore(
        [pkcs12.PKCS12Certificate(each, str(number).encode()) for number, each in enumerate(certificates)],
        NoEncryption(),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("authorities", type=Path, help="PEM file, such as the one SSL_CERT_FILE names")
    parser.add_argument("store", type=Path, help="where the store is written")
    given = parser.parse_args()
    given.store.write_bytes(java_store(given.authorities.read_bytes()))
