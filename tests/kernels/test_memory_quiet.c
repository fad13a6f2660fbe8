/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_memory_quiet.c - once the CPU backend has run one row, no step asks the kernel for memory or
 * gives any back, however large it is: a filter would kill the process. The first step of all does
 * ask, which shows that the filter is there.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kernels/kt.h"
#include "tests/tap.h"

#define HEADS	 4u
#define KV_HEADS 2u
#define DIM	 64u
#define HIDDEN	 (HEADS * DIM)
#define WIDTH	 ((HEADS + 2 * KV_HEADS) * DIM)
#define VOCAB	 3000u
#define RANK	 200u
#define PIECES	 ((RANK + WK_LORA_CUT - 1) / WK_LORA_CUT)
#define SITE	 1u
#define SEQS	 64u
#define FAR	 4000u /* positions before a step that decodes */

struct rig {
	struct kt *t;
	struct wk_buf *pool, *x, *y, *q, *inv_freq, *logits;
	struct wk_weight *w;
	struct wk_lora *lora;
};

/* A part of the model's only site, with whatever is in the pool: zeros. */
static void make_adapter(struct rig *r, size_t block_bytes)
{
	static uint64_t pieces[PIECES];
	struct wk_lora_part part = {
		.site = SITE, .n = WIDTH, .k = HIDDEN, .rank = RANK, .scale = 1, .pieces = pieces};

	for (uint32_t i = 0; i < PIECES; i++)
		pieces[i] = i * block_bytes;
	if (r->t->ops->lora_new(r->t->be, &part, 1, &r->lora))
		bail_out(r->t->ops->last_error(r->t->be));
}

static void make(struct rig *r, struct kt *t)
{
	float *w = kt_alloc((size_t)WIDTH * HIDDEN, sizeof(*w)), freq[DIM / 2] = {1};
	struct wk_weight_part part = {w, WK_F32, WIDTH};
	struct wk_kv_shape shape = {.n_layers = 1, .n_kv_heads = KV_HEADS, .head_dim = DIM};
	size_t bytes;

	r->t = t;
	shape.min_block_bytes = (uint32_t)t->ops->lora_piece_bytes(t->be, WIDTH, HIDDEN);
	bytes = t->ops->kv_block_bytes(t->be, &shape);
	if (t->ops->weight_new(t->be, &part, 1, HIDDEN, WK_PACK_PLAIN, &r->w) ||
	    t->ops->buf_new(t->be, (PIECES + 1) * bytes, &r->pool) ||
	    t->ops->kv_bind(t->be, &shape, r->pool, PIECES + 1))
		bail_out(t->ops->last_error(t->be));
	make_adapter(r, bytes);
	r->x = kt_x(t, NULL, (size_t)WK_MAX_ROWS * HIDDEN);
	r->y = kt_floats(t, NULL, (size_t)WK_MAX_ROWS * WIDTH);
	r->q = kt_x(t, NULL, (size_t)WK_MAX_ROWS * HIDDEN);
	r->inv_freq = kt_floats(t, freq, DIM / 2);
	r->logits = kt_floats(t, NULL, (size_t)SEQS * VOCAB);
}

