#include "upstream/worker/footprint.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/slice.h"

#define TEXT_BYTES 4096

static struct slice read_small(const char *path, char text[TEXT_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd == -1 ? -1 : read(fd, text, TEXT_BYTES);

	if (fd != -1)
		close(fd);
	return slice_of(text, n > 0 ? (size_t)n : 0);
}

uint64_t footprint_rss(void)
{
	char text[TEXT_BYTES];
	struct slice rest = read_small("/proc/self/statm", text), total, resident;
	uint64_t pages;

	if (!slice_cut(&rest, ' ', &total) || !slice_cut(&rest, ' ', &resident) || !slice_to_u64(resident, &pages))
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t footprint_pss(void)
{
	char text[TEXT_BYTES];
	struct slice rest = read_small("/proc/self/smaps_rollup", text), line, number;
	uint64_t kilobytes;

	while (slice_cut(&rest, '\n', &line)) {
		if (!slice_starts(line, SLICE("Pss:")))
			continue;
		line = slice_trim_ows(slice_of(line.ptr + 4, line.len - 4));
		if (slice_cut(&line, ' ', &number) && slice_to_u64(number, &kilobytes))
			return kilobytes << 10;
	}
	return 0;
}
