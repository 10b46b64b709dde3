"""PEP 3333, sentence by sentence: what a WSGI application sees of forebay, and what becomes of what it says."""

import gzip
import json
import os
import signal
import threading
import time

import pytest

import certs
from client import Client, Cut, message
from procs import kill, wait_for
from pythonapps import APPS, needs_python, serve
from secure import SecureClient

pytestmark = needs_python
LINES = b"".join(b"%d bottles of beer\n" % i for i in range(10000))


def put_files(site):
    with open(os.path.join(site.folder, "file"), "wb") as f:
        f.write(LINES)
    with gzip.open(os.path.join(site.folder, "file.gz"), "wb") as f:
        f.write(LINES)
    return site


@pytest.fixture(scope="module")
def cases(shared):
    return put_files(serve(shared, "cases", processes=2, threads=2, route={"body_memory": "64K", "body_limit": "200M"}))


@pytest.fixture
def one(work):
    """One worker with one thread, so that what a request leaves behind meets the next."""
    return put_files(serve(work, "cases"))


def said(site, text, count=1):
    site.wait_log(text, count)


def lived(site, pids):
    """No request ended a worker."""
    assert sorted(site.workers()) == sorted(pids)


# What an application may return.

@pytest.mark.parametrize("name, body, framing", [
    ("one", b"one", "length"), ("many", b"many blocks of bytes", "length"), ("in_a_tuple", b"one two", "length"), ("nothing", b"", "length"),
    ("generator", b"generated", None), ("late_start", b"late", None), ("written", b"written and returned", None), ("length", b"four", "length"),
    ("big", LINES, "length"), ("big_parts", LINES, None), ("subclass", b"sub", "length"), ("an_object", b"object", None)])
def test_what_an_application_returns_is_its_content(cases, name, body, framing):
    r = cases.ask("GET", "/" + name)
    assert (r.status, r.body) == (200, body)
    assert framing in (None, r.framing)


@pytest.mark.parametrize("name, length", [("one", "3"), ("many", "20"), ("length", "4"), ("nothing", None), ("generator", None)])
def test_head_has_the_length_that_get_has_and_no_content(cases, name, length):
    with cases.connect() as c:
        r = c.ask("HEAD", "/" + name)
        assert (r.status, r.get("Content-Length")) == (200, length)
        assert c.ask("GET", "/one").body == b"one"


def test_an_endless_answer_to_head_ends(cases):
    r = cases.ask("HEAD", "/head_only")
    assert (r.status, r.get("X-Head")) == (200, "yes")
    wait_for(lambda: "closed head_only" in cases.notes(), "close()")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299, 301, 304, 404, 418, 500, 503, 599])
def test_a_status_passes(cases, status):
    r = cases.ask("GET", f"/status?{status}+Any+Words")
    assert (r.status, r.body) == (status, b"")
    if status in (204, 304):
        assert r.get("Content-Length") is None


@pytest.mark.parametrize("which", ["none", "int", "short", "text", "no_space", "low", "continue", "high", "end", "nul", "bytes", "wide"])
def test_a_bad_status_is_the_applications_error(cases, which):
    r = cases.ask("GET", f"/bad_status?{which}")
    assert r.status == 500 and r.get("X-Evil") is None and b"never" not in r.body


@pytest.mark.parametrize("which", ["cr", "lf", "crlf", "nul", "del", "name_space", "name_colon", "name_empty", "name_end", "name_wide", "wide", "bytes", "bytes_name",
                                   "int", "none", "list", "three", "not_a_pair", "tuple", "dict", "no_list", "connection", "keep_alive", "transfer", "upgrade",
                                   "two_lengths", "length_text", "length_negative", "length_plus", "too_many", "too_large"])
def test_a_bad_field_is_the_applications_error(cases, which):
    r = cases.ask("GET", f"/bad_field?{which}")
    assert r.status == 500 and r.get("X-Evil") is None and r.get("X-A") is None and r.body != b"abc"


@pytest.mark.parametrize("which", ["none", "one", "four", "name", "exc", "exc_short"])
def test_a_bad_call_of_start_response_is_the_applications_error(cases, which):
    assert cases.ask("GET", f"/bad_call?{which}").status == 500


