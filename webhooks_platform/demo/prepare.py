"""Migrates the database that the environment names and makes an operator key: in one process, to be soon done with it.

Run by `place` for the database of a story; prints one line of JSON.
"""

import json

import django
from django.core.management import call_command


def main() -> None:
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    # Models can be imported only now.
    from tenants.services import keys  # noqa: PLC0415
    from tenants.services.audit import COMMAND  # noqa: PLC0415

    _, key = keys.create_operator_key(actor=COMMAND, name="story")
    print(json.dumps({"operator_key": key}))


if __name__ == "__main__":
    main()
