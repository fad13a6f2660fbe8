/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - weft-engine: serves one model. Started by weftd, which leaves it a socket as descriptor 3
 * and the heartbeat page as descriptor 4.
 *
 *   weft-engine --name NAME --model DIR [--backend cpu|ref|cuda|auto] [--deterministic on|off]
 *               [--threads N] [--kv-bytes N] [--max-batch-tokens N] [--max-seqs N]
 *               [--prefill-chunk N] [--poll always|adaptive] [--files] [--dummy-weights on|off]
 *
 * The main thread loads the model and then is the control thread (link.c); the core thread (core.c)
 * computes. The process ends when weftd hangs up.
 */
#include "daemon/engine/engine.h"
#include "daemon/engine/model/text_files.h"
#include "kernels/module.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a device must have free beside the pool. Work space of a pass (gates and ups of 2,048 rows: 224 MiB of
 * an 8B model; logits of rows that penalties change: at most 250), graphs and the driver's own: 1 GiB.
 * Attention's partial results: 256 MiB of sums, and at most a quarter of that beside them; keys and
 * values gathered for long prompts: 512 MiB (kernels/cuda/attention.c, flash.c). */
#define DEVICE_MARGIN ((UINT64_C(1) << 30) + (UINT64_C(832) << 20))

#define DEFAULT_KV_SEQS 4 /* sequences of full length that the default pool holds */

static int usage(void)
{
	fprintf(stderr, "usage: weft-engine --name NAME --model DIR [--backend cpu|ref|cuda|auto] "
			"[--deterministic on|off]\n                   [--threads N] [--kv-bytes N] "
			"[--max-batch-tokens N] [--max-seqs N] [--prefill-chunk N]\n"
			"                   [--poll always|adaptive] [--files] "
			"[--dummy-weights on|off]\n"
			"weft-engine is started by weftd\n");
	return 2;
}

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || v < min || v > max)
		return false;
	*ret = v;
	return true;
}

static bool number32(const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
	uint64_t v;

	if (!number(text, min, max, &v))
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool option(struct engine_options *o, int c, const char *arg)
{
	switch (c) {
	case 'n':
		o->name = arg;
		return arg[0] && strlen(arg) < WCTL_NAME_BYTES;
	case 'm':
		o->model_dir = arg;
		return true;
	case 'b':
		o->backend = arg;
		return wk_ops_by_name(arg) || !strcmp(arg, "cuda") || !strcmp(arg, "auto");
	case 'd':
		o->deterministic = !strcmp(arg, "on");
		return o->deterministic || !strcmp(arg, "off");
	case 'w':
		o->dummy_weights = !strcmp(arg, "on");
		return o->dummy_weights || !strcmp(arg, "off");
	case 't':
		return number32(arg, 0, 4096, &o->threads);
	case 'k':
		return number(arg, 0, UINT64_MAX, &o->kv_bytes);
	case 'B':
		return number32(arg, 1, WK_MOST_ROWS, &o->max_batch_tokens);
	case 's':
		return number32(arg, 1, SCHED_MAX_SEQS, &o->max_seqs);
	case 'c':
		return number32(arg, 0, WK_MOST_ROWS, &o->prefill_chunk);
	case 'f':
		o->files = true;
		return true;
	case 'p':
		o->poll_always = !strcmp(arg, "always");
		return o->poll_always || !strcmp(arg, "adaptive");
	}
	return false;
}

static bool options(struct engine_options *o, int argc, char **argv)
{
	static const struct option table[] = {
		{"name", required_argument, NULL, 'n'},
		{"model", required_argument, NULL, 'm'},
		{"backend", required_argument, NULL, 'b'},
		{"deterministic", required_argument, NULL, 'd'},
		{"threads", required_argument, NULL, 't'},
		{"kv-bytes", required_argument, NULL, 'k'},
		{"max-batch-tokens", required_argument, NULL, 'B'},
		{"max-seqs", required_argument, NULL, 's'},
		{"prefill-chunk", required_argument, NULL, 'c'},
		{"poll", required_argument, NULL, 'p'},
		{"files", no_argument, NULL, 'f'},
		{"dummy-weights", required_argument, NULL, 'w'},
		{NULL, 0, NULL, 0},
	};
	const char *crash = getenv("WEFT_TEST_CRASH_TOKEN");
	int c;

	*o = (struct engine_options){
		.argv = argv,
		.backend = "cpu",
		.max_batch_tokens = WK_MOST_ROWS,
		.max_seqs = SCHED_MAX_SEQS,
		.crash_token = WK_NO_TOKEN,
		.no_system_calls = getenv("WEFT_TEST_SECCOMP") != NULL,
		.poison_free = getenv("WEFT_TEST_POISON_FREE") != NULL,
		.ahead = getenv("WEFT_TEST_AHEAD") != NULL,
	};
	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1)
		if (!option(o, c, optarg))
			return false;
	if (crash && !number32(crash, 0, WK_NO_TOKEN - 1, &o->crash_token))
		return false;
	return o->name && o->model_dir && optind == argc;
}

