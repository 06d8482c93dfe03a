"""Images of the Kubeflow Pipelines backend, written from files without builder or base image.

The Go programs are static; MariaDB and the metadata store are copied with their shared libraries.
"""

from collections.abc import Mapping
from pathlib import Path

from tests.machine.archives import Image, image_of_files
from tests.machine.commands import run
from tests.machine.environments import make_environment
from tests.machine.host import install
from tests.machine.kfp import programs
from tests.machine.kfp.programs import HERE, cached_folder
from tests.machine.libraries import shared_libraries
from tests.machine.object_store import store_image

PATH: Mapping[str, str] = {"PATH": "/bin"}
MYSQL = Path("/usr/share/mysql")
EXCLUDED = ("test", "site-packages", "idlelib", "tkinter", "config-", "ensurepip", "__pycache__")
SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
PACKAGES = {"/usr/sbin/mariadbd": "mariadb-server-core", "/usr/share/zoneinfo/UTC": "tzdata"}
"""Maps files that images contain to the Debian packages that provide them."""


def backend_images() -> list[Image]:
    """All images of the backend; building their programs takes minutes the first time.

    Raises:
        CommandError: A build failed.
        UnsupportedHostError: A Debian package or Python 3.11 is not available.
    """
    if missing := [package for file, package in PACKAGES.items() if not Path(file).exists()]:
        install(missing)
    return [backend_image(), argo_image(), mariadb_image(), mlmd_image(), store_image()]


def backend_image() -> Image:
    """Kubeflow Pipelines' programs with upstream's configuration, without sample pipelines."""
    upstream = programs.sources("pipelines", programs.PIPELINES)
    files = {
        **{f"/bin/{program.name}": program for program in programs.pipelines()},
        "/config/config.json": upstream / "backend/src/apiserver/config/config.json",
        "/config/no_samples.json": HERE / "manifests" / "no_samples.json",
    }
    return image_of_files("docker.io/refit-test/kfp-backend:2.0.5", files, environment=PATH)


def argo_image() -> Image:
    """Argo's controller and executor."""
    files = {f"/bin/{program.name}": program for program in programs.argo()}
    name = "docker.io/refit-test/argo:3.5.14"
    return image_of_files(name, files, entrypoint=["argoexec"], environment=PATH)


def mariadb_image() -> Image:
    """Debian's MariaDB with an empty database; its user root has no password."""
    server = Path("/usr/sbin/mariadbd")
    files = {
        str(server): server,
        "/etc/passwd": Path("/etc/passwd"),
        str(MYSQL / "english"): MYSQL / "english",
        str(MYSQL / "charsets"): MYSQL / "charsets",
        "/var/lib/mysql": cached_folder("mariadb", [server, Path(__file__)], _fill_database),
        **shared_libraries([server]),
    }
    entrypoint = [str(server), "--no-defaults"]
    return image_of_files("docker.io/refit-test/mariadb:10.11", files, entrypoint=entrypoint)


def mlmd_image() -> Image:
    """ml-metadata's store behind our gRPC server, with the Python 3.11 that it requires."""
    python = programs.python_311()
    (site,) = metadata_environment().glob("lib/*/site-packages")
    prefix = Path(run([python, "-c", "import sys; print(sys.base_prefix)"]).strip())
    library = prefix / "lib" / "python3.11"
    program = (prefix / "bin" / "python3.11").resolve()
    binary = [program, *library.glob("lib-dynload/*.so"), *site.rglob("*.so*")]
    files = {
        "/bin/python3": program,
        **{str(part): part for part in library.iterdir() if not part.name.startswith(EXCLUDED)},
        "/mlmd/site": site,
        "/mlmd/server.py": HERE / "mlmd_server.py",
        "/usr/share/zoneinfo": Path("/usr/share/zoneinfo"),  # without it the store crashes
        **shared_libraries(binary),
    }
    environment = {**PATH, "PYTHONHOME": str(prefix), "PYTHONPATH": "/mlmd/site"}
    name = "docker.io/refit-test/mlmd:1.17.1"
    return image_of_files(name, files, environment=environment)


def metadata_environment() -> Path:
    """An environment with ml-metadata, of a Python version that it has a wheel for."""
    return make_environment(HERE / "requirements.txt", programs.python_311())


def _fill_database(folder: Path) -> None:
    """Create MariaDB's system tables and the metadata store's database."""
    statements = [
        "CREATE DATABASE mysql;",
        "USE mysql;",
        "SET @auth_root_socket=NULL;",
        "SET @skip_auth_anonymous='1';",
        *((MYSQL / name).read_text() for name in SYSTEM_TABLES),
        "FLUSH PRIVILEGES;",
        "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;",
        "CREATE DATABASE metadb;\n",
    ]
    command = ["mariadbd", "--no-defaults", "--bootstrap", f"--datadir={folder}", "--user=root"]
    run([*command, "--innodb-log-file-size=8M"], text="\n".join(statements))
