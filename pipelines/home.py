"""The folders of one installation: registry, runs, logs, alerts."""

import os
from pathlib import Path

from refit.settings import Settings

HOME_VARIABLE = "REFIT_HOME"
DEFAULT_HOME = ".refit"


class Home(Settings):
    """The folders of one installation.

    Attributes:
        folder: The folder of all local files.
        registry_url: URL of the bundle registry, of any kind that fsspec knows. Empty means
            ``folder/registry``.
        alert_store: Path or URL of the alert store. Empty means a SQLite file in ``folder``.
    """

    folder: Path
    registry_url: str = ""
    alert_store: str = ""

    @classmethod
    def at(
        cls, folder: Path | None = None, registry_url: str = "", alert_store: str = ""
    ) -> "Home":
        """Home in ``folder``; without it in $REFIT_HOME, or else in ./.refit."""
        home = folder or Path(os.environ.get(HOME_VARIABLE, DEFAULT_HOME))
        return cls(folder=home.absolute(), registry_url=registry_url, alert_store=alert_store)

    @property
    def registry(self) -> str:
        """Folder or URL of the bundle registry."""
        return self.registry_url or str(self.folder / "registry")

    @property
    def runs(self) -> Path:
        """A folder for each run: its log, step records and outcome."""
        return self.folder / "runs"

    @property
    def artifacts(self) -> Path:
        """The artifacts of pipeline steps, and their cache."""
        return self.folder / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that an interrupted training resumes from."""
        return self.folder / "checkpoints"

    @property
    def studies(self) -> Path:
        """Studies of settings, each a file, with the chosen settings and the page about it."""
        return self.folder / "studies"

    @property
    def vectors(self) -> Path:
        """The vectors of texts and pictures, by content, so that each is encoded once."""
        return self.folder / "vectors"

    @property
    def predictions(self) -> Path:
        """The prediction log."""
        return self.folder / "predictions"

    @property
    def stock(self) -> Path:
        """The stock feed: listings that were added, sold or withdrawn since the index was built."""
        return self.folder / "stock"

    @property
    def activity(self) -> Path:
        """The activity feed: what people did since the index was built."""
        return self.folder / "activity"

    @property
    def serving(self) -> Path:
        """The logs of a local server."""
        return self.folder / "serving"

    @property
    def alerts(self) -> str:
        """Path or URL of the alert store."""
        return self.alert_store or str(self.folder / "monitoring" / "alerts.sqlite")

    @property
    def alert_pages(self) -> Path:
        """The review pages."""
        return self.folder / "monitoring" / "pages"

    @property
    def evidently(self) -> Path:
        """The Evidently workspace."""
        return self.folder / "monitoring" / "evidently"
