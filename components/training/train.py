"""The training step: from a features folder to a model folder with two SavedModels."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from components.training.settings import TrainSettings
from refit.errors import DataValidationError, RefitError
from refit.features import FeaturesManifest
from refit.files import checksum, fingerprint, remove, write_atomically
from refit.model import (
    CURVE_FILE,
    ITEM_TOWER,
    MODEL_FILE,
    QUERY_TOWER,
    Epoch,
    ModelManifest,
    TowerPair,
    best_epoch,
)
from refit.progress import Meter, log_message, timed

if TYPE_CHECKING:
    from components.training.batches import Batch, Batches, EncodedExamples
    from components.training.checkpoint import Checkpoint
    from components.training.encoders import Tensors
    from components.training.model import TwoTowerModel
    from components.training.pairs import JoinedTowers
    from components.training.recall import RecallMeter
    from components.training.spectral import SpectralTowers
    from components.training.vocabulary import Vocabulary

AfterEpoch = Callable[[Sequence[Epoch], bool], bool]
"""Gets all epochs so far, and whether the latest was trained just now, not by an earlier process;
false ends the training."""
PACKAGES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy")
FINAL_RATE = 0.1


def train(
    settings: TrainSettings, features: Path, out: Path, checkpoint: Path | None = None
) -> ModelManifest:
    """Train the two towers and write the model folder, atomically.

    The number of epochs is chosen by recall on the validation examples, or set. Several pairs of
    towers are trained one after the other and exported as one. With ``final_fit`` the exported
    model is trained on train and validation. Test examples are never read.

    Args:
        settings: How to train.
        features: A features folder.
        out: The model folder; an existing model is replaced.
        checkpoint: Folder in which each training keeps its checkpoints under its own key, and
            resumes from them after it was killed. None keeps no checkpoints.

    Raises:
        UsageError: TensorFlow uses Keras 3 or sees no GPU where one is to be used, or settings and
            feature spec do not match.
        DataValidationError: There are no training or no validation examples.
        RefitError: ``out`` has other files than a model, or the loss became NaN.
    """
    from components.training.recommenders import require_legacy_keras

    require_legacy_keras()
    if out.exists() and any(out.iterdir()) and not (out / MODEL_FILE).is_file():
        raise RefitError(f"{out} has other files than a model; use another folder")
    from components.training.device import use_device

    use_device(settings.device)
    manifest = FeaturesManifest.read(features)
    out.parent.mkdir(parents=True, exist_ok=True)
    from components.training.checkpoint import checkpoints_of

    key = checkpoint_key(settings, manifest, features)
    with (
        TemporaryDirectory(dir=out.parent, prefix=".examples-") as spill,
        checkpoints_of(key, checkpoint) as kept,
    ):
        run = _Run(settings, manifest, features, Path(spill), kept, key)
        trained = _fit(run)
        with write_atomically(out) as folder:
            folder.mkdir()
            with timed("export"):
                written = _write_model(folder, run, trained)
            remove(out)
    return written


def measure_epochs(
    settings: TrainSettings,
    features: Path,
    scratch: Path,
    after_epoch: AfterEpoch,
    checkpoint: Path | None = None,
) -> tuple[Epoch, ...]:
    """Train on the train split, measure every epoch on the validation split, and export nothing.

    With ``choose_epochs`` false, all ``max_epochs`` are trained. Of several pairs of towers one is.
    Test examples are never read.

    Args:
        settings: How to train.
        features: A features folder.
        scratch: Folder for encoded examples, which are removed at the end.
        after_epoch: Called after every epoch, and once for those of a killed process.
        checkpoint: As of ``train``.

    Raises:
        UsageError, DataValidationError, RefitError: As of ``train``.
    """
    from components.training.recommenders import require_legacy_keras

    require_legacy_keras()
    import tensorflow as tf

    from components.training.checkpoint import checkpoints_of
    from components.training.device import use_device

    use_device(settings.device)
    tf.keras.backend.clear_session()  # a process may measure many settings
    if not settings.choose_epochs:
        settings = settings.model_copy(update={"patience": settings.max_epochs})
    manifest = FeaturesManifest.read(features)
    key = checkpoint_key(settings, manifest, features)
    with (
        TemporaryDirectory(dir=scratch, prefix=".examples-") as spill,
        checkpoints_of(key, checkpoint) as kept,
    ):
        run = _Run(settings, manifest, features, Path(spill), kept, key)
        return run.fit("search", ("train",), validate=True, after_epoch=after_epoch).epochs


def checkpoint_key(settings: TrainSettings, manifest: FeaturesManifest, features: Path) -> str:
    """Fingerprint of everything that determines a training; what follows it does not."""
    return fingerprint(
        {
            "settings": settings.model_dump(mode="json", exclude={"resume", "in_process_tower"}),
            "features": manifest.model_dump(mode="json"),
            "examples": checksum(features / "examples"),
        }
    )


@dataclass(frozen=True)
class _Data:
    """What the fits of all pairs have in common.

    Attributes:
        vocabulary: Of the training examples.
        examples: The training examples.
        held_out: The validation examples; None if they are trained on.
        catalogue: The items.
    """

    vocabulary: "Vocabulary"
    examples: "EncodedExamples"
    held_out: "EncodedExamples | None"
    catalogue: "Tensors"


@dataclass(frozen=True)
class _Fit:
    """A trained pair of towers, and the data and epochs that it was trained with."""

    model: "TwoTowerModel"
    epochs: tuple[Epoch, ...]
    data: _Data

    @property
    def chosen(self) -> int:
        """Number of the epoch with the best validation recall; without validation, the last."""
        return len(self.epochs) if self.data.held_out is None else best_epoch(self.epochs)

    @property
    def recall(self) -> float | None:
        """Validation recall of the chosen epoch."""
        return self.epochs[self.chosen - 1].recall


@dataclass(frozen=True)
class _Trained:
    """What is exported.

    Attributes:
        model: One pair of towers, or several that were joined, with a spectral part or without.
        pairs: How each pair was trained; the first one's epochs are those of the model.
        joined_recall: Validation recall of several pairs together, if it was measured.
        examples: What the exported weights were trained on.
        spectral_weight, spectral_recall: See ``ModelManifest``.
    """

    model: "TwoTowerModel | JoinedTowers | SpectralTowers"
    pairs: tuple[TowerPair, ...]
    joined_recall: float | None
    examples: "EncodedExamples"
    spectral_weight: float | None = None
    spectral_recall: float | None = None


class _Run:
    """State shared by the fits of one training."""

    def __init__(
        self,
        settings: TrainSettings,
        manifest: FeaturesManifest,
        features: Path,
        spill: Path,
        checkpoint: Path | None,
        key: str,
    ) -> None:
        from components.training.snapshots import Snapshots
        from components.training.towers import check_embedding_size
        from components.training.vocabulary import check_popularity_columns
        from refit.feature_tables import read_contents

        check_popularity_columns(manifest)
        self._embedding_size = check_embedding_size(settings, manifest)
        self.settings, self.manifest = settings, manifest
        self._features, self._spill, self._checkpoint = features, spill, checkpoint
        self._contents = read_contents(features)
        self._snapshots = Snapshots(
            manifest,
            features,
            settings.snapshot_cache_mb,
            settings.known_items_only,
            spill / "snapshots",
        )
        self._key = key

    def fit(
        self,
        name: str,
        splits: Sequence[str],
        validate: bool = False,
        keeps_best: bool = False,
        epochs: int | None = None,
        after_epoch: AfterEpoch | None = None,
        earlier: Sequence[_Fit] = (),
    ) -> _Fit:
        """Train a pair of towers on the examples of ``splits``, or go on from its checkpoint.

        Args:
            name: Of the fit.
            splits: Where the training examples are.
            validate: Measure recall on the validation examples after every epoch.
            keeps_best: Let the model have the weights of the best epoch, not of the last one.
            epochs: How many, at most; None for ``max_epochs``.
            after_epoch: See ``measure_epochs``.
            earlier: The pairs before this one, of the same fit.
        """
        from components.training.batches import Batches
        from components.training.checkpoint import Checkpoint
        from components.training.pairs import seed_of_pair

        if earlier:
            name = f"{name}-{len(earlier) + 1}"
        seed = seed_of_pair(self.settings.seed, len(earlier))
        settings = self.settings.model_copy(update={"seed": seed})
        with timed(f"{name}: towers built" if earlier else f"{name}: examples read and encoded"):
            model, data = self._build(name, splits, validate, seed, earlier)
            meter = self._meter(model, data)
        n_examples = len(data.examples)
        log_message(f"{name}: {n_examples:,} examples, {self._snapshots.versions.n_items:,} items")
        fit_checkpoint = Checkpoint(
            self._checkpoint, name, f"{self._key} {epochs}", settings.resume, keeps_best
        )
        epochs_done = _loop(
            name,
            settings,
            model,
            Batches(settings, data.examples, self._snapshots),
            data.catalogue,
            n_examples,
            epochs or settings.max_epochs,
            meter,
            fit_checkpoint,
            after_epoch,
        )
        if keeps_best:
            fit_checkpoint.restore_best(model, epochs_done)
        return _Fit(model, tuple(epochs_done), data)

    def measure_joined(self, fits: Sequence[_Fit]) -> float | None:
        """Validation recall of several pairs together; None if there are no validation examples."""
        k = self.settings.recall_at
        meter = self._meter(self.join(fits), fits[0].data)
        if meter is None:
            return None
        with timed("all pairs measured together"):
            recall = meter.recall_at(k)
        alone = ", ".join(f"{fit.recall or 0.0:.4f}" for fit in fits)
        log_message(
            f"{len(fits)} pairs together: validation recall@{k} {recall:.4f}; alone {alone}"
        )
        return recall

    def describe(self, fits: Sequence[_Fit]) -> tuple[TowerPair, ...]:
        """How each pair was trained."""
        from components.training.pairs import seed_of_pair

        return tuple(
            TowerPair(
                seed=seed_of_pair(self.settings.seed, number),
                epochs=fit.epochs,
                chosen_epoch=fit.chosen,
                recall=fit.recall,
            )
            for number, fit in enumerate(fits)
        )

    def join(self, fits: Sequence[_Fit]) -> "TwoTowerModel | JoinedTowers":
        """The pairs as one."""
        from components.training.pairs import JoinedTowers

        models = [fit.model for fit in fits]
        return models[0] if len(models) == 1 else JoinedTowers(models, self.settings.learned_size)

    def add_spectral(
        self, model: "TwoTowerModel | JoinedTowers", data: _Data, split: str
    ) -> "SpectralTowers":
        """The towers with a spectral part of the examples that they were trained on.

        Args:
            model: The towers.
            data: What they were trained on.
            split: The latest one of that.
        """
        import numpy as np
        import tensorflow as tf

        from components.training.spectral import SpectralTowers, find_spectral_vectors

        size, n_items = self.spectral_size, self._snapshots.versions.n_items
        with timed(f"spectral vectors of length {size} found"):
            users, items = data.examples.user, data.examples.item
            vectors, degree = find_spectral_vectors(users, items, n_items, size)
        # By the code of an id instead of the number of an item; unknown ones share the code 0.
        codes = data.catalogue["id"].numpy()[:n_items]
        known = np.flatnonzero(codes)
        n_codes = len(data.vocabulary.values["item_id"]) + 1
        table = np.zeros((n_codes, size), np.float32)
        degrees = np.zeros(n_codes, np.float32)
        table[codes[known]], degrees[codes[known]] = vectors[known], degree[known]
        snapshot = self._snapshots[self._latest_snapshot(split)]
        rows = snapshot.content_rows(snapshot.item)
        live = {name: tf.gather(values, rows) for name, values in data.catalogue.items()}
        return SpectralTowers(model, table, degrees, live, snapshot.age_days, snapshot.popularity)

    def choose_weight(
        self, model: "SpectralTowers", alone: "TwoTowerModel | JoinedTowers", data: _Data
    ) -> tuple[float | None, float]:
        """The weight of the spectral part with the best validation recall, and that recall.

        It is set, too. Of several equally good weights the first is taken. With ``auto`` the weight
        is None if the towers alone find about as much.
        """
        from components.training.spectral import is_surely_better

        settings, k = self.settings, self.settings.recall_at
        meter, own_meter = self._meter(model, data), self._meter(alone, data)
        if meter is None or own_meter is None:
            raise ValueError("a weight is chosen on validation examples, and there are none")
        found = {}
        for weight in settings.spectral_weights:
            model.set_weight(weight)
            found[weight] = meter.ranks() < k
            shown = f"validation recall@{k} {found[weight].mean():.4f}"
            log_message(f"spectral weight {weight:g}: {shown}")
        best = max(found, key=lambda weight: found[weight].sum())
        model.set_weight(best)
        hits, recall = found[best], float(found[best].mean())
        if settings.spectral_size != "auto":
            return best, recall
        own = own_meter.ranks() < k
        kept = is_surely_better(hits, own, meter.users)
        log_message(
            f"spectral vectors {'kept' if kept else 'left out'}: validation recall@{k} "
            f"{recall:.4f} with them, {own.mean():.4f} without"
        )
        return best if kept else None, recall

    def export_in_process_tower(
        self,
        model: "TwoTowerModel | JoinedTowers | SpectralTowers",
        content_size: int,
        base: Path,
    ) -> None:
        """Export the query tower for the process that answers, and check it on real queries.

        Raises:
            RefitError: It cannot be run there, or gives other vectors.
        """
        from components.training import in_process

        manifest, size = self.manifest, content_size
        with timed("query tower exported to run in process"):
            in_process.export_in_process_tower(model.query_tower, manifest, size, base)
            inputs = in_process.sample_query_inputs(
                manifest, self._features, self._contents, model.item_tower
            )
            gap = in_process.check_in_process_tower(base, inputs)
        log_message(f"in process, the query tower's outputs differ by {gap:.1e} at most")

    def _build(
        self, name: str, splits: Sequence[str], validate: bool, seed: int, earlier: Sequence[_Fit]
    ) -> tuple["TwoTowerModel", _Data]:
        """A new pair of towers, and its data."""
        import tensorflow as tf

        from components.training.model import TwoTowerModel
        from components.training.pairs import share_parts

        vocabulary = earlier[0].data.vocabulary if earlier else self._learn_vocabulary(splits)
        tf.keras.utils.set_random_seed(seed)
        model = TwoTowerModel(self.settings, self.manifest, vocabulary)
        if earlier:
            share_parts(model, earlier[0].model)
            return model, earlier[0].data
        return model, self._encode(name, model, vocabulary, splits, validate)

    def _learn_vocabulary(self, splits: Sequence[str]) -> "Vocabulary":
        from components.training.vocabulary import learn_vocabulary

        latest = self._latest_snapshot(splits[-1])
        return learn_vocabulary(
            self.manifest,
            self._features,
            self._contents,
            splits,
            self._snapshots[latest].popularity,
            self.settings.vocabulary_size,
            self._wants_ids,
        )

    def _encode(
        self,
        name: str,
        model: "TwoTowerModel",
        vocabulary: "Vocabulary",
        splits: Sequence[str],
        validate: bool,
    ) -> _Data:
        import tensorflow as tf

        from components.training.batches import encode_catalogue, write_examples

        manifest, encoder = self.manifest, model.query_tower.encode
        examples = write_examples(encoder, manifest, self._features, splits, self._spill / name)
        encoded = encode_catalogue(model.item_tower.encode, manifest, self._contents)
        catalogue = {name: tf.constant(values) for name, values in encoded.items()}
        del encoded
        held_out = None
        if validate:
            folder = self._spill / f"{name}-held-out"
            held_out = write_examples(encoder, manifest, self._features, ("validation",), folder)
        return _Data(vocabulary, examples, held_out, catalogue)

    def _meter(
        self, model: "TwoTowerModel | JoinedTowers | SpectralTowers", data: _Data
    ) -> "RecallMeter | None":
        if data.held_out is None:
            return None
        from components.training.recall import RecallMeter

        return RecallMeter(
            model,
            data.held_out,
            self._snapshots,
            data.catalogue,
            self.settings.validation_examples,
            self.settings.seed,
            self.manifest.market.hides_bought,
        )

    @cached_property
    def spectral_size(self) -> int:
        """Length of the spectral part that is tried, 0 for none; the same in both fits."""
        from components.training.spectral import choose_size

        settings = self.settings
        if settings.spectral_size != "auto":
            return settings.spectral_size
        if settings.towers == "popularity" or not self._wants_ids:
            return 0
        if not settings.choose_epochs:
            log_message(
                "no spectral vectors: choose_epochs is false, so that nothing says whether they "
                "help; set spectral_size and one of spectral_weights for them"
            )
            return 0
        live = self._snapshots[self._latest_snapshot("train")].item
        return choose_size(len(live), self._snapshots.versions.n_items)

    def size_of(self, trained: _Trained) -> tuple[int, int, int]:
        """Length of the embeddings, of their learned part, and of content vectors."""
        from components.training.spectral import added_to_content

        settings, pairs = self.settings, self.settings.tower_pairs
        spectral = 0 if trained.spectral_weight is None else self.spectral_size
        content = pairs * settings.content_size + added_to_content(spectral)
        learned = pairs * settings.learned_size + spectral
        return self._embedding_size + spectral, learned, content

    @cached_property
    def _wants_ids(self) -> bool:
        """Whether items get ids, by the settings or by how many recur; the same in both fits."""
        if self.settings.id_embedding != "auto":
            return self.settings.id_embedding == "always"
        from components.training.vocabulary import (
            EXAMPLES_TO_RECUR,
            RECURRING_SHARE,
            measure_recurrence,
        )

        share = measure_recurrence(self._features, ("train",))
        wanted = share >= RECURRING_SHARE
        log_message(
            f"{share:.0%} of the latest examples are of items with {EXAMPLES_TO_RECUR} or more "
            f"earlier ones: items have {'an' if wanted else 'no'} id embedding"
        )
        return wanted

    def _latest_snapshot(self, split: str) -> int:
        """The newest snapshot of the examples of ``split``; it counts events before them only."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from refit.feature_tables import examples_file

        for name in (split, "train", "validation"):
            if not pq.read_metadata(self._features / examples_file(name)).num_rows:
                raise DataValidationError(
                    f"there are no {name} examples; widen the window or move the split"
                )
        own = pq.read_table(self._features / examples_file(split), columns=["snapshot"])
        return int(pc.max(own["snapshot"]).as_py())


