/*
 * main: the command line, and the roles that forebay starts itself in.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/conf.h"
#include "core/buf.h"
#include "core/log.h"
#include "proxy/client/tls.h"
#include "proxy/daemon/front.h"
#include "proxy/daemon/ground.h"
#include "proxy/daemon/keys.h"
#include "proxy/daemon/master.h"
#include "proxy/daemon/replay.h"
#include "proxy/daemon/run.h"
#include "proxy/daemon/sandbox.h"
#include "upstream/worker/demo.h"
#include "upstream/worker/worker_main.h"
#include "upstream/worker/zygote.h"

#define DEFAULT_FILE FOREBAY_SYSCONFDIR "/forebay/forebay.ini"
#define ERRORS_MAX   (1u << 20)
#define EXIT_USAGE   2

static const char help[] =
    "forebay: takes in each request whole, hands it to a worker that is free, and gives clients their answers at their own pace\n"
    "\n"
    "  forebay [-c FILE]         serve (FILE: " DEFAULT_FILE ")\n"
    "  forebay -t [-c FILE]      check the configuration: every error is told\n"
    "  forebay run TARGET        serve without a file, on " RUN_LISTEN_DEFAULT "; TARGET is one of\n"
    "      wsgi:MODULE[:CALLABLE]    a Python application: wsgi:mysite.wsgi, wsgi:shop:app\n"
    "      worker:PROGRAM            a program made with forebay-worker(3)\n"
    "      demo                      a small built-in application\n"
    "      socket:/path              an HTTP server on a Unix socket\n"
    "    -b, --bind ADDRESS          e.g. 8080, 0.0.0.0:8080, [::]:8080, unix:/run/x.sock (--listen is the same)\n"
    "    -w, --processes N           workers that are started; of a server: how many it has (--workers is the same)\n"
    "    -t, --threads N             of each\n"
    "    -d, --directory DIR         of the application\n"
    "    -r, --reload                new workers take over when a .py file there changes\n"
    "  forebay replay FILE       send a request that stands in a file (quarantine_dir's, or your own) to the daemon that runs by\n"
    "      [--config FILE]           this configuration (" DEFAULT_FILE "), or\n"
    "      [--to ADDRESS]            at this address, e.g. 127.0.0.1:8000, unix:/run/x.sock, and print its answer\n"
    "  forebay --options[=mdoc]  every option of the configuration\n"
    "  forebay --version\n"
    "  forebay --help\n"
    "\n"
    "SIGTERM, SIGINT: end what has begun, then end; again: end now. SIGHUP: load the applications anew. SIGUSR1: open the\n"
    "logs anew.\n";

static int usage(const char *what, const char *about)
{
	fprintf(stderr, "forebay: %s%s%s (forebay --help)\n", what, about ? ": " : "", about ? about : "");
	return EXIT_USAGE;
}

/* 1 to 1024. */
static bool parse_count(const char *text, unsigned *ret)
{
	uint64_t n;

	if (!slice_to_u64(slice_str(text), &n) || n < 1 || n > 1024)
		return false;
	*ret = (unsigned)n;
	return true;
}

static struct conf *load(const char *file)
{
	struct conf *conf = NULL;
	struct buf errors;

	buf_init(&errors, ERRORS_MAX);
	if (conf_load(file, &errors, &conf) != 0 && errors.len == 0)
		fprintf(stderr, "%s: it cannot be read: no memory\n", file);
	if (errors.len > 0)
		fwrite(errors.ptr, 1, errors.len, stderr);
	if (!conf && strcmp(file, DEFAULT_FILE) == 0 && access(file, F_OK) == -1)
		fputs("Without a file: forebay run demo (forebay --help)\n", stderr);
	buf_done(&errors);
	return conf;
}

static int serve(const char *file)
{
	struct master_options o = { .conf = load(file) };
	int status;

	if (!o.conf)
		return EXIT_FAILURE;
	status = master_run(&o);
	conf_drop(&o.conf);
	return status;
}

