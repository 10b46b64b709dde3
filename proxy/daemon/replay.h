/*
 * replay: `forebay replay FILE`: a request that stands in a file (quarantine's, or one that a person wrote) goes to a running forebay through its
 * listener, as a client's would, and what comes back is printed.
 * Owns:   nothing beyond the call.
 * Never:  speaks to a worker; needs the daemon's privileges.
 */
#ifndef FOREBAY_PROXY_REPLAY_H
#define FOREBAY_PROXY_REPLAY_H

#include "conf/conf.h"
#include "core/buf.h"

#define REPLAY_FILE_MAX (256u << 20) /* bytes */
#define REPLAY_HOST_MAX 256

/* What the other side is asked, as far as it matters to us. */
struct replay_asks {
	bool is_head;               /* the answer has no body */
	char host[REPLAY_HOST_MAX]; /* without a port; "": none, or an address */
};

/*
 * Such a file: any number of lines that begin with '#', a request line, fields, an empty line, the body: all bytes to the end. Lines end with LF,
 * CRLF, or mixed. What is of a connection (Connection, Expect, ...) is left out. Content-Length need not be there; one that is must be right.
 * Appends the message as it is sent. 0, -ENOMEM, or -EINVAL with "FILE:LINE: what" appended to `errors`.
 */
MUST_USE int replay_compose(
    const char *file, struct slice text, struct buf *message, struct replay_asks *ret_asks, struct buf *errors);

/* A listener, and what it wants to hear first. */
struct replay_door {
	const struct conf_address *address;
	bool proxy_protocol;
	bool tls;
};

/*
 * Where a configured forebay takes such requests: its first listener without TLS, else the first that asks no client for a certificate; none
 * that sends its clients elsewhere. False: there is none.
 */
MUST_USE bool replay_choose(const struct conf *conf, struct replay_door *ret);

/* Returns the exit status: 0 for an answer below 500. */
int replay_main(const char *file, const struct replay_door *to);

#endif