def _fit(run: _Run) -> _Trained:
    """Choose the number of epochs of each pair, unless it is set, and train that long."""
    settings = run.settings
    splits = ("train", "validation") if settings.final_fit else ("train",)
    if not settings.choose_epochs:
        fits = _fit_each(run, splits, [settings.max_epochs] * settings.tower_pairs)
        trained = _Trained(run.join(fits), run.describe(fits), None, fits[0].data.examples)
        return _add_spectral(run, trained, fits, splits, settings.spectral_weights[0])
    fits, keeps_best = [], not settings.final_fit or settings.tower_pairs > 1
    keeps_best = keeps_best or bool(run.spectral_size)
    for _ in range(settings.tower_pairs):
        fits.append(
            run.fit("search", ("train",), validate=True, keeps_best=keeps_best, earlier=fits)
        )
        log_message(f"chosen: {fits[-1].chosen} epochs")
    pairs = run.describe(fits)
    joined_recall = run.measure_joined(fits) if len(fits) > 1 else None
    found = _Trained(run.join(fits), pairs, joined_recall, fits[0].data.examples)
    found = _add_spectral(run, found, fits, ("train",))
    if not settings.final_fit:
        return found
    weight, recall = found.spectral_weight, found.spectral_recall
    del found
    fits.clear()  # their memory is needed
    fits = _fit_each(run, splits, [pair.chosen_epoch for pair in pairs])
    final = _Trained(
        run.join(fits), pairs, joined_recall, fits[0].data.examples, spectral_recall=recall
    )
    return final if weight is None else _add_spectral(run, final, fits, splits, weight)


