"""The live source against exchanges on loopback sockets."""

import gzip
import json
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection

from services.common.errors import SourceError
from tests.trades.support import (
    RECORDINGS,
    T0_MS,
    SocketServer,
    kraken_ack,
    kraken_frame,
    kraken_pages,
    kraken_row,
    kraken_snapshot,
    live,
    rest_server,
    socket_server,
    wait_until,
)


def recording(exchange: str) -> list[str]:
    with gzip.open(RECORDINGS / f"{exchange}-ws-2026-07-07.ndjson.gz", "rt") as file:
        return file.read().splitlines()


@pytest.mark.parametrize(
    ("exchange", "pairs", "counts"),
    [
        ("kraken", "BTC/USD,ETH/USD", (12, 5)),
        ("coinbase", "BTC/USD,ETH/USD", (345, 92)),
        ("binance", "BTC/USDT,ETH/USDT", (748, 415)),
    ],
)
def test_a_recorded_session_is_published_whole_and_in_order(
    tmp_path: Path, exchange: str, pairs: str, counts: tuple[int, int]
) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        request = json.loads(connection.recv(timeout=5))
        if exchange == "binance":
            assert request["params"] == ["btcusdt@trade", "ethusdt@trade"]
            connection.send('{"result":null,"id":1}')
        for frame in recording(exchange):
            connection.send(frame)
        server.hold(connection, None)

    first, second = pairs.split(",")
    with socket_server(play) as server, live(tmp_path, server.url, exchange=exchange, pairs=pairs) as run:
        expected = (counts[0], counts[1])
        wait_until(
            lambda: (len(run.publisher.ids(first)), len(run.publisher.ids(second))) == expected,
            "all trades of the recording",
        )
    for pair in (first, second):
        ids = run.publisher.ids(pair)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        # Coverage begins with a heartbeat, before the pair's first trade.
        assert next(m for m in run.publisher.messages if m[1] == pair)[0] == "heartbeat"
    assert not run.publisher.dead
    assert run.progress.positions[first].trade_id == run.publisher.ids(first)[-1]


def test_the_first_start_tells_where_coverage_begins(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(5, 6, 7))
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url) as run:
        wait_until(lambda: run.publisher.ids() == [5, 6, 7], "the snapshot")
        assert run.publisher.messages[0][:3] == ("heartbeat", "BTC/USD", T0_MS + 50)
        wait_until(lambda: len(run.publisher.heartbeats()) >= 3, "heartbeats of a living socket")
        wait_until(lambda: not run.health.not_ready() or run.health.not_ready() == [], "readiness")
    later = [m for m in run.publisher.messages if m[0] == "heartbeat"][1:]
    # The last argument but one is the wall clock when it was sent: it stays a second behind.
    assert all(message[3] - message[2] >= 1000 for message in later)


def test_a_snapshot_that_overlaps_closes_the_gap_without_rest(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        if number == 1:
            connection.send(kraken_snapshot(1, 2, 3))
            connection.close()
            return
        connection.send(kraken_snapshot(2, 3, 4, 5))
        connection.send(kraken_frame(kraken_row(6)))
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url) as run:
        wait_until(lambda: run.publisher.ids() == [1, 2, 3, 4, 5, 6], "both connections' trades")
        assert run.value("reconnects_total") == 1
        assert run.value("ignored_total", reason="snapshot_overlap") == 2
        assert run.value("trade_gaps_total", pair="BTC/USD") == 0


