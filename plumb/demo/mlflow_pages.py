"""MLflow's pages behind a login: whoever reaches the port could move the alias `champion`, which no signature binds.

`python -m uvicorn --factory plumb.demo.mlflow_pages:app` serves them. The password is the server's token, in its record
(`mlflow.json`), which only the owner of the home reads.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

USER, PASSWORD = "plumb", "MLFLOW_PAGES_PASSWORD"
ARTIFACTS = "MLFLOW_PAGES_ARTIFACTS"
"""Where the server keeps what clients send it; without it they go where the database says."""

OPEN = "/health"
"""What is answered without a login: that the server is up."""

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def app() -> App:
    """MLflow's own application, for who logs in as USER with the password in the environment."""
    from mlflow.server import constants as told

    os.environ |= {
        told.BACKEND_STORE_URI_ENV_VAR: os.environ["MLFLOW_BACKEND_STORE_URI"],
        told.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    if place := os.environ.get(ARTIFACTS):
        os.environ |= {told.ARTIFACTS_DESTINATION_ENV_VAR: place, told.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/"}
    from mlflow.server.fastapi_app import app as pages

    return behind_login(pages, os.environ.pop(PASSWORD))


def behind_login(pages: App, password: str) -> App:
    """`pages`, answered with 401 without HTTP's basic login."""
    wanted = b"Basic " + base64.b64encode(f"{USER}:{password}".encode())

    async def checked(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope.get("path") == OPEN:
            await pages(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and hmac.compare_digest(given[0], wanted):
            await pages(scope, receive, send)
            return
        headers = [(b"www-authenticate", b'Basic realm="MLflow of this home"'), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"log in: `plumb up` says as whom\n"})

    return checked
