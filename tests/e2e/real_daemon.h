/* SPDX-License-Identifier: Apache-2.0 */
/*
 * real_daemon.h - weftd and weft-engine as built, in a directory of their own, for tests of libweft
 * and of the command line. WEFT_BUILD says where the programs are, WEFT_SRC where the fixtures.
 */
#ifndef WEFT_TESTS_REAL_DAEMON_H
#define WEFT_TESTS_REAL_DAEMON_H

#include <sys/types.h>

struct real_daemon {
	pid_t pid;    /* 0: not running */
	char dir[64]; /* configuration, log, run/ */
	char socket[96];
	const char *conf; /* borrowed; lines of the model's section after its path */
	char model[300];
};

/* The folder of a fixture model. Ends the program (skip) where programs or fixtures are missing. */
void real_daemon_init(struct real_daemon *d, const char *fixture, const char *conf);
/* Start weftd (again); waits until it listens. 0 or -1, with its log as TAP remarks. */
int real_daemon_start(struct real_daemon *d);
/* kill -9, and wait until it is gone. */
void real_daemon_kill(struct real_daemon *d);
/* SIGTERM, wait; remove the directory. The exit status, or -signal. */
int real_daemon_fini(struct real_daemon *d);

#endif
