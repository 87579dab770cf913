"""The SMS platform of `serve --demo`: the appointment story again and again, with other patients."""

import itertools
import os
import time
import urllib.error
from datetime import UTC, datetime

from webhooks_platform.demo.api import Api
from webhooks_platform.demo.appointment import PATIENTS, accepted, delivered, replied
from webhooks_platform.demo.voice import Voice

PAUSE_SECONDS = 1.5


def main() -> None:
    api = Api(os.environ["WEBHOOKS_API"], os.environ["WEBHOOKS_KEY"])
    sms = Voice(api, tell)
    api.send("POST", "/packs/messaging/install")
    wait_for_clinic(api)
    for number in itertools.count(1):
        patient = PATIENTS[(number - 1) % len(PATIENTS)]
        message = f"sms-{datetime.now(UTC):%H%M%S}-{number}"
        accepted(sms, patient, message)
        time.sleep(PAUSE_SECONDS)
        delivered(sms, patient, message)
        time.sleep(PAUSE_SECONDS)
        replied(sms, patient, message)
        time.sleep(2 * PAUSE_SECONDS)


def wait_for_clinic(api: Api) -> None:
    while True:
        try:
            api.send("GET", "/endpoints/clinic")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            time.sleep(0.2)
        else:
            return


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