def _add_spectral(
    run: _Run,
    trained: _Trained,
    fits: Sequence[_Fit],
    splits: Sequence[str],
    weight: float | None = None,
) -> _Trained:
    """What was trained with a spectral part, if there is to be one.

    Args:
        run: The run.
        trained: Without it.
        fits: The pairs of towers of it.
        splits: What they were trained on.
        weight: Of the part; None chooses it on the validation examples.
    """
    if not run.spectral_size:
        return trained
    data, alone = fits[0].data, run.join(fits)
    model = run.add_spectral(alone, data, splits[-1])
    if weight is not None:
        model.set_weight(weight)
        return replace(trained, model=model, spectral_weight=weight)
    weight, recall = run.choose_weight(model, alone, data)
    if weight is None:
        return replace(trained, spectral_recall=recall)
    return replace(trained, model=model, spectral_weight=weight, spectral_recall=recall)


def _fit_each(run: _Run, splits: Sequence[str], epochs: Sequence[int]) -> list[_Fit]:
    """Train each pair for its number of epochs."""
    fits: list[_Fit] = []
    for n_epochs in epochs:
        fits.append(run.fit("final", splits, epochs=n_epochs, earlier=fits))
    return fits


def find_rate(settings: TrainSettings, epoch: int, steps: int | None = None) -> float:
    """The learning rate of an epoch, from 1, after so many steps; None: of one that is warm."""
    rate = settings.learning_rate * (1 - (1 - FINAL_RATE) * (epoch - 1) / settings.max_epochs)
    if steps is None or steps >= settings.warm_up_steps:
        return rate
    return rate * (steps + 1) / settings.warm_up_steps


