"""terraform/bootstrap, really applied: Argo CD's own manifests and our root Application on a real API server."""

from __future__ import annotations

import pytest

from plumbline.servers import services
from plumbline.settings import settings
from toolchain import cluster_binaries, tofu_tools
from toolchain.tofu_tools import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.tofu, pytest.mark.servers]


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A client of an API server that has nothing but its own, in a home of its own."""
    import control_plane

    if lacking := {"etcd", "kube-apiserver"}.intersection(cluster_binaries.missing()):
        pytest.fail(f"{', '.join(lacking)}: not built; `make cluster-binaries` builds them")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("bootstrap")))
        settings.cache_clear()
        try:
            yield control_plane.start_api_server(), control_plane.kubeconfig()
        finally:
            control_plane.stop()
            services.stop_all()
    settings.cache_clear()


def test_argo_cd_begins_with_the_root(api_server, workspace: Workspace) -> None:  # type: ignore[no-untyped-def]
    kube, kubeconfig = api_server
    where = workspace.folder / "terraform" / "bootstrap"
    (where / "backend.tf").unlink()  # the state of a cluster that is gone in a minute is a file
    given = [f"-var=kubeconfig={kubeconfig}", f"-var=installation={tofu_tools.installation()}"]
    done = workspace.run(where, "init", "-no-color")
    assert done.returncode == 0, done.stderr
    done = workspace.run(where, "apply", "-auto-approve", "-no-color", *given)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    again = workspace.run(where, "plan", "-detailed-exitcode", "-no-color", *given)
    assert again.returncode == 0, "nothing is left to do: " + again.stdout[-2000:]

    root = kube.get("/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/plumbline")
    assert root is not None and root["spec"]["source"]["path"] == "k8s/apps"
    config = kube.get("/api/v1/namespaces/argocd/configmaps/argocd-cm")
    assert config is not None and config["data"]["application.resourceTrackingMethod"] == "annotation"
    assert "resource.customizations.health.serving.kserve.io_InferenceService" in config["data"]
    deployments = {made["metadata"]["name"] for made in kube.items("/apis/apps/v1/namespaces/argocd/deployments")}
    assert {"argocd-server", "argocd-repo-server", "argocd-applicationset-controller"} <= deployments
    (subject,) = kube.get("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/argocd-server")["subjects"]
    assert subject["namespace"] == "argocd"

    kube.delete("/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/plumbline")
    drift = workspace.run(where, "plan", "-detailed-exitcode", "-no-color", *given)
    assert drift.returncode == 2 and "1 to add, 0 to change, 0 to destroy" in drift.stdout
