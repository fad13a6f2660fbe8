/* SPDX-License-Identifier: Apache-2.0 */
/* progress.c - see progress.h. The state is the process's: there is one terminal. */
#include "tools/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define WIDTH	    30
#define FIRST_NS    INT64_C(1000000000)
#define INTERVAL_NS INT64_C(100000000) /* ten times a second are enough for an eye */

static struct {
	char what[40];
	uint64_t total, done; /* total 0: there is none */
	int64_t next_ns;      /* when it may be drawn again */
	bool shown;
} bar;

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

bool progress_wanted(void)
{
	return bar.total && isatty(STDERR_FILENO);
}

void progress_begin(const char *what, uint64_t total)
{
	progress_end();
	snprintf(bar.what, sizeof(bar.what), "%s", what);
	bar.total = total;
	bar.done = 0;
	if (!progress_wanted())
		bar.total = 0;
	bar.next_ns = now_ns() + FIRST_NS;
}

static void draw(void)
{
	double share = (double)bar.done / (double)bar.total;
	int filled = (int)(WIDTH * share);

	fprintf(stderr, "\r%s [%.*s%*s] %3d%%", bar.what, filled, "##############################",
		WIDTH - filled, "", (int)(100 * share));
	fflush(stderr);
	bar.shown = true;
}

void progress_at(uint64_t done)
{
	int64_t now;

	if (!bar.total)
		return;
	bar.done = done < bar.total ? done : bar.total;
	now = now_ns();
	if (now < bar.next_ns)
		return;
	bar.next_ns = now + INTERVAL_NS;
	draw();
}

void progress_step(void)
{
	progress_at(bar.done + 1);
}

void progress_clear(void)
{
	if (bar.shown)
		fputs("\r\033[K", stderr);
	bar.shown = false;
}

void progress_end(void)
{
	progress_clear();
	bar.total = 0;
}
