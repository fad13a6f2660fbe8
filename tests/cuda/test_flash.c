/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When attention goes by flash.cu, on the emulated device: the check at open finds products that are
 * wrong, and kernels that end with an error, and says so; switched off, or in deterministic mode, it is
 * not used; sequences for which there is no room go the other way, with results as good.
 *
 * Each case is a process of its own: environment and driver are the process's.
 */
#include "tests/cuda/fake_device.h"
#include "tests/kernels/kt.h"
#include "tests/tap.h"

#include "kernels/convert.h"
#include "kernels/module.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEADS  16u
#define DIM    128u
#define SEQS   70u /* of 9 rows that go on in the same two blocks: each needs a tile of its own */
#define ROWS   9u
#define POS    8u
#define WIDTH  (HEADS * DIM)
#define LAYERS 4u /* enough launches for a graph */
#define FEW    6u /* for many steps */
#define STEPS  4u /* a graph is made in the second, and used */

/* What a case gives back, in memory that both processes have. */
struct result {
	int rc;
	uint64_t rev;
	char error[256], path[32];
	long gathered, flash, whole, replayed;
	bool same; /* all steps gave the same */
	float x[SEQS * ROWS * WIDTH];
};

static struct result *result;

/* --- attention of sequences that share their keys ------------------------------------------------------*/

static struct wk_buf *made(const struct wk_ops *ops, struct wk_backend *be, size_t n)
{
	struct wk_buf *b;
	uint16_t *bits = kt_alloc(n, sizeof(*bits));

	for (size_t i = 0; i < n; i++)
		bits[i] = wk_f32_to_bf16(kt_value());
	if (ops->buf_new(be, n * sizeof(*bits), &b) || ops->buf_write(be, b, 0, bits, n * 2))
		_exit(3);
	free(bits);
	return b;
}

/* All layers; the last one's results stay. */
static uint64_t step(const struct wk_ops *ops, struct wk_backend *be, const struct wk_batch *b,
		     struct wk_attention *op)
{
	if (ops->batch_set(be, b))
		return 0;
	for (op->layer = 0; op->layer < LAYERS; op->layer++)
		ops->attention(be, op);
	return ops->record(be);
}

/* Steps in pairs, the second queued before the first is waited for. */
static int attend(const struct wk_ops *ops, struct wk_backend *be, uint32_t n_seqs, uint32_t steps)
{
	static uint32_t tokens[SEQS * ROWS];
	static uint16_t out[2][SEQS * ROWS * WIDTH];
	const struct wk_kv_shape shape = {LAYERS, 1, DIM, 0};
	const uint32_t table[] = {1, 0}; /* the same for all: 16 keys in block 1, one in block 0 */
	struct wk_seq seqs[SEQS];
	struct wk_batch b = {.n_rows = n_seqs * ROWS,
			     .n_seqs = n_seqs,
			     .n_table = 2,
			     .tokens = tokens,
			     .seqs = seqs,
			     .block_table = table};
	struct wk_attention op = {
		.n_heads = HEADS, .q_stride = WIDTH, .x_stride = WIDTH, .scale = 0.3f};
	struct wk_buf *pool;
	int r;

	kt_seed(3);
	pool = made(ops, be, 2 * ops->kv_block_bytes(be, &shape) / 2);
	op.pool = pool;
	op.q = made(ops, be, SEQS * ROWS * WIDTH);
	op.x = made(ops, be, SEQS * ROWS * WIDTH);
	for (uint32_t s = 0; s < n_seqs; s++)
		seqs[s] = (struct wk_seq){s * ROWS, ROWS, POS, 0};
	r = ops->kv_bind(be, &shape, pool, 2);
	for (uint32_t i = 0; !r && i < steps; i++) {
		uint64_t ticket = step(ops, be, &b, &op);

		if (i % 2 == 0 && i + 1 < steps)
			continue;
		r = ops->wait(be, ticket);
		r = r ? r : ops->buf_read(be, op.x, 0, out[i > 1], sizeof(out[0]));
	}
	result->same = steps > 2 && !memcmp(out[0], out[1], sizeof(out[0]));
	for (uint32_t i = 0; i < SEQS * ROWS * WIDTH; i++)
		result->x[i] = wk_bf16_to_f32(out[0][i]);
	return r;
}

/* --- a case ------------------------------------------------------------------------------------------*/

static void child(bool deterministic, uint32_t n_seqs, uint32_t steps)
{
	const struct wk_open_options opt = {.n_threads = 1, .deterministic = deterministic};
	const struct wk_ops *ops = wk_module_load("cuda", result->error, sizeof(result->error));
	struct wk_backend *be = NULL;
	struct wk_info info;
	long before[3];

	if (!ops)
		_exit(2);
	result->rc = ops->open(&opt, &be);
	snprintf(result->error, sizeof(result->error), "%s", ops->last_error(be));
	if (result->rc)
		_exit(0);
	ops->info(be, &info);
	result->rev = info.arith_rev;
	memcpy(result->path, info.path, sizeof(info.path));
	before[0] = fake_device_runs("wk_flash_gather");
	before[1] = fake_device_runs("wk_flash_128");
	before[2] = fake_device_runs("wk_attn_whole_128");
	if (steps)
		result->rc = attend(ops, be, n_seqs, steps);
	result->gathered = fake_device_runs("wk_flash_gather") - before[0];
	result->flash = fake_device_runs("wk_flash_128") - before[1];
	result->whole = fake_device_runs("wk_attn_whole_128") - before[2];
	result->replayed = fake_device_number("fake_cuda_replayed")();
	if (result->rc)
		snprintf(result->error, sizeof(result->error), "%s", ops->last_error(be));
	ops->close(be);
	_exit(0);
}

