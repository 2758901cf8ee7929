import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import CredentialsError, SourceError
from pipelines.scenes.credentials import Credentials, HostKeys, load_credentials
from pipelines.scenes.web import get_text, new_client
from tests.pipelines.conftest import FileServer

SECRET = "s3cr3t-value"


def keys_file(path: Path, document: object, mode: int = 0o600) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)
    return path


@pytest.fixture
def keyed(server: FileServer, tmp_path: Path, monkeypatch: Any) -> FileServer:
    """A server whose host has a header and a query parameter for it in the user's settings."""
    monkeypatch.setenv("TEST_KEY", SECRET)
    entry = {"headers": {"Authorization": "Bearer ${TEST_KEY}", "X-Key": SECRET}, "query": {"key": "${TEST_KEY}"}}
    path = keys_file(tmp_path / "keys.json", {server.url.removeprefix("http://"): entry})
    monkeypatch.setenv("OVERWATT_CREDENTIALS", str(path))
    (tmp_path / "a.txt").write_text("found")
    return server


def test_keys_go_to_their_host_and_are_not_seen_from_above(keyed: FileServer, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    with new_client() as client:
        response = client.get(f"{keyed.url}/a.txt?sig=as%2Fit%2bis")
    (asked,) = keyed.asked
    assert asked.query == f"sig=as%2Fit%2bis&key={SECRET}"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["x-key"] == SECRET
    assert str(response.url) == f"{keyed.url}/a.txt?sig=as%2Fit%2bis"
    assert SECRET not in repr(response.request.headers)
    assert SECRET not in caplog.text
    assert "sig" not in caplog.text


def test_key_that_an_address_has_already_is_left_alone(keyed: FileServer) -> None:
    with new_client() as client:
        client.get(f"{keyed.url}/a.txt?key=mine")
    assert keyed.asked[0].query == "key=mine"


def test_redirect_to_another_host_carries_no_key(keyed: FileServer, other_server: FileServer, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    keyed.redirects["/a.txt"] = f"{other_server.url}/a.txt?sig={SECRET}-of-theirs"
    with new_client() as client:
        assert get_text(client, f"{keyed.url}/a.txt") == "found"
    assert keyed.asked[0].headers["x-key"] == SECRET
    (asked,) = other_server.asked
    assert asked.query == f"sig={SECRET}-of-theirs"
    assert not {"authorization", "x-key"} & set(asked.headers)
    assert SECRET not in caplog.text


def test_redirect_to_the_host_of_the_keys_carries_them(keyed: FileServer, other_server: FileServer) -> None:
    other_server.redirects["/a.txt"] = f"{keyed.url}/a.txt"
    with new_client() as client:
        assert get_text(client, f"{other_server.url}/a.txt") == "found"
    assert "x-key" not in other_server.asked[0].headers
    assert keyed.asked[0].headers["x-key"] == SECRET


def test_key_is_not_sent_unencrypted_beyond_this_machine(server: FileServer) -> None:
    keys = Credentials({"imagery.example.com": HostKeys(headers=(("X-Key", SECRET),))})
    server.redirects["/a"] = "http://imagery.example.com/a?token=x"
    with new_client(keys) as client, pytest.raises(SourceError, match="sent encrypted only; use https") as error:
        get_text(client, f"{server.url}/a")
    assert str(error.value).startswith("http://imagery.example.com/a:")
    assert error.value.__cause__ is None


def test_refused_keys_are_named_without_value(keyed: FileServer) -> None:
    keyed.status["/a.txt"] = [401]
    with new_client() as client, pytest.raises(SourceError, match="401 Unauthorized") as error:
        get_text(client, f"{keyed.url}/a.txt")
    assert SECRET not in str(error.value)
    assert SECRET not in repr(error.value.__cause__)
    assert len(keyed.asked) == 1


def test_keys_of_a_port_come_before_those_of_its_host(tmp_path: Path) -> None:
    entry = {"query": {"k": "host"}}
    path = keys_file(tmp_path / "k.json", {"A.example.com": entry, "a.example.com:8443": {"query": {"k": "port"}}})
    keys = load_credentials(path)
    assert keys.of("a.example.com", 8443) == HostKeys(query=(("k", "port"),))
    assert keys.of("a.example.com", 443) == HostKeys(query=(("k", "host"),))
    assert keys.of("sub.a.example.com", 443) is None
    assert keys.of("evil-a.example.com", 443) is None
    assert load_credentials(None).of("a.example.com", 443) is None


def test_values_are_in_no_text_of_the_keys(tmp_path: Path) -> None:
    keys = load_credentials(keys_file(tmp_path / "k.json", {"a.example.com": {"headers": {"X": SECRET}}}))
    assert SECRET not in repr(keys) + str(keys) + repr(keys.of("a.example.com", 443))
    assert pickle.loads(pickle.dumps(keys)) == keys


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (f'{{"a": "{SECRET}"', "is not JSON (line 1"),
        ([SECRET], "is no JSON object"),
        ({f"https://user:{SECRET}@a.example.com/": {"query": {}}}, "give host or host:port alone"),
        ({"a.example.com": SECRET}, "a.example.com: give 'headers', 'query' or both"),
        ({"a.example.com": {"header": {"X": SECRET}}}, "give 'headers', 'query' or both"),
        ({"a.example.com": {"headers": {"X": [SECRET]}}}, "'headers' is no object of names and texts"),
        ({"a.example.com": {"headers": {"X": f"{SECRET}\r\nY: 1"}}}, "no HTTP header"),
        ({"a.example.com": {"headers": {"X Y": SECRET}}}, "no HTTP header"),
        (
            {"a.example.com": {"query": {"key": "${NOT_SET_HERE}"}}},
            "query, key: the environment variable 'NOT_SET_HERE'",
        ),
    ],
)
def test_broken_file_of_keys_is_one_sentence_without_its_values(tmp_path: Path, document: Any, message: str) -> None:
    path = keys_file(tmp_path / "k.json", document)
    with pytest.raises(CredentialsError) as error:
        load_credentials(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    assert SECRET not in repr(error.value.__cause__)


def test_missing_file_of_keys_names_the_setting(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("OVERWATT_CREDENTIALS", str(tmp_path / "gone.json"))
    with pytest.raises(CredentialsError, match=r"gone\.json cannot be read .* OVERWATT_CREDENTIALS"):
        new_client()


def test_file_open_to_others_is_refused_unless_it_only_names_variables(tmp_path: Path, monkeypatch: Any) -> None:
    path = keys_file(tmp_path / "k.json", {"a.example.com": {"headers": {"X": SECRET}}}, mode=0o644)
    with pytest.raises(CredentialsError, match="chmod 600"):
        load_credentials(path)
    monkeypatch.setenv("TEST_KEY", SECRET)
    keys_file(path, {"a.example.com": {"headers": {"X": "Bearer ${TEST_KEY}"}}}, mode=0o644)
    keys = load_credentials(path).of("a.example.com", 443)
    assert keys
    assert keys.headers == (("X", f"Bearer {SECRET}"),)
