"""Codes of authenticator apps: as the RFCs compute them, once each, and recovery codes for when the app is gone."""

import base64

import pytest

from tenants.models import SecondFactor, User
from tenants.services import two_factor
from tenants.services.audit import COMMAND
from tenants.services.two_factor import WrongCode
from tests.support.portal import make_user

pytestmark = pytest.mark.usefixtures("database")

NOW = 1_800_000_000.0


def turned_on() -> tuple[User, bytes, list[str]]:
    user = make_user()
    secret = base64.b32decode(two_factor.begin(user))
    codes = two_factor.confirm(actor=COMMAND, user=user, code=code(secret, NOW - 60), now=NOW - 60)
    return user, secret, codes


def code(secret: bytes, now: float) -> str:
    return two_factor.code_at(secret, int(now) // 30)


@pytest.mark.parametrize(
    ("at", "expected"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (2000000000, "279037")],
)
def test_codes_are_those_of_rfc_6238(at: int, expected: str) -> None:
    assert code(b"12345678901234567890", at) == expected


@pytest.mark.parametrize("seconds_off", [-30, 0, 30])
def test_a_clock_may_be_half_a_minute_wrong(seconds_off: int) -> None:
    user, secret, _ = turned_on()

    two_factor.check(user=user, code=code(secret, NOW + seconds_off), now=NOW)


@pytest.mark.parametrize("seconds_off", [-90, 90])
def test_but_no_more(seconds_off: int) -> None:
    user, secret, _ = turned_on()

    with pytest.raises(WrongCode):
        two_factor.check(user=user, code=code(secret, NOW + seconds_off), now=NOW)


def test_a_code_works_once_and_an_earlier_one_not_after_it() -> None:
    user, secret, _ = turned_on()
    two_factor.check(user=user, code=f" {code(secret, NOW)[:3]} {code(secret, NOW)[3:]}", now=NOW)

    for at in (NOW, NOW - 30):
        with pytest.raises(WrongCode):
            two_factor.check(user=user, code=code(secret, at), now=NOW)


def test_recovery_codes_work_once_each() -> None:
    user, _, codes = turned_on()
    assert (len(codes), len(set(codes))) == (10, 10)

    two_factor.check(user=user, code=codes[3].upper(), now=NOW)

    with pytest.raises(WrongCode):
        two_factor.check(user=user, code=codes[3], now=NOW)
    assert two_factor.recovery_codes_left(user) == 9


def test_it_is_asked_for_only_once_it_was_confirmed() -> None:
    user = make_user()
    secret = base64.b32decode(two_factor.begin(user))

    with pytest.raises(WrongCode):
        two_factor.confirm(actor=COMMAND, user=user, code="no code", now=NOW)
    assert not two_factor.is_on(user)
    with pytest.raises(WrongCode):
        two_factor.check(user=user, code=code(secret, NOW), now=NOW)


def test_nothing_readable_is_kept() -> None:
    user, secret, codes = turned_on()
    factor = SecondFactor.objects.get(user=user)

    assert secret not in bytes(factor.encrypted)
    assert not {each.encode() for each in codes} & {bytes(each) for each in factor.recovery_hashes}
