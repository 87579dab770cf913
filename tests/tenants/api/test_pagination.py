"""Lists by cursor, forward and back, while rows arrive and go."""

import json
import string
from typing import Any
from uuid import UUID

import pytest

from tenants.api.pagination import page
from tenants.models import EventType, Tenant
from tenants.paging import read_cursor
from tests.support.api import Api, make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")


class Catalogue:
    """A tenant with types named by letters, the oldest first; `shared` ones of other tests are left out."""

    def __init__(self, letters: str) -> None:
        self.tenant: Tenant = make_tenant()
        self.api: Api = tenant_api(self.tenant, "catalogue:read", "catalogue:write")
        self.path = f"/tenants/{self.tenant.slug}/event-types"
        self.add(letters)

    def add(self, letters: str) -> None:
        for letter in letters:
            EventType.objects.create(tenant=self.tenant, name=letter)

    def remove(self, letters: str) -> None:
        EventType.objects.filter(tenant=self.tenant, name__in=list(letters)).delete()

    def page(self, *, limit: int, cursor: str | None = None) -> tuple[str, str | None, str | None]:
        """The names of a page as one text, and its cursors."""
        query: dict[str, Any] = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        document = json.loads(self.api.get(self.path, **query).content)
        assert document.keys() == {"data", "next_cursor", "prev_cursor"}
        return (
            "".join(each["name"] for each in document["data"]),
            document["next_cursor"],
            document["prev_cursor"],
        )


@pytest.fixture(autouse=True)
def no_shared_types(database: None) -> None:
    EventType.objects.filter(tenant__isnull=True).delete()


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 250])
def test_forward_and_back_again_give_the_same_pages(limit: int) -> None:
    letters = string.ascii_lowercase[:7]
    catalogue = Catalogue(letters)

    forward: list[str] = []
    cursor: str | None = None
    while True:
        names, cursor, previous = catalogue.page(limit=limit, cursor=cursor)
        assert (previous is None) == (not forward)
        forward.append(names)
        if cursor is None:
            break
    back = [forward[-1]]
    while previous is not None:
        names, following, previous = catalogue.page(limit=limit, cursor=previous)
        assert following is not None
        back.append(names)

    assert "".join(forward) == letters[::-1]
    assert back == forward[::-1]


def test_an_empty_list_has_no_cursors() -> None:
    assert Catalogue("").page(limit=2) == ("", None, None)


def test_rows_that_arrive_are_neither_skipped_nor_repeated() -> None:
    catalogue = Catalogue("abcdef")
    first, cursor, _ = catalogue.page(limit=2)

    catalogue.add("gh")
    second, cursor, previous = catalogue.page(limit=2, cursor=cursor)
    catalogue.add("i")
    third, last, _ = catalogue.page(limit=2, cursor=cursor)
    before_second, _, before = catalogue.page(limit=2, cursor=previous)
    newest, _, before_newest = catalogue.page(limit=2, cursor=before)
    one_more, _, nothing = catalogue.page(limit=2, cursor=before_newest)

    assert (first, second, third, last) == ("fe", "dc", "ba", None)
    # Backward come the page that was first, and then what arrived since.
    assert (before_second, newest, one_more, nothing) == ("fe", "hg", "i", None)


def test_rows_that_go_leave_no_gap() -> None:
    catalogue = Catalogue("abcdef")
    _, cursor, _ = catalogue.page(limit=2)

    catalogue.remove("ed")
    second, _, previous = catalogue.page(limit=2, cursor=cursor)
    first, _, _ = catalogue.page(limit=2, cursor=previous)

    assert (second, first) == ("cb", "f")


def test_a_page_whose_rows_are_all_gone_leads_to_those_that_are_left() -> None:
    catalogue = Catalogue("abcd")
    _, cursor, _ = catalogue.page(limit=2)
    catalogue.remove("ab")
    behind, none, back = catalogue.page(limit=2, cursor=cursor)
    again, _, _ = catalogue.page(limit=2, cursor=back)

    catalogue.remove("d")
    catalogue.add("xyz")
    _, _, before_all = catalogue.page(limit=2, cursor=cursor)
    assert (behind, none, again) == ("", None, "dc")
    assert before_all is not None
    names, following, _ = catalogue.page(limit=5, cursor=before_all)
    assert (names, following is not None) == ("zyxc", True)


def test_before_the_first_row_that_is_left_lies_nothing_but_the_way_back() -> None:
    catalogue = Catalogue("abc")
    _, cursor, _ = catalogue.page(limit=1)
    _, _, previous = catalogue.page(limit=1, cursor=cursor)
    catalogue.remove("c")

    names, following, none = catalogue.page(limit=1, cursor=previous)

    assert (names, none) == ("", None)
    assert following is not None
    assert catalogue.page(limit=2, cursor=following)[0] == "ba"


def test_a_cursor_of_a_stranger_shows_only_ones_own_rows() -> None:
    mine, other = Catalogue("abc"), Catalogue("xyz")
    _, cursor, _ = other.page(limit=1)

    names, _, _ = mine.page(limit=250, cursor=cursor)

    assert set(names) <= set("abc")


def test_keys_of_several_columns_rise_and_fall_together() -> None:
    catalogue = Catalogue("abcdef")
    for letter, group in zip("abcdef", "221133", strict=True):
        EventType.objects.filter(tenant=catalogue.tenant, name=letter).update(group=group)
    rows = EventType.objects.filter(tenant=catalogue.tenant)

    def walk(*, ascending: bool, limit: int) -> tuple[str, str]:
        forward, back = "", ""
        query: dict[str, Any] = {"limit": limit, "cursor": None}
        while True:
            answer = page(
                query, rows, serialize=lambda row: row.name, keys=("group", "name"), ascending=ascending
            ).data
            forward += "".join(answer["data"])
            if answer["next_cursor"] is None:
                break
            query["cursor"] = answer["next_cursor"]
        while answer["prev_cursor"] is not None:
            query["cursor"] = answer["prev_cursor"]
            answer = page(
                query, rows, serialize=lambda row: row.name, keys=("group", "name"), ascending=ascending
            ).data
            back = "".join(answer["data"]) + back
        return forward, back

    assert walk(ascending=True, limit=2) == ("cdabef", "cdab")
    assert walk(ascending=False, limit=4) == ("febadc", "feba")


def test_a_cursor_keeps_the_type_of_its_key() -> None:
    catalogue = Catalogue("ab")
    _, cursor, _ = catalogue.page(limit=1)
    assert cursor is not None

    read = read_cursor(cursor, EventType, ("id",))

    assert read.direction == "after"
    assert isinstance(read.key[0], UUID)
