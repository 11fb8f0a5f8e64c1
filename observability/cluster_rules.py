"""Alerts of a cluster: what Argo CD, Argo Rollouts and Istio say of themselves. Only a cluster has these rules.

Pods, nodes, quotas and the API server's certificates are watched by kube-prometheus' own rules (docs/observability.md).
Those know no Application, no Rollout, no certificate of the mesh and no node under pressure. Where none of these is
scraped nothing fires.
"""

from __future__ import annotations

from observability import promises
from observability.house_rules import counted
from observability.rule import Alert, Group, Severity
from observability.slo_rules import CUSTOMERS
from observability.way_back import RUNBOOK
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Contract
from plumbline.product import Product
from products import ALL
from products.churn import CHURN

PROJECT = "plumbline"
"""Argo CD's project of all our Applications, and the name of the one that brings them and is in no project of ours."""

LONG = 3_600
"""Seconds: a canary that passes each guardrail takes 20 minutes, and a commit that comes meanwhile waits for it."""

SETTLED = 600
"""Seconds that a new pod may take until its Application is healthy, and the Rollout's own `progressDeadlineSeconds`."""

WORN = 6 * 3_600
"""Seconds left of a proxy's certificate. It lasts a day and is renewed at half of it: six hours of trying failed."""

MONTH = 30 * 86_400
"""Seconds left of the mesh's root: a root is replaced by hand, in steps that wait for each other."""


def groups() -> list[Group]:
    """Of Applications, each product's Rollout, the mesh's certificates, the controllers that tell, and nodes."""
    return [
        Group("applications", _applications()),
        *(Group(f"rollout of {product.name}", _rollout(product)) for product in ALL),
        Group("certificates", _certificates()),
        Group("controllers", _controllers()),
        Group("nodes", (_pressure(),)),
    ]


def _applications() -> tuple[Alert, ...]:
    features = contracts.load(CHURN.features)
    syncs = map(counted, _ours("argocd_app_sync_total", 'phase=~"Error|Failed",dry_run="false"'))
    drifted = " or ".join(_ours("argocd_app_info", 'sync_status!="Synced"'))
    unwell = " or ".join(_ours("argocd_app_info", 'health_status=~"Degraded|Missing|Unknown"'))
    return (
        Alert(
            "SyncFailed",
            f"max by (name) ({' or '.join(syncs)})",
            "ticket",
            features,
            "a sync of {{ $labels.name }} failed: the cluster is not what Git says, or a job after the sync failed",
            RUNBOOK,
        ),
        Alert(
            "ApplicationOutOfSync",
            f"max by (name) ({drifted}) == 1",
            "ticket",
            features,
            f"{{{{ $labels.name }}}} has not been what Git says for {LONG // 60} minutes",
            RUNBOOK,
            seconds=LONG,
        ),
        Alert(
            "ApplicationDegraded",
            f"max by (name) ({unwell}) == 1",
            "ticket",
            features,
            f"{{{{ $labels.name }}}} has been degraded, or lacked a part, for {SETTLED // 60} minutes",
            RUNBOOK,
            seconds=SETTLED,
        ),
    )


def _ours(metric: str, that: str) -> tuple[str, str]:
    """A metric of Argo CD's, of our Applications: those in the project, and the one that brings them."""
    return f'{metric}{{project="{PROJECT}",{that}}}', f'{metric}{{name="{PROJECT}",{that}}}'


def _rollout(product: Product) -> tuple[Alert, ...]:
    """Of a product's Rollout, in whichever namespace. While one is stopped or stuck, stable serves."""
    of, about = f'name="{product.name}"', {"product": product.name}
    answers, affected = promises.predictor(product), (product.endpoint,)
    available, desired = (f"rollout_info_replicas_{which}{{{of}}}" for which in ("available", "desired"))
    return (
        Alert(
            "RolloutAborted",
            f'max by (namespace, phase) (rollout_info{{{of},phase=~"Abort|Error|InvalidSpec|Timeout"}}) == 1',
            "ticket",
            answers,
            "the rollout in {{ $labels.namespace }} stopped ({{ $labels.phase }}); stable serves, Git names the other",
            RUNBOOK,
            affected,
            60,
            about,
        ),
        Alert(
            "RolloutStuck",
            f'max by (namespace) (rollout_info{{{of},phase=~"Paused|Progressing"}}) == 1',
            "ticket",
            answers,
            f"the rollout in {{{{ $labels.namespace }}}} has neither ended nor been stopped for {LONG // 60} minutes",
            RUNBOOK,
            affected,
            LONG,
            about,
        ),
        Alert(
            "RolloutPodsMissing",
            f"max by (namespace) ({available}) < max by (namespace) ({desired})",
            "ticket",
            answers,
            "only {{ $value }} predictors in {{ $labels.namespace }} are available, fewer than there should be",
            RUNBOOK,
            affected,
            SETTLED,
            about,
        ),
    )


def _certificates() -> tuple[Alert, ...]:
    """Of the mesh: its root and what signs below it, and those that proxies renew each day."""
    features = contracts.load(CHURN.features)
    kinds = {"root": "citadel_server_root_cert_expiry_timestamp", "chain": "citadel_server_cert_chain_expiry_timestamp"}
    return (
        *(
            Alert(
                "MeshRootEnding",
                f"min({metric}) - time() < {MONTH}",
                "ticket",
                features,
                f"the mesh's {which} certificate ends in {{{{ $value | humanizeDuration }}}}; then no pod is trusted",
                RUNBOOK,
                (CUSTOMERS,),
                about={"certificate": which},
            )
            for which, metric in kinds.items()
        ),
        Alert(
            "ProxyCertificateNotRenewed",
            f'min by (namespace, pod) (istio_agent_cert_expiry_seconds{{resource_name="default"}}) < {WORN}',
            "page",
            features,
            "the certificate of {{ $labels.pod }}'s proxy ends in {{ $value | humanizeDuration }} and is not renewed",
            RUNBOOK,
            (CUSTOMERS,),
            300,
        ),
    )


def _controllers() -> tuple[Alert, ...]:
    """Of Argo CD's and Argo Rollouts' controllers: one that spoke within a day, and does not."""
    features, answers = contracts.load(CHURN.features), promises.predictor(CHURN)

    def silent(controller: str, metric: str, severity: Severity, contract: Contract, what: str) -> Alert:
        expr = f"absent({metric}) and on () max(present_over_time({metric}[1d]))"
        about = {"controller": controller}
        return Alert("ControllerSilent", expr, severity, contract, what, RUNBOOK, seconds=300, about=about)

    return (
        silent(
            "argo-cd", "argocd_app_info", "ticket", features, "Argo CD is not heard of: no commit reaches a cluster"
        ),
        silent(
            "argo-rollouts",
            "rollout_info",
            "page",
            answers,
            "Argo Rollouts is not heard of: nobody judges a canary, and none is stopped",
        ),
    )


def _pressure() -> Alert:
    return Alert(
        "NodeUnderPressure",
        'max by (node, condition) (kube_node_status_condition{condition=~".+Pressure",status="true"}) == 1',
        "ticket",
        contracts.load(CHURN.features),
        "{{ $labels.node }} has {{ $labels.condition }}: the kubelet evicts pods there, and takes no new ones",
        RUNBOOK,
        (CUSTOMERS,),
        300,
    )
