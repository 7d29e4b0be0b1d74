"""Who may enter."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard.sign_in import _may_enter, _refusal
from trafficcast.config.settings import Dashboard

ANN = {"is_logged_in": True, "email": "Ann@example.org", "email_verified": True}


def test_without_sign_in_nobody_is_asked() -> None:
    assert _may_enter(Dashboard())


def test_those_on_the_list_enter() -> None:
    assert _refusal(Dashboard(sign_in=True, allowed=("ann@EXAMPLE.org",)), ANN) is None


def test_without_a_list_all_who_sign_in_enter() -> None:
    assert _refusal(Dashboard(sign_in=True), ANN) is None


@pytest.mark.parametrize(
    ("person", "why"),
    [
        ({}, "Sign in"),
        ({"is_logged_in": False, "email": "ann@example.org"}, "Sign in"),
        (ANN | {"email": "bob@example.org"}, "bob@example.org may not enter"),
        (ANN | {"email": None}, "without an address"),
        (ANN | {"email_verified": False}, "not a verified address"),
    ],
)
def test_others_do_not(person: dict[str, Any], why: str) -> None:
    assert why in (_refusal(Dashboard(sign_in=True, allowed=("ann@example.org",)), person) or "")
