"""Refit's own towers for the tiny marketplace, with default sizes; nobody trained them."""

import os
from pathlib import Path

import numpy as np

from refit.files import checksum, fingerprint, write_json
from tests.serving import tiny

HISTORY_LENGTH = 20
CITIES = ("Lund", "Paris", "Antwerp")


def make_model(folder: Path) -> tuple[Path, int]:
    """Write a model folder, and have ``tiny`` make its bundles for it; returns D too."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import tensorflow as tf

    from components.training.export import (
        export_item_tower,
        export_query_tower,
        item_signature,
        query_signature,
    )
    from components.training.in_process import export_in_process_tower
    from components.training.settings import TrainSettings
    from components.training.towers import ItemTower, QueryTower, check_embedding_size
    from components.training.vocabulary import Vocabulary

    tiny.SPEC = tiny.SPEC.model_copy(update={"history_length": HISTORY_LENGTH})
    features = tiny.FEATURES = tiny.FEATURES.model_copy(update={"spec": tiny.SPEC})
    settings = TrainSettings()
    values = features.popularity_values
    vocabulary = Vocabulary(
        values={
            "item_id": tuple(map(tiny.item_id, range(tiny.N_LIVE))),
            "item_brand": tiny.BRANDS,
            "item_category_1": ("dress",),
            "context_occasion": tiny.OCCASIONS,
            "user_city": CITIES,
        },
        scales={"item_price": (50.0, 25.0), "context_age": (35.0, 10.0)},
        shares={name: np.full(len(of), 1 / len(of), np.float32) for name, of in values.items()},
        n_examples=1,
    )
    item_tower = ItemTower(settings, features, vocabulary)
    query_tower = QueryTower(settings, features, vocabulary)
    for tower, signature in (
        (item_tower, item_signature(features)),
        (query_tower, query_signature(features.spec, settings.content_size)),
    ):
        # Keras makes the variables at the first call.
        tower({n: tf.zeros([1, *s.shape[1:]], s.dtype) for n, s in signature.items()})
    export_item_tower(item_tower, features, folder / "item_tower")
    base = folder / "query_tower"
    export_query_tower(query_tower, features, settings.content_size, base)
    export_in_process_tower(query_tower, features, settings.content_size, base)
    features.write(folder)
    version = fingerprint([checksum(base), checksum(folder / "item_tower")])
    write_json(folder / "model.json", {"embedding_version": version, "packages": {}})
    return folder, check_embedding_size(settings, features)
