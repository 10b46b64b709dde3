/* conf: whole files: what is taken, what is refused with which words, and that every limit is one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/errors.h"
#include "conf/pattern.h"
#include "conf/reader.h"
#include "conf/sections.h"
#include "conf/values.h"
#include "core/buf.h"
#include "core/log.h"

/* Seven lines that are a configuration. */
#define LISTEN "[listen http]\naddress = 127.0.0.1:8000\n"
#define POOL   "[pool shop]\nsocket = /run/shop.sock\nslots = 8\n"
#define ROUTE  "[route *]\npool = shop\n"
#define BASE   LISTEN POOL ROUTE

#define TLS_M      "[tls m]\ncertificate = /c\nkey = /k\n"
#define TLS_N      "[tls n]\ncertificate = /c\nkey = /k\n"
#define LISTEN_TLS "[listen x]\naddress = [::]:1\ntls = m\ntls = n\n"

#define ERRORS_BYTES_MAX (4u << 20)

static int parse(struct slice text, struct buf *errors, struct conf **ret)
{
	buf_init(errors, ERRORS_BYTES_MAX);
	return conf_parse("f", text, errors, ret);
}

/* The configuration of a text that is right, yours to drop. */
static struct conf *right(struct slice text)
{
	struct conf *c = NULL;
	struct buf errors;
	int err = parse(text, &errors, &c);

	if (err != 0)
		fail_msg("%d: %.*s", err, SLICE_ARG(buf_slice(&errors)));
	assert_int_equal(errors.len, 0);
	buf_done(&errors);
	return c;
}

/* Fails unless the text is refused in just these words. */
static void wrong(size_t row, struct slice text, const char *words)
{
	struct conf *c = NULL;
	struct buf errors;
	int err = parse(text, &errors, &c);

	if (err != -EINVAL || c)
		fail_msg("row %zu: %d", row, err);
	if (!slice_eq(buf_slice(&errors), slice_str(words)))
		fail_msg("row %zu: %.*s", row, SLICE_ARG(buf_slice(&errors)));
	buf_done(&errors);
}

