"""One class of settings, from `PLUMBLINE_…` variables or `.plumbline/settings.env`; every default runs on a laptop."""

from __future__ import annotations

import difflib
import os
import re
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from plumbline.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent
"""The repository (or the image's copy of it): SQL, dbt project and feature definitions are read from here."""

ENVIRONMENTS = Path(sys.prefix).parent
"""The folder that holds both environments, `pipeline` and `orchestration`, side by side: this process runs in one."""

PREFIX = "PLUMBLINE_"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""What Kubernetes takes for a name."""


class Settings(BaseSettings):
    """What can differ between a laptop, a test and a cluster. Secrets only come from here or from a mounted file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    home: Path = Field(ROOT / ".plumbline", description="All state of a laptop run; nothing is written elsewhere.")
    cache: Path = Field(ROOT / ".plumbline" / "cache", description="Downloads that may be shared: packages, jars.")
    now: datetime | None = Field(None, description="Fixes the clock for a replay, e.g. 1998-07-01T00:00:00Z.")
    clock_shift_days: int = Field(
        0,
        ge=-36_500,
        le=0,
        description="Days by which the running clock is put back for a replay.",
    )
    lake: str | None = Field(
        None,
        description="Where the Delta tables live: a folder or s3://bucket/prefix; default: the folder `lake` in home.",
    )
    state: str | None = Field(
        None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\s?#]+)*/?$",
        description="Where releases, ledger and leases live: s3://bucket/prefix; default: files in home.",
    )
    lease_seconds: int = Field(
        30, ge=3, le=3600, description="How long a lease lasts that is not renewed; it is renewed every third of it."
    )
    shop_url: SecretStr | None = Field(None, description="SQLAlchemy URL of the shop; default: SQLite in home.")
    shop_folder: Path = Field(ROOT / "shops" / "cdnow", description="The folder of the shop's page (shop.yaml).")
    contracts: Path = Field(ROOT / "contracts", description="The folder of data contracts (*.odcs.yaml).")
    raw_images: str | None = Field(
        None,
        description="Bucket of raw images: a folder or s3://bucket/prefix; default: buckets/raw-images in home.",
    )
    clean_images: str | None = Field(
        None, description="The same for cleaned images and the versions of datasets; default: buckets/clean-images."
    )
    images_source: str = Field(
        "mnist",
        description="Where images come from: mnist, emoji (with :N for the first N), a folder, an archive or "
        "s3://bucket/prefix with a labels.csv.",
    )
    images_embeddings: str = Field(
        "v1",
        pattern=r"^v[1-9][0-9]*(,v[1-9][0-9]*)*$",
        description="Versions of embeddings that `plumb images features` makes, by comma; those that the release has "
        "are carried on anyway.",
    )
    images_provider: Literal["cpu", "cuda"] = Field("cpu", description="What the network of embeddings runs on.")
    images_threads: int | None = Field(
        None, ge=1, description="Cores that decoding and embedding use; default: all of them."
    )
    redis_url: SecretStr | None = Field(None, description="redis(s)://… of the online store; default: a private one.")
    kafka_url: SecretStr | None = Field(
        None,
        description="kafka(s)://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…] of order events; default: a private one.",
    )
    mlflow_url: str | None = Field(
        None, description="MLflow tracking server, or its database (postgresql+psycopg://…); default: SQLite in home."
    )
    artifacts: str | None = Field(
        None,
        description="Where MLflow's artifacts go: a folder or s3://bucket/prefix; default: a folder in home, or what "
        "the tracking server says. An experiment that exists keeps its place.",
    )
    signing_key: SecretStr | None = Field(
        None,
        description="Private key that signs models (elliptic curve, PEM): a path or the text; default: a demo key.",
    )
    verify_key: str | None = Field(
        None,
        description="Public keys (PEM, a path or the text), one of which a model must be signed with to be loaded; "
        "default: the signing key's.",
    )
    model_version: str | None = Field(
        None, pattern=r"^[1-9][0-9]*$", description="The registry's version of what `plumb serve --model-dir` serves."
    )
    model_run: str | None = Field(None, description="The MLflow run that trained it; its files must say the same.")
    model_digest: str | None = Field(
        None, pattern=r"^sha256:[0-9a-f]{64}$", description="The digest that its signature must be over: sha256:…"
    )
    model_signature: str | None = Field(None, description="Its signature as `plumb promote` writes it.")
    models: str | None = Field(
        None,
        description="Where a stack's predictors find what to serve, s3://bucket/prefix; `plumb rollout` drives them.",
    )
    spark_memory: str = Field("2g", pattern=r"^[1-9][0-9]*[gm]$", description="Heap of the private Spark server.")
    spark_master: str = Field(
        "local[2]",
        pattern=r"^(local\[[1-9][0-9]*\]|local-cluster\[[1-9][0-9]*,[1-9][0-9]*,[1-9][0-9]*\]|spark://.+|k8s://.+|yarn)$",
        description="Where Spark's tasks run. Executors need environment, jars and lake at the same places as here.",
    )
    spark_in_process: bool = Field(False, description="Run Spark inside the command instead of a Connect server.")
    dbt_utils: Literal["offline", "hub"] = Field(
        "offline",
        description="`hub`: the real package, by `dbt deps`; `offline`: the few macros in dbt/offline_packages.",
    )
    code_sha: str | None = Field(None, description="The commit, where there is no git checkout (in an image).")
    revision: str | None = Field(
        None,
        description="What a predictor's rows in the outcome log are told apart by in a rollout; pod-template hash.",
    )
    track_file: Path | None = Field(
        None, description="A file that says `canary` while this predictor is one; else, or without it, it is stable."
    )
    serving_hosts: str = Field(
        "",
        pattern=r"^[a-z0-9.,-]*$",
        description="Names with a dot by which predictor and exporter are asked, by comma; `.a.com`: all below.",
    )
    plumb: Path | None = Field(None, description="The `plumb` that Airflow's tasks call; default: the pipeline's.")
    tasks: Literal["commands", "pods"] = Field(
        "commands", description="What an Airflow task is: a command on its worker, or a pod of its own."
    )
    retry_seconds: int = Field(30, ge=0, description="How long an Airflow task waits before its second try.")
    pods_image: str | None = Field(
        None, pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$", description="The image, by digest: name@sha256:…"
    )
    pods_namespace: str | None = Field(None, pattern=DNS_LABEL, description="The namespace that pods run in.")
    pods_service_account: str | None = Field(None, pattern=DNS_LABEL, description="The service account of pods.")
    pods_secret: str | None = Field(
        None, pattern=DNS_LABEL, description="The Secret with the keys PLUMBLINE_SHOP_URL, _REDIS_URL and _MLFLOW_URL."
    )
    pods_home_claim: str | None = Field(
        None,
        pattern=DNS_LABEL,
        description="The volume claim for home; needed unless STATE and LAKE are both in an object store.",
    )
    pods_cpu: str = Field("500m", pattern=r"^[0-9]+m?$", description="CPU that a pod requests.")
    pods_cpu_limit: str = Field("2", pattern=r"^[0-9]+m?$", description="CPU that a pod may use.")
    pods_memory: str = Field("3Gi", pattern=r"^[0-9]+[MG]i$", description="Memory that a pod requests.")
    pods_memory_limit: str = Field("4Gi", pattern=r"^[0-9]+[MG]i$", description="Memory that a pod may use.")

    @field_validator("now")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a time zone, as in 1998-07-01T00:00:00Z")
        return value.astimezone(UTC) if value else None

    @field_validator("lake", "artifacts", "raw_images", "clean_images", "models")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        scheme, separator, rest = (value or "").partition("://")
        if separator and (scheme not in ("s3", "file") or not rest.strip("/")):
            raise ValueError("expected a folder or s3://bucket/prefix")
        return value

    @field_validator("shop_url", "redis_url", "mlflow_url")
    @classmethod
    def _login_is_encoded(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        """An @ behind the host means that the password was cut: libraries would quote its parts in their messages."""
        url = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
        host, *rest = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)
        if host and rest and "@" in rest[0]:
            raise ValueError("holds an @ behind its host: percent-encode the password's odd characters (/ is %2F)")
        return value

    @field_validator("home", "cache", "contracts", "shop_folder")
    @classmethod
    def _folder(cls, value: Path) -> Path:
        if value.expanduser().exists() and not value.expanduser().is_dir():
            raise ValueError("is there and is not a folder")
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        needed = ["pods_image", "pods_namespace", "pods_service_account", "pods_secret"]
        if self.state is None or "://" not in self.lake_uri:  # what one task leaves in home, the next one reads
            needed.append("pods_home_claim")
        missing = [f"{PREFIX}{name.upper()}" for name in needed if getattr(self, name) is None]
        if self.tasks == "pods" and missing:
            raise ValueError(f"{PREFIX}TASKS=pods needs {', '.join(missing)} too")
        return self

    @model_validator(mode="after")
    def _state_outlives_home(self) -> Settings:
        """In state releases name models and models name releases: MLflow must not be lost with a home, nor alone.

        With PLUMBLINE_TASKS=pods each pod gets the server's URL from the Secret, Airflow itself needs none.
        """
        if self.state is None or self.tasks == "pods":
            return self
        if self.mlflow_url is None or (self.artifacts_uri is not None and self.artifacts is None):
            raise ValueError(
                f"{PREFIX}STATE outlives this home, so MLflow must too: set {PREFIX}MLFLOW_URL, and {PREFIX}ARTIFACTS "
                "unless that is a tracking server's"
            )
        return self

    @property
    def plumb_command(self) -> Path:
        """The `plumb` of the pipeline environment, which is not the one that Airflow runs in."""
        return self.plumb or ENVIRONMENTS / "pipeline" / "bin" / "plumb"

    @property
    def serving_host_names(self) -> list[str]:
        """The names in `serving_hosts`."""
        return [name for name in self.serving_hosts.split(",") if name]

    @property
    def lake_uri(self) -> str:
        """Root of the lake, without a slash at the end."""
        return (self.lake or str(self.home / "lake")).rstrip("/")

    def bucket(self, name: Literal["raw-images", "clean-images"]) -> str:
        """The place of a product's bucket: a folder's path or s3://bucket/prefix, without a slash at the end."""
        given = self.raw_images if name == "raw-images" else self.clean_images
        return (given or str(self.home / "buckets" / name)).rstrip("/")

    @property
    def shop(self) -> str:
        """SQLAlchemy URL of the shop database. It may hold a password: never print it."""
        return self.shop_url.get_secret_value() if self.shop_url else f"sqlite:///{self.home / 'shop.sqlite'}"

    @property
    def mlflow_uri(self) -> str:
        """Tracking and registry URI of MLflow."""
        return self.mlflow_url or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_is_server(self) -> bool:
        """Whether MLflow is reached by a server, which has artifacts of its own; else its database is opened here."""
        return self.mlflow_uri.startswith(("http://", "https://"))

    @property
    def artifacts_uri(self) -> str | None:
        """Root of MLflow's artifacts; None when the tracking server decides."""
        if self.artifacts is None and self.mlflow_is_server:
            return None
        place = self.artifacts or str(self.home / "mlflow" / "artifacts")
        return place.rstrip("/") if "://" in place else Path(place).expanduser().absolute().as_uri()


