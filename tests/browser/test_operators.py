"""The operators' journeys: who hurts and why, pause, recover; support and its entry in the tenant's log; for all eyes."""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.urls import reverse
from playwright.sync_api import Page, expect

from deliveries.models import Attempt, Delivery, Endpoint, Lane
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import NewEvent
from deliveries.pipeline.signing import parse_secret
from deliveries.services.endpoints import create_endpoint
from tenants.models import Tenant, User
from tenants.services.audit import COMMAND
from tests.browser.conftest import NewWindow, Platform
from tests.browser.steps import make_place, shop, sign_in
from tests.browser.test_every_page import examine
from tests.support.builders import SECRET
from tests.support.operators import make_operator, signed_in


def operator_window(window: NewWindow, platform: Platform, **options: Any) -> tuple[Page, User]:
    """Signed in already: how one signs in with a second factor is the portal's to show."""
    user = make_operator()
    page = window(**options)
    cookie = signed_in(user).cookies[settings.SESSION_COOKIE_NAME].value
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": platform.url}])
    return page, user


def publish(tenant: Tenant) -> None:
    ingest.publish([NewEvent(tenant.id.bytes, "order.created", b'{"order":"A-17"}')])


def statuses(tenant: Tenant) -> list[str]:
    return list(Delivery.objects.for_tenant(tenant).order_by("id").values_list("status", flat=True))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def make_endpoint(tenant: Tenant, url: str) -> Endpoint:
    """One attempt each, so that what fails has failed at once."""
    return create_endpoint(
        actor=COMMAND, tenant=tenant, url=url, secret=parse_secret(SECRET), retry_schedule=[]
    )


def test_find_who_hurts_read_why_pause_and_recover(platform: Platform, window: NewWindow) -> None:
    tenant, _ = make_place(name="North Clinic")
    page, _ = operator_window(window, platform)
    with shop() as receiver:
        receiver.secret, receiver.status = SECRET, 503
        make_endpoint(tenant, receiver.url)
        publish(tenant)
        until(lambda: statuses(tenant) == ["failed"])

        # The dashboard names the tenant; from there every page leads to the next.
        page.goto("/admin/")
        hurting = page.get_by_role("region", name="Tenants that it hurts")
        hurting.get_by_role("link", name=tenant.slug).click()
        page.get_by_role("link", name="Endpoints", exact=True).last.click()
        page.get_by_role("link", name=receiver.url).click()
        expect(page.locator(".facts")).to_contain_text("1 in a row")
        endpoint_page = page.url
        page.get_by_role("link", name="Failed deliveries").click()
        page.locator("main").get_by_role("link", name="dlv_").click()
        expect(page.locator("main")).to_contain_text("The endpoint answered with status 503")

        # Paused, what is published waits.
        page.goto(endpoint_page)
        page.get_by_role("link", name="Pause…").click()
        expect(page.locator("main")).to_contain_text("Nothing is lost.")
        page.get_by_role("button", name="Pause endpoints").click()
        expect(page.get_by_role("note")).to_contain_text("Paused by an operator")
        publish(tenant)
        receiver.status = 200
        time.sleep(1)
        assert statuses(tenant) == ["failed", "pending"]

        # The receiver is mended: go on, and send again what failed.
        page.get_by_role("link", name="Let go on…").click()
        page.get_by_role("button", name="Let endpoints go on").click()
        until(lambda: statuses(tenant) == ["failed", "succeeded"])
        page.get_by_role("link", name="Recover what failed…").click()
        page.get_by_role("button", name="Recover what failed").click()
        expect(page.get_by_role("region", name="Recover and replay")).to_contain_text("recover")
        until(lambda: statuses(tenant) == ["failed", "succeeded", "succeeded"])
        assert len(receiver.verified) == 2

    until(lambda: Lane.objects.for_tenant(tenant).get().failing_since is None)
    page.goto("/admin/")
    expect(page.locator("main")).to_contain_text("Tenants that it hurts")
    expect(page.locator("main")).not_to_contain_text(tenant.slug)
    page.get_by_role("searchbox", name="Find a tenant, host").fill("127.0.0.1")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("region", name="Endpoints on this host")).to_contain_text(tenant.slug)


