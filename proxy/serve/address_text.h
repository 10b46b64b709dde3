/*
 * address_text: a socket address as the text and number that requests tell of.
 * Pure.
 */
#ifndef FOREBAY_PROXY_ADDRESS_TEXT_H
#define FOREBAY_PROXY_ADDRESS_TEXT_H

#include <arpa/inet.h>

#include "core/base.h"

/* An IPv4-mapped one as IPv4; "" and 0 for a Unix socket's. */
void address_text(const struct sockaddr *a, char out[static INET6_ADDRSTRLEN], uint16_t *ret_port);

#endif
