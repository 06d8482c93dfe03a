"""Settings of the training step."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from refit.settings import Settings

Device = Literal["cpu", "gpu"]


class TrainSettings(Settings):
    """How the two towers are built and trained.

    Attributes:
        towers: ``learned``, or ``popularity`` for a baseline that is served as itself: the score is
            popularity in the context alone, naive Bayes with its gates held at their initial
            values; only its smoothing, half-lives and the effect of age are fitted.
        device: Where the towers are trained. ``gpu`` is an error where TensorFlow sees none;
            ``cpu`` leaves GPUs alone.
        seed: Seed of every random draw. Two runs in one environment are bit-identical on a CPU; on
            a GPU they are not.
        tower_pairs: Pairs of towers that are trained, each with a seed of its own, and exported
            side by side as one whose scores are the mean of theirs. Training takes as many times
            as long, and embeddings and content vectors have as many learned parts. A study of
            settings trains one.
        batch_size: Examples per step; they share one item snapshot.
        uniform_negatives: Items sampled uniformly from the snapshot's live items, in addition to
            the positives of the batch. If no more items are live, all are candidates (an exact
            softmax).
        correct_sampling: Subtract the log of a negative's sampling probability (logQ) from its
            score.
        max_epochs, patience: Stop when validation recall has not risen for ``patience`` epochs.
        choose_epochs: First choose the number of epochs on the validation examples. False trains
            once, for ``max_epochs``: half the time for a refit whose number of epochs is known.
        learning_rate: Of Adam; decays linearly to a tenth over ``max_epochs``.
        warm_up_steps: Steps over which it rises to that, from near 0.
        learned_size: Length of the learned part of the embeddings.
        content_size: Length C of an item's content vector, which also represents it in histories.
        hidden_size: Width of the hidden layers.
        similarity: ``cosine`` scores with the towers' unit vectors. ``dot`` scores with the content
            vectors of items as they are, as sequence models do, which fits data better that have
            neither popularity nor ages; it needs ``temperature`` 1, and ``learned_size`` equal to
            ``content_size``.
        temperature: Initial temperature of the learned part; with ``cosine`` it is trained.
        learn_temperature: Train the temperature, with ``cosine``. False keeps it as it is set: a
            learned one may fit the training data too well.
        popularity: Whether the embeddings have a part of popularity and age beside the learned one.
            False where the times of the events mean nothing.
        history: How the query tower reads a history. ``pooled``: attention by content, event type
            and age, which knows no order. ``sequence``: a transformer over the events in their
            order beside it.
        sequence_layers, sequence_heads: Blocks of the transformer, and attention heads of each; the
            heads divide ``content_size``.
        repeats: Whether each event of a history adds to the score of its own item, by its type, age
            and the number of events: what somebody saw may be found again, or ranked behind.
        history_masked: Share of the events of a history whose item is hidden in training, drawn at
            random.
        id_embedding: Whether known items get an id embedding in addition to their content:
            ``always``, ``never``, or ``auto``, where at least half of the latest tenth of the
            training examples are of items with ten earlier ones.
        spectral_size: Length of a part of the embeddings that is not trained: spectral vectors of
            the items that users have in common, in closed form from the training examples, beside
            the learned ones in one dot product. It knows whom and what it has seen, often; an item
            that it has not seen has zeros. Content vectors become as much longer. 0 for none.
            A length needs ``id_embedding: always``. ``auto`` tries it where items have ids, with up
            to 512 numbers, fewer where many items are live, and keeps it if that surely raises
            validation recall; with ``choose_epochs`` false there is none. A study of settings
            trains without it.
        spectral_weights: How much the scores of that part may count against the learned ones: by
            how many times as much they vary over the items, for each query. The one with the best
            validation recall is taken; a single one is set.
        id_dropout: Share of items whose id embedding is dropped at each training step.
        id_l2, gate_l2: L2 penalties of the id embeddings, and of the popularity gates' distance
            from their initial values.
        gate_init: Initial value of a context value's own popularity gate; 1 is naive Bayes.
        weight_decay: Share of every weight, times the learning rate, that each step takes off
            (AdamW).
        weight_averaging: Momentum of an exponential average of the weights over the steps, which
            is what is validated and exported: with .99, of some hundred steps. 0 takes the weights
            as they are after the last step.
        dropout: Share of the query tower's hidden units dropped in training, those of the
            transformer among them.
        recency_half_life_days: Age at which an example's weight is halved.
        max_staleness_days: Train each example on item features up to this many days older than its
            own, drawn at random, for a model that is served or evaluated on old features. In an
            epoch, examples whose item was listed later are left out.
        with_history_only: Leave out training examples of people without a history. What is said
            to such people is then not trained.
        known_items_only: Leave out items without an event before the snapshot, as candidates and
            with their examples, for a catalogue that is evaluated on known items.
        recall_at: The K of validation recall@K.
        validation_examples: Validation examples that it is measured on, at most, drawn at random.
        final_fit: Train the exported model on train and validation, not on train alone.
        resume: Resume from the checkpoint folder; False removes its checkpoints.
        vocabulary_size: At most this many values of a string column, the most frequent ones.
        text_words, text_buckets: Words used of a text, and the number of their hash buckets.
        text_size: Length of the vector of a word.
        in_process_tower: Export the query tower for the process that answers too, and check that it
            gives the same vectors there; see ``query_tower`` of the recommender.
        snapshot_cache_mb: Memory of the cache of item snapshots. If it has not room for all, an
            epoch takes them in random groups for which it has.
    """

    towers: Literal["learned", "popularity"] = "learned"
    device: Device = "cpu"
    seed: int = 0
    tower_pairs: PositiveInt = 1
    batch_size: PositiveInt = 2048
    uniform_negatives: PositiveInt = 512
    correct_sampling: bool = True
    max_epochs: PositiveInt = 10
    patience: PositiveInt = 2
    choose_epochs: bool = True
    learning_rate: PositiveFloat = 0.006
    warm_up_steps: NonNegativeInt = 0
    learned_size: PositiveInt = 48
    content_size: PositiveInt = 32
    hidden_size: PositiveInt = 64
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.15
    learn_temperature: bool = True
    popularity: bool = True
    history: Literal["pooled", "sequence"] = "pooled"
    sequence_layers: PositiveInt = 1
    sequence_heads: PositiveInt = 2
    repeats: bool = True
    history_masked: float = Field(default=0.0, ge=0, lt=1)
    id_embedding: Literal["auto", "always", "never"] = "auto"
    spectral_size: Annotated[int, Field(ge=0, le=4096)] | Literal["auto"] = "auto"
    spectral_weights: tuple[PositiveFloat, ...] = Field((0.1, 0.3, 1.0, 3.0), min_length=1)
    id_dropout: float = Field(default=0.1, ge=0, le=1)
    id_l2: NonNegativeFloat = 0.006
    gate_l2: NonNegativeFloat = 0.0001
    gate_init: float = 1.0
    weight_decay: NonNegativeFloat = 0.0
    weight_averaging: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    recency_half_life_days: PositiveFloat = 180.0
    max_staleness_days: NonNegativeFloat = 0.0
    with_history_only: bool = False
    known_items_only: bool = False
    recall_at: PositiveInt = 100
    validation_examples: PositiveInt = 20_000
    final_fit: bool = True
    resume: bool = True
    vocabulary_size: PositiveInt = 10_000
    text_words: PositiveInt = 16
    text_buckets: PositiveInt = 8192
    text_size: PositiveInt = 32
    in_process_tower: bool = True
    snapshot_cache_mb: PositiveInt = 512

    @model_validator(mode="after")
    def _check_spectral(self) -> Self:
        if self.spectral_size in (0, "auto"):
            return self
        if self.id_embedding != "always":
            raise ValueError(
                f"spectral_size is {self.spectral_size} and id_embedding {self.id_embedding}: "
                "spectral vectors are found by the item's id, so set id_embedding to always"
            )
        if self.towers == "popularity":
            raise ValueError("towers: popularity learns no vectors; set spectral_size to 0")
        if not self.choose_epochs and len(self.spectral_weights) > 1:
            raise ValueError(
                "choose_epochs is false, so that nothing is validated: set spectral_weights to one"
            )
        return self

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.towers == "popularity" and not self.popularity:
            raise ValueError("popularity is false, so that towers: popularity would know nothing")
        if self.towers == "popularity" and self.tower_pairs > 1:
            raise ValueError(
                "towers: popularity learns nothing that a seed would change; leave tower_pairs 1"
            )
        if self.history == "sequence" and self.content_size % self.sequence_heads:
            raise ValueError(
                f"sequence_heads is {self.sequence_heads}, which does not divide content_size, "
                f"{self.content_size}"
            )
        if self.similarity == "dot" and self.learned_size != self.content_size:
            raise ValueError(
                f"learned_size is {self.learned_size} and content_size {self.content_size}: with "
                "similarity: dot the content vectors are what is scored, so set both to the same"
            )
        return self
