"""Packs in the portal: a list, a page each, one click."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.models import EventType, Tenant
from tenants.packs import all_packs
from tenants.services import packs
from tenants.services.audit import COMMAND
from tenants.services.event_types import update_event_type
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def tenant() -> Tenant:
    EventType.objects.filter(tenant__isnull=True).delete()
    return make_tenant()


def names_of(tenant: Tenant) -> list[str]:
    return sorted(EventType.objects.filter(tenant=tenant).values_list("name", flat=True))


def test_one_click_installs_a_pack(tenant: Tenant) -> None:
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/catalogue/packs"

    before = text_of(client.get(path))
    answer = client.post(f"{path}/accounts/install")
    after = text_of(client.get(path))

    assert "Install Accounts" in before
    assert (answer.status_code, answer["Location"]) == (302, path)
    assert "2 event types are in place." in after
    assert "Install Accounts" not in after
    assert "Install Commerce" in after
    assert names_of(tenant) == ["user.email.changed", "user.registered"]
    assert actions_of(tenant)[-1] == "pack.installed"


def test_the_list_names_every_type(tenant: Tenant) -> None:
    text = text_of(browser(tenant).get(f"/portal/{tenant.slug}/catalogue/packs"))

    for pack in all_packs().values():
        assert pack.title in text
        for each in pack.types:
            assert each.name in text


def test_a_click_again_changes_nothing_and_says_so(tenant: Tenant) -> None:
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/catalogue/packs"
    client.post(f"{path}/accounts/install")
    before = actions_of(tenant)

    client.post(f"{path}/accounts/install")

    assert "The catalogue has it all already." in text_of(client.get(path))
    assert actions_of(tenant) == before


def test_a_pack_that_is_different_shows_what_before_it_is_brought_up_to_date(tenant: Tenant) -> None:
    packs.install_pack(actor=COMMAND, tenant=tenant, name="accounts")
    schema = {"type": "object", "required": ["user", "nickname"], "properties": {"nickname": {}}}
    update_event_type(actor=COMMAND, tenant=tenant, name="user.registered", schema=schema, example=None)
    client = browser(tenant)

    listed = text_of(client.get(f"/portal/{tenant.slug}/catalogue/packs"))
    shown = text_of(client.get(f"/portal/{tenant.slug}/catalogue/packs/accounts"))

    # Not from the list: nobody overwrites what they have not seen.
    assert "Bring Accounts up to date" not in listed
    assert "Bring Accounts up to date" in shown
    assert "What bringing it up to date changes user.registered schema, example" in shown
    assert "nickname was always there, and may be missing now. breaks receivers" in shown


def test_a_page_shows_schemas_and_examples(tenant: Tenant) -> None:
    shown = text_of(browser(tenant).get(f"/portal/{tenant.slug}/catalogue/packs/messaging"))

    assert "message.rejected" in shown
    assert '"reason": "unknown_number"' in shown
    assert '"provider_time": { "type": "string", "format": "date-time"' in shown


def test_a_viewer_sees_packs_and_installs_none(tenant: Tenant) -> None:
    client = browser(tenant, "viewer")
    path = f"/portal/{tenant.slug}/catalogue/packs"

    assert "Install" not in text_of(client.get(path)).replace("Installing a pack", "")
    assert "Install" not in text_of(client.get(f"{path}/accounts"))
    assert client.post(f"{path}/accounts/install").status_code == 403
    assert names_of(tenant) == []


def test_the_list_asks_the_database_once_for_all_packs(tenant: Tenant) -> None:
    client = browser(tenant)
    client.get(f"/portal/{tenant.slug}/catalogue/packs")

    with CaptureQueriesContext(connection) as queries:
        client.get(f"/portal/{tenant.slug}/catalogue/packs")

    assert [query for query in queries.captured_queries if "tenants_eventtype" in query["sql"]] != []
    assert len([query for query in queries.captured_queries if "tenants_eventtype" in query["sql"]]) == 1


def test_a_pack_that_is_not_there_is_not_found(tenant: Tenant) -> None:
    assert browser(tenant).get(f"/portal/{tenant.slug}/catalogue/packs/nothing").status_code == 404
