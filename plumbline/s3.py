"""A lake in an S3 server: what delta-rs, Spark, dlt and MLflow must know to reach it, in one place.

The server and the keys come from the standard variables, which all four read themselves: AWS_ENDPOINT_URL (unset: AWS),
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or in a pod what its workload identity sets. No key is passed on,
so none gets into an argument list or a log.
Plain http is spoken to loopback, elsewhere only with AWS_ALLOW_HTTP=true.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from plumbline import files
from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.settings import ROOT, settings

SCHEME = "s3://"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
IDENTITIES = (
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""What a pod's workload identity is told by, instead of keys: EKS Pod Identity, ECS, a service account's role."""

PROVIDERS = (
    "EnvironmentVariableCredentialsProvider",
    "ContainerCredentialsProvider",
    "WebIdentityTokenFileCredentialsProvider",
)
"""Where Spark looks for keys, in this order."""

REGION = "us-east-1"
"""Unless AWS_REGION names another: servers other than AWS take any."""

LOG_STORE = "plumbline.PutIfAbsentLogStore"
LOG_STORE_SOURCE = ROOT / "toolchain" / "java" / "plumbline" / "PutIfAbsentLogStore.java"
LOG_STORE_CONF = "spark.delta.logStore.s3.impl"
"""With Delta's default for S3, two Spark drivers overwrite each other's commits: no session of ours is without it."""


def holds(uri: str) -> bool:
    """Whether a place is in S3."""
    return uri.startswith(SCHEME)


def endpoint() -> str | None:
    """URL of the S3 server; None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL") or None


def may_speak_http(url: str | None, allowed: str) -> bool:
    """Whether a server's URL is plain http. Raises SettingsError unless it is of loopback or AWS_ALLOW_HTTP allows it.

    `url` is AWS_ENDPOINT_URL, None for AWS; `allowed` is AWS_ALLOW_HTTP.
    """
    if url is None or not url.startswith("http://"):
        return False
    if allowed.lower() in ("1", "true", "yes") or _is_loopback(urlsplit(url).hostname or ""):
        return True
    raise SettingsError(
        f"AWS_ENDPOINT_URL={url}: expected https://, for plain http sends data in the clear; "
        "set AWS_ALLOW_HTTP=true where the network is trusted"
    )


def region() -> str:
    """The region that requests are signed for."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION


def require_keys(uri: str) -> None:
    """Raises SettingsError when there are no keys for this place in S3, or its server is spoken to in the clear.

    Keys, or what gives a pod its own, are read from the environment alone.
    """
    _speaks_http()
    missing = [name for name in KEYS if not os.environ.get(name)]
    if missing and not any(os.environ.get(name) for name in IDENTITIES):
        raise SettingsError(
            f"{uri} is in S3: set {' and '.join(missing)} in the environment, or give the pod a workload identity"
        )


def delta_options(uri: str) -> dict[str, str] | None:
    """delta-rs' storage options for a table; None for one on disk. Raises SettingsError without keys.

    `conditional_put`: a commit is put if its version does not exist yet, or two writers would lose one.
    """
    if not holds(uri):
        return None
    require_keys(uri)
    options = {"aws_region": region(), "conditional_put": "etag", "max_retries": "5", "retry_timeout": "20s"}
    if url := endpoint():
        options |= {"aws_endpoint": url, "allow_http": str(_speaks_http()).lower()}
    return options


def _speaks_http() -> bool:
    return may_speak_http(endpoint(), os.environ.get("AWS_ALLOW_HTTP", ""))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def spark_conf(scratch: Path) -> dict[str, str]:
    """Spark's configuration for s3:// paths; no key is in it. `scratch` is where uploads wait."""
    conf = {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",  # one address in every engine: s3://
        "spark.hadoop.fs.s3a.aws.credentials.provider": ",".join(
            f"software.amazon.awssdk.auth.credentials.{name}" for name in PROVIDERS
        ),
        "spark.hadoop.fs.s3a.endpoint.region": region(),
        "spark.hadoop.fs.s3a.buffer.dir": str(scratch),
        # The defaults try for minutes: a server that is gone is an error within half a minute.
        "spark.hadoop.fs.s3a.attempts.maximum": "3",
        "spark.hadoop.fs.s3a.retry.limit": "3",
        LOG_STORE_CONF: LOG_STORE,
        "spark.delta.logStore.s3a.impl": LOG_STORE,
    }
    if url := endpoint():
        conf |= {"spark.hadoop.fs.s3a.endpoint": url, "spark.hadoop.fs.s3a.path.style.access": "true"}
    return conf


def settle_boto() -> None:
    """Tells boto3, which MLflow reads and writes artifacts with, the region: it does not read AWS_REGION.

    Raises SettingsError when artifacts would go to their server in the clear.
    """
    if holds(settings().artifacts or ""):
        _speaks_http()
    os.environ.setdefault("AWS_DEFAULT_REGION", region())


def identity() -> str:
    """Tells one server and pair of keys from another: a Spark server that runs with another one is started anew."""
    return files.sha256(*(os.environ.get(name, "").encode() for name in ("AWS_ENDPOINT_URL", "AWS_REGION", *KEYS)))


def refused(code: str) -> ServiceUnavailable:
    """What to raise when the server answered with this error code."""
    where = endpoint() or f"AWS in {region()}"
    what = "create the bucket" if code == "NoSuchBucket" else f"{' and '.join(KEYS)} must be of a user who may do this"
    return ServiceUnavailable(f"S3 at {where} refuses: {code}; {what} (lake {settings().lake_uri})")


def unreachable() -> ServiceUnavailable:
    """What to raise when the server did not answer."""
    where = endpoint() or f"AWS in {region()}"
    return ServiceUnavailable(f"S3 at {where} (AWS_ENDPOINT_URL) does not answer; when it does, run the same again")


def spark_jars() -> list[Path]:
    """Hadoop's S3 client and our log store, as `make setup` laid them into the cache.

    Raises ServiceUnavailable without the log store: Spark must not write to S3 with Delta's own.
    """
    if not log_store_jar().exists():
        raise ServiceUnavailable(
            f"{settings().lake_uri} is in S3 and {log_store_jar()} is missing, without which Delta loses commits: "
            "run `make setup` once"
        )
    return [*sorted(jars_folder().glob("*.jar")), log_store_jar()]


def jars_folder() -> Path:
    """Where the jars of requirements/s3-jars.txt are."""
    return settings().cache / "s3-jars"


def log_store_jar() -> Path:
    """Where this source's jar is, built or not."""
    digest = files.sha256(LOG_STORE_SOURCE.read_bytes())[:12]
    return settings().cache / "log-store" / f"log-store-{digest}.jar"
