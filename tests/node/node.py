"""A real node beside a control plane on one machine: containerd, CNI, kubelet and kube-proxy; policies by kube-router.

Root's work. All that it makes lies in the home, but for a bridge, rules of iptables, network namespaces and cgroups,
which `stop` takes back. Pods pull every image from one registry on loopback: containerd asks it for any name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from plumbline import files
from plumbline.servers import services
from plumbline.settings import settings
from toolchain import cluster_binaries

NAME, BRIDGE = "node", "plumb0"
NETWORK, ADDRESS = "10.244.0.0/24", "10.244.0.1"
"""The pods' network, and where they reach this machine: the bridge, which is there before the first pod."""

DNS = "10.96.0.10"
ORDER = ("kube-router", "kube-proxy", "kubelet")
NEEDED = ("containerd", "runc", "conntrack", "ipset", "iptables", "ip", "socat", "kubectl", "docker-registry")
PLUGINS = Path("/usr/lib/cni")


def missing() -> list[str]:
    """What of this machine lacks: programs of Debian's, root."""
    lacking = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    lacking += [] if (PLUGINS / "bridge").exists() else ["containernetworking-plugins"]
    return lacking + ([] if os.geteuid() == 0 else ["root"])


def bridge() -> None:
    """The pods' bridge, before anything listens on its address."""
    if subprocess.run(["ip", "link", "show", BRIDGE], capture_output=True, check=False).returncode:
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{ADDRESS}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
    _run("sysctl", "-qw", "net.ipv4.ip_forward=1")


