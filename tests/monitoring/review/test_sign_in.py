"""Who may sign in, and who the application takes somebody for."""

import pytest
from starlette.requests import Request

from monitoring.review.settings import SignInSettings
from monitoring.review.sign_in import AccessToken, Gatekeeper, read_tokens
from refit.errors import UsageError

PROXY = {
    "user_header": "X-Forwarded-Email",
    "groups_header": "X-Forwarded-Groups",
    "trusted_proxies": ("10.0.0.0/8", "::1"),
    "on_call": ("ana@example.org",),
    "on_call_groups": ("sre",),
    "viewers": (),
    "viewer_groups": ("staff",),
}


def asked(source="10.1.2.3", **headers):
    raw = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in ({"host": "review.example"} | headers).items()
    ]
    return Request({"type": "http", "headers": raw, "client": (source, 1), "method": "GET"})


def keeper(tokens=(), host="0.0.0.0", no_auth=False, **changes):
    settings = SignInSettings(**({} if no_auth or tokens else PROXY) | changes)
    return Gatekeeper(settings, tokens, host, no_auth)


@pytest.mark.parametrize(
    ("name", "groups", "role"),
    [
        ("ana@example.org", "", "on-call"),
        ("bo@example.org", "staff, sre", "on-call"),
        ("vic@example.org", "staff", "viewer"),
        ("eve@example.org", "", None),
        ("", "sre", None),
        ("ANA@example.org", "", None),
    ],
)
def test_a_login_proxy_names_the_user_and_the_groups(name, groups, role):
    found = keeper().find(asked(x_forwarded_email=name, x_forwarded_groups=groups))
    assert (found and found.role) == role
    assert found is None or found.name == name


def test_everybody_whom_the_proxy_names_may_read_unless_the_settings_say_otherwise():
    found = keeper(viewers=("*",)).find(asked(x_forwarded_email="eve@example.org"))
    assert found.role == "viewer"


@pytest.mark.parametrize("source", ["192.168.0.1", "11.0.0.1", "fe80::1", "testclient", ""])
def test_headers_of_others_than_the_proxy_are_ignored(source):
    assert keeper().find(asked(source, x_forwarded_email="ana@example.org")) is None


def test_a_proxy_may_have_an_address_of_either_kind():
    assert keeper().find(asked("::1", x_forwarded_email="ana@example.org"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user_header": "", "trusted_proxies": ()}, "nobody could sign in"),
        ({"trusted_proxies": ()}, "name the addresses of the login proxy"),
        ({"no_auth": True}, "only for this machine"),
        ({"no_auth": True, "host": "192.168.0.7"}, "listen on 127.0.0.1"),
        (
            {"no_auth": True, "host": "127.0.0.1", "tokens": (AccessToken("viewer", "v", "x"),)},
            "contradicts",
        ),
    ],
)
def test_it_does_not_start_when_nobody_or_anybody_could_act(options, words):
    with pytest.raises(UsageError, match=words):
        keeper(**options)


def test_without_sign_in_this_machine_is_on_call_by_its_own_name_only(monkeypatch):
    monkeypatch.setenv("USER", "ana")
    here = keeper(host="127.0.0.1", no_auth=True)
    for host in ("127.0.0.1:8081", "localhost:8081", "[::1]:8081"):
        assert here.find(asked("127.0.0.1", host=host)).name == "ana"
    for host in ("evil.example:8081", "127.0.0.1.evil.example", ""):
        assert here.find(asked("127.0.0.1", host=host)) is None


def test_tokens_come_from_the_environment_and_from_a_file(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"viewer vic {'v' * 24}\n")
    found = read_tokens(
        {
            "REFIT_REVIEW_TOKENS": f"on-call ana {'a' * 24}\n\n",
            "REFIT_REVIEW_TOKENS_FILE": str(file),
        }
    )
    assert [(token.role, token.name) for token in found] == [("on-call", "ana"), ("viewer", "vic")]
    assert read_tokens({}) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hush-hush-hush-hush-hush-hush", "token 1 must be written ROLE NAME TOKEN"),
        ("boss ana hush-hush-hush-hush-hush-hush", "token 1 must be written"),
        ("on-call ana hush-hush", "fewer than 24 letters"),
    ],
)
def test_a_token_that_cannot_be_read_is_an_error_that_does_not_repeat_it(text, words):
    with pytest.raises(UsageError, match=words) as refused:
        read_tokens({"REFIT_REVIEW_TOKENS": text})
    assert "hush" not in str(refused.value)


def test_a_file_of_tokens_that_is_not_there_is_an_error():
    with pytest.raises(UsageError, match="REFIT_REVIEW_TOKENS_FILE: /nowhere"):
        read_tokens({"REFIT_REVIEW_TOKENS_FILE": "/nowhere"})


def test_networks_and_urls_of_the_settings_are_checked():
    from monitoring.review.settings import LinkSettings

    for wrong in (
        lambda: SignInSettings.parse({"trusted_proxies": ["everything"]}),
        lambda: LinkSettings.parse({"image": "javascript:alert(1)//{item_id}"}),
        lambda: LinkSettings.parse({"image": "https://img.example/"}),
        lambda: LinkSettings.parse({"run": "runs/{run}"}),
    ):
        with pytest.raises(UsageError):
            wrong()
