"""Operators' accounts, and what operators do for the accounts of others."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from tenants.ids import new_id
from tenants.models import SecondFactor, User
from tests.support.api import make_tenant
from tests.support.operators import (
    make_operator,
    operator,
    platform_actions,
    signed_in,
    with_second_factor,
)
from tests.support.portal import PASSWORD, make_member, make_user, text_of

pytestmark = pytest.mark.usefixtures("database")


def address() -> str:
    return f"{new_id().hex}@example.com"


# --- the first one ----------------------------------------------------------------------------------------------------


def test_a_command_makes_the_first_operator() -> None:
    email, out = address(), StringIO()

    call_command("create_operator", email.upper(), "--json", stdout=out)

    made = json.loads(out.getvalue())
    user = User.objects.get(email=email)
    assert made["email"] == email
    assert user.check_password(made["password"])
    assert (user.is_staff, user.is_superuser, user.is_active) == (True, True, True)
    assert platform_actions()[-1] == "operator.made"


def test_an_account_that_exists_keeps_its_password_and_may_be_one_who_looks() -> None:
    user, out = make_user(), StringIO()

    call_command("create_operator", user.email, "--look", stdout=out)

    user = User.objects.get(id=user.id)
    assert "Password" not in out.getvalue()
    assert user.check_password(PASSWORD)
    assert (user.is_staff, user.is_superuser) == (True, False)
    assert user.has_perms(["tenants.view_tenant", "deliveries.view_delivery"])
    assert not user.has_perm("tenants.change_tenant")
    client = signed_in(with_second_factor(user))
    assert client.get("/admin/").status_code == 200
    assert client.get("/admin/tenants/tenant/").status_code == 200


def test_the_machine_lets_an_operator_in_who_lost_the_second_factor() -> None:
    user = make_operator()

    call_command("create_operator", user.email, stdout=StringIO())
    assert SecondFactor.objects.filter(user=user).exists()
    call_command("create_operator", user.email, "--reset-second-factor", stdout=StringIO())

    assert not SecondFactor.objects.filter(user=user).exists()
    assert platform_actions()[-1] == "account.second_factor_off"


def test_a_typo_makes_nobody() -> None:
    with pytest.raises(CommandError, match="no e-mail address"):
        call_command("create_operator", "not-an-address")


# --- the second factor ------------------------------------------------------------------------------------------------


def test_an_operator_without_a_second_factor_is_led_to_it(settings: Any) -> None:
    client = signed_in(make_user(is_staff=True, is_superuser=True))

    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    led = client.get("/admin/login/?next=/admin/", follow=True)
    assert led.redirect_chain == [("/portal/account/second-factor", 302)]
    assert "Operators need a second factor" in text_of(led)
    # Where the settings do not want one.
    settings.WEBHOOKS_OPERATORS_SECOND_FACTOR = False
    assert client.get("/admin/").status_code == 200


def test_an_operator_resets_the_second_factor_of_somebody_else() -> None:
    person = with_second_factor(make_member(make_tenant()))
    client = operator()
    page = reverse("admin:tenants_user_change", args=[person.pk])
    assert "Second factor on" in text_of(client.get(page))

    client.post(reverse("admin:act", args=["second-factor-off"]), {"ids": str(person.pk)})
    again = client.post(
        reverse("admin:act", args=["second-factor-off"]), {"ids": str(person.pk)}, follow=True
    )

    assert not SecondFactor.objects.filter(user=person).exists()
    assert "Second factor off" in text_of(client.get(page))
    assert "It could not be done: It has no second factor." in text_of(again)
    assert platform_actions()[-1] == "account.second_factor_off"


def test_an_operator_changes_the_own_password_where_everybody_does() -> None:
    assert operator().get("/admin/password_change/")["Location"] == "/portal/account/password"


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_a_closed_account_is_out_with_the_next_click_and_may_come_back() -> None:
    person = make_member(make_tenant())
    theirs, client = signed_in(person), operator()
    assert theirs.get("/portal/account").status_code == 200

    client.post(reverse("admin:act", args=["close-account"]), {"ids": str(person.pk)})

    assert theirs.get("/portal/account").status_code == 302
    answer = Client().post("/portal/sign-in", {"username": person.email, "password": PASSWORD})
    assert answer.status_code == 422
    client.post(reverse("admin:act", args=["open-account"]), {"ids": str(person.pk)})
    answer = Client().post("/portal/sign-in", {"username": person.email, "password": PASSWORD})
    assert answer.status_code == 302
    assert platform_actions()[-2:] == ["account.closed", "account.opened"]


def test_the_last_operator_cannot_be_closed_out() -> None:
    User.objects.filter(is_superuser=True).update(is_active=False)
    user = make_operator()
    client = signed_in(user)

    answer = client.post(reverse("admin:act", args=["close-account"]), {"ids": str(user.pk)}, follow=True)

    assert "Nobody with all rights would be left." in text_of(answer)
    user.refresh_from_db()
    assert user.is_active


def test_a_password_reset_is_sent_and_written_down() -> None:
    person = make_member(make_tenant())

    answer = operator().post(reverse("admin:act", args=["send-reset"]), {"ids": str(person.pk)}, follow=True)

    assert "Done." in text_of(answer)
    assert platform_actions()[-1] == "account.reset_sent"
