"""What the document says of an endpoint's further signature and of its credentials. Read by `endpoint_shapes.py`."""

from deliveries.credentials import CLIENT_AUTHENTICATIONS, MAX_PEM_BYTES, MAX_TOKEN_LENGTH
from deliveries.pipeline.signature_template import (
    MAX_EXTRA_HEADERS,
    MAX_TEXT_LENGTH,
    PRESETS,
    Algorithm,
    Encoding,
)
from deliveries.validation import MAX_HEADER_NAME_LENGTH
from tenants.api import fields

_PLACED = "([ -z|~]|\\{(id|timestamp|type)\\})"
_SIGNED = "([^{}\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]|\\{(id|timestamp|type)\\})*"
_HEADER_NAME = fields.text(MAX_HEADER_NAME_LENGTH, 1, pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
_TEMPLATE_SECRET = fields.nullable(fields.text(MAX_TEXT_LENGTH, 1))

SIGNATURE_TEMPLATE: fields.AnySchema = {
    "oneOf": [
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["preset"],
            "properties": {
                "preset": {"type": "string", "enum": list(PRESETS)},
                "secret": _TEMPLATE_SECRET,
            },
        },
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["header"],
            "properties": {
                "header": _HEADER_NAME,
                "signed_content": fields.text(
                    MAX_TEXT_LENGTH, 6, pattern=f"^{_SIGNED}\\{{body\\}}{_SIGNED}$"
                ),
                "algorithm": {"type": "string", "enum": [algorithm.value for algorithm in Algorithm]},
                "encoding": {"type": "string", "enum": [encoding.value for encoding in Encoding]},
                "prefix": fields.text(MAX_TEXT_LENGTH, pattern=f"^((?! ){_PLACED}+)?$"),
                "separator": fields.nullable(fields.text(MAX_TEXT_LENGTH, 1, pattern="^[ -z|~]+$")),
                "headers": {
                    "type": "object",
                    "maxProperties": MAX_EXTRA_HEADERS,
                    "propertyNames": _HEADER_NAME,
                    "additionalProperties": fields.text(MAX_TEXT_LENGTH, 1, pattern=f"^(?! ){_PLACED}+$"),
                },
                "secret": _TEMPLATE_SECRET,
            },
        },
    ]
}

PEM: fields.AnySchema = fields.text(
    MAX_PEM_BYTES,
    1,
    pattern="^-----BEGIN CERTIFICATE-----[A-Za-z0-9+/= \\t\\r\\n-]+-----END CERTIFICATE-----[ \\t\\r\\n]*$",
)

CLIENT_CERTIFICATE: fields.AnySchema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["certificate", "private_key"],
    "properties": {"certificate": PEM, "private_key": fields.text(MAX_PEM_BYTES, 1, fields.SEVERAL_LINES)},
}

_NAME = fields.text(255, 1)


def _auth(kind: str, properties: dict[str, fields.AnySchema], *optional: str) -> fields.AnySchema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["type", *(name for name in properties if name not in optional)],
        "properties": {"type": {"type": "string", "const": kind}, **properties},
    }


AUTH: fields.AnySchema = {
    "oneOf": [
        _auth(
            "basic",
            {
                "username": fields.text(255, 1, pattern="^[^:\\u0000-\\u001f\\u007f-\\u009f]+$"),
                "password": _NAME,
            },
        ),
        _auth("bearer", {"token": fields.text(MAX_TOKEN_LENGTH, 1, pattern="^[!-~]+$")}),
        _auth(
            "oauth2",
            {
                "token_url": fields.text(2048, 10, pattern=r"^https?://[^\s/?#@\\]+([/?][^\s#\\]*)?$"),
                "client_id": _NAME,
                "client_secret": fields.text(MAX_TOKEN_LENGTH, 1),
                "scope": fields.nullable(fields.text(1024, 1, pattern=r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*$")),
                "client_authentication": {"type": "string", "enum": list(CLIENT_AUTHENTICATIONS)},
            },
            "scope",
            "client_authentication",
        ),
    ]
}
