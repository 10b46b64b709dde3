#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#define PER_SOURCE  4000u
#define FIELD_BYTES 1000u /* of a form: "f=", the value, "&" */
#define DEADLINE_S  600   /* far beyond any row: nothing stays behind */

char load_bytes[READ_BYTES] = { 'x' };

/* 20 fields, some 1.2 kB, with cookies: what a page's second request looks like. */
static const char browser_fields[] =
    "Connection: keep-alive\r\n"
    "Cache-Control: max-age=0\r\n"
    "Sec-Ch-Ua: \"Chromium\";v=\"142\", \"Not:A-Brand\";v=\"24\", \"Google Chrome\";v=\"142\"\r\n"
    "Sec-Ch-Ua-Mobile: ?0\r\n"
    "Sec-Ch-Ua-Platform: \"Linux\"\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "Dnt: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Sec-Fetch-User: ?1\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Referer: https://shop.example.org/catalogue/furniture/chairs?sort=price&page=2\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7\r\n"
    "If-None-Match: W/\"65a1-18f0c2d7e41\"\r\n"
    "Priority: u=0, i\r\n"
    "Cookie: sessionid=7f3q0x2l9v8mzk4w1c6t5n0b2d8h3j7p; csrftoken=Qm9hdHMgYWdhaW5zdCB0aGUgY3VycmVudA0; consent=necessary+"
    "statistics; basket=3f2b8c1e-77aa-4c1d-9a52-0e6f1d2c3b4a; _visitor=1763856000.5.2.1763859600; theme=dark; lang=en; "
    "experiment=checkout-b%3Blist-a; last_seen=4711%2C4712%2C4720%2C4801\r\n";

uint64_t load_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void load_fail(const char *what, const char *about)
{
	fprintf(stderr, "load: %s: %.300s\n", what, about);
	exit(EXIT_FAILURE);
}

size_t load_write_head(const struct load *l, const char *path, uint64_t body, char *to, size_t room)
{
	char length[128] = "";
	int n;

	if (body > 0)
		snprintf(length, sizeof(length), "Content-Length: %" PRIu64 "\r\n%s", body,
		    l->form ? "Content-Type: application/x-www-form-urlencoded\r\n" : "");
	n = snprintf(to, room, "%s %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n", body > 0 ? "POST" : "GET", path, l->host, length,
	    l->browser ? browser_fields : "User-Agent: load\r\nAccept: */*\r\n");
	if (n < 0 || (size_t)n >= room)
		load_fail("a request's head is too long", path);
	return (size_t)n;
}

/* From one address the system finds free ports quickly up to half of its range (some 14,000), then slowly. */
static void bind_source(int fd)
{
	static unsigned connections;
	struct sockaddr_in a = { .sin_family = AF_INET };
	int one = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + connections++ / PER_SOURCE);
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == -1)
		load_fail("bind", strerror(errno));
}

int load_connect(const struct load *l, int rcvbuf)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd == -1)
		load_fail("socket", strerror(errno));
	/* Before the handshake, which tells the window's scale. */
	if (rcvbuf > 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	bind_source(fd);
	if (connect(fd, (const struct sockaddr *)&l->address, sizeof(l->address)) == -1)
		load_fail("connect", strerror(errno));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (fcntl(fd, F_SETFL, O_NONBLOCK) == -1)
		load_fail("fcntl", strerror(errno));
	return fd;
}

size_t load_parse_head(const char *head, uint64_t *ret_body)
{
	const char *end = strstr(head, "\r\n\r\n"), *line = head;

	if (!end)
		return 0;
	if (strncmp(head, "HTTP/1.1 200 ", 13) != 0)
		load_fail("an answer that is not 200", head);
	while ((line = strstr(line, "\r\n")) && line < end) {
		line += 2;
		if (strncasecmp(line, "Content-Length:", 15) == 0) {
			*ret_body = strtoull(line + 15, NULL, 10);
			return (size_t)(end + 4 - head);
		}
	}
	load_fail("an answer without Content-Length", head);
}

static void set_address(struct load *l, char *text)
{
	char *colon = strrchr(text, ':');

	l->address.sin_family = AF_INET;
	if (!colon)
		load_fail("--address wants HOST:PORT", text);
	*colon = '\0';
	l->address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, text, &l->address.sin_addr) != 1)
		load_fail("--address wants HOST:PORT", text);
}

static void set_option(struct load *l, int option, char *value)
{
	switch (option) {
	case 'a':
		set_address(l, value);
		break;
	case 'h':
		l->host = value;
		break;
	case 'p':
		l->path = value;
		break;
	case 'n':
		l->answer = strtoull(value, NULL, 10);
		break;
	case 'b':
		l->body = strtoull(value, NULL, 10);
		break;
	case 'f':
		l->in_flight = (unsigned)strtoul(value, NULL, 10);
		break;
	case 'w':
		l->browser = true;
		break;
	case 'o':
		l->form = true;
		break;
	case 't':
		l->tls = true;
		break;
	default:
		exit(2);
	}
}

/* Fields of one length, as many as the body has room for. */
static void fill_form(const struct load *l)
{
	if (l->body > READ_BYTES || l->body % FIELD_BYTES != 0)
		load_fail("--form wants --body to be a multiple of 1000, not too large", "");
	memset(load_bytes, 'x', READ_BYTES);
	for (size_t i = 0; i < l->body; i += FIELD_BYTES) {
		if (i > 0)
			load_bytes[i - 1] = '&';
		memcpy(load_bytes + i, "f=", 2);
	}
}

static void parse_options(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {
		{ "address", required_argument, NULL, 'a' },
		{ "host", required_argument, NULL, 'h' },
		{ "path", required_argument, NULL, 'p' },
		{ "answer", required_argument, NULL, 'n' },
		{ "body", required_argument, NULL, 'b' },
		{ "in-flight", required_argument, NULL, 'f' },
		{ "browser", no_argument, NULL, 'w' },
		{ "form", no_argument, NULL, 'o' },
		{ "tls", no_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		set_option(l, c, optarg);
	if (l->address.sin_port == 0 || l->in_flight < 1 || l->in_flight > IN_FLIGHT_MAX)
		load_fail("--address is needed, and --in-flight is from 1 on", "");
	if (l->form)
		fill_form(l);
	l->head_bytes = load_write_head(l, l->path, l->body, l->head, sizeof(l->head));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(const struct load *l);
	} kinds[] = { { "rush", rush_run }, { "shake", shake_run }, { "drip", drip_run }, { "crawl", crawl_run } };
	struct load l = { .host = "fresh", .path = "/bytes/2", .answer = 2, .in_flight = 8 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	alarm(DEADLINE_S);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; argc > 1 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(argv[1], kinds[i].name) != 0)
			continue;
		parse_options(&l, argc - 1, argv + 1);
		kinds[i].run(&l);
		return EXIT_SUCCESS;
	}
	fputs(
	    "usage: load rush|shake|drip|crawl --address HOST:PORT [--host NAME] [--path PATH --answer BYTES] [--body BYTES]\n"
	    "    [--in-flight N] [--browser] [--form] [--tls]\n",
	    stderr);
	return 2;
}
