"""Credentials: each kind of reference against the real thing, and values that show up nowhere."""

from __future__ import annotations

import html
import json
import os
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.cloud import secretmanager
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport
from hypothesis import given
from hypothesis import strategies as st

from pipelines import relay_file
from transforms import credentials
from transforms.credentials import CredentialError, Secrets, redact, resolve, resolve_all

VERSION = "projects/studio/secrets/teak-key/versions/latest"
RELAY = """
source: {preset: canonical}
destinations:
  teak:
    credentials: {game_id: my-app, secret_key: "file:keys/teak"}
"""


class _SecretManager(grpc.GenericRpcHandler):
    """Secret Manager's AccessSecretVersion over real gRPC: one secret exists, another is forbidden."""

    def __init__(self) -> None:
        self.payload = b"from-google\n"

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != "/google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion":
            return None
        return grpc.unary_unary_rpc_method_handler(
            self.access,
            request_deserializer=secretmanager.AccessSecretVersionRequest.deserialize,
            response_serializer=secretmanager.AccessSecretVersionResponse.serialize,
        )

    def access(self, request: Any, context: Any) -> Any:
        if "forbidden" in request.name:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"Permission denied on {request.name}")
        if request.name != VERSION:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Secret Version [{request.name}] not found.")
        return secretmanager.AccessSecretVersionResponse(name=request.name, payload={"data": self.payload})


@pytest.fixture
def secret_manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[_SecretManager]:
    handler = _SecretManager()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    client = secretmanager.SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=channel))
    monkeypatch.setattr(credentials, "_secret_manager", lambda: client)
    yield handler
    channel.close()
    server.stop(None)


def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAK_SECRET_KEY", "s3cret")
    assert resolve("env:TEAK_SECRET_KEY") == "s3cret"


def test_a_literal_is_its_own_value() -> None:
    assert resolve("my-app") == "my-app"
    assert resolve("my:app") == "my:app"


@pytest.mark.parametrize("data", [b"s3cret", b"s3cret\n", b"s3cret\r\n", b"\xef\xbb\xbfs3cret\n"])
def test_file_without_its_last_newline(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "key").write_bytes(data)
    assert resolve("file:key", folder=str(tmp_path)) == "s3cret"
    assert resolve(f"file:{tmp_path}/key", folder="/elsewhere") == "s3cret"


def test_secret_manager(secret_manager: _SecretManager) -> None:
    assert resolve(f"secret:{VERSION}") == "from-google"


@pytest.mark.parametrize(
    ("name", "said"),
    [("projects/studio/secrets/other/versions/1", "not found"), ("projects/studio/secrets/forbidden/versions/1", "Permission denied")],
)  # fmt: skip
def test_secret_manager_says_no(secret_manager: _SecretManager, name: str, said: str) -> None:
    with pytest.raises(CredentialError, match=said) as caught:
        resolve(f"secret:{name}", destination="teak", key="secret_key")
    assert str(caught.value).startswith(f"destinations.teak.credentials.secret_key: secret:{name}: ")
    assert "roles/secretmanager.secretAccessor" in str(caught.value)


@pytest.mark.parametrize("payload", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 70_000])
def test_secret_manager_holds_no_usable_value(secret_manager: _SecretManager, payload: bytes) -> None:
    secret_manager.payload = payload
    with pytest.raises(CredentialError) as caught:
        resolve(f"secret:{VERSION}")
    assert "lines" not in str(caught.value).replace("line break", "")