def test_fields_pass_as_they_are(cases):
    r = cases.ask("GET", "/good_fields")
    assert (r.get("X-Latin"), r.get("X-Blanks"), r.get("X-Empty"), r.all("Set-Cookie")) == ("caf\xe9", "a  b", "", ["a=1", "b=2"])
    assert r.body == b"ok"


# exc_info.

@pytest.mark.parametrize("name", ["replaced", "replaced_by_name"])
def test_an_answer_that_has_not_begun_can_be_replaced(cases, name):
    r = cases.ask("GET", "/" + name)
    assert (r.status, r.body, r.get("X-First")) == (503, b"later", None)


def test_an_answer_that_has_begun_cannot_be_replaced(cases):
    with pytest.raises(Cut):
        cases.ask("GET", "/raised_again")
    said(cases, "LookupError: too late for another answer")
    assert "raised_again went on" not in cases.notes()


def test_a_second_start_response_without_exc_info_is_an_error(cases):
    assert cases.ask("GET", "/started_twice").status == 500


def test_exc_info_of_no_exception_is_none(cases):
    """What sys.exc_info() gives where nothing was raised."""
    for how in ("", "none"):
        r = cases.ask("GET", f"/exc_info_first?{how}")
        assert (r.status, r.body) == (200, b"fine")
    assert cases.ask("GET", "/exc_info_late").status == 500
    said(cases, "when content had left already")
    assert "exc_info_late went on" not in cases.notes()


def test_a_refused_start_response_was_one(cases):
    """PEP 3333: the second call is an error also where the first one raised one."""
    assert cases.ask("GET", "/bad_then_good").status == 500


def test_what_start_response_refused_has_not_been_said(cases):
    r = cases.ask("GET", "/bad_then_good?exc_info")
    assert (r.status, r.body, r.get("X-Good"), r.get("X-Bad"), len(r.all("Content-Type"))) == (200, b"good", "yes", None, 1)


# What goes wrong.

@pytest.mark.parametrize("name, text", [
    ("raises", "ValueError: raised on purpose"), ("raises_after_start", "ValueError: raised after start_response"), ("exits", "SystemExit: exit on purpose"),
    ("interrupts", "KeyboardInterrupt: interrupted on purpose"), ("no_start", "AssertionError: "), ("no_start_nothing", "AssertionError: the application did not call"),
    ("no_start_generator", "AssertionError: content came before"), ("chained", "RuntimeError: the effect")])
def test_an_exception_is_a_500_and_a_traceback(cases, name, text):
    pids = cases.workers()
    r = cases.ask("GET", "/" + name)
    assert r.status == 500 and r.get("X-Started") is None and b"purpose" not in r.body  # nothing of the inside is shown
    said(cases, text)
    lived(cases, pids)


def test_a_traceback_is_whole(cases):
    cases.ask("GET", "/chained")
    for line in ("KeyError: 'the cause'", "The above exception was the direct cause", "RuntimeError: the effect", "raise KeyError(", 'line ', "in chained"):
        said(cases, line.replace('"', '\\x22'))


@pytest.mark.parametrize("which", ["none", "int", "str", "bytes", "list_of_str", "list_of_int", "generator_of_str"])
def test_what_is_no_iterable_of_bytes_is_an_error(cases, which):
    r = cases.ask("GET", f"/returns?{which}")
    assert r.status == 500 and b"text" not in r.body.replace(b"text/html", b"")


@pytest.mark.parametrize("name", ["raises_far_on", "too_short_far_on"])
def test_a_large_answer_that_breaks_off_is_cut(cases, name):
    with pytest.raises(Cut):
        cases.ask("GET", "/" + name)


@pytest.mark.parametrize("name", ["raises_in_the_middle", "too_short"])
def test_a_small_answer_that_breaks_off_is_never_passed_as_whole(cases, name):
    assert cases.ask("GET", "/" + name).status in (500, 502)