def test_support_looks_in_and_the_tenant_reads_of_it(platform: Platform, window: NewWindow) -> None:
    tenant, admin = make_place(name="Harbour Dental")
    make_endpoint(tenant, "https://hooks.harbour.example/in")
    page, operator = operator_window(window, platform)

    page.goto(reverse("admin:tenants_tenant_change", args=[tenant.pk]))
    page.get_by_role("link", name="Sign in as support…").click()
    page.get_by_label("Reason").fill("ticket 4711")
    page.get_by_role("button", name="Sign in as support").click()
    banner = page.get_by_role("status")
    expect(banner).to_contain_text("You are here as support.")
    page.get_by_role("link", name="Endpoints").first.click()
    expect(page.locator("main")).to_contain_text("hooks.harbour.example")
    refused = page.goto(f"/portal/{tenant.slug}/settings/keys")
    assert refused is not None
    assert refused.status == 403
    expect(page.get_by_role("heading", level=1)).to_contain_text("Support may not see this")
    page.goto(f"/portal/{tenant.slug}/endpoints")
    page.get_by_role("button", name="Leave").click()
    expect(page.locator(".messagelist")).to_contain_text("You are out of the portal.")
    gone = page.goto(f"/portal/{tenant.slug}/endpoints")
    assert gone is not None
    assert gone.status == 404

    theirs = window()
    sign_in(theirs, admin)
    theirs.goto(f"/portal/{tenant.slug}/settings/audit")
    log = theirs.locator("main")
    expect(log).to_contain_text("support.signed_in")
    expect(log).to_contain_text("support.signed_out")
    expect(log).to_contain_text(operator.email)


def test_the_pages_can_be_read_by_all(platform: Platform, window: NewWindow) -> None:
    """No serious fault of contrast, names or keyboard; nothing wider than a phone; nothing that the policy refused."""
    tenant, _ = make_place(name="Blue Bank")
    endpoint = make_endpoint(tenant, "https://hooks.blue.example/in")
    publish(tenant)
    # Each page is looked at with something on it.
    until(lambda: Attempt.objects.for_tenant(tenant).exists())
    Lane.objects.for_tenant(tenant).update(failing_since="2026-01-01T00:00:00Z", failures=12)
    delivery = Delivery.objects.for_tenant(tenant).get()
    page, _ = operator_window(window, platform)
    findings: list[str] = []
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    paths = [
        "/admin/",
        "/admin/tenants/tenant/",
        reverse("admin:tenants_tenant_change", args=[tenant.pk]),
        reverse("admin:deliveries_endpoint_change", args=[endpoint.pk]),
        f"/admin/deliveries/delivery/?tenant={tenant.slug}&status=pending",
        reverse("admin:deliveries_delivery_change", args=[delivery.pk]),
        reverse("admin:deliveries_event_change", args=[delivery.event_id]),
        f"/admin/act/recover/?ids={endpoint.pk}",
        "/admin/hosts/?host=hooks.blue.example",
        f"/admin/find/?q={tenant.slug}",
        "/admin/sending/",
        "/admin/usage/",
        reverse("admin:support", args=[tenant.pk]),
    ]

    for path in paths:
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        examine(page, path, findings)
    assert (findings, said) == ([], [])


def test_the_form_of_a_periodic_task_works_under_the_policy(platform: Platform, window: NewWindow) -> None:
    page, _ = operator_window(window, platform)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)

    page.goto("/admin/django_celery_beat/crontabschedule/add/")
    page.get_by_label("Minute(s)").fill("7")
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto("/admin/django_celery_beat/periodictask/add/")
    page.get_by_label("Crontab Schedule").select_option(index=1)

    expect(page.locator(".field-crontab .help").first).not_to_have_text("")
    assert said == []
