"""The log never holds a secret, whoever writes the line."""

from __future__ import annotations

import json
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from moorage.system.log import HIDDEN, redact

_WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=12, max_size=40)


@given(
    secret=_WORDS, user=st.sampled_from(["", "default", "alc_1"]), scheme=st.sampled_from(["redis", "https", "nats"])
)
def test_passwords_in_urls_are_hidden(secret: str, user: str, scheme: str) -> None:
    said = redact(f"cannot reach {scheme}://{user}:{secret}@127.0.0.1:6379/0 now")
    assert secret not in said
    assert "127.0.0.1:6379/0 now" in said


@given(secret=_WORDS, key=st.sampled_from(["password", "token", "Set-Cookie", "authorization", "seed", "api_key"]))
def test_values_under_a_telling_key_are_hidden_at_any_depth(secret: str, key: str) -> None:
    said = redact({"a": [{"b": ({key: secret, "port": 7400},)}]})
    assert secret not in json.dumps(said)
    assert said["a"][0]["b"][0] == {key: HIDDEN, "port": 7400}


@given(secret=_WORDS)
def test_headers_and_assignments_inside_texts_are_hidden(secret: str) -> None:
    for text in (
        f"Authorization: Bearer {secret}",
        f"cookie: moorage_pin={secret}; other=1",
        f"MOORAGE_TOKEN={secret} moorage up",
        f"GET /?access_token={secret}&x=1",
        f"password: '{secret}'",
    ):
        assert secret not in redact(text)


def test_seeds_are_hidden_and_plain_facts_are_not() -> None:
    seed = "SUAM" + "A2" * 27
    assert seed not in redact(f"user {seed} connected")
    plain = {"event": "child exited", "exit": -9, "tokens_left": 3, "app": "board", "ok": True, "none": None}
    assert redact(plain) == plain


def test_every_line_is_json_on_stderr_with_secrets_out() -> None:
    code = """
import logging
from moorage.system.log import get_log, set_up_log
set_up_log("info", service="edge")
get_log("edge").info("connected", url="nats://u:hunter2hunter2@h:1", count=3)
get_log("edge").debug("not shown")
logging.getLogger("uvicorn").warning("token=%s", "hunter2hunter2")
try:
    raise ValueError("redis://:hunter2hunter2@h:1 refused")
except ValueError:
    get_log("edge").exception("failed")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["connected", f"token={HIDDEN}", "failed"]
    assert {line["service"] for line in lines} == {"edge"}
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert lines[0]["count"] == 3
    assert "ValueError" in lines[2]["exception"]
    assert "hunter2" not in ran.stderr
    assert ran.stdout == ""
