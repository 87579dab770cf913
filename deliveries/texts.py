"""What receivers answered, as text that JSON can hold. Their bytes may be anything."""


def readable(raw: bytes | memoryview) -> str:
    """UTF-8; whatever is not, and NUL, becomes U+FFFD."""
    return bytes(raw).decode("utf-8", "replace").replace("\x00", "\ufffd")


def header_map(raw: bytes | memoryview) -> dict[str, str]:
    """A block of header lines as an object. Lines of one name, in whatever case, are joined by a comma."""
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for line in readable(raw).split("\n"):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            # The status line, and what is no header at all.
            continue
        known = names.setdefault(name.strip().lower(), name.strip())
        found[known] = f"{found[known]}, {value.strip()}" if known in found else value.strip()
    return found
