"""The online store behind a password and TLS: Feast's writes, the predictor's reads, and what is said when it fails.

A redis-server with TLS serves it itself (Debian's does); the PyPI wheel's is built without, and gets a small TLS
terminator in front.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from feature_repo.materialize import materialize
from plumbline import clock
from plumbline.errors import ServiceUnavailable
from plumbline.servers import online_store, services
from plumbline.settings import settings
from products.churn import CHURN
from tests.conftest import use_home
from tests.feature_repo.test_store import LAST, release, write_snapshot

PASSWORD = "p,w=1: #x@"


@dataclass(frozen=True)
class Secured:
    """Where the server listens with TLS, the authority that certified it, and one that did not."""

    port: int
    authority: Path
    stranger: Path

    def url(self, password: str = PASSWORD, authority: Path | None = None) -> str:
        certificates = quote(str(authority or self.authority))
        return f"rediss://app:{quote(password, safe='')}@{services.HOST}:{self.port}/0?ssl_ca_certs={certificates}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority, certificate, key = certify(folder / "ours")
    stranger, _, _ = certify(folder / "theirs")
    with pytest.MonkeyPatch.context() as patch:
        use_home(folder / "home", patch)
        client = online_store.client()
        plain = int(client.connection_pool.connection_kwargs["port"])
        client.acl_setuser("app", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], categories=["+@all"])
        port = services.free_port()
        terminator = (
            None if tls_of_its_own(client, port, certificate, key) else terminate(port, plain, certificate, key)
        )
        settings.cache_clear()
    yield Secured(port, authority, stranger)
    if terminator is not None:
        terminator.call_soon_threadsafe(terminator.stop)
    with pytest.MonkeyPatch.context() as patch:
        use_home(folder / "home", patch)
        services.stop_all()
    settings.cache_clear()


def tls_of_its_own(client: object, port: int, certificate: Path, key: Path) -> bool:
    import redis

    options = {"tls-cert-file": str(certificate), "tls-key-file": str(key), "tls-auth-clients": "no", "tls-port": port}
    try:
        for name, value in options.items():
            client.config_set(name, value)  # type: ignore[attr-defined]
    except redis.ResponseError:
        return False
    return True


def terminate(port: int, behind: int, certificate: Path, key: Path) -> asyncio.AbstractEventLoop:
    """Takes TLS on a loopback port and passes what it holds to another, both ways, until its loop is stopped."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(65536):
                target.write(piece)
                await target.drain()
        except OSError:
            pass
        target.close()

    async def passes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(services.HOST, behind)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.start_server(passes, services.HOST, port, ssl=context))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def certify(folder: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate, a certificate for loopback that it signed, and that one's key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir()
    now = clock.wall()

    def signed(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        )
        if name != issuer:
            address = x509.IPAddress(ipaddress.ip_address(services.HOST))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    paths = folder / "authority.pem", folder / "server.pem", folder / "server.key"
    paths[0].write_bytes(signed("authority", authority_key, "authority", authority_key))
    paths[1].write_bytes(signed("server", key, "authority", authority_key))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[2].write_bytes(key.private_bytes(*form))
    return paths


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_REDIS_URL", url)
    settings.cache_clear()


def test_a_release_is_materialized_and_read_by_the_predictor_over_tls(
    secured: Secured, with_spark: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.errors import Refused
    from serving.features import OnlineFeatures

    use(secured.url(), monkeypatch)
    snapshot = write_snapshot(LAST, 1)
    release(LAST, 1)
    told = materialize(CHURN)
    assert (told["state"], told["online_rows"]) == ("done", len(snapshot))
    features = OnlineFeatures(CHURN, "churn_v1")
    rows = features.read([7, 8])
    expected = snapshot.set_index("customer_id").loc[[7, 8], "spend_cents_total"].tolist()
    assert [row.values["spend_cents_total"] for row in rows] == expected
    assert rows[0].release_id == 1
    with pytest.raises(Refused, match="unknown"):
        features.read([999_999])
    assert services.find("redis") is None, "no private Redis was started beside it"


def test_a_wrong_password_and_an_unknown_authority_are_told_apart_and_nothing_leaks(
    secured: Secured, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, told in (
        (secured.url(password="wrong,secret"), r"\(PLUMBLINE_REDIS_URL\) does not let us in: .*password"),
        (
            secured.url(authority=secured.stranger),
            r"\(PLUMBLINE_REDIS_URL\) does not answer: .*CERTIFICATE_VERIFY_FAILED",
        ),
        (secured.url(authority=home / "none.pem"), r"\(PLUMBLINE_REDIS_URL\) does not answer: .*No such file"),
        (secured.url().replace("rediss://", "redis://").partition("?")[0], r"\(PLUMBLINE_REDIS_URL\) does not answer"),
    ):
        use(url, monkeypatch)
        with pytest.raises(ServiceUnavailable, match=told) as error:
            online_store.client()
        assert "secret" not in str(error.value) and PASSWORD not in str(error.value)
