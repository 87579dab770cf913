"""Certificates as nobody should have them."""

import base64

import trustme


def certificate_with_an_unreadable_name() -> str:
    """In PEM. Its subject says that it is UTF-8, and is not: some read it all the same, OpenSSL does not."""
    pem = trustme.CA(organization_name="ABCDEFGH").cert_pem.bytes().decode()
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    lines = base64.encodebytes(der.replace(b"ABCDEFGH", b"ABC\xff\xfeFGH")).decode()
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"
