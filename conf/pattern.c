#include "conf/pattern.h"

#include <arpa/inet.h>
#include <stdlib.h>

#define HOST_MAX       253 /* bytes (RFC 1035, 2.3.4, without the dot at the end) */
#define LABEL_MAX      63
#define ROUTE_PATH_MAX 4096

#define WHY_HOST "a host before the path: a name, *.name, or * for any"
#define WHY_PORT "a host without a port"
#define WHY_STAR "* alone or as *.name, since it stands for whole labels on the left"
#define WHY_NAME                                                                                                               \
	"a host name of letters, digits, \"-\", \"_\" and single dots inside, at most 253 bytes; others in their xn-- form"
#define WHY_BRACKET "an IPv6 address in brackets"
#define WHY_QUERY   "a path without \"?\" and \"#\""
#define WHY_PATH    "a path of visible ASCII without empty, \".\" and \"..\" segments, at most 4096 bytes"

static bool is_label_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool is_host_name(struct slice host)
{
	size_t label = 0;

	if (host.len == 0 || host.len > HOST_MAX)
		return false;
	for (size_t i = 0; i < host.len; i++) {
		if (host.ptr[i] == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else if (!is_label_byte(host.ptr[i]) || ++label > LABEL_MAX) {
			return false;
		}
	}
	return label > 0;
}

static bool is_ip6(struct slice host)
{
	char str[INET6_ADDRSTRLEN];
	struct in6_addr addr;

	if (host.len < 4 || host.ptr[host.len - 1] != ']' || host.len - 2 >= sizeof(str))
		return false;
	memcpy(str, host.ptr + 1, host.len - 2);
	str[host.len - 2] = '\0';
	return inet_pton(AF_INET6, str, &addr) == 1;
}

/* NULL: it is one. */
static const char *host_fault(struct slice host)
{
	struct slice name = host;

	if (host.len == 0)
		return WHY_HOST;
	if (slice_eq(host, SLICE("*")))
		return NULL;
	if (host.ptr[0] == '[')
		return is_ip6(host) ? NULL : WHY_BRACKET;
	if (slice_starts(host, SLICE("*.")))
		name = slice_of(host.ptr + 2, host.len - 2);
	if (memchr(name.ptr, '*', name.len))
		return WHY_STAR;
	if (memchr(name.ptr, ':', name.len))
		return WHY_PORT;
	return is_host_name(name) ? NULL : WHY_NAME;
}

/* `path` is empty or begins with a slash, and does not end with one. */
static const char *path_fault(struct slice path)
{
	struct slice segment;

	if (path.len > ROUTE_PATH_MAX)
		return WHY_PATH;
	for (size_t i = 0; i < path.len; i++) {
		if (path.ptr[i] == '?' || path.ptr[i] == '#')
			return WHY_QUERY;
		if (path.ptr[i] <= ' ' || path.ptr[i] > '~')
			return WHY_PATH;
	}
	if (path.len == 0)
		return NULL;
	path = slice_of(path.ptr + 1, path.len - 1);
	for (bool more = true; more;) {
		more = slice_cut(&path, '/', &segment);
		if (!more)
			segment = path;
		if (segment.len == 0 || slice_eq(segment, SLICE(".")) || slice_eq(segment, SLICE("..")))
			return WHY_PATH;
	}
	return NULL;
}

static void lower(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] >= 'A' && text[i] <= 'Z')
			text[i] = (char)(text[i] + ('a' - 'A'));
}

int pattern_parse(struct slice text, struct conf_route *ret, const char **ret_why)
{
	struct slice path = slice_of(text.ptr + text.len, 0), host;
	char *copies[3];
	const char *slash = text.len > 0 ? memchr(text.ptr, '/', text.len) : NULL;

	if (slash)
		path = slice_of(slash, (size_t)(text.ptr + text.len - slash));
	host = slice_of(text.ptr, text.len - path.len);
	if (path.len > 0 && path.ptr[path.len - 1] == '/')
		path.len--;
	*ret_why = host_fault(host);
	if (!*ret_why)
		*ret_why = path_fault(path);
	if (*ret_why)
		return -EINVAL;
	copies[0] = slice_dup(host);
	copies[1] = slice_dup(path);
	copies[2] = slice_dup(slice_of(text.ptr, host.len + path.len));
	if (!copies[0] || !copies[1] || !copies[2]) {
		for (size_t i = 0; i < ARRAY_LEN(copies); i++)
			free(copies[i]);
		return -ENOMEM;
	}
	lower(copies[0], host.len);
	lower(copies[2], host.len);
	ret->host = copies[0];
	ret->path = copies[1];
	ret->pattern = copies[2];
	return 0;
}
