"""The own account: a forgotten password, a new one, a second step, a language. Alike for known and unknown addresses."""

import base64
import re
import time
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.core import mail
from django.http import HttpResponse
from django.test import Client

from tenants.ids import new_id
from tenants.models import User
from tenants.services import accounts, two_factor
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import PASSWORD, make_member, make_user, text_of

pytestmark = pytest.mark.usefixtures("database")

NEW = "a wholly different phrase"


def address() -> str:
    """Each test comes from one of its own, so that the counters of addresses do not meet."""
    return f"10.{new_id().int % 200}.{new_id().int % 200}.{new_id().int % 200}"


def sign_in(client: Client, user: User, password: str = PASSWORD) -> HttpResponse:
    form = {"username": user.email, "password": password}
    return client.post("/portal/sign-in", form, REMOTE_ADDR=address())  # type: ignore[return-value] # Django's own subclass


def path_of_reset(user: User) -> str:
    accounts.send_password_reset(email=user.email, language="en")
    (path,) = re.findall(r"/portal/reset/\S+", str(mail.outbox[-1].body))
    return str(path)


# --- a forgotten password ---------------------------------------------------------------------------------------------


def test_asking_says_and_does_the_same_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(accounts, "ask_for_reset", lambda **given: asked.append(given["email"]))
    known, unknown = make_user().email, f"{new_id().hex}@example.com"

    pages = []
    for email in (known, unknown):
        answer = Client().post("/portal/reset", {"email": email}, REMOTE_ADDR=address())
        pages.append(text_of(answer).replace(email, "…"))

    assert pages[0] == pages[1]
    assert "If … has an account here, a link for a new password is on its way to it." in pages[0]
    assert asked == [known, unknown]


def test_only_an_account_gets_mail() -> None:
    before = len(mail.outbox)

    for email in (f"{new_id().hex}@example.com", make_user(is_active=False).email):
        accounts.send_password_reset(email=email, language="en")

    assert len(mail.outbox) == before


def test_asking_is_rate_limited_alike() -> None:
    for email in (make_user().email, f"{new_id().hex}@example.com"):
        answers = [
            Client().post("/portal/reset", {"email": email}, REMOTE_ADDR=address()).status_code
            for _ in range(6)
        ]
        assert answers == [200] * 5 + [429]


def test_the_link_sets_a_password_once_and_ends_other_sessions() -> None:
    user, elsewhere, client = make_user(), Client(), Client()
    elsewhere.force_login(user)
    path = path_of_reset(user)

    assert user.email in text_of(client.get(path))
    done = client.post(path, {"password": NEW})

    assert done["Location"] == "/portal/sign-in"
    assert SESSION_KEY not in client.session
    assert elsewhere.get("/portal/account").status_code == 302
    assert sign_in(Client(), user).status_code == 422
    assert sign_in(Client(), user, NEW).status_code == 302
    again = Client().post(path, {"password": "something else again"})
    assert (again.status_code, "This link does not work" in text_of(again)) == (404, True)


def test_a_sign_in_ends_links_that_were_asked_for_before() -> None:
    user = make_user()
    path = path_of_reset(user)

    sign_in(Client(), user)

    assert Client().get(path).status_code == 404


def test_a_link_is_for_one_account_and_not_to_be_forged() -> None:
    user, other = make_user(), make_user()
    token = path_of_reset(user).rpartition("/")[2]
    theirs = path_of_reset(other).rpartition("/")[0]

    for path in (f"{theirs}/{token}", f"{theirs}/x", f"/portal/reset/usr_{'0' * 26}/{token}"):
        answer = Client().post(path, {"password": NEW})
        assert (answer.status_code, answer["Referrer-Policy"]) == (404, "no-referrer")
    assert sign_in(Client(), other).status_code == 302


# --- a second step ----------------------------------------------------------------------------------------------------


