"""One easy handle of libcurl and the request that it carries: what it is told, and what is made of what it says.

Used by `transport_curl`, whose loop drives the handles.
"""

import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pycurl

from deliveries.pipeline import failures
from deliveries.pipeline import proxy as proxies
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.failures import Failure
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.proxy import Proxy
from deliveries.pipeline.resolver import has_family_of
from deliveries.pipeline.routes import Route
from deliveries.pipeline.transport import (
    AFTER_HANDSHAKE_SECONDS,
    CONNECT_SECONDS,
    FIRST_ADDRESS_SECONDS,
    IDLE_SECONDS,
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    Answer,
    OutgoingRequest,
    OwnTls,
)

SHORT_HEADER_BYTES = MAX_HEADER_BYTES // MAX_HEADERS
"""As long as all lines are no longer than this, counting them is enough."""

SMALL_BODY_BYTES = 8 * 1024
"""A spare handle may keep the last body up to this size; larger ones are let go at once."""

SEND_BUFFER_BYTES = 16 * 1024
"""As small as libcurl lets it be: the default, 64 KiB for each request in the air, is memory that is never used."""

EXPECT_BYTES = 1024 * 1024
"""From this size on libcurl asks for permission first (`Expect: 100-continue`), which receivers rarely answer."""

SWITCHED_PROTOCOLS = 101

_TLS_BREAK = "unexpected eof"
"""What OpenSSL says of a connection that ends without a word, as that of a process that was killed."""

# Headers that libcurl would add of its own accord. A line without a value suppresses its own and hides none of ours.
_SUPPRESSED = ["Accept:", "Content-Type:"]
_SUPPRESSED_FOR_LARGE = [*_SUPPRESSED, "Expect:"]

# Numbers of libcurl that pycurl has no name for, or one that misleads: an option, and errors.
_SUPPRESS_CONNECT_HEADERS = 265
_E_WEIRD_SERVER_REPLY = 8
_E_TOO_LARGE = 100

_PROTOCOL_ERRORS = frozenset({pycurl.E_UNSUPPORTED_PROTOCOL, _E_WEIRD_SERVER_REPLY})
_PLATFORM_ERRORS = frozenset({pycurl.E_OUT_OF_MEMORY, pycurl.E_FAILED_INIT, pycurl.E_SSL_CACERT_BADFILE})
_NO_PROXY = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY})
_BREAKS = frozenset({pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR})
_TLS_ERRORS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
        pycurl.E_SSL_PINNEDPUBKEYNOTMATCH,
        pycurl.E_USE_SSL_FAILED,
        pycurl.E_SSL_SHUTDOWN_FAILED,
    }
)