def test_a_reconnect_gap_is_filled_by_rest_before_live_goes_on(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        pairs = kraken_ack(connection)
        assert pairs == ["BTC/USD", "ETH/USD"]
        if number == 1:
            connection.send(kraken_snapshot(1, 2, 3))
            connection.send(kraken_snapshot(1, pair="ETH/USD"))
            connection.close()
            return
        connection.send(kraken_snapshot(2500, 2501))
        connection.send(kraken_snapshot(1, 2, pair="ETH/USD"))
        server.hold(connection)

    with (
        rest_server(kraken_pages(range(1, 2600))) as rest,
        socket_server(play) as server,
        live(tmp_path, server.url, rest.url, pairs="BTC/USD,ETH/USD") as run,
    ):
        wait_until(lambda: 2501 in run.publisher.ids(), "the gap to be filled")
        wait_until(lambda: run.publisher.ids("ETH/USD") == [1, 2], "the other pair")
    ids = run.publisher.ids()
    assert ids == list(range(1, len(ids) + 1))
    assert run.value("trades_filled_total", pair="BTC/USD") >= 2496
    # Every page asks on from the one before.
    cursors = [int(params["since"]) for _, params in rest.requests]
    assert cursors == sorted(set(cursors))


def test_an_id_jump_in_the_middle_of_a_connection_is_filled(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(1))
        connection.send(kraken_frame(kraken_row(5), kraken_row(6)))
        connection.send(kraken_frame(kraken_row(7)))
        server.hold(connection)

    with (
        rest_server(kraken_pages(range(1, 8))) as rest,
        socket_server(play) as server,
        live(tmp_path, server.url, rest.url) as run,
    ):
        wait_until(lambda: len(run.publisher.ids()) >= 7, "the jump to be filled")
        assert run.publisher.ids() == [1, 2, 3, 4, 5, 6, 7]


def test_a_gap_that_rest_refuses_is_recorded_and_live_goes_on(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(1))
        connection.send(kraken_frame(kraken_row(5)))
        server.hold(connection)

    refusal = b'{"error":["EQuery:Unknown asset pair"]}'
    with (
        rest_server(lambda path, params: (200, {}, refusal)) as rest,
        socket_server(play) as server,
        live(tmp_path, server.url, rest.url) as run,
    ):
        wait_until(lambda: run.publisher.ids() == [1, 5], "live to go on")
        assert run.value("trade_gaps_total", pair="BTC/USD") == 1
        assert run.value("trades_missing_total", pair="BTC/USD") == 3


def test_no_heartbeat_is_sent_while_a_pair_is_being_filled(tmp_path: Path) -> None:
    release = threading.Event()
    pages = kraken_pages(range(1, 6))

    def answer(path: str, params: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        release.wait(5)
        return pages(path, params)

    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(1))
        connection.send(kraken_snapshot(1, pair="ETH/USD"))
        connection.send(kraken_frame(kraken_row(5)))
        server.hold(connection)

    with (
        rest_server(answer) as rest,
        socket_server(play) as server,
        live(tmp_path, server.url, rest.url, pairs="BTC/USD,ETH/USD") as run,
    ):
        wait_until(lambda: rest.requests, "the fill to begin")
        known = len(run.publisher.heartbeats())
        others = len(run.publisher.heartbeats("ETH/USD"))
        wait_until(lambda: len(run.publisher.heartbeats("ETH/USD")) > others + 2, "the other pair's")
        assert len(run.publisher.heartbeats()) == known
        release.set()
        wait_until(lambda: len(run.publisher.heartbeats()) > known, "heartbeats again")
        assert run.publisher.ids() == [1, 2, 3, 4, 5]


def test_a_restart_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    snapshots = iter([(1, 2, 3), (2003, 2004)])

    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(*next(snapshots)))
        server.hold(connection)

    with rest_server(kraken_pages(range(1, 2005))) as rest, socket_server(play) as server:
        with live(tmp_path, server.url, rest.url) as run:
            wait_until(lambda: run.publisher.ids() == [1, 2, 3], "the first run")
        with live(tmp_path, server.url, rest.url) as again:
            wait_until(lambda: 2004 in again.publisher.ids(), "the second run")
    assert again.publisher.ids() == list(range(4, 2005))
    # What it covers goes on from the first run, so no heartbeat comes before the trades.
    assert again.publisher.messages[0][0] == "trades"