/* Certificates and keys too, as far as whoever checks may read them. */
static int check_keys(const struct conf *conf)
{
	struct keys *keys = NULL;
	struct buf errors, warnings;
	int err;

	buf_init(&errors, ERRORS_MAX);
	buf_init(&warnings, ERRORS_MAX);
	err = keys_new(conf, &clock_real, &errors, &warnings, &keys);
	fprintf(stderr, "%.*s%.*s", SLICE_ARG(buf_slice(&warnings)), SLICE_ARG(buf_slice(&errors)));
	if (!err)
		keys_tell_expiry(keys);
	else if (errors.len == 0)
		fprintf(stderr, "certificates and keys: %s\n", strerror(-err));
	buf_done(&errors);
	buf_done(&warnings);
	keys_free(&keys);
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int check(const char *file)
{
	struct conf *conf = load(file);
	int status;

	if (!conf)
		return EXIT_FAILURE;
	status = check_keys(conf);
	log_setup("forebay", LOG_LEVEL_WARNING, NULL, NULL);
	if (!ground_check(conf))
		status = EXIT_FAILURE;
	if (status == EXIT_SUCCESS)
		printf("configuration %s is fine\n", file);
	conf_drop(&conf);
	return status;
}

static int print_options(const char *form)
{
	if (form && strcmp(form, "mdoc") != 0)
		return usage("--options is for people, --options=mdoc for the manual page", form);
	if (form)
		conf_print_options_mdoc(stdout);
	else
		conf_print_options(stdout);
	return EXIT_SUCCESS;
}

static int print_version(void)
{
	printf("forebay " PACKAGE_VERSION "\n%s, kTLS %s\n", tls_library_version(),
	    tls_kernel_could() ? "available (not used)" : "not available");
	return EXIT_SUCCESS;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "bind", required_argument, NULL, 'b' },
		{ "listen", required_argument, NULL, 'b' },
		{ "processes", required_argument, NULL, 'w' },
		{ "workers", required_argument, NULL, 'w' },
		{ "threads", required_argument, NULL, 't' },
		{ "directory", required_argument, NULL, 'd' },
		{ "reload", no_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct run_options o = { 0 };
	int c;

	while ((c = getopt_long(argc, argv, ":b:w:t:d:rh", options, NULL)) != -1) {
		switch (c) {
		case 'b':
			o.listen = optarg;
			break;
		case 'd':
			o.directory = optarg;
			break;
		case 'r':
			o.reload = true;
			break;
		case 'w':
			if (!parse_count(optarg, &o.processes))
				return usage("--processes takes a number from 1 to 1024", optarg);
			break;
		case 't':
			if (!parse_count(optarg, &o.threads))
				return usage("--threads takes a number from 1 to 1024", optarg);
			break;
		case 'h':
			fputs(help, stdout);
			return EXIT_SUCCESS;
		case ':':
			return usage("this option takes a value", argv[optind - 1]);
		default:
			return usage("run does not have this option", argv[optind - 1]);
		}
	}
	if (optind != argc - 1)
		return optind == argc ? usage("run takes a target: wsgi:MODULE, worker:PROGRAM, demo or socket:/path", NULL)
		                      : usage("run takes one target", argv[optind + 1]);
	o.target = argv[optind];
	return run_main(&o);
}

/* Through the listener of a configuration. */
static int replay_by(const char *config, const char *file)
{
	struct conf *conf = load(config);
	struct replay_door to;
	int status = EXIT_FAILURE;

	if (!conf)
		return EXIT_FAILURE;
	if (replay_choose(conf, &to))
		status = replay_main(file, &to);
	else
		fprintf(stderr,
		    "forebay: %s has no listener that serves without a client's certificate: add one, say on a Unix socket, or use "
		    "--to\n",
		    config);
	conf_drop(&conf);
	return status;
}

static int replay_to(const char *address, const char *file)
{
	struct conf_address to = { 0 };
	const char *why;
	int status;

	if (conf_address_parse(slice_str(address), true, &to, &why) != 0)
		return usage(why, address);
	status = replay_main(file, &(struct replay_door){ .address = &to });
	free(to.text);
	return status;
}

static int replay(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "to", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *config = NULL, *to = NULL;
	int c;

	while ((c = getopt_long(argc, argv, ":c:", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			config = optarg;
			break;
		case 't':
			to = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return EXIT_SUCCESS;
		case ':':
			return usage("this option takes a value", argv[optind - 1]);
		default:
			return usage("replay does not have this option", argv[optind - 1]);
		}
	}
	if (optind != argc - 1)
		return optind == argc ? usage("replay takes a file", NULL) : usage("replay takes one file", argv[optind + 1]);
	if (config && to)
		return usage("replay takes --config or --to, not both", NULL);
	return to ? replay_to(to, argv[optind]) : replay_by(config ? config : DEFAULT_FILE, argv[optind]);
}

static int command_line(int argc, char **argv)
{
	static const struct option options[] = {
		{ "options", optional_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	const char *file = DEFAULT_FILE;
	bool only_check = false;
	int c;

	while ((c = getopt_long(argc, argv, "+:c:th", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			file = optarg;
			break;
		case 't':
			only_check = true;
			break;
		case 'o':
			return print_options(optarg);
		case 'h':
			fputs(help, stdout);
			return EXIT_SUCCESS;
		case 'v':
			return print_version();
		case ':':
			return usage("this option takes a file", argv[optind - 1]);
		default:
			return usage("there is no such option", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return usage("this is no command", argv[optind]);
	return only_check ? check(file) : serve(file);
}

/* A descriptor below 3 that is closed would be taken by a socket, which somebody then prints to. */
static bool open_standard(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd == -1)
		return false;
	close(fd);
	return true;
}

int main(int argc, char **argv)
{
	opterr = 0;
	if (argc > 1 && strcmp(argv[1], "front") == 0)
		return front_main();
	if (argc > 1 && strcmp(argv[1], "worker") == 0) {
		sandbox_worker();
		return worker_main(argc, argv, &demo_app);
	}
	if (argc > 1 && strcmp(argv[1], "zygote") == 0) {
		sandbox_worker();
		return zygote_main(argc, argv, &demo_app);
	}
	if (!open_standard())
		return EXIT_FAILURE;
	if (argc > 1 && strcmp(argv[1], "run") == 0)
		return run(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "replay") == 0)
		return replay(argc - 1, argv + 1);
	return command_line(argc, argv);
}
