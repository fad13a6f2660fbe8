/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_top.c - `weft top`: what goes on now. Two looks at the daemon's status, a moment apart, are
 * turned into rates, and quantiles of what came between them: models, tenants and adapters, a line
 * each. On a terminal each picture takes the place of the last, cut to its height; elsewhere they
 * follow one another. Nothing is changed at the terminal, so ^C leaves it as it was.
 */
#include "tools/admin_client.h"
#include "tools/json_path.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static double interval = 1;
static uint32_t times;

static const struct cli_option options[] = {
	{"interval", 'i', "SECONDS", cli_set_double, &interval, "between two looks; default 1"},
	{"times", 'n', "N", cli_set_u32, &times, "end after so many pictures; default: go on"},
	ADMIN_OPTIONS,
};

static const struct cli_command command = {
	"top",
	"",
	"Show what the models, tenants and adapters do at the moment. ^C ends it. For programs "
	"there\n"
	"are weft status --json and weft metrics.",
	options,
	sizeof(options) / sizeof(*options),
	0,
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* One look. */
struct look {
	json_t *status; /* owned */
	struct timespec at;
};

/* --- the difference of two looks -----------------------------------------------------------------*/

/* Objects of one name, then and now; then is NULL if it is new since, or has begun again. */
struct pair {
	const json_t *then, *now;
	double seconds;
};

static double number(const json_t *o, const char *path)
{
	double x = 0;

	json_path_number(o, path, &x);
	return x;
}

/* By how much a counter grew: all of it if it has begun anew. */
static double grown(const struct pair *p, const char *path)
{
	double then = number(p->then, path), now = number(p->now, path);

	return now >= then ? now - then : now;
}

static double rate(const struct pair *p, const char *path)
{
	return p->seconds > 0 ? grown(p, path) / p->seconds : 0;
}

static double percent(double part, double of)
{
	return of > 0 ? 100 * part / of : 0;
}

/*
 * In milliseconds, of what was noted between the looks: within the bucket that holds it, as if its
 * values were spread evenly. NaN: there was nothing.
 */
static double quantile(const struct pair *p, const char *path, double q)
{
	const json_t *now = json_path(p->now, path), *then = json_path(p->then, path);
	const json_t *bounds = json_path(p->now, "times.bounds_us");
	size_t n = json_array_size(now);
	double total = 0, below = 0, low = 0;
	bool fresh = json_array_size(then) != n;

	for (size_t i = 0; i < n && !fresh; i++)
		fresh = json_number_value(json_array_get(now, i)) <
			json_number_value(json_array_get(then, i));
#define IN(i)                                        \
	(json_number_value(json_array_get(now, i)) - \
	 (fresh ? 0 : json_number_value(json_array_get(then, i))))
	for (size_t i = 0; i < n; i++)
		total += IN(i);
	for (size_t i = 0; i < n && total > 0; i++) {
		double high = json_number_value(json_array_get(bounds, i));

		if (i + 1 == n) /* beyond the last bound nothing more is known */
			return low / 1e3;
		if (below + IN(i) >= q * total)
			return (low + (high - low) * (q * total - below) / IN(i)) / 1e3;
		below += IN(i);
		low = high;
	}
#undef IN
	return NAN;
}

/* --- the picture ---------------------------------------------------------------------------------*/

/* Lines that still fit; the picture is cut, not the numbers in it. */
static int left;

static bool fits(void)
{
	return left-- > 0;
}

static const char *ms(char text[16], double x)
{
	if (isnan(x))
		snprintf(text, 16, "-");
	else
		snprintf(text, 16, x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f", x);
	return text;
}

/* The one of that name in a list; NULL: none. */
static const json_t *named(const json_t *list, const char *key, const char *name)
{
	json_t *item;
	size_t i;

	json_array_foreach((json_t *)list, i, item)
	{
		if (!strcmp(json_path_text(item, key), name))
			return item;
	}
	return NULL;
}

static struct pair model_pair(const struct look *then, const json_t *engine, double seconds)
{
	const char *name = json_path_text(engine, "model");
	const json_t *before = named(json_path(then->status, "engines"), "model", name);
	struct pair p = {json_path(before, "engine"), json_path(engine, "engine"), seconds};

	/* Another engine counts from 0. */
	if (strcmp(json_path_text(p.then, "instance_id"), json_path_text(p.now, "instance_id")))
		p.then = NULL;
	return p;
}

static void model_line(const json_t *engine, const struct pair *p)
{
	char first50[16], first99[16], gap50[16], gap99[16];
	double blocks = number(p->now, "blocks");

	if (!fits())
		return;
	cli_printf(stdout,
		   "%-16s %-9s %4.0f %5.0f %9.1f %6.0f%% %9.1f %8.1f %9s %9s %8s %8s %5.0f%%\n",
		   json_path_text(engine, "model"), json_path_text(engine, "state"),
		   number(p->now, "running"), number(p->now, "queued"), rate(p, "tokens_in"),
		   percent(grown(p, "tokens_cached"), grown(p, "tokens_in")), rate(p, "tokens_out"),
		   rate(p, "steps"), ms(first50, quantile(p, "times.first_token", 0.5)),
		   ms(first99, quantile(p, "times.first_token", 0.99)),
		   ms(gap50, quantile(p, "times.between_tokens", 0.5)),
		   ms(gap99, quantile(p, "times.between_tokens", 0.99)),
		   percent(blocks - number(p->now, "blocks_free"), blocks));
}

static void use_line(const char *model, const char *name, const struct pair *p, double active,
		     const char *note)
{
	if (!fits())
		return;
	cli_printf(stdout, "%-16s %-24s %6.0f %8.1f %9.1f %6.0f%% %9.1f%s%s\n", model, name, active,
		   rate(p, "requests"), rate(p, "tokens_in"),
		   percent(grown(p, "tokens_cached"), grown(p, "tokens_in")), rate(p, "tokens_out"),
		   *note ? "  " : "", note);
}

/* Of a list, and a line below it at the least. */
static bool headline(const char *of)
{
	if (left < 3)
		return false;
	left -= 2;
	printf("\n%-16s %-24s %6s %8s %9s %7s %9s\n", "model", of, "active", "req/s", "prompt/s",
	       "cached", "tokens/s");
	return true;
}

static void tenants(const struct pair *p, const char *model)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_path(p->now, "tenants"), i, item)
	{
		const char *name = json_path_text(item, "name");
		struct pair of = {named(json_path(p->then, "tenants"), "name", name), item,
				  p->seconds};

		use_line(model, name, &of, number(item, "in_flight"), "");
	}
}