@pytest.mark.parametrize("name", ["too_long", "too_long_block"])
def test_more_than_content_length_is_not_sent(cases, name):
    with cases.connect() as c:
        r = c.ask("GET", "/" + name)
        assert (r.status, r.body) == (200, b"four")
        assert c.ask("GET", "/one").body == b"one"
    said(cases, "more than its Content-Length")


def test_write_raises_beyond_content_length(cases):
    with cases.connect() as c:
        r = c.ask("GET", "/written_too_much")
        assert (r.status, r.body) == (200, b"four") and "write() of too much raised" in cases.notes()
    assert cases.ask("GET", "/written_too_much?pass").status == 500
    said(cases, "ValueError: write() was given more than the Content-Length")


def test_write_raises_when_the_client_has_gone(one):
    pids = one.workers()
    with Client(one.address) as c:
        c.send(message("POST", "/written_for_ever", body=b""))
        c.take(200_000)
        wait_for(lambda: "written_for_ever begins" in one.notes(), "the application to begin")
        c.reset()
    wait_for(lambda: "write() to nobody raised" in one.notes(), "the error")
    assert one.ask("GET", "/one").body == b"one"
    assert "the application failed" not in one.log()  # it did not
    lived(one, pids)


@pytest.mark.parametrize("name", ["no_content", "no_content_file"])
@pytest.mark.parametrize("status", [204, 304])
def test_204_and_304_have_no_content(cases, name, status):
    with cases.connect() as c:
        for _ in range(2):
            r = c.ask("GET", f"/{name}?{status}")
            assert r.status == status and r.get("Transfer-Encoding") is None
            assert status == 304 or r.get("Content-Length") is None  # RFC 9110, 8.6
            assert c.ask("GET", "/one").body == b"one"  # nothing stands between the two
        r = c.ask("HEAD", f"/{name}?200")
        assert (r.status, r.body) == (200, b"") and c.ask("GET", "/one").body == b"one"


def test_less_than_content_length_is_logged(cases):
    cases.ask("GET", "/too_short")
    said(cases, "yielded 396 bytes less than its Content-Length")


def test_what_is_called_after_the_end_says_so(one):
    assert one.ask("GET", "/late_calls").body == b"kept"
    assert one.ask("GET", "/later").body.decode().split("\n") == ["write RuntimeError", "start RuntimeError", "input ValueError", "gone True"]
    assert one.ask("GET", "/one").body == b"one"


def test_start_response_is_for_its_own_thread(cases):
    assert b"another thread" in cases.ask("GET", "/other_thread").body


def test_a_worker_goes_on_after_every_error(one):
    """Whatever an application does wrong, its next answer is right."""
    pids = one.workers()
    wrong = ["raises", "raises_after_start", "raises_in_the_middle", "exits", "no_start", "returns?none", "bad_field?crlf", "bad_status?nul", "too_long", "too_short",
             "replaced", "started_twice", "closing_raises", "returns?mixed"]
    for name in wrong * 3:
        one.ask("GET", "/" + name)
        r = one.ask("GET", "/many")
        assert (r.status, r.body, r.get("Content-Length")) == (200, b"many blocks of bytes", "20"), name
    lived(one, pids)


# close().

@pytest.mark.parametrize("name, status", [("closing", 200), ("closing_raises", 200), ("closing_after_failure", None), ("closing_unstarted", 500), ("too_long", 200)])
def test_close_is_called_once_whatever_happens(one, name, status):
    r = one.ask("POST", "/" + name, body=b"")  # no method that is tried again
    assert status in (None, r.status)
    wait_for(lambda: f"closed {name}" in one.notes(), "close()")
    assert one.ask("GET", "/one").body == b"one"
    assert one.notes().count(f"closed {name}") == 1


def test_an_exception_in_close_is_logged(cases):
    assert cases.ask("GET", "/closing_raises").body == b"whole"
    said(cases, "OSError: close failed on purpose")


def test_close_is_called_when_the_client_leaves(one):
    with Client(one.address) as c:
        c.send(message("GET", "/endless"))
        c.take(200_000)
        c.reset()
    wait_for(lambda: "closed endless" in one.notes(), "close()")
    assert one.ask("GET", "/one").body == b"one"


# The environ.

