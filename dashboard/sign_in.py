"""The sign-in: everyone may enter, or those who sign in by OpenID Connect and are on the configuration's list."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dashboard.page.labels import plain
from trafficcast.config.settings import Dashboard


def _may_enter(settings: Dashboard) -> bool:
    """Whether the person may see the pages; where not, the page says why and what to do."""
    if not settings.sign_in:
        return True
    person = st.user.to_dict()
    refusal = _refusal(settings, person)
    if refusal is None:
        return True
    if person.get("is_logged_in"):
        st.error(plain(refusal))
        st.button("Sign out", on_click=st.logout)
    else:
        st.info(refusal)
        st.button("Sign in", on_click=st.login)
    return False


def _refusal(settings: Dashboard, person: Mapping[str, object]) -> str | None:
    """Return why a person, as the provider describes it, may not enter; None where the person may.

    Only an address that the provider has not called unverified counts, upper and lower case alike.
    """
    if not person.get("is_logged_in"):
        return "Sign in to see the city's traffic."
    email = str(person.get("email") or "").casefold()
    if person.get("email_verified") is False:
        return f"{email} is not a verified address: ask your provider to verify it"
    if settings.allowed and email not in {allowed.casefold() for allowed in settings.allowed}:
        return f"{email or 'an account without an address'} may not enter: ask whoever runs this dashboard"
    return None
