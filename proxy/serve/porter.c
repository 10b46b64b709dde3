#include "proxy/serve/porter.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fields.h"

#define LOCATION_MAX (72u << 10) /* bytes: the longest head and what is put before it */
#define HTTPS_PORT   443         /* stands in no URL (RFC 9110, 4.2.2) */

static void refuse(struct porter_answer *a, const char *reason)
{
	a->status = 404;
	a->reason = reason;
}

/* base64url (RFC 8555, 8.1): nothing that could mean something in a path. */
static bool is_token(struct slice s)
{
	if (s.len == 0 || s.len > PORTER_TOKEN_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
			return false;
	}
	return true;
}

/* A descriptor, or -errno. */
static int open_challenge(const char *folder, struct slice token)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s" PORTER_PATH "%.*s", folder, (int)token.len, token.ptr), fd;

	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd == -1 ? -errno : fd;
}

static void find_challenge(const char *folder, struct slice token, struct porter_answer *ret)
{
	struct stat st;

	if (!is_token(token)) {
		refuse(ret, "no name of a challenge");
		return;
	}
	ret->fd = open_challenge(folder, token);
	if (ret->fd < 0) {
		refuse(ret, ret->fd == -EACCES ? "challenge may not be read" : "no such challenge");
		ret->fd = -1;
	} else if (fstat(ret->fd, &st) == -1 || !S_ISREG(st.st_mode)) {
		refuse(ret, "challenge is no regular file");
	} else if (st.st_size > PORTER_FILE_MAX) {
		refuse(ret, "challenge is too large");
	} else {
		ret->status = 200;
		ret->reason = "acme_challenge";
		ret->len = (uint64_t)st.st_size;
	}
}

static bool asks_for_challenge(const struct conf_listen *l, const struct head *h, struct slice *ret_token)
{
	struct slice path = head_text(h, h->path);

	if (!l->acme_challenge || !slice_starts(path, SLICE(PORTER_PATH)) ||
	    (h->method != METHOD_GET && h->method != METHOD_HEAD))
		return false;
	*ret_token = slice_of(path.ptr + strlen(PORTER_PATH), path.len - strlen(PORTER_PATH));
	return true;
}

/* The same host and target, at the port of https. */
static void redirect(const struct conf_listen *listen, const struct head *h, struct porter_answer *ret)
{
	struct slice host, port, path = head_text(h, h->path);

	field_host_split(head_text(h, h->authority), &host, &port);
	if (host.len == 0) {
		ret->status = 400;
		ret->reason = "no host to redirect to";
		return;
	}
	buf_add(&ret->location, SLICE("https://"));
	buf_add(&ret->location, host);
	if (listen->redirect_https_port != HTTPS_PORT)
		buf_printf(&ret->location, ":%u", listen->redirect_https_port);
	buf_add(&ret->location, path.len > 0 && path.ptr[0] == '/' ? path : SLICE("/"));
	if (h->has_query) {
		buf_char(&ret->location, '?');
		buf_add(&ret->location, head_text(h, h->query));
	}
	ret->status = ret->location.failed ? 503 : 308;
	ret->reason = ret->location.failed ? "memory_limit" : "redirect_https";
}

void porter_ask(const struct conf_listen *listen, bool secure, const struct head *request, struct porter_answer *ret)
{
	struct slice token;

	*ret = (struct porter_answer){ .fd = -1 };
	buf_init(&ret->location, LOCATION_MAX);
	if (asks_for_challenge(listen, request, &token))
		find_challenge(listen->acme_challenge, token, ret);
	else if (listen->redirect_https && !secure)
		redirect(listen, request, ret);
}

void porter_answer_done(struct porter_answer *a)
{
	buf_done(&a->location);
	if (a->fd != -1)
		close(a->fd);
	a->fd = -1;
}

int porter_head(const struct porter_answer *a, struct head *ret)
{
	ret->status = (uint16_t)a->status;
	ret->version = 11;
	if (a->status == 308)
		return head_add(ret, SLICE("Location"), buf_slice(&a->location));
	return head_add(ret, SLICE("Content-Type"), SLICE("application/octet-stream"));
}

int porter_hsts(const struct conf_listen *listen, bool secure, struct head *response)
{
	static const struct slice name = SLICE_INIT("Strict-Transport-Security");
	char value[40];
	int n;

	if (!secure || listen->hsts_ms == 0)
		return 0;
	for (unsigned i = 0; i < response->field_count; i++)
		if (slice_eq_nocase(head_name(response, i), name))
			return 0;
	n = snprintf(value, sizeof(value), "max-age=%" PRIu64, listen->hsts_ms / 1000);
	return head_add(response, name, slice_of(value, (size_t)n));
}
