/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hook.c - what a test needs the engine to do to itself.
 *
 * With WEFT_TEST_SECCOMP in its environment the core thread, once it has sampled a token, forbids
 * itself every system call by a filter that kills the process. Requests that run to their end
 * under it have made none; that the engine dies as soon as it wants to sleep shows that the filter
 * was there. Filters cannot be removed, so this is of no use outside a test.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

int hook_no_system_calls(void)
{
	struct sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog program = {1, &kill};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return -errno;
	return 0;
}