def test_binance_without_a_snapshot_asks_rest_at_once_after_a_restart(tmp_path: Path) -> None:
    def row(trade_id: int) -> dict[str, object]:
        at = T0_MS + trade_id
        return {"id": trade_id, "price": "1.5", "qty": "2", "time": at, "isBuyerMaker": True}

    def answer(path: str, params: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        assert path == "/api/v3/historicalTrades"
        start = int(params["fromId"])
        return 200, {}, json.dumps([row(i) for i in range(start, min(start + 1000, 1501))]).encode()

    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        connection.recv(timeout=5)
        connection.send('{"result":null,"id":1}')
        if server.connections == 1:
            data = {"e": "trade", "s": "BTCUSDT", "t": 1, "p": "1", "q": "1", "T": T0_MS, "m": False}
            connection.send(json.dumps({"stream": "btcusdt@trade", "data": data}))
        server.hold(connection, None)

    options = {"exchange": "binance", "pairs": "BTC/USDT"}
    with rest_server(answer) as rest, socket_server(play) as server:
        with live(tmp_path, server.url, rest.url, **options) as run:
            wait_until(lambda: run.publisher.ids("BTC/USDT") == [1], "the first run")
        with live(tmp_path, server.url, rest.url, **options) as again:
            wait_until(lambda: 1500 in again.publisher.ids("BTC/USDT"), "the missed trades")
            wait_until(lambda: again.publisher.heartbeats("BTC/USDT"), "a heartbeat kept up by pings")
    assert again.publisher.ids("BTC/USDT") == list(range(2, 1501))
    assert again.publisher.rows()[0].side == "sell"


def test_a_tail_that_coinbase_claims_and_never_sends_is_fetched(tmp_path: Path) -> None:
    def match(trade_id: int) -> dict[str, object]:
        at = "2026-07-07T22:58:17.164892Z"
        return {"trade_id": trade_id, "side": "buy", "size": "1", "price": "2", "time": at}

    def answer(path: str, params: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        assert path == "/products/BTC-USD/trades"
        newest = int(params["after"]) - 1
        return 200, {}, json.dumps([match(i) for i in range(newest, 0, -1)]).encode()

    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        connection.recv(timeout=5)
        channels = [{"name": "matches", "product_ids": ["BTC-USD"]}]
        connection.send(json.dumps({"type": "subscriptions", "channels": channels}))
        connection.send(json.dumps(match(7) | {"type": "last_match", "product_id": "BTC-USD"}))
        server.hold(connection, '{"type":"heartbeat","last_trade_id":9,"product_id":"BTC-USD","sequence":1}')

    with (
        rest_server(answer) as rest,
        socket_server(play) as server,
        live(tmp_path, server.url, rest.url, exchange="coinbase") as run,
    ):
        wait_until(lambda: run.publisher.ids() == [7, 8, 9], "the claimed trades")
        assert {row.side for row in run.publisher.rows()} == {"sell"}


# --- what goes wrong on the socket ----------------------------------------------------------------


def test_a_pair_refused_at_the_start_ends_the_source(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        connection.recv(timeout=5)
        refusal = {"error": "Currency pair not supported BTC/USD", "success": False}
        connection.send(json.dumps(refusal | {"method": "subscribe"}))
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url) as run:
        wait_until(lambda: not run.thread.is_alive(), "the source to end")
    assert isinstance(run.errors[0], SourceError)
    assert "Currency pair not supported" in str(run.errors[0])


def test_a_pair_that_is_never_acked_at_the_start_ends_the_source(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection, only=("BTC/USD",))
        server.hold(connection)

    options = {"pairs": "BTC/USD,ETH/USD", "ack_timeout_s": "0.2"}
    with socket_server(play) as server, live(tmp_path, server.url, **options) as run:
        wait_until(lambda: not run.thread.is_alive(), "the source to end")
    assert isinstance(run.errors[0], SourceError)
    assert "did not confirm ETH/USD" in str(run.errors[0])


def test_a_refusal_after_a_reconnect_is_tried_again(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        if number == 2:
            connection.recv(timeout=5)
            connection.send('{"Error":"Exceeded msg rate"}')
            server.hold(connection)
        kraken_ack(connection)
        connection.send(kraken_snapshot(1) if number == 1 else kraken_snapshot(1, 2))
        if number == 1:
            connection.close()
            return
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url) as run:
        wait_until(lambda: run.publisher.ids() == [1, 2], "the third connection")
        assert server.connections == 3


def test_a_stalled_socket_is_closed_from_outside_and_replaced(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(number))
        if number == 1:
            # Nothing is read either, so pings stay unanswered.
            connection.socket.setblocking(True)
            connection.protocol.receive_data = lambda data: None  # type: ignore[method-assign]
            server.stopping.wait(10)
            return
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url, socket_silence_s="0.3") as run:
        wait_until(lambda: run.publisher.ids() == [1, 2], "a second connection")
        server.stopping.set()


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_an_oversize_frame_leads_to_a_reconnect(tmp_path: Path, size: int) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(number))
        if number == 1:
            connection.send("x" * size)
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url, max_frame_bytes="10000") as run:
        wait_until(lambda: run.publisher.ids() == [1, 2], "a second connection")
    assert not run.publisher.dead


