"""All that the predictors and the judge import, once: `python -m serving.imports`, without a server or a model.

Their image's build runs it, so that the image has the bytecode of what is imported and of nothing else.
"""
# ruff: noqa: F401

from __future__ import annotations

import products
from plumbline.lineage import client
from serving import server


def everything() -> None:
    """Imports it. Raises ImportError for what is not installed."""
    for product in products.ALL:
        server.import_predictor(product)
    client.load()
    import cryptography.hazmat.primitives.asymmetric.ec
    import deltalake
    import feast.infra.compute_engines.local.compute
    import feast.infra.passthrough_provider
    import model_signing.signing
    import model_signing.verifying
    import obstore.store
    import onnx.checker
    import onnxruntime
    import PIL.Image
    import prometheus_client
    import pyarrow.compute
    import pyarrow.dataset
    import xgboost.core

    from serving import compaction, grpc_server, rest
    from serving.judge import server as judge


if __name__ == "__main__":
    everything()
