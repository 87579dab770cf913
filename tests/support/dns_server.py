"""A name server of our own: answers A and AAAA from a dict, changes its mind, and stays silent when told to."""

import socket
import struct
import threading
from ipaddress import ip_address
from types import TracebackType
from typing import Self

_TYPE_BY_VERSION = {4: 1, 6: 28}
_OK, _SERVFAIL, _NXDOMAIN = 0, 2, 3


class DnsServer:
    """`records` maps a name to its addresses; a name that is not in it does not exist.

    Names in `silent` (or below one of them) never get an answer, those in `late` get it after so many seconds, those
    in `failing` get SERVFAIL. All may be changed while it runs. `queries` are the names asked for, in order, once per record type.
    """

    def __init__(self, records: dict[str, list[str]] | None = None) -> None:
        self.records = dict(records or {})
        self.silent: set[str] = set()
        self.late: dict[str, float] = {}
        self.failing: set[str] = set()
        self.queries: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._timers: list[threading.Timer] = []
        self._thread = threading.Thread(target=self._serve, name="dns-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4096)
            if not question:
                return
            answer = self._answer(question)
            if answer is not None:
                seconds = self.late.get(self.queries[-1])
                if seconds is None:
                    self._socket.sendto(answer, client)
                else:
                    self._timers.append(threading.Timer(seconds, self._socket.sendto, (answer, client)))
                    self._timers[-1].start()

    def _answer(self, message: bytes) -> bytes | None:
        name, end = _name_at(message, 12)
        (record_type,) = struct.unpack_from(">H", message, end)
        self.queries.append(name)
        if name in self.silent or name.partition(".")[2] in self.silent:
            return None
        code = _OK
        addresses = [ip_address(text) for text in self.records.get(name, [])]
        if name in self.failing:
            code = _SERVFAIL
        elif name not in self.records:
            code = _NXDOMAIN
        found = [address.packed for address in addresses if _TYPE_BY_VERSION[address.version] == record_type]
        header = message[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        # 0xc00c points back at the question's name. Time to live 0: what is kept, and for how long, is up to the asker.
        answers = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", record_type, 1, 0, len(packed)) + packed for packed in found
        )
        return header + message[12 : end + 4] + answers


def _name_at(message: bytes, offset: int) -> tuple[str, int]:
    labels = []
    while message[offset]:
        length = message[offset]
        labels.append(message[offset + 1 : offset + 1 + length].decode("ascii").lower())
        offset += 1 + length
    return ".".join(labels), offset + 1
