/* conf_parse over any bytes: it ends, and either takes them or says why in printable lines. */
#include <stdlib.h>

#include "conf/conf.h"
#include "core/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_words(struct slice words)
{
	struct slice line;

	while (slice_cut(&words, '\n', &line)) {
		if (!slice_starts(line, SLICE("f:")))
			abort();
		for (size_t i = 0; i < line.len; i++)
			if (line.ptr[i] < ' ' || line.ptr[i] > '~')
				abort();
	}
	if (words.len > 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf *c = NULL;
	struct buf errors;
	int err;

	buf_init(&errors, 16u << 20);
	err = conf_parse("f", slice_of((const char *)data, size), &errors, &c);
	if ((err == 0) != (c != NULL) || (err == 0) != (errors.len == 0) || errors.failed)
		abort();
	check_words(buf_slice(&errors));
	for (size_t i = 0; c && i < c->route_count; i++)
		if (!c->routes[i].pool || !c->routes[i].pattern)
			abort();
	conf_drop(&c);
	buf_done(&errors);
	return 0;
}
