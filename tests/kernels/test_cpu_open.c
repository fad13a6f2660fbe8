/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cpu_open.c - the CPU backend as an instance: choice of path, bounds, errors that stick.
 *
 * Which paths the machine has is taken from /proc/cpuinfo, not from the code that chooses.
 */
#include "kernels/backend.h"
#include "tests/tap.h"

#include <errno.h>

static const struct wk_ops *ops;

/* Does the kernel list a feature of this CPU? */
static bool cpu_has(const char *flag)
{
	char line[8192], word[64];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "r");

	snprintf(word, sizeof(word), " %s ", flag);
	while (f && !found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = ' ';
		found = !strncmp(line, "flags", 5) && strstr(line, word);
	}
	if (f)
		fclose(f);
	return found;
}

static const struct {
	const char *path, *flag;
} paths[] = {{"avx2", "avx2"}, {"avx512", "avx512bw"}, {"avx512bf16", "avx512_bf16"}};

static struct wk_backend *open_path(const char *path)
{
	struct wk_open_options opt = {.n_threads = 1, .path = path};
	struct wk_backend *be = NULL;

	return ops->open(&opt, &be) ? NULL : be;
}

static void test_paths(void)
{
	struct wk_open_options opt = {.n_threads = 1};
	struct wk_backend *be;
	struct wk_info info;
	uint64_t revs[3] = {0};
	int best = -1;

	for (int i = 0; i < 3; i++) {
		opt.path = paths[i].path;
		if (!cpu_has(paths[i].flag)) {
			is_int(ops->open(&opt, &be), -EINVAL, "%s is not there", opt.path);
			ok(strstr(ops->last_error(NULL), opt.path) != NULL,
			   "and the error names it");
			continue;
		}
		best = i;
		is_int(ops->open(&opt, &be), 0, "%s opens", opt.path);
		ops->info(be, &info);
		is_str(info.path, opt.path, "and is what was asked for");
		revs[i] = info.arith_rev;
		setenv("WEFT_CPU_PATH", opt.path, 1);
		ops->close(be);
		be = open_path(NULL);
		ops->info(be, &info);
		is_str(info.path, opt.path, "WEFT_CPU_PATH chooses it as well");
		ops->close(be);
	}
	ok(revs[0] && revs[0] != revs[1] && revs[1] != revs[2], "their arithmetic differs by name");
	setenv("WEFT_CPU_PATH", "avx2", 1);
	be = open_path(paths[best].path);
	ops->info(be, &info);
	is_str(info.path, paths[best].path, "the option goes before the environment");
	ops->close(be);
	setenv("WEFT_CPU_PATH", "neon", 1);
	ok(!open_path(NULL), "an unknown path is refused");
	ok(strstr(ops->last_error(NULL), "neon") != NULL, "and named: %s", ops->last_error(NULL));
	unsetenv("WEFT_CPU_PATH");
	be = open_path(NULL);
	ops->info(be, &info);
	is_str(info.path, paths[best].path, "by default the best");
	ops->close(be);
}

static void test_buffers(struct wk_backend *be)
{
	static const char zero[1000];
	char got[1000], text[] = "0123456789";
	struct wk_buf *buf;

	is_int(ops->buf_new(be, 1000, &buf), 0, "a buffer");
	ops->buf_read(be, buf, 0, got, sizeof(got));
	ok(!memcmp(got, zero, sizeof(got)), "is zero at first");
	is_int(ops->buf_write(be, buf, 990, text, 10), 0, "its last bytes can be written");
	is_int(ops->buf_read(be, buf, 990, got, 10), 0, "and read");
	ok(!memcmp(got, text, 10), "as they were");
	is_int(ops->buf_write(be, buf, 991, text, 10), -EINVAL, "one further is refused");
	is_int(ops->buf_read(be, buf, SIZE_MAX, got, 10), -EINVAL, "so is an absurd offset");
	ok(ops->buf_host(buf) != NULL, "the host can see it");
	ops->buf_free(be, buf);
	is_int(ops->buf_new(be, SIZE_MAX - 100, &buf), -ENOMEM, "an absurd size is out of memory");
	ops->buf_free(be, NULL);
}

