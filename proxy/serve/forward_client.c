#include "proxy/serve/forward.h"

#include <arpa/inet.h>

/* Who the client is, as far as trusted hops tell. */

union address {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

bool forward_is_trusted(const struct forward_client *client, const struct conf *conf)
{
	return client->peer && conf_network_has(conf->daemon.trusted, conf->daemon.trusted_count, client->peer);
}

struct slice forward_peer_address(const struct forward_client *client)
{
	struct slice text = slice_str(client->peer_address), before;
	const struct slice mapped = SLICE_INIT("::ffff:");

	if (slice_cut(&text, '%', &before)) /* the zone of a link-local one means nothing elsewhere */
		text = before;
	if (text.len > mapped.len && slice_eq_nocase(slice_of(text.ptr, mapped.len), mapped) && memchr(text.ptr, '.', text.len))
		text = slice_of(text.ptr + mapped.len, text.len - mapped.len);
	return text;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80": the address in it. */
static struct slice without_port(struct slice hop)
{
	struct slice rest = hop, before;

	if (hop.len > 0 && hop.ptr[0] == '[') {
		rest = slice_of(hop.ptr + 1, hop.len - 1);
		return slice_cut(&rest, ']', &before) && (rest.len == 0 || rest.ptr[0] == ':') ? before : slice_of("", 0);
	}
	if (slice_cut(&rest, ':', &before) && !memchr(rest.ptr, ':', rest.len))
		return before;
	return hop;
}

/* Also gives the address in its shortest form. */
static bool hop_parse(struct slice hop, union address *ret, char text[static INET6_ADDRSTRLEN])
{
	struct slice address = without_port(hop);
	const void *bytes;

	if (address.len == 0 || address.len >= INET6_ADDRSTRLEN)
		return false;
	memcpy(text, address.ptr, address.len);
	text[address.len] = '\0';
	if (strlen(text) != address.len)
		return false;
	*ret = (union address){ .in6 = { .sin6_family = AF_INET6 } };
	if (inet_pton(AF_INET6, text, &ret->in6.sin6_addr) == 1) {
		bytes = &ret->in6.sin6_addr;
		if (!IN6_IS_ADDR_V4MAPPED(&ret->in6.sin6_addr))
			return inet_ntop(AF_INET6, bytes, text, INET6_ADDRSTRLEN) != NULL;
		bytes = &ret->in6.sin6_addr.s6_addr[12];
		return inet_ntop(AF_INET, bytes, text, INET6_ADDRSTRLEN) != NULL; /* conf_network_has knows mapped ones */
	}
	*ret = (union address){ .in4 = { .sin_family = AF_INET } };
	return inet_pton(AF_INET, text, &ret->in4.sin_addr) == 1;
}

/* Cuts the last element off a list without quoted strings. False if there was none. */
static bool last_element(struct slice *list, struct slice *ret)
{
	size_t from = list->len;

	if (list->len == 0)
		return false;
	while (from > 0 && list->ptr[from - 1] != ',')
		from--;
	*ret = slice_trim_ows(slice_of(list->ptr + from, list->len - from));
	list->len = from > 0 ? from - 1 : 0;
	return true;
}

/* Takes the hops of one field, from the right, into `text`. False: the walk is over. */
static bool walk_field(struct slice list, const struct conf *conf, char text[static INET6_ADDRSTRLEN])
{
	char found[INET6_ADDRSTRLEN];
	union address address;
	struct slice hop;

	while (last_element(&list, &hop)) {
		if (hop.len == 0)
			continue;
		if (!hop_parse(hop, &address, found))
			return false;
		memcpy(text, found, sizeof(found));
		if (!conf_network_has(conf->daemon.trusted, conf->daemon.trusted_count, &address.any))
			return false;
	}
	return true;
}

int forward_client_address(
    const struct head *h, const struct forward_client *client, const struct conf *conf, char *ret, size_t ret_size)
{
	struct slice peer = forward_peer_address(client);
	bool on = forward_is_trusted(client, conf);
	char text[INET6_ADDRSTRLEN];
	size_t len;

	slice_to_str(peer.len < sizeof(text) ? peer : SLICE(""), text, sizeof(text));
	for (unsigned i = h->field_count; i > 0 && on; i--)
		if (h->fields[i - 1].id == FIELD_X_FORWARDED_FOR)
			on = walk_field(head_value(h, i - 1), conf, text);
	len = strlen(text);
	if (len >= ret_size)
		return -ENOSPC;
	memcpy(ret, text, len + 1);
	return 0;
}
