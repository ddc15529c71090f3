"""Credentials: references in the relay file, values only on the worker that sends.

A reference is `env:NAME`, `file:PATH` or `secret:projects/P/secrets/S/versions/V` (Google Secret Manager); anything else is
a literal. `resolve` turns a reference into its value when a sink is set up. Values live in `Secrets`, which hides them from
repr and refuses to be pickled, so that they cannot reach a job graph; `redact` takes them out of any text that is kept.
"""

from __future__ import annotations

import functools
import html
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from transforms import vendors
from transforms.destination import Destination

SCHEMES = ("env", "file", "secret")
FORMS = "env:NAME, file:PATH or secret:projects/PROJECT/secrets/NAME/versions/VERSION"
MASK = "***"
MAX_BYTES = (
    65_536  # of a value; Secret Manager's own limit (Google Cloud, Secret Manager quotas, "Secret payload size")
)
SECRET_MANAGER_TIMEOUT_S = 30.0

SHORTEST = 4
"""Characters of a value that is taken out of any text wherever it stands: shorter ones would take out half of it."""

_known: set[str] = set()

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"projects/[A-Za-z0-9:.\-]+/secrets/[A-Za-z0-9_\-]{1,255}/versions/[A-Za-z0-9_\-]{1,63}")
_UNSENDABLE = re.compile(r"[^\x20-\x7e]")


class CredentialError(Exception):
    """A reference that gives no usable value. The message names destination, key, reference and remedy, never the value."""

    def __init__(self, destination: str, key: str, reference: str, message: str) -> None:
        super().__init__(destination, key, reference, message)
        self.destination = destination
        self.key = key
        self.reference = reference
        self.message = message

    def __str__(self) -> str:
        place = f"destinations.{self.destination}.credentials.{self.key}: " if self.destination else ""
        return f"{place}{self.reference}: {self.message}" if self.reference else f"{place}{self.message}"


class Secrets(Mapping[str, str]):
    """A destination's resolved credentials. Reads like a dict; shows no value, and cannot be pickled or copied away.

    `secret` names the keys whose values are secret; the others (an app id, say) are left alone by `redact`.
    """

    __slots__ = ("_secret", "_values")

    def __init__(self, values: Mapping[str, str], secret: Collection[str] | None = None) -> None:
        self._values = dict(values)
        self._secret = frozenset(values if secret is None else secret)

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(f'{key}={MASK}' for key in self._values)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Secrets are resolved where they are used and never pickled; send the references instead")

    def redact(self, text: str) -> str:
        """The text without any of the secret values."""
        return redact(text, (value for key, value in self._values.items() if key in self._secret))


def scheme(reference: str) -> str | None:
    """`env`, `file` or `secret`; None when the text is a literal."""
    head, colon, _ = reference.partition(":")
    return head if colon and head in SCHEMES else None


def fault(reference: str) -> str | None:
    """What is wrong with a reference or literal as written, or None. Says nothing of what the text holds.

    A mistyped reference may be a pasted secret, so the text itself is never part of the answer.
    """
    kind = scheme(reference)
    rest = reference.partition(":")[2]
    if kind == "env" and not _ENV.fullmatch(rest):
        return "after env: comes the name of an environment variable: letters, digits and _"
    if kind == "file" and (not rest.strip() or "\0" in rest):
        return "after file: comes a path, relative to the relay file"
    if kind == "secret" and not _SECRET.fullmatch(rest):
        return "after secret: comes projects/PROJECT/secrets/NAME/versions/VERSION"
    return _unsendable(reference) if kind is None else None


def literals(destination: Destination) -> list[str]:
    """The keys of a destination whose secret stands in the relay file itself."""
    return [
        key.name
        for key in vendors.get(destination.vendor).credentials
        if key.secret and key.name in destination.credentials and scheme(destination.credentials[key.name]) is None
    ]


def resolve(reference: str, *, folder: str = "", destination: str = "", key: str = "") -> str:
    """The value a reference stands for; a literal is its own value. `folder`: where a relative `file:` path starts.

    Raises CredentialError when the reference is malformed or leads nowhere, and when the value is empty, surrounded by
    spaces or not printable ASCII (a line break in it would let it write headers of its own). One newline at the end of a
    file or of a Secret Manager payload is left out.
    """
    kind = scheme(reference)
    shown = reference if kind is not None and fault(reference) is None else ""
    wrong = fault(reference)
    if wrong is None:
        rest = reference.partition(":")[2]
        if kind == "env":
            value, wrong = _from_env(rest)
        elif kind == "file":
            value, wrong = _from_file(os.path.join(folder, os.path.expanduser(rest)))
        elif kind == "secret":
            value, wrong = _from_secret_manager(rest)
        else:
            value = reference
        wrong = wrong or _unsendable(value)
        if wrong is None:
            return value
    raise CredentialError(destination, key, shown, wrong)


