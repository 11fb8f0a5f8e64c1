"""The packages that stages import, all at once: the pipeline image's build runs it as a file, without our own code.

So the image has the bytecode of what is imported and not of everything that is installed, which would be three times as
much. What lacks here is compiled again by each command that imports it, and nothing else happens.
"""
# ruff: noqa: F401, TID253

import boto3
import confluent_kafka.admin
import dbt.adapters.spark
import dbt.cli.main
import delta
import deltalake
import dlt.destinations
import dlt.sources.sql_database
import feast.infra.offline_stores.contrib.spark_offline_store.spark
import feast.infra.online_stores.redis
import feast.infra.passthrough_provider
import great_expectations.expectations
import jinja2
import jsonschema
import matplotlib.pyplot
import mlflow.onnx
import mlflow.server.fastapi_app
import mlflow.xgboost
import model_signing.signing
import obstore.store
import onnx.checker
import onnxruntime
import open_data_contract_standard.model
import openlineage.client
import PIL.Image
import prometheus_client
import psutil
import psycopg
import pyarrow.dataset
import pyspark.sql.connect.session
import rich.live
import s3fs
import scipy.stats
import sklearn.linear_model
import sklearn.metrics
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
import sqlglot
import typer
import uvicorn
import xgboost
