/*
 * wsgi_main: the program forebay-wsgi: forebay's runtime for workers with Python in it. forebay starts it.
 */
#include "upstream/worker/worker_main.h"
#include "upstream/worker/wsgi/wsgi.h"
#include "upstream/worker/zygote.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "worker") == 0)
		return worker_main(argc, argv, &wsgi_app);
	if (argc > 1 && strcmp(argv[1], "zygote") == 0)
		return zygote_main(argc, argv, &wsgi_app);
	fputs("forebay-wsgi: forebay starts this program; it is of no use by hand.\n", stderr);
	return 2;
}
