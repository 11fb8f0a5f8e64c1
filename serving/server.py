"""`plumb serve`: KServe's model server around a product's predictor, one process, loopback unless told otherwise."""

from __future__ import annotations

import importlib.util
import logging
import os
import resource
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from plumbline import clock, observed
from plumbline.errors import PlumblineError, ServiceUnavailable
from plumbline.lineage import events
from plumbline.pipeline import lake_owner
from plumbline.product import Product
from plumbline.progress import say, warn
from plumbline.registry import registered_models
from plumbline.servers import online_store, services
from plumbline.settings import settings
from serving import loaded_model as registry
from serving import shelf
from serving.track import CANARY, STABLE, Track

GRACE = 10
"""Seconds that requests under way have after SIGTERM. One takes two at most: Redis has a second to answer."""

OPEN_FILES = 8_192
"""Files and connections that the predictor may have open, where the machine allows it."""


def serve(
    product: Product,
    port: int = 0,
    grpc_port: int = 0,
    model: str = "champion",
    host: str = services.HOST,
    model_dir: Path | None = None,
    canary: bool = False,
) -> None:
    """Serves the model that an alias or version names until SIGTERM, then answers what is under way and returns.

    With `model_dir` it is the model in that folder, and no registry is asked. Port 0 is a free one. `canary` is the
    track of a process that PLUMBLINE_TRACK_FILE does not tell. Raises ServiceUnavailable when a port is taken or the
    registry or online store is away, ServingError when there is no such model, Untrusted when it is not what was
    signed.
    """
    os.environ.setdefault("RUST_BACKTRACE", "0")  # delta-rs would log a stack for each write on a full disk
    bound = _bind(host, port, "--port")
    if grpc_port:
        _bind(host, grpc_port, "--grpc-port").close()
    online_store.url()
    _warn_of_eviction()
    begun = clock.monotonic()
    say(f"loading KServe, Feast and the model {str(model_dir or model)!r}")
    predictor_class = import_predictor(product)
    if model_dir is not None:
        from feature_repo import store

        store.apply(product)  # a pod's home is empty: its image has the definitions
    else:
        lake_owner.require_own_lake()
    from serving.outcome_log import OutcomeLog

    log = OutcomeLog(product, shelf.log(product).append)
    predictor = predictor_class(model_dir or model, log, Track(without=CANARY if canary else STABLE))
    try:
        with observed.watching(product, "serve") as watch:
            predictor.load()
            version = predictor.scorer.model.version
            _opened(product, version)
        grpc_port = grpc_port or services.free_port()
        address = f"http://{host}:{bound.getsockname()[1]}"
        say(f"{product.service} version {version} on {address}, gRPC on {host}:{grpc_port}")
        say(f"up after {clock.monotonic() - begun:.1f} s; metrics on {address}/metrics; SIGTERM stops it")
        with _told(product, version, watch):
            _run(predictor, bound, host, grpc_port)
    finally:
        predictor.close()
        log.close()
        bound.close()


def import_predictor(product: Product) -> Any:
    """The class of a product's predictor, and with it of Feast and KServe what a server needs, and no more."""
    from feature_repo import store

    store.settle()  # before KServe imports anything of Feast's
    _without_init("kserve", "xgboost")
    with _no_arguments():
        return shelf.predictor(product)


def _without_init(*packages: str) -> None:
    """Puts packages in place without running their `__init__`, which imports far more than a server needs: KServe's its
    clients and `kubernetes`, XGBoost's `scipy.special` and every other interface (3 CPU-seconds, 250 MB)."""
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is not None and name not in sys.modules:
            sys.modules[name] = importlib.util.module_from_spec(spec)


def _warn_of_eviction() -> None:
    """Says at the start that the online store will lose rows when its memory is full."""
    from redis import RedisError

    try:
        policy = online_store.evicting(online_store.client())
    except (RedisError, PlumblineError):  # it may not tell, or is away: loading says that
        return
    if policy is not None:
        warn(
            f"the online store evicts rows when its memory is full (maxmemory-policy {policy}): what is lost "
            "gets 503. Set it to noeviction"
        )


def _opened(product: Product, version: str) -> None:
    """Tells lineage what is served and from what; that it cannot know all of it is no reason not to serve."""
    online = None
    try:
        champion = registry.find(product, registry.CHAMPION) if registered_models.exist() else None
        online = online_store.online(online_store.client(), product)
        if champion is not None and str(champion.version) == version:
            observed.read(product.champion, version)
    except Exception as error:
        warn(f"lineage does not know all that is served from: {error}")
    observed.read(product.online, online[0] if online else None)
    for dataset, written in ((product.endpoint, version), (product.log, None)):
        observed.wrote(dataset, written)


@contextmanager
def _told(product: Product, version: str, watch: observed.Watch) -> Iterator[None]:
    """Lineage says from START to its end what is served; a predictor that is killed stays RUNNING there."""
    head = {"stage": "serve", "run_id": f"serve-{product.model}-{version}"}
    run = events.started(product, head, clock.wall().isoformat(), watch)
    state = "FAIL"
    try:
        yield
        state = "COMPLETE"
    finally:
        events.ended(run, state, clock.wall().isoformat(), watch, {})


def _run(predictor: Any, bound: socket.socket, host: str, grpc_port: int) -> None:
    """Both servers until SIGTERM, and until what is under way is answered."""
    _allow_open_files()
    from serving import grpc_server, rest
    from serving.kserve_internals import OneLoopServer

    server = OneLoopServer(workers=1, enable_latency_logging=False, access_log_format=None)
    for chatty in ("kserve", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # KServe's own use of FastAPI
    server.dataplane = rest.Plane(predictor, model_registry=server.registered_models)
    server.serve(
        predictor,
        partial(rest.server, bound, settings().serving_host_names, grace_period=GRACE),
        partial(grpc_server.server, host, grpc_port, grace_period=GRACE),
    )


def _allow_open_files() -> None:
    """Each connection is an open file; a login shell lets a process have 1,024 of more that it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < most and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _bind(host: str, port: int, option: str) -> socket.socket:
    """A socket on that address, not listening yet: a port that is taken is known before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it each answer waits 40 ms for an ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ServiceUnavailable(f"cannot listen on {host}:{port}: {error.strerror}; give another {option}") from None
    return bound


@contextmanager
def _no_arguments() -> Iterator[None]:
    """KServe reads the process's arguments when it is imported, and would take `--model` for its `--model_name`."""
    given, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = given
