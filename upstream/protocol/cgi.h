/*
 * cgi: a request as CGI variables (RFC 3875), as WSGI and FastCGI have them too: what the worker protocol, FastCGI, SCGI and uwsgi say.
 * Never: touches the body; decides how a pair looks on the wire.
 * Pure but for `scratch`.
 */
#ifndef FOREBAY_UPSTREAM_PROTOCOL_CGI_H
#define FOREBAY_UPSTREAM_PROTOCOL_CGI_H

#include "core/buf.h"
#include "upstream/request.h"

/*
 * Calls `pair` once for each variable, each name once. The slices are valid during the call. `scratch` (cleared before each use) is where values
 * are put together; its maximum is that of a value. 0, what `pair` returned if not 0, or -ENOMEM: scratch has failed.
 *
 * SCRIPT_NAME is what the request's mount takes up of the path, PATH_INFO the rest; a path that is not under the mount as the client wrote it
 * (one with dot segments may not be) is all PATH_INFO. FOREBAY_QUEUE_MS is how long it waited for its slot, FOREBAY_REQUEST_ID its X-Request-Id.
 * SCRIPT_NAME and PATH_INFO are percent-decoded: any bytes. An escape that is none stays as it is. Fields with the same name are joined by ", ", Cookie by "; ". Not passed on: fields of a
 * connection, Proxy (it would be HTTP_PROXY), and names with anything but letters, digits and '-', of which two could become the same variable.
 */
MUST_USE int cgi_each(
    const struct request *r, struct buf *scratch, int (*pair)(void *ctx, struct slice name, struct slice value), void *ctx);

#endif