/* --- start ---------------------------------------------------------------------------------------*/

static uint64_t available_bytes(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

/* What of a device's memory the pool may take: all but what a pass needs beside it. */
static int device_bytes(uint64_t free_bytes, uint64_t *ret, struct weft_err *err)
{
	uint64_t margin = free_bytes / 16 + DEVICE_MARGIN;

	if (free_bytes <= margin)
		return err_set(err, -ENOMEM,
			       "the device has %llu bytes free, of which a pass may need %llu "
			       "beside the KV pool: free some, or set kv-bytes",
			       (unsigned long long)free_bytes, (unsigned long long)margin);
	*ret = free_bytes - margin;
	return 0;
}

/* Bytes of the pool: as asked, or all that is free on a device, or for a few sequences of full length
 * within a quarter of what the machine has left. */
static int pool_bytes(const struct engine *e, uint64_t *ret, struct weft_err *err)
{
	uint64_t quarter = available_bytes() / 4;
	struct wk_info info;

	*ret = e->opt.kv_bytes;
	if (*ret)
		return 0;
	e->ops->info(e->be, &info);
	if (info.device_bytes_free)
		return device_bytes(info.device_bytes_free, ret, err);
	*ret = e->block_bytes * blocks_for(e->config->max_positions) * DEFAULT_KV_SEQS;
	if (quarter && *ret > quarter)
		*ret = quarter;
	return 0;
}

/* Begin anew, once, with the environment as it is now: the descriptors that are inherited stay. */
static void begin_anew(char **argv, const char *why)
{
	if (getenv("WEFT_ENGINE_AGAIN"))
		return;
	log_line(LOG_LEVEL_WARN, "event=begins-anew why=\"%s\"", why);
	setenv("WEFT_ENGINE_AGAIN", "1", 1);
	execv("/proc/self/exe", argv);
	log_line(LOG_LEVEL_ERROR, "event=begins-anew errno=%d", errno);
}

/* Open a backend by its name; what goes wrong is in err. */
static int backend_open(struct engine *e, const char *name, struct weft_err *err)
{
	struct wk_open_options opt = {
		.n_threads = e->opt.threads,
		.poll_always = e->opt.poll_always,
		.deterministic = e->opt.deterministic,
	};
	const struct wk_ops *ops = wk_ops_by_name(name);
	char why[256];
	int rc;

	if (!ops)
		ops = wk_module_load(name, why, sizeof(why));
	if (!ops)
		return err_set(err, -ENOENT, "loading backend %s: %s", name, why);
	rc = ops->open(&opt, &e->be);
	if (rc == -EAGAIN)
		begin_anew(e->opt.argv, ops->last_error(NULL));
	if (rc)
		return err_set(err, rc, "opening backend %s: %s (%s)", name, ops->last_error(NULL),
			       strerror(-rc));
	e->ops = ops;
	return 0;
}

/* With auto: a device if there is one, else the CPU, and the log says why. */
static int device_open(struct engine *e, struct weft_err *err)
{
	const char *name = e->opt.backend;
	int rc;

	if (!strcmp(name, "auto")) {
		name = "cuda";
		if (backend_open(e, name, err)) {
			log_line(LOG_LEVEL_INFO, "event=no-device why=\"%s\"", err->message);
			name = "cpu";
		}
	}
	rc = e->be ? 0 : backend_open(e, name, err);
	if (rc)
		return rc;
	e->ops->info(e->be, &e->info);
	if (e->opt.max_batch_tokens > e->info.max_rows)
		e->opt.max_batch_tokens = e->info.max_rows;
	if (!strcmp(name, "cuda") && *e->ops->last_error(e->be))
		log_line(LOG_LEVEL_WARN, "event=goes-without why=\"%s\"",
			 e->ops->last_error(e->be));
	return 0;
}

static int load(struct engine *e, struct weft_err *err)
{
	struct model_open_options opt = {
		.dir = e->opt.model_dir,
		.progress = link_progress,
		.progress_arg = e,
		.dummy = e->opt.dummy_weights,
	};
	uint64_t bytes, blocks;
	int rc = model_open(e->ops, e->be, &opt, &e->model, err);

	if (rc)
		return rc;
	if (opt.dummy)
		log_line(LOG_LEVEL_WARN, "event=dummy-weights");
	e->config = model_config_of(e->model);
	e->weight_bytes = model_weight_bytes(e->model);
	e->block_bytes = model_block_bytes(e->model);
	for (uint32_t i = 0; i < e->config->n_eos; i++)
		if (e->config->eos[i] < e->config->vocab)
			e->eos[e->n_eos++] = e->config->eos[i];
	rc = pool_bytes(e, &bytes, err);
	if (rc)
		return rc;
	blocks = bytes / e->block_bytes;
	if (blocks > INT32_MAX)
		blocks = INT32_MAX;
	if (!blocks)
		return err_set(
			err, -EINVAL,
			"the KV pool of %llu bytes holds no block of %llu bytes: raise kv-bytes",
			(unsigned long long)bytes, (unsigned long long)e->block_bytes);
	rc = model_pool_new(e->model, (uint32_t)blocks, &e->pool_buf, err);
	if (rc)
		return rc;
	if (block_pool_init(&e->blocks, (uint32_t)blocks))
		return err_set(err, -ENOMEM, "making the block pool: out of memory");
	return 0;
}

static int cache_start(struct engine *e, struct weft_err *err)
{
	struct cache_options opt = {.policy = &cache_policy_lru};
	int rc;

	domain_root(e, &opt.root);
	rc = cache_new(&e->cache, &e->blocks, &opt);
	return rc ? err_set(err, rc, "making the prefix cache: out of memory") : 0;
}

static int inherited(struct engine *e, struct weft_err *err)
{
	struct stat st;
	void *page;

	if (fstat(WLINK_FD_SOCKET, &st) < 0 || !S_ISSOCK(st.st_mode) ||
	    fstat(WLINK_FD_HEARTBEAT, &st) < 0 || st.st_size < (off_t)sizeof(*e->heartbeat))
		return err_set(err, -EBADF,
			       "descriptors 3 (socket) and 4 (heartbeat) must be inherited: "
			       "weft-engine is started by weftd");
	page = mmap(NULL, sizeof(*e->heartbeat), PROT_READ | PROT_WRITE, MAP_SHARED,
		    WLINK_FD_HEARTBEAT, 0);
	if (page == MAP_FAILED)
		return err_set(err, -errno, "mapping the heartbeat page: %s", strerror(errno));
	e->heartbeat = page;
	return 0;
}

static int start(struct engine *e, pthread_t *core, struct weft_err *err)
{
	struct sched_options opt = {
		.max_rows = e->opt.max_batch_tokens,
		.max_seqs = e->opt.max_seqs,
		.chunk = e->opt.prefill_chunk,
		.max_mixed = e->info.short_rows,
		.probe = reuse_probe,
		.adopt = reuse_adopt,
		.leave = reuse_leave,
		.arg = e,
	};
	int rc = mail_init(&e->to_core);

	if (!rc)
		rc = mail_init(&e->to_control);
	if (!rc)
		rc = bell_open(&e->bell);
	if (!rc)
		rc = core_init(e);
	if (!rc && getrandom(&e->instance_id, sizeof(e->instance_id), 0) < 0)
		rc = -errno;
	if (rc)
		return err_set(err, rc, "starting the engine: %s", strerror(-rc));
	sched_init(&e->sched, &opt, &e->blocks);
	rc = -pthread_create(core, NULL, core_main, e);
	if (rc)
		return err_set(err, rc, "starting the core thread: %s", strerror(-rc));
	pthread_setname_np(*core, "weft-core");
	return 0;
}

int main(int argc, char **argv)
{
	static struct engine engine; /* large, and one per process */
	struct engine *e = &engine;
	struct weft_err err = {0};
	char name[64];
	pthread_t core;

	/* Begun anew it would be called exe. */
	prctl(PR_SET_NAME, "weft-engine");
	if (!options(&e->opt, argc, argv))
		return usage();
	snprintf(name, sizeof(name), "weft-engine[%.40s]", e->opt.name);
	log_set_name(name);
	if (inherited(e, &err)) {
		log_line(LOG_LEVEL_ERROR, "event=start-failed why=\"%s\"", err.message);
		return 1;
	}
	/* weftd decides when to stop; a Ctrl-C on the terminal reaches the whole group. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a memfd that is too large is an error */
	orphan_guard_start(e);
	if (device_open(e, &err) || load(e, &err) || warm_up(e, &err) || cache_start(e, &err) ||
	    start(e, &core, &err))
		_exit(link_fail(&err)); /* not exit(): a driver that has failed may hang in it */
	log_line(LOG_LEVEL_INFO,
		 "event=ready type=%s backend=%s path=%s threads=%u weight_bytes=%llu blocks=%u "
		 "block_bytes=%llu",
		 e->config->model_type, e->info.name, e->info.path, e->info.n_threads,
		 (unsigned long long)e->weight_bytes, e->blocks.n,
		 (unsigned long long)e->block_bytes);
	if (e->opt.files)
		text_files_send(e->opt.model_dir, WLINK_FD_FILES);
	link_ready(e);
	/* Not exit(): the core thread is in the middle of something. */
	_exit(link_main(e));
}
