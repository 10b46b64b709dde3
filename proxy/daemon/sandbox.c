#include "proxy/daemon/sandbox.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __has_feature
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
/* The leak sanitizer looks at its process through ptrace. */
#if defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(address_sanitizer)
#define STAYS_DUMPABLE true
#else
#define STAYS_DUMPABLE false
#endif

#define KEPT (1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_DAC_READ_SEARCH)
static_assert(CAP_NET_BIND_SERVICE < 32 && CAP_DAC_READ_SEARCH < 32 && CAP_SYS_NICE < 32, "all in the first word");

/* A service manager may have given the master one for the ports below 1024, in a way that goes through exec. */
static bool drop_all(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &header, none) == 0;
}

bool sandbox_front(void)
{
	static const struct rlimit none = { 0, 0 };
	bool ok = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;

	ok = drop_all() && ok;
	ok = (STAYS_DUMPABLE || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0) && ok;
	return setrlimit(RLIMIT_CORE, &none) == 0 && ok;
}

void sandbox_worker(void)
{
	if (geteuid() != 0)
		(void)drop_all();
}

/* What a root process execs has all that the bounding set has: workers that run as root are nobody's aim, but are possible. */
static void drop_bounding_set(uint32_t kept)
{
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap >= 32 || !(kept & 1u << cap))
			(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

bool sandbox_master(bool hurries)
{
	const uint32_t kept = KEPT | (hurries ? 1u << CAP_SYS_NICE : 0);
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (geteuid() != 0)
		return true;
	if (syscall(SYS_capget, &header, data) == -1)
		return false;
	drop_bounding_set(kept);
	/* In a container some of these are not there to be kept. */
	for (size_t i = 0; i < ARRAY_LEN(data); i++) {
		data[i].permitted &= i == 0 ? kept : 0;
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, data) == 0;
}
