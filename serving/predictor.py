"""The KServe model of any product: what it asks is its shelf's, how it loads, probes, refuses and logs is the same."""

from __future__ import annotations

import asyncio
import logging
import uuid
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol

from kserve.model import Model  # noqa: TID253 (imported by the server alone)
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse  # noqa: TID253

from plumbline import clock
from plumbline.metrics import instrument
from plumbline.product import Product
from plumbline.progress import warn
from plumbline.registry.signing import Untrusted
from serving import loaded_model as registry
from serving import requests
from serving.errors import Refused, StoreAway
from serving.outcome_log import OutcomeLog
from serving.track import Track

LOG = logging.getLogger("plumbline.serving")
THREADS = 4
PROBE_SECONDS = 3.0
"""How long the result of a probe holds: whoever asks more often is told the last one."""

PROBED = 10
"""Entities that a probe tries at most, until one is scored."""

LATENCY, MISSING = "prediction_latency_ms", "pct_missing_features"
"""What is measured of each scored request."""

REMEMBERED = 50_000
"""Callers' request ids that are remembered, the newest: one that comes again gets an ending of its own."""


class Scored(Protocol):
    """A scored batch: the platform's now that it was asked at, and the share of null model inputs, 0 to 100."""

    @property
    def at(self) -> datetime: ...
    @property
    def pct_missing(self) -> float: ...


class Scorer(Protocol):
    """A loaded model that scores what a request asks. Safe to use from several threads."""

    @property
    def model(self) -> registry.LoadedModel: ...
    def score(self, asked: list[Any]) -> Any: ...
    def samples(self, most: int) -> Iterable[Any]:
        """What a probe may ask, such as some customers who are online. Raises one of `errors`."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What says that the online store is away."""

    def close(self) -> None:
        """Ends what scoring started."""


