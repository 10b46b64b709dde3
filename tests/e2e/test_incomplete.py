"""Nothing incomplete ever reaches a worker, and nothing that a worker leaves incomplete ever looks whole to a client."""

import pytest

from backend import OK, answer, polite
from client import Client, Cut, Malformed, message
from tools import pattern

BODY = pattern(3000)
PLAIN = message("POST", "/plain?x=1", [("X-Field", "some value")], BODY)
CHUNKED = message("POST", "/chunked", [("X-Field", "some value")], BODY, chunked=True)
BIG = message("POST", "/big", [], pattern(300_000))  # most of it is in the spool
GET = message("GET", "/get", [("X-Field", "some value")])


@pytest.fixture(scope="module")
def stage(shared):
    """One slot: whatever reached the worker before a later request is seen before it."""
    backend = shared.backend()
    site = shared.forebay({"socket": backend.name, "slots": 1, "timeout": "5m"}, forebay={"threads": 1},
                          listen={"min_rate": 0, "head_timeout": "5m"})
    site.backend = backend
    return site


def nothing_but(stage, expected=()):
    """Asserts what the worker saw since the last call: only this, in this order. A later request shows that no more is on its way."""
    assert stage.ask("GET", "/sentinel").status == 200
    seen = stage.backend.take()
    assert [s.target for s in seen] == [*expected, "/sentinel"]
    whole = sum(len(s.raw) for s in seen)
    with stage.backend.lock:
        received = len(stage.backend.received)
        stage.backend.received.clear()
    assert received == whole, "bytes that belong to no whole request"
    return seen


@pytest.fixture(autouse=True)
def fresh(stage):
    nothing_but_sentinels = stage.backend.take()
    stage.backend.received.clear()
    stage.backend.planned.clear()
    return nothing_but_sentinels