def environ_of(site, *args, **kw):
    return json.loads(site.ask(*args, **kw).body)


def test_environ_is_as_the_pep_has_it(cases):
    got = environ_of(cases, "POST", "/environment/caf%C3%A9%2Fx?a=b%20c&d", [("Content-Type", "text/x"), ("X-Custom", "v\xe9"), ("Cookie", "a=1"), ("Cookie", "b=2"),
                                                                        ("Accept", "a/b"), ("Accept", "c/d")], b"hello")
    e, types = got["environ"], got["types"]
    assert got["exact"]  # a builtin dict, not a subclass
    assert (e["REQUEST_METHOD"], e["PATH_INFO"], e["QUERY_STRING"], e["SCRIPT_NAME"]) == ("POST", "/environment/caf\xc3\xa9/x", "a=b%20c&d", "")
    assert (e["CONTENT_TYPE"], e["CONTENT_LENGTH"], e["HTTP_X_CUSTOM"], e["HTTP_COOKIE"], e["HTTP_ACCEPT"]) == ("text/x", "5", "v\xe9", "a=1; b=2", "a/b, c/d")
    assert "HTTP_CONTENT_TYPE" not in e and "HTTP_CONTENT_LENGTH" not in e
    assert (e["SERVER_NAME"], e["SERVER_PORT"], e["SERVER_PROTOCOL"], e["GATEWAY_INTERFACE"]) == ("test", str(cases.address[1]), "HTTP/1.1", "CGI/1.1")
    assert (e["REMOTE_ADDR"], e["wsgi.url_scheme"], e["wsgi.version"], e["wsgi.run_once"], e["wsgi.input_terminated"]) == (e["REMOTE_ADDR"], "http", [1, 0], False, True)
    assert e["REMOTE_ADDR"].startswith("127.") and e["SERVER_SOFTWARE"].startswith("forebay")
    assert all(type(v) is str for k, v in e.items() if "." not in k)
    assert types["wsgi.version"] == "tuple" and types["forebay.queue_ms"] == "float"
    assert "FOREBAY_REQUEST_ID" not in e and "FOREBAY_QUEUE_MS" not in e


def test_the_request_id_is_the_one_in_the_answer(cases):
    r = cases.ask("GET", "/environment", [("X-Request-Id", "from-outside")])
    e = json.loads(r.body)["environ"]
    assert e["forebay.request_id"] == r.get("X-Request-Id") == e["HTTP_X_REQUEST_ID"]


def test_each_request_has_an_environ_of_its_own(one):
    assert [one.ask("GET", "/scribbles").body for _ in range(3)] == [b"clean"] * 3
    assert environ_of(one, "GET", "/environment")["environ"]["wsgi.version"] == [1, 0]


def test_values_of_one_request_never_show_in_another(one):
    for i in range(300):  # more names than are kept
        e = environ_of(one, "GET", f"/environment/{i}?q={i}", [(f"X-Name-{i}", f"value {i}"), ("User-Agent", f"agent {i % 3}"), ("X-Same", str(i))])["environ"]
        assert (e["PATH_INFO"], e["QUERY_STRING"], e[f"HTTP_X_NAME_{i}"], e["HTTP_USER_AGENT"], e["HTTP_X_SAME"]) == \
            (f"/environment/{i}", f"q={i}", f"value {i}", f"agent {i % 3}", str(i))
        assert f"HTTP_X_NAME_{i - 1}" not in e


def test_a_field_with_a_name_of_any_length(one):
    for n in (1, 58, 59, 60, 61, 1000):
        e = environ_of(one, "GET", "/environment", [("X" * n, "long")])["environ"]
        assert e["HTTP_" + "X" * n] == "long"


def test_as_many_fields_as_a_head_may_have(one):
    """And as long as one may be."""
    many = [(f"X-{i}", str(i)) for i in range(90)]
    e = environ_of(one, "GET", "/environment", many)["environ"]
    assert [e[f"HTTP_X_{i}"] for i in range(90)] == [str(i) for i in range(90)]
    e = environ_of(one, "GET", "/environment", [("X-Long", "v" * 30000)])["environ"]
    assert e["HTTP_X_LONG"] == "v" * 30000
    r = one.ask("GET", "/environment", [("X-Too-Long", "v" * 40000)])
    assert r.status == 431
    assert one.ask("GET", "/one").body == b"one"