/* The base model first: what is under way for no adapter. */
static void adapters(const struct pair *p, const char *model)
{
	struct pair base = {json_path(p->then, "base"), json_path(p->now, "base"), p->seconds};
	double rest = number(p->now, "in_flight");
	const json_t *all = json_path(p->now, "adapters");
	json_t *item;
	size_t i;

	json_array_foreach((json_t *)all, i, item) rest -= number(item, "in_use");
	if (base.now)
		use_line(model, "(base)", &base, rest, "");
	json_array_foreach((json_t *)all, i, item)
	{
		const char *name = json_path_text(item, "name");
		struct pair of = {named(json_path(p->then, "adapters"), "name", name), item,
				  p->seconds};

		use_line(model, name, &of, number(item, "in_use"),
			 number(item, "resident") > 0 ? json_path_text(item, "kind")
						      : "not in the pool");
	}
}

static void each_model(const struct look *then, const struct look *now, double seconds,
		       void (*lines)(const struct pair *p, const char *model))
{
	json_t *engine;
	size_t i;

	json_array_foreach(json_path(now->status, "engines"), i, engine)
	{
		struct pair p = model_pair(then, engine, seconds);

		lines(&p, json_path_text(engine, "model"));
	}
}

static void picture(const struct look *then, const struct look *now)
{
	double seconds = (double)(now->at.tv_sec - then->at.tv_sec) +
			 (double)(now->at.tv_nsec - then->at.tv_nsec) / 1e9;
	const json_t *d = json_path(now->status, "daemon");
	json_t *engine;
	size_t i;

	cli_printf(stdout, "weft %s, up %.0f s%s; sessions %.0f; engines that crashed %.0f\n\n",
		   json_path_text(d, "version"), number(d, "uptime_ms") / 1e3,
		   number(d, "draining") > 0 ? ", draining" : "", number(d, "sessions"),
		   number(d, "engine_crashes"));
	printf("%-16s %-9s %4s %5s %9s %7s %9s %8s %9s %9s %8s %8s %6s\n", "model", "state", "run",
	       "wait", "prompt/s", "cached", "tokens/s", "passes/s", "first p50", "p99 ms",
	       "gap p50", "p99 ms", "pool");
	left -= 3;
	json_array_foreach(json_path(now->status, "engines"), i, engine)
	{
		struct pair p = model_pair(then, engine, seconds);

		model_line(engine, &p);
	}
	if (headline("tenant"))
		each_model(then, now, seconds, tenants);
	if (headline("adapter"))
		each_model(then, now, seconds, adapters);
}

/* --- the loop ------------------------------------------------------------------------------------*/

static int look(struct look *l)
{
	json_decref(l->status);
	l->status = admin_ask(json_pack("{s:s}", "cmd", "status"), ADMIN_QUICK, NULL);
	clock_gettime(CLOCK_MONOTONIC, &l->at);
	return l->status ? 0 : 1;
}

static int height(void)
{
	struct winsize w;

	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_row < 6)
		return 1 << 20;
	return w.ws_row - 1;
}

static int run(struct look looks[2])
{
	struct timespec pause = {.tv_sec = (time_t)interval};
	bool terminal = isatty(STDOUT_FILENO);

	pause.tv_nsec = (long)((interval - (double)pause.tv_sec) * 1e9);
	if (look(&looks[0]))
		return 1;
	for (uint32_t n = 0; !times || n < times; n++) {
		nanosleep(&pause, NULL);
		if (interrupted)
			break;
		if (look(&looks[1]))
			return 1;
		left = height();
		fputs(terminal ? "\033[H\033[2J" : n ? "\n" : "", stdout);
		picture(&looks[0], &looks[1]);
		fflush(stdout);
		json_decref(looks[0].status);
		looks[0] = looks[1];
		looks[1].status = NULL;
	}
	return 0;
}

int cmd_top(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_interrupt}; /* no SA_RESTART: it ends the pause */
	struct look looks[2] = {{.status = NULL}};
	int rc;

	cli_parse(&command, argc, argv);
	if (!(interval >= 0.1 && interval <= 3600))
		return cli_usage("--interval is from 0.1 to 3600");
	sigaction(SIGINT, &sa, NULL);
	rc = run(looks);
	json_decref(looks[0].status);
	json_decref(looks[1].status);
	return interrupted ? 0 : rc;
}
