"""The packs as they are shipped: complete, believable, and accepted by the catalogue's own rules."""

import json
import re
from pathlib import Path

import pytest

from tenants.openapi_catalogue import Described
from tenants.openapi_catalogue import group as group_rule
from tenants.packs import Pack, all_packs
from tenants.schemas import compile_schema
from tenants.validation import catalogue_event_type_name, description

PACKS = list(all_packs().values())
TYPES = [each for pack in PACKS for each in pack.types]


def test_every_trade_has_its_pack() -> None:
    assert {pack.name: [each.name for each in pack.types] for pack in PACKS} == {
        "accounts": ["user.registered", "user.email.changed"],
        "ci-cd": [
            "repository.pushed",
            "pipeline.started",
            "pipeline.finished",
            "deployment.finished",
            "gitops.sync.finished",
            "gitops.drift.detected",
        ],
        "commerce": [
            "product.updated",
            "inventory.level.updated",
            "order.created",
            "order.paid",
            "order.refund.initiated",
        ],
        "iot": [
            "sensor.reading.taken",
            "sensor.alert.raised",
            "device.command.requested",
            "device.status.changed",
        ],
        "issue-tracking": ["issue.created", "issue.updated"],
        "messaging": [
            "message.accepted",
            "message.sent",
            "message.delivered",
            "message.rejected",
            "message.expired",
            "message.reply.received",
        ],
        "monitoring": [
            "infrastructure.alert.raised",
            "infrastructure.alert.resolved",
            "service.failed",
            "service.recovered",
        ],
        "payments": [
            "payment.charge.succeeded",
            "payment.charge.failed",
            "payment.subscription.charged",
            "payment.refund.succeeded",
            "payment.chargeback.opened",
        ],
        "social": [
            "social.post.published",
            "social.comment.created",
            "social.mention.received",
            "social.follower.gained",
        ],
    }


def test_the_page_of_the_docs_lists_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "packs.md").read_text()

    for pack in PACKS:
        names = ", ".join(f"`{each.name}`" for each in pack.types)
        assert f"| `{pack.name}` | {names} |" in page


def test_no_two_packs_have_a_type_of_one_name() -> None:
    names = [each.name for each in TYPES]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_a_pack_says_what_it_is(pack: Pack) -> None:
    assert re.fullmatch("[a-z]+(-[a-z]+)*", pack.name)
    assert pack.version >= 1
    assert pack.title
    assert pack.description.endswith(".")


@pytest.mark.parametrize("each", TYPES, ids=lambda each: each.name)
def test_a_type_keeps_the_catalogues_rules_and_its_schema_takes_its_example(each: Described) -> None:
    assert catalogue_event_type_name(each.name) == each.name
    assert description(each.description) == each.description
    assert group_rule(each.group) == each.group
    assert each.description.endswith(".")
    assert each.schema is not None
    compiled = compile_schema(each.schema)

    assert compiled.errors(each.example) == []


@pytest.mark.parametrize("each", TYPES, ids=lambda each: each.name)
def test_a_schema_asks_for_something_and_the_example_shows_all_of_it(each: Described) -> None:
    assert each.schema is not None
    assert each.example is not None
    compiled = compile_schema(each.schema)
    properties = each.schema["properties"]

    assert not compiled.is_valid({})
    for name in each.schema["required"]:
        rest = {key: value for key, value in each.example.items() if key != name}
        assert not compiled.is_valid(rest), name
    # A receiver who reads the example has seen whatever comes, but what answers something else.
    assert each.example.keys() <= properties.keys()
    assert properties.keys() - each.example.keys() <= {"in_reply_to"}


@pytest.mark.parametrize("each", TYPES, ids=lambda each: each.name)
def test_an_example_holds_nobodys_address_or_number(each: Described) -> None:
    text = json.dumps(each.example)

    hosts = re.findall(r"(?:@|https?://)([\w.-]+\.[a-z]+)", text)
    assert all(host.endswith("example.com") for host in hosts)
    assert all(number.startswith("+447700900") for number in re.findall(r"\+[0-9]{7,}", text))
