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

/*
 * Such a file: any number of lines that begin with '#', a request line, fields, an empty line, the body: all bytes to the end. Lines end with LF,
 * CRLF, or mixed. What is of a connection (Connection, Expect, ...) is left out. Content-Length need not be there; one that is must be right.
 * Appends the message as it is sent. 0, -ENOMEM, or -EINVAL with "FILE:LINE: what" appended to `errors`. *ret_is_head: the answer has no body.
 */
MUST_USE int replay_compose(const char *file, struct slice text, struct buf *message, bool *ret_is_head, struct buf *errors);

/* Where a configured forebay takes such requests: the first listener that speaks neither TLS nor sends its clients elsewhere. NULL: none. */
const struct conf_address *replay_choose(const struct conf *conf, bool *ret_proxy_protocol);

/* Returns the exit status: 0 for an answer below 500. */
int replay_main(const char *file, const struct conf_address *to, bool proxy_protocol);

#endif