class Transfer:
    """One easy handle and the request that it carries at the moment.

    Handles are used again, and each remembers what it was told last: only what differs is set.
    """

    __slots__ = (
        "_address_set",
        "_addresses",
        "_began_at",
        "_body",
        "_body_bytes",
        "_connect_timeout_set",
        "_dns_seconds",
        "_guard",
        "_headers",
        "_is_header_too_large",
        "_is_new_connection",
        "_is_out_of_resources",
        "_is_truncated",
        "_method_set",
        "_on_new_number",
        "_opened",
        "_proxy",
        "_refusal",
        "_seconds_in_vain",
        "_timeout_set",
        "_url_set",
        "address",
        "curl",
        "has_own_tls",
        "request",
        "started_at",
        "wants_new_connection",
    )

    def __init__(
        self,
        guard: AddressGuard,
        verify_ca: str,
        on_new_number: Callable[[int], None],
        *,
        own_tls: OwnTls | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._guard = guard
        self._proxy = proxy
        self.has_own_tls = own_tls is not None
        self._on_new_number = on_new_number
        self._opened: socket.socket | None = None
        self._url_set = ""
        self._address_set = ""
        self._method_set = ""
        self._timeout_set = -1
        self._connect_timeout_set = -1
        self.wants_new_connection = False
        self.curl = curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, SEND_BUFFER_BYTES)
        if proxy is None:
            curl.setopt(pycurl.PROXY, "")
        else:
            _set_proxy(curl, proxy)
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.REDIR_PROTOCOLS, 0)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.HTTP09_ALLOWED, 0)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.USERAGENT, "")
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.CAINFO, verify_ca)
        if own_tls is not None:
            _set_own_tls(curl, own_tls)
        curl.setopt(pycurl.MAXAGE_CONN, IDLE_SECONDS)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._on_open_socket)
        curl.setopt(pycurl.SOCKOPTFUNCTION, self._on_socket_made)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)

    def begin(
        self, request: OutgoingRequest, route: Route, started_at: float, dns_seconds: float | None
    ) -> None:
        self.request = request
        self.started_at = started_at
        self._addresses = route.addresses
        self.address = route.addresses[0]
        self._began_at = time.monotonic()
        self._dns_seconds = dns_seconds
        self._seconds_in_vain = 0.0

    def may_try_next_address(self, number: int) -> bool:
        """Nothing was sent yet, there is another address, and time left for it."""
        return (
            len(self._addresses) > 1
            and self._proxy is None
            and number in (pycurl.E_COULDNT_CONNECT, pycurl.E_OPERATION_TIMEDOUT)
            and not self._is_out_of_resources
            and self.curl.getinfo(pycurl.CONNECT_TIME) == 0.0
            and self._seconds_left() > 0.0
        )

    def turn_to_next_address(self) -> None:
        self._seconds_in_vain = time.monotonic() - self._began_at
        self._addresses = self._addresses[1:]
        self.address = self._addresses[0]

    def may_try_anew(self, number: int) -> bool:
        """The receiver has closed more of the kept connections than libcurl tries; as it does, nothing had come yet."""
        return (
            number in _BREAKS
            and not self._is_new_connection
            and not self._headers
            and not self.wants_new_connection
            and self._seconds_left() > 0.0
        )

    def insist_on_new_connection(self) -> None:
        self._seconds_in_vain = time.monotonic() - self._began_at
        self.wants_new_connection = True
        self.curl.setopt(pycurl.FRESH_CONNECT, 1)

    def prepare(self) -> None:
        """Tell the handle what to send, where, and how long it may take."""
        self._headers: list[bytes] = []
        self._is_header_too_large = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_truncated = False
        self._refusal: str | None = None
        self._is_out_of_resources = False
        self._is_new_connection = False

        request = self.request
        destination = request.destination
        setopt = self.curl.setopt

        url = destination.url
        if request.query:
            url = f"{url}{'&' if '?' in url else '?'}{request.query}"
        if url != self._url_set:
            setopt(pycurl.URL, url)
            self._url_set = url
        if self.address != self._address_set:
            setopt(
                pycurl.CONNECT_TO, [f"::[{self.address}]:" if ":" in self.address else f"::{self.address}:"]
            )
            self._address_set = self.address

        body = request.body
        if request.method != self._method_set:
            self._set_method(request.method)
        if request.method != "GET":
            setopt(pycurl.POSTFIELDS, body)
        setopt(
            pycurl.HTTPHEADER,
            _sendable(request.headers) + (_SUPPRESSED if len(body) < EXPECT_BYTES else _SUPPRESSED_FOR_LARGE),
        )

        seconds = destination.timeout_seconds
        connect_seconds = CONNECT_SECONDS
        if self.wants_new_connection:
            seconds = self._seconds_left()
        if len(self._addresses) > 1:
            seconds = self._seconds_left()
            connect_seconds = min(FIRST_ADDRESS_SECONDS, seconds / 2)
        timeout = max(1, int(seconds * 1000))
        if timeout != self._timeout_set:
            setopt(pycurl.TIMEOUT_MS, timeout)
            self._timeout_set = timeout
        connect_timeout = max(1, int(min(seconds, connect_seconds) * 1000))
        if connect_timeout != self._connect_timeout_set:
            setopt(pycurl.CONNECTTIMEOUT_MS, connect_timeout)
            self._connect_timeout_set = connect_timeout

    def answer(self, number: int | None, message: str = "") -> Answer:
        getinfo = self.curl.getinfo
        failure = None
        if number is not None or not _ends_with_empty_line(self._headers):
            failure = self._failure(number, message)
        # Below 200 it only announces another one.
        status_code = getinfo(pycurl.RESPONSE_CODE)
        if status_code == SWITCHED_PROTOCOLS:
            # To another protocol, which nobody asked for. libcurl takes whatever follows for the body.
            failure = failure or failures.NOT_HTTP
        total = getinfo(pycurl.TOTAL_TIME)
        is_new_connection = self._is_new_connection
        connected = getinfo(pycurl.CONNECT_TIME) if is_new_connection else 0.0
        secured = getinfo(pycurl.APPCONNECT_TIME) if is_new_connection else 0.0
        first_byte = getinfo(pycurl.STARTTRANSFER_TIME) if self._headers else 0.0
        dns_seconds = self._dns_seconds
        return Answer(
            tag=self.request.tag,
            failure=None if failure is None else failure.outcome,
            detail="" if failure is None else failure.detail,
            is_platform_fault=failure is not None and failure.is_platform_fault,
            status_code=status_code if status_code >= 200 else None,
            response_headers=b"".join(self._headers),
            response_body=b"".join(self._body),
            is_truncated=self._is_truncated,
            remote_ip=None if self._refusal is not None else self.address,
            started_at=self.started_at,
            duration_ms=(total + self._seconds_in_vain + (dns_seconds or 0.0)) * 1000,
            dns_ms=None if dns_seconds is None else dns_seconds * 1000,
            connect_ms=connected * 1000 if connected else None,
            tls_ms=(secured - connected) * 1000 if secured else None,
            first_byte_ms=(first_byte - getinfo(pycurl.PRETRANSFER_TIME)) * 1000 if first_byte else None,
            is_new_connection=is_new_connection,
        )

    def let_go(self) -> None:
        """Keep nothing large alive until the handle is used again."""
        if len(self.request.body) > SMALL_BODY_BYTES:
            self.curl.setopt(pycurl.POSTFIELDS, b"")
        # There still, if it could not be duplicated.
        self._close_opened()
        del self.request
        self._headers = []
        self._body = []

    def _close_opened(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _seconds_left(self) -> float:
        return self.request.destination.timeout_seconds - (time.monotonic() - self._began_at)

    def _set_method(self, method: str) -> None:
        match method:
            case "GET":
                self.curl.setopt(pycurl.HTTPGET, 1)
                self.curl.unsetopt(pycurl.CUSTOMREQUEST)
            case "POST":
                self.curl.setopt(pycurl.POST, 1)
                self.curl.unsetopt(pycurl.CUSTOMREQUEST)
            case _:
                self.curl.setopt(pycurl.POST, 1)
                self.curl.setopt(pycurl.CUSTOMREQUEST, method)
        self._method_set = method

    def _failure(self, number: int | None, message: str) -> Failure | None:
        """What libcurl's error means. None: nothing bad, the answer was cut by us."""
        own_tls = self.request.destination.tls
        if (
            number == pycurl.E_SSL_CACERT_BADFILE
            and own_tls is not None
            and own_tls.ca_certificates is not None
        ):
            return failures.UNUSABLE_OWN
        if self._is_out_of_resources or number in _PLATFORM_ERRORS:
            return failures.OUT_OF_RESOURCES
        if self._refusal is not None:
            return Failure(Outcome.ADDRESS_BLOCKED, self._refusal)
        if self._proxy is not None and (of_proxy := self._failure_of_proxy(number)) is not None:
            return of_proxy
        if self._is_header_too_large or number == _E_TOO_LARGE:
            return failures.HEADERS_TOO_LARGE
        if self._is_truncated:
            return None
        if number is None or number == pycurl.E_PARTIAL_FILE:
            # None: libcurl takes headers that break off for headers that end.
            return failures.CLOSED_MIDWAY
        if number == pycurl.E_OPERATION_TIMEDOUT:
            return self._time_out()
        if not self._headers and (of_ours := self._failure_of_our_certificate(number, message)):
            return of_ours
        if number in _TLS_ERRORS:
            other = (
                failures.WRONG_HOST if number == pycurl.E_PEER_FAILED_VERIFICATION else failures.BAD_HANDSHAKE
            )
            return failures.certificate_fault(self.curl.getinfo(pycurl.SSL_VERIFYRESULT)) or other
        if number in _PROTOCOL_ERRORS:
            return failures.NOT_HTTP
        if number == pycurl.E_URL_MALFORMAT:
            return failures.BROKEN_INSIDE
        os_errno = self.curl.getinfo(pycurl.OS_ERRNO)
        if number == pycurl.E_COULDNT_CONNECT:
            return failures.connect_failure(os_errno, has_family=partial(has_family_of, self.address))
        if number == pycurl.E_GOT_NOTHING:
            return failures.CLOSED_EMPTY
        if number == pycurl.E_SEND_ERROR or (number == pycurl.E_RECV_ERROR and os_errno):
            return failures.RESET
        if number == pycurl.E_RECV_ERROR and _TLS_BREAK in message:
            return failures.CLOSED_MIDWAY if self._headers else failures.CLOSED_EMPTY
        return failures.UNINTELLIGIBLE

    def _failure_of_proxy(self, number: int | None) -> Failure | None:
        """None: the tunnel stood, and what went wrong is between us and the receiver."""
        code = self.curl.getinfo(pycurl.HTTP_CONNECTCODE)
        if code and not 200 <= code < 300:
            return proxies.refused(code)
        if number in _NO_PROXY:
            return failures.PROXY_UNREACHABLE
        if code or not self._is_new_connection:
            return None
        if number == pycurl.E_OPERATION_TIMEDOUT:
            # Once it took the connection, it may as well wait for the receiver.
            return None if self.curl.getinfo(pycurl.CONNECT_TIME) else failures.PROXY_UNREACHABLE
        return failures.PROXY_BROKE_OFF if number in _BREAKS else None

    def _failure_of_our_certificate(self, number: int | None, message: str) -> Failure | None:
        own_tls = self.request.destination.tls
        has_one = own_tls is not None and own_tls.certificate is not None
        if has_one and self._is_new_connection and number in _BREAKS:
            secured = self.curl.getinfo(pycurl.APPCONNECT_TIME)
            if secured and self.curl.getinfo(pycurl.TOTAL_TIME) - secured < AFTER_HANDSHAKE_SECONDS:
                return failures.of_our_certificate(message, has_one=True) or failures.PROBABLY_REFUSED_OURS
        return failures.of_our_certificate(message, has_one=has_one)

    def _time_out(self) -> Failure:
        is_secure = self.request.destination.scheme == "https"
        phase = pycurl.APPCONNECT_TIME if is_secure else pycurl.CONNECT_TIME
        if self._is_new_connection and self.curl.getinfo(phase) == 0.0:
            return failures.LATE_CONNECTION
        return failures.LATE_REST if self._headers else failures.LATE_ANSWER

    # Called by libcurl

    def _on_open_socket(
        self, _purpose: int, address: tuple[int, int, int, tuple[Any, ...]]
    ) -> socket.socket | int:
        family, kind, protocol, (host, port, *_) = address
        if self._proxy is None:
            self._refusal = self._guard.refusal(host, port)
            if self._refusal is not None:
                return int(pycurl.SOCKET_BAD)
        elif host not in self._proxy.addresses or port != self._proxy.port:
            # Everything goes to the proxy, which the settings name; so nothing else is connected to.
            return int(pycurl.SOCKET_BAD)
        try:
            self._opened = socket.socket(family, kind, protocol)
        except OSError as error:
            self._is_out_of_resources = failures.is_exhausted(error.errno)
            return int(pycurl.SOCKET_BAD)
        return self._opened

    def _on_socket_made(self, fd: int, _purpose: int) -> int:
        # pycurl has made a duplicate of the socket that it was given, and wants no more of ours.
        self._close_opened()
        self._is_new_connection = True
        self._on_new_number(fd)
        return int(pycurl.SOCKOPT_OK)

    def _on_header(self, line: bytes) -> int | None:
        headers = self._headers
        headers.append(line)
        if len(line) <= SHORT_HEADER_BYTES and len(headers) <= MAX_HEADERS:
            return None
        if len(headers) <= MAX_HEADERS and sum(map(len, headers)) <= MAX_HEADER_BYTES:
            return None
        headers.pop()
        self._is_header_too_large = True
        return -1

    def _on_body(self, chunk: bytes) -> int | None:
        self._body_bytes += len(chunk)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(chunk)
            return None
        self._body.append(chunk[: MAX_BODY_BYTES - self._body_bytes])
        self._is_truncated = True
        return -1


def _set_proxy(curl: pycurl.Curl, proxy: Proxy) -> None:
    address = proxy.address or proxy.host
    curl.setopt(pycurl.PROXY, f"http://[{address}]" if ":" in address else f"http://{address}")
    curl.setopt(pycurl.PROXYPORT, proxy.port)
    curl.setopt(pycurl.NOPROXY, "")
    # For http, too: the proxy is asked for the address that was judged, and sees nothing of the request.
    curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
    curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
    if proxy.user is not None:
        curl.setopt(pycurl.PROXYUSERNAME, proxy.user)
        curl.setopt(pycurl.PROXYPASSWORD, proxy.password)


def _set_own_tls(curl: pycurl.Curl, own: OwnTls) -> None:
    # libcurl uses a connection again only where these are the same to the byte. The name, outside of what PEM reads,
    # is what two endpoints with the same certificates do not have in common.
    mark = f"{own.name}\n"
    if own.ca_certificates is not None:
        curl.unsetopt(pycurl.CAINFO)
        curl.setopt(pycurl.CAINFO_BLOB, (mark + own.ca_certificates).encode())
    if own.certificate is not None and own.private_key is not None:
        curl.setopt(pycurl.SSLCERTTYPE, "PEM")
        curl.setopt(pycurl.SSLKEYTYPE, "PEM")
        curl.setopt(pycurl.SSLCERT_BLOB, (mark + own.certificate).encode())
        curl.setopt(pycurl.SSLKEY_BLOB, own.private_key.encode())
    curl.setopt(pycurl.SSL_SESSIONID_CACHE, 0)


def _ends_with_empty_line(headers: list[bytes]) -> bool:
    if not headers:
        return False
    if headers[-1] == b"\r\n":
        return True
    # Trailers of a chunked body may come after it, and what only announces the answer has one of its own.
    begin = max((index for index, line in enumerate(headers) if line.startswith(b"HTTP/")), default=0)
    head = headers[begin:]
    return b"\r\n" in head or b"\n" in head


def _sendable(headers: list[str]) -> list[Any]:
    """The lines in the form in which libcurl sends each of them as it is."""
    # Tests of the whole text, several times faster than of each line. The bar only marks the ends: a value that has
    # one in the wrong place takes the long way in vain.
    text = "|".join(headers) + "|"
    if text.isascii() and text.isprintable() and ":|" not in text and ": |" not in text:
        return headers
    lines = []
    for line in headers:
        name, _, value = line.partition(":")
        value = value.strip()
        # Line breaks would begin another header. `validation` refuses them; what slips through must not be sent.
        text = f"{name}: {value}" if value else f"{name};"
        lines.append("".join(each for each in text if each >= " " or each == "\t").encode())
    return lines
