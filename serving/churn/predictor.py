"""The KServe model: ids in, probabilities out, every answer with its model, release, ages and gaps."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model  # noqa: TID253 (imported by the server alone)

from plumbline import clock
from plumbline.metrics import instrument
from plumbline.progress import warn
from plumbline.registry.signing import Untrusted
from plumbline.settings import settings
from products.churn import CHURN
from serving import loaded_model as registry
from serving.churn import requests
from serving.churn.scorer import Scored, Scorer
from serving.errors import Refused, StoreAway
from serving.outcome_log import OutcomeLog
from serving.track import Track

LOG = logging.getLogger("plumbline.serving")
NAME = CHURN.service
THREADS = 4
PROBE_SECONDS = 3.0
"""How long the result of a probe holds: whoever asks more often is told the last one."""

PROBED = 10
"""Customers whom a probe tries at most, until one is scored."""

MEASURED = ("prediction_latency_ms", "pct_missing_features")
"""What is measured of each scored request."""

MOST_AT_ONCE = 2 * requests.MOST
"""Customers under way at once, some 0.5 s of work; who comes next is told to come again instead of waiting in line."""

AT_LEAST = 20
"""What a request counts for at least, in customers: to decode it, to ask Redis and to answer cost as much as these."""

REMEMBERED = 50_000
"""Callers' request ids that are remembered, the newest: one that comes again gets an ending of its own."""


