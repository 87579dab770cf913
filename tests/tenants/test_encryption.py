import pytest
from django.conf import LazySettings

from tenants.encryption import DecryptionFailed, decrypt, encrypt, is_current, key_id_of

OLD = ("old", bytes(range(32)))
NEW = ("new", bytes(range(32, 64)))
CONTEXT = b"tenant|row|endpoint-secret"


@pytest.fixture(autouse=True)
def _keys(settings: LazySettings) -> None:
    settings.WEBHOOKS_ENCRYPTION_KEYS = [OLD]


def test_what_was_encrypted_comes_back_and_is_not_readable() -> None:
    token = encrypt(b"whsec_secret", context=CONTEXT)

    assert decrypt(token, context=CONTEXT) == b"whsec_secret"
    assert b"secret" not in token
    assert token[:5] == b"\x01\x03old"


def test_equal_secrets_make_different_tokens() -> None:
    assert encrypt(b"x", context=CONTEXT) != encrypt(b"x", context=CONTEXT)


def test_a_token_does_not_open_in_another_row() -> None:
    token = encrypt(b"secret", context=CONTEXT)

    with pytest.raises(DecryptionFailed):
        decrypt(token, context=b"tenant|other row|endpoint-secret")


def test_no_changed_byte_goes_unnoticed() -> None:
    token = encrypt(b"secret", context=CONTEXT)

    for position in range(len(token)):
        changed = bytearray(token)
        changed[position] ^= 1
        with pytest.raises(DecryptionFailed):
            decrypt(bytes(changed), context=CONTEXT)


def test_no_shortened_token_opens() -> None:
    token = encrypt(b"secret", context=CONTEXT)

    for length in range(len(token)):
        with pytest.raises(DecryptionFailed):
            decrypt(token[:length], context=CONTEXT)


def test_old_tokens_open_after_a_rotation_and_new_ones_use_the_new_key(settings: LazySettings) -> None:
    token = encrypt(b"secret", context=CONTEXT)

    settings.WEBHOOKS_ENCRYPTION_KEYS = [NEW, OLD]

    assert decrypt(token, context=CONTEXT) == b"secret"
    assert (key_id_of(token), is_current(token)) == ("old", False)
    again = encrypt(b"secret", context=CONTEXT)
    assert (key_id_of(again), is_current(again)) == ("new", True)


def test_without_its_key_a_token_stays_shut_and_says_which_key_is_missing(settings: LazySettings) -> None:
    token = encrypt(b"secret", context=CONTEXT)

    settings.WEBHOOKS_ENCRYPTION_KEYS = [NEW]

    with pytest.raises(DecryptionFailed, match=r"^no encryption key 'old' in the settings$"):
        decrypt(token, context=CONTEXT)