/* Lines behind BASE, that is from line 8 on, or from line 1 on if `alone`. */
static const struct {
	bool alone;
	struct slice text;
	const char *words;
} refused[] = {
	/* inih 55 would cut, join or pass over these without a word */
	{ false, SLICE_INIT("hold: 1K\n"),
	    "f:8: route *: found \"hold: 1K\", expected NAME = VALUE with a \"=\" between the two; did you mean \"hold = 1K\"?\n" },
	{ false, SLICE_INIT("hold: 1K = 2K\n"),
	    "f:8: route *: found \"hold: 1K = 2K\", expected NAME = VALUE with a \"=\" between the two;"
	    " did you mean \"hold = 1K = 2K\"?\n" },
	{ false, SLICE_INIT("hold = 1K ; note\n"),
	    "f:8: route *.hold: found \"1K ; note\", expected a value alone, since comments stand on lines of their own\n" },
	{ false, SLICE_INIT("hold = 1K\t;note\n"),
	    "f:8: route *.hold: found \"1K\\x09;note\", expected a value alone, since comments stand on lines of their own\n" },
	{ false, SLICE_INIT("hold = 1K # note\n"),
	    "f:8: route *.hold: found \"1K # note\", expected a value alone, since comments stand on lines of their own\n" },
	{ false, SLICE_INIT("hold = ;note\n"),
	    "f:8: route *.hold: found \";note\", expected a value alone, since comments stand on lines of their own\n" },
	{ false, SLICE_INIT("hold = 1K\n  hold = 2K\n"),
	    "f:9: route *: found \"hold = 2K\", expected it at the start of the line, since lines are not continued\n" },
	{ false, SLICE_INIT("\t[pool x]\n"),
	    "f:8: route *: found \"[pool x]\", expected it at the start of the line, since lines are not continued\n" },
	{ false, SLICE_INIT("[pool x] ; note\nslots = 3\n"),
	    "f:8: found \"[pool x] ; note\", expected [KIND NAME] with nothing behind it\n" },
	{ false, SLICE_INIT("[pool x\nslots = 3\n"), "f:8: found \"[pool x\", expected [KIND NAME] with nothing behind it\n" },
	{ false, SLICE_INIT("[\n"), "f:8: found \"[\", expected [KIND NAME] with nothing behind it\n" },
	{ false, SLICE_INIT("[]\n"), "f:8: found \"[]\", expected [KIND NAME]\n" },
	{ false, SLICE_INIT("[ \t]\n"), "f:8: found \"[ \\x09]\", expected [KIND NAME]\n" },
	{ false, SLICE_INIT("hold\n"), "f:8: route *: found \"hold\", expected NAME = VALUE with a \"=\" between the two\n" },
	{ false, SLICE_INIT("hold =\n"), "f:8: route *.hold: found nothing, expected a value behind \"=\"\n" },
	{ false, SLICE_INIT("hold = \t \n"), "f:8: route *.hold: found nothing, expected a value behind \"=\"\n" },
	{ false, SLICE_INIT("hold = \"1K\"\n"),
	    "f:8: route *.hold: found \"\\x221K\\x22\", expected a value without quotes\n" },
	{ false, SLICE_INIT("hold = '1K'\n"), "f:8: route *.hold: found \"'1K'\", expected a value without quotes\n" },
	{ false, SLICE_INIT("= 1K\n"),
	    "f:8: route *: found \"\", expected an option's name of 1 to 49 letters, digits and \"_\"\n" },
	{ false, SLICE_INIT("ho ld = 1K\n"),
	    "f:8: route *: found \"ho ld\", expected an option's name of 1 to 49 letters, digits and \"_\"\n" },
	{ false, SLICE_INIT("hold = 1K\0\nhold = 2K\n"),
	    "f:8: route *: found \"hold = 1K\\x00\", expected text without NUL bytes\n" },
	{ false, SLICE_INIT("; \0\n"), "f:8: route *: found \"; \\x00\", expected text without NUL bytes\n" },
	{ false, SLICE_INIT("; \x1b[2J\n"), "f:8: route *: found \"; \\x1b[2J\", expected text without control characters\n" },
	{ false, SLICE_INIT("hold = 1K\rbuffer = off\n"),
	    "f:8: route *: found \"hold = 1K\\x0dbuffer = off\", expected text without control characters\n" },
	{ false, SLICE_INIT("hold = 1K\x7f\n"),
	    "f:8: route *: found \"hold = 1K\\x7f\", expected text without control characters\n" },
	{ false,
	    SLICE_INIT("hold = \xc2\xa0"
	               "1K\n"),
	    "f:8: route *.hold: found \"\\xc2\\xa01K\", expected a size from 0 to 64M\n" },
	{ false, SLICE_INIT("\xef\xbb\xbfhold = 1K\n"),
	    "f:8: route *: found \"\\xef\\xbb\\xbfhold\", expected an option's name of 1 to 49 letters, digits and \"_\"\n" },
	/* sections */
	{ false, SLICE_INIT("[pol x]\nslots = 3\n"),
	    "f:8: pol x: found \"pol\", expected [forebay], [listen NAME], [tls NAME], [pool NAME] or [route HOST/PATH];"
	    " did you mean \"pool\"?\n" },
	{ false, SLICE_INIT("[forebay main]\n"), "f:8: forebay main: found \"main\", expected no name in [forebay]\n" },
	{ false, SLICE_INIT("[listen]\naddress = [::]:1\n"), "f:8: listen: found no name, expected [listen NAME]\n" },
	{ false, SLICE_INIT("[route]\npool = shop\n"), "f:8: route: found no name, expected [route HOST/PATH]\n" },
	{ false, SLICE_INIT("[listen a b]\naddress = [::]:1\n"),
	    "f:8: listen a b: found \"a b\", expected a name of at most 64 letters, digits, \"_\", \"-\" and \".\"\n" },
	{ false, SLICE_INIT("[pool shop]\nsocket = /a\nslots = 1\n"),
	    "f:8: pool shop: found \"pool shop\", expected each section once: the first is in line 3\n" },
	{ false, SLICE_INIT("[listen http]\naddress = [::]:1\n"),
	    "f:8: listen http: found \"listen http\", expected each section once: the first is in line 1\n" },
	{ false, SLICE_INIT("[route */]\npool = shop\n[route *]\npool = shop\n"),
	    "f:8: route */: found \"route */\", expected each section once: the first is in line 6\n"
	    "f:10: route *: found \"route *\", expected each section once: the first is in line 6\n" },
	{ false, SLICE_INIT("[route A.b/x]\npool = shop\n[route a.B/x/]\npool = shop\n"),
	    "f:10: route a.B/x/: found \"route a.B/x/\", expected each section once: the first is in line 8\n" },
	{ false, SLICE_INIT("[forebay]\n[forebay]\n"),
	    "f:9: forebay: found \"forebay\", expected each section once: the first is in line 8\n" },
	{ true, SLICE_INIT("user = x\n[route *]\n"),
	    "f:1: user: found \"x\", expected a section such as [forebay] before the first option\n"
	    "f:1: listen: found no such section, expected at least one [listen NAME], such as [listen http] with"
	    " address = 127.0.0.1:8000\n"
	    "f:1: pool: found no such section, expected at least one [pool NAME], such as [pool main] with app = demo\n"
	    "f:2: route *.pool: found nothing, expected the name of the [pool NAME] that serves it\n" },
	{ true, SLICE_INIT(LISTEN POOL),
	    "f:1: route: found no such section, expected at least one [route HOST/PATH], such as [route *] with pool = main\n" },
	/* options */
	{ false, SLICE_INIT("hod = 1K\n"),
	    "f:8: route *.hod: found \"hod\", expected an option of [route HOST/PATH]; did you mean \"hold\"?\n" },
	{ false, SLICE_INIT("Hold = 1K\n"),
	    "f:8: route *.Hold: found \"Hold\", expected an option of [route HOST/PATH]; did you mean \"hold\"?\n" },
	{ false, SLICE_INIT("slots = 4\n"),
	    "f:8: route *.slots: found \"slots\", expected an option of [route HOST/PATH]; this is one of [pool NAME]\n" },
	{ false, SLICE_INIT("files = /srv\nredirect = /x\n"),
	    "f:8: route *.files: found \"files\", expected an option of [route HOST/PATH]\n"
	    "f:9: route *.redirect: found \"redirect\", expected an option of [route HOST/PATH]\n" },
	{ false, SLICE_INIT("[listen x]\naddress = [::]:1\nredirect_https_port = 8443\n"),
	    "f:10: listen x.redirect_https_port: found redirect_https_port, expected redirect_https = on with it\n" },
	{ false, SLICE_INIT("[listen x]\naddress = [::]:1\nredirect_https = on\nredirect_https_port = 65536\n"),
	    "f:11: listen x.redirect_https_port: found \"65536\", expected a number of a TCP port from 1 to 65535\n" },
	{ false, SLICE_INIT("[listen x]\naddress = [::]:1\nhsts = 1d\n"),
	    "f:10: listen x.hsts: found hsts, expected a listener with tls: browsers take no such word without (RFC 6797, 8.1)\n" },
	{ false, SLICE_INIT("[listen x]\naddress = [::]:1\ntls = main\nhttp2 = yes\nproxy_protocol = on\n"),
	    "f:10: listen x.tls: found \"main\", expected the name of a [tls NAME]\n"
	    "f:12: listen x.proxy_protocol: found \"on\", expected trusted in [forebay] with it: the proxies whose word about their "
	    "clients counts\n" },
	{ false, SLICE_INIT("hold = 1K\nbuffer = on\nhold = 1K\n"),
	    "f:10: route *.hold: found \"1K\", expected it once: hold is in line 8 already\n" },
	{ false, SLICE_INIT("hold = x\nhold = 1K\n"),
	    "f:8: route *.hold: found \"x\", expected a size from 0 to 64M\n"
	    "f:9: route *.hold: found \"1K\", expected it once: hold is in line 8 already\n" },
	{ false, SLICE_INIT("hold = 65M\n"), "f:8: route *.hold: found \"65M\", expected a size from 0 to 64M\n" },
	/* listeners */
	{ false, SLICE_INIT("[listen x]\nbacklog = 3\n"),
	    "f:8: listen x.address: found nothing, expected at least one address and port such as 127.0.0.1:8000\n" },
	{ false, SLICE_INIT("[listen x]\naddress = 127.0.0.1:8000 ; a\n"),
	    "f:9: listen x.address: found \"127.0.0.1:8000 ; a\", expected a value alone, since comments stand on lines of"
	    " their own\n" },
	{ false, SLICE_INIT("[listen x]\naddress = [::1]:1\naddress = 127.0.0.1:8000\naddress = [0::1]:1\n"),
	    "f:10: listen x.address: found \"127.0.0.1:8000\", expected each address once: the first is in line 2\n"
	    "f:11: listen x.address: found \"[0::1]:1\", expected each address once: the first is in line 9\n" },
	/* TLS */
	{ false, SLICE_INIT("[tls main]\n"),
	    "f:8: tls main.certificate: found nothing, expected the file with the certificate, such as"
	    " /etc/letsencrypt/live/example.org/fullchain.pem\n"
	    "f:8: tls main.key: found nothing, expected the file with its key, such as"
	    " /etc/letsencrypt/live/example.org/privkey.pem\n" },
	{ false, SLICE_INIT("[tls m]\ncertificate = c.pem\nkey = /k\nciphers = a b\n"),
	    "f:9: tls m.certificate: found \"c.pem\", expected an absolute path\n"
	    "f:11: tls m.ciphers: found \"a b\", expected words of OpenSSL's with \":\" between them\n" },
	{ false, SLICE_INIT(TLS_M "client_verify = require\n"),
	    "f:8: tls m.client_ca: found nothing, expected the authorities of clients' certificates, with client_verify\n" },
	{ false, SLICE_INIT(TLS_M "client_ca = /a\n"),
	    "f:11: tls m.client_ca: found client_ca alone, expected client_verify = optional or require with it\n" },
	{ false, SLICE_INIT(TLS_M "profile = modern\nciphers = AES\n"),
	    "f:12: tls m.ciphers: found ciphers, expected none with profile = modern: TLS 1.3 has ciphers of its own\n" },
	{ false, SLICE_INIT(TLS_M "profile = moderm\n"),
	    "f:11: tls m.profile: found \"moderm\", expected intermediate or modern; did you mean \"modern\"?\n" },
	{ false, SLICE_INIT(TLS_M "ticket_key_file = a\nticket_key_file = /a\nticket_key_file = /a\n"),
	    "f:11: tls m.ticket_key_file: found \"a\", expected an absolute path\n"
	    "f:13: tls m.ticket_key_file: found \"/a\", expected each of them once\n" },
	{ false, SLICE_INIT(TLS_M "[listen x]\naddress = [::]:1\ntls = other\ntls = m\ntls = m\ntls = [m]\n"),
	    "f:13: listen x.tls: found \"other\", expected the name of a [tls NAME]\n"
	    "f:15: listen x.tls: found \"m\", expected each of them once\n"
	    "f:16: listen x.tls: found \"[m]\", expected the name of a [tls NAME]\n" },
	{ false, SLICE_INIT(TLS_M "[listen x]\naddress = [::]:1\ntls = mian\n[tls main]\ncertificate = /c\nkey = /k\n"),
	    "f:13: listen x.tls: found \"mian\", expected the name of a [tls NAME]; did you mean \"main\"?\n" },
	{ false, SLICE_INIT(TLS_M TLS_N "client_verify = optional\nclient_ca = /a\n" LISTEN_TLS),
	    "f:14: tls n.client_verify: found another value, expected what the listener's first, [tls NAME] in line 8, has\n"
	    "f:15: tls n.client_ca: found another value, expected what the listener's first, [tls NAME] in line 8, has\n" },
	{ false, SLICE_INIT(TLS_M "client_verify = require\nclient_ca = /a\n" TLS_N "client_verify = off\n" LISTEN_TLS),
	    "f:16: tls n.client_verify: found another value, expected what the listener's first, [tls NAME] in line 8, has\n" },
	{ false, SLICE_INIT(TLS_M TLS_N "profile = modern\n[listen \xff]\naddress = [::]:1\ntls = m\ntls = n\n"),
	    "f:14: tls n.profile: found another value, expected what the listener's first, [tls NAME] in line 8, has\n"
	    "f:15: listen \\xff: found \"\\xff\", expected a name of at most 64 letters, digits, \"_\", \"-\" and \".\"\n" },
	{ false,
	    SLICE_INIT(TLS_M TLS_N "ticket_key_file = /a\nsession_tickets = off\nsession_cache = 5\n"
	                           "session_timeout = 5\ncurves = X25519\nprofile = modern\n" LISTEN_TLS),
	    "f:14: tls n.ticket_key_file: found another value, expected what the listener's first, [tls NAME] in line 8, has\n"
	    "f:15: tls n.session_tickets: found another value, expected what the listener's first, [tls NAME] in line 8, has\n"
	    "f:16: tls n.session_cache: found another value, expected what the listener's first, [tls NAME] in line 8, has\n"
	    "f:17: tls n.session_timeout: found another value, expected what the listener's first, [tls NAME] in line 8, has\n"
	    "f:18: tls n.curves: found another value, expected what the listener's first, [tls NAME] in line 8, has\n"
	    "f:19: tls n.profile: found another value, expected what the listener's first, [tls NAME] in line 8, has\n" },
	/* pools */
	{ false, SLICE_INIT("[pool x]\n"),
	    "f:8: pool x: found neither socket nor app, expected one of the two: who serves this pool\n" },
	{ false, SLICE_INIT("[pool x]\napp = demo\nsocket = /x\n"),
	    "f:10: pool x.socket: found both socket and app, expected one of the two: socket is in line 10, app in line 9\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\napp = demo\n"),
	    "f:10: pool x.app: found both socket and app, expected one of the two: socket is in line 9, app in line 10\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\n"),
	    "f:8: pool x.slots: found nothing, expected a number of slots: how many requests each socket's server works on"
	    " at a time\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\nslots = 0\n"),
	    "f:10: pool x.slots: found \"0\", expected a number of slots from 1 to 4096\n" },
	{ false, SLICE_INIT("[pool x]\napp = demo\nslots = 3\nkeepalive = on\n"),
	    "f:10: pool x.slots: found \"slots\", expected no slots in a pool with app (line 9)\n"
	    "f:11: pool x.keepalive: found \"keepalive\", expected no keepalive in a pool with app (line 9)\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\nslots = 3\nprocesses = 2\nenvironment = A=b\n"),
	    "f:11: pool x.processes: found \"processes\", expected no processes in a pool with socket (line 9)\n"
	    "f:12: pool x.environment: found \"environment\", expected no environment in a pool with socket (line 9)\n" },
	{ false, SLICE_INIT("[pool x]\napp = exec:gunicorn\n"),
	    "f:9: pool x.app: found \"exec:gunicorn\", expected wsgi:MODULE, wsgi:MODULE:CALLABLE, worker:PROGRAM or demo\n" },
	{ false, SLICE_INIT("[pool x]\napp = wsgi\n"),
	    "f:9: pool x.app: found \"wsgi\", expected wsgi:MODULE, wsgi:MODULE:CALLABLE, worker:PROGRAM or demo; did you mean \"wsgi:\"?\n" },
	{ false, SLICE_INIT("[pool x]\napp = wsgi:my-site.wsgi\n"),
	    "f:9: pool x.app: found \"wsgi:my-site.wsgi\", expected wsgi:MODULE or wsgi:MODULE:CALLABLE, such as"
	    " wsgi:mysite.wsgi\n" },
	{ false, SLICE_INIT("[pool x]\napp = wsgi:a..b\n"),
	    "f:9: pool x.app: found \"wsgi:a..b\", expected wsgi:MODULE or wsgi:MODULE:CALLABLE, such as wsgi:mysite.wsgi\n" },
	{ false, SLICE_INIT("[pool x]\napp = wsgi:a:make(1)\n"),
	    "f:9: pool x.app: found \"wsgi:a:make(1)\", expected wsgi:MODULE or wsgi:MODULE:CALLABLE, such as"
	    " wsgi:mysite.wsgi\n" },
	{ false, SLICE_INIT("[pool x]\napp = worker:\n"),
	    "f:9: pool x.app: found \"worker:\", expected worker: and the path of a program, such as"
	    " worker:/usr/local/libexec/lua-host site.lua\n" },
	{ false, SLICE_INIT("[pool x]\napp = worker:host /site.lua\n"),
	    "f:9: pool x.app: found \"worker:host /site.lua\", expected worker: and the path of a program, such as"
	    " worker:/usr/local/libexec/lua-host site.lua\n" },
	{ false, SLICE_INIT("[pool x]\napp = worker:/host\nvirtualenv = /v\n"),
	    "f:10: pool x.virtualenv: found virtualenv, expected no virtualenv in a pool whose app (line 9) is not wsgi:MODULE\n" },
	{ false, SLICE_INIT("[pool x]\napp = demo\nvirtualenv = /v\nprocesses_min = 3\n"),
	    "f:10: pool x.virtualenv: found virtualenv, expected no virtualenv in a pool whose app (line 9) is not wsgi:MODULE\n"
	    "f:11: pool x.processes_min: found \"3\", expected at most the pool's 2 processes\n" },
	{ false, SLICE_INIT("[pool x]\napp = demo\numask = 28\nniceness = 20\n"),
	    "f:10: pool x.umask: found \"28\", expected octal digits up to 777\n"
	    "f:11: pool x.niceness: found \"20\", expected a number from -20 to 19\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\nslots = 3\npreload = off\nquarantine_dir = /q\n"),
	    "f:11: pool x.preload: found \"preload\", expected no preload in a pool with socket (line 9)\n"
	    "f:12: pool x.quarantine_dir: found \"quarantine_dir\", expected no quarantine_dir in a pool with socket (line 9)\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\nsocket = unix:/x\nslots = 3\n"),
	    "f:10: pool x.socket: found \"/x\", expected each socket once: the first is in line 9\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = 127.0.0.1:8000\nslots = 3\n"),
	    "f:9: pool x.socket: found \"127.0.0.1:8000\", expected another socket than forebay's own: it listens there by"
	    " line 2\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\nsocket = /y\nslots = 3\nstreams = 7\n"),
	    "f:12: pool x.streams: found \"7\", expected at most the pool's 6 slots\n" },
	{ false, SLICE_INIT("[pool x]\napp = demo\nstreams = 3\n"),
	    "f:10: pool x.streams: found \"3\", expected at most the pool's 2 slots\n" },
	{ false, SLICE_INIT("[pool x]\napp = demo\nprocesses = 1024\nthreads = 64\n"),
	    "f:10: pool x.processes: found 65536 slots, expected at most 65535 in one pool\n" },
	{ false, SLICE_INIT("[pool x]\nsocket = /x\nsocket = [::1]:2\nslots = 3\nreplay_unread = on\n"),
	    "f:10: pool x.socket: found \"[::1]:2\", expected a Unix socket with replay_unread = on (line 12): TCP does not"
	    " show what was read\n" },
	/* routes */
	{ false, SLICE_INIT("[pool x]\napp = demo\n[route a/b]\npool = x\nmount = /c\n[route a/bc]\npool = x\nmount = /b\n"),
	    "f:12: route a/b.mount: found \"/c\", expected the route's path /b, or the first segments of it\n"
	    "f:15: route a/bc.mount: found \"/b\", expected the route's path /bc, or the first segments of it\n" },
	{ false, SLICE_INIT("[pool x]\napp = demo\n[route a]\npool = x\nmount = /\n"),
	    "f:12: route a.mount: found \"/\", expected the route's path (which this one does not have), or the first segments of"
	    " it\n" },
	{ false, SLICE_INIT("[route a/b]\npool = shop\nmount = /b\n"),
	    "f:10: route a/b.mount: found mount, expected a pool with app: what others' servers are mounted at, they are told by"
	    " their own configuration\n" },
	{ false, SLICE_INIT("[route a]\npool = shpo\n"),
	    "f:9: route a.pool: found \"shpo\", expected the name of a [pool NAME]; did you mean \"shop\"?\n" },
	{ false, SLICE_INIT("[route a]\npool = elsewhere\n"),
	    "f:9: route a.pool: found \"elsewhere\", expected the name of a [pool NAME]\n" },
	{ false, SLICE_INIT("[route a]\npool = http://x\n"),
	    "f:9: route a.pool: found \"http://x\", expected a name of letters, digits, \"_\", \"-\" and \".\"\n" },
	{ false, SLICE_INIT("[route a]\nhold = 1K\n"),
	    "f:8: route a.pool: found nothing, expected the name of the [pool NAME] that serves it\n" },
	{ false, SLICE_INIT("[route /blog]\npool = shop\n"),
	    "f:8: route /blog: found \"/blog\", expected a host before the path: a name, *.name, or * for any\n" },
};

