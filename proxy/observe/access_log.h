/*
 * access_log: one line for each exchange and each refusal, as combined, json, timing, short or color.
 * Owns:   nothing but a scratch buffer for the line.
 * Thread: one event thread's.
 */
#ifndef FOREBAY_PROXY_ACCESS_LOG_H
#define FOREBAY_PROXY_ACCESS_LOG_H

#include "conf/conf.h"
#include "core/head.h"
#include "proxy/observe/logger.h"

/* Times are microseconds; UINT64_MAX: did not come to that. All text is borrowed for the call. */
struct access_record {
	int64_t wall_us;            /* when its first byte came */
	const struct head *request; /* NULL: no head was understood */
	struct slice request_line;  /* what there was of it then, may be hostile bytes */
	struct slice id;
	struct slice client;     /* the client's address; what `trusted` made of it */
	struct slice peer;       /* the connection's */
	const char *listen;      /* name */
	const char *tls;         /* its version, a literal such as "TLSv1.3"; NULL: plain */
	const char *pool;        /* name or NULL */
	pid_t worker_pid;        /* 0: unknown */
	unsigned status;         /* as sent; 499: the client left before */
	uint64_t request_bytes;  /* of the body received */
	uint64_t response_bytes; /* of the body sent */
	uint64_t receive_us;     /* first byte to complete request */
	uint64_t queue_us;       /* complete to granted slot */
	uint64_t hold_us;        /* slot granted to slot released */
	uint64_t drain_us;       /* response complete in hand to last byte sent */
	uint64_t total_us;
	unsigned attempts;
	bool request_spooled, response_spooled;
	bool eof;           /* the response ended with its connection */
	bool cut;           /* the client did not get all of it */
	const char *reason; /* of a refusal, a cut, a departure; a literal; NULL: none */
};

struct access_log;

/*
 * combined: CLIENT - - [TIME] "REQUEST LINE" STATUS BYTES "REFERER" "USER AGENT", as other servers write it.
 * json:     one object a line with all there is; null where there is nothing; valid whatever was sent.
 * timing:   TIME ID CLIENT "METHOD TARGET" STATUS BYTES receive= queue= hold= drain= total= pool= worker= reason="...", in milliseconds.
 * short:    STATUS METHOD TARGET BYTES total= hold= queue= REASON, in milliseconds. color: the same, the status in a terminal's color.
 * All times of day are UTC. A line is less than LOGGER_LINE_MAX: texts that are too long are cut and end in "...".
 */

/* Borrows channel. */
MUST_USE int access_log_new(struct logger_channel *channel, enum conf_access_format format, struct access_log **ret);
void access_log_free(struct access_log **l);
void access_log_write(struct access_log *l, const struct access_record *r);

#endif
