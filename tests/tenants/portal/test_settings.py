"""Settings of a tenant: members, keys, audit log, notifications; each for whom it is, and written down."""

import csv
import io
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tenants import counting, ids
from tenants.models import ApiKey, AuditEntry, EventType, Member, Tenant, User
from tenants.services import audit, invitations, members, notifications
from tenants.services.audit import Actor
from tenants.services.notifications import About, Digest, Wanted
from tests.deliveries.portal.test_pages import check_policy
from tests.support.api import Api, make_key, make_tenant
from tests.support.portal import actions_of, browser, make_member, text_of

pytestmark = pytest.mark.usefixtures("database")

ADMIN_PAGES = ["members", "keys", "keys/new", "audit", "audit.csv", "look"]


@pytest.mark.parametrize("page", ADMIN_PAGES)
@pytest.mark.parametrize("role", ["viewer", "developer"])
def test_they_are_for_admins(page: str, role: str) -> None:
    tenant = make_tenant()
    path = f"/portal/{tenant.slug}/settings/{page}"

    refused = browser(tenant, role).get(path)

    assert refused.status_code == 403
    assert "It needs the role admin." in text_of(refused)
    assert browser(tenant, "admin").get(path).status_code == 200


def test_everybody_finds_what_is_theirs() -> None:
    tenant = make_tenant()
    start = f"/portal/{tenant.slug}/settings"

    assert browser(tenant, "admin").get(start)["Location"] == f"{start}/members"
    assert browser(tenant, "viewer").get(start)["Location"] == f"{start}/notifications"


@pytest.mark.parametrize(
    "page",
    [
        "settings/members",
        "settings/keys",
        "settings/keys/new",
        "settings/audit",
        "settings/notifications",
        "settings/channel",
        "settings/look",
        "catalogue",
        "catalogue/types/order.created",
    ],
)
def test_they_keep_to_the_policy_and_ask_little_of_the_database(page: str) -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="order.created")
    client = browser(tenant, "admin")
    for _ in range(3):
        make_member(tenant)
        make_key(tenant)

    with CaptureQueriesContext(connection) as queries:
        response = client.get(f"/portal/{tenant.slug}/{page}")

    assert response.status_code == 200
    check_policy(response)
    assert len(queries) <= 9


# --- members ----------------------------------------------------------------------------------------------------------


def member_of(tenant: Tenant, user: User) -> Member:
    member: Member = Member.objects.for_tenant(tenant).get(user=user)
    return member


def path_to(tenant: Tenant, member: Member, verb: str) -> str:
    return f"/portal/{tenant.slug}/settings/members/{ids.to_text('mem', member.id)}/{verb}"


def test_a_role_is_changed_and_felt_at_once() -> None:
    tenant = make_tenant()
    client = browser(tenant, "admin")
    user = make_member(tenant, "viewer")
    theirs = Client()
    theirs.force_login(user)
    assert theirs.get(f"/portal/{tenant.slug}/endpoints/new").status_code == 403

    client.post(path_to(tenant, member_of(tenant, user), "role"), {"role": "developer"})

    assert theirs.get(f"/portal/{tenant.slug}/endpoints/new").status_code == 200
    entry = AuditEntry.objects.filter(tenant=tenant).latest("id")
    assert (entry.action, entry.before, entry.after) == (
        "member.changed",
        {"role": "viewer"},
        {"role": "developer"},
    )


def test_who_is_removed_is_a_stranger() -> None:
    tenant = make_tenant()
    client = browser(tenant, "admin")
    user = make_member(tenant, "developer")
    theirs = Client()
    theirs.force_login(user)

    page = client.post(path_to(tenant, member_of(tenant, user), "remove"), follow=True)

    assert f"{user.email} is no member any more." in text_of(page)
    assert theirs.get(f"/portal/{tenant.slug}/endpoints").status_code == 404
    assert actions_of(tenant)[-1] == "member.removed"