static void a_file_is_refused_in_clear_words(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		struct buf text;

		buf_init(&text, 4096);
		if (!refused[i].alone)
			buf_add(&text, SLICE(BASE));
		buf_add(&text, refused[i].text);
		wrong(i, buf_slice(&text), refused[i].words);
		buf_done(&text);
	}
}

/* Ways to write the same. */
static const struct slice same[] = {
	SLICE_INIT(BASE "hold = 1K"),
	SLICE_INIT(BASE "hold=1K\n"),
	SLICE_INIT(BASE "hold \t=\t 1K \t\n"),
	SLICE_INIT(BASE "hold = 1K\r\n\r\n"),
	SLICE_INIT(BASE "; hold = 2K\n# hold = 3K\n  ; hold: 4K\n;\n#\n \t\nhold = 1K\n"),
	SLICE_INIT("\xef\xbb\xbf" BASE "hold = 1K\n"),
	SLICE_INIT("\xef\xbb\xbf; k\xc3\xb6nnen\n" BASE "hold = 1024\n"),
	SLICE_INIT("[ listen \t http ] \naddress = 127.0.0.1:8000\n" POOL "[route \t *\t]\npool = shop\nhold = 1K\n"),
	SLICE_INIT("[route *]\nhold = 1K\npool = shop\n" POOL LISTEN),
};