def test_a_field_whose_name_could_be_taken_for_another_is_left_out(one):
    """X_Real_Ip and X-Real-Ip would be one variable."""
    for headers in ([("X_Custom", "evil")], [("X-Custom", "good"), ("X_Custom", "evil")], [("X_Custom", "evil"), ("X-Custom", "good")], [("X.Custom", "evil")]):
        e = environ_of(one, "GET", "/environment", headers)["environ"]
        assert e.get("HTTP_X_CUSTOM") == dict(headers).get("X-Custom")
        assert not [k for k, v in e.items() if v == "evil"]


def test_a_proxy_field_does_not_become_the_applications_proxy(one):
    """HTTP_PROXY is a setting to many a program that reads its environment ("httpoxy")."""
    assert "HTTP_PROXY" not in environ_of(one, "GET", "/environment", [("Proxy", "http://evil.example/")])["environ"]


def test_an_empty_field_is_there(one):
    e = environ_of(one, "GET", "/environment", [("X-Empty", "")])["environ"]
    assert e["HTTP_X_EMPTY"] == ""


@pytest.mark.parametrize("path, info", [("/environment/%FF%FE", "/environment/\xff\xfe"), ("/environment/%E2%82%AC", "/environment/\xe2\x82\xac"),
                                        ("/environment/a%00b", "/environment/a\0b"), ("/environment/%zz%4", "/environment/%zz%4"), ("/environment/a+b;c=d", "/environment/a+b;c=d")])
def test_a_path_is_its_bytes_as_latin_1(one, path, info):
    r = one.ask("GET", path)
    assert r.status == 400 or json.loads(r.body)["environ"]["PATH_INFO"] == info
    assert r.status == 200 or "%00" in path or "%zz" in path


def test_a_mount_is_the_script_name(work):
    site = serve(work, "cases", more={"route */shop": {"pool": "app", "mount": "/shop"}})
    e = environ_of(site, "GET", "/shop/environment/a%20b")["environ"]
    assert (e["SCRIPT_NAME"], e["PATH_INFO"], e["REQUEST_URI"]) == ("/shop", "/environment/a b", "/shop/environment/a%20b")
    e = environ_of(site, "GET", "/environment")["environ"]
    assert (e["SCRIPT_NAME"], e["PATH_INFO"]) == ("", "/environment")


def test_queue_ms_is_the_time_that_a_worker_was_waited_for(one):
    """As the access log has it."""
    def behind_another():
        with one.connect() as first, one.connect() as second:
            first.send(message("GET", "/gated?text/plain"))
            wait_for(lambda: "gated begins" in one.notes(), "the application to begin")
            second.send(message("GET", "/environment"))
            time.sleep(0.01)  # it may have been read by now; else it is asked once more
            with open(os.path.join(one.folder, "go"), "w"):
                pass
            first.response()
            e = json.loads(second.response().body)["environ"]
        os.unlink(os.path.join(one.folder, "go"))
        os.unlink(os.path.join(one.folder, "notes"))
        entry, = one.wait_access(lambda entry: entry["id"] == e["forebay.request_id"])
        assert e["forebay.queue_ms"] == entry["queue_ms"]
        return e["forebay.queue_ms"] > 0

    wait_for(behind_another, "a request that waited")


def test_a_value_of_any_length(one):
    for n in (0, 1, 511, 512, 513, 20000):
        assert environ_of(one, "GET", "/environment", [("User-Agent", "v" * n)])["environ"].get("HTTP_USER_AGENT", "") == "v" * n


def test_tls_shows_in_the_environ(work):
    pair = certs.CA(work.dir).issue("site", ["localhost"])
    site = serve(work, "cases", listen={"tls": "main"}, more={"tls main": pair.options})
    with SecureClient(site.address) as c:
        e = json.loads(c.ask("GET", "/environment").body)["environ"]
    assert (e["wsgi.url_scheme"], e["HTTPS"], e["SSL_PROTOCOL"], e["SERVER_PORT"]) == ("https", "on", "TLSv1.3", str(site.address[1]))


