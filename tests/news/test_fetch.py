"""What a fetch survives: drips, bombs, redirects, private addresses; and where a key must not show up."""

import datetime
import gzip
import logging
import socket
import ssl
import time
import traceback
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.common.errors import SourceUnavailableError
from services.news.addresses import is_public
from services.news.fetch import Answer, Fetcher, Limits, retry_after_s, with_query
from tests.news.support import Request, fetcher, site

KEY = "canary0123456789"


def refused(url: str, words: str, made: Fetcher | None = None, **limits: Any) -> None:
    with pytest.raises(SourceUnavailableError, match=words):
        (made or fetcher(**limits)).get(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1",
        "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:0:7f00:1::1", "fec0::1", "192.88.99.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_open_internet_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_the_open_internet_are_known(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"])
def test_a_local_server_is_never_reached_unless_allowed(host: str) -> None:
    with site(lambda request: request.answer(b"secret")) as here:
        port = here.url.rpartition(":")[2]
        guarded = Fetcher(Limits(), user_agent="t")
        refused(f"http://{host}:{port}/", "no public address|cannot be resolved|cannot connect", guarded)
        assert here.requests == []
        assert fetcher().get(here.url).body == b"secret"


def test_a_name_is_resolved_once_a_hop_and_connected_to_as_it_was_checked() -> None:
    """A name that resolves otherwise the second time does not lead anywhere else."""
    asked: list[str] = []
    answers = iter([["127.0.0.1"], ["10.1.2.3"]])

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with site(lambda request: request.answer(b"right")) as here:
        port = here.url.rpartition(":")[2]
        made = Fetcher(Limits(), user_agent="t", allow_private=True, resolve=resolve)
        assert made.get(f"http://feed.test:{port}/").body == b"right"
    assert asked == ["feed.test"]
    assert here.requests[0].headers["Host"] == f"feed.test:{port}"


def test_each_hop_of_a_redirect_is_checked_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # This machine stands for the open internet here; all other addresses are what they are.
    monkeypatch.setattr(
        "services.news.addresses.is_public", lambda address: address == "127.0.0.1" or is_public(address)
    )
    checked: list[str] = []
    connected: list[str] = []
    connect = socket.create_connection

    def resolve(host: str, port: int) -> list[str]:
        checked.append(host)
        return {
            "feed.test": ["127.0.0.1"],
            "inner.test": ["10.1.2.3"],
            "mixed.test": ["1.1.1.1", "10.1.2.3"],
        }[host]

    def watched(address: tuple[str, int], *rest: Any) -> socket.socket:
        connected.append(address[0])
        return connect(address, *rest)

    monkeypatch.setattr(socket, "create_connection", watched)
    made = Fetcher(Limits(), user_agent="t", resolve=resolve)
    with site(lambda request: request.answer(status=302, Location="http://inner.test/latest")) as here:
        port = here.url.rpartition(":")[2]
        refused(f"http://feed.test:{port}/", "inner.test is no public address", made)
    # One bad address of many is enough.
    refused("http://mixed.test/", "mixed.test is no public address", made)
    assert checked == ["feed.test", "inner.test", "mixed.test"]
    assert connected == ["127.0.0.1"]


def test_redirects_are_followed_five_times() -> None:
    def play(request: Request) -> None:
        number = int(request.path.strip("/"))
        if number:
            request.answer(status=301 + number % 2, Location=f"/{number - 1}")
        else:
            request.answer(b"here")

    with site(play) as here:
        assert fetcher().get(f"{here.url}/5").body == b"here"
        refused(f"{here.url}/6", "more than 5 redirects")


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("file:///etc/passwd", "no web address"),
        ("ftp://a.example/x", "no web address"),
        ("gopher://127.0.0.1:6379/_", "no web address"),
        ("http://[bad", "no address"),
        ("mailto:a@b.example", "no web address"),
    ],
)
def test_redirects_out_of_the_web_are_refused(location: str, words: str) -> None:
    with site(lambda request: request.answer(status=302, Location=location)) as here:
        refused(here.url, words)


def test_a_drip_ends_with_the_deadline_in_the_body_and_in_the_head() -> None:
    def drip(request: Request, head: bytes) -> None:
        request.raw(head)
        for _ in range(200):
            request.raw(b"X: y\r\n" if request.path == "/head" else b"x")
            if here.stopping.wait(0.05):
                return

    def play(request: Request) -> None:
        start = b"HTTP/1.1 200 OK\r\n"
        ends = {"/head": b"", "/body": b"Content-Length: 100000\r\n\r\n", "/open": b"\r\n"}
        drip(request, start + ends[request.path])

    with site(play) as here:
        for path in ("/head", "/body", "/open"):
            began = time.monotonic()
            refused(here.url + path, r"no whole answer within 0\.4 s", total_s=0.4, read_s=5)
            assert time.monotonic() - began < 2


def test_a_server_that_says_nothing_ends_with_the_read_time_out() -> None:
    def play(_request: Request) -> None:
        here.stopping.wait(5)

    with site(play) as here:
        refused(here.url, "no answer", read_s=0.2)


@pytest.mark.parametrize("how", ["length", "chunks", "until_close"])
def test_an_answer_that_is_too_large_is_cut_off(how: str) -> None:
    def play(request: Request) -> None:
        body = b"x" * 300_000
        if how == "length":
            request.answer(body)
        elif how == "chunks":
            request.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            request.raw(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            request.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)

    with site(play) as here:
        refused(here.url, "more than 100000 bytes", max_bytes=100_000)
        assert len(fetcher(max_bytes=300_000).get(here.url).body) == 300_000


