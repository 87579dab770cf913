"""What the document says of an endpoint's further signature and of its credentials. Read by `endpoints.py`."""

from deliveries.pipeline.signature_template import (
    MAX_EXTRA_HEADERS,
    MAX_TEXT_LENGTH,
    PRESETS,
    Algorithm,
    Encoding,
)
from deliveries.validation import MAX_HEADER_NAME_LENGTH
from tenants.api import fields

_PRINTABLE = "^[ -~]*$"
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
                "header": fields.text(MAX_HEADER_NAME_LENGTH, 1, pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"),
                "signed_content": fields.text(MAX_TEXT_LENGTH, 6, pattern="^[^{}]*\\{body\\}[^{}]*$"),
                "algorithm": {"type": "string", "enum": [algorithm.value for algorithm in Algorithm]},
                "encoding": {"type": "string", "enum": [encoding.value for encoding in Encoding]},
                "prefix": fields.text(MAX_TEXT_LENGTH, pattern=_PRINTABLE),
                "separator": fields.nullable(fields.text(MAX_TEXT_LENGTH, 1, pattern=_PRINTABLE)),
                "headers": {
                    "type": "object",
                    "maxProperties": MAX_EXTRA_HEADERS,
                    "additionalProperties": fields.text(MAX_TEXT_LENGTH, 1, pattern=_PRINTABLE),
                },
                "secret": _TEMPLATE_SECRET,
            },
        },
    ]
}
