"""The images of Kubeflow Pipelines' backend, made from files: no builder and no base image.

The Go programs are static; MariaDB and the metadata store come with the libraries they name.
"""

from collections.abc import Mapping
from pathlib import Path

from tests.cluster.archives import Image, image_of_files
from tests.cluster.commands import run
from tests.cluster.environments import make_environment
from tests.cluster.kfp import programs
from tests.cluster.kfp.programs import HERE, kept
from tests.cluster.libraries import shared_libraries
from tests.cluster.machine import install
from tests.cluster.object_store import store_image

PATH: Mapping[str, str] = {"PATH": "/bin"}
MYSQL = Path("/usr/share/mysql")
SPARED = ("test", "site-packages", "idlelib", "tkinter", "config-", "ensurepip", "__pycache__")
SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
PACKAGES = {"/usr/sbin/mariadbd": "mariadb-server-core", "/usr/share/zoneinfo/UTC": "tzdata"}
"""Files that images are made of, and the Debian packages that bring them."""


def backend_images() -> list[Image]:
    """All of the backend's images; their programs are built, which takes minutes the first time.

    Raises:
        CommandFailed: Something does not build.
        CannotRun: A Debian package or Python 3.11 cannot be had.
    """
    if missing := [package for file, package in PACKAGES.items() if not Path(file).exists()]:
        install(missing)
    return [backend_image(), argo_image(), mariadb_image(), mlmd_image(), store_image()]


def backend_image() -> Image:
    """Kubeflow Pipelines' own programs, with upstream's configuration and no sample pipelines."""
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
    """Debian's MariaDB with an empty database, whose root has no password."""
    server = Path("/usr/sbin/mariadbd")
    files = {
        str(server): server,
        "/etc/passwd": Path("/etc/passwd"),
        str(MYSQL / "english"): MYSQL / "english",
        str(MYSQL / "charsets"): MYSQL / "charsets",
        "/var/lib/mysql": kept("mariadb", [server, Path(__file__)], _fill_database),
        **shared_libraries([server]),
    }
    entrypoint = [str(server), "--no-defaults"]
    return image_of_files("docker.io/refit-test/mariadb:10.11", files, entrypoint=entrypoint)


def mlmd_image() -> Image:
    """ml-metadata's store behind our gRPC front, with the Python 3.11 that it needs."""
    python = programs.python_311()
    (site,) = metadata_environment().glob("lib/*/site-packages")
    prefix = Path(run([python, "-c", "import sys; print(sys.base_prefix)"]).strip())
    library = prefix / "lib" / "python3.11"
    program = (prefix / "bin" / "python3.11").resolve()
    binary = [program, *library.glob("lib-dynload/*.so"), *site.rglob("*.so*")]
    files = {
        "/bin/python3": program,
        **{str(part): part for part in library.iterdir() if not part.name.startswith(SPARED)},
        "/mlmd/site": site,
        "/mlmd/server.py": HERE / "mlmd_server.py",
        "/usr/share/zoneinfo": Path("/usr/share/zoneinfo"),  # the store dies of a missing zone
        **shared_libraries(binary),
    }
    environment = {**PATH, "PYTHONHOME": str(prefix), "PYTHONPATH": "/mlmd/site"}
    name = "docker.io/refit-test/mlmd:1.17.1"
    return image_of_files(name, files, environment=environment)


def metadata_environment() -> Path:
    """An environment with ml-metadata, of the Python that it has a wheel for."""
    return make_environment(HERE / "requirements.txt", programs.python_311())


def _fill_database(folder: Path) -> None:
    """Make MariaDB's own tables, and the metadata store's database."""
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