class ChurnPredictor(Model):  # type: ignore[misc]
    """Answers v1 and v2, REST and gRPC."""

    def __init__(self, model: str | Path, log: OutcomeLog, track: Track | None = None) -> None:
        super().__init__(NAME, return_response_headers=True)
        self._wanted, self._log, self._track = model, log, track or Track()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="score")
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="probe")  # a probe never waits behind customers
        self._under_way = 0
        self._request_ids: OrderedDict[str, None] = OrderedDict()
        self._probing = asyncio.Lock()
        self._probed_at: float | None = None
        self._scores = False
        self.scorer: Scorer | None = None
        self._refused: str | None = None

    def load(self) -> bool:
        """Loads the model and opens the online store.

        A champion whose signature does not hold is refused, and the `previous` champion, if it is trusted, serves in
        its place: the log, the metric `model_refused` and every answer (`refused_model_version`) say so. Raises
        Untrusted when there is none, ServingError or ServiceUnavailable.
        """
        try:
            self.scorer = Scorer(self._wanted)
        except Untrusted as refused:
            self.scorer, self._refused = self._in_its_place(refused)
        for name in MEASURED:
            instrument(name).labels(self._version, self._track())
        self.ready = True
        return True

    async def scores(self) -> bool:
        """Whether a customer who is online can be scored; tried at most once in PROBE_SECONDS.

        A predictor that is loaded and fails at every request would else look ready. Not ready is one whose model fails
        or whose online store does not answer. Customers whose rows are expired or broken are passed over.
        """
        async with self._probing:
            if self._probed_at is None or clock.monotonic() - self._probed_at >= PROBE_SECONDS:
                self._scores = await asyncio.get_running_loop().run_in_executor(self._prober, self._probe)
                self._probed_at = clock.monotonic()
        return self._scores

    def _probe(self) -> bool:
        if self.scorer is None:
            return False
        try:
            for customer in self.scorer.features.some_customers(PROBED):
                try:
                    self._body(self.scorer.score([customer]))
                    break
                except StoreAway:
                    raise
                except Refused:  # it concerns this customer alone: the next one
                    continue
        except StoreAway as away:
            LOG.warning("not ready: %s", away)
            return False
        except self.scorer.features.errors as away:
            LOG.warning("not ready: %s", away)
            return False
        except Exception:
            LOG.exception("the readiness probe cannot score a customer")
            return False
        return True

    def _in_its_place(self, refused: Untrusted) -> tuple[Scorer, str]:
        """The previous champion and the version that it stands in for; only the champion has a stand-in."""
        if isinstance(self._wanted, Path):
            raise refused
        wanted, champion = registry.find(self._wanted), registry.find(registry.CHAMPION)
        if wanted is None or champion is None or wanted.version != champion.version:
            raise refused
        if (standby := registry.find(registry.PREVIOUS)) is None:
            raise Untrusted(f"{refused}; and there is no previous champion to serve in its place") from None
        warn(f"REFUSED: {refused}")
        scorer = Scorer(str(standby.version))
        warn(f"the previous champion, version {standby.version}, serves in its place; `plumb deploy --model` mends it")
        instrument("model_refused").labels(model_version=str(wanted.version)).set(1)
        return scorer, str(wanted.version)

    def start(self) -> None:
        """KServe's hook after registration, which would call a model ready that is not."""

    @property
    def version(self) -> str | None:
        """The registered version that is served, None before it is loaded."""
        return self.scorer.model.version if self.scorer is not None else None

    def get_input_types(self) -> list[dict[str, Any]]:
        """The v2 metadata of the one input."""
        return [{"name": requests.KEY, "datatype": "INT64", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The v2 metadata of the outputs."""
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in requests.OUTPUTS.items()]

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """A v1 body (as decoded) or a v2 InferRequest to its answer. Raises Refused; nothing is scored then."""
        begun = clock.monotonic()
        tensors = isinstance(payload, InferRequest)
        request_id = requests.request_id(payload.id if tensors else None, headers)
        try:
            self.check_version(payload.model_version if tensors else None)
            customers = requests.from_v2(payload) if tensors else requests.from_v1(payload)
            scored = await self._score(customers)
        except Refused as refused:
            refused.request_id = request_id
            raise
        request_id = self._unique(request_id)
        if response_headers is not None:
            response_headers["x-request-id"] = request_id
        answer = self._tensors(request_id, scored, payload) if tensors else self._body(scored)
        self._log.add(self._log_rows(request_id, scored))
        for name, value in zip(MEASURED, (1000 * (clock.monotonic() - begun), scored.pct_missing), strict=True):
            instrument(name).labels(self._version, self._track()).observe(value)
        return answer

    async def _score(self, customers: list[int]) -> Scored:
        """Scores in a thread: a Redis that hangs must not hold up health checks and other requests."""
        if self.scorer is None:
            raise Refused(503, f"{NAME} has not loaded its model yet", retry_after=5)
        weight = max(AT_LEAST, len(customers))
        if self._under_way + weight > MOST_AT_ONCE:
            raise Refused(503, "as many customers are under way as this predictor takes: ask again", retry_after=1)
        self._under_way += weight
        try:
            with instrument("predictions_in_flight").track_inprogress():
                return await asyncio.get_running_loop().run_in_executor(self._pool, self.scorer.score, customers)
        finally:
            self._under_way -= weight

    def check_version(self, version: str | None) -> None:
        """Raises Refused (404) for any version but the one that is served; none at all means that one."""
        if version and self.scorer is not None and version != self._version:
            raise Refused(404, f"{NAME} has no version {requests.shown(version)}: it serves version {self._version}")

    def _unique(self, request_id: str) -> str:
        """The id of this answer and of its rows in the outcome log: the request's, with an ending when it came before.

        A proxy or caller may send one id again and again; outcomes are joined by the id in the answer.
        """
        if request_id in self._request_ids:
            self._request_ids.move_to_end(request_id)
            return f"{request_id[: requests.LONGEST_ID - 37]}~{uuid.uuid4()}"
        self._request_ids[request_id] = None
        if len(self._request_ids) > REMEMBERED:
            self._request_ids.popitem(last=False)
        return request_id

    def _about(self, scored: Scored) -> dict[str, Any]:
        """What an answer depends on besides the customers."""
        assert self.scorer is not None  # noqa: S101 (it has scored)
        model = self.scorer.model
        about = {
            "data_version": model.data_version,
            "feature_service": model.feature_service,
            "clock": scored.at.isoformat(),
        }
        if self._refused is not None:
            about["refused_model_version"] = self._refused
        return {**about, "replay": True} if clock.is_replay() else about

    def _body(self, scored: Scored) -> dict[str, Any]:
        predictions = [
            {
                "customer_id": prediction.row.customer_id,
                "churn_probability": prediction.probability,
                "features_age_seconds": prediction.row.age_seconds,
                "release_id": prediction.row.release_id,
                "missing": prediction.missing,
            }
            for prediction in scored.predictions
        ]
        return {
            "predictions": predictions,
            "model_name": NAME,
            "model_version": self._version,
            **self._about(scored),
        }

    def _tensors(self, request_id: str, scored: Scored, request: InferRequest) -> InferResponse:
        columns: dict[str, list[Any]] = {
            "churn_probability": [prediction.probability for prediction in scored.predictions],
            "features_age_seconds": [prediction.row.age_seconds for prediction in scored.predictions],
            "release_id": [prediction.row.release_id for prediction in scored.predictions],
            "missing": [",".join(prediction.missing) for prediction in scored.predictions],
        }
        wanted = [output.name for output in request.request_outputs or []] or list(requests.OUTPUTS)
        outputs = [
            InferOutput(name=name, shape=[len(columns[name])], datatype=kind, data=columns[name])
            for name, kind in requests.OUTPUTS.items()
            if name in wanted  # KServe leaves the others out in REST alone
        ]
        return InferResponse(
            response_id=request_id,
            model_name=NAME,
            model_version=self._version,
            infer_outputs=outputs,
            parameters={"model_version": self._version, **self._about(scored)},
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def _log_rows(self, request_id: str, scored: Scored) -> list[dict[str, Any]]:
        """A row a customer: one who stands in a request twice is one row, as its key says."""
        logged_at, track = clock.wall(), self._track()
        by_customer = {prediction.row.customer_id: prediction for prediction in scored.predictions}
        return [
            {
                "request_id": request_id,
                "at": scored.at,
                "logged_at": logged_at,
                "customer_id": customer,
                "features": json.dumps(prediction.row.values, sort_keys=True, allow_nan=False),
                "event_time": prediction.row.event_time,
                "features_age_seconds": prediction.row.age_seconds,
                "release_id": prediction.row.release_id,
                "model_version": self._version,
                "track": track,
                "score": prediction.probability,
                "revision": settings().revision,
            }
            for customer, prediction in by_customer.items()
        ]

    @property
    def _version(self) -> str:
        assert self.scorer is not None  # noqa: S101 (asked for after a score)
        return self.scorer.model.version

    def close(self) -> None:
        """Ends the threads that score and probe."""
        self._pool.shutdown(wait=False)
        self._prober.shutdown(wait=False)
