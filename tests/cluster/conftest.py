"""A control plane with the churn model on it, once for a module: real controllers, real predictors, real traffic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import control_plane
import pytest
import world
from deployed import NAMESPACE, Deployed
from kube import Kube
from kubelet import Kubelet
from mesh import Mesh
from pods import bucket
from stories import AROUND
from traffic import RATE, Callers

from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from toolchain import cluster_binaries


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A control plane in a home of its own; all of it is stopped at the end."""
    if lacking := cluster_binaries.missing():
        pytest.fail(f"{', '.join(lacking)}: not built; `make cluster-binaries` builds them")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("cluster")))
        patch.setenv("PLUMBLINE_NOW", world.NOW.isoformat())
        settings.cache_clear()
        try:
            yield control_plane.start()
        finally:
            control_plane.stop()
            services.stop_all()
    settings.cache_clear()


@dataclass(frozen=True)
class Cluster:
    """What a scenario plays with."""

    kube: Kube
    kubelet: Kubelet
    mesh: Mesh
    deployed: Deployed
    callers: Callers


@pytest.fixture(scope="module")
def cluster(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Version 1 serves, and callers ask for it."""
    world.make()
    first = world.publish("good")
    world.prepare()
    kubelet = Kubelet(kube, tmp_path_factory.mktemp("pods"), bucket(world.bucket()))
    mesh = Mesh(kube, NAMESPACE)
    kubelet.start()
    try:
        mesh.prometheus = services.free_port()
        deployed = Deployed(kube, f"http://{HOST}:{mesh.prometheus}")
        deployed.install(first)
        mesh.start_all()
        control_plane.eventually(lambda: deployed.phase() == "Healthy", 90, "version 1 is healthy")
        callers = Callers(mesh.port)
        callers.start()
        try:
            control_plane.eventually(lambda: len(callers.asked) > AROUND * RATE, 30, "version 1 is asked")
            yield Cluster(kube, kubelet, mesh, deployed, callers)
        finally:
            callers.stop()
    finally:
        mesh.stop()
        kubelet.stop()
