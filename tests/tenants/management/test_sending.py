"""The switch for all sending, from a terminal."""

from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from tenants.models import AuditEntry, PlatformState
from tenants.services.platform import is_sending_stopped


@pytest.fixture(autouse=True)
def going_on(database: None) -> Iterator[None]:
    PlatformState.objects.update(is_sending_stopped=False)
    yield
    PlatformState.objects.update(is_sending_stopped=False)


def sending(*arguments: str) -> str:
    output = StringIO()
    call_command("sending", *arguments, stdout=output)
    return output.getvalue().strip()


def test_sending_is_stopped_and_goes_on_with_the_reason_in_the_audit_log() -> None:
    before = AuditEntry.objects.filter(tenant=None).count()

    said = [sending("stop", "--reason", "restored"), sending("stop", "--reason", "again")]
    is_stopped = is_sending_stopped()
    said.append(sending("resume", "--reason", "checked"))

    assert said == [
        "Nothing is sent any more, five seconds from now.",
        "It was so already.",
        "What waited is being sent.",
    ]
    assert (is_stopped, is_sending_stopped()) == (True, False)
    entries = AuditEntry.objects.filter(tenant=None).order_by("id")[before:]
    assert [(entry.action, entry.after, entry.actor_kind) for entry in entries] == [
        ("platform.sending_stopped", {"reason": "restored"}, "operator"),
        ("platform.sending_resumed", {"reason": "checked"}, "operator"),
    ]


def test_a_reason_is_asked_for() -> None:
    for given in ([], ["--reason", ""], ["--reason", " "]):
        with pytest.raises(CommandError, match="--reason"):
            sending("stop", *given)

    assert not is_sending_stopped()


def test_letters_of_another_terminal_keep_nobody_from_stopping() -> None:
    """As Python reads arguments that are not UTF-8."""
    sending("stop", "--reason", b"f\xfcr heute".decode("utf-8", "surrogateescape"))

    assert is_sending_stopped()
    entry = AuditEntry.objects.filter(tenant=None).latest("id")
    assert entry.after == {"reason": "f?r heute"}
