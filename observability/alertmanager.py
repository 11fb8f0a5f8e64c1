"""Alertmanager's configuration: who is told, how alerts are grouped, and which silences which.

Each contract's channel has a Slack receiver; what pages goes to PagerDuty too. The alert that always fires goes to a
dead man's switch, somebody outside who tells when it is not heard any more. Slack's URLs, PagerDuty's key and the
switch's URL are files beside the configuration's reader (`slack-data-platform`, `pagerduty`, `watchdog`), never text
in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from observability import cluster_rules, house_rules, slo_rules
from observability.rule import WATCHDOG, alerts

SECRETS = PurePosixPath("/etc/alertmanager/secrets")
"""Where a cluster mounts the secret."""

PAGERDUTY = "pagerduty"
SWITCH = "watchdog"

NEXT = "plumb incident {{ .CommonLabels.alertname }}{{ with .CommonLabels.product }} --product {{ . }}{{ end }}"
TITLE = "[{{ .Status | toUpper }}] {{ .CommonLabels.alertname }}: {{ len .Alerts }} {{ .CommonLabels.severity }}"
EACH = (
    "{{ range .Alerts }}*{{ .Annotations.summary }}*\n"
    'since {{ .StartsAt.UTC.Format "2006-01-02 15:04:05" }} UTC, owner {{ .Labels.owner }}\n'
    "downstream: {{ .Labels.affected }}\n"
    "{{ .Annotations.runbook }}\n{{ end }}"
    f"next: {NEXT}"
)


COLOR = (
    '{{ if eq .Status "resolved" }}good{{ else if eq .CommonLabels.severity "page" }}danger{{ else }}warning{{ end }}'
)


@dataclass(frozen=True)
class Waits:
    """How long alerts are gathered before the first word of a group, between words, until it is said again, and
    between signs of life."""

    page: str = "5s"
    ticket: str = "30s"
    interval: str = "1m"
    again: str = "4h"
    alive: str = "1m"


def config(
    secrets: PurePosixPath = SECRETS,
    waits: Waits | None = None,
    pagerduty_url: str | None = None,
    only: set[str] | None = None,
) -> dict[str, Any]:
    """The configuration. `pagerduty_url` is another address than PagerDuty's own, `only` the secret files there are."""
    waits = waits or Waits()
    rules = alerts([*slo_rules.groups(), *house_rules.groups(), *cluster_rules.groups()])
    channels = sorted({alert.contract.channel for alert in rules})
    return {
        "route": {
            "receiver": _ticket(channels[0]),
            "group_by": ["alertname", "channel", "product", "severity"],
            "group_wait": waits.ticket,
            "group_interval": waits.interval,
            "repeat_interval": waits.again,
            "routes": [_signs_of_life(waits), *(_route(channel, waits) for channel in channels)],
        },
        "inhibit_rules": _inhibitions(),
        "receivers": [
            _switch(secrets, only),
            *(r for channel in channels for r in _receivers(channel, secrets, pagerduty_url, only)),
        ],
    }


def slack_file(channel: str) -> str:
    """The name of the file that holds a channel's Slack URL: a webhook of Slack's belongs to one channel."""
    return f"slack-{channel.lstrip('#')}"


def _ticket(channel: str) -> str:
    return f"ticket {channel}"


def _page(channel: str) -> str:
    return f"page {channel}"


def _signs_of_life(waits: Waits) -> dict[str, Any]:
    return {
        "matchers": [f'alertname="{WATCHDOG}"'],
        "receiver": SWITCH,
        "group_wait": "0s",
        "group_interval": waits.alive,
        "repeat_interval": waits.alive,
    }


def _switch(secrets: PurePosixPath, only: set[str] | None) -> dict[str, Any]:
    """A POST that a dead man's switch counts. It is a Slack message because that alone takes its URL from a file."""
    told = {"api_url_file": str(secrets / SWITCH), "send_resolved": False, "title": WATCHDOG, "text": "alive"}
    return {"name": SWITCH} | ({"slack_configs": [told]} if only is None or SWITCH in only else {})


def _route(channel: str, waits: Waits) -> dict[str, Any]:
    return {
        "matchers": [f'channel="{channel}"'],
        "receiver": _ticket(channel),
        "routes": [{"matchers": ['severity="page"'], "receiver": _page(channel), "group_wait": waits.page}],
    }


def _receivers(
    channel: str, secrets: PurePosixPath, pagerduty_url: str | None, only: set[str] | None
) -> list[dict[str, Any]]:
    slack = {
        "api_url_file": str(secrets / slack_file(channel)),
        "channel": channel,
        "send_resolved": True,
        "title": TITLE,
        "text": EACH,
        "color": COLOR,
    }
    pagerduty = {
        "routing_key_file": str(secrets / PAGERDUTY),
        "description": "{{ .CommonLabels.alertname }}: {{ (index .Alerts 0).Annotations.summary }}",
        "severity": "critical",
        "component": "{{ .CommonLabels.dataset }}",
        "group": "{{ .CommonLabels.channel }}",
        "details": {
            "affected": "{{ (index .Alerts 0).Labels.affected }}",
            "owner": "{{ .CommonLabels.owner }}",
            "runbook": "{{ (index .Alerts 0).Annotations.runbook }}",
            "next": NEXT,
        },
        **({"url": pagerduty_url} if pagerduty_url else {}),
    }
    told = {"slack_configs": [slack]} if only is None or slack_file(channel) in only else {}
    paged = {"pagerduty_configs": [pagerduty]} if only is None or PAGERDUTY in only else {}
    return [{"name": _page(channel), **told, **paged}, {"name": _ticket(channel), **told}]


def _inhibitions() -> list[dict[str, Any]]:
    """A late table silences what is late by it, a page its promise's ticket, what is absent what fails."""
    return [
        *(
            {
                "source_matchers": ['alertname="DatasetLate"', f'dataset="{table}"'],
                "target_matchers": ['alertname="DatasetLate"', f'dataset=~"{"|".join(below)}"'],
            }
            for table, below in slo_rules.explained().items()
        ),
        {
            "source_matchers": ['severity="page"', 'slo=~".+"'],
            "target_matchers": ['severity="ticket"'],
            "equal": ["slo"],
        },
        {
            "source_matchers": ['alertname="PredictorDown"'],
            "target_matchers": ['alertname=~"PredictorFailing|PredictorSlow"'],
            "equal": ["product"],
        },
        {
            "source_matchers": ['alertname="StreamDown"'],
            "target_matchers": ['alertname=~"StreamStalled|StreamSlow"'],
            "equal": ["product"],
        },
        {
            "source_matchers": ['alertname="StreamStalled"'],
            "target_matchers": ['alertname="ConsumerLag"'],
            "equal": ["consumergroup", "topic"],
        },
    ]
