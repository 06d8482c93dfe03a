"""The named changes of the simulated marketplace: what each does, and what should be seen of it."""

from dataclasses import dataclass

NULLABLE_COLUMNS = ("brand", "colour", "size", "condition", "title", "category_3")
"""Item columns that ``column_gone_null`` can take away; shoppers still see the truth."""


@dataclass(frozen=True)
class ChangeNote:
    """What a change does at strength 1 and where a monitor should see it.

    Attributes:
        does: What is different from its day on.
        moves: Readings that should move.
        keeps: What stays as it was.
        hurts: Whether a recommender trained before it falls behind the perfect one after it.
    """

    does: str
    moves: tuple[str, ...]
    keeps: str
    hurts: bool


CHANGES: dict[str, ChangeNote] = {
    "new_category_wave": ChangeNote(
        does="A category_1 never seen before ('outdoor', own brands, own region of style) takes "
        "half of the new listings and half of the visits.",
        moves=("listing embedding", "query embedding", "wanted_category", "category and brand mix"),
        keeps="Listings and taste in the old categories.",
        hurts=True,
    ),
    "taste_shift": ChangeNote(
        does="What is in fashion is drawn anew in every category, and the style that a shopper "
        "wants turns by 45 degrees, each group of categories its own way.",
        moves=("live quality", "query embedding, slowly, through the histories"),
        keeps="Listings, prices and what people search for: a change of concept, not of input.",
        hurts=True,
    ),
    "brand_craze": ChangeNote(
        does="Everybody wants one brand of middling popularity: its utility rises by 2.5, and its "
        "share of new listings is multiplied by 3 as sellers follow.",
        moves=("brand mix of listings and outcomes", "listing embedding"),
        keeps="Everything about the other brands but their share.",
        hurts=False,
    ),
    "price_inflation": ChangeNote(
        does="New listings cost twice as much; what shoppers are ready to pay stays, so sales fall "
        "whatever the recommender.",
        moves=("price", "price band mix", "sales"),
        keeps="Style, brands, categories, taste.",
        hurts=False,
    ),
    "new_sellers_flood": ChangeNote(
        does="New sellers bring 1.5 times the usual number of listings on top, worn, plain and "
        "unattractive, with vectors twice as noisy.",
        moves=("number of listings and sellers", "condition mix", "listing embedding"),
        keeps="What the old sellers list; taste.",
        hurts=True,
    ),
    "column_gone_null": ChangeNote(
        does="An upstream fault: one column of every new listing is null; strength is the share "
        "of listings hit. Shoppers still see the truth. A missing brand hardly hurts, as the "
        "vector tells its style; a missing size does.",
        moves=("null share of the column", "listing embedding where the towers use it"),
        keeps="All behaviour of shoppers and sellers.",
        hurts=False,
    ),
    "image_encoder_replaced": ChangeNote(
        does="An upstream fault: the vectors of new listings come from another encoder: the old "
        "vectors, rotated. Listings from before keep theirs.",
        moves=("listing embedding", "item vector", "query embedding, through the histories"),
        keeps="All behaviour of shoppers and sellers, and every other column.",
        hurts=True,
    ),
}
