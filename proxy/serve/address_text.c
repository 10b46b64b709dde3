#include "proxy/serve/address_text.h"

static char *put_octet(char *to, uint8_t n)
{
	if (n >= 100)
		*to++ = (char)('0' + n / 100);
	if (n >= 10)
		*to++ = (char)('0' + n / 10 % 10);
	*to++ = (char)('0' + n % 10);
	return to;
}

/* For each request: inet_ntop() prints its way through snprintf(). */
static void ipv4_text(const void *address, char ret[static INET_ADDRSTRLEN])
{
	const uint8_t *octets = address;
	char *to = ret;

	for (int i = 0; i < 4; i++) {
		to = put_octet(to, octets[i]);
		*to++ = '.';
	}
	to[-1] = '\0';
}

void address_text(const struct sockaddr *a, char out[static INET6_ADDRSTRLEN], uint16_t *ret_port)
{
	const struct sockaddr_in6 *in6 = (const void *)a;
	const struct sockaddr_in *in4 = (const void *)a;

	out[0] = '\0';
	*ret_port = 0;
	if (a->sa_family == AF_INET) {
		ipv4_text(&in4->sin_addr, out);
		*ret_port = ntohs(in4->sin_port);
	} else if (a->sa_family == AF_INET6) {
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
			ipv4_text(&in6->sin6_addr.s6_addr[12], out);
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, out, INET6_ADDRSTRLEN);
		*ret_port = ntohs(in6->sin6_port);
	}
}