@cache
def settings() -> Settings:
    """The settings of this process, read once. Raises SettingsError that names the variable and what it expects."""
    file = settings_file()
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise SettingsError(f"unknown setting {name}: {hint}")
    try:
        return Settings(_env_file=file if file.exists() else None)  # type: ignore[call-arg]
    except ValidationError as error:
        lines = [
            f"{PREFIX}{str(problem['loc'][0]).upper().removeprefix(PREFIX)}: {problem['msg']}"
            + ("" if problem["type"] == "extra_forbidden" or _is_secret(problem) else f" (found {problem['input']!r})")
            if problem["loc"]
            else problem["msg"].removeprefix("Value error, ")  # of several settings together: its input is all of them
            for problem in error.errors(include_url=False)
        ]
        raise SettingsError(f"bad settings (environment or {file}):\n  " + "\n  ".join(lines)) from None


def _is_secret(problem: ErrorDetails) -> bool:
    """Whether a value that was refused may hold a password."""
    name = str(problem["loc"][0]).lower().removeprefix(PREFIX.lower()) if problem["loc"] else ""
    return name.endswith(("_url", "_key")) or "://" in str(problem["input"])


def settings_file() -> Path:
    """Where a laptop run keeps the settings that later commands must share, such as the replay's clock."""
    return Path(os.environ.get(f"{PREFIX}HOME", ROOT / ".plumbline")).expanduser().absolute() / "settings.env"


def show() -> dict[str, str]:
    """Every setting and its value, for `plumb settings`; secrets, and whoever logs in by a URL, are masked."""
    values = {f"{PREFIX}{name.upper()}": str(getattr(settings(), name)) for name in Settings.model_fields}
    return {name: re.sub(r"://\S*@", "://***@", value) for name, value in values.items()}