def places(raw):
    """Where to stop: all of the head's structure, and some of the body's; never the whole."""
    end = raw.index(b"\r\n\r\n") + 4
    spots = {1, 3, raw.index(b" ") + 1, raw.index(b"\r\n"), raw.index(b"\r\n") + 1, raw.index(b"\r\n") + 2, end - 3, end - 2, end - 1,
             end, end + 1, (end + len(raw)) // 2, len(raw) - 3, len(raw) - 2, len(raw) - 1}
    return sorted(s for s in spots if 0 < s < len(raw))


@pytest.mark.parametrize("how", ["fin", "reset", "half-close"])
@pytest.mark.parametrize("raw", [GET, PLAIN, CHUNKED, BIG], ids=["get", "plain", "chunked", "spooled"])
def test_a_client_that_goes_early_leaves_nothing_at_the_worker(stage, raw, how):
    for at in places(raw):
        c = stage.connect()
        c.send(raw[:at])
        if how == "fin":
            c.close()
        elif how == "reset":
            c.reset()
        else:
            c.sock.shutdown(1)
            c.to_end()  # forebay's word or not, its end of the connection
            c.close()
    nothing_but(stage)


@pytest.mark.parametrize("raw", [GET, PLAIN, CHUNKED, BIG], ids=["get", "plain", "chunked", "spooled"])
def test_a_client_that_stops_leaves_nothing_at_the_worker(stage, raw):
    stopped = []
    for at in places(raw):
        c = stage.connect()
        c.send(raw[:at])
        stopped.append((c, at))
    nothing_but(stage)  # while they all wait
    for c, at in stopped:  # and each can still be finished
        c.send(raw[at:])
        assert c.response().status == 200
        c.close()
    nothing_but(stage, ["/" + {GET: "get", PLAIN: "plain?x=1", CHUNKED: "chunked", BIG: "big"}[raw]] * len(stopped))


BROKEN = {
    "size is no number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "size is negative": b"-1\r\nabc\r\n0\r\n\r\n",
    "size is empty": b"\r\nabc\r\n0\r\n\r\n",
    "size has 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size has a plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "size has a space before": b" 3\r\nabc\r\n0\r\n\r\n",
    "size overflows 64 bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "size overflows 63 bits": b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "size line ends in LF alone": b"3\nabc\r\n0\r\n\r\n",
    "size line ends in CR alone": b"3\rabc\r\n0\r\n\r\n",
    "data is longer than said": b"3\r\nabcd\r\n0\r\n\r\n",
    "data is shorter than said": b"4\r\nabc\r\n0\r\n\r\n",
    "data ends in LF alone": b"3\r\nabc\n0\r\n\r\n",
    "data ends in CR alone": b"3\r\nabc\rx0\r\n\r\n",
    "data has no end": b"3\r\nabc0\r\n\r\n",
    "extension has a NUL": b"3;a=\0\r\nabc\r\n0\r\n\r\n",
    "extension has a bare CR": b"3;a=\rb\r\nabc\r\n0\r\n\r\n",
    "extension without end": b"3;" + b"a" * 5000,
    "last chunk ends in LF alone": b"3\r\nabc\r\n0\n\n",
    "trailer is no field": b"3\r\nabc\r\n0\r\nno field\r\n\r\n",
    "trailer has a space before the colon": b"3\r\nabc\r\n0\r\na : b\r\n\r\n",
    "trailer is folded": b"3\r\nabc\r\n0\r\na: b\r\n c\r\n\r\n",
    "trailer has a bare LF": b"3\r\nabc\r\n0\r\na: b\n\r\n",
    "trailer without end": b"3\r\nabc\r\n0\r\n" + b"a: %s\r\n" % (b"b" * 1000) * 40,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_chunk_is_refused_and_leaves_nothing(stage, name):
    head = b"POST /broken HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    for good in (b"", b"5\r\nhello\r\n", b"".join(b"2000\r\n%s\r\n" % pattern(8192, i) for i in range(20))):
        with stage.connect() as c:
            c.try_send(head + good + BROKEN[name])
            assert c.response().status == 400
            c.ends()
    nothing_but(stage)


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_request_is_never_taken_for_whole_by_its_pieces(stage, size):
    """What follows a length is the next request, byte for byte."""
    with stage.connect() as c:
        c.send(message("POST", "/a", body=pattern(size)) + message("GET", "/b"))
        assert [c.response().status, c.response().status] == [200, 200]
    seen = nothing_but(stage, ["/a", "/b"])
    assert seen[0].body == pattern(size) and seen[1].body == b""


# The other side: workers that misbehave.

HEAD = b"HTTP/1.1 200 OK\r\n"
PIECE = pattern(2000)
BULK = pattern(400_000)  # above `hold`: the client is fed while it comes

# Nothing has been sent to the client yet: a clean 502.
UNSENT = {
    "closes without a word": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Fi",
    "head, and no body": HEAD + b"Content-Length: 5\r\n\r\n",
    "short of its length": HEAD + b"Content-Length: 2001\r\n\r\n" + PIECE,
    "chunks without the last": HEAD + b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n%s\r\n" % PIECE,
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n7d1\r\n%s" % PIECE,
    "last chunk without its end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
    "chunk size is no number": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
    "chunk longer than said": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunk size overflows": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 50,
    "text": b"Traceback (most recent call last):\n  File\n",
    "no version": b"200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "lengths that differ": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "length is no number": HEAD + b"Content-Length: two\r\n\r\nok",
    "length is negative": HEAD + b"Content-Length: -2\r\n\r\nok",
    "length overflows": HEAD + b"Content-Length: 18446744073709551618\r\n\r\nok",
    "unknown transfer coding": HEAD + b"Transfer-Encoding: gzip\r\n\r\nok",
    "space before a colon": HEAD + b"Content-Length : 2\r\n\r\nok",
    "no colon": HEAD + b"Nonsense\r\nContent-Length: 2\r\n\r\nok",
    "folded field": HEAD + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a field": HEAD + b"X-A: b\0c\r\nContent-Length: 2\r\n\r\nok",
    "CR in a field": HEAD + b"X-A: b\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok",
    "LF line ends": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "head without end": HEAD + b"X-A: %s\r\n" % (b"a" * 900) * 200,
    "too many fields": HEAD + b"".join(b"X-%d: a\r\n" % i for i in range(5000)) + b"Content-Length: 2\r\n\r\nok",
    "101 that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    "endless 1xx": b"HTTP/1.1 102 Processing\r\n\r\n" * 20_000,
}


@pytest.mark.parametrize("name", UNSENT)
def test_a_response_that_breaks_before_it_was_sent_is_a_502(stage, name):
    stage.backend.next(*[answer(UNSENT[name])] * 3)
    with stage.connect() as c:
        r = c.ask("POST", "/hostile", body=b"x")
        assert r.status == 502
        assert b"evil" not in r.body and r.get("X-A") is None
    stage.backend.planned.clear()
    assert [s.target for s in stage.backend.take()] == ["/hostile"]  # a POST was not tried again
    assert stage.ask("GET", "/").status == 200


# Past `hold`: the cut must show.
SENT = {
    "short of its length": HEAD + b"Content-Length: 1000000\r\n\r\n" + BULK,
    "chunks without the last": HEAD + b"Transfer-Encoding: chunked\r\n\r\n61a80\r\n%s\r\n" % BULK,
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nf4240\r\n%s" % BULK,
    "broken chunk after good ones": HEAD + b"Transfer-Encoding: chunked\r\n\r\n61a80\r\n%s\r\nxyz\r\n\r\n0\r\n\r\n" % BULK,
    "trailer that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n61a80\r\n%s\r\n0\r\nno field\r\n\r\n" % BULK,
}


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("name", SENT)
def test_a_response_that_breaks_after_some_was_sent_is_visibly_cut(stage, name, then):
    stage.backend.next(answer(SENT[name], then))
    with stage.connect() as c:
        c.send(message("GET", "/cut") if then == "close" else message("POST", "/cut", body=b"x" * 10))
        with pytest.raises(Cut):
            c.response()
    assert stage.ask("GET", "/").status == 200


@pytest.mark.parametrize("name", ["short of its length", "chunks without the last"])
def test_a_cut_shows_to_an_http10_client_too(stage, name):
    """It knows no chunks, and takes the end for the end unless there is a length or a reset."""
    stage.backend.next(*[answer(SENT[name])] * 2)
    with stage.connect() as c:
        c.send(b"GET /cut HTTP/1.0\r\nHost: test\r\n\r\n")
        try:
            assert c.response().status == 502
        except Cut:
            pass
    stage.backend.planned.clear()


def test_a_pipelined_request_after_a_cut_is_not_answered(stage):
    stage.backend.next(answer(SENT["short of its length"]))
    with stage.connect() as c:
        c.send(message("GET", "/cut") + message("GET", "/after"))
        with pytest.raises(Cut):
            c.response()
        assert b"HTTP/1.1" not in bytes(c.to_end())


@pytest.mark.parametrize("then", ["close", "hold", "linger"])
def test_two_answers_are_one_and_the_rest_is_nobodys(stage, then):
    """The second answer to one request must not become the answer to the next."""
    two = (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"
           b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
    stage.backend.next(answer(two, then))
    with stage.connect() as c:
        r = c.ask("GET", "/two")
        assert r.status in (200, 502) and b"second" not in r.body
        if r.status == 200:
            assert r.body == b"first"
        assert c.ask("GET", "/next").body == b"ok"


def test_more_than_its_length_is_not_passed_on(stage):
    stage.backend.next(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst-and-more"))
    with stage.connect() as c:
        r = c.ask("GET", "/long")
        assert r.status in (200, 502) and b"and-more" not in r.body
        assert c.ask("GET", "/next").body == b"ok"


def test_two_answers_on_a_kept_connection_do_not_shift(work):
    backend = work.backend()

    def twice(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        polite(conn)

    site = work.forebay({"socket": backend.name, "slots": 1, "keepalive": "on"})
    for _ in range(5):
        backend.next(twice)
        with site.connect() as c:
            answers = [c.ask("GET", f"/{i}") for i in range(3)]
            assert all(b"evil" not in r.body for r in answers)
        backend.planned.clear()


@pytest.mark.parametrize("status", [204, 304])
def test_content_where_there_must_be_none_is_not_passed_on(stage, status):
    stage.backend.next(answer(b"HTTP/1.1 %d X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" % status))
    with stage.connect() as c:
        c.send(message("GET", "/none") + message("GET", "/next"))
        assert c.response().status in (status, 502)
        assert c.response().body == b"ok"


def test_content_in_the_answer_to_head_is_not_passed_on(stage):
    stage.backend.next(answer(HEAD + b"Content-Length: 40\r\n\r\n" + b"e" * 40))
    with stage.connect() as c:
        c.send(message("HEAD", "/head") + message("GET", "/next"))
        assert c.response("HEAD").status in (200, 502)
        assert c.response().body == b"ok"


def test_a_status_line_may_come_in_pieces(stage):
    whole = b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok"
    for at in range(1, len(whole), 3):
        stage.backend.next(answer([whole[:at], whole[at:]]))
        r = stage.ask("GET", "/pieces")
        assert (r.status, r.body, r.get("X-A")) == (200, b"ok", "b")
    stage.backend.next(answer([whole[i:i + 1] for i in range(len(whole))]))
    assert stage.ask("GET", "/pieces").body == b"ok"


def test_a_worker_that_lingers_is_let_go_at_the_message_end(stage):
    """gunicorn from 26 on waits for our close; the one slot must be free at once, or these would each wait for the last."""
    for i in range(20):
        stage.backend.next(answer(OK, "linger"))
        assert stage.ask("GET", f"/{i}").body == b"ok"
    stage.backend.next(answer(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "hold"))
    assert stage.ask("GET", "/chunked").body == b"ok"
    stage.backend.next(answer(HEAD + b"Content-Length: 400000\r\n\r\n" + BULK, "hold"))
    assert stage.ask("GET", "/bulk").body == BULK
    assert stage.ask("GET", "/").body == b"ok"


def test_an_answer_before_the_body_was_read_arrives(stage):
    """It closes with most of the upload unread: the reset must not destroy the answer."""

    def early(conn):
        conn.request_head()
        conn.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")

    for _ in range(5):
        stage.backend.next(early)
        with stage.connect() as c:
            r = c.ask("POST", "/early", body=pattern(3_000_000))
            assert (r.status, r.body) == (413, b"large")
    stage.backend.take()


@pytest.mark.parametrize("size", [10, 400_000])
def test_a_close_delimited_response_is_whole_at_a_clean_end(stage, size):
    stage.backend.next(answer(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + pattern(size)))
    with stage.connect() as c:
        r = c.ask("GET", "/eof")
        assert r.status == 200 and r.body == pattern(size)
    entry = stage.wait_access(lambda e: "/eof" in str(e))[-1]
    assert entry["eof"] is True


def test_a_close_delimited_response_that_ends_in_a_reset_is_cut(stage):
    stage.backend.next(answer(b"HTTP/1.0 200 OK\r\n\r\n" + pattern(100), "reset"))
    assert stage.ask("POST", "/eof", body=pattern(3000)).status == 502
    stage.backend.next(answer(b"HTTP/1.0 200 OK\r\n\r\n" + BULK, "reset"))
    with stage.connect() as c:
        c.send(message("POST", "/eof", body=pattern(3000)))
        with pytest.raises(Cut):
            c.response()


def test_require_length_makes_a_close_delimited_response_a_502(work):
    backend = work.backend(answer(b"HTTP/1.0 200 OK\r\n\r\nhello"))
    site = work.forebay({"socket": backend.name, "slots": 1, "require_length": "on"})
    assert site.ask("GET", "/").status == 502


def test_interim_responses_do_not_reach_the_client(stage):
    stage.backend.next(answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK))
    r = stage.ask("GET", "/")
    assert (r.status, r.interim, r.get("Link")) == (200, [], None)


def test_early_hints_are_passed_where_asked_for(work):
    backend = work.backend(answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + OK))
    site = work.forebay({"socket": backend.name, "slots": 1}, listen={"early_hints": "on"})
    assert site.ask("GET", "/").interim == [103]


def test_a_get_is_tried_again_when_its_worker_dies_and_a_post_is_not(stage):
    for then, raw in (("close", b""), ("close", HEAD + b"Content-Length: 9\r\n\r\nab"), ("reset", b"")):
        stage.backend.next(answer(raw, then))
        assert stage.ask("GET", "/again").body == b"ok"
    stage.backend.take()
    stage.backend.next(answer(b""))
    assert stage.ask("POST", "/once", body=b"x").status == 502
    assert [s.target for s in stage.backend.take()] == ["/once"]


def test_retries_are_limited(stage):
    stage.backend.next(*[answer(b"")] * 2)
    assert stage.ask("GET", "/again").status == 502  # retries = 1: two tries
    assert len(stage.backend.take()) == 2
    assert stage.ask("GET", "/").status == 200


def test_a_post_that_no_worker_read_is_replayed(stage):
    """Closed with the head unread: provably not begun."""

    def unread(conn):
        pass

    stage.backend.next(unread)
    r = stage.ask("POST", "/unread", [("Content-Length", "0")])
    assert r.status == 200
    assert [s.target for s in stage.backend.take()] == ["/unread"]


def test_the_body_follows_the_head_where_replay_unread_is_on(work):
    backend = work.backend()
    site = work.forebay({"socket": backend.name, "slots": 1, "replay_unread": "on"})
    body = pattern(200_000)

    def unread(conn):
        conn.sock.recv(1, 2)  # MSG_PEEK: the head has come, and stays unread

    backend.next(unread)
    assert site.ask("POST", "/unread", body=body).status == 200
    assert [s.body for s in backend.take()] == [body]

    def head_only(conn):
        conn.request_head()

    backend.next(head_only)  # it has read the head: it may have begun
    assert site.ask("POST", "/read", body=body).status == 502
    assert backend.take() == []


def test_nothing_of_a_broken_response_is_malformed_for_the_client(stage):
    """Whatever a worker's bytes are, the client's parser never sees them raw."""
    for raw in [v for v in UNSENT.values()][:20]:
        stage.backend.next(*[answer(raw)] * 2)
        with Client(stage.address) as c:
            try:
                assert c.ask("GET", "/x").status in (200, 502)
            except Malformed as e:
                pytest.fail(f"{raw[:60]!r}: {e}")
        stage.backend.planned.clear()
