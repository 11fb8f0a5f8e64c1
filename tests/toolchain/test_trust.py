"""Java trusts what the machine trusts: a private authority that SSL_CERT_FILE names too."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyspark
import pytest

from plumbline.java import java_home
from toolchain import bootstrap


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of one file, with a certificate that only SSL_CERT_FILE vouches for: its URL."""
    key, certificate = tmp_path / "key.pem", tmp_path / "authority.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("JAVA_TOOL_OPTIONS", raising=False)
    served = tmp_path / "served"
    served.mkdir()
    (served / "told.jar").write_text("told")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(served))) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()


def fetched(site: str, options: list[str], work: Path) -> bool:
    """Whether Ivy, started with these options for Java, brings the file."""
    work.mkdir()
    settings = work / "settings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="site"/><resolvers>'
        f'<url name="site" checksums=""><artifact pattern="{site}/[artifact].[ext]"/></url>'
        "</resolvers></ivysettings>"
    )
    subprocess.run(
        [
            str(java_home() / "bin" / "java"),
            *options,
            "-cp",
            f"{pyspark.__path__[0]}/jars/*",
            "org.apache.ivy.Main",
            "-settings",
            str(settings),
            "-cache",
            str(work / "cache"),
            "-dependency",
            "any",
            "told",
            "1",
            "-retrieve",
            f"{work}/[artifact].[ext]",
        ],
        check=False,
        capture_output=True,
    )
    return (work / "told.jar").exists()


def test_java_is_told_what_this_machine_trusts(site: str, tmp_path: Path) -> None:
    options = bootstrap.trusted(sys.executable, tmp_path / "trusted.p12")
    assert fetched(site, options, tmp_path / "told")
    assert not fetched(site, [], tmp_path / "untold")


def test_a_store_that_java_was_told_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=/etc/store")
    assert bootstrap.trusted(sys.executable, tmp_path / "trusted.p12") == []