def _loop(
    name: str,
    settings: TrainSettings,
    model: "TwoTowerModel",
    batches: "Batches",
    catalogue: "Tensors",
    n_examples: int,
    n_epochs: int,
    meter: "RecallMeter | None",
    checkpoint: "Checkpoint",
    after_epoch: AfterEpoch | None = None,
) -> list[Epoch]:
    from components.training.ahead import build_ahead
    from components.training.batches import to_tensors
    from components.training.optimizer import FusedAdam

    model.compile(FusedAdam(settings.learning_rate, settings.weight_decay))
    step = _Step(model, batches, catalogue)
    epochs = checkpoint.restore(model)
    progress = Meter(
        name,
        n_examples * n_epochs,
        "examples",
        done=n_examples * len(epochs),
        at_most=meter is not None,
        logs=True,
    )
    goes_on = not epochs or after_epoch is None or after_epoch(epochs, False)
    while (
        goes_on
        and len(epochs) < n_epochs
        and not _stopped(epochs, settings.patience, meter is not None)
    ):
        number = len(epochs) + 1
        model.optimizer.learning_rate.assign(find_rate(settings, number))
        started = time.monotonic()
        count = 0
        model.start_epoch()
        for batch in build_ahead(map(to_tensors, batches.of_epoch(number))):
            if settings.warm_up_steps:
                steps = int(model.optimizer.iterations)
                model.optimizer.learning_rate.assign(find_rate(settings, number, steps))
            step(batch)
            count += len(batch["label"])
            progress.advance(len(batch["label"]))
        model.finish_epoch()
        total = step.take_loss()
        seconds = time.monotonic() - started
        loss = total / count if count else float("nan")
        if loss != loss:
            raise RefitError(
                f"the training loss of epoch {number} is not a number; lower learning_rate, "
                "and check the features for infinite values"
            )
        recall = meter.recall_at(settings.recall_at) if meter else None
        epochs.append(
            Epoch(number=number, loss=loss, recall=recall, seconds=seconds, examples=count)
        )
        checkpoint.save(model, epochs)
        measured = {} if recall is None else {f"validation recall@{settings.recall_at}": recall}
        progress.measure(loss=loss, **measured)
        logged = "".join(f", {metric} {value:.4f}" for metric, value in measured.items())
        log_message(
            f"{name}: epoch {number}/{n_epochs}, loss {loss:.4f}{logged}, "
            f"{count / seconds:,.0f} examples/s"
        )
        goes_on = after_epoch is None or after_epoch(epochs, True)
    progress.finish()
    return epochs