def test_without_google_credentials_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(CredentialError, match="gcloud auth application-default login"):
        resolve(f"secret:{VERSION}", destination="teak", key="secret_key")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (
            "env:NOT_SET_ANYWHERE",
            "env:NOT_SET_ANYWHERE: the environment variable NOT_SET_ANYWHERE is not set where this runs",
        ),
        ("env:EMPTY", "EMPTY is empty"),
        ("file:none", "file:none: cannot read .*none: No such file or directory"),
        ("file:.", "Is a directory"),
        ("file:empty", "is empty; put the value in it"),
        ("file:large", "holds more than 65,536 bytes"),
        ("file:binary", "is not UTF-8 text"),
        ("env:A B", "after env: comes the name of an environment variable"),
        ("file:", "after file: comes a path"),
        ("secret:teak", "after secret: comes projects/PROJECT/secrets/NAME/versions/VERSION"),
        ("", "the value is empty"),
    ],
)
def test_what_leads_nowhere_names_the_place_and_the_remedy(
    reference: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(CredentialError, match=said) as caught:
        resolve(reference, folder=str(tmp_path), destination="teak", key="secret_key")
    assert str(caught.value).startswith("destinations.teak.credentials.secret_key: ")


@pytest.mark.parametrize(
    "value", ["hunter2\r\nX-Admin: 1", "hunter2\n\n", "hunter2\x00", "hunter2\t", " hunter2", "hunter2 ", "hunt\u00e9r2", "hunter2\u200b"]
)  # fmt: skip
def test_a_value_that_could_break_a_header_is_refused_and_not_shown(value: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(value.encode())
    for reference in ("file:key", value):
        with pytest.raises(CredentialError, match="the value ") as caught:
            resolve(reference, folder=str(tmp_path), destination="teak", key="secret_key")
        assert "hunt" not in str(caught.value) + repr(caught.value)


def test_a_pasted_secret_behind_env_is_not_shown() -> None:
    with pytest.raises(CredentialError) as caught:
        resolve("env:sk-live-hunter2", destination="teak", key="secret_key")
    assert "hunter2" not in str(caught.value) + repr(caught.value)


def test_the_error_survives_pickling() -> None:
    error = CredentialError("teak", "secret_key", "env:X", "not set")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_destination_is_resolved_from_its_own_folder_and_hides_its_values(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "teak").write_text("hunter2\n")
    destination = relay_file.loads(RELAY.encode(), "relay.yaml", str(tmp_path)).destinations["teak"]
    assert b"hunter2" not in pickle.dumps(destination)
    secrets = resolve_all(destination)
    assert dict(secrets) == {"game_id": "my-app", "secret_key": "hunter2"}
    assert "hunter2" not in repr(secrets) + str(secrets) + f"{secrets}"
    assert secrets.redact("my-app sent hunter2") == "my-app sent ***"
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(secrets)
    os.remove(tmp_path / "keys" / "teak")
    with pytest.raises(
        CredentialError, match=r"^destinations\.teak\.credentials\.secret_key: file:keys/teak: cannot read"
    ):
        resolve_all(destination)


def test_redaction_covers_the_forms_a_secret_takes_on_its_way() -> None:
    secret = 'p@ss/w"rd +1\\'
    text = f'{secret} p%40ss/w%22rd%20%2B1%5C p%40ss%2Fw%22rd%20%2B1%5C p%40ss%2Fw%22rd+%2B1%5C p@ss/w\\"rd +1\\\\'
    assert redact(text, [secret]) == "*** *** *** *** ***"
    for written in (
        json.dumps(json.dumps(json.dumps(secret)))[7:-7],
        json.dumps(quote(secret)),
        quote(quote(secret)),
        html.escape(secret),
        html.escape(json.dumps(secret)[1:-1]),
        repr(secret),
        json.dumps({secret: [secret]}),
        "".join(f"\\u{ord(letter):04X}" if not letter.isalnum() else letter for letter in secret),
        "".join(f"&#{ord(letter)};" if not letter.isalnum() else letter for letter in secret),
    ):
        assert "ss" not in redact(f"before {written} after", [secret]), written
    assert redact("abcd abc", ["abc", "abcd"]) == "*** ***"
    assert redact("a*b", ["*", ""]) == "a***b"
    assert redact("nothing", []) == "nothing"


@pytest.mark.parametrize("filler", ["\\", '\\"', "%25", "&#92;", "a\\"])
def test_no_text_makes_redaction_slow(filler: str) -> None:
    started = time.process_time()
    redact(filler * (200_000 // len(filler)), ['a\\"\\\\" \\%&b', '\\"\\\\" %&b'])
    assert time.process_time() - started < 5


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4), st.text(), st.text())
def test_no_secret_is_left_in_redacted_text(secret: str, before: str, after: str) -> None:
    if secret.strip("*"):
        assert secret not in redact(before + secret + after, [secret]).replace("***", "\0")


@given(st.text(max_size=60))
def test_any_reference_gives_a_value_or_a_credential_error(reference: str) -> None:
    if reference.startswith("secret:projects"):
        return
    try:
        assert resolve(reference, folder="/nowhere")
    except CredentialError as error:
        assert str(error)


def test_secrets_read_like_a_dict() -> None:
    secrets = Secrets({"a": "1", "b": "2"}, {"a"})
    assert (len(secrets), list(secrets), secrets["a"], secrets.get("c"), repr(secrets)) == (
        2,
        ["a", "b"],
        "1",
        None,
        "Secrets(a=***, b=***)",
    )