/* name=value pairs for the environment of the case. */
static void run_case(const char *const set[][2], bool deterministic, uint32_t n_seqs,
		     uint32_t steps)
{
	int status;
	pid_t pid;

	memset(result, 0, sizeof(*result));
	fflush(NULL);
	pid = fork();
	if (!pid) {
		setenv("WEFT_CUDA_FLASH", "1", 1);
		for (; set && (*set)[0]; set++)
			setenv((*set)[0], (*set)[1], 1);
		child(deterministic, n_seqs, steps);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status))
		bail_out("a case ended badly");
}

#define ENV(name, value)           \
	(const char *const[][2])   \
	{                          \
		{name, value},     \
		{                  \
			NULL, NULL \
		}                  \
	}

static bool used(void)
{
	return !result->rc && strstr(result->path, "+wgmma");
}

static void opened(void)
{
	uint64_t with;

	run_case(NULL, false, 0, 0);
	ok(used() && !*result->error, "a device of capability 9.0 has attention with wgmma: %s",
	   result->path);
	with = result->rev;
	run_case(ENV("WEFT_CUDA_FLASH", "0"), false, 0, 0);
	ok(!result->rc && !used() && !*result->error, "switched off it has not");
	ok(result->rev != with, "and its results are known for others");
	run_case(NULL, true, 0, 0);
	ok(!result->rc && !used() && !*result->error, "nor has it in deterministic mode");
	run_case(ENV("WEFT_FAKE_CUDA_SWIZZLE", "0"), false, 0, 0);
	ok(!result->rc && !used() && strstr(result->error, "attention with wgmma is not used"),
	   "products that are wrong are found out: %s", result->error);
	ok(result->rev != with, "and what is computed without is known for that");
	run_case(ENV("WEFT_FAKE_CUDA_FAIL", "cuLaunchKernel:2:1"), false, 0, 0);
	ok(!result->rc && !used() && strstr(result->error, "wgmma") &&
		   strstr(result->error, "wk_flash_128"),
	   "a kernel that cannot be launched is done without: %s", result->error);
	run_case(ENV("WEFT_FAKE_CUDA_FAIL", "cuLaunchKernel:2:719"), false, 0, 0);
	ok(result->rc == -EAGAIN && strstr(result->error, "719"),
	   "a process that has lost the device with it says that another can have it: %s",
	   result->error);
}

/* Values below 1 whose weights are rounded to bf16, and results that are: as flash.c has it. */
static bool agrees(const float *other, uint32_t n_seqs)
{
	double worst = 0, most = 0;

	for (uint32_t i = 0; i < n_seqs * ROWS * WIDTH; i++) {
		double off = fabs((double)result->x[i] - other[i]);

		worst = off <= worst ? worst : isnan(off) ? INFINITY : off;
		most = fmax(most, fabs((double)other[i]));
	}
	diag("largest difference %.1e of %.1f", worst, most);
	return most > 0.5 && worst <= 1.0 / 128;
}

static void no_room(void)
{
	static float other[SEQS * ROWS * WIDTH];

	run_case(ENV("WEFT_CUDA_FLASH", "0"), false, SEQS, 1);
	ok(!result->rc && !result->flash && result->whole == LAYERS, "without: one kernel for all");
	memcpy(other, result->x, sizeof(other));
	run_case(NULL, false, SEQS, 1);
	ok(!result->rc && result->gathered == LAYERS && result->flash == LAYERS &&
		   result->whole == LAYERS,
	   "64 sequences find room and six do not: both kernels take part (%d, %ld, %ld)",
	   result->rc, result->flash, result->whole);
	ok(agrees(other, SEQS), "with the same results");
	run_case(NULL, false, FEW, STEPS);
	ok(!result->rc && !result->whole && result->same && result->replayed > 0 &&
		   agrees(other, FEW),
	   "a few in many steps, graphs among them");
	run_case(ENV("WEFT_FAKE_CUDA_LATE", "2"), false, FEW, STEPS);
	ok(!result->rc && result->same && result->flash == LAYERS * STEPS && agrees(other, FEW),
	   "and on a device that does nothing before it must");
	run_case(ENV("WEFT_FAKE_CUDA_FAIL", "cuMemCreate:3:2"), false, SEQS, 1);
	ok(!result->rc && used() && !result->flash && result->whole == LAYERS,
	   "a device with no room at all goes the other way: %s", result->error);
}

int main(void)
{
	if (!fake_device()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (result == MAP_FAILED)
		bail_out("no memory");
	opened();
	no_room();
	return tap_done();
}