static void a_file_may_be_written_in_many_ways(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		struct conf *c = right(same[i]);

		assert_int_equal(c->listen_count, 1);
		assert_string_equal(c->listens[0].name, "http");
		assert_int_equal(c->route_count, 1);
		assert_ptr_equal(c->routes[0].pool, &c->pools[0]);
		if (c->routes[0].hold != 1024)
			fail_msg("row %zu: %" PRIu64, i, c->routes[0].hold);
		conf_drop(&c);
	}
}

static void an_empty_file_says_what_is_missing(void **state UNUSED)
{
	static const char words[] =
	    "f:1: listen: found no such section, expected at least one [listen NAME], such as [listen http] with address ="
	    " 127.0.0.1:8000\n"
	    "f:1: pool: found no such section, expected at least one [pool NAME], such as [pool main] with app = demo\n"
	    "f:1: route: found no such section, expected at least one [route HOST/PATH], such as [route *] with pool = main\n";

	wrong(0, SLICE(""), words);
	wrong(1, SLICE("\n"), words);
	wrong(2, SLICE("\xef\xbb\xbf"), words);
	wrong(3, SLICE("\r"), words);
	wrong(4, slice_of(NULL, 0), words);
}

static void the_defaults_are_the_documented_ones(void **state UNUSED)
{
	struct conf *c = right(SLICE(BASE "[pool own]\napp = demo\n"));
	const struct conf_daemon *d = &c->daemon;
	const struct conf_listen *l = &c->listens[0];
	const struct conf_pool *p = &c->pools[0], *own = &c->pools[1];
	const struct conf_route *r = &c->routes[0];

	assert_null(d->user);
	assert_int_equal(d->threads, 0);
	assert_int_equal(d->memory_limit, 0);
	assert_string_equal(d->spool_dir, "/var/spool/forebay");
	assert_int_equal(d->spool_limit, (uint64_t)10 << 30);
	assert_int_equal(d->spool_own_file, 1 << 20);
	assert_int_equal(d->spool_threads, 2);
	assert_int_equal(d->connections, 0);
	assert_string_equal(d->log, "stderr");
	assert_int_equal(d->log_level, LOG_LEVEL_INFO);
	assert_string_equal(d->access_log, "off");
	assert_int_equal(d->access_format, ACCESS_COMBINED);
	assert_int_equal(d->trusted_count, 0);
	assert_int_equal(d->drain_timeout_ms, 30000);
	assert_null(d->pid_file);
	assert_null(l->tls);
	assert_int_equal(l->head_limit, 32 << 10);
	assert_int_equal(l->fields_max, 100);
	assert_int_equal(l->head_timeout_ms, 10000);
	assert_int_equal(l->idle_timeout_ms, 60000);
	assert_int_equal(l->keepalive_requests, 10000);
	assert_int_equal(l->min_rate, 1024);
	assert_int_equal(l->min_rate_grace_ms, 10000);
	assert_int_equal(l->connections_per_address, 0);
	assert_int_equal(l->backlog, 4096);
	assert_false(l->half_close);
	assert_false(l->early_hints);
	assert_int_equal(p->slots, 8);
	assert_int_equal(p->app, APP_NONE);
	assert_false(p->keepalive);
	assert_int_equal(p->keepalive_idle_ms, 1000);
	assert_false(p->replay_unread);
	assert_false(p->require_length);
	assert_int_equal(p->queue_limit, 1000);
	assert_int_equal(p->queue_timeout_ms, 30000);
	assert_int_equal(p->timeout_ms, 60000);
	assert_int_equal(p->release_timeout_ms, 60000);
	assert_int_equal(p->connect_timeout_ms, 5000);
	assert_int_equal(p->retries, 1);
	assert_int_equal(p->streams, 0);
	assert_int_equal(conf_pool_slots(p), 8);
	assert_int_equal(conf_pool_streams(p), 2);
	assert_int_equal(own->app, APP_DEMO);
	assert_null(own->app_target);
	assert_int_equal(own->processes, 2);
	assert_int_equal(own->threads, 1);
	assert_int_equal(own->processes_min, 0);
	assert_int_equal(conf_pool_processes_min(own), 2);
	assert_int_equal(own->scale_up_delay_ms, 100);
	assert_int_equal(own->scale_down_after_ms, 60000);
	assert_int_equal(own->umask, 022);
	assert_int_equal(own->niceness, 0);
	assert_string_equal(own->locale, "C.UTF-8");
	assert_true(own->preload);
	assert_null(own->preload_request);
	assert_null(own->health_path);
	assert_int_equal(own->start_timeout_ms, 60000);
	assert_int_equal(own->max_requests, 0);
	assert_int_equal(own->max_memory, 0);
	assert_int_equal(own->replay_max, 1);
	assert_null(own->quarantine_dir);
	assert_int_equal(own->quarantine_limit, 100);
	assert_null(own->user);
	assert_null(own->directory);
	assert_int_equal(own->index, 1);
	assert_int_equal(conf_pool_slots(own), 2);
	assert_int_equal(conf_pool_streams(own), 1);
	assert_int_equal(r->body_limit, 1 << 30);
	assert_int_equal(r->body_memory, 1 << 20);
	assert_int_equal(r->hold, 64 << 10);
	assert_true(r->buffer);
	conf_drop(&c);
	assert_null(c);
}

