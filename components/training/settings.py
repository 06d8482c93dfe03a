"""Settings of the training step."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from refit.settings import Settings


class TrainSettings(Settings):
    """How the two towers are built and trained.

    Attributes:
        seed: Drives every random draw; two runs in one environment on CPU end bit-equal.
        batch_size: Examples a step; they share one item snapshot.
        uniform_negatives: Items drawn uniformly from the snapshot's live stock beside the items of
            the batch. Where the stock is no larger, all of it is ranked (an exact softmax).
        correct_sampling: Subtract the log of a negative's chance to be drawn (logQ) from its score.
        max_epochs, patience: Stop when validation recall has not risen for ``patience`` epochs.
        choose_epochs: Find the number of epochs on the validation examples first; False trains for
            ``max_epochs``, once: for a refit whose number is known, in half the time.
        learning_rate: Adam's, falling linearly to a tenth of it over ``max_epochs``.
        learned_size: Length of the learned part of the embeddings.
        content_size: Length C of the item content vector, which also stands for it in histories.
        hidden_size: Width of the hidden layers.
        temperature: Where the learned part's temperature starts; it is learned.
        id_embedding: Whether known items get a vector of their own on top of their content. Each
            step then costs time in proportion to their number.
        id_dropout: Share of items that must do without it at each training step.
        id_l2, gate_l2: Weight decay of the id vectors, and of the popularity gates' moves.
        gate_start: What a context value's own popularity gate starts at; 1 is naive Bayes.
        dropout: Share of the query tower's hidden units dropped in training.
        recency_half_life_days: An example this much older counts half.
        max_staleness_days: Train each example on item features up to this many days older than its
            own, drawn at random; for a model that will be served, or judged, on old ones. An
            example whose item came later is left out of that epoch.
        known_items_only: Leave out, as candidates and with their examples, the items that nobody
            had touched before their snapshot; for a catalogue that is judged on known items.
        recall_at: The K of validation recall@K.
        validation_examples: At most so many, drawn at random, measure it.
        final_fit: Train the exported model on train and validation, not on train alone.
        resume: Go on from the checkpoint folder; False starts clean.
        vocabulary_size: At most so many values of a string column, the most frequent ones.
        text_words, text_buckets: Words kept of a text, and the hash buckets they fall in.
        snapshot_cache_mb: Memory for item snapshots; more of them are read anew when needed.
    """

    seed: int = 0
    batch_size: PositiveInt = 512
    uniform_negatives: PositiveInt = 2048
    correct_sampling: bool = True
    max_epochs: PositiveInt = 10
    patience: PositiveInt = 2
    choose_epochs: bool = True
    learning_rate: PositiveFloat = 0.003
    learned_size: PositiveInt = 48
    content_size: PositiveInt = 32
    hidden_size: PositiveInt = 64
    temperature: PositiveFloat = 0.15
    id_embedding: bool = True
    id_dropout: float = Field(default=0.1, ge=0, le=1)
    id_l2: NonNegativeFloat = 0.006
    gate_l2: NonNegativeFloat = 0.0001
    gate_start: float = 1.0
    dropout: float = Field(default=0.1, ge=0, lt=1)
    recency_half_life_days: PositiveFloat = 180.0
    max_staleness_days: NonNegativeFloat = 0.0
    known_items_only: bool = False
    recall_at: PositiveInt = 100
    validation_examples: PositiveInt = 20_000
    final_fit: bool = True
    resume: bool = True
    vocabulary_size: PositiveInt = 10_000
    text_words: PositiveInt = 16
    text_buckets: PositiveInt = 8192
    snapshot_cache_mb: PositiveInt = 512