# wsgi.input.

CALLS = ["read", "read,", "read,None", "read,-1", "read,0;read", "read,5;read,5;read", "read,1000000", "readline;readline;read", "readline,3;readline,100;readline,0;read",
         "readline,-1;read,10;readline;readlines", "readlines", "readlines,30;read", "readlines,0", "readlines,-1", "iter", "next;next;read,3;iter", "all64k",
         "read;read;readline;readlines;iter", "readlines,1;readlines,1;all64k"]


@pytest.mark.parametrize("body", [b"", b"one line", b"a\nbb\n\nccc\n", LINES, LINES + b"x" * 300_000 + b"\n" + b"tail", b"y" * 65536 + b"\n" + b"z" * 65535 + b"\nend"],
                         ids=["empty", "line", "lines", "many", "long_line", "buffer_long"])
@pytest.mark.parametrize("where", ["memory", "descriptor"])
def test_the_body_can_be_read_in_every_way(cases, body, where):
    import io

    if where == "descriptor":
        body = body + b"padding of many lines\n" * 20_000
    for calls in CALLS:
        stream, want = io.BytesIO(body), []
        for call in calls.split(";"):
            name, _, argument = call.partition(",")
            if name == "iter":
                want.append(list(stream))
            elif name == "next":
                want.append([next(stream, None)])
                if want[-1] == [None]:
                    break
            elif name == "all64k":
                want.append(list(iter(lambda: stream.read(65536), b"")))
            else:
                got = getattr(stream, name)(*([None if argument == "None" else int(argument)] if argument else []))
                want.append(got if isinstance(got, list) else [got])
        if want[-1] == [None]:
            continue
        r = cases.ask("POST", f"/body?{calls}", body=body)
        assert r.status == 200, calls
        assert [[line.encode("latin-1") for line in part] for part in json.loads(r.body)] == want, calls


def test_a_body_in_chunks_has_a_length(cases):
    e = json.loads(cases.ask("POST", "/environment", body=b"chunked", chunked=True).body)["environ"]
    assert e["CONTENT_LENGTH"] == "7"


def test_bad_calls_of_the_input_are_errors(cases):
    assert cases.ask("POST", "/body_errors", body=b"abc").body == b"TypeError TypeError TypeError AttributeError TypeError"


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_thread_of_the_application_may_read_the_body(cases, size):
    assert cases.ask("POST", "/body_in_a_thread", body=b"t" * size).body == b"t" * size


# The log.

def test_lines_are_logged_with_their_request(one):
    r = one.ask("GET", "/says")
    assert r.body == b"1 2 False True"
    ident = r.get("X-Request-Id")
    for text in ("one line", "another line", "third", "printed 1 2 3", "to stderr", "not endede", "raw bytes", "uro "):
        said(one, text)
        line = next(line for line in one.log().split("\n") if text in line)
        assert ident in line, line
    assert "L" * 1500 in one.log()


# Files.

@pytest.mark.parametrize("name, body", [
    ("file_plain", LINES), ("file_at", LINES[10:]), ("file_raw", LINES[10:]), ("file_begun", LINES[1000:]), ("file_length", LINES[:5000]), ("file_at_its_end", b""), ("file_past_its_end", b""), ("file_negative_length", b""),
    ("file_empty", b""), ("file_memory", LINES), ("file_gzip", LINES), ("file_temporary", LINES[6:]), ("file_named", LINES[6:]), ("file_unflushed", b"in THE buffer still"),
    ("file_spooled", LINES[6:]), ("file_pipe", b"through a pipe"), ("file_upper", LINES.upper()), ("file_reader", LINES), ("file_closed", LINES)])
def test_a_wrapped_file_is_the_content_that_reading_it_gives(cases, name, body):
    r = cases.ask("GET", "/" + name)
    assert (r.status, r.body) == (200, body)
    if name in ("file_plain", "file_at", "file_raw", "file_temporary", "file_named"):
        assert r.framing == "length"


