/*
 * http2_respond: responses from exchanges to frames, and frames to the socket: those of many streams in one write.
 * Thread: its loop's.
 */
#ifndef FOREBAY_PROXY_HTTP2_RESPOND_H
#define FOREBAY_PROXY_HTTP2_RESPOND_H

#include "proxy/client/http2_life.h"

extern const struct exchange_events http2_exchange_events;

/* Sends what there is. False: c was freed. */
bool http2_flush(struct http2_client *c);

/* What of an Expect: 100-continue request has not come is waiting for our word (RFC 9110, 10.1.1). */
void http2_continue(struct http2_stream *s);

/* The library's callback for the payload of DATA frames. */
int http2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *frame_head, size_t length,
    nghttp2_data_source *source, void *ctx);

#endif
