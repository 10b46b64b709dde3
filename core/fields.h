/*
 * fields: which bytes may stand in a field. The one strict validator for HTTP/1, HTTP/2 and workers' responses.
 * Pure functions.
 */
#ifndef FOREBAY_CORE_FIELDS_H
#define FOREBAY_CORE_FIELDS_H

#include "core/slice.h"

/* A token (RFC 9110, 5.1). */
bool field_name_ok(struct slice name);

/* VCHAR, obs-text, SP and HTAB inside, none of the two at the ends (RFC 9110, 5.5): no CR, LF, NUL or other control. */
bool field_value_ok(struct slice value);

/* The same bytes, blanks at the ends too: what may stand in a reason phrase or a line of text. */
bool field_text_ok(struct slice text);

/*
 * uri-host [":" port] (RFC 9110, 7.2): reg-name (without commas), IPv4 or [IPv6]; no userinfo; port empty or 1-65535. An empty
 * one is not ok.
 */
bool field_host_ok(struct slice host);

/* Cuts host[:port]; *ret_port without the colon, empty if there is none. `authority` must have passed field_host_ok. */
void field_host_split(struct slice authority, struct slice *ret_host, struct slice *ret_port);

/* What may stand in a request target: visible ASCII and obs-text refused, no '#'. */
bool field_target_ok(struct slice target);

#endif
