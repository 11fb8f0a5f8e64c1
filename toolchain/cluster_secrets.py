"""The Secrets of a development cluster: `python -m toolchain.cluster_secrets | kubectl apply -f -`.

No Secret comes from Git. In staging and prod whatever keeps your secrets makes them under the same names and keys
(docs/deploy.md lists them); here they are made of the passwords in .env (`make secrets`), which the stores of
k8s/stores and everyone who asks them then share.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from plumbline.settings import ROOT
from toolchain import compose

STORES, PIPELINE = "stores", "pipeline-dev"
S3 = {"AWS_ENDPOINT_URL": "http://s3.stores:7070", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
INITIALIZER = {
    "serving.kserve.io/s3-endpoint": "s3.stores:7070",
    "serving.kserve.io/s3-usehttps": "0",
    "serving.kserve.io/s3-region": "us-east-1",
}
"""What KServe's storage initializer is told by the Secret of a predictor's service account."""

PRODUCTS = sorted(path.parts[-4] for path in ROOT.glob("k8s/*/overlays/dev/model.yaml"))
"""Whoever has a model."""

Object = dict[str, object]


def secrets(known: Mapping[str, str]) -> dict[str, dict[str, dict[str, str]]]:
    """Namespace → Secret → key → value, of .env's passwords by their names. Raises KeyError for one that lacks."""
    generation = known["GENERATION"]
    redis = {
        user: f"redis://{user}-{generation}:{known[f'REDIS_{user.upper()}_PASSWORD']}@redis.stores:6379/0"
        for user in ("pipeline", "predictor")
    }
    postgres = {
        user: f"{user}_{generation}:{known[f'{user.upper()}_DB_PASSWORD']}@postgres.stores"
        for user in ("airflow", "mlflow", "shop", "landing")
    }

    def s3(service: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": f"{service}-{generation}",
            "AWS_SECRET_ACCESS_KEY": known[f"S3_{service.upper()}_SECRET"],
        }

    verify = {"PLUMBLINE_VERIFY_KEY": known["VERIFY_KEY"].replace("\\n", "\n")}
    mlflow = {
        "PLUMBLINE_MLFLOW_URL": f"http://mlflow.{PIPELINE}:5000",
        "MLFLOW_TRACKING_USERNAME": "plumb",
        "MLFLOW_TRACKING_PASSWORD": known["MLFLOW_PASSWORD"],
    }
    stages = {
        "PLUMBLINE_SHOP_URL": f"postgresql+psycopg://{postgres['landing']}/shop",
        "PLUMBLINE_REDIS_URL": redis["pipeline"],
        **mlflow,
        **verify,
    }
    services = ("PIPELINE", "SPARK", "MLFLOW", "PREDICTOR", "JUDGE", "ROLLOUT", "EXPORTER")
    return {
        STORES: {
            "postgres": {"POSTGRES_PASSWORD": known["POSTGRES_PASSWORD"]},
            "postgres-roles": {
                "PGPASSWORD": known["POSTGRES_PASSWORD"],
                "GENERATION": generation,
                **{name: known[f"{name}_DB_PASSWORD"] for name in ("AIRFLOW", "MLFLOW", "SHOP", "LANDING", "MARQUEZ")},
            },
            "redis": {"REDISCLI_AUTH": known["REDIS_ADMIN_PASSWORD"]},
            "redis-users": {
                "ADMIN": known["REDIS_ADMIN_PASSWORD"],
                "GENERATION": generation,
                **{name: known[f"REDIS_{name}_PASSWORD"] for name in ("PIPELINE", "PREDICTOR")},
            },
            "kafka": {"KAFKA_PASSWORD": known["KAFKA_PASSWORD"]},
            "s3": {"ROOT_ACCESS_KEY_ID": "root", "ROOT_SECRET_ACCESS_KEY": known["S3_ROOT_SECRET"]},
            "s3-keys": {
                "AWS_ACCESS_KEY_ID": "root",
                "AWS_SECRET_ACCESS_KEY": known["S3_ROOT_SECRET"],
                "GENERATION": generation,
                **{name: known[f"S3_{name}_SECRET"] for name in services},
            },
        },
        PIPELINE: {
            "airflow": {
                "AIRFLOW__CORE__FERNET_KEY": known["AIRFLOW_FERNET_KEY"],
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{postgres['airflow']}/airflow",
                "AIRFLOW__API__SECRET_KEY": known["AIRFLOW_API_SECRET"],
                "AIRFLOW__API_AUTH__JWT_SECRET": known["AIRFLOW_JWT_SECRET"],
                "AIRFLOW_PASSWORD": known["AIRFLOW_PASSWORD"],
            },
            "tasks": {
                **stages,
                **s3("pipeline"),
                "PLUMBLINE_SIGNING_KEY": known["SIGNING_KEY"].replace("\\n", "\n"),
                "PLUMBLINE_KAFKA_URL": f"kafka://plumbline:{known['KAFKA_PASSWORD']}@kafka.stores:9092",
                "SPARK_REMOTE": "sc://spark:15002",
            },
            "spark": s3("spark"),
            "mlflow": {
                **S3,
                **s3("mlflow"),
                "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://{postgres['mlflow']}/mlflow",
                "MLFLOW_PAGES_PASSWORD": known["MLFLOW_PASSWORD"],
                "MLFLOW_PAGES_ARTIFACTS": "s3://artifacts",
            },
            "exporter": {**stages, **s3("exporter")},
            "shop": {"PLUMBLINE_SHOP_URL": f"postgresql+psycopg://{postgres['shop']}/shop"},
        },
        **{
            f"{product}-dev": {
                f"{product}-predictor": {"PLUMBLINE_REDIS_URL": redis["predictor"], **verify},
                f"{product}-champion": mlflow,
                "predictor-object-store": {**S3, **s3("predictor")},
                "judge-object-store": {**S3, **s3("judge")},
                "champion-object-store": {**S3, **s3("rollout")},
            }
            for product in PRODUCTS
        },
    }


def objects(known: Mapping[str, str]) -> list[Object]:
    """The namespaces, which a Secret needs, and the Secrets."""
    made: list[Object] = []
    for namespace, named in secrets(known).items():
        made.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for name, data in named.items():
            about: dict[str, object] = {"name": name, "namespace": namespace}
            if name == "predictor-object-store":
                about["annotations"] = INITIALIZER
            made.append({"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": data})
    return made


def main() -> None:
    """Prints them as one list; .env is written first where it lacks something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    compose.write_secrets()
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects(compose.read_secrets())}))


if __name__ == "__main__":
    main()