def test_garbage_is_put_aside_and_its_neighbours_are_not(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send("not json")
        connection.send(b"\xff\xfe")
        connection.send(kraken_frame(kraken_row(1), kraken_row(9, qty=-1), kraken_row(2)))
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url) as run:
        wait_until(lambda: run.publisher.ids() == [1, 2], "the good rows")
        wait_until(lambda: len(run.publisher.dead) == 3, "the dead letters")
    assert [bad.error.reason for bad in run.publisher.dead] == ["bad_json", "bad_json", "bad_quantity"]
    assert json.loads(run.publisher.dead[2].raw)["qty"] == -1


def test_an_acked_pair_that_is_sent_nothing_is_fetched_and_resubscribed(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(1, 2) if number == 1 else kraken_snapshot(4, 5))
        server.hold(connection)

    with (
        rest_server(kraken_pages([1, 2, 3, 4])) as rest,
        socket_server(play) as server,
        live(tmp_path, server.url, rest.url, pair_silence_s="0.3") as run,
    ):
        wait_until(lambda: run.publisher.ids() == [1, 2, 3, 4, 5], "what was withheld")
        assert server.connections >= 2


def test_a_quiet_pair_that_missed_nothing_keeps_its_connection(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(1, 2))
        server.hold(connection)

    with (
        rest_server(kraken_pages([1, 2])) as rest,
        socket_server(play) as server,
        live(tmp_path, server.url, rest.url, pair_silence_s="0.2") as run,
    ):
        wait_until(lambda: len(rest.requests) >= 2, "two looks at the pair")
        wait_until(lambda: len(run.publisher.heartbeats()) > 3, "heartbeats")
        assert server.connections == 1
        assert run.value("trade_gaps_total", pair="BTC/USD") == 0


def test_binance_announcing_its_shutdown_is_left_at_once(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        connection.recv(timeout=5)
        connection.send('{"result":null,"id":1}')
        if number == 1:
            connection.send('{"e":"serverShutdown","E":1}')
        server.hold(connection, None)

    options = {"exchange": "binance", "pairs": "BTC/USDT"}
    with socket_server(play) as server, live(tmp_path, server.url, **options) as run:
        wait_until(lambda: server.connections == 2, "a second connection")
        assert run.value("reconnects_total") == 1


def test_an_exchange_that_is_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    with live(tmp_path, "ws://127.0.0.1:9") as run:
        wait_until(lambda: run.value("reconnects_total") >= 2, "attempts")
        assert run.thread.is_alive()
        assert any("socket" in reason for reason in run.health.not_ready())


def test_it_stops_within_a_second(tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        server.hold(connection)

    with socket_server(play) as server, live(tmp_path, server.url) as run:
        wait_until(lambda: server.connections == 1, "the connection")
        began = time.monotonic()
        run.stop.set()
        run.thread.join(5)
        assert time.monotonic() - began < 1.0
        assert not run.errors
