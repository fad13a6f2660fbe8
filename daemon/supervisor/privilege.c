/* SPDX-License-Identifier: Apache-2.0 */
/*
 * privilege.c - started by root, weftd keeps three capabilities: to give engines their user
 * (SETUID, SETGID) and to end them (KILL). It stays uid 0, because the regions' owner must be
 * somebody whom neither clients nor engines can be, but without the capabilities that make uid 0
 * mighty. Nothing that it starts can gain any (no_new_privs).
 */
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int privilege_engine_user(const char *name, uid_t *ret_uid, struct weft_err *err)
{
	struct passwd *p;

	*ret_uid = (uid_t)-1;
	if (geteuid() || !strcmp(name, "root"))
		return 0;
	errno = 0;
	p = getpwnam(name);
	if (p) {
		*ret_uid = p->pw_uid;
		return 0;
	}
	/* The name that nobody has chosen may be missing; one that was chosen may not. */
	if (!strcmp(name, "weft")) {
		log_line(LOG_LEVEL_WARN, "event=engine-user why=\"there is no user weft: engines "
					 "run as root (packaging/sysusers.d makes one)\"");
		return 0;
	}
	return err_set(err, -ENOENT, "engine_user = %s: no such user", name);
}

int privilege_become(const char *name, uid_t uid)
{
	struct passwd *p;

	if (uid == (uid_t)-1)
		return 0;
	p = getpwuid(uid);
	if (!p)
		return -ENOENT;
	if (initgroups(name, p->pw_gid) || setresgid(p->pw_gid, p->pw_gid, p->pw_gid) ||
	    setresuid(uid, uid, uid))
		return -errno;
	return 0;
}

static int keep_only(uint64_t mask)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	for (int c = 0; c <= CAP_LAST_CAP; c++)
		if (!(mask & (UINT64_C(1) << c)) && prctl(PR_CAPBSET_READ, c) == 1 &&
		    prctl(PR_CAPBSET_DROP, c))
			return -errno;
	for (int i = 0; i < 2; i++)
		data[i].permitted = data[i].effective = (uint32_t)(mask >> (32 * i));
	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

int privilege_drop(uid_t engine_uid, struct weft_err *err)
{
	const uint64_t keep = 1ull << CAP_SETUID | 1ull << CAP_SETGID | 1ull << CAP_KILL;
	int rc;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_set(err, -errno, "no_new_privs: %s", strerror(errno));
	/* An engine that runs as root by the administrator's choice reads its models as root. */
	if (geteuid() || engine_uid == (uid_t)-1)
		return 0;
	rc = keep_only(keep);
	return rc ? err_set(err, rc, "capabilities cannot be dropped: %s", strerror(-rc)) : 0;
}