def test_a_file_without_a_size_is_read(cases):
    assert cases.ask("GET", "/file_proc").body.startswith(b"forebay-worker"[:14])


def test_a_file_shorter_than_its_content_length_is_never_passed_as_whole(cases):
    try:
        assert cases.ask("GET", "/file_length_too_long").status == 502
    except Cut:
        pass


@pytest.mark.parametrize("name", ["file_shrinks", "file_vanishes"])
def test_a_file_that_shrinks_is_never_passed_as_whole(cases, name):
    """It is shorter when the front takes it than when it was given."""
    try:
        assert cases.ask("GET", "/" + name).status == 502
    except Cut:
        pass
    assert "changed" in cases.notes() and cases.ask("GET", "/one").body == b"one"


def test_a_file_that_grows_is_passed_as_it_was(cases):
    r = cases.ask("GET", "/file_grows")
    assert (r.status, r.body) == (200, LINES * 4) and "changed" in cases.notes()


@pytest.mark.parametrize("name", ["file_text", "file_no_read"])
def test_what_gives_no_bytes_is_an_error(cases, name):
    assert cases.ask("GET", "/" + name).status in (500, 502)


@pytest.mark.parametrize("name", ["file_closed", "file_reader"])
def test_a_wrapped_file_is_closed(one, name):
    assert one.ask("GET", "/" + name).status == 200
    wait_for(lambda: f"closed {name}" in one.notes(), "close()")


def test_head_of_a_wrapped_file_has_its_length(cases):
    r = cases.ask("HEAD", "/file_plain")
    assert (r.status, r.get("Content-Length")) == (200, str(len(LINES)))


# Threads and processes as the environ has them; clients that leave.

@pytest.mark.parametrize("processes, threads", [(1, 1), (1, 4), (3, 1), (2, 2)])
def test_multithread_and_multiprocess_say_what_is(work, processes, threads):
    site = serve(work, "cases", processes=processes, threads=threads)
    e = environ_of(site, "GET", "/environment")["environ"]
    assert (e["wsgi.multithread"], e["wsgi.multiprocess"]) == (threads > 1, processes > 1)


def test_an_application_sees_that_its_client_has_gone(one):
    with Client(one.address) as c:
        c.send(message("GET", "/gone"))
        wait_for(lambda: "gone begins" in one.notes(), "the application to begin")
        c.reset()
    wait_for(lambda: "gone seen" in one.notes(), "the application to see it")
    assert one.ask("GET", "/one").body == b"one"
    assert one.ask("GET", "/gone_in_a_thread").body == b"False"


# Streams.

@pytest.mark.parametrize("name", ["gated", "gated_write"])
@pytest.mark.parametrize("kind, route", [("text/event-stream", None), ("text/plain", {"buffer": "off"})])
def test_a_part_reaches_a_streaming_client_before_the_next_is_made(work, name, kind, route):
    site = serve(work, "cases", route=route, more_pool={"streams": 1})
    with Client(site.address) as c:
        c.send(message("GET", f"/{name}?{kind}"))
        c.until(b"data: first\n\n")
        with open(os.path.join(site.folder, "go"), "w"):
            pass
        c.until(b"data: second\n\n")


@pytest.mark.parametrize("kind, few", [("text/event-stream", False), ("text/plain", True)])
def test_parts_are_gathered_but_for_streams(work, kind, few):
    """Seen by the application while nobody reads what it sends."""
    site = serve(work, "cases", more_pool={"streams": 1})
    front = site.front()
    with Client(site.address) as c:
        c.send(message("GET", f"/parts_while_nobody_reads?{kind}"))
        wait_for(lambda: "parts begin" in site.notes(), "the application to begin")
        kill(front, signal.SIGSTOP)
        try:
            with open(os.path.join(site.folder, "go"), "w"):
                pass
            left = wait_for(lambda: [int(line[5:]) for line in site.notes() if line.startswith("left ")], "its parts")[0]
        finally:
            kill(front, signal.SIGCONT)
        assert left < 25 if few else left == 50
        assert c.response().body == b"part" * 50


# Loading.