def resolve_all(destination: Destination) -> Secrets:
    """Every credential of a destination, on the machine that sends. Raises CredentialError for the first that fails."""
    values = {
        key: resolve(reference, folder=destination.base_dir, destination=destination.name, key=key)
        for key, reference in destination.credentials.items()
    }
    public = {key.name for key in vendors.get(destination.vendor).credentials if not key.secret}
    secret = values.keys() - public
    _known.update(values[key] for key in secret if len(values[key]) >= SHORTEST)
    return Secrets(values, secret)


def redact_known(text: str) -> str:
    """The text without any secret value that `resolve_all` gave in this process: for logs and unexpected errors, which
    do not know what they speak of."""
    return redact(text, tuple(_known)) if _known else text


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with each secret replaced by `***`, also as it stands in a URL, in HTML, or in JSON within JSON."""
    longest_first = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
    if not longest_first:
        return text
    return re.sub("|".join(map(_anyhow, longest_first)), MASK, text)


@functools.lru_cache(256)
def _anyhow(secret: str) -> str:
    """A pattern for a secret, whichever way it was escaped. All repetition in it is bounded: what it is looked for in
    comes from elsewhere, and must not decide how long that takes."""
    return "".join(map(_letter_anyhow, re.findall(r"\\+|[^\\]", secret)))


@functools.lru_cache(256)
def _letter_anyhow(letter: str) -> str:
    if letter.isalnum():
        return letter
    if letter[0] == "\\":
        return r"(?:\\|%(?:25){0,3}5[cC]|[uU]005[cC]|&#(?:92|[xX]5[cC]);){1,32}"
    number = ord(letter)
    shown = [re.escape(form) for form in {letter, html.escape(letter)}]
    shown.append(rf"&#(?:0?{number}|(?i:x0?{number:x}));")
    forms = [
        rf"\\{{0,7}}(?:{'|'.join(shown)})",  # JSON, Python, shells: up to three times one in the other
        rf"\\{{1,7}}(?i:u{number:04x}|x{number:02x})",
        rf"(?i:%(?:25){{0,3}}{number:02x})",
        *([r"\+"] if letter == " " else ()),
    ]
    return f"(?:{'|'.join(forms)})"


def _from_env(name: str) -> tuple[str, str | None]:
    value = os.environ.get(name)
    if value is None:
        return "", f"the environment variable {name} is not set where this runs; set it: export {name}=..."
    if not value:
        return "", f"the environment variable {name} is empty; set it: export {name}=..."
    return value, None


def _from_file(path: str) -> tuple[str, str | None]:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        return "", f"cannot read {path}: {error.strerror}; the file must exist and be readable where this runs"
    return _text(data, path)


def _from_secret_manager(name: str) -> tuple[str, str | None]:
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        return "", "Secret Manager's client is not installed; pip install google-cloud-secret-manager"
    try:
        payload: bytes = (
            _secret_manager()
            .access_secret_version(request={"name": name}, timeout=SECRET_MANAGER_TIMEOUT_S)
            .payload.data
        )
    except ImportError:
        return "", "Secret Manager's client is not installed; pip install google-cloud-secret-manager"
    except GoogleAuthError as error:
        return "", f"no Google credentials here ({type(error).__name__}); run: gcloud auth application-default login"
    except GoogleAPIError as error:
        return "", (
            f"Secret Manager answered {_one_line(str(error))}; the version must exist and be enabled, and the account that"
            " runs this needs the role roles/secretmanager.secretAccessor"
        )
    return _text(payload, "the secret")


def _secret_manager() -> Any:
    from google.cloud import secretmanager

    return secretmanager.SecretManagerServiceClient()


def _text(data: bytes, where: str) -> tuple[str, str | None]:
    if len(data) > MAX_BYTES:
        return "", f"{where} holds more than {MAX_BYTES:,} bytes; expected the value alone"
    try:
        value = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "", f"{where} is not UTF-8 text; expected the value alone"
    value = value[:-2] if value.endswith("\r\n") else value.removesuffix("\n")
    return (value, None) if value else ("", f"{where} is empty; put the value in it")


def _unsendable(value: str) -> str | None:
    if not value:
        return "the value is empty"
    odd = _UNSENDABLE.search(value)
    if odd is not None:
        what = "a line break" if odd.group() in "\r\n" else "a control or non-ASCII character"
        return f"the value has {what} at character {odd.start() + 1}; expected printable ASCII only"
    if value != value.strip():
        return "the value starts or ends with a space"
    return None


def _one_line(text: str, limit: int = 300) -> str:
    return " ".join(text.split())[:limit]
