"""A name server for the bench: `host-7.bench.test` is an address of its own on loopback, `hang-7.bench.test` is never
answered. No Django. `python -m deliveries.bench.dns` prints its port and ends when its standard input does.
"""

import json
import re
import select
import socket
import struct
import sys
from ipaddress import IPv4Address

SUFFIX = ".bench.test"

_HOST = re.compile(rb"host-(\d{1,7})")
_A = 1
_NO_SUCH_NAME = 3
_FIRST_ADDRESS = int(IPv4Address("127.1.0.1"))


def address_of(number: int) -> IPv4Address:
    return IPv4Address(_FIRST_ADDRESS + number)


def answer(question: bytes) -> bytes | None:
    """The reply to one message; None for a name that is to hang."""
    end = question.index(b"\0", 12)
    label = question[13 : 13 + question[12]].lower()
    (record_type,) = struct.unpack_from(">H", question, end + 1)
    if label.startswith(b"hang-"):
        return None
    host = _HOST.fullmatch(label)
    code = 0 if host else _NO_SUCH_NAME
    # 0xc00c points back at the question's name. Half a minute to live: as long as the platform keeps any name.
    found = b""
    if host and record_type == _A:
        found = b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 30, 4) + address_of(int(host[1])).packed
    header = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 1 if found else 0, 0, 0)
    return header + question[12 : end + 5] + found


def main() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    server.bind(("127.0.0.1", 0))
    server.setblocking(False)
    sys.stdout.write(json.dumps({"port": server.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        while True:
            try:
                question, asker = server.recvfrom(4096)
            except BlockingIOError:
                break
            reply = answer(question)
            if reply is not None:
                server.sendto(reply, asker)


if __name__ == "__main__":
    main()