static const struct {
	const char *value, *program, *target;
} worker_apps[] = {
	{ "worker:/host", "/host", NULL },
	{ "worker:/a/host site.lua", "/a/host", "site.lua" },
	{ "worker:/host  b c:d", "/host", "b c:d" },
};

static const struct {
	const char *value, *target;
} wsgi_apps[] = {
	{ "wsgi:site", "site" },
	{ "wsgi:my_site.wsgi", "my_site.wsgi" },
	{ "wsgi:a.b:application", "a.b:application" },
	{ "wsgi:a.b:sites.one", "a.b:sites.one" },
	{ "wsgi:a:create_app()", "a:create_app()" },
};

static void an_app_of_ones_own(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(wsgi_apps); i++) {
		char text[512];
		struct conf *c;

		snprintf(text, sizeof(text),
		    "%s[pool own]\napp = %s\nvirtualenv = /venv\numask = 077\nniceness = -5\n"
		    "[route b/c/d]\npool = own\nmount = /c\n",
		    BASE, wsgi_apps[i].value);
		c = right(slice_str(text));
		assert_int_equal(c->pools[1].app, APP_WSGI);
		assert_string_equal(c->pools[1].app_target, wsgi_apps[i].target);
		assert_int_equal(c->pools[1].umask, 077);
		assert_int_equal(c->pools[1].niceness, -5);
		assert_string_equal(c->routes[c->route_count - 1].mount, "/c");
		conf_drop(&c);
	}
}

static void a_program_of_ones_own(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(worker_apps); i++) {
		char text[512];
		struct conf *c;

		snprintf(text, sizeof(text), "%s[pool own]\napp = %s\n", BASE, worker_apps[i].value);
		c = right(slice_str(text));
		assert_int_equal(c->pools[1].app, APP_WORKER);
		assert_string_equal(c->pools[1].app_program, worker_apps[i].program);
		if (worker_apps[i].target)
			assert_string_equal(c->pools[1].app_target, worker_apps[i].target);
		else
			assert_null(c->pools[1].app_target);
		conf_drop(&c);
	}
}

/* A file beside the tests, for which `make distcheck` has another directory. */
static const char *file_of(const char *name, char *out, size_t size)
{
	const char *source = getenv("srcdir");

	snprintf(out, size, "%s/%s", source ? source : ".", name);
	return out;
}

static struct conf *loaded(const char *name)
{
	char path[512];
	struct buf errors;
	struct conf *c = NULL;

	buf_init(&errors, ERRORS_BYTES_MAX);
	if (conf_load(file_of(name, path, sizeof(path)), &errors, &c) != 0)
		fail_msg("%.*s", SLICE_ARG(buf_slice(&errors)));
	buf_done(&errors);
	return c;
}

static void every_tls_option_is_right(const struct conf *c)
{
	const struct conf_listen *l = &c->listens[1];
	const struct conf_tls *t = conf_listen_tls(c, l, 0), *alone = &c->tls[2];

	assert_int_equal(c->tls_count, 3);
	assert_int_equal(l->tls_count, 2);
	assert_int_equal(conf_listen_tls(c, l, 1)->index, 1);
	assert_string_equal(t->name, "main");
	assert_string_equal(t->certificate, "/tls/fullchain.pem");
	assert_string_equal(t->key, "/tls/privkey.pem");
	assert_string_equal(t->key_password_file, "/tls/password");
	assert_string_equal(t->ocsp_staple, "/tls/staple");
	assert_string_equal(t->client_ca, "/tls/ca.pem");
	assert_int_equal(t->client_verify, CLIENT_VERIFY_OPTIONAL);
	assert_string_equal(t->ciphers, "ECDHE+AESGCM:!aNULL");
	assert_string_equal(t->curves, "X448");
	assert_int_equal(t->ticket_key_file_count, 2);
	assert_string_equal(t->ticket_key_files[1].text, "/tls/ticket.2");
	assert_false(t->session_tickets);
	assert_int_equal(t->session_cache, 0);
	assert_int_equal(t->session_timeout_ms, 3600000);
	assert_int_equal(t->profile, TLS_PROFILE_INTERMEDIATE);
	assert_int_equal(alone->profile, TLS_PROFILE_MODERN);
	assert_int_equal(alone->client_verify, CLIENT_VERIFY_OFF);
	assert_true(alone->session_tickets);
	assert_int_equal(alone->session_cache, 10000);
	assert_int_equal(alone->session_timeout_ms, 86400000);
	assert_int_equal(alone->ticket_key_file_count, 0);
}