def with_second_step() -> tuple[User, bytes, list[str]]:
    user = make_user()
    secret = base64.b32decode(two_factor.begin(user))
    now = time.time()
    codes = two_factor.confirm(
        actor=COMMAND, user=user, code=two_factor.code_at(secret, int(now) // 30 - 1), now=now
    )
    return user, secret, codes


def code_now(secret: bytes) -> str:
    return two_factor.code_at(secret, int(time.time()) // 30)


def test_it_is_turned_on_by_a_code_and_asked_for_from_then_on() -> None:
    user, client = make_member(make_tenant()), Client()
    client.force_login(user)
    page = client.get("/portal/account/second-factor").content.decode()
    (shown,) = re.findall(r"<code>([A-Z2-7 ]{39})</code>", page)
    secret = base64.b32decode(shown.replace(" ", ""))
    assert 'src="data:image/svg+xml' in page

    wrong = client.post("/portal/account/second-factor", {"code": "no"}, REMOTE_ADDR=address())
    on = client.post("/portal/account/second-factor", {"code": code_now(secret)}, REMOTE_ADDR=address())

    assert (wrong.status_code, on.status_code) == (422, 200)
    assert len(re.findall(r"\b[a-z2-7]{4}(?:-[a-z2-7]{4}){3}\b", on.content.decode())) == 10
    assert sign_in(Client(), user)["Location"] == "/portal/sign-in/code"


def test_the_password_alone_opens_nothing() -> None:
    user, secret, codes = with_second_step()
    client = Client()

    half = sign_in(client, user)
    assert half["Location"] == "/portal/sign-in/code"
    assert client.get("/portal/account").status_code == 302
    wrong = client.post("/portal/sign-in/code", {"code": "000"}, REMOTE_ADDR=address())
    assert (wrong.status_code, client.get("/portal/account").status_code) == (422, 302)
    right = client.post("/portal/sign-in/code", {"code": code_now(secret)}, REMOTE_ADDR=address())

    assert (right.status_code, client.get("/portal/account").status_code) == (302, 200)
    other = Client()
    sign_in(other, user)
    assert other.post("/portal/sign-in/code", {"code": codes[0]}, REMOTE_ADDR=address()).status_code == 302


def test_the_second_step_is_for_who_did_the_first_one() -> None:
    assert Client().get("/portal/sign-in/code")["Location"] == "/portal/sign-in"
    user, secret, _ = with_second_step()
    client = Client()
    sign_in(client, user)
    session = client.session
    session["half_signed_in"] = [user.id.hex, int(time.time()) - 301, "portal-home"]
    session.save()

    late = client.post("/portal/sign-in/code", {"code": code_now(secret)}, REMOTE_ADDR=address())

    assert late["Location"] == "/portal/sign-in"
    assert SESSION_KEY not in client.session


def test_guessing_codes_is_stopped_from_wherever_it_comes() -> None:
    user, secret, _ = with_second_step()
    client = Client()
    sign_in(client, user)
    for _ in range(10):
        client.post("/portal/sign-in/code", {"code": "000000"}, REMOTE_ADDR=address())

    stopped = client.post("/portal/sign-in/code", {"code": code_now(secret)}, REMOTE_ADDR=address())

    assert (stopped.status_code, "Too many attempts." in text_of(stopped)) == (429, True)
    assert SESSION_KEY not in client.session


def test_it_is_turned_off_by_a_code() -> None:
    user, secret, _ = with_second_step()
    client = Client()
    client.force_login(user)

    assert (
        client.post("/portal/account/second-factor/off", {"code": "1"}, REMOTE_ADDR=address()).status_code
        == 422
    )
    assert two_factor.is_on(user)
    client.post("/portal/account/second-factor/off", {"code": code_now(secret)}, REMOTE_ADDR=address())

    assert not two_factor.is_on(user)
    assert sign_in(Client(), user)["Location"] == "/portal/"


# --- the account ------------------------------------------------------------------------------------------------------


def test_a_new_password_takes_the_present_one_and_ends_other_sessions() -> None:
    user, client, elsewhere = make_user(), Client(), Client()
    client.force_login(user)
    elsewhere.force_login(user)

    def change(old: str) -> Any:
        form = {"old": old, "password": NEW}
        return client.post("/portal/account/password", form, REMOTE_ADDR=address())

    assert "This is not your present password." in text_of(change("wrong"))
    assert change(PASSWORD).status_code == 302

    assert client.get("/portal/account").status_code == 200
    assert elsewhere.get("/portal/account").status_code == 302
    assert sign_in(Client(), user, NEW).status_code == 302


def test_a_name_is_changed() -> None:
    user, client = make_user(), Client()
    client.force_login(user)

    client.post("/portal/account", {"name": "Ada <b>"})

    assert 'value="Ada &lt;b&gt;"' in client.get("/portal/account").content.decode()


def test_who_came_by_a_link_has_no_account() -> None:
    client = Client()
    assert client.get("/portal/account")["Location"].startswith("/portal/sign-in")


def test_a_language_is_kept_with_the_account() -> None:
    user, client = make_user(), Client()
    client.force_login(user)

    client.post("/portal/language", {"language": "de", "next": "/portal/account"})

    assert '<html lang="de">' in client.get("/portal/account").content.decode()
    elsewhere = Client()
    sign_in(elsewhere, user)
    assert '<html lang="de">' in elsewhere.get("/portal/account").content.decode()


@pytest.mark.parametrize("language", ["xx", "", "../../etc"])
def test_an_unknown_language_changes_nothing(language: str) -> None:
    client = Client()

    answer = client.post("/portal/language", {"language": language, "next": "https://evil.example.com/"})

    assert (answer["Location"], "django_language" in client.cookies) == ("/portal/", False)
