/*
 * arrival: a client's connection on its way to the protocol that serves it: http1_client_new() and http2_client_new() take it.
 */
#ifndef FOREBAY_PROXY_ARRIVAL_H
#define FOREBAY_PROXY_ARRIVAL_H

#include "conf/conf.h"
#include "proxy/client/stream.h"

/* Who is at the other end; of a Unix socket's only the family is known. */
union peer {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

/* Nothing was taken out of the stream that its protocol would have to see: what was looked at still lies there. */
struct arrival {
	const struct conf_listen *listen;
	const struct conf_address *local;
	union peer peer;
	struct stream stream;
	/* Libevent's flags that a door was told of: no edge comes for them again, so its protocol's event is made active with them. 0: none. */
	short seen;
};

#endif
