"""Images: what a picture shows, by a classifier on embeddings; seven stages from an immutable raw picture on."""

from __future__ import annotations

from plumbline.product import Kpi, Product, Stage

DAG, BY_HAND = "images", "image_operations"

SOURCE = "sources.images"
RAW, LABELS = "raw.images", "raw.image_labels"
CLEAN = "clean.images"
EMBEDDINGS = {version: f"features.image_embeddings_{version}" for version in ("v1", "v2")}
"""Version of preprocessing and network → the table of its embeddings; feature_repo/images says what each is."""
VIEWS = {f"image_embeddings_{version}": table for version, table in EMBEDDINGS.items()}
VIEW, *MORE_VIEWS = VIEWS
FEATURES = VIEWS[VIEW]
ONLINE = "online.image_embeddings"
LOG, OUTCOMES = "serving.image_predictions", "serving.image_outcomes"
DATASET = "training.images"
RUNS, MODELS, CHAMPION = "runs.image_logreg", "models.image_logreg", "models.image_logreg.champion"
ENDPOINT = "endpoints.image-predictor"
RELEASES = "releases.images"
RELEASED = (RAW, LABELS, CLEAN, *EMBEDDINGS.values())
"""The tables that a release may name."""

IMAGES = Product(
    name="images",
    tables=(RAW, LABELS, CLEAN, OUTCOMES),
    daily=DAG,
    training=DAG,
    by_hand=BY_HAND,
    command="images",
    entity="image_id",
    entity_type="STRING",
    feature_project="images",
    view=VIEW,
    more_views={view: VIEWS[view] for view in MORE_VIEWS},
    live=(CLEAN, "state", "clean"),
    model="image_logreg",
    service="image-predictor",
    host="image-model",
    server="image-predictor",
    releases=RELEASES,
    features=FEATURES,
    online=ONLINE,
    dataset=DATASET,
    runs=RUNS,
    models=MODELS,
    champion=CHAMPION,
    endpoint=ENDPOINT,
    log=LOG,
    outcomes=OUTCOMES,
    kpis=(
        Kpi("agreement_rate", -1, "answers that name what the picture shows", "agreed"),
        Kpi("review_load", 1, "answers too unsure to be used, which a person looks at", "reviewed"),
    ),
    acceptable_in_training={
        "metadata_leakage": "how well a field that came with a picture tells its label by itself",
    },
    stages=(
        Stage(
            "ingest",
            DAG,
            {RAW: (SOURCE,), LABELS: (SOURCE,)},
            tool="content-addressed bucket",
            work="ingestion.images.ingest:ingest",
            about="01: Land pictures and labels from a source into the raw bucket. Nothing there is ever overwritten.",
        ),
        Stage(
            "clean",
            DAG,
            {CLEAN: (RAW,)},
            tool="Pillow in a bounded process",
            work="ingestion.images.clean:clean",
            about="02: Decode, check and group every raw picture. What cannot be used is quarantined with a reason.",
        ),
        Stage(
            "features",
            DAG,
            dict.fromkeys(EMBEDDINGS.values(), (CLEAN, RAW)),
            tool="EfficientNet-lite0, ONNX",
            work="feature_repo.images.embed:embed",
            about="03: Embed each clean picture that has no embedding of this version yet.",
        ),
        Stage(
            "release",
            DAG,
            {RELEASES: RELEASED},
            tool="manifest",
            work="plumbline.pipeline.publish:publish",
            about="Publish what the run wrote and the gates passed, as one numbered release.",
        ),
        Stage("materialize", DAG, {ONLINE: (*EMBEDDINGS.values(), CLEAN)}, tool="Feast"),
        Stage("parity_check", DAG, also=(ONLINE, *EMBEDDINGS.values(), CLEAN, LOG), tool="online = offline"),
        Stage("lineage_check", DAG, tool="lineage completeness", of_release=True),
        Stage(
            "dataset",
            DAG,
            {DATASET: (*EMBEDDINGS.values(), LABELS, CLEAN)},
            also=(RAW,),
            tool="Feast, point in time; DVC",
            of_release=True,
        ),
        Stage(
            "leakage_check",
            DAG,
            also=(DATASET, *EMBEDDINGS.values(), LABELS, CLEAN, RAW),
            tool="leakage gates",
            of_release=True,
        ),
        Stage("train", DAG, {RUNS: (DATASET,)}, also=(CLEAN,), tool="scikit-learn, ONNX", of_release=True),
        Stage("register", DAG, {MODELS: (RUNS,)}, also=(DATASET, *EMBEDDINGS.values()), tool="MLflow", of_release=True),
        Stage(
            "deploy",
            DAG,
            {CHAMPION: (MODELS,)},
            also=(ONLINE, *EMBEDDINGS.values(), LOG),
            tool="KServe",
            of_release=True,
        ),
        Stage("serve", "image_serving", {ENDPOINT: (MODELS, CHAMPION, ONLINE), LOG: (MODELS, ONLINE)}),
        Stage("simulate_outcomes", "image_business", {OUTCOMES: (LOG, LABELS)}),
        Stage("leaky_twin", BY_HAND, {DATASET: (*EMBEDDINGS.values(), LABELS, CLEAN)}, also=(RAW,)),
        Stage("variant_train", BY_HAND, {RUNS: (DATASET,)}),
        Stage("variant_register", BY_HAND, {MODELS: (RUNS,)}),
        Stage("reproduce", BY_HAND, also=(RUNS, MODELS, *RELEASED, DATASET)),
        Stage("undo", BY_HAND, {RELEASES: RELEASED}),
    ),
)
