#include "upstream/worker/args.h"

#include <stdio.h>
#include <stdlib.h>

enum kind { TEXT, UNSIGNED, U64, FLAG };

/* An argument is NAME=VALUE; they come in this order, each once. */
static const struct row {
	const char *name;
	enum kind kind;
	size_t offset;
	uint64_t min, max;
} rows[] = {
#define OF(field) offsetof(struct worker_args, field)
	{ "app", TEXT, OF(app), 0, 0 },
	{ "pool", TEXT, OF(pool), 0, 0 },
	{ "target", TEXT, OF(setting.target), 0, 0 },
	{ "virtualenv", TEXT, OF(setting.virtualenv), 0, 0 },
	{ "processes", UNSIGNED, OF(setting.processes), 1, UINT32_MAX },
	{ "threads", UNSIGNED, OF(setting.threads), 1, ARGS_THREADS_MAX },
	{ "debug", FLAG, OF(setting.debug), 0, 1 },
	{ "place", UNSIGNED, OF(place), 0, UINT32_MAX / ARGS_THREADS_MAX - 1 },
	{ "max_requests", U64, OF(max_requests), 0, UINT64_MAX },
	{ "max_memory", U64, OF(max_memory), 0, UINT64_MAX },
	{ "health_path", TEXT, OF(health_path), 0, 0 },
	{ "preload_request", TEXT, OF(preload_request), 0, 0 },
#undef OF
};
#define ROWS_FROM 3 /* behind title, role and version */
static_assert(ARRAY_LEN(rows) + ROWS_FROM + 1 <= ARGS_MAX, "all have room");

#define TEXT_OF(number) #number
#define VERSION_OF(n)   "interface=" TEXT_OF(n)
#define VERSION         VERSION_OF(ARGS_INTERFACE)

static const char *const roles[] = { [ARGS_WORKER] = "worker", [ARGS_ZYGOTE] = "zygote" };

static const void *field_const(const struct worker_args *args, const struct row *row)
{
	return (const char *)args + row->offset;
}

static void *field(struct worker_args *args, const struct row *row)
{
	return (char *)args + row->offset;
}

static uint64_t number_of(const struct worker_args *args, const struct row *row)
{
	switch (row->kind) {
	case UNSIGNED:
		return *(const unsigned *)field_const(args, row);
	case U64:
		return *(const uint64_t *)field_const(args, row);
	case FLAG:
		return *(const bool *)field_const(args, row);
	case TEXT:
		break;
	}
	return 0;
}

static char *write_row(const struct worker_args *args, const struct row *row)
{
	const char *text = row->kind == TEXT ? *(const char *const *)field_const(args, row) : NULL;
	char *made = NULL;
	int n;

	if (row->kind == TEXT)
		n = asprintf(&made, "%s=%s", row->name, text ? text : "");
	else
		n = asprintf(&made, "%s=%" PRIu64, row->name, number_of(args, row));
	return n == -1 ? NULL : made;
}

void args_title(const struct worker_args *args, char ret[ARGS_TITLE_MAX])
{
	if (args->role == ARGS_ZYGOTE)
		(void)snprintf(ret, ARGS_TITLE_MAX, "forebay: zygote %.64s", args->pool);
	else
		(void)snprintf(ret, ARGS_TITLE_MAX, "forebay: worker %.64s %u", args->pool, args->place + 1);
}

int args_write(const struct worker_args *args, struct args_list *ret)
{
	char title[ARGS_TITLE_MAX];
	size_t n = 0;
	bool ok;

	*ret = (struct args_list){ 0 };
	args_title(args, title);
	ret->argv[n++] = strdup(title);
	ret->argv[n++] = strdup(roles[args->role]);
	ret->argv[n++] = strdup(VERSION);
	ok = ret->argv[0] && ret->argv[1] && ret->argv[2];
	for (size_t i = 0; ok && i < ARRAY_LEN(rows); i++) {
		ret->argv[n++] = write_row(args, &rows[i]);
		ok = ret->argv[n - 1] != NULL;
	}
	if (ok)
		return 0;
	args_list_done(ret);
	return -ENOMEM;
}

void args_list_done(struct args_list *list)
{
	for (size_t i = 0; i < ARGS_MAX; i++)
		free(list->argv[i]);
	*list = (struct args_list){ 0 };
}

static bool read_number(struct worker_args *ret, const struct row *row, struct slice value)
{
	uint64_t n;

	if (!slice_to_u64(value, &n) || n < row->min || n > row->max)
		return false;
	if (row->kind == UNSIGNED)
		*(unsigned *)field(ret, row) = (unsigned)n;
	else if (row->kind == FLAG)
		*(bool *)field(ret, row) = n == 1;
	else
		*(uint64_t *)field(ret, row) = n;
	return true;
}

static bool read_row(struct worker_args *ret, const struct row *row, const char *argument)
{
	struct slice value = slice_str(argument), name;

	if (!slice_cut(&value, '=', &name) || !slice_eq(name, slice_str(row->name)))
		return false;
	if (row->kind != TEXT)
		return read_number(ret, row, value);
	*(char **)field(ret, row) = slice_dup(value);
	return *(char **)field(ret, row) != NULL;
}

static bool read_role(const char *text, enum args_role *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		if (strcmp(roles[i], text) == 0) {
			*ret = (enum args_role)i;
			return true;
		}
	return false;
}

bool args_are_anothers(int argc, char *const *argv)
{
	enum args_role role;

	return argc >= ROWS_FROM && read_role(argv[1], &role) && slice_starts(slice_str(argv[2]), SLICE("interface=")) &&
	       strcmp(argv[2], VERSION) != 0;
}

bool args_read(int argc, char *const *argv, struct worker_args *ret)
{
	bool ok;

	*ret = (struct worker_args){ 0 };
	ok = argc == (int)ARRAY_LEN(rows) + ROWS_FROM && read_role(argv[1], &ret->role) && strcmp(argv[2], VERSION) == 0;
	for (size_t i = 0; ok && i < ARRAY_LEN(rows); i++)
		ok = read_row(ret, &rows[i], argv[i + ROWS_FROM]);
	if (!ok)
		args_done(ret);
	return ok;
}

void args_done(struct worker_args *args)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].kind == TEXT)
			free(*(char **)field(args, &rows[i]));
	*args = (struct worker_args){ 0 };
}

void args_retitle(int argc, char **argv, const char *title)
{
	/* The kernel has laid them one behind the other. */
	size_t size = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - argv[0]), len = strlen(title);

	memset(argv[0], 0, size);
	memcpy(argv[0], title, MIN(len, size));
}