static void every_option_reaches_its_field(void **state UNUSED)
{
	struct conf *c = loaded("tests/data/conf/whole.ini");
	const struct conf_daemon *d = &c->daemon;
	const struct conf_listen *l = &c->listens[0];
	const struct conf_pool *p = &c->pools[0], *own = &c->pools[1];
	const struct conf_route *r = &c->routes[0];

	assert_string_equal(d->user, "www-data");
	assert_int_equal(d->threads, 3);
	assert_int_equal(d->memory_limit, 64 << 20);
	assert_string_equal(d->spool_dir, "/spool");
	assert_int_equal(d->spool_limit, (uint64_t)2 << 30);
	assert_int_equal(d->spool_own_file, 2 << 20);
	assert_int_equal(d->spool_threads, 3);
	assert_int_equal(d->connections, 1000);
	assert_string_equal(d->log, "syslog");
	assert_int_equal(d->log_level, LOG_LEVEL_DEBUG);
	assert_string_equal(d->access_log, "/var/log/access");
	assert_int_equal(d->access_format, ACCESS_TIMING);
	assert_int_equal(d->trusted_count, 2);
	assert_string_equal(d->trusted[0].text, "10.0.0.0/8");
	assert_true(d->trusted[1].is_unix);
	assert_int_equal(d->drain_timeout_ms, 5000);
	assert_string_equal(d->pid_file, "/run/pid");
	assert_int_equal(c->listen_count, 2);
	assert_int_equal(l->address_count, 2);
	assert_string_equal(l->addresses[1].text, "[::1]:8000");
	assert_int_equal(l->addresses[1].line, 23);
	assert_int_equal(l->tls_count, 0);
	every_tls_option_is_right(c);
	assert_int_equal(l->head_limit, 16 << 10);
	assert_int_equal(l->fields_max, 50);
	assert_int_equal(l->head_timeout_ms, 1500);
	assert_int_equal(l->idle_timeout_ms, 120000);
	assert_int_equal(l->keepalive_requests, 0);
	assert_int_equal(l->min_rate, 2048);
	assert_int_equal(l->min_rate_grace_ms, 5000);
	assert_int_equal(l->connections_per_address, 7);
	assert_int_equal(l->backlog, 100);
	assert_true(l->half_close);
	assert_true(l->early_hints);
	assert_false(l->proxy_protocol);
	assert_true(l->redirect_https);
	assert_int_equal(l->redirect_https_port, 8443);
	assert_int_equal(l->hsts_ms, 0);
	assert_null(l->acme_challenge);
	assert_int_equal(c->listens[1].hsts_ms, (uint64_t)365 * 86400 * 1000);
	assert_string_equal(c->listens[1].acme_challenge, "/var/lib/acme");
	assert_true(c->listens[1].proxy_protocol);
	assert_int_equal(c->listens[1].handshake_timeout_ms, 3000);
	assert_string_equal(c->listens[1].addresses[0].text, "unix:/run/forebay.sock");
	assert_int_equal(c->pool_count, 2);
	assert_int_equal(p->socket_count, 2);
	assert_string_equal(p->sockets[1].text, "/run/b.sock");
	assert_int_equal(p->slots, 8);
	assert_int_equal(conf_pool_slots(p), 16);
	assert_true(p->keepalive);
	assert_int_equal(p->keepalive_idle_ms, 500);
	assert_true(p->replay_unread);
	assert_true(p->require_length);
	assert_int_equal(p->queue_limit, 10);
	assert_int_equal(p->queue_timeout_ms, 1000);
	assert_int_equal(p->timeout_ms, 3600000);
	assert_int_equal(p->release_timeout_ms, 7200000);
	assert_int_equal(p->connect_timeout_ms, 1000);
	assert_int_equal(p->retries, 2);
	assert_int_equal(conf_pool_streams(p), 3);
	assert_int_equal(own->processes, 4);
	assert_int_equal(own->threads, 3);
	assert_int_equal(conf_pool_slots(own), 12);
	assert_int_equal(conf_pool_streams(own), 3);
	assert_string_equal(own->directory, "/srv");
	assert_string_equal(own->user, "nobody");
	assert_int_equal(own->environment_count, 2);
	assert_string_equal(own->environment[0], "A=1");
	assert_string_equal(own->environment[1], "B=two words");
	assert_int_equal(own->max_requests, 1000);
	assert_int_equal(c->route_count, 3);
	assert_string_equal(r->host, "example.org");
	assert_string_equal(r->path, "");
	assert_string_equal(r->pattern, "example.org");
	assert_int_equal(r->line, 73);
	assert_ptr_equal(r->pool, p);
	assert_int_equal(r->body_limit, (uint64_t)2 << 30);
	assert_int_equal(r->body_memory, 1024);
	assert_int_equal(r->hold, 2048);
	assert_false(r->buffer);
	assert_string_equal(c->routes[1].host, "*.example.org");
	assert_string_equal(c->routes[1].path, "/Blog");
	assert_string_equal(c->routes[1].pattern, "*.example.org/Blog");
	assert_ptr_equal(c->routes[1].pool, own);
	conf_drop(&c);
}

static void the_shipped_files_are_right(void **state UNUSED)
{
	struct conf *c = loaded("conf/forebay.ini");

	assert_string_equal(c->daemon.user, "forebay");
	assert_int_equal(conf_pool_slots(&c->pools[0]), 8);
	conf_drop(&c);
	c = loaded("conf/demo.ini");
	assert_string_equal(c->listens[0].addresses[0].text, "127.0.0.1:8000");
	assert_int_equal(c->pools[0].app, APP_DEMO);
	conf_drop(&c);
}

static void read_whole(const char *name, struct buf *ret)
{
	char path[512];
	FILE *f = fopen(file_of(name, path, sizeof(path)), "r");
	char *room;

	assert_non_null(f);
	buf_init(ret, 1 << 20);
	room = buf_room(ret, 1 << 16);
	ret->len = fread(room, 1, 1 << 16, f);
	fclose(f);
}

static void all_errors_are_told_in_the_order_of_lines(void **state UNUSED)
{
	struct buf text, expected, errors;
	struct conf *c = NULL;

	read_whole("tests/data/conf/broken.ini", &text);
	read_whole("tests/data/conf/broken.expected", &expected);
	buf_init(&errors, ERRORS_BYTES_MAX);
	assert_int_equal(conf_parse("broken.ini", buf_slice(&text), &errors, &c), -EINVAL);
	if (!slice_eq(buf_slice(&errors), buf_slice(&expected)))
		fail_msg("%.*s", SLICE_ARG(buf_slice(&errors)));
	buf_done(&text);
	buf_done(&expected);
	buf_done(&errors);
}

/* Patterns */

