/* SPDX-License-Identifier: Apache-2.0 */
/*
 * patience.h - who waits for weftd for more than a second is told so, once, on standard error.
 *
 * libweft waits silently: for a model that is being loaded, and for a daemon that went away to come
 * back. A person in front of `weft run` or `weft chat` cannot tell that from a program that hangs.
 * Nothing is printed to standard output.
 */
#ifndef WEFT_TOOLS_PATIENCE_H
#define WEFT_TOOLS_PATIENCE_H

#include "libclient/weft.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* weft_open(), with a line when it lasts. */
int patience_try(struct weft **ret, const struct weft_open_options *o, struct weft_error *e);
/* The same; 0, or 1 after cli_fail(). */
int patience_open(struct weft **ret, const struct weft_open_options *o);

struct patience {
	const char *socket;  /* borrowed; as in weft_open() */
	int64_t asked_ns;    /* when there was news last, or weftd was looked for */
	bool told, given_up; /* the line is out; weftd is there but does not answer */
};

#define PATIENCE_INIT(socket_)      \
	{                           \
		.socket = (socket_) \
	}

/* There is news: tokens have come, or the waiting begins. */
void patience_news(struct patience *p);
/* There is none yet: look for weftd if that lasts, and say that it is gone, and when it is back. */
void patience_none(struct patience *p);
/*
 * Wait until weftd is there, for a minute at most, or until *interrupted: before calls that wait for
 * it themselves and heed no interrupt. 0, or 1 after cli_fail().
 */
int patience_daemon(struct patience *p, const volatile sig_atomic_t *interrupted);

#endif