class _Step:
    """One step of training, traced once; its losses are added up where it runs.

    Args:
        model: Compiled; its variables are built here.
        batches: Give the shapes.
        catalogue: The encoded items, which the step reads by row.
    """

    def __init__(self, model: "TwoTowerModel", batches: "Batches", catalogue: "Tensors") -> None:
        import tensorflow as tf

        from components.training.batches import read_items

        # Once all variables exist, TensorFlow traces a step once instead of twice.
        model.compute_loss(read_items(batches.first, catalogue), training=True)
        model.optimizer.build(model.trainable_variables)
        model.build_averages()
        self._total = tf.Variable(0.0, dtype=tf.float64)

        def train_step(batch: "Tensors") -> None:
            loss = model.train_step(read_items(batch, catalogue))["loss"]
            n = tf.shape(batch["label"], tf.int64)[0]
            self._total.assign_add(tf.cast(loss, tf.float64) * tf.cast(n, tf.float64))

        signature = batches.signature()
        self._run = tf.function(train_step, input_signature=[signature], autograph=False)

    def __call__(self, batch: "Batch") -> None:
        """Train on one batch."""
        self._run(batch)

    def take_loss(self) -> float:
        """The sum of the examples' losses since it was last taken."""
        total = float(self._total)
        self._total.assign(0.0)
        return total


