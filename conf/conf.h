/*
 * conf: the whole configuration, read-only once loaded, reference-counted: a snapshot that connections and exchanges hold.
 * Owns:   all its strings and arrays.
 * Thread: loaded by one; read by all; conf_hold and conf_drop any.
 */
#ifndef FOREBAY_CONF_CONF_H
#define FOREBAY_CONF_CONF_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/slice.h"

/* A socket address as written and as the kernel takes it. */
struct conf_address {
	char *text; /* "127.0.0.1:8000", "[::]:443", "unix:/run/x.sock" (listen), "/run/x.sock" or "host:port" (pool) */
	union {
		struct sockaddr any;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	} addr;
	socklen_t len;
	unsigned line; /* in the file; 0: not from a file */
};

/* A network that is trusted to name clients: "10.0.0.0/8", "unix" for Unix-socket peers. */
struct conf_network {
	char *text;
	bool is_unix;
	uint8_t family_bytes; /* 4 or 16 */
	uint8_t prefix_bits;
	uint8_t bytes[16];
};

enum conf_access_format { ACCESS_COMBINED, ACCESS_JSON, ACCESS_TIMING, ACCESS_SHORT, ACCESS_COLOR };
enum conf_app { APP_NONE, APP_DEMO, APP_WSGI, APP_WORKER, APP_EXEC };
enum conf_tls_profile { TLS_PROFILE_INTERMEDIATE, TLS_PROFILE_MODERN };
enum conf_client_verify { CLIENT_VERIFY_OFF, CLIENT_VERIFY_OPTIONAL, CLIENT_VERIFY_REQUIRE };

/* Another section by its name, or a file; in a list. */
struct conf_word {
	char *text;
	unsigned line; /* in the file */
};

struct conf_daemon {
	char *user;            /* NULL: not said */
	unsigned threads;      /* 0: auto */
	uint64_t memory_limit; /* bytes; 0: auto */
	char *spool_dir;
	uint64_t spool_limit;    /* bytes */
	uint64_t spool_own_file; /* bytes */
	unsigned spool_threads;
	uint64_t connections;   /* 0: auto */
	char *log;              /* a path, "stderr", "syslog" */
	unsigned log_level;     /* enum log_level */
	char *access_log;       /* a path, "stderr", "syslog", "off" */
	unsigned access_format; /* enum conf_access_format */
	struct conf_network *trusted;
	size_t trusted_count;
	uint64_t drain_timeout_ms;
	char *pid_file; /* NULL: none */
};

struct conf_listen {
	char *name;
	struct conf_address *addresses;
	size_t address_count;
	struct conf_word *tls; /* the names of its [tls NAME]; the first is the default */
	size_t tls_count;      /* 0: plain */
	uint64_t head_limit;   /* bytes */
	unsigned fields_max;
	bool proxy_protocol;
	char *acme_challenge; /* NULL: none */
	bool redirect_https;
	unsigned redirect_https_port;
	uint64_t hsts_ms; /* 0: off */
	uint64_t handshake_timeout_ms;
	uint64_t head_timeout_ms;
	uint64_t idle_timeout_ms;
	uint64_t keepalive_requests; /* on one connection; 0: any number */
	uint64_t min_rate;           /* bytes per second; 0: off */
	uint64_t min_rate_grace_ms;
	unsigned connections_per_address; /* 0: off */
	unsigned backlog;
	bool half_close;
	bool early_hints;
	bool http2;
	unsigned http2_max_streams;
	uint64_t http2_window;            /* bytes, of a stream */
	uint64_t http2_connection_window; /* bytes */
	unsigned http2_allowance;         /* frames */
};

/* One certificate. What is not about it (from `profile` on) is the listener's as a whole: check_conf sees to it that all agree. */
struct conf_tls {
	char *name;
	char *certificate; /* a file: the certificate, then those that lead from it to a root */
	char *key;
	char *key_password_file;            /* NULL: the key is not encrypted */
	char *ocsp_staple;                  /* NULL: none */
	unsigned profile;                   /* enum conf_tls_profile */
	char *ciphers, *curves;             /* NULL: the profile's */
	char *client_ca;                    /* NULL: none */
	unsigned client_verify;             /* enum conf_client_verify */
	struct conf_word *ticket_key_files; /* the first encrypts */
	size_t ticket_key_file_count;       /* 0: keys of forebay's own */
	bool session_tickets;
	unsigned session_cache; /* sessions; 0: off */
	uint64_t session_timeout_ms;
	size_t index; /* in conf.tls */
};