/* So many sequences of so many rows each, from position pos on; of the adapter, if so. */
static void step(struct rig *r, uint32_t n_seqs, uint32_t rows, uint32_t pos, bool adapted)
{
	static const uint32_t tokens[WK_MAX_ROWS];
	static uint32_t table[SEQS * ((FAR + WK_MAX_ROWS) / WK_BLOCK_TOKENS + 1)];
	static struct wk_sample samples[SEQS];
	static struct wk_sampled sampled[SEQS];
	const struct wk_lora *lora = r->lora;
	uint32_t blocks = (pos + rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;
	struct wk_segment segment = {.n_rows = n_seqs * rows};
	struct wk_seq seqs[SEQS];
	struct wk_batch b = {.n_rows = n_seqs * rows,
			     .n_seqs = n_seqs,
			     .n_table = n_seqs * blocks,
			     .tokens = tokens,
			     .seqs = seqs,
			     .block_table = table,
			     .n_segments = adapted,
			     .segments = &segment,
			     .n_loras = adapted,
			     .loras = &lora};
	struct wk_matmul product = {.w = r->w,
				    .x = r->x,
				    .out = r->y,
				    .n_rows = b.n_rows,
				    .x_stride = HIDDEN,
				    .out_stride = WIDTH,
				    .scale = 1,
				    .site = SITE};
	struct wk_rope_append rope = {.y = r->y,
				      .q = r->q,
				      .pool = r->pool,
				      .inv_freq = r->inv_freq,
				      .rope_scale = 1,
				      .n_heads = HEADS,
				      .y_stride = WIDTH,
				      .q_stride = HIDDEN};
	struct wk_attention attention = {.q = r->q,
					 .pool = r->pool,
					 .x = r->x,
					 .n_heads = HEADS,
					 .q_stride = HIDDEN,
					 .x_stride = HIDDEN,
					 .scale = 1};

	for (uint32_t i = 0; i < n_seqs; i++) {
		seqs[i] = (struct wk_seq){i * rows, rows, pos, i * blocks};
		samples[i] = (struct wk_sample){.row = i,
						.temperature = 1,
						.top_p = 0.9f,
						.repetition_penalty = 1,
						.n_logprobs = WK_MAX_LOGPROBS,
						.given = WK_NO_TOKEN};
	}
	/* Everybody's KV is block PIECES, the only one that holds no piece. */
	for (uint32_t i = 0; i < b.n_table; i++)
		table[i] = PIECES;
	if (r->t->ops->batch_set(r->t->be, &b))
		_exit(2);
	r->t->ops->matmul(r->t->be, &product);
	r->t->ops->rope_append(r->t->be, &rope);
	r->t->ops->attention(r->t->be, &attention);
	r->t->ops->sample(r->t->be, r->logits, VOCAB, VOCAB, samples, n_seqs, sampled);
	if (r->t->ops->wait(r->t->be, r->t->ops->record(r->t->be)))
		_exit(3);
}

/* From here on no thread may ask for memory. */
static void forbid(void)
{
	static const uint32_t calls[] = {SYS_mmap, SYS_munmap, SYS_mremap, SYS_brk, SYS_madvise};
	enum { N = sizeof(calls) / sizeof(calls[0]) };
	struct sock_filter code[N + 3];
	struct sock_fprog program = {N + 3, code};

	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					       offsetof(struct seccomp_data, nr));
	for (uint8_t i = 0; i < N; i++)
		code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i],
							   (uint8_t)(N - i), 0);
	code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program))
		_exit(4);
}

static void all_steps(struct rig *r)
{
	step(r, 1, 1, FAR, false); /* divided among the threads */
	step(r, 1, 7, 0, true);
	step(r, SEQS, 1, FAR, true);
	step(r, 3, 1, 40, true);
	step(r, SEQS, WK_MAX_ROWS / SEQS, 33, true);
	step(r, 1, WK_MAX_ROWS, FAR, true);
}

/* The wait status of a process that does so. */
static int in_child(const char *path, uint32_t threads, bool first_step)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		struct rig r;
		struct kt t;

		if (!kt_open(&t, "cpu", path, threads))
			_exit(5);
		make(&r, &t);
		if (first_step)
			step(&r, 1, 1, 0, false);
		forbid();
		all_steps(&r);
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	return status;
}

int main(void)
{
	static const char *const paths[] = {"avx512bf16", "avx512", "avx2"};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(6, "sanitizers ask for memory of their own");
	return tap_done();
#endif
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		for (uint32_t threads = 1; threads <= 2; threads++) {
			int status = in_child(paths[i], threads, true);

			if (WIFEXITED(status) && WEXITSTATUS(status) == 5)
				skip(1, "this machine has no such instructions");
			else
				is_int(status, 0, "%s, on %u: no step asks for memory", paths[i],
				       threads);
		}
	}
	{
		int status = in_child("avx2", 1, false);

		ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS,
		   "the first step does: the filter is there");
	}
	return tap_done();
}
