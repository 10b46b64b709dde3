#include "upstream/environment.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/buf.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static struct slice name_of(const char *entry)
{
	return slice_of(entry, strcspn(entry, "="));
}

/* Takes `entry` (NULL: no memory). A name that is there already gets this value. */
static int put(struct environment *e, char *entry)
{
	char **more;

	if (!entry)
		return -ENOMEM;
	for (size_t i = 0; i < e->count; i++)
		if (slice_eq(name_of(e->envp[i]), name_of(entry))) {
			free(e->envp[i]);
			e->envp[i] = entry;
			return 0;
		}
	more = reallocarray(e->envp, e->count + 2, sizeof(*more));
	if (!more) {
		free(entry);
		return -ENOMEM;
	}
	e->envp = more;
	e->envp[e->count++] = entry;
	e->envp[e->count] = NULL;
	return 0;
}

/* Nothing without a value. */
static int put_value(struct environment *e, const char *name, const char *value)
{
	char *entry = NULL;

	if (!value)
		return 0;
	return asprintf(&entry, "%s=%s", name, value) == -1 ? -ENOMEM : put(e, entry);
}

static int put_path(struct environment *e, const struct conf_pool *conf)
{
	char *entry = NULL;
	int err;

	if (conf->inherits && getenv("PATH"))
		return put_value(e, "VIRTUAL_ENV", conf->virtualenv);
	if (!conf->virtualenv)
		return put_value(e, "PATH", DEFAULT_PATH);
	if (asprintf(&entry, "PATH=%s/bin:" DEFAULT_PATH, conf->virtualenv) == -1)
		return -ENOMEM;
	err = put(e, entry);
	return err ? err : put_value(e, "VIRTUAL_ENV", conf->virtualenv);
}

static int put_ours(struct environment *e, const struct conf_pool *conf, const struct spawn_user *user)
{
	const struct {
		const char *name, *value;
	} ours[] = {
		{ "LANG", getenv("LANG") },
		{ "LC_ALL", conf->locale ? conf->locale : getenv("LC_ALL") },
		{ "TZ", getenv("TZ") },
		{ "HOME", user ? user->home : getenv("HOME") },
		{ "USER", user ? user->name : getenv("USER") },
		{ "LOGNAME", user ? user->name : getenv("LOGNAME") },
	};
	int err = put_path(e, conf);

	for (size_t i = 0; !err && i < ARRAY_LEN(ours); i++)
		err = put_value(e, ours[i].name, ours[i].value);
	return err;
}

static bool is_name(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (i > 0 && c >= '0' && c <= '9')))
			return false;
	}
	return s.len > 0;
}

/* KEY=VALUE, nothing, or a comment. */
static int put_line(struct environment *e, struct slice line)
{
	struct slice value = line, name;

	if (line.len > 0 && line.ptr[line.len - 1] == '\r')
		line.len--;
	value = line;
	if (line.len == 0 || line.ptr[0] == '#')
		return 0;
	if (!slice_cut(&value, '=', &name) || !is_name(name) || memchr(line.ptr, '\0', line.len))
		return -EINVAL;
	return put(e, slice_dup(line));
}

static int put_lines(struct environment *e, const char *file, struct slice text, char *ret_why)
{
	unsigned number = 0;
	struct slice line;
	int err = 0;

	while (!err && text.len > 0) {
		if (!slice_cut(&text, '\n', &line)) {
			line = text;
			text.len = 0;
		}
		number++;
		err = put_line(e, line);
	}
	if (err == -EINVAL)
		(void)snprintf(ret_why, ENVIRONMENT_WHY_MAX, "%.300s:%u: this line is not KEY=VALUE", file, number);
	return err;
}

static int read_whole(const char *path, struct buf *text)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err = 0;
	ssize_t n = 1;

	if (fd == -1)
		return -errno;
	while (n > 0 && !err) {
		char *room = buf_room(text, 4096);

		n = room ? read(fd, room, 4096) : 0;
		if (n > 0)
			text->len += (size_t)n;
		err = !room ? -E2BIG : n == -1 ? -errno : 0;
	}
	close(fd);
	return err;
}

static int put_file(struct environment *e, const char *path, char *ret_why)
{
	struct buf text;
	int err;

	buf_init(&text, ENVIRONMENT_FILE_MAX + 4096);
	err = read_whole(path, &text);
	if (!err && text.len > ENVIRONMENT_FILE_MAX)
		err = -E2BIG;
	if (err)
		(void)snprintf(
		    ret_why, ENVIRONMENT_WHY_MAX, "%.300s: %s", path, err == -E2BIG ? "it has more than 256K" : strerror(-err));
	else
		err = put_lines(e, path, buf_slice(&text), ret_why);
	buf_done(&text);
	return err == -E2BIG ? -EINVAL : err;
}

/* What a service manager says to us alone. */
static bool is_ours_alone(const char *entry)
{
	static const char *const names[] = { "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID",
		"WATCHDOG_USEC" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (slice_eq(name_of(entry), slice_str(names[i])))
			return true;
	return false;
}

static int put_inherited(struct environment *e)
{
	int err = 0;

	for (char **entry = environ; !err && entry && *entry; entry++)
		if (strchr(*entry, '=') && !is_ours_alone(*entry))
			err = put(e, strdup(*entry));
	return err;
}

int environment_make(
    const struct conf_pool *conf, const struct spawn_user *user, struct environment *ret, char ret_why[ENVIRONMENT_WHY_MAX])
{
	int err;

	*ret = (struct environment){ 0 };
	(void)snprintf(ret_why, ENVIRONMENT_WHY_MAX, "no memory");
	err = conf->inherits ? put_inherited(ret) : 0;
	if (!err)
		err = put_ours(ret, conf, user);
	if (!err && conf->environment_file)
		err = put_file(ret, conf->environment_file, ret_why);
	for (size_t i = 0; !err && i < conf->environment_count; i++)
		err = put(ret, strdup(conf->environment[i]));
	if (err)
		environment_done(ret);
	return err;
}

void environment_done(struct environment *e)
{
	for (size_t i = 0; i < e->count; i++)
		free(e->envp[i]);
	free(e->envp);
	*e = (struct environment){ 0 };
}
