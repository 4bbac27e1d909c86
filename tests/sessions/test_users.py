"""Users as text and as a plan: only ever tightened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.sessions.failures import StoreUserInvalid
from moorage.sessions.users import (
    Amend,
    Create,
    PresentUser,
    Remove,
    SwitchOff,
    parse_users,
    plan_users,
    rules_of,
    users_file,
)
from moorage.wire.runner import StoreUser
from tests.runner.kit import store_user

ONE, TWO = store_user("alc_1", "one"), store_user("alc_2", "two")


def present(*users: StoreUser) -> dict[str, PresentUser]:
    return {user.name: user for user in parse_users(users_file("a" * 64, users).splitlines())}


def test_the_file_admits_the_admin_and_the_enabled() -> None:
    text = users_file("a" * 64, [TWO.model_copy(update={"enabled": False}), ONE])
    assert text.splitlines() == [
        "user default off resetpass resetkeys resetchannels -@all",
        f"user moorage on #{'a' * 64} ~* &* +@all",
        f"user alc_1 on #{ONE.password_sha256} ~* &* +@all -@dangerous -@admin +info",
        f"user alc_2 off #{TWO.password_sha256} ~* &* +@all -@dangerous -@admin +info",
    ]


@given(st.booleans(), st.booleans(), st.booleans())
def test_who_was_off_stays_off(was_on: bool, wanted_on: bool, was_there: bool) -> None:
    previous = users_file("a" * 64, [ONE.model_copy(update={"enabled": was_on})] if was_there else [])
    users = parse_users(users_file("a" * 64, [ONE.model_copy(update={"enabled": wanted_on})], previous).splitlines())
    found = {user.name: user.enabled for user in users}
    assert found["alc_1"] is (wanted_on and (was_on or not was_there))


@given(st.booleans(), st.booleans())
def test_no_plan_switches_anybody_on(is_on: bool, wanted_on: bool) -> None:
    store = present(ONE.model_copy(update={"enabled": is_on}))
    plan = plan_users([ONE.model_copy(update={"enabled": wanted_on})], store)
    assert plan == (() if wanted_on else (SwitchOff("alc_1"),))
    assert "on" not in rules_of(ONE, enabled=None)


def test_new_gone_and_changed_users() -> None:
    other = store_user("alc_1", "another")
    assert plan_users([TWO], present(ONE)) == (Remove("alc_1"), Create(TWO))
    assert plan_users([other], present(ONE)) == (Amend(other),)
    assert plan_users([ONE], present(ONE)) == ()
    assert plan_users([], present()) == ()  # neither the admin nor the default user is anybody's to remove


def test_rules_that_are_not_ours_are_put_right() -> None:
    loose = {"alc_1": PresentUser("alc_1", True, (ONE.password_sha256,), ("~*", "&*", "+@all"))}
    assert plan_users([ONE], loose) == (Amend(ONE),)


@pytest.mark.parametrize("name", ["", "a b", "a\nuser evil on nopass ~* +@all", "moorage", "default", "#x", "é"])
def test_names_that_could_change_another_line_are_refused(name: str) -> None:
    with pytest.raises(StoreUserInvalid):
        users_file("a" * 64, [StoreUser(name=name, password_sha256="b" * 64, enabled=True)])
    with pytest.raises(StoreUserInvalid):
        rules_of(StoreUser(name=name, password_sha256="b" * 64, enabled=True), enabled=True)


@pytest.mark.parametrize("digest", ["", "b" * 63, "B" * 64, "b" * 63 + "\n", "nopass"])
def test_digests_that_are_none_are_refused(digest: str) -> None:
    with pytest.raises(StoreUserInvalid):
        users_file("a" * 64, [StoreUser(name="alc_1", password_sha256=digest, enabled=True)])
