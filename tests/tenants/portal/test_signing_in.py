"""Sign-in and out: alike for known and unknown, rate-limited, and back to where one came from."""

import pytest
from django.contrib.auth import SESSION_KEY
from django.http import HttpResponse
from django.test import Client

from tenants.counting import SIGN_INS_PER_PAIR
from tenants.ids import new_id
from tests.support.api import make_tenant
from tests.support.portal import PASSWORD, browser, make_member, make_user, text_of

pytestmark = pytest.mark.usefixtures("database")


def sign_in(client: Client, email: str, password: str = PASSWORD, **more: str) -> HttpResponse:
    # Each test comes from an address of its own, so that the counters of addresses do not meet.
    address = f"10.{new_id().int % 200}.{new_id().int % 200}.{new_id().int % 200}"
    form = {"username": email, "password": password, **more}
    return client.post("/portal/sign-in", form, REMOTE_ADDR=more.pop("address", address))  # type: ignore[return-value] # Django's own subclass


def test_a_member_of_one_tenant_lands_in_it() -> None:
    tenant = make_tenant()
    user = make_member(tenant)
    client = Client()

    response = sign_in(client, user.email.upper())

    assert (response.status_code, response["Location"]) == (302, "/portal/")
    assert client.get("/portal/")["Location"] == f"/portal/{tenant.slug}/"
    assert client.get(f"/portal/{tenant.slug}/").status_code == 200
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 200


def test_a_member_of_several_chooses_and_sees_no_other() -> None:
    one, two, other = make_tenant(name="First one"), make_tenant(name="Second one"), make_tenant(name="Other")
    user = make_member(one, "admin")
    make_member(two, "viewer", user)
    client = Client()
    client.force_login(user)

    page = text_of(client.get("/portal/"))

    assert f"First one {one.slug} · admin Second one {two.slug} · viewer" in page
    assert other.slug not in page


@pytest.mark.parametrize("path", ["/portal/%00/", "/portal/a%00b/endpoints", "/embed/portal/%00/"])
def test_what_no_tenant_can_be_called_is_not_there(path: str) -> None:
    member = browser(make_tenant(), "admin")

    answers = [client.get(path) for client in (member, Client())]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert "There is no such page" in text_of(answers[0])


def test_somebody_without_a_tenant_is_told_what_to_do() -> None:
    client = Client()
    client.force_login(make_user())

    assert "You are not a member of any tenant yet." in text_of(client.get("/portal/"))


def test_a_wrong_password_and_an_unknown_or_inactive_account_look_alike() -> None:
    known, inactive = make_user(), make_user(is_active=False)
    answers = [
        sign_in(Client(), known.email, "wrong"),
        sign_in(Client(), inactive.email),
        sign_in(Client(), f"{new_id().hex}@example.com"),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422]
    pages = {text_of(answer) for answer in answers}
    assert len(pages) == 1
    assert "The e-mail address or the password is wrong." in pages.pop()


def test_the_session_key_changes_at_sign_in() -> None:
    user = make_member(make_tenant())
    client = Client()
    client.session.save()
    session = client.session
    session["planted"] = "by somebody"
    session.save()
    before = client.cookies["sessionid"].value

    sign_in(client, user.email)

    assert client.cookies["sessionid"].value != before


def test_guessing_is_stopped_even_with_the_right_password() -> None:
    user = make_user()
    client = Client(REMOTE_ADDR="10.9.8.7")
    form = {"username": user.email, "password": "wrong"}
    guesses = [client.post("/portal/sign-in", form).status_code for _ in range(SIGN_INS_PER_PAIR)]

    stopped = client.post("/portal/sign-in", {**form, "password": PASSWORD})

    assert guesses == [422] * SIGN_INS_PER_PAIR
    assert stopped.status_code == 429
    assert 0 < int(stopped["Retry-After"]) <= 900
    assert "Too many attempts." in text_of(stopped)
    assert SESSION_KEY not in client.session
    # The owner, from elsewhere, is not locked out.
    assert sign_in(Client(), user.email).status_code == 302


def test_unknown_accounts_are_counted_alike() -> None:
    email = f"{new_id().hex}@example.com"
    client = Client(REMOTE_ADDR="10.9.8.6")

    answers = [
        client.post("/portal/sign-in", {"username": email, "password": "x"}).status_code
        for _ in range(SIGN_INS_PER_PAIR + 1)
    ]

    assert answers[-2:] == [422, 429]


def test_the_right_password_forgives_what_was_mistyped() -> None:
    user = make_user()
    for _ in range(2):
        client = Client(REMOTE_ADDR="10.9.8.5")
        for _ in range(SIGN_INS_PER_PAIR - 1):
            client.post("/portal/sign-in", {"username": user.email, "password": "wrong"})
        right = client.post("/portal/sign-in", {"username": user.email, "password": PASSWORD})
        assert right.status_code == 302


@pytest.mark.parametrize(
    ("wanted", "led_to"),
    [
        ("/portal/acme/events?type=a", "/portal/acme/events?type=a"),
        ("https://evil.example.com/", "/portal/"),
        ("//evil.example.com/", "/portal/"),
        ("javascript:alert(1)", "/portal/"),
        ("nowhere", "/portal/"),
        ("portal-account", "/portal/"),
        ("", "/portal/"),
    ],
)
def test_it_leads_back_to_pages_of_ours_alone(wanted: str, led_to: str) -> None:
    client = Client()

    response = sign_in(client, make_user().email, next=wanted)
    again = client.get("/portal/sign-in", {"next": wanted})
    in_german = client.post("/portal/language", {"language": "de", "next": wanted})

    assert [answer["Location"] for answer in (response, again, in_german)] == [led_to] * 3


def test_signing_out_takes_a_post_and_ends_everything() -> None:
    tenant = make_tenant()
    client = browser(tenant)

    assert client.get("/portal/sign-out").status_code == 405
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 200
    assert client.post("/portal/sign-out")["Location"] == "/portal/sign-in"
    assert client.get(f"/portal/{tenant.slug}/endpoints").status_code == 302


def test_a_part_of_a_page_is_not_replaced_by_the_sign_in_form() -> None:
    response = Client(headers={"HX-Request": "true"}).get("/portal/acme/deliveries/dlv_x/progress")

    assert (response.status_code, response["HX-Redirect"]) == (200, "/portal/sign-in")
