"""The features on which a champion with another feature spec is judged: its own."""

from pathlib import Path

from refit.files import read_json, write_json
from refit.settings import Settings

CHAMPION_FEATURES_FILE = "champion_features.json"
TABLES_FOLDER = "tables"


class ChampionFeatures(Settings):
    """Whether a champion needs features of its own; beside it ``tables/`` holds them.

    Attributes:
        champion: Id of the champion; "" if there is none.
        needed: Whether its feature spec is another than the new model's.
        problem: Why they could not be built from the dataset; "" if they could.
    """

    champion: str = ""
    needed: bool = False
    problem: str = ""

    @classmethod
    def read(cls, folder: Path) -> "ChampionFeatures":
        """Read the record of a folder."""
        return cls.parse(read_json(folder / CHAMPION_FEATURES_FILE))

    def write(self, folder: Path) -> None:
        """Write the record into a folder."""
        write_json(folder / CHAMPION_FEATURES_FILE, self.model_dump(mode="json"))
