"""What a run encodes: by which encoders, as their files are now, and what for the champion."""

import json
from collections import defaultdict
from typing import Any

from components.encoding.encoder import pin_encoders
from components.encoding.settings import EncoderSettings, EncodingSettings
from refit.encoding import ItemEncoding
from refit.errors import UsageError
from refit.features import FEATURES_FILE, FeaturesManifest
from refit.registry import Registry
from refit.settings import Settings

MOVABLE = ("path", "pictures", "roots", "changes_with", "batch_size", "device")
"""Settings of an encoder that shape no vector."""


class EncodingPlan(Settings):
    """What the encoding step does; its only input beside the items, and part of its cache key.

    Attributes:
        settings: The settings, with the checksum of each encoder.
        like: The encoding that has to come out; None: whatever the settings give.
        champion: The champion's encoding, whose vectors are made too where it is another one.
    """

    settings: EncodingSettings = EncodingSettings()
    like: ItemEncoding | None = None
    champion: ItemEncoding | None = None


def plan_run(
    settings: EncodingSettings, registry: str, champion: str, keeps_towers: bool = False
) -> EncodingPlan:
    """Plan the encoding of a run.

    Args:
        settings: The run's settings.
        registry: Folder or URL of the bundles.
        champion: Id of the champion; empty if there is none.
        keeps_towers: Whether the run keeps the champion's towers, and so its encoders.

    Raises:
        UsageError: An encoder cannot be loaded or has other files than it must have, or there is no
            such bundle.
        ServiceUnreachable: The URL of an encoder cannot be read.
    """
    theirs = read_encoding(registry, champion) if champion else None
    if keeps_towers:
        return EncodingPlan(settings=encoders_of(theirs, settings), like=theirs)
    return EncodingPlan(settings=pin_encoders(settings), champion=theirs)


def encoders_of(encoding: ItemEncoding | None, settings: EncodingSettings) -> EncodingSettings:
    """The settings with which vectors like those of an encoding are made; without one, none.

    Where ``settings`` have the same encoder for the same columns, its files are looked for where
    they say: it may have moved. Of several such encoders the order tells which is which. Threads
    and bounds are those of ``settings``.
    """
    if encoding is None:
        return settings.model_copy(update={"encoders": (), "keep": ()})
    now: dict[Any, list[EncoderSettings]] = defaultdict(list)
    for each in settings.encoders:
        now[each.encoder, each.columns].append(each)
    encoders = []
    for part in encoding.parts:
        if part.reads != "vector":
            recorded = EncoderSettings.parse(part.settings)
            same = now[recorded.encoder, recorded.columns]
            found = same.pop(0) if same else None
            moved = {name: getattr(found, name) for name in MOVABLE} if found else {}
            encoders.append(recorded.model_copy(update=moved))
    keep = tuple(part.encoder for part in encoding.parts if part.reads == "vector")
    update = {"encoders": tuple(encoders), "keep": keep, "column": encoding.column}
    return settings.model_copy(update=update)


def read_encoding(registry: str, bundle_id: str) -> ItemEncoding | None:
    """The encoding of a bundle, without downloading the bundle.

    Raises:
        UsageError: There is no such bundle.
    """
    text = Registry(registry).read_file(bundle_id, FEATURES_FILE)
    if text is None:
        raise UsageError(f"no bundle {bundle_id!r} in {registry}")
    return FeaturesManifest.parse(json.loads(text)).encoding