@pytest.mark.parametrize(("verb", "form"), [("role", {"role": "viewer"}), ("remove", {})])
def test_the_last_admin_stays(verb: str, form: dict[str, str]) -> None:
    tenant = make_tenant()
    admin = make_member(tenant, "admin")
    make_member(tenant, "developer")
    client = Client()
    client.force_login(admin)
    before = actions_of(tenant)

    page = client.post(path_to(tenant, member_of(tenant, admin), verb), form, follow=True)

    assert "This is the only admin. Make somebody else an admin first." in text_of(page)
    assert member_of(tenant, admin).role == "admin"
    assert actions_of(tenant) == before


def test_an_admin_may_go_when_there_is_another() -> None:
    tenant = make_tenant()
    one, other = make_member(tenant, "admin"), make_member(tenant, "admin")
    client = Client()
    client.force_login(one)

    left = client.post(path_to(tenant, member_of(tenant, one), "remove"))

    assert left["Location"] == "/portal/"
    assert list(members.members_of(tenant).values_list("user", flat=True)) == [other.id]


def test_another_tenants_member_is_not_there() -> None:
    tenant, other = make_tenant(), make_tenant()
    theirs = member_of(other, make_member(other, "developer"))
    client = browser(tenant, "admin")

    assert client.post(path_to(tenant, theirs, "role"), {"role": "admin"}).status_code == 404
    assert client.post(path_to(tenant, theirs, "remove")).status_code == 404
    assert Member.objects.for_tenant(other).get(id=theirs.id).role == "developer"


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_works_and_is_revoked() -> None:
    tenant = make_tenant()
    client = browser(tenant, "admin")
    form = {"name": "shop", "scopes": ["events:read"], "expires_at": "", "rate_limit": ""}

    made = client.post(f"/portal/{tenant.slug}/settings/keys/new", form)

    (text,) = re.findall(r"whk_[A-Za-z0-9_-]{43}", made.content.decode())
    assert "no-store" in made["Cache-Control"]
    assert Api(text).get(f"/tenants/{tenant.slug}/events").status_code == 200
    assert Api(text).get(f"/tenants/{tenant.slug}/endpoints").status_code == 403
    listed = client.get(f"/portal/{tenant.slug}/settings/keys")
    assert text not in listed.content.decode()
    assert f"shop {text[:12]}… events:read" in text_of(listed)

    key = ApiKey.objects.get(tenant=tenant)
    client.post(f"/portal/{tenant.slug}/settings/keys/{ids.to_text('key', key.id)}/revoke")

    assert Api(text).get(f"/tenants/{tenant.slug}/events").status_code == 401
    assert actions_of(tenant)[-2:] == ["api_key.created", "api_key.revoked"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": ""}, "This field is required."),
        ({"scopes": []}, "Choose at least one."),
        ({"scopes": ["everything"]}, "Select a valid choice."),
        ({"expires_at": "2020-01-01T00:00"}, "Must be in the future."),
        ({"expires_at": "soon"}, "Must be an RFC 3339 time"),
        ({"rate_limit": "0"}, "greater than or equal to 1"),
    ],
)
def test_a_form_that_is_wrong_says_so_and_makes_no_key(changed: dict[str, Any], says: str) -> None:
    tenant = make_tenant()
    form = {"name": "my shop", "scopes": ["events:read"], "expires_at": "", "rate_limit": ""} | changed

    answer = browser(tenant, "admin").post(f"/portal/{tenant.slug}/settings/keys/new", form)

    assert (answer.status_code, says in text_of(answer)) == (422, True)
    assert ("my shop" in answer.content.decode()) == ("name" not in changed)
    assert not ApiKey.objects.filter(tenant=tenant).exists()


# --- audit log --------------------------------------------------------------------------------------------------------


def written(tenant: Tenant, *actions: str, label: str = "") -> None:
    for action in actions:
        audit.record(actor=Actor("key", "key_x", label), tenant=tenant, action=action, after={"note": label})


