"""The named changes of the simulated marketplace, and which drift results each should change."""

from dataclasses import dataclass

NULLABLE_COLUMNS = ("brand", "colour", "size", "condition", "title", "category_3")
"""Item columns that ``column_gone_null`` can set to null; shoppers still see the values."""


@dataclass(frozen=True)
class ChangeNote:
    """The effect of a change at strength 1, and where monitoring should detect it.

    Attributes:
        does: The effect, from the change's day on.
        moves: Measurements that should drift.
        keeps: What does not change.
        hurts: Whether a recommender that was trained before the change becomes worse, compared with
            a perfect one.
        strongest: The largest strength that it may have.
    """

    does: str
    moves: tuple[str, ...]
    keeps: str
    hurts: bool
    strongest: float = 1.0


CHANGES: dict[str, ChangeNote] = {
    "new_category_wave": ChangeNote(
        does="A new category_1 ('outdoor', with its own brands and its own region of style) takes "
        "half of the new listings and half of the visits.",
        moves=("listing embedding", "query embedding", "wanted_category", "category and brand mix"),
        keeps="Listings and taste in the old categories.",
        hurts=True,
        strongest=1.8,
    ),
    "taste_shift": ChangeNote(
        does="The style in fashion is drawn again in every category, and the style that a shopper "
        "prefers is rotated by 45 degrees, in another direction for each group of categories.",
        moves=("live quality", "query embedding, slowly, through the histories"),
        keeps="Listings, prices and searches: the concept changes, not the input.",
        hurts=True,
    ),
    "brand_craze": ChangeNote(
        does="One brand of average popularity is in fashion: its utility rises by 2.5, and its "
        "share of new listings is multiplied by 3 as sellers follow.",
        moves=("brand mix of listings and outcomes", "listing embedding"),
        keeps="The other brands, except for their share.",
        hurts=False,
    ),
    "price_inflation": ChangeNote(
        does="New listings cost twice as much; what shoppers are willing to pay stays the same, so "
        "that sales fall with any recommender.",
        moves=("price", "price band mix", "sales"),
        keeps="Style, brands, categories, taste.",
        hurts=False,
        strongest=3.0,
    ),
    "new_sellers_flood": ChangeNote(
        does="New sellers add 1.5 times the usual number of listings: worn, plain and "
        "unattractive, with vectors twice as noisy.",
        moves=("number of listings and sellers", "condition mix", "listing embedding"),
        keeps="The listings of other sellers; taste.",
        hurts=True,
        strongest=3.0,
    ),
    "market_slump": ChangeNote(
        does="The whole market buys 20% less, whatever it is shown; strength 2 is 40% less.",
        moves=("purchase rate of every list, recommended or not",),
        keeps="Visits, searches, views, likes, listings, taste: no recommender sells more.",
        hurts=False,
        strongest=4.0,
    ),
    "season_jump": ChangeNote(
        does="The season is 60 days ahead from one day to the next, as after a sudden change of "
        "the weather: in what shoppers look for, and in what is listed. It needs "
        "``season_strength``.",
        moves=("wanted_category", "query embedding", "category mix of listings and answers"),
        keeps="Taste within each category, prices, rates.",
        hurts=False,
        strongest=2.0,
    ),
    "column_gone_null": ChangeNote(
        does="An upstream fault: one column of every new listing is null; strength is the share "
        "of listings affected. Shoppers still see the values. A missing brand hardly matters, "
        "since the vector shows the style; a missing size does.",
        moves=("null share of the column", "listing embedding where the towers use it"),
        keeps="All behaviour of shoppers and sellers.",
        hurts=False,
    ),
    "image_encoder_replaced": ChangeNote(
        does="An upstream fault: the vectors of new listings come from another encoder: the old "
        "vectors, rotated. Earlier listings keep theirs.",
        moves=("listing embedding", "item vector", "query embedding, through the histories"),
        keeps="All behaviour of shoppers and sellers, and every other column.",
        hurts=True,
    ),
}
