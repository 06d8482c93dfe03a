"""Who may enter: bearer tokens from a file, and TLS with or without client certificates."""

import hmac
import ssl
from pathlib import Path

from refit.errors import UsageError
from refit.progress import log_message
from serving.doors.settings import DoorSettings

MIN_TOKEN_LENGTH = 16
Version = tuple[tuple[int, int], ...]


class Tokens:
    """The bearer tokens of a file, one in a line; lines that begin with # are comments.

    Raises:
        UsageError: The file cannot be read, or has no token of at least 16 characters.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._version = version_of(file)
        self._tokens = _read_tokens(file)

    def accept(self, authorization: bytes) -> bool:
        """Whether the value of an ``Authorization`` header has one of the tokens.

        Every token is compared, each in a time that does not depend on where it differs.
        """
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        given = given.strip()
        equal = [hmac.compare_digest(given, token) for token in self._tokens]
        return any(equal)

    def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be used changes nothing."""
        try:
            if (version := version_of(self._file)) != self._version:
                self._tokens, self._version = _read_tokens(self._file), version
                log_message(f"read the tokens in {self._file} again")
        except UsageError as error:
            log_message(f"the tokens stay as they were: {error}")


def _read_tokens(file: Path) -> tuple[bytes, ...]:
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"token_file: {file} cannot be read: {error}") from None
    tokens = tuple(line.encode() for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise UsageError(f"token_file: {file} has no token; nobody could get in")
    if min(map(len, tokens)) < MIN_TOKEN_LENGTH:
        raise UsageError(f"token_file: a token in {file} has less than {MIN_TOKEN_LENGTH} letters")
    return tokens


class Certificates:
    """The server's certificate, and whose client certificates are accepted.

    Raises:
        UsageError: A file cannot be read or is not what it should be.
    """

    def __init__(self, settings: DoorSettings) -> None:
        if settings.certificate is None or settings.key is None:
            raise ValueError("there is no certificate")
        self.certificate, self.key = settings.certificate, settings.key
        self.authority = settings.client_authority
        self._version = self._newest()
        self.context = self._make_context()

    @property
    def version(self) -> Version:
        """Changes when the files are replaced."""
        return self._version

    def refresh(self) -> None:
        """Use a replaced certificate for new connections; one that cannot be used changes nothing.

        The accepted authorities are added to, never removed from: that takes a restart.
        """
        try:
            if (version := self._newest()) == self._version:
                return
            self._make_context()  # a broken pair must not reach the context in use
            self._load(self.context)
            self._version = version
            log_message(f"read the certificate {self.certificate} again")
        except UsageError as error:
            log_message(f"the certificate stays as it was: {error}")

    def _newest(self) -> Version:
        files = (self.certificate, self.key, self.authority)
        return tuple(part for file in files if file for part in version_of(file))

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.authority:
            context.verify_mode = ssl.CERT_REQUIRED
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.authority:
                context.load_verify_locations(self.authority)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"certificate: {self.certificate} cannot be used: {error}") from None


def version_of(file: Path) -> Version:
    """Time and size of a file, which differ once it is replaced.

    Raises:
        UsageError: The file cannot be read.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    return ((status.st_mtime_ns, status.st_size),)