def kubelet_arguments(pki: Path) -> list[str]:
    """How the API server shows the kubelet who it is. The certificate is its own authority, for this one use."""
    key, certificate = pki / "kubelet-client.key", pki / "kubelet-client.crt"
    if not certificate.exists():
        pki.mkdir(parents=True, exist_ok=True)
        _run(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=apiserver"),
            *("-keyout", str(key), "-out", str(certificate)),
        )
    return [
        f"--kubelet-client-certificate={certificate}",
        f"--kubelet-client-key={key}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def start(kubeconfig: Path, pause: str, registry: str) -> None:
    """Starts the node; it registers itself. `pause` is the image that holds a pod's namespaces, by its digest."""
    home = _home()
    for name in ("cni", "hosts/_default", "kubelet", "logs"):
        (home / name).mkdir(parents=True, exist_ok=True)
    chain = {"cniVersion": "0.4.0", "name": "plumbline", "plugins": _plugins(home)}
    files.write_whole(home / "cni" / "10-plumbline.conflist", json.dumps(chain))
    where = f'server = "http://{registry}"\n[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
    files.write_whole(home / "hosts" / "_default" / "hosts.toml", where)
    files.write_whole(home / "containerd.toml", CONTAINERD.format(home=home, pause=pause, plugins=PLUGINS))
    files.write_whole(home / "kubelet.json", json.dumps(_kubelet(home, kubeconfig.parent / "pki")))
    files.write_whole(home / "proxy.json", json.dumps(_proxy(kubeconfig)))
    _ensure("containerd", ["containerd", "--config", str(home / "containerd.toml")], (home / "containerd.sock").exists)
    start_kubelet(kubeconfig)
    proxy = [str(cluster_binaries.find("kube-proxy")), f"--config={home / 'proxy.json'}", "--v=1"]
    _ensure("kube-proxy", proxy, lambda: _answers("http://127.0.0.1:10256/livez"))


def start_kubelet(kubeconfig: Path) -> None:
    """The kubelet; it goes on with the pods that are there when it is started again."""
    command = [
        *(str(cluster_binaries.find("kubelet")), f"--config={_home() / 'kubelet.json'}", f"--kubeconfig={kubeconfig}"),
        *(f"--root-dir={_home() / 'kubelet'}", f"--cert-dir={_home() / 'kubelet-pki'}", f"--node-ip={ADDRESS}"),
        *(f"--hostname-override={NAME}", "--v=1"),
    ]
    _ensure("kubelet", command, lambda: _answers("http://127.0.0.1:10248/healthz"))


def start_policies(kubeconfig: Path) -> None:
    """kube-router's firewall alone: NetworkPolicies, by iptables and ipset."""
    command = [
        *(str(cluster_binaries.find("kube-router")), f"--kubeconfig={kubeconfig}", f"--hostname-override={NAME}"),
        *("--run-router=false", "--run-service-proxy=false", "--run-firewall=true", "--run-loadbalancer=false"),
        *("--health-port=20244", "--metrics-port=0", "--service-cluster-ip-range=10.96.0.0/16"),
    ]
    _ensure("kube-router", command, lambda: _answers("http://127.0.0.1:20244/healthz"))


def stop() -> None:
    """Stops all of it, and takes back what it made outside of the home."""
    home = _home()
    for name in ORDER:
        services.stop(name, grace=10)
    ctr = ["ctr", "-a", str(home / "containerd.sock"), "-n", "k8s.io"]
    running = subprocess.run([*ctr, "tasks", "ls", "-q"], capture_output=True, text=True, check=False).stdout.split()
    for task in running:
        subprocess.run([*ctr, "tasks", "kill", "-s", "SIGKILL", task], capture_output=True, check=False)
    deadline = time.monotonic() + 10
    while running and time.monotonic() < deadline:
        time.sleep(0.5)
        left = subprocess.run([*ctr, "tasks", "ls"], capture_output=True, text=True, check=False).stdout
        running = ["some"] if "RUNNING" in left else []
    services.stop("containerd", grace=10)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((found for found in mounts if found.startswith(str(home))), reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    _without_rules()
    for space in Path("/run/netns").glob("cni-*") if Path("/run/netns").exists() else []:
        _try("ip", "netns", "del", space.name)
    for group in sorted(Path("/sys/fs/cgroup").glob("*/kubepods"), reverse=True):
        for folder in sorted((found for found in group.rglob("*") if found.is_dir()), reverse=True):
            _try("rmdir", str(folder))
        _try("rmdir", str(group))
    _try("ip", "link", "del", BRIDGE)


def _without_rules() -> None:
    """Takes every rule and set of kube-proxy's, kube-router's and CNI's back; whoever has another Kubernetes here loses
    its rules until it writes them again."""
    for table in ("filter", "nat", "mangle", "raw"):
        kept = subprocess.run(
            ["iptables-save", "-t", table], capture_output=True, text=True, check=False, env={"PATH": _path()}
        ).stdout.splitlines(keepends=True)
        kept = [line for line in kept if not any(name in line for name in ("KUBE-", "CNI-", "cni"))]
        subprocess.run(
            ["iptables-restore", "-T", table], input="".join(kept), text=True, check=False, env={"PATH": _path()}
        )
    sets = subprocess.run(["ipset", "list", "-n"], capture_output=True, text=True, check=False, env={"PATH": _path()})
    for name in sets.stdout.split():
        if name.startswith("KUBE-"):
            _try("ipset", "destroy", name)


CONTAINERD = """version = 2
root = "{home}/containerd"
state = "{home}/state"
[grpc]
  address = "{home}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  max_concurrent_downloads = 4
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{home}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{home}/hosts"
"""


def _plugins(home: Path) -> list[dict[str, object]]:
    """`firewall` lets pods' frames pass where Docker's policy of FORWARD, which sees them too, would drop them."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": NETWORK}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(home / "ipam"),
    }
    first = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    return [first, {"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "firewall"}]


def _kubelet(home: Path, pki: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "port": 10250,
        "readOnlyPort": 0,
        "healthzPort": 10248,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(pki / "kubelet-client.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{home}/containerd.sock",
        "podLogsDir": str(home / "logs"),
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
        "imageGCHighThresholdPercent": 98,
        "imageGCLowThresholdPercent": 95,
        "serializeImagePulls": False,
        "maxParallelImagePulls": 3,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "5s",
        "volumePluginDir": str(home / "plugins"),
        "shutdownGracePeriod": "0s",
    }


def _proxy(kubeconfig: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": "10.244.0.0/16",
        "hostnameOverride": NAME,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0},
        "iptables": {"localhostNodePorts": False},
    }


def _ensure(name: str, command: list[str], ready: object) -> None:
    services.ensure(
        services.Launch(
            name,
            lambda port, token: command,
            lambda port, token: bool(ready()),  # type: ignore[operator]
            lambda port, token: {"PATH": _path(), "NODE_NAME": NAME},
        )
    )


def _home() -> Path:
    return settings().home / "node"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _answers(url: str) -> bool:
    return services.answers(url, 1)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": _path()})


def _try(*command: str) -> int:
    done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PATH": _path()})
    return done.returncode