def actions_on(page: Any) -> list[str]:
    return re.findall(r"<code>([a-z_]+\.[a-z_]+)</code>", page.content.decode())


def test_the_log_is_filtered() -> None:
    tenant, other = make_tenant(), make_tenant()
    written(tenant, "endpoint.created", "secret.read", label="Ada")
    written(tenant, "endpoint.deleted", label="Bob")
    written(other, "endpoint.created", label="Mallory")
    client = browser(tenant, "admin")
    path = f"/portal/{tenant.slug}/settings/audit"

    assert actions_on(client.get(path, {"action": "endpoint"})) == ["endpoint.deleted", "endpoint.created"]
    assert actions_on(client.get(path, {"actor": "ada"})) == ["secret.read", "endpoint.created"]
    assert actions_on(client.get(path, {"until": "2020-01-01T00:00"})) == []
    assert "Mallory" not in client.get(path).content.decode()
    wrong = client.get(path, {"since": "yesterday", "action": "x"})
    assert (wrong.status_code, 'value="x"' in wrong.content.decode()) == (422, True)


def test_it_is_paged_by_key() -> None:
    tenant = make_tenant()
    written(tenant, *["a.b"] * 40)
    client = browser(tenant, "admin")
    path = f"/portal/{tenant.slug}/settings/audit"

    first = client.get(path, {"action": "a.b"})
    older = re.search(r'rel="next"\s+href="([^"]*)"', first.content.decode())
    assert older is not None
    second = client.get(path + older[1].replace("&amp;", "&"))

    assert [len(actions_on(first)), len(actions_on(second))] == [30, 10]


