"""What linod writes of an exception, with the passwords that were in it."""

from __future__ import annotations

import django.conf
import pytest
from django.conf import LazySettings

from linod.site.call import call
from linod.site.secrets import masked
from linod.site.trouble import why_not


@pytest.mark.claim("S41")
@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("no postgres://app:s3cr:t@db:5432/x there", "no postgres://app:***@db:5432/x there"),
        ("redis://:s3cr/t@cache/1", "redis://:s3cr/t@cache/1"),  # no address has a slash there
        ("redis://:p@ss@cache/1", "redis://:***@cache/1"),
        ('invalid dsn: "host=db password=s3cret dbname=x"', 'invalid dsn: "host=db password=*** dbname=x"'),
        ("https://api/?user=a&api_key=abc&page=2", "https://api/?user=a&api_key=***&page=2"),
        ("{'USER': 'app', 'PASSWORD': 's3cret', 'HOST': ''}", "{'USER': 'app', 'PASSWORD': '***', 'HOST': ''}"),
        ('{"access_token": "abc", "n": 1}', '{"access_token": \'***\', "n": 1}'),
        ("    SECRET_KEY = 'abc def", "    SECRET_KEY = '***'"),  # a string without an end is a syntax error
        ("    password = get_password()", "    password = get_password()"),
        ("https://example.org/a@b:c", "https://example.org/a@b:c"),
        ("no password supplied", "no password supplied"),
    ],
)
def test_what_looks_like_a_password_is_masked(said: str, written: str) -> None:
    assert masked(said) == written


@pytest.mark.claim("S41")
def test_what_the_settings_and_the_environment_call_a_secret_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_PASSWORD", "from-the-environment")
    monkeypatch.setenv("PWD", "/srv/site")  # the working directory
    site = LazySettings()
    site.configure(
        SECRET_KEY_FALLBACKS=["an-older-key"],
        SERVICES={"mail": [{"API_KEY": "deep-inside"}]},
        EMAIL_HOST_PASSWORD="short",  # might be a word of the text
        AUTH_USER_MODEL="blog.Author",
    )
    monkeypatch.setattr(django.conf, "settings", site)
    said = "from-the-environment an-older-key deep-inside short blog.Author /srv/site"
    assert masked(said) == "*** *** *** short blog.Author /srv/site"


def fail() -> None:
    password = "only-a-variable"  # noqa: F841
    try:
        raise OSError("smtp://me:first-secret@mail")
    except OSError as error:
        raise ValueError("password='second-secret'") from error


def leave() -> None:
    raise SystemExit("token=third-secret")


@pytest.mark.claim("S41", "S42")
def test_neither_a_reason_nor_a_traceback_has_a_password() -> None:
    failed = call(fail)
    assert failed.reason == "ValueError: password='***'"
    assert "smtp://me:***@mail" in failed.traceback and "in fail" in failed.traceback
    assert call(leave).reason == "exit status token=***"
    told = why_not(OSError("no postgres://me:fourth-secret@db"))
    assert told.reason == "OSError: no postgres://me:***@db"
    for text in (failed.traceback, call(leave).traceback, told.traceback):
        assert text and "-secret" not in text and "only-a-variable" not in text