/* One good batch of two sequences; `damage` breaks one thing. */
static int set_batch(struct wk_backend *be, int damage)
{
	uint32_t tokens[6] = {1, 2, 3, 4, 5, 6}, table[4] = {7, 8, 9, 10}, out[2] = {3, 5};
	struct wk_seq seqs[2] = {{0, 4, 15, 0}, {4, 2, 31, 2}};
	struct wk_batch b = {.n_rows = 6,
			     .n_seqs = 2,
			     .n_table = 5,
			     .n_out = 2,
			     .tokens = tokens,
			     .seqs = seqs,
			     .block_table = table,
			     .out_rows = out};
	uint32_t longer[5] = {7, 8, 9, 10, 11};

	b.block_table = longer;
	switch (damage) {
	case 1:
		b.n_rows = 0;
		break;
	case 2:
		b.n_rows = WK_MAX_ROWS + 1;
		break;
	case 3:
		seqs[1].row = 5;
		break;
	case 4:
		seqs[1].n_rows = 1;
		break;
	case 5:
		seqs[1].n_rows = 3;
		break;
	case 6:
		b.n_table = 4;
		break;
	case 7:
		seqs[0].pos = UINT32_MAX;
		break;
	case 8:
		out[1] = 3;
		break;
	case 9:
		out[1] = 6;
		break;
	case 10:
		seqs[0].n_rows = 0;
		break;
	case 11:
		b.n_out = 7;
		break;
	case 12:
		longer[4] = 12;
		break;
	}
	return ops->batch_set(be, &b);
}

static void test_batches(struct wk_backend *be)
{
	const struct wk_kv_shape shape = {1, 1, 8, 0};
	struct wk_buf *pool = NULL;

	is_int(set_batch(be, 0), -EINVAL, "blocks without a KV pool are refused");
	if (ops->buf_new(be, 12 * ops->kv_block_bytes(be, &shape), &pool) ||
	    ops->kv_bind(be, &shape, pool, 12))
		bail_out("no KV pool");
	is_int(set_batch(be, 0), 0, "a good batch");
	for (int i = 1; i <= 12; i++)
		is_int(set_batch(be, i), -EINVAL, "damage %d is seen", i);
	ops->buf_free(be, pool);
}

static void test_sticky(struct wk_backend *be)
{
	uint16_t data[64] = {0};
	struct wk_weight_part part = {data, WK_BF16, 8};
	struct wk_weight *w;
	struct wk_buf *buf;
	struct wk_matmul op = {.n_rows = 2, .x_stride = 8, .out_stride = 8, .scale = 1};
	uint64_t ticket;

	ops->weight_new(be, &part, 1, 8, WK_PACK_PLAIN, &w);
	ops->buf_new(be, 64, &buf);
	op.w = w;
	op.x = op.out = buf; /* 2 rows of 8 bf16 fit 64 bytes, 2 rows of 8 fp32 do so exactly */
	ops->matmul(be, &op);
	ticket = ops->record(be);
	is_int(ops->query(be, ticket), 1, "an operation that just fits is done");
	is_int(ops->wait(be, ticket), 0, "without error");
	op.n_rows = 3;
	ops->matmul(be, &op);
	is_int(ops->wait(be, ops->record(be)), -EINVAL, "one row more is an error at the end");
	ok(strstr(ops->last_error(be), "too small") != NULL, "which says: %s", ops->last_error(be));
	op.n_rows = 2;
	ops->matmul(be, &op);
	is_int(ops->wait(be, ops->record(be)), -EINVAL, "and it stays");
	ops->weight_free(be, w);
	ops->buf_free(be, buf);
}

int main(void)
{
	struct wk_backend *be;

	ops = wk_ops_by_name("cpu");
	unsetenv("WEFT_CPU_PATH");
	if (!cpu_has("avx2"))
		skip_all("this machine has no AVX2");
	test_paths();
	be = open_path(NULL);
	test_buffers(be);
	test_batches(be);
	test_sticky(be);
	ops->close(be);
	ops->close(NULL);
	return tap_done();
}