def test_a_spreadsheet_runs_nothing_of_it() -> None:
    tenant = make_tenant()
    written(tenant, "a.b", label='=HYPERLINK("https://evil.example")')
    AuditEntry.objects.create(tenant=tenant, actor_kind="key", actor="@SUM(1)", action="c.d", target="-1+1")

    answer = browser(tenant, "admin").get(f"/portal/{tenant.slug}/settings/audit.csv", {"until": ""})
    rows = list(csv.DictReader(io.StringIO(b"".join(answer).decode())))

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    found = {row["action"]: row for row in rows}
    assert (found["c.d"]["actor"], found["c.d"]["target"]) == ("'@SUM(1)", "'-1+1")
    assert [row["action"] for row in rows] == ["member.added", "c.d", "a.b", "tenant.created"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


# --- notifications ----------------------------------------------------------------------------------------------------


def test_a_member_chooses_and_whoever_sends_learns_of_it() -> None:
    tenant = make_tenant()
    viewer, other = make_member(tenant, "viewer"), make_member(tenant, "developer")
    client = Client()
    client.force_login(viewer)
    path = f"/portal/{tenant.slug}/settings/notifications"
    assert notifications.people_to_tell(tenant=tenant, about=About.FAILING) == sorted(
        [viewer, other], key=lambda user: user.email
    )

    client.post(path, {"disabled": "on", "digest": "weekly"})

    assert notifications.wanted_by(tenant=tenant, user=viewer) == Wanted(
        failing=False, disabled=True, digest=Digest.WEEKLY
    )
    assert notifications.people_to_tell(tenant=tenant, about=About.FAILING) == [other]
    assert notifications.digest_readers(tenant=tenant, digest=Digest.WEEKLY) == [viewer]
    assert client.get(path).content.decode().count("checked") == 1
    assert actions_of(tenant)[-1] == "notifications.changed"


def test_what_was_never_chosen_is_told_of_failures_alone() -> None:
    tenant = make_tenant()
    user = make_member(tenant)

    assert notifications.wanted_by(tenant=tenant, user=user) == notifications.DEFAULT
    assert notifications.digest_readers(tenant=tenant, digest=Digest.DAILY) == []


def test_who_is_not_active_is_told_nothing() -> None:
    tenant = make_tenant()
    user = make_member(tenant)
    User.objects.filter(id=user.id).update(is_active=False)

    assert notifications.people_to_tell(tenant=tenant, about=About.DISABLED) == []


# --- invitations, as the page shows them ------------------------------------------------------------------------------


def invite(client: Client, tenant: Tenant, email: str, role: str = "viewer") -> Any:
    return client.post(f"/portal/{tenant.slug}/settings/members", {"email": email, "role": role}, follow=True)


def test_inviting_says_the_same_of_known_and_unknown_addresses() -> None:
    tenant = make_tenant()
    client = browser(tenant, "admin")
    known = make_member(make_tenant())

    answers = [text_of(invite(client, tenant, email)) for email in (known.email, "nobody@example.com")]

    for answer, email in zip(answers, (known.email, "nobody@example.com"), strict=True):
        assert f"{email} gets an e-mail with the invitation." in answer
        assert f"{email} viewer · on its way Send again End" in answer


def test_members_and_those_who_are_invited_are_not_invited_again() -> None:
    tenant = make_tenant()
    client = browser(tenant, "admin")
    member = make_member(tenant)
    invite(client, tenant, "ada@example.com")

    assert "This person is a member already." in text_of(invite(client, tenant, member.email))
    assert "This person is invited already." in text_of(invite(client, tenant, "ADA@example.com"))
    assert invitations.open_invitations(tenant).count() == 1


def test_nobody_writes_to_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant()
    monkeypatch.setattr(invitations, "MOST_OPEN", 1)
    client = browser(tenant, "admin")
    invite(client, tenant, "one@example.com")

    refused = invite(client, tenant, "two@example.com")

    assert "Too many invitations are open." in text_of(refused)


def test_one_address_gets_five_e_mails_an_hour() -> None:
    tenant, other = make_tenant(), make_tenant()
    client = browser(tenant, "admin")
    root = f"/portal/{tenant.slug}/settings/invitations"
    answers = []
    for _ in range(3):
        answers.append(invite(client, tenant, "ada@example.com"))
        row = invitations.open_invitations(tenant).get()
        path = f"{root}/{ids.to_text('inv', row.id)}"
        answers.append(client.post(f"{path}/again", follow=True))
        if len(answers) < 6:
            client.post(f"{path}/end")

    said = ["Too many attempts. Try again in 60 minutes." in text_of(answer) for answer in answers]
    assert said == [False] * 5 + [True]
    client.post(f"{path}/end")
    refused = invite(client, tenant, "Ada@example.com")
    assert (refused.status_code, invitations.open_invitations(tenant).count()) == (422, 0)
    assert "Too many attempts." in text_of(refused)
    assert actions_of(tenant).count("invitation.created") == 3
    assert actions_of(tenant).count("invitation.sent_again") == 2
    # Another tenant's are counted apart, and other addresses too.
    assert invite(browser(other, "admin"), other, "ada@example.com").status_code == 200
    assert invite(client, tenant, "eve@example.com").status_code == 200


def test_a_tenant_sends_a_hundred_invitations_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "INVITATIONS_PER_TENANT", 2)
    tenant = make_tenant()
    client = browser(tenant, "admin")

    answers = [invite(client, tenant, f"{name}@example.com") for name in ("ada", "eve", "bob")]

    assert ["Too many attempts." in text_of(answer) for answer in answers] == [False, False, True]
    assert invitations.open_invitations(tenant).count() == 2


def test_an_invitation_is_ended() -> None:
    tenant = make_tenant()
    client = browser(tenant, "admin")
    invite(client, tenant, "ada@example.com")
    row = invitations.open_invitations(tenant).get()
    path = f"/portal/{tenant.slug}/settings/invitations/{ids.to_text('inv', row.id)}"

    client.post(f"{path}/end")

    assert invitations.open_invitations(tenant).count() == 0
    assert client.post(f"{path}/again").status_code == 404
    assert actions_of(tenant)[-2:] == ["invitation.created", "invitation.ended"]
