#include "conf/options.h"

#include "core/log.h"

#define STRUCT_FOREBAY struct conf_daemon
#define STRUCT_LISTEN  struct conf_listen
#define STRUCT_TLS     struct conf_tls
#define STRUCT_POOL    struct conf_pool
#define STRUCT_ROUTE   struct conf_route

/* The arguments are names and initializers, which parentheses would break. NOLINTBEGIN(bugprone-macro-parentheses) */

/* The field's offset; does not compile for a field of another type. */
#define FIELD(section, field, ctype)                                                                                           \
	(offsetof(STRUCT_##section, field) + 0 * sizeof(char[_Generic(((STRUCT_##section *)0)->field, ctype : 1)]))

#define ROW(section_, name_, type_, when, ctype, field, ...)                                                                   \
	{                                                                                                                      \
		.section = SECTION_##section_, .name = name_, .type = OPTION_##type_, .change = when,                          \
		.offset = FIELD(section_, field, ctype), __VA_ARGS__                                                           \
	}
#define NUMBER(lo, hi, value, counted, text) .min = (lo), .max = (hi), .initial = value, .unit = counted, .help = text

#define UINT(section, field, lo, hi, value, when, unit, help)                                                                  \
	ROW(section, #field, UINT, when, unsigned, field, NUMBER(lo, hi, value, unit, help))
#define U64(section, field, lo, hi, value, when, unit, help)                                                                   \
	ROW(section, #field, U64, when, uint64_t, field, NUMBER(lo, hi, value, unit, help))
#define SIZE(section, field, lo, hi, value, when, help)                                                                        \
	ROW(section, #field, SIZE, when, uint64_t, field, NUMBER(lo, hi, value, "bytes", help))
#define RATE(section, field, lo, hi, value, when, help)                                                                        \
	ROW(section, #field, RATE, when, uint64_t, field, NUMBER(lo, hi, value, "bytes per second", help))
/* The field is named for its unit. */
#define TIME(section, field, lo, hi, value, when, help)                                                                        \
	ROW(section, #field, TIME, when, uint64_t, field##_ms, NUMBER(lo, hi, value, "time", help))
#define BOOL(section, field, value, when, text) ROW(section, #field, BOOL, when, bool, field, .initial = value, .help = text)
#define WORD(section, field, list, value, when, text)                                                                          \
	ROW(section, #field, WORD, when, unsigned, field, .words = list, .initial = value, .help = text)
#define NAME(section, name, field, when, text) ROW(section, name, NAME, when, char *, field, .help = text)
#define PATH(section, field, list, value, when, text)                                                                          \
	ROW(section, #field, PATH, when, char *, field, .words = list, .initial = value, .help = text)
#define TOKENS(section, field, what, value, when, text)                                                                        \
	ROW(section, #field, TOKENS, when, char *, field, .unit = what, .initial = value, .help = text)
#define LIST(section, name, type, ctype, field, count, when, text)                                                             \
	ROW(section, name, type, when, ctype *, field, .count_offset = FIELD(section, count, size_t), .help = text)

/* NOLINTEND(bugprone-macro-parentheses) */

#define SECOND_MS ((uint64_t)1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)
#define KILO      ((uint64_t)1 << 10)
#define MEGA      ((uint64_t)1 << 20)
#define GIGA      ((uint64_t)1 << 30)

static const char *const no_words[] = { NULL };
static const char *const log_words[] = { "stderr", "syslog", NULL };
static const char *const access_log_words[] = { "stderr", "syslog", "off", NULL };
static const char *const level_words[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	NULL,
};
static const char *const format_words[] = {
	[ACCESS_COMBINED] = "combined",
	[ACCESS_JSON] = "json",
	[ACCESS_TIMING] = "timing",
	[ACCESS_SHORT] = "short",
	[ACCESS_COLOR] = "color",
	NULL,
};

static const char *const profile_words[] = {
	[TLS_PROFILE_INTERMEDIATE] = "intermediate",
	[TLS_PROFILE_MODERN] = "modern",
	NULL,
};
static const char *const verify_words[] = {
	[CLIENT_VERIFY_OFF] = "off",
	[CLIENT_VERIFY_OPTIONAL] = "optional",
	[CLIENT_VERIFY_REQUIRE] = "require",
	NULL,
};

static const struct option forebay_options[] = {
	NAME(FOREBAY, "user", user, RESTART,
	    "The user that the front runs as. Started by root without it, the front runs as an unprivileged user."),
	UINT(FOREBAY, threads, 1, 64, "auto", RESTART, "threads", "Event-loop threads of the front. auto: one per processor."),
	SIZE(FOREBAY, memory_limit, 16 * MEGA, 1024 * GIGA, "auto", RESTART,
	    "All memory that the front takes for its clients: bodies, heads, connections. At this ceiling it spills "
	    "to the spool, stops reading, and at last refuses; it never goes above. The program itself and what the C "
	    "library keeps between what is in use come on top: 6M beside a limit of 32M. auto: half of the smaller of RAM and "
	    "the control group's limit, at most 1G."),
	PATH(FOREBAY, spool_dir, no_words, "/var/spool/forebay", RESTART,
	    "Where bodies that do not fit in memory go. The files in it have no names and are gone when forebay ends."),
	SIZE(FOREBAY, spool_limit, MEGA, 1024 * 1024 * GIGA, "10G", RESTART,
	    "All bytes in the spool. What does not fit is answered 507 or 503; everything else goes on."),
	SIZE(FOREBAY, spool_own_file, 64 * KILO, 1024 * GIGA, "1M", RESTART,
	    "A body above this size gets a file of its own in the spool; smaller ones share large files."),
	UINT(FOREBAY, spool_threads, 1, 64, "2", RESTART, "threads",
	    "Threads that read and write the spool, so that no event loop does."),
	U64(FOREBAY, connections, 16, 10000000, "auto", RESTART, "connections",
	    "Client connections at once. Above, idle ones are closed first, then the slowest clients. auto: computed "
	    "from the limit on open files."),
	PATH(FOREBAY, log, log_words, "stderr", RELOAD, "Where forebay's own messages go."),
	WORD(FOREBAY, log_level, level_words, "info", RELOAD, "The least grave messages that are logged."),
	PATH(FOREBAY, access_log, access_log_words, "off", RELOAD,
	    "Where one line for each request goes. A log that cannot be written never holds up a request: lines are "
	    "dropped, counted and the count is logged."),
	WORD(FOREBAY, access_format, format_words, "combined", RELOAD,
	    "What a line of the access log looks like. combined: as Apache's. json: one object. timing: key=value, "
	    "with where the time of a request went. short: the least of it, for somebody at a terminal. color: the same, with the status "
	    "in color."),
	LIST(FOREBAY, "trusted", NETWORKS, struct conf_network, trusted, trusted_count, RELOAD,
	    "Peers whose X-Forwarded-For, Forwarded and X-Request-Id fields are believed: a network such as "
	    "10.0.0.0/8, an address, or unix for clients on Unix sockets. From all others these fields are replaced."),
	TIME(FOREBAY, drain_timeout, 0, DAY_MS, "30s", RELOAD,
	    "How long requests in hand may take to end after SIGTERM, before their connections are closed."),
	PATH(FOREBAY, pid_file, no_words, NULL, RESTART, "A file to which the master writes its process id."),
};

static const struct option listen_options[] = {
	LIST(LISTEN, "address", ADDRESSES, struct conf_address, addresses, address_count, RESTART,
	    "Where clients connect: 192.0.2.1:80, 0.0.0.0:80 (any IPv4 address), [::]:80 (any address), "
	    "unix:/run/forebay.sock. At least one is needed."),
	LIST(LISTEN, "tls", NAMES, struct conf_word, tls, tls_count, RELOAD,
	    "The NAME of a [tls NAME]: clients speak TLS. With several, a client gets the certificate for the name that it asks "
	    "for, and the first one if there is none or it asks for none. Two of one name, with an ECDSA and an RSA key, stand "
	    "side by side: the client's algorithms decide."),
	SIZE(LISTEN, head_limit, KILO, 64 * KILO, "32K", RELOAD,
	    "A request's first line and fields together; above: 431, or 414 if the first line alone is too long."),
	UINT(LISTEN, fields_max, 1, 1000, "100", RELOAD, "fields", "Fields of a request; above: 431."),
	PATH(LISTEN, acme_challenge, no_words, NULL, RELOAD,
	    "A folder such as certbot's --webroot has: what is asked for below /.well-known/acme-challenge/ is served from that place "
	    "in it, before any route and before redirect_https. The front's user must be able to read it."),
	BOOL(LISTEN, redirect_https, "off", RELOAD,
	    "on: every request is answered 308 with the same host and target at https. For listeners without tls."),
	UINT(LISTEN, redirect_https_port, 1, 65535, "443", RELOAD, "a TCP port",
	    "The port that redirect_https sends clients to, as they see it from outside."),
	TIME(LISTEN, hsts, 0, 3650 * DAY_MS, "0", RELOAD,
	    "How long browsers shall use https only for this host (Strict-Transport-Security), such as 365d, unless the worker says "
	    "so itself. 0: forebay says nothing. For listeners with tls."),
	BOOL(LISTEN, proxy_protocol, "off", RELOAD,
	    "on: each connection begins with a PROXY protocol header, version 1 or 2, that names its client, before TLS if there is "
	    "any. From trusted peers only; a connection without it, or from another peer, is closed."),
	TIME(LISTEN, handshake_timeout, 100, 10 * MINUTE_MS, "10s", RELOAD,
	    "From the connection to the end of its TLS handshake, or to where it is known what is spoken; then it is closed."),
	TIME(LISTEN, head_timeout, 100, 10 * MINUTE_MS, "10s", RELOAD,
	    "From the connection, or the first byte of a further request, to the end of the request's head; then 408."),
	TIME(LISTEN, idle_timeout, 100, DAY_MS, "60s", RELOAD, "How long a connection may wait for its next request."),
	U64(LISTEN, keepalive_requests, 0, UINT32_MAX, "10000", RELOAD, "requests",
	    "Requests on one connection, after which it is closed. 0: any number."),
	RATE(LISTEN, min_rate, 0, GIGA, "1K", RELOAD,
	    "What a client must send of a body, or take of a response, on average after min_rate_grace. A slower one "
	    "is answered 408 where it can still hear it, and closed. 0: as slow as it likes."),
	TIME(LISTEN, min_rate_grace, 0, HOUR_MS, "10s", RELOAD, "How long a body or a response may go slower than min_rate."),
	UINT(LISTEN, connections_per_address, 0, 1000000, "0", RELOAD, "connections",
	    "Connections at once from one address. 0: any number."),
	UINT(LISTEN, backlog, 1, 65535, "4096", RESTART, "connections",
	    "Connections that the kernel holds until they are accepted. The kernel's net.core.somaxconn bounds it too."),
	BOOL(LISTEN, half_close, "off", RELOAD,
	    "on: a client that ends its sending side after a whole request still gets its answer. off: it is taken "
	    "to have left."),
	BOOL(LISTEN, early_hints, "off", RELOAD,
	    "on: a worker's 103 responses are passed on to HTTP/1.1 clients. HTTP/2 clients always get them."),
	BOOL(LISTEN, http2, "off", RELOAD,
	    "on: HTTP/2 is spoken with clients that ask for it: by ALPN over TLS, by prior knowledge (RFC 9113, 3.3) without."),
	UINT(LISTEN, http2_max_streams, 1, 10000, "128", RELOAD, "streams", "Requests at once on one HTTP/2 connection."),
	SIZE(LISTEN, http2_window, KILO, GIGA, "256K", RELOAD,
	    "What an HTTP/2 client may send of one request's body before the first of it was taken in."),
	SIZE(LISTEN, http2_connection_window, 64 * KILO, GIGA, "1M", RELOAD,
	    "The same of all requests of one HTTP/2 connection together."),
	UINT(LISTEN, http2_allowance, 10, 1000000, "1000", RELOAD, "frames",
	    "HTTP/2 frames that cost work and bring no response (resets, SETTINGS, PING, PRIORITY, empty ones) that a client may "
	    "send at once; as many come back in 30 s. A connection that sends more is ended with ENHANCE_YOUR_CALM."),
};

#define OF_OPENSSL      "words of OpenSSL's with \":\" between them"
#define OF_THE_LISTENER " The [tls NAME] of one listener agree on it, or the first says it alone."

static const struct option tls_options[] = {
	PATH(TLS, certificate, no_words, NULL, RELOAD,
	    "A PEM file: the certificate, and behind it those that lead from it to a root (certbot's fullchain.pem). This file "
	    "and the others here are read again when they change; what is wrong with a new one is logged, and the old one "
	    "stays. Required."),
	PATH(TLS, key, no_words, NULL, RELOAD, "A PEM file: the certificate's private key. Required."),
	PATH(TLS, key_password_file, no_words, NULL, RELOAD, "A file whose first line is the password of the key."),
	PATH(TLS, ocsp_staple, no_words, NULL, RELOAD,
	    "A file with the certificate's OCSP response (DER), for clients that ask for it. forebay does not fetch it; it is "
	    "not sent after its time."),
	WORD(TLS, profile, profile_words, "intermediate", RELOAD,
	    "Mozilla's recommendations. intermediate: TLS 1.2 and 1.3. modern: TLS 1.3 only." OF_THE_LISTENER),
	TOKENS(TLS, ciphers, OF_OPENSSL, NULL, RELOAD,
	    "The ciphers of TLS 1.2, as openssl-ciphers(1) has them, in place of the profile's." OF_THE_LISTENER),
	TOKENS(TLS, curves, OF_OPENSSL, NULL, RELOAD,
	    "The key exchange groups, such as X25519:prime256v1, in place of the profile's." OF_THE_LISTENER),
	PATH(TLS, client_ca, no_words, NULL, RELOAD,
	    "A PEM file: the authorities that clients' certificates are from." OF_THE_LISTENER),
	WORD(TLS, client_verify, verify_words, "off", RELOAD,
	    "require: clients need a certificate of client_ca. optional: they are asked for one, and a wrong one is not "
	    "refused. The worker is told by X-Client-Verify (SUCCESS, NONE or FAILED:reason), X-Client-Subject and "
	    "X-Client-Fingerprint (SHA-256)." OF_THE_LISTENER),
	LIST(TLS, "ticket_key_file", PATHS, struct conf_word, ticket_key_files, ticket_key_file_count, RELOAD,
	    "A file of 80 or 48 random bytes: a key for session tickets that several machines share. The first one encrypts. "
	    "Without any, forebay makes keys of its own, a new one every 12 hours." OF_THE_LISTENER),
	BOOL(TLS, session_tickets, "on", RELOAD,
	    "Clients may resume their sessions by tickets, which they keep." OF_THE_LISTENER),
	UINT(TLS, session_cache, 0, 10000000, "10000", RELOAD, "sessions",
	    "How many sessions forebay remembers of clients without tickets. 0: none." OF_THE_LISTENER),
	TIME(TLS, session_timeout, 1000, DAY_MS, "1d", RELOAD,
	    "How long after its handshake a session may be resumed." OF_THE_LISTENER),
};

static const struct option pool_options[] = {
	LIST(POOL, "socket", SOCKETS, struct conf_address, sockets, socket_count, RELOAD,
	    "Where an application server that somebody else runs listens: /run/app.sock, 127.0.0.1:9000, [::1]:9000. "
	    "A pool has either sockets or an app."),
	UINT(POOL, slots, 1, 4096, NULL, RELOAD, "slots",
	    "How many requests each socket's server works on at a time: its processes times its threads. forebay "
	    "never hands it more. Required with socket, and not to be said with app, where it is processes times "
	    "threads."),
	BOOL(POOL, keepalive, "off", RELOAD,
	    "on: a connection to the server is used for more than one request. Only for servers whose workers do not "
	    "wait on an idle connection."),
	TIME(POOL, keepalive_idle, 10, HOUR_MS, "1s", RELOAD,
	    "A connection that was idle for longer is not used again. Less than the server's own limit."),
	BOOL(POOL, replay_unread, "off", RELOAD,
	    "on: the request's head is sent first and the body once the head was read, so that a request that no "
	    "worker began is known as such, and is sent again whatever its method. Unix sockets only."),
	BOOL(POOL, require_length, "off", RELOAD,
	    "on: a response that has neither a length nor chunks is answered 502, since its end cannot be told from "
	    "a worker's death."),
	ROW(POOL, "app", APP, RESTART, unsigned, app,
	    .help =
	        "What forebay's own workers run. wsgi:MODULE or wsgi:MODULE:CALLABLE: a Python application (PEP 3333); without "
	        "CALLABLE it is called application or app. worker:PROGRAM or worker:PROGRAM TARGET: a program of "
	        "your own, by its path, made with forebay-worker(3). demo: a few built-in pages that show what reached the worker."),
	UINT(POOL, processes, 1, 1024, "2", RESTART, "processes",
	    "Worker processes; with processes_min, so many at most. With app only."),
	UINT(POOL, threads, 1, 1024, "1", RESTART, "threads", "Threads of each worker process. With app only."),
	UINT(POOL, processes_min, 1, 1024, "auto", RESTART, "processes",
	    "Worker processes that are always there; up to `processes` are started while requests wait. auto: all. With app only."),
	TIME(POOL, scale_up_delay, 1, HOUR_MS, "100ms", RESTART,
	    "A process is added when requests have waited for longer than this for a worker. With app only."),
	TIME(POOL, scale_down_after, SECOND_MS, DAY_MS, "60s", RESTART,
	    "A process more than processes_min is ended when so many were not needed for so long. With app only."),
	PATH(POOL, directory, no_words, NULL, RESTART,
	    "The working directory of the workers, where Python modules are looked for first. With app only."),
	PATH(POOL, virtualenv, no_words, NULL, RESTART,
	    "The Python virtual environment of the application. With app = wsgi only."),
	NAME(POOL, "user", user, RESTART,
	    "The user that the workers run as, who is not the front's. Required where forebay is started by root, but for the demo. "
	    "With app only."),
	NAME(POOL, "group", group, RESTART, "The group that they run as, in place of the user's own. With app only."),
	ROW(POOL, "umask", OCTAL, RESTART, unsigned, umask, .max = 0777, .initial = "022",
	    .help = "What is taken from the mode of files that the workers make. With app only."),
	ROW(POOL, "niceness", NICENESS, RESTART, int, niceness, .initial = "0",
	    .help =
	        "How much more than forebay the workers give way to other processes. Below 0 takes CAP_SYS_NICE, or LimitNICE= in "
	        "the unit. With app only."),
	TOKENS(POOL, locale, "a locale such as C.UTF-8 or de_DE.UTF-8", "C.UTF-8", RESTART,
	    "The workers' locale (LC_ALL), unless `environment` says another. With app only."),
	LIST(POOL, "environment", ENVIRONMENT, char *, environment, environment_count, RESTART,
	    "A variable for the workers, KEY=VALUE; quotes are part of the value. With app only."),
	PATH(POOL, environment_file, no_words, NULL, RESTART,
	    "A file with such lines; empty ones and those that begin with # are left out. What `environment` says counts more. With "
	    "app only."),
	BOOL(POOL, preload, "on", RESTART,
	    "on: the application is loaded once, and the workers are forked from that process with its memory. off: each worker "
	    "loads it. With app only."),
	PATH(POOL, preload_request, no_words, NULL, RESTART,
	    "A path that is asked for once before the first worker is forked, for applications that load a part of themselves "
	    "with their first request. With app only."),
	PATH(POOL, health_path, no_words, NULL, RESTART,
	    "A path that a new worker must answer with a status from 200 to 399 before it gets requests. With app only."),
	TIME(POOL, start_timeout, 100, HOUR_MS, "60s", RESTART,
	    "How long a worker may take to load the application and to answer health_path. With app only."),
	PATH(POOL, restart_on_change, no_words, NULL, RESTART,
	    "A file; when it is written, replaced or touched, new workers are started and take over from the old ones, as with "
	    "SIGHUP. With app only."),
	U64(POOL, max_requests, 0, UINT32_MAX, "0", RESTART, "requests",
	    "A worker is replaced after about so many requests. 0: never. With app only."),
	SIZE(POOL, max_memory, 0, 1024 * GIGA, "0", RESTART,
	    "A worker whose memory (its proportional share) is above this is replaced after its current requests. 0: never. With "
	    "app only."),
	UINT(POOL, replay_max, 0, 10, "1", RELOAD, "tries",
	    "How often a request that was with a worker when that died may be tried again, where `retries` allows it at all; "
	    "then 502. With app only."),
	PATH(POOL, quarantine_dir, no_words, NULL, RESTART,
	    "Where such a request, once it was given up, is kept in a file for study: see forebay replay. With app only."),
	UINT(POOL, quarantine_limit, 1, 100000, "100", RESTART, "files",
	    "Files in quarantine_dir; no more are made. With app only."),
	UINT(POOL, queue_limit, 0, 1000000, "1000", RELOAD, "requests",
	    "Requests that wait for a slot; one more is answered 503 with Retry-After."),
	TIME(POOL, queue_timeout, 10, HOUR_MS, "30s", RELOAD,
	    "How long a request waits for a slot, or for a server that is restarting; then 503."),
	TIME(POOL, timeout, 10, DAY_MS, "60s", RELOAD,
	    "How long a worker may take for one request; then the client is answered 504."),
	TIME(POOL, release_timeout, 10, DAY_MS, "60s", RELOAD,
	    "How long a request that timed out, or whose client left, keeps its slot at most. Until then, or until "
	    "its response has ended, its worker is not taken to be free."),
	TIME(POOL, connect_timeout, 10, 10 * MINUTE_MS, "5s", RELOAD,
	    "How long a connection to the server may take to be made."),
	UINT(POOL, retries, 0, 10, "1", RELOAD, "tries",
	    "How often a request of an idempotent method is sent again when its worker was lost and nothing was answered yet."),
	UINT(POOL, streams, 1, 65535, "auto", RELOAD, "streams",
	    "How many slots may be held by what is not buffered: WebSocket and other upgrades, event streams, routes "
	    "with buffer = off. auto: a quarter of the slots, at least one."),
	TIME(POOL, stream_idle_timeout, 1000, DAY_MS, "1h", RELOAD,
	    "How long such a stream may be silent in both directions; then it is ended."),
};

static const struct option route_options[] = {
	NAME(ROUTE, "pool", pool_name, RELOAD, "The pool that serves it: the NAME of a [pool NAME]. Required."),
	PATH(ROUTE, mount, no_words, NULL, RELOAD,
	    "What of the path is the application's own address (SCRIPT_NAME), such as /blog; the rest is PATH_INFO. The route's "
	    "path, or a part of it. For pools with app only."),
	SIZE(ROUTE, body_limit, 0, 1024 * GIGA, "1G", RELOAD, "A request's body; above: 413."),
	SIZE(ROUTE, body_memory, 0, 64 * MEGA, "1M", RELOAD,
	    "How much of a request's body may be in memory; what is above goes to the spool. So does what a slow client has "
	    "sent, after about a second, and all bodies while memory is short."),
	SIZE(ROUTE, hold, 0, 64 * MEGA, "64K", RELOAD,
	    "How much of a response is kept back until all of it is there, so that a worker that dies half-way costs "
	    "nothing visible. Beyond, the client is fed while the worker still writes."),
	BOOL(ROUTE, buffer, "on", RELOAD,
	    "off: requests and responses are passed through as they come, and hold a slot for as long as the client takes."),
};

static_assert(ARRAY_LEN(forebay_options) <= SECTION_OPTIONS_MAX, "room for the rows of [forebay]");
static_assert(ARRAY_LEN(listen_options) <= SECTION_OPTIONS_MAX, "room for the rows of [listen NAME]");
static_assert(ARRAY_LEN(tls_options) <= SECTION_OPTIONS_MAX, "room for the rows of [tls NAME]");
static_assert(ARRAY_LEN(pool_options) <= SECTION_OPTIONS_MAX, "room for the rows of [pool NAME]");
static_assert(ARRAY_LEN(route_options) <= SECTION_OPTIONS_MAX, "room for the rows of [route HOST/PATH]");

static const struct {
	const char *kind, *form, *help;
	const struct option *options;
	size_t count;
} sections[SECTION_COUNT] = {
	[SECTION_FOREBAY] = { "forebay", "[forebay]", "The daemon as a whole.", forebay_options, ARRAY_LEN(forebay_options) },
	[SECTION_LISTEN] = { "listen", "[listen NAME]", "One door for clients; at least one is needed.", listen_options,
	    ARRAY_LEN(listen_options) },
	[SECTION_TLS] = { "tls", "[tls NAME]", "One certificate, and how TLS is spoken with it.", tls_options,
	    ARRAY_LEN(tls_options) },
	[SECTION_POOL] = { "pool", "[pool NAME]", "One set of workers, and the queue before it.", pool_options,
	    ARRAY_LEN(pool_options) },
	[SECTION_ROUTE] = { "route", "[route HOST/PATH]",
	    "Which requests go where. HOST is a name, *.name for all names under it, or * for any other host; /PATH "
	    "is optional and stands for whole segments. The most exact host counts first, then the longest path.",
	    route_options, ARRAY_LEN(route_options) },
};

const char *section_kind(enum option_section s)
{
	return sections[s].kind;
}

const char *section_form(enum option_section s)
{
	return sections[s].form;
}

const char *section_help(enum option_section s)
{
	return sections[s].help;
}

enum option_section section_find(struct slice kind)
{
	for (int s = 0; s < SECTION_COUNT; s++)
		if (slice_eq(kind, slice_str(sections[s].kind)))
			return (enum option_section)s;
	return SECTION_COUNT;
}

const struct option *options_of(enum option_section s, size_t *ret_count)
{
	*ret_count = sections[s].count;
	return sections[s].options;
}

const struct option *option_find(enum option_section s, struct slice name)
{
	for (size_t i = 0; i < sections[s].count; i++)
		if (slice_eq(name, slice_str(sections[s].options[i].name)))
			return &sections[s].options[i];
	return NULL;
}

size_t option_index(const struct option *o)
{
	return (size_t)(o - sections[o->section].options);
}

bool option_is_list(const struct option *o)
{
	return o->type >= OPTION_ADDRESSES;
}

bool option_may_be_auto(const struct option *o)
{
	return o->initial && o->type <= OPTION_TIME && strcmp(o->initial, "auto") == 0;
}
