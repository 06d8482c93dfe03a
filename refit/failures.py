"""Translate exceptions of other libraries into a RefitError: one sentence and an exit code.

Disks, networks, object stores, databases and input files fail with the exceptions of a dozen
libraries. ``explain`` converts each kind that a user can act on into a RefitError with advice. It
matches classes by name, so that it imports no library.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from refit.errors import DataValidationError, RefitError, ServiceUnreachable, UsageError

MOST_CHARACTERS = 300
CAUSES = 5
"""Maximum number of chained exceptions that are searched for a more specific kind."""

Explain = Callable[[Any], RefitError | None]


def explain(error: BaseException) -> RefitError | None:
    """The RefitError that explains ``error`` and how to fix it; None for an unexpected kind.

    A chain of exceptions is explained by its most specific member: s3fs, for example, raises a
    PermissionError from the response of an object store.
    """
    explained: list[tuple[RefitError, bool]] = []
    for cause in _causes(error):
        if isinstance(cause, RefitError):
            return cause
        if found := _explain_one(cause):
            explained.append(found)
    # The first explanation by a library's own class is preferred.
    explained.sort(key=lambda found: not found[1])
    return explained[0][0] if explained else None


def summarize(error: BaseException) -> str:
    """``KindOfError: its message``, in one line."""
    text = _text(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and the exceptions it was raised from, outermost first.

    An exception that was merely being handled at the time is not a cause: a bug in an ``except``
    block must stay a bug.
    """
    current: BaseException | None = error
    for _ in range(CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__


def _explain_one(error: BaseException) -> tuple[RefitError, bool] | None:
    """The explanation of one exception, and whether it is by a library's own class."""
    for cls in type(error).__mro__:
        for module, names, explanation in _LIBRARIES:
            if cls.__name__ in names and _is_in(cls.__module__, module):
                found = explanation(error)
                return (found, True) if found else None
    for kind, explanation in _BUILT_IN:
        if isinstance(error, kind):
            found = explanation(error)
            return (found, False) if found else None
    return None


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _text(error: BaseException) -> str:
    """An exception's message in one line of at most ``MOST_CHARACTERS``."""
    text = " ".join(str(error).split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..."


def _explain_os_error(error: OSError) -> RefitError | None:
    if error.errno is None:
        return _explain_data_file(error)
    path = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    known = _BY_ERRNO.get(error.errno)
    if known is None:
        return RefitError(f"the operating system failed: {_text(error)}")
    kind, with_path, without_path = known
    text = with_path.format(path=path) if path else without_path.format(text=_text(error))
    return kind(text.replace("{user}", _user()))


def _user() -> str:
    return f"user {os.getuid()}"


_SPACE = "free some space, or name a folder on another disk (--home, REFIT_HOME)"
_BY_ERRNO: dict[int, tuple[type[RefitError], str, str]] = {
    errno.ENOSPC: (
        RefitError,
        "no space is left on the disk of {path}: " + _SPACE,
        "no space is left on a disk (df -h shows which): " + _SPACE,
    ),
    errno.EDQUOT: (
        RefitError,
        "the disk quota is used up at {path}: " + _SPACE,
        "a disk quota is used up: " + _SPACE,
    ),
    errno.EROFS: (
        UsageError,
        "{path} is on a read-only disk: name a folder that can be written (--home, REFIT_HOME)",
        "a disk is read-only: name a folder that can be written (--home, REFIT_HOME)",
    ),
    errno.EACCES: (
        UsageError,
        "{{user}} has no permission for {path}: change its rights, or name another path",
        "permission denied: {text}; check rights and credentials",
    ),
    errno.EPERM: (
        UsageError,
        "{{user}} is not permitted to do this with {path}: change its rights, or name another path",
        "not permitted: {text}; check rights and credentials",
    ),
    errno.ENOENT: (
        UsageError,
        "{path} does not exist: check the path",
        "a file or folder does not exist: {text}; check the paths of the settings",
    ),
    errno.EISDIR: (
        UsageError,
        "{path} is a folder, a file is needed: check the path",
        "a folder was named where a file is needed: {text}; check the path",
    ),
    errno.ENOTDIR: (
        UsageError,
        "{path} is not a folder, or is below a file: check the path",
        "a file was named where a folder is needed: {text}; check the path",
    ),
    errno.EEXIST: (
        UsageError,
        "{path} exists already and cannot be replaced: remove it, or name another path",
        "a path exists already: {text}; remove it, or name another path",
    ),
    errno.ENAMETOOLONG: (
        UsageError,
        "the path {path} is too long: name a shorter one",
        "a path is too long: name a shorter one",
    ),
    errno.EMFILE: (
        RefitError,
        "too many files are open: raise the limit (ulimit -n 4096), then run it again",
        "too many files are open: raise the limit (ulimit -n 4096), then run it again",
    ),
    errno.ENOMEM: (
        RefitError,
        "memory is used up: end other programs, or use less data",
        "memory is used up: end other programs, or use less data",
    ),
    errno.ENOEXEC: (
        UsageError,
        "{path} is not a program for this machine: check the path",
        "a file is not a program for this machine: {text}; check the path",
    ),
    errno.EADDRINUSE: (
        UsageError,
        "a port is in use already: stop the program that uses it, or name another port",
        "a port is in use already: stop the program that uses it, or name another port",
    ),
    errno.ENETUNREACH: (
        ServiceUnreachable,
        "the network is unreachable: check the connection",
        "the network is unreachable: check the connection",
    ),
    errno.EHOSTUNREACH: (
        ServiceUnreachable,
        "a host is unreachable: check the address and the connection",
        "a host is unreachable: {text}; check the address and the connection",
    ),
    errno.EIO: (
        RefitError,
        "the disk failed at {path}: check its health, or name a folder on another one",
        "a disk failed: {text}; check its health, or use another one",
    ),
}
"""By errno: the kind of error, the message with a path, and the message without one."""


def _unreachable(what: str, advice: str) -> Explain:
    return lambda error: ServiceUnreachable(f"{what}: {_text(error)}; {advice}")


def _usage(what: str, advice: str) -> Explain:
    return lambda error: UsageError(f"{what}: {_text(error)}; {advice}")


def _explain_connection(error: OSError) -> RefitError:
    return ServiceUnreachable(
        f"a service cannot be reached: {_text(error) or type(error).__name__}; "
        "check that it runs and that its address is right"
    )


def _explain_timeout(error: BaseException) -> RefitError:
    text = _text(error)
    return ServiceUnreachable(
        f"a service did not answer in time{f': {text}' if text else ''}; "
        "check that it runs and that its address is right"
    )


def _explain_memory(error: BaseException) -> RefitError:
    text = _text(error)
    return RefitError(
        f"memory is used up{f' ({text})' if text else ''}: end other programs, or use less data"
    )


def _explain_exhausted(error: BaseException) -> RefitError:
    """Explain TensorFlow's error about a resource: memory or the disk."""
    if "No space left" in str(error):
        return _BY_ERRNO[errno.ENOSPC][0](_BY_ERRNO[errno.ENOSPC][2])
    return _explain_memory(error)


def _explain_import(error: ImportError) -> RefitError:
    return UsageError(
        f"a package of this environment is missing or broken: {_text(error)}; "
        "refit doctor checks the environments, make setup installs them"
    )


def _explain_value(error: ValueError) -> RefitError | None:
    """Explain fsspec's error for an unknown URL scheme; any other ValueError is a bug."""
    text = _text(error)
    if not text.startswith("Protocol not known"):
        return None
    return UsageError(f"a URL cannot be used: {text}; name a folder, or a URL such as s3://bucket")


def _explain_encoding(error: UnicodeDecodeError) -> RefitError:
    return UsageError(
        f"a file is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
    )


_BUILT_IN: tuple[tuple[type[BaseException], Explain], ...] = (
    (TimeoutError, _explain_timeout),
    (ConnectionError, _explain_connection),
    (MemoryError, _explain_memory),
    (ImportError, _explain_import),
    (UnicodeDecodeError, _explain_encoding),
    (ValueError, _explain_value),
    (OSError, _explain_os_error),
)


def _explain_yaml(error: Any) -> RefitError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or _text(error)
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return UsageError(f"a file is not YAML{where}: {problem}; correct it and run it again")


def _explain_validation(error: Any) -> RefitError:
    """List the faults of a pydantic ValidationError, one per line."""
    faults = [
        f"  {'.'.join(map(str, fault['loc'])) or 'together'}: {fault['msg']}"
        for fault in error.errors(include_url=False)
    ]
    return UsageError("\n".join([f"{error.title} cannot be read:", *faults]))


_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_REFUSALS = {
    "AccessDenied": "the credentials do not permit this; ask for access or use others",
    "403": "the credentials do not permit this; ask for access or use others",
    "InvalidAccessKeyId": f"the access key is not known there; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is wrong; {_CREDENTIALS}",
    "ExpiredToken": "the session has expired; sign in again",
    "NoSuchBucket": "there is no such bucket; check the URL",
    "404": "there is no such bucket or file; check the URL",
    "SlowDown": "it is overloaded; try again later",
}


def _explain_object_store(error: Any) -> RefitError:
    """Explain an error response of S3 or a compatible store: a botocore ClientError."""
    answer = error.response.get("Error", {})
    code, message = str(answer.get("Code", "")), str(answer.get("Message") or "").strip()
    advice = _REFUSALS.get(code, "check the URL and the credentials")
    what = f"{code} ({message})" if message and message != code else code or _text(error)
    return ServiceUnreachable(
        f"the object store refused {getattr(error, 'operation_name', 'a request')}: {what}; "
        f"{advice}"
    )


def _explain_grpc(error: Any) -> RefitError:
    code = error.code() if callable(getattr(error, "code", None)) else None
    details = error.details() if callable(getattr(error, "details", None)) else None
    what = " ".join(str(part) for part in (getattr(code, "name", code), details) if part)
    return ServiceUnreachable(
        f"a gRPC call failed: {what or _text(error)}; check that the service runs"
    )


def _explain_api(error: Any) -> RefitError:
    """Explain an error response of the Kubernetes or the Kubeflow Pipelines API."""
    message = re.sub(r"\s+", " ", str(getattr(error, "reason", "") or ""))
    advice = (
        "check the kubeconfig or the token, and its permissions"
        if error.status in (401, 403)
        else "refit doctor --cluster FILE checks the cluster"
    )
    return ServiceUnreachable(f"the cluster's API answered {error.status} {message}; {advice}")


def _explain_sqlite(error: Any) -> RefitError:
    text = _text(error)
    for words, advice in (
        ("locked", "another process writes to it; try again"),
        ("full", _SPACE),
        ("readonly", "give this user write access to it and its folder"),
        ("unable to open", "check that its folder exists and can be written"),
        ("not a database", "the file is damaged or something else; move it away"),
        ("malformed", "the file is damaged; restore it from a copy, or move it away"),
    ):
        if words in text:
            return RefitError(f"a SQLite database cannot be used ({text}): {advice}")
    return RefitError(f"a SQLite database cannot be used: {text}")


def _explain_sqlalchemy(error: Any) -> RefitError:
    original = getattr(error, "orig", None)
    if original is not None and (found := _explain_one(original)):
        return found[0]
    return UsageError(f"the database refused: {_text(original or error)}; check its URL")


def _explain_duckdb(error: Any) -> RefitError:
    text = _text(error)
    if "OutOfMemory" in type(error).__name__:
        return RefitError(
            f"the memory for tables is used up ({text}): allow more in the settings, end other "
            "programs, or use less data"
        )
    if "No space left" in text:
        return RefitError(f"no space is left for tables ({text}): {_SPACE}")
    return DataValidationError(f"tables cannot be read or written: {text}; check the files")


def _explain_data_file(error: Any) -> RefitError | None:
    """Explain Arrow's errors about the content of a file; its other errors are bugs."""
    text = _text(error)
    if not re.search(r"parquet|thrift|csv|snappy|zstd", text, re.IGNORECASE):
        return None
    return DataValidationError(f"a data file cannot be read: {text}; check that it is complete")


def _explain_process(error: Any) -> RefitError:
    command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
    code = getattr(error, "returncode", None)
    ended = "did not end in time" if code is None else f"ended with code {code}"
    return RefitError(f"the command {Path(command.split()[0]).name} {ended}: {command}")


_NETWORK = "check that the service runs and that its address is right"
_LIBRARIES: tuple[tuple[str, tuple[str, ...], Explain], ...] = (
    ("yaml", ("YAMLError",), _explain_yaml),
    ("pydantic_core", ("ValidationError",), _explain_validation),
    ("pydantic", ("ValidationError",), _explain_validation),
    ("botocore", ("ClientError",), _explain_object_store),
    (
        "botocore",
        ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
        _unreachable("the object store needs credentials", _CREDENTIALS),
    ),
    ("botocore", ("ProfileNotFound",), _usage("AWS_PROFILE", "name another profile")),
    ("botocore", ("BotoCoreError",), _unreachable("the object store failed", _NETWORK)),
    ("aiohttp", ("ClientError",), _unreachable("a request failed", _NETWORK)),
    ("fsspec", ("FSTimeoutError",), _explain_timeout),
    ("requests", ("RequestException",), _unreachable("a request failed", _NETWORK)),
    ("urllib3", ("HTTPError",), _unreachable("a request failed", _NETWORK)),
    ("urllib.error", ("URLError",), _unreachable("a request failed", _NETWORK)),
    ("http.client", ("HTTPException",), _unreachable("a request failed", _NETWORK)),
    ("ssl", ("SSLError",), _unreachable("TLS failed", "check the address and the certificates")),
    (
        "socket",
        ("gaierror",),
        _unreachable("the name of a host cannot be resolved", "check its spelling and the network"),
    ),
    ("grpc", ("RpcError",), _explain_grpc),
    ("kubernetes", ("ApiException", "OpenApiException"), _explain_api),
    ("kfp_server_api", ("ApiException",), _explain_api),
    ("kubernetes", ("ConfigException",), _usage("the kubeconfig cannot be used", "set KUBECONFIG")),
    ("sqlite3", ("Error",), _explain_sqlite),
    (
        "psycopg",
        ("Error",),
        _unreachable("the PostgreSQL database cannot be used", "check its URL and PGPASSWORD"),
    ),
    ("sqlalchemy", ("SQLAlchemyError",), _explain_sqlalchemy),
    ("duckdb", ("Error",), _explain_duckdb),
    ("_duckdb", ("Error",), _explain_duckdb),
    ("pyarrow", ("ArrowInvalid",), _explain_data_file),
    ("tensorflow", ("ResourceExhaustedError",), _explain_exhausted),
    ("subprocess", ("CalledProcessError", "TimeoutExpired"), _explain_process),
)
"""The explanation of a library's errors, by module and class; subclasses are included."""