def test_the_callable_may_be_named_in_many_ways(work):
    work.write("package.py", "")
    os.mkdir(work.path("tree"))
    os.mkdir(work.path("tree/inner"))
    for name in ("tree/__init__.py", "tree/inner/__init__.py"):
        work.write(name, "")
    work.write("tree/inner/site.py", "def app(e, s):\n    s('200 OK', [])\n    return [b'app']\n"
               "def application(e, s):\n    s('200 OK', [])\n    return [b'application']\n"
               "def named(e, s):\n    s('200 OK', [])\n    return [b'named']\n")
    work.write("only_app.py", "def app(e, s):\n    s('200 OK', [])\n    return [b'only app']\n")
    for target, body in (("tree.inner.site", b"application"), ("tree.inner.site:named", b"named"), ("only_app", b"only app")):
        site = serve(work, target, more_pool={"directory": work.dir}, name=f"forebay-{len(work.processes)}")
        assert site.ask("GET", "/").body == body
        site.stop()


@pytest.mark.parametrize("text, log", [
    ("raise ValueError('broken on purpose')", "ValueError: broken on purpose"), ("import no_such_module_here", "No module named "), ("x = 1", "has neither `application` nor `app`"),
    ("application = 5", "cannot be called"), ("def application(:", "SyntaxError"), ("import sys; sys.exit(3)", "SystemExit: 3")])
def test_an_application_that_cannot_be_loaded_says_why(work, text, log):
    work.write("broken.py", text + "\n")
    site = serve(work, "broken", more_pool={"directory": work.dir}, ready=False)
    said(site, log)
    site.stop()


def test_a_virtualenv_is_honoured(work):
    import subprocess
    import sys

    venv = work.path("venv")
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", venv], check=True)
    packages = os.path.join(venv, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    with open(os.path.join(packages, "only_in_the_venv.py"), "w") as f:
        f.write("text = b'from the venv'\n")
    work.write("inside.py", "import sys, only_in_the_venv\ndef app(e, s):\n    s('200 OK', [])\n"
               "    try:\n        import django\n        more = b' and the system'\n    except ImportError:\n        more = b''\n"
               "    return [only_in_the_venv.text, more, b' ', sys.prefix.encode(), b' ', sys.executable.encode()]\n")
    site = serve(work, "inside", more_pool={"directory": work.dir, "virtualenv": venv})
    assert site.ask("GET", "/").body.decode() == f"from the venv {venv} {venv}/bin/python"


# Ends.

def test_what_was_begun_is_answered_at_the_end(one):
    with Client(one.address) as c:
        c.send(message("GET", "/gated?text/plain"))
        wait_for(lambda: "gated begins" in one.notes(), "the application to begin")
        kill(one.pid, 15)
        with open(os.path.join(one.folder, "go"), "w"):
            pass
        r = c.response()
        assert r.body == b"data: first\n\ndata: second\n\n"
    assert one.wait() == 0


def test_atexit_runs_when_a_worker_ends(work):
    work.write("ending.py", "import atexit, os\nfrom cases import note, application\natexit.register(note, 'atexit')\n")
    site = serve(work, "ending", environment=[f"PYTHONPATH={APPS}"], more_pool={"directory": work.dir})
    assert site.ask("GET", "/one").body == b"one"
    site.stop()
    assert site.notes() == ["atexit"]


def test_threads_that_a_fork_would_lose_are_named(work):
    """The pool runs without a zygote then."""
    work.write("threaded.py", "import threading\nfrom cases import application\n"
               "threading.Thread(target=threading.Event().wait, name='Ticker of the tests', daemon=True).start()\n")
    site = serve(work, "threaded", environment=[f"PYTHONPATH={APPS}"], more_pool={"directory": work.dir})
    assert site.ask("GET", "/one").body == b"one"
    said(site, "Ticker of the tests")


def test_a_hung_worker_shows_where_it_hangs(one):
    with Client(one.address) as c:
        c.send(message("GET", "/gone"))
        wait_for(lambda: "gone begins" in one.notes(), "the application to begin")
        kill(one.workers()[0], signal.SIGURG)
        said(one, "in gone")
        said(one, "most recent call first")
        c.reset()
    assert one.ask("GET", "/one").body == b"one"
