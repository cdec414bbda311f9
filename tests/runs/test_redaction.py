import pytest

from lmft.runs.redaction import REDACTED, Redactor, is_secret_name

SECRET = 'hf_Sen"tinel<&>that must\\not be written'


@pytest.mark.parametrize(
    "name", ["apikey", "hftoken", "WANDB_API_KEY", "api_keys", "MYSQL_PASSWORDS", "db_passwd", "clientsecret", "key2"]
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["token", "mask_token", "max_target_tokens", "tokenizer", "keyword", "monkeys", "extra_special_tokens"]
)
def test_other_names(name):
    assert is_secret_name(name) == (name == "token")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("https://me:pass-word@host:80/x?y=1", f"https://me:{REDACTED}@host:80/x?y=1"),
        ("postgresql+pg://me:pw@host and redis://:pw@other", f"postgresql+pg://me:{REDACTED}@host and redis://:{REDACTED}@other"),
        ("https://ghp_1234@host/x.git", f"https://{REDACTED}@host/x.git"),
        ("https://host/x?user=me&api_key=abc&z=1", f"https://host/x?user=me&api_key={REDACTED}&z=1"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("https://host:80/a@b and me@host", "https://host:80/a@b and me@host"),
    ],
)  # fmt: skip
def test_urls(written, expected):
    redactor = Redactor({})
    assert redactor.text(written) == expected
    assert redactor.value({"uri": [written]}) == {"uri": [expected]}
    assert redactor.argument(f"data.train={written}") == f"data.train={expected}"


def test_a_urls_password_is_a_secret_wherever_it_stands():
    redactor = Redactor({"logger": {"tracking_uri": "https://me:pass-word@host"}})
    assert redactor.text("login failed for me, pass-word") == f"login failed for me, {REDACTED}"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        'hf_Sen\\"tinel<&>that must\\\\not be written',  # JSON, Python
        "hf_Sen&quot;tinel&lt;&amp;&gt;that must\\not be written",  # HTML
        "hf_Sen%22tinel%3C%26%3Ethat%20must%5Cnot%20be%20written",  # a URL
    ],
)
def test_a_secret_is_found_however_it_is_written(written, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\n")
    assert Redactor({}).text(f"<b>{written}</b>") == f"<b>{REDACTED}</b>"


def test_an_argument_that_adds_a_key():
    assert Redactor({}).argument("+logger.x.api_key=abc") == f"+logger.x.api_key={REDACTED}"