@pytest.mark.parametrize("status", [200, 302, 503])
def test_a_bomb_is_not_unpacked(status: int) -> None:
    bomb = gzip.compress(b"\0" * 200_000_000)

    def play(request: Request) -> None:
        headers = {"Location": "/next"} if status == 302 and request.path == "/" else {}
        request.answer(bomb, status, Content_Encoding="gzip", **headers)

    tracemalloc.start()
    try:
        with site(play) as here:
            refused(here.url, "more than 1000000 bytes", max_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], "gzip"),
        (b"no gzip", "gzip"),
        (b"x", "br"),
        (b"x", "deflate"),
    ],
    # Bytes are no names: workers that run the tests side by side must find the same ones.
    ids=["cut off", "no gzip", "brotli", "no deflate"],
)
def test_packed_answers_that_cannot_be_unpacked_are_errors(body: bytes, encoding: str) -> None:
    with site(lambda request: request.answer(body, Content_Encoding=encoding)) as here:
        refused(here.url, "packed")


def test_an_answer_that_ends_early_is_an_error() -> None:
    with site(lambda request: request.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")) as here:
        refused(here.url, "no answer")


def test_what_is_no_http_and_who_does_not_listen_are_errors() -> None:
    with site(lambda request: request.raw(b"SSH-2.0-x\r\n")) as here:
        refused(here.url, "no answer")
    refused(here.url, "cannot connect to 127.0.0.1")
    refused("http://nobody.invalid/", "cannot be resolved")
    refused("http://" + "a" * 70 + ".example/", "cannot be resolved|no answer")


def test_proxies_and_passwords_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    with site(lambda request: request.answer(b"direct")) as here:
        assert fetcher().get(here.url).body == b"direct"
    assert here.requests[0].headers["Authorization"] is None


def ask_with_key(url: str, **limits: Any) -> Answer:
    return fetcher(**limits).get(url, secrets={"auth_token": KEY})


def test_a_key_is_sent_and_taken_out_of_the_answer() -> None:
    with site(
        lambda request: request.answer(f"next=?auth_token={request.query['auth_token']}".encode())
    ) as here:
        assert ask_with_key(f"{here.url}/posts?kind=news&auth_token=old").body == b"next=?auth_token=***"
    assert here.requests[0].query == {"kind": "news", "auth_token": KEY}


def test_a_key_is_in_no_error_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    def play(request: Request) -> None:
        raw = {
            "/reset": b"",
            "/junk": b"junk\r\n\r\n",
            "/short": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
            "/headers": b"HTTP/1.1 200 OK\r\n: bad\r\n junk\r\nContent-Length: 9\r\n\r\n",
            "/elsewhere": f"HTTP/1.1 302 F\r\nLocation: http://evil.test/?auth_token={KEY}\r\n\r\n".encode(),
            "/bad": f"HTTP/1.1 302 F\r\nLocation: http://[{KEY}\r\n\r\n".encode(),
            "/loop": f"HTTP/1.1 302 F\r\nLocation: /loop?auth_token={KEY}\r\n\r\n".encode(),
        }
        if request.path in raw:
            request.raw(raw[request.path])
        else:
            here.stopping.wait(5)

    caplog.set_level(logging.ERROR, "urllib3")
    shown = ""
    with site(play) as here:
        for path in ("/reset", "/junk", "/short", "/headers", "/elsewhere", "/bad", "/loop", "/silent"):
            with pytest.raises(SourceUnavailableError) as caught:
                ask_with_key(here.url + path, read_s=0.2)
            shown += "".join(traceback.format_exception(caught.value))
    with pytest.raises(SourceUnavailableError) as caught:
        ask_with_key(here.url + "/gone")
    shown += "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "evil.test" in shown
    assert KEY not in shown
    assert all(request.headers.get("Host", "").startswith("127.0.0.1") for request in here.requests)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def test_tls_speaks_of_the_name_and_not_of_the_address(tmp_path: Path) -> None:
    certificate_file, key_file = certificate(tmp_path, "feed.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    named: list[str | None] = []
    context.sni_callback = lambda connection, name, _context: named.append(name)

    def wrap(listener: socket.socket) -> socket.socket:
        return context.wrap_socket(listener, server_side=True, do_handshake_on_connect=False)

    def play(request: Request) -> None:
        if request.path == "/plain":
            request.answer(status=302, Location="http://feed.test/")
        else:
            request.answer(b"encrypted")

    def made(**options: Any) -> Fetcher:
        return Fetcher(
            Limits(), user_agent="t", allow_private=True, resolve=lambda *_: ["127.0.0.1"], **options
        )

    with site(play, wrap) as here:
        port = here.url.rpartition(":")[2]
        trusting = made(ca_file=certificate_file)
        assert trusting.get(f"https://feed.test:{port}/").body == b"encrypted"
        assert named == ["feed.test"]
        refused(f"https://other.test:{port}/", "no answer", trusting)
        refused(f"https://feed.test:{port}/", "no answer", made())
        refused(f"https://feed.test:{port}/plain", "from encrypted to plain", trusting)


def test_what_retry_after_says_is_understood() -> None:
    assert retry_after_s("120") == 120
    assert retry_after_s("Tue, 07 Jul 2026 12:01:00 GMT", lambda: 1_783_425_600) == 60
    assert retry_after_s("Tue, 07 Jul 2020 12:01:00 GMT", lambda: 1_783_425_600) == 0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


def test_query_parameters_replace_those_of_the_same_name() -> None:
    assert with_query("https://a.example/x?k=1&z=2", {"k": "3 4"}) == "https://a.example/x?z=2&k=3+4"
    assert with_query("https://a.example/x?k=1", {}) == "https://a.example/x?k=1"
