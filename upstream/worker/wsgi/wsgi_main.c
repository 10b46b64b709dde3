/*
 * wsgi_main: the program forebay-wsgi: forebay's runtime for workers with Python in it. forebay starts it.
 */
#include "upstream/worker/runtime.h"
#include "upstream/worker/wsgi/wsgi.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	static const struct worker_app *const apps[] = { &wsgi_app, NULL };

	if (argc > 1 && strcmp(argv[1], "worker") == 0)
		return worker_main(argc, argv, apps);
	fputs("forebay-wsgi: forebay starts this program; it is of no use by hand.\n", stderr);
	return 2;
}
