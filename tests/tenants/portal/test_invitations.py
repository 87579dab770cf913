"""Invitations: sent by a worker, accepted once, by the person they are for."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.core import mail
from django.test import Client
from django.utils import timezone

from tenants import access
from tenants.models import Invitation, Member, Tenant, User
from tenants.services import invitations, tenants
from tenants.services.audit import COMMAND
from tenants.tasks import send_invitations
from tests.support.api import make_tenant
from tests.support.portal import PASSWORD, actions_of, make_user, text_of

pytestmark = pytest.mark.usefixtures("database")

FORM = {"name": "Ada", "password": PASSWORD}


def invited(tenant: Tenant, email: str, role: str = "developer", language: str = "en") -> Invitation:
    return invitations.invite(
        actor=COMMAND, tenant=tenant, email=email, role=Member.Role(role), language=language
    )


def path_in_mail(email: str) -> str:
    """Of the last e-mail to that address, after a worker sent what waits."""
    send_invitations()
    sent = [each for each in mail.outbox if each.to == [email]]
    (path,) = re.findall(r"/portal/invitation/\S+", str(sent[-1].body))
    return str(path)


def new_address() -> str:
    return f"{timezone.now().timestamp():.6f}@example.com"


def test_somebody_new_chooses_a_password_and_is_in() -> None:
    tenant, email = make_tenant(name="Acme"), new_address()
    invited(tenant, email)
    path = path_in_mail(email)
    client = Client()

    looks = [client.get(path) for _ in range(2)]
    accepted = client.post(path, FORM)

    assert ["The webhooks of Acme" in text_of(look) for look in looks] == [True, True]
    assert (accepted.status_code, accepted["Location"]) == (302, f"/portal/{tenant.slug}/")
    user = User.objects.get(email=email)
    assert (user.name, user.check_password(PASSWORD)) == ("Ada", True)
    assert Member.objects.for_tenant(tenant).get(user=user).role == "developer"
    assert "Welcome to Acme. You are developer here." in text_of(
        client.get(accepted["Location"], follow=True)
    )
    assert actions_of(tenant) == ["tenant.created", "invitation.created", "member.added"]
    for response in (*looks, accepted):
        assert response["Referrer-Policy"] == "no-referrer"
        assert "no-store" in response["Cache-Control"]


def test_it_works_once() -> None:
    tenant, email = make_tenant(), new_address()
    invited(tenant, email)
    path = path_in_mail(email)
    Client().post(path, FORM)

    again = Client().post(path, FORM | {"name": "Mallory"})

    assert (again.status_code, "This link does not work" in text_of(again)) == (404, True)
    assert User.objects.get(email=email).name == "Ada"


def test_the_database_holds_no_token_and_a_forged_one_costs_no_query(
    django_assert_max_num_queries: Any,
) -> None:
    tenant, email = make_tenant(), new_address()
    row = invited(tenant, email)
    path = path_in_mail(email)
    token = path.rpartition("/")[2]
    row.refresh_from_db()

    assert bytes(row.hash or b"") == access.hash_of(token)
    with django_assert_max_num_queries(0), pytest.raises(invitations.InvitationNotUsable):
        invitations.find("x" * 43 + ":" + token.partition(":")[2])


@pytest.mark.parametrize("end", ["expired", "ended", "sent again", "tenant deleted", "unknown"])
def test_a_link_that_cannot_be_used_says_so_without_saying_why(end: str) -> None:
    tenant, email = make_tenant(), new_address()
    row = invited(tenant, email)
    path = path_in_mail(email)
    rows = Invitation.objects.for_tenant(tenant).filter(id=row.id)

    match end:
        case "expired":
            rows.update(expires_at=timezone.now() - timedelta(seconds=1))
        case "ended":
            invitations.end(actor=COMMAND, tenant=tenant, invitation_id=row.id)
        case "sent again":
            invitations.send_again(actor=COMMAND, tenant=tenant, invitation_id=row.id)
            assert path_in_mail(email) != path
        case "tenant deleted":
            tenants.delete_tenant(actor=COMMAND, tenant=tenant)
        case _:
            path = f"/portal/invitation/{invitations.new_token()}"

    for answer in (Client().get(path), Client().post(path, FORM)):
        assert (answer.status_code, "This link does not work" in text_of(answer)) == (404, True)
    assert not User.objects.filter(email=email).exists()


def test_somebody_with_an_account_signs_in_to_accept() -> None:
    tenant, user = make_tenant(), make_user()
    invited(tenant, user.email, "viewer")
    path = path_in_mail(user.email)
    client = Client()

    asked = client.post(path, FORM)
    assert "You have an account here. Sign in to accept." in text_of(asked)
    assert not Member.objects.for_tenant(tenant).exists()
    client.force_login(user)
    accepted = client.post(path)

    assert accepted["Location"] == f"/portal/{tenant.slug}/"
    assert Member.objects.for_tenant(tenant).get().role == "viewer"
    assert user.check_password(PASSWORD)


def test_somebody_else_cannot_accept_it() -> None:
    tenant, email = make_tenant(), new_address()
    invited(tenant, email)
    path = path_in_mail(email)
    client = Client()
    client.force_login(make_user())

    answer = client.post(path, FORM)

    assert "the invitation is for somebody else" in text_of(answer)
    assert not Member.objects.for_tenant(tenant).exists()


@pytest.mark.parametrize("password", ["short", "password123", "1234567890"])
def test_a_weak_password_is_refused_beside_its_field(password: str) -> None:
    tenant, email = make_tenant(), new_address()
    invited(tenant, email)
    client = Client()

    answer = client.post(path_in_mail(email), {"name": "Ada", "password": password})

    assert (answer.status_code, 'value="Ada"' in answer.content.decode()) == (422, True)
    assert SESSION_KEY not in client.session
    assert not User.objects.filter(email=email).exists()


def test_the_mail_is_in_the_language_of_whoever_invites_and_names_them() -> None:
    tenant, email = make_tenant(name="Acme & Sons"), new_address()
    invited(tenant, email)
    send_invitations()

    (sent,) = [each for each in mail.outbox if each.to == [email]]
    assert sent.subject == "You are invited to the webhooks of Acme & Sons"
    assert "manage.py invites you to the webhooks of Acme & Sons." in str(sent.body)
    assert "lasts 7 days and works once" in str(sent.body)


def test_a_mail_server_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, email = make_tenant(), new_address()
    row = invited(tenant, email)

    def fail(*_args: Any, **_options: Any) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as away:
        away.setattr("django.core.mail.EmailMessage.send", fail)
        send_invitations()
    assert row.id in invitations.unsent()

    assert path_in_mail(email)
    assert row.id not in invitations.unsent()