static const struct {
	struct slice text;
	const char *host, *path; /* NULL: refused */
	const char *why;         /* a part of it */
} patterns[] = {
	{ SLICE_INIT("*"), "*", "", "" },
	{ SLICE_INIT("*/"), "*", "", "" },
	{ SLICE_INIT("*/a"), "*", "/a", "" },
	{ SLICE_INIT("Example.ORG/A/b/"), "example.org", "/A/b", "" },
	{ SLICE_INIT("*.Example.org/"), "*.example.org", "", "" },
	{ SLICE_INIT("localhost"), "localhost", "", "" },
	{ SLICE_INIT("127.0.0.1/x"), "127.0.0.1", "/x", "" },
	{ SLICE_INIT("[::1]/x"), "[::1]", "/x", "" },
	{ SLICE_INIT("[FE80::1]"), "[fe80::1]", "", "" },
	{ SLICE_INIT("xn--mnchen-3ya.de"), "xn--mnchen-3ya.de", "", "" },
	{ SLICE_INIT("a/..b/.c/%2e"), "a", "/..b/.c/%2e", "" },
	{ SLICE_INIT("/"), NULL, NULL, "a host before" },
	{ SLICE_INIT("/a"), NULL, NULL, "a host before" },
	{ SLICE_INIT("a.*"), NULL, NULL, "* alone" },
	{ SLICE_INIT("*.*.a"), NULL, NULL, "* alone" },
	{ SLICE_INIT("*a"), NULL, NULL, "* alone" },
	{ SLICE_INIT("**"), NULL, NULL, "* alone" },
	{ SLICE_INIT("a:80"), NULL, NULL, "without a port" },
	{ SLICE_INIT("http://a"), NULL, NULL, "without a port" },
	{ SLICE_INIT("[::1]:80"), NULL, NULL, "in brackets" },
	{ SLICE_INIT("[::1"), NULL, NULL, "in brackets" },
	{ SLICE_INIT("[a]"), NULL, NULL, "in brackets" },
	{ SLICE_INIT("[]"), NULL, NULL, "in brackets" },
	{ SLICE_INIT("*."), NULL, NULL, "a host name" },
	{ SLICE_INIT("a."), NULL, NULL, "a host name" },
	{ SLICE_INIT(".a"), NULL, NULL, "a host name" },
	{ SLICE_INIT("a..b"), NULL, NULL, "a host name" },
	{ SLICE_INIT("a b"), NULL, NULL, "a host name" },
	{ SLICE_INIT("m\xc3\xbcnchen.de"), NULL, NULL, "xn--" },
	{ SLICE_INIT("a?x"), NULL, NULL, "a host name" },
	{ SLICE_INIT("a/b?c"), NULL, NULL, "without \"?\"" },
	{ SLICE_INIT("a/b#c"), NULL, NULL, "without \"?\"" },
	{ SLICE_INIT("a//"), NULL, NULL, "visible ASCII" },
	{ SLICE_INIT("a/b//c"), NULL, NULL, "visible ASCII" },
	{ SLICE_INIT("a/."), NULL, NULL, "visible ASCII" },
	{ SLICE_INIT("a/b/../c"), NULL, NULL, "visible ASCII" },
	{ SLICE_INIT("a/b c"), NULL, NULL, "visible ASCII" },
	{ SLICE_INIT("a/\xc3\xbc"), NULL, NULL, "visible ASCII" },
	{ SLICE_INIT("a/\x7f"), NULL, NULL, "visible ASCII" },
};

static void a_pattern_is_taken_or_refused(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
		struct conf_route r = { 0 };
		const char *why = "";
		int err = pattern_parse(patterns[i].text, &r, &why);

		if (err != (patterns[i].host ? 0 : -EINVAL))
			fail_msg("row %zu: %d %s", i, err, why ? why : "");
		if (err == -EINVAL && (!strstr(why, patterns[i].why) || r.host))
			fail_msg("row %zu: %s", i, why);
		if (err == 0 && (!slice_eq(slice_str(r.host), slice_str(patterns[i].host)) ||
		                    !slice_eq(slice_str(r.path), slice_str(patterns[i].path))))
			fail_msg("row %zu: %s %s", i, r.host, r.path);
		free(r.host);
		free(r.path);
		free(r.pattern);
	}
}

static int try_pattern(size_t label, size_t host, size_t path)
{
	struct conf_route r = { 0 };
	struct buf text;
	const char *why;
	int err;

	buf_init(&text, 8192);
	for (size_t i = 0; i < host; i++)
		buf_char(&text, i % (label + 1) == label ? '.' : 'a');
	for (size_t i = 0; i < path; i++)
		buf_char(&text, i == 0 ? '/' : 'p');
	err = pattern_parse(buf_slice(&text), &r, &why);
	buf_done(&text);
	free(r.host);
	free(r.path);
	free(r.pattern);
	return err;
}

static void a_pattern_ends_at_its_limits(void **state UNUSED)
{
	assert_int_equal(try_pattern(63, 253, 0), 0);
	assert_int_equal(try_pattern(62, 253, 4096), 0);
	assert_int_equal(try_pattern(62, 254, 0), -EINVAL);
	assert_int_equal(try_pattern(64, 65, 0), -EINVAL);
	assert_int_equal(try_pattern(63, 9, 4097), -EINVAL);
}

/* Limits of the reader, and how it goes round inih's */

/* A configuration with a variable of this value. */
static void with_variable(struct buf *ret, struct slice value)
{
	buf_init(ret, 1 << 16);
	buf_add(ret, SLICE(BASE "[pool own]\napp = demo\nenvironment = A="));
	buf_add(ret, value);
	buf_char(ret, '\n');
}

static void a_value_of_any_length_comes_through_inih_whole(void **state UNUSED)
{
	char value[1200];
	char expected[sizeof(value) + 2];

	for (size_t len = 1; len < sizeof(value); len++) {
		struct buf text;
		struct conf *c;

		/* Mostly spaces, so that there are some at each place where it is cut for inih. */
		memset(value, len % 3 ? ' ' : 'x', len);
		value[len / 2] = ';';
		value[len / 2 + (len > 2)] = 'y';
		if (len > 2)
			value[len / 2 - 1] = 'z';
		value[len - 1] = 'e';
		with_variable(&text, slice_of(value, len));
		c = right(buf_slice(&text));
		snprintf(expected, sizeof(expected), "A=%.*s", (int)len, value);
		if (strcmp(c->pools[1].environment[0], expected) != 0)
			fail_msg("length %zu: %s", len, c->pools[1].environment[0]);
		conf_drop(&c);
		buf_done(&text);
	}
}

static void a_line_ends_at_its_limit(void **state UNUSED)
{
	static char value[READER_LINE_MAX];
	const size_t name_bytes = strlen("environment = A=");
	struct buf text;
	struct conf *c = NULL;
	struct buf errors;

	memset(value, 'v', sizeof(value));
	with_variable(&text, slice_of(value, READER_LINE_MAX - name_bytes));
	c = right(buf_slice(&text));
	assert_int_equal(strlen(c->pools[1].environment[0]), READER_LINE_MAX - name_bytes + 2);
	conf_drop(&c);
	buf_done(&text);
	with_variable(&text, slice_of(value, READER_LINE_MAX - name_bytes + 1));
	assert_int_equal(parse(buf_slice(&text), &errors, &c), -EINVAL);
	assert_true(slice_starts(buf_slice(&errors), SLICE("f:10: pool own: found \"environment = A=vvvv")));
	assert_true(slice_ends(buf_slice(&errors), SLICE("vvv...\", expected a line of at most 8192 bytes\n")));
	buf_done(&errors);
	buf_done(&text);
}

static void a_name_ends_at_its_limit(void **state UNUSED)
{
	wrong(0, SLICE(BASE "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab = 1\n"),
	    "f:8: route *.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab: found"
	    " \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\", expected an option of [route HOST/PATH]\n");
	wrong(1, SLICE(BASE "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab = 1\n"),
	    "f:8: route *: found \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\", expected an option's name of 1 to 49"
	    " letters, digits and \"_\"\n");
}

/* inih would make the same section of two whose first 49 bytes are the same. */
static void a_long_section_name_is_not_cut(void **state UNUSED)
{
	struct conf *c =
	    right(SLICE(BASE "[route a-rather-long-name-of-a-host.in-a-long-domain.example.org/path-1]\npool = shop\n"
	                     "[route a-rather-long-name-of-a-host.in-a-long-domain.example.org/path-2]\npool = shop\n"));

	assert_int_equal(c->route_count, 3);
	assert_string_equal(c->routes[2].host, "a-rather-long-name-of-a-host.in-a-long-domain.example.org");
	assert_string_equal(c->routes[2].path, "/path-2");
	conf_drop(&c);
}

