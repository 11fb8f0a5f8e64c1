"""The image product's own sections: how it is asked and what it refuses, and what became of its pictures."""

from __future__ import annotations

from observability.grafana.board import Section
from observability.grafana.parts import BAD, NEUTRAL, WARN, Panel, Query, curve, number, rows, steps

OF = 'product="images"'
RATE = "[$__rate_interval]"
LIMITS = "too_many_bytes|too_large|too_many_pixels|timeout|out_of_memory|decoder_crashed"
GONE = "unfit|lost|nothing_online"


def asked() -> Section:
    """By id or by bytes, by which version, and what gets no answer."""
    refused, scored = f"predictions_refused_total{{{OF}", f"prediction_latency_ms_count{{{OF}}}"
    here = f"0 * sum(predictions_in_flight{{{OF}}})"

    def last_hour(reasons: str) -> Query:
        return Query(f'sum(increase({refused},reason=~"{reasons}"}}[1h])) or {here}')

    return "Asked by id or by bytes", [
        curve(
            "Scored a second, by input",
            "How is it asked? `image_id` reads an embedding, `image` is a picture that is decoded and embedded: more "
            "of these cost more.",
            [Query(f"sum by (input) (rate({scored}{RATE}))", "{{input}}")],
            unit="reqps",
            lowest=0,
            span=8,
        ),
        curve(
            "Scored a second, by version",
            "Which model answers? Beside a canary, how the traffic is shared.",
            [Query(f"sum by (model_version, track) (rate({scored}{RATE}))", "v{{model_version}} {{track}}")],
            unit="reqps",
            lowest=0,
            span=8,
        ),
        curve(
            "Refused a second, by why",
            "What gets no answer? Of a picture what cleaning calls it; `unknown` is an id that no release has.",
            [
                Query(f"sum(rate({refused}}}{RATE})) or {here}", "in all"),
                Query(f"sum by (status, reason) (rate({refused}}}{RATE})) > 0", "{{status}} {{reason}}"),
            ],
            unit="reqps",
            lowest=0,
            span=8,
        ),
        number(
            "Pictures over a limit, last hour",
            "Does somebody send bombs, or are decoders starved? Refused for bytes, pixels, time or memory, or for a "
            "decoder that ended.",
            [last_hour(LIMITS)],
            unit="none",
            limits=steps((1, WARN)),
            decimals=0,
            span=8,
        ),
        number(
            "Embeddings lost or unfit, last hour",
            "Do callers get no answer through our fault? Redis lost the embedding, or it is broken or too old. An id "
            "that nobody knows is `404 unknown` above.",
            [last_hour(GONE)],
            unit="none",
            limits=steps((1, BAD)),
            decimals=0,
            span=8,
        ),
        number(
            "Clean pictures that are not online",
            "Does every picture of the release have an embedding in Redis? Counted once a minute.",
            [Query(f"clean_pictures{{{OF}}} - ignoring () online_rows{{{OF}}}")],
            unit="none",
            limits=steps((1, BAD)),
            span=8,
        ),
    ]


def pictures() -> Section:
    """What the newest run came to, stage by stage."""
    clean, set_aside = f"clean_pictures{{{OF}}}", f"quarantined_pictures{{{OF}}}"
    in_all = Query(f"sum({set_aside}) or sum(0 * {clean})", "set aside")

    def told(title: str, answers: str, queries: list[Query], span: int) -> Panel:
        plain = steps(below=NEUTRAL)
        return number(title, answers, queries, unit="none", limits=plain, filled=False, span=span)

    return "Pictures, by the newest run", [
        told(
            "Landed, clean, set aside",
            "Is a picture lost on the way? Landed are clean or set aside, or a gate has stopped the run.",
            [Query("raw_images_rows", "landed"), Query(clean, "clean"), in_all],
            7,
        ),
        told(
            "Groups of near duplicates",
            "How many groups look alike? Each is on one side of a split. A jump: a source sent copies.",
            [Query(f"near_duplicate_groups{{{OF}}}")],
            4,
        ),
        told(
            "New embeddings of the last run",
            "Was something embedded? Only pictures without an embedding of this version are.",
            [Query(f'stage_rows{{{OF},stage="features"}}', "{{table}}")],
            6,
        ),
        told(
            "Rows of the newest dataset",
            "Is the dataset whole? By split; near duplicates are on one side.",
            [Query(f"dataset_rows{{{OF}}}", "{{split}}")],
            7,
        ),
        rows(
            "Set aside, by reason",
            "Why were pictures set aside? `timeout`, `out_of_memory` and `decoder_crashed` may be the machine's fault: "
            "the next run tries them again. `plumb images quarantine` lists them.",
            Query(f"{set_aside} > 0"),
            columns={"reason": "Reason", "Value": "Pictures"},
            properties={},
            sort="Pictures",
            descending=True,
            empty="Nothing was set aside",
            span=12,
            height=9,
        ),
        curve(
            "Set aside over time",
            "Since when? A run that sets more aside than the one before it had another source, or another decoder.",
            [in_all],
            unit="none",
            lowest=0,
            at_least=1,
            stepped=True,
            span=12,
            height=9,
        ),
    ]