struct conf_pool {
	char *name;
	/* others' workers */
	struct conf_address *sockets;
	size_t socket_count;
	unsigned slots; /* per socket; 0 in app pools: conf_pool_slots() has the pool's number */
	bool keepalive;
	uint64_t keepalive_idle_ms; /* an idle link older than this is not used again (1 s) */
	bool replay_unread;
	bool require_length;
	/* forebay's own */
	unsigned app;      /* enum conf_app */
	char *app_program; /* of worker:PROGRAM TARGET: the program's path; else NULL */
	char *app_target;  /* of wsgi:TARGET and worker:PROGRAM TARGET; else NULL */
	unsigned processes, threads;
	unsigned processes_min; /* 0: as `processes`; conf_pool_processes_min() has the number */
	uint64_t scale_up_delay_ms, scale_down_after_ms;
	char *directory;
	char *virtualenv; /* NULL: none */
	char *user, *group;
	unsigned umask;
	int niceness;
	char *locale;
	char **environment; /* KEY=VALUE */
	size_t environment_count;
	char *environment_file; /* NULL: none */
	bool inherits;          /* `forebay run`, no option: the environment of whoever started us goes before all that */
	bool preload;
	char *preload_request; /* a target such as /; NULL: none */
	char *health_path;     /* the same */
	uint64_t start_timeout_ms;
	char *restart_on_change; /* NULL: none */
	uint64_t max_requests;   /* 0: any number */
	uint64_t max_memory;     /* bytes; 0: any */
	unsigned replay_max;
	char *quarantine_dir;      /* NULL: none */
	unsigned quarantine_limit; /* files */
	/* both */
	unsigned queue_limit;
	uint64_t queue_timeout_ms;
	uint64_t timeout_ms;
	uint64_t release_timeout_ms;
	uint64_t connect_timeout_ms;
	unsigned retries;
	unsigned streams; /* 0: slots / 4, at least 1 */
	uint64_t stream_idle_timeout_ms;
	size_t index; /* in conf.pools */
};

struct conf_route {
	char *host;    /* "example.org", "*.example.org", "*"; lower case */
	char *path;    /* "" or "/blog": whole segments */
	char *pattern; /* both, as the route is named in messages */
	char *pool_name;
	const struct conf_pool *pool; /* set when checked */
	char *mount;                  /* "/blog": what of the path is SCRIPT_NAME; NULL: nothing */
	uint64_t body_limit;          /* bytes */
	uint64_t body_memory;         /* bytes */
	uint64_t hold;                /* bytes */
	bool buffer;
	unsigned line; /* in the file */
};

struct conf {
	atomic_uint refs;
	struct conf_daemon daemon;
	struct conf_listen *listens;
	size_t listen_count;
	struct conf_tls *tls;
	size_t tls_count;
	struct conf_pool *pools;
	size_t pool_count;
	struct conf_route *routes;
	size_t route_count;
	char *file; /* the name in messages */
	char *text; /* the bytes it was read from, for the front */
	size_t text_len;
};

/*
 * Parses and checks `text`. Every error is appended to `errors` as "FILE:LINE: SECTION.OPTION: what was found, what is
 * expected, did you mean ...", one a line. Returns 0 with *ret one reference, or -EINVAL with *ret untouched, or -ENOMEM.
 */
struct buf;
MUST_USE int conf_parse(const char *file, struct slice text, struct buf *errors, struct conf **ret);

#define CONF_FILE_MAX (1u << 20) /* bytes */

/* The same from a file; a file that cannot be read, or is over 1M, is an error in the same form, without a line. */
MUST_USE int conf_load(const char *path, struct buf *errors, struct conf **ret);

struct conf *conf_hold(struct conf *c);
void conf_drop(struct conf **c);

/* What `i` of listen.tls names. */
const struct conf_tls *conf_listen_tls(const struct conf *c, const struct conf_listen *l, size_t i);

/* All slots of a pool: slots of each socket, or processes * threads. 1 to CONF_POOL_SLOTS_MAX. */
#define CONF_POOL_SLOTS_MAX 65535
unsigned conf_pool_slots(const struct conf_pool *p);

/* Slots that may be there at one time: while own workers take over from others both have theirs. */
unsigned conf_pool_places(const struct conf_pool *p);

/* Workers that are always there: processes_min, or `processes`. */
unsigned conf_pool_processes_min(const struct conf_pool *p);

/* How many of them streams may hold: `streams`, or a quarter, at least one. */
unsigned conf_pool_streams(const struct conf_pool *p);

/* The option table for `forebay --options` (plain text) and for forebay.ini(5) (mdoc). */
void conf_print_options(FILE *out);
void conf_print_options_mdoc(FILE *out);

/* True if this address (AF_INET, AF_INET6 also v4-mapped, AF_UNIX) is in one of the networks. */
bool conf_network_has(const struct conf_network *networks, size_t count, const struct sockaddr *addr);

/* Parses what `address =` and `socket =` take; 0, or -EINVAL with *ret_why a literal that says what is expected. No DNS: numbers only. */
MUST_USE int conf_address_parse(struct slice text, bool for_listen, struct conf_address *ret, const char **ret_why);

#endif