static void sections_end_at_their_limit(void **state UNUSED)
{
	struct buf text;
	struct conf *c;

	buf_init(&text, CONF_FILE_MAX);
	buf_add(&text, SLICE(BASE));
	for (unsigned i = 3; i < SECTIONS_MAX; i++)
		buf_printf(&text, "[route %x]\npool = shop\n", i);
	assert_false(text.failed);
	c = right(buf_slice(&text));
	assert_int_equal(c->route_count, SECTIONS_MAX - 2);
	conf_drop(&c);
	buf_add(&text, SLICE("[route one.more]\npool = shop\n"));
	wrong(0, buf_slice(&text), "f:32770: route one.more: found one section more, expected at most 16384 sections\n");
	buf_done(&text);
}

static void errors_end_at_their_limit(void **state UNUSED)
{
	struct buf text, errors;
	struct conf *c = NULL;

	buf_init(&text, CONF_FILE_MAX);
	buf_add(&text, SLICE(BASE));
	for (unsigned i = 0; i < ERRORS_MAX + 7; i++)
		buf_add(&text, SLICE("x = y\n"));
	assert_int_equal(parse(buf_slice(&text), &errors, &c), -EINVAL);
	assert_non_null(memmem(errors.ptr, errors.len, "\nf:1007: ", 9));
	assert_null(memmem(errors.ptr, errors.len, "\nf:1008: ", 9));
	assert_true(slice_ends(buf_slice(&errors), SLICE("\nf: found 7 more errors than the 1000 above, expected none\n")));
	buf_done(&errors);
	buf_done(&text);
}

static void what_was_found_is_cut_in_a_message(void **state UNUSED)
{
	struct errors e;
	struct buf out;
	char text[101];

	memset(text, '\n', sizeof(text));
	errors_init(&e);
	buf_init(&out, 4096);
	errors_add(&e, (struct place){ 2, SLICE("a"), SLICE("b") }, FOUND_QUOTED(slice_of(text, 101)), SLICE(""), "less");
	errors_add(&e, (struct place){ 1, SLICE(""), SLICE("") }, FOUND_QUOTED(slice_of(text, 1)), SLICE("\""), "more");
	errors_write(&e, "f", &out);
	assert_true(slice_starts(buf_slice(&out),
	    SLICE("f:1: found \"\\x0a\", expected more; did you mean \"\\x22\"?\nf:2: a.b: found \"\\x0a\\x0a")));
	assert_true(slice_ends(buf_slice(&out), SLICE("\\x0a...\", expected less\n")));
	assert_int_equal(out.len, strlen("f:1: found \"\\x0a\", expected more; did you mean \"\\x22\"?\n") +
	                              strlen("f:2: a.b: found \"...\", expected less\n") + 400);
	errors_done(&e);
	buf_done(&out);
}

static void slots_end_at_their_limit(void **state UNUSED)
{
	struct buf text;
	struct conf *c;

	buf_init(&text, CONF_FILE_MAX);
	buf_add(&text, SLICE(BASE "[pool big]\nslots = 4095\n"));
	for (unsigned i = 0; i < 16; i++)
		buf_printf(&text, "socket = /run/%u\n", i);
	c = right(buf_slice(&text));
	assert_int_equal(conf_pool_slots(&c->pools[1]), 65520);
	conf_drop(&c);
	buf_add(&text, SLICE("socket = /run/16\n"));
	wrong(0, buf_slice(&text), "f:9: pool big.slots: found 69615 slots, expected at most 65535 in one pool\n");
	buf_done(&text);
}

/* Files */

static void fill(const char *path, size_t bytes)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(BASE, f) >= 0);
	for (size_t i = strlen(BASE); i < bytes; i++)
		assert_true(fputc('\n', f) == '\n');
	assert_int_equal(fclose(f), 0);
}

static void check_load(const char *path, int err, const char *words)
{
	struct buf errors;
	struct conf *c = NULL;

	buf_init(&errors, ERRORS_BYTES_MAX);
	assert_int_equal(conf_load(path, &errors, &c), err);
	if (!slice_eq(buf_slice(&errors), slice_str(words)))
		fail_msg("%.*s", SLICE_ARG(buf_slice(&errors)));
	assert_true((c != NULL) == (err == 0));
	if (c)
		assert_string_equal(c->file, path);
	conf_drop(&c);
	buf_done(&errors);
}

static void a_file_ends_at_its_limit(void **state UNUSED)
{
	char path[] = "/tmp/forebay-test-conf-XXXXXX", words[128];
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	fill(path, CONF_FILE_MAX);
	check_load(path, 0, "");
	fill(path, CONF_FILE_MAX + 1);
	snprintf(words, sizeof(words), "%s: found more than 1M of text, expected a configuration file\n", path);
	check_load(path, -EINVAL, words);
	fill(path, 3 * CONF_FILE_MAX);
	check_load(path, -EINVAL, words);
	unlink(path);
}

static void a_file_that_cannot_be_read_is_an_error_like_others(void **state UNUSED)
{
	check_load("/nowhere/f.ini", -EINVAL,
	    "/nowhere/f.ini: found nothing to read (No such file or directory), expected a configuration file\n");
	check_load("/", -EINVAL, "/: found nothing to read (Is a directory), expected a configuration file\n");
}

static void the_last_holder_frees(void **state UNUSED)
{
	struct conf *c = right(SLICE(BASE)), *second = conf_hold(c);

	assert_ptr_equal(c, second);
	conf_drop(&c);
	assert_null(c);
	assert_string_equal(second->text, BASE);
	assert_int_equal(second->text_len, strlen(BASE));
	assert_string_equal(second->file, "f");
	conf_drop(&second);
	conf_drop(&second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_app_of_ones_own),
		cmocka_unit_test(a_program_of_ones_own),
		cmocka_unit_test(a_file_is_refused_in_clear_words),
		cmocka_unit_test(a_file_may_be_written_in_many_ways),
		cmocka_unit_test(an_empty_file_says_what_is_missing),
		cmocka_unit_test(the_defaults_are_the_documented_ones),
		cmocka_unit_test(every_option_reaches_its_field),
		cmocka_unit_test(the_shipped_files_are_right),
		cmocka_unit_test(all_errors_are_told_in_the_order_of_lines),
		cmocka_unit_test(a_pattern_is_taken_or_refused),
		cmocka_unit_test(a_pattern_ends_at_its_limits),
		cmocka_unit_test(a_value_of_any_length_comes_through_inih_whole),
		cmocka_unit_test(a_line_ends_at_its_limit),
		cmocka_unit_test(a_name_ends_at_its_limit),
		cmocka_unit_test(a_long_section_name_is_not_cut),
		cmocka_unit_test(sections_end_at_their_limit),
		cmocka_unit_test(errors_end_at_their_limit),
		cmocka_unit_test(what_was_found_is_cut_in_a_message),
		cmocka_unit_test(slots_end_at_their_limit),
		cmocka_unit_test(a_file_ends_at_its_limit),
		cmocka_unit_test(a_file_that_cannot_be_read_is_an_error_like_others),
		cmocka_unit_test(the_last_holder_frees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