def _stopped(epochs: Sequence[Epoch], patience: int, validated: bool) -> bool:
    """Whether recall has not risen for ``patience`` epochs."""
    if not validated or len(epochs) <= patience:
        return False
    recalls = [epoch.recall or 0.0 for epoch in epochs]
    return max(recalls[-patience:]) <= max(recalls[:-patience])


def _write_model(folder: Path, run: _Run, trained: _Trained) -> ModelManifest:
    from components.training.curve import draw_curve
    from components.training.export import export_item_tower, export_query_tower

    settings, manifest = run.settings, run.manifest
    model, pairs = trained.model, trained.pairs
    embedding_size, learned_size, content_size = run.size_of(trained)
    export_item_tower(model.item_tower, manifest, folder / ITEM_TOWER)
    export_query_tower(model.query_tower, manifest, content_size, folder / QUERY_TOWER)
    if settings.in_process_tower:
        run.export_in_process_tower(model, content_size, folder / QUERY_TOWER)
    draw_curve(pairs, trained.joined_recall, settings.recall_at, folder / CURVE_FILE)
    manifest.write(folder)
    first, last = trained.examples.times()
    written = ModelManifest(
        embedding_version=fingerprint(
            [checksum(folder / tower) for tower in (QUERY_TOWER, ITEM_TOWER)]
        ),
        embedding_size=embedding_size,
        content_size=content_size,
        learned_size=learned_size,
        settings=settings.model_dump(mode="json"),
        packages={name: version(name) for name in PACKAGES},
        trained_from=first,
        trained_until=last + timedelta(microseconds=1),
        train_examples=len(trained.examples),
        recall_at=settings.recall_at,
        epochs=pairs[0].epochs,
        chosen_epoch=pairs[0].chosen_epoch,
        final_fit=settings.final_fit,
        dataset_fingerprint=manifest.dataset_fingerprint,
        kind="baseline" if settings.towers == "popularity" else "model",
        pairs=pairs if len(pairs) > 1 else (),
        joined_recall=trained.joined_recall,
        spectral_weight=trained.spectral_weight,
        spectral_recall=trained.spectral_recall,
    )
    written.write(folder)
    return written
