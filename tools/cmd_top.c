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

/* A terminal of another size wants another picture, and has it at once. */
static void on_resize(int sig)
{
	(void)sig;
}

/*
 * A look is weftd's status, in which each engine's own part says when it was had ("at", in seconds). An
 * engine that did not answer in time keeps what it said before, so that what comes next is compared with that.
 */
struct look {
	json_t *status; /* owned */
};

/* --- the difference of two looks -----------------------------------------------------------------*/

/*
 * Objects of one name, then and now, and the time between; then is NULL if it is new since, or has begun
 * again. No time between: there is nothing to compare with, and all that grows is NaN.
 */
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

	if (!(p->seconds > 0))
		return NAN;
	return now >= then ? now - then : now;
}

static double rate(const struct pair *p, const char *path)
{
	return grown(p, path) / p->seconds;
}

static double percent(double part, double of)
{
	return of > 0 ? 100 * part / of : of * 0;
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
	for (size_t i = 0; i < n && p->seconds > 0; i++)
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

/* A number in a column, or "-". Each has room of its own until the line is printed: COLUMNS of them. */
#define COLUMNS 8

static const char *column(double x, const char *format)
{
	static char text[COLUMNS][24];
	static unsigned last;
	char *at = text[last++ % COLUMNS];

	if (isnan(x))
		return "-";
	snprintf(at, sizeof(text[0]), format, x);
	return at;
}

static const char *per_second(const struct pair *p, const char *path)
{
	return column(rate(p, path), "%.1f");
}

static const char *share_cached(const struct pair *p)
{
	return column(percent(grown(p, "tokens_cached"), grown(p, "tokens_in")), "%.0f%%");
}

static const char *ms(const struct pair *p, const char *path, double q)
{
	double x = quantile(p, path, q);

	return column(x, x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f");
}

static struct pair model_pair(const struct look *then, const json_t *engine)
{
	const json_t *before = json_path_named(json_path(then->status, "engines"), "model",
					       json_path_text(engine, "model"));
	struct pair p = {json_path(before, "engine"), json_path(engine, "engine"), 0};

	if (json_is_object(p.then))
		p.seconds = number(p.now, "at") - number(p.then, "at");
	/* Another engine counts from 0. */
	if (strcmp(json_path_text(p.then, "instance_id"), json_path_text(p.now, "instance_id")))
		p.then = NULL;
	return p;
}

static void model_line(const json_t *engine, const struct pair *p)
{
	double blocks = number(p->now, "blocks");

	if (!fits())
		return;
	if (!json_is_object(p->now)) {
		cli_printf(stdout, "%-16s %-9s has not answered\n", json_path_text(engine, "model"),
			   json_path_text(engine, "state"));
		return;
	}
	cli_printf(stdout, "%-16s %-9s %4.0f %5.0f %9s %7s %9s %8s %9s %9s %8s %8s %5.0f%%\n",
		   json_path_text(engine, "model"), json_path_text(engine, "state"),
		   number(p->now, "running"), number(p->now, "queued"), per_second(p, "tokens_in"),
		   share_cached(p), per_second(p, "tokens_out"), per_second(p, "steps"),
		   ms(p, "times.first_token", 0.5), ms(p, "times.first_token", 0.99),
		   ms(p, "times.between_tokens", 0.5), ms(p, "times.between_tokens", 0.99),
		   percent(blocks - number(p->now, "blocks_free"), blocks));
}

static void use_line(const char *model, const char *name, const struct pair *p, double active,
		     const char *note)
{
	if (!fits())
		return;
	cli_printf(stdout, "%-16s %-24s %6.0f %8s %9s %7s %9s%s%s\n", model, name, active,
		   per_second(p, "requests"), per_second(p, "tokens_in"), share_cached(p),
		   per_second(p, "tokens_out"), *note ? "  " : "", note);
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
		struct pair of = {json_path_named(json_path(p->then, "tenants"), "name", name),
				  item, p->seconds};

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
		struct pair of = {json_path_named(json_path(p->then, "adapters"), "name", name),
				  item, p->seconds};

		use_line(model, name, &of, number(item, "in_use"),
			 number(item, "resident") > 0 ? json_path_text(item, "kind")
						      : "not in the pool");
	}
}

static void each_model(const struct look *then, const struct look *now,
		       void (*lines)(const struct pair *p, const char *model))
{
	json_t *engine;
	size_t i;

	json_array_foreach(json_path(now->status, "engines"), i, engine)
	{
		struct pair p = model_pair(then, engine);

		lines(&p, json_path_text(engine, "model"));
	}
}

static void picture(const struct look *then, const struct look *now)
{
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
		struct pair p = model_pair(then, engine);

		model_line(engine, &p);
	}
	if (headline("tenant"))
		each_model(then, now, tenants);
	if (headline("adapter"))
		each_model(then, now, adapters);
}

/* --- the loop ------------------------------------------------------------------------------------*/

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int look(struct look *l, const struct look *before)
{
	json_t *engine, *own;
	size_t i;

	l->status = admin_do(json_pack("{s:s}", "cmd", "status"), ADMIN_QUICK, false);
	if (!l->status)
		return 1;
	json_array_foreach(json_path(l->status, "engines"), i, engine)
	{
		own = json_path(engine, "engine");
		if (json_is_object(own)) {
			json_object_set_new(own, "at", json_real(seconds_now()));
			continue;
		}
		own = json_path(json_path_named(json_path(before->status, "engines"), "model",
						json_path_text(engine, "model")),
				"engine");
		if (own)
			json_object_set(engine, "engine", own);
	}
	return 0;
}

static int height(void)
{
	struct winsize w;

	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_row < 6)
		return 1 << 20;
	return w.ws_row - 1;
}

/* The first picture has nothing to compare with, and is there at once. */
static int run(struct look looks[2])
{
	struct timespec pause = {.tv_sec = (time_t)interval};
	bool terminal = isatty(STDOUT_FILENO);

	pause.tv_nsec = (long)((interval - (double)pause.tv_sec) * 1e9);
	for (uint32_t n = 0; !interrupted && !look(&looks[1], &looks[0]); n++) {
		left = height();
		fputs(terminal ? "\033[H\033[2J" : n ? "\n" : "", stdout);
		picture(&looks[0], &looks[1]);
		fflush(stdout);
		json_decref(looks[0].status);
		looks[0] = looks[1];
		looks[1].status = NULL;
		if (times && n + 1 >= times)
			return 0;
		nanosleep(&pause, NULL); /* to its end, or to a signal */
	}
	return interrupted ? 0 : 1;
}

int cmd_top(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_interrupt}; /* no SA_RESTART: they end the pause */
	struct sigaction resized = {.sa_handler = on_resize};
	struct look looks[2] = {{.status = NULL}};
	int rc;

	cli_parse(&command, argc, argv);
	if (!(interval >= 0.1 && interval <= 3600))
		return cli_usage("--interval is from 0.1 to 3600");
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGWINCH, &resized, NULL);
	rc = run(looks);
	json_decref(looks[0].status);
	json_decref(looks[1].status);
	return rc;
}
