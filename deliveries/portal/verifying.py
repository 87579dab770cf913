"""How to verify what an endpoint receives, in several languages: the code of docs/integrators.md, and its call.

`snippets/` holds the functions as the docs have them, which a test compares; the docs' own tests run them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from deliveries.models import Endpoint

FOLDER: Final = Path(__file__).parent / "snippets"

PLACEHOLDER: Final = {
    Endpoint.SignatureScheme.HMAC_SHA256: "whsec_…",
    Endpoint.SignatureScheme.ED25519: "whpk_…",
}
"""In place of the secret, until somebody asks for it."""


@dataclass(frozen=True, slots=True)
class Snippet:
    file: str
    label: str
    call: str
    """KEY stands for the secret or the public key."""


HMAC: Final = (
    Snippet("python", "Python", 'verify("KEY", request.headers, body)'),
    Snippet("js", "JavaScript", 'verify("KEY", request.headers, body);'),
    Snippet("go", "Go", 'Verify("KEY", r.Header, body)'),
    Snippet("ruby", "Ruby", 'verify("KEY", request.headers, request.raw_post)'),
    Snippet(
        "php",
        "PHP",
        "verify('KEY', array_change_key_case(getallheaders()), file_get_contents('php://input'));",
    ),
    Snippet("java", "Java", 'verify("KEY", id, timestamp, signatures, body);'),
    Snippet("csharp", "C#", 'Verify("KEY", id, timestamp, signatures, body);'),
    Snippet("rust", "Rust", 'verify("KEY", id, timestamp, signatures, body)'),
)

ED25519: Final = (
    Snippet("python-ed25519", "Python", 'verify_ed25519("KEY", request.headers, body)'),
    Snippet("js-ed25519", "JavaScript", 'verifyEd25519("KEY", request.headers, body);'),
)


@dataclass(frozen=True, slots=True)
class ShownSnippet:
    label: str
    code: str


def snippets(scheme: str, key: str | None) -> list[ShownSnippet]:
    """With the endpoint's own secret or public key filled in, if it was asked for."""
    each_scheme = Endpoint.SignatureScheme(scheme)
    chosen = ED25519 if each_scheme is Endpoint.SignatureScheme.ED25519 else HMAC
    filled = key or PLACEHOLDER[each_scheme]
    return [
        ShownSnippet(snippet.label, f"{function(snippet.file)}\n{snippet.call.replace('KEY', filled)}")
        for snippet in chosen
    ]


@cache
def function(file: str) -> str:
    return (FOLDER / f"{file}.txt").read_text(encoding="utf-8")