class Predictor(Model):  # type: ignore[misc]
    """Answers v1 and v2, REST and gRPC. A product's own class says what a request may ask and what an answer holds."""

    product: ClassVar[Product]
    most_at_once: ClassVar[int]
    """What may be under way at once, by weight; who comes next is told to come again instead of waiting in line."""
    at_least: ClassVar[int]
    """What a request weighs at least: to decode it, to ask Redis and to answer cost as much."""
    largest_body: ClassVar[int] = 1 << 20
    """Bytes of a request's body over HTTP, and of a message over gRPC."""
    shape: ClassVar[str]
    """What a v2 request must hold, for messages."""
    datatypes: ClassVar[str]
    """The datatypes of its inputs, for messages."""
    inputs: ClassVar[Sequence[tuple[str, str]]]
    """Name and datatype of each v2 input, each of shape [-1]."""
    outputs: ClassVar[dict[str, str]]
    """Name and datatype of each v2 output, each of shape [-1]."""

    @abstractmethod
    def scorer_of(self, model: str | Path) -> Scorer:
        """The scorer of the version that an alias or number names, or of the model in a folder."""

    @abstractmethod
    def asked(self, payload: Any) -> list[Any]:
        """What a v1 body or a v2 InferRequest asks. Raises Refused (400, 413)."""

    @abstractmethod
    def rows(self, scored: Any) -> list[dict[str, Any]]:
        """A prediction for each thing asked, as v1 answers it."""

    @abstractmethod
    def columns(self, scored: Any) -> dict[str, list[Any]]:
        """The same as v2's tensors, by output."""

    @abstractmethod
    def log_rows(self, request_id: str, scored: Any, version: str, track: str) -> list[dict[str, Any]]:
        """The rows of the outcome log."""

    def weight(self, asked: list[Any]) -> int:
        """How much work it is, in the unit of `most_at_once`."""
        return len(asked)

    def input_of(self, asked: list[Any]) -> str:
        """The input that a request asked by, for its latency; of two, the one that is more work."""
        return self.inputs[0][0]

    def __init__(self, model: str | Path, log: OutcomeLog, track: Track | None = None) -> None:
        super().__init__(self.product.service, return_response_headers=True)
        self._wanted, self._log, self._track = model, log, track or Track()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="score")
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="probe")  # a probe never waits behind requests
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
            self.scorer = self.scorer_of(self._wanted)
        except Untrusted as refused:
            self.scorer, self._refused = self._in_its_place(refused)
        for name, _ in self.inputs:
            self._latency(name)
        self._missing()
        self._in_flight()
        self.ready = True
        return True

    async def scores(self) -> bool:
        """Whether something that is online can be scored; tried at most once in PROBE_SECONDS.

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
            for sample in self.scorer.samples(PROBED):
                try:
                    self.rows(self.scorer.score([sample]))
                    break
                except StoreAway:
                    raise
                except Refused:  # it concerns this one alone: the next
                    continue
        except StoreAway as away:
            LOG.warning("not ready: %s", away)
            return False
        except self.scorer.errors as away:
            LOG.warning("not ready: %s", away)
            return False
        except Exception:
            LOG.exception("the readiness probe cannot score a %s", self.product.entities.removesuffix("s"))
            return False
        return True

    def _in_its_place(self, refused: Untrusted) -> tuple[Scorer, str]:
        """The previous champion and the version that it stands in for; only the champion has a stand-in."""
        if isinstance(self._wanted, Path):
            raise refused
        wanted, champion = registry.find(self.product, self._wanted), registry.find(self.product, registry.CHAMPION)
        if wanted is None or champion is None or wanted.version != champion.version:
            raise refused
        if (standby := registry.find(self.product, registry.PREVIOUS)) is None:
            raise Untrusted(f"{refused}; and there is no previous champion to serve in its place") from None
        warn(f"REFUSED: {refused}")
        scorer = self.scorer_of(str(standby.version))
        warn(f"the previous champion, version {standby.version}, serves in its place; `plumb deploy --model` mends it")
        instrument("model_refused").labels(self.product.name, str(wanted.version)).set(1)
        return scorer, str(wanted.version)

    def start(self) -> None:
        """KServe's hook after registration, which would call a model ready that is not."""

    @property
    def version(self) -> str | None:
        """The registered version that is served, None before it is loaded."""
        return self.scorer.model.version if self.scorer is not None else None

    def get_input_types(self) -> list[dict[str, Any]]:
        """The v2 metadata of the inputs."""
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in self.inputs]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The v2 metadata of the outputs."""
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in self.outputs.items()]

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
            asked = self.asked(payload)
            scored = await self._score(asked)
        except Refused as refused:
            refused.request_id = request_id
            raise
        request_id = self._unique(request_id)
        if response_headers is not None:
            response_headers["x-request-id"] = request_id
        answer = self._tensors(request_id, scored, payload) if tensors else self._body(scored)
        self._log.add(self.log_rows(request_id, scored, self._version, self._track()))
        self._latency(self.input_of(asked)).observe(1000 * (clock.monotonic() - begun))
        self._missing().observe(scored.pct_missing)
        return answer

    def _latency(self, by: str) -> Any:
        return instrument(LATENCY).labels(self.product.name, self._version, self._track(), by)

    def _missing(self) -> Any:
        return instrument(MISSING).labels(self.product.name, self._version, self._track())

    def _in_flight(self) -> Any:
        return instrument("predictions_in_flight").labels(self.product.name)

    async def _score(self, asked: list[Any]) -> Any:
        """Scores in a thread: a Redis that hangs must not hold up health checks and other requests."""
        if self.scorer is None:
            raise Refused(503, f"{self.product.service} has not loaded its model yet", None, 5, "loading")
        weight = max(self.at_least, self.weight(asked))
        if self._under_way + weight > self.most_at_once:
            raise Refused(
                503,
                f"as many {self.product.entities} are under way as this predictor takes: ask again",
                retry_after=1,
                code="busy",
            )
        self._under_way += weight
        try:
            with self._in_flight().track_inprogress():
                return await asyncio.get_running_loop().run_in_executor(self._pool, self.scorer.score, asked)
        finally:
            self._under_way -= weight

    def check_version(self, version: str | None) -> None:
        """Raises Refused (404) for any version but the one that is served; none at all means that one."""
        if version and self.scorer is not None and version != self._version:
            name, asked = self.product.service, requests.shown(version)
            raise Refused(404, f"{name} has no version {asked}: it serves version {self._version}")

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

    def _about(self, scored: Any) -> dict[str, Any]:
        """What an answer depends on besides what was asked."""
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

    def _body(self, scored: Any) -> dict[str, Any]:
        return {
            "predictions": self.rows(scored),
            "model_name": self.product.service,
            "model_version": self._version,
            **self._about(scored),
        }

    def _tensors(self, request_id: str, scored: Any, request: InferRequest) -> InferResponse:
        columns = self.columns(scored)
        wanted = [output.name for output in request.request_outputs or []] or list(self.outputs)
        outputs = [
            InferOutput(name=name, shape=[len(columns[name])], datatype=kind, data=columns[name])
            for name, kind in self.outputs.items()
            if name in wanted  # KServe leaves the others out in REST alone
        ]
        return InferResponse(
            response_id=request_id,
            model_name=self.product.service,
            model_version=self._version,
            infer_outputs=outputs,
            parameters={"model_version": self._version, **self._about(scored)},
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    @property
    def _version(self) -> str:
        assert self.scorer is not None  # noqa: S101 (asked for after a score)
        return self.scorer.model.version

    def close(self) -> None:
        """Ends the threads that score and probe, and what the scorer started."""
        self._pool.shutdown(wait=False)
        self._prober.shutdown(wait=False)
        if self.scorer is not None:
            self.scorer.close()
