"""The stack's buckets, a key a service, and what each key may do; running it again sets secrets and policies again.

The secrets come from the environment, under the services' names, and `GENERATION`, which every key's name ends in.
Keys of other generations keep working until it runs with `RETIRE=1`: whoever has one yet may change in peace. A key may
do what is listed here and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

READ = ("s3:GetObject", "s3:GetObjectAttributes")
WRITE = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
DELETE = ("s3:DeleteObject",)
ALL = (*READ, *WRITE, *DELETE)

MAY: dict[str, list[tuple[str, tuple[str, ...], str]]] = {
    "lake": [
        ("pipeline", ALL, ""),
        ("spark", ALL, ""),
        ("predictor", (*READ, *WRITE), "serving/predictions/"),
        ("judge", READ, "serving/"),
        ("rollout", (*READ, *WRITE), "serving/"),
        ("rollout", READ, ""),
        ("exporter", READ, ""),
    ],
    "state": [("pipeline", ALL, ""), ("rollout", ALL, ""), ("exporter", READ, "")],
    "artifacts": [("mlflow", ALL, "")],
    "models": [("rollout", ALL, ""), ("predictor", READ, ""), ("exporter", READ, "")],
}
"""Bucket → (service, what it may do with objects, below which prefix); who may read there may list it."""

SERVICES = sorted({service for granted in MAY.values() for service, _, _ in granted})


def policy(bucket: str, keys: Iterable[str]) -> dict[str, object]:
    """The bucket's policy for these keys, `<service>-<generation>` each."""
    statements: list[dict[str, object]] = []
    for service, actions, prefix in MAY[bucket]:
        theirs = sorted(key for key in keys if key.rpartition("-")[0] == service)
        who = {"Effect": "Allow", "Principal": {"AWS": theirs}}
        statements.append({**who, "Action": list(actions), "Resource": f"arn:aws:s3:::{bucket}/{prefix}*"})
        listing: dict[str, object] = {**who, "Action": ["s3:ListBucket"], "Resource": f"arn:aws:s3:::{bucket}"}
        if prefix:
            listing["Condition"] = {"StringLike": {"s3:prefix": [f"{prefix}*"]}}
        statements.append(listing)
    return {"Version": "2012-10-17", "Statement": statements}


def admin(action: str, body: str = "") -> tuple[int, str]:
    """What versitygw's own interface answers: its status and its body. 409, for what is there already, is no error."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{action}"
    request = AWSRequest("PATCH", url, data=body.encode())
    S3SigV4Auth(boto3.Session().get_credentials(), "s3", os.environ["AWS_REGION"]).add_auth(request)
    sent = urllib.request.Request(url, body.encode(), dict(request.headers), method="PATCH")  # noqa: S310
    try:
        with urllib.request.urlopen(sent, timeout=10) as answer:  # noqa: S310
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        if error.code == 409:
            return 409, ""
        raise SystemExit(f"{action}: {error.code} {error.read().decode(errors='replace')[:300]}") from None


def _buckets(s3: Any) -> set[str]:
    """The buckets that are there. Waits a minute: the server may be starting, or a network policy be new."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
        except (EndpointConnectionError, ConnectTimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def main() -> None:
    """Buckets first, then keys, then policies: a policy may name only who is there."""
    s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])
    for bucket in sorted(set(MAY) - _buckets(s3)):
        s3.create_bucket(Bucket=bucket)
    generation = os.environ["GENERATION"]
    for service in SERVICES:
        key, secret = f"{service}-{generation}", escape(os.environ[service.upper()])
        account = f"<Account><Access>{key}</Access><Secret>{secret}</Secret><Role>user</Role></Account>"
        if admin("create-user", account)[0] == 409:
            admin(f"update-user?access={key}", f"<MutableProps><Secret>{secret}</Secret></MutableProps>")
    keys = re.findall(r"<Access>([^<]+)</Access>", admin("list-users")[1])
    ours = re.compile(f"({'|'.join(SERVICES)})-[0-9a-f]{{6}}")
    others = [key for key in keys if ours.fullmatch(key) and not key.endswith(f"-{generation}")]
    retired = others if os.environ.get("RETIRE") else []
    for bucket in MAY:
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy(bucket, set(keys) - set(retired))))
    for key in retired:
        admin(f"delete-user?access={key}")
    print(f"buckets {', '.join(MAY)}; keys of {', '.join(SERVICES)}" + (f"; retired {len(retired)}" if retired else ""))


if __name__ == "__main__":
    main()
