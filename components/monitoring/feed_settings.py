"""How the outcomes and items of the monitor are written; apart from ``feeds``, which loads ibis."""

from refit.settings import Settings
from refit.tables import MemoryLimit, ThreadCount
from refit.tabular.file_format import FileFormat


class FeedSettings(Settings):
    """How the files of outcomes and items are written and read; as the config's ``ingestion``.

    Attributes:
        form: How the files are written.
        number_columns: Columns beyond the contract to read as numbers.
        max_rejected: By table, the largest share of rows that cannot be read.
        memory_limit: How much DuckDB may hold in memory.
        threads: Threads of DuckDB; 0 is one for each core.
    """

    form: FileFormat = FileFormat()
    number_columns: tuple[str, ...] = ()
    max_rejected: dict[str, float] = {}
    memory_limit: MemoryLimit = "2GB"
    threads: ThreadCount = 0
