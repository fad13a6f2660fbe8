/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every entry point of the driver fails, at its first call and at a later one, while a backend is opened,
 * a weight and a pool are made and two steps are run: whoever called must get an error that names the
 * call and the driver's code, and nothing may crash. Out of memory is -ENOMEM, anything else -EIO.
 *
 * Each case is a process of its own: the fake driver keeps what is broken.
 */
#include "kernels/cuda/driver.h"
#include "tests/cuda/fake_device.h"
#include "tests/kernels/kt.h"
#include "tests/tap.h"

#include "kernels/module.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define K     64u
#define N     48u
#define STEPS 4
#define SENT  2 /* the first, and the first after something has grown */

/* --- one case ----------------------------------------------------------------------------------------*/

struct rig {
	const struct wk_ops *ops;
	struct wk_backend *be;
	struct wk_buf *pool, *h, *x, *y, *norm;
	struct wk_weight *w;
};

static int make(struct rig *r)
{
	static float data[N * K];
	struct wk_weight_part part = {data, WK_F32, N};
	struct wk_kv_shape shape = {1, 1, 32, 0};
	struct wk_open_options opt = {.n_threads = 1};
	float ones[K];
	int rc = r->ops->open(&opt, &r->be);

	for (uint32_t i = 0; i < N * K; i++)
		data[i] = (float)(i % 7) / 8;
	for (uint32_t i = 0; i < K; i++)
		ones[i] = 1;
	rc = rc ? rc : r->ops->weight_new(r->be, &part, 1, K, WK_PACK_PLAIN, &r->w);
	/* Large enough to be mapped. */
	rc = rc ? rc : r->ops->buf_new(r->be, (size_t)5 << 20, &r->pool);
	rc = rc ? rc : r->ops->kv_bind(r->be, &shape, r->pool, 4);
	rc = rc ? rc : r->ops->buf_new(r->be, 8 * K * 4, &r->h);
	rc = rc ? rc : r->ops->buf_new(r->be, 8 * K * 2, &r->x);
	rc = rc ? rc : r->ops->buf_new(r->be, 8 * N * 4, &r->y);
	rc = rc ? rc : r->ops->buf_new(r->be, K * 4, &r->norm);
	return rc ? rc : r->ops->buf_write(r->be, r->norm, 0, ones, sizeof(ones));
}

/* Eight times a norm and a product, so that the step is worth a graph; then a token. */
static int step(struct rig *r, struct wk_sampled *ret)
{
	const uint32_t tokens[8] = {0, 1, 2, 3, 4, 5, 6, 7}, block = 1;
	const struct wk_seq seq = {0, 8, 0, 0};
	const struct wk_batch b = {.n_rows = 8,
				   .n_seqs = 1,
				   .n_table = 1,
				   .tokens = tokens,
				   .seqs = &seq,
				   .block_table = &block};
	const struct wk_norm norm = {.h = r->h,
				     .weight = r->norm,
				     .x = r->x,
				     .n_rows = 8,
				     .dim = K,
				     .h_stride = K,
				     .x_stride = K,
				     .eps = 1e-5f};
	const struct wk_matmul product = {.w = r->w,
					  .x = r->x,
					  .out = r->y,
					  .n_rows = 8,
					  .x_stride = K,
					  .out_stride = N,
					  .scale = 1};
	const struct wk_sample draw = {
		.top_p = 1, .repetition_penalty = 1, .given = WK_NO_TOKEN, .row = 5};
	int rc;

	r->ops->kv_zero(r->be, r->pool, &block, 1);
	rc = r->ops->batch_set(r->be, &b);
	if (rc)
		return rc;
	r->ops->embed(r->be, r->w, r->h, K, 1);
	for (int i = 0; i < 8; i++) {
		r->ops->norm(r->be, &norm);
		r->ops->matmul(r->be, &product);
	}
	r->ops->sample(r->be, r->y, N, N, &draw, 1, ret);
	return r->ops->wait(r->be, r->ops->record(r->be));
}

static int run(struct rig *r, uint32_t *ret_token)
{
	struct wk_sampled got[STEPS];
	float y[8 * N];
	int rc = make(r);

	/* Sent, made into a graph, replayed, replayed. */
	for (int i = 0; !rc && i < STEPS; i++)
		rc = step(r, &got[i]);
	for (int i = 1; !rc && i < STEPS; i++)
		if (got[i].token != got[0].token || got[i].logprob != got[0].logprob)
			rc = -EBADMSG;
	rc = rc ? rc : r->ops->buf_read(r->be, r->y, 0, y, sizeof(y));
	*ret_token = rc ? 0 : got[0].token;
	return rc;
}

struct answer {
	int rc;
	uint32_t token;
	long overlapping, replayed; /* launches and graphs, by the driver's count */
	char text[256];
};

static void child(int fd, const char *plan)
{
	struct answer a = {0};
	struct rig r = {0};
	char why[256];

	if (plan)
		setenv("WEFT_FAKE_CUDA_FAIL", plan, 1);
	r.ops = wk_module_load("cuda", why, sizeof(why));
	a.rc = r.ops ? run(&r, &a.token) : -ENOSYS;
	if (r.ops)
		snprintf(a.text, sizeof(a.text), "%s", r.ops->last_error(r.be));
	a.overlapping = fake_device_number("fake_cuda_overlapping")();
	a.replayed = fake_device_number("fake_cuda_replayed")();
	/* Giving back what there is must work in any state. */
	if (r.be) {
		r.ops->weight_free(r.be, r.w);
		r.ops->buf_free(r.be, r.pool);
		r.ops->buf_free(r.be, r.h);
		r.ops->buf_free(r.be, r.x);
		r.ops->buf_free(r.be, r.y);
		r.ops->buf_free(r.be, r.norm);
		r.ops->close(r.be);
	}
	if (write(fd, &a, sizeof(a)) != sizeof(a))
		_exit(1);
	_exit(0);
}

static bool ask(const char *plan, struct answer *ret)
{
	int fds[2], status = -1;
	ssize_t n;
	pid_t pid;

	if (pipe(fds))
		bail_out("no pipe");
	fflush(NULL);
	pid = fork();
	if (!pid)
		child(fds[1], plan);
	close(fds[1]);
	n = read(fds[0], ret, sizeof(*ret));
	close(fds[0]);
	waitpid(pid, &status, 0);
	return n == (ssize_t)sizeof(*ret) && status == 0;
}

/* --- without the library of products -----------------------------------------------------------------*/

/* What is free on the device once a backend is open; what it has to say about that. */
static uint64_t free_after_open(const char *library, char path[32], char *ret_why, size_t why_bytes)
{
	struct wk_open_options opt = {.n_threads = 1};
	struct wk_backend *be = NULL;
	const struct wk_ops *ops = wk_module_load("cuda", ret_why, why_bytes);
	struct wk_info info;

	setenv("WEFT_CUBLASLT", library, 1);
	if (!ops || ops->open(&opt, &be))
		bail_out("the backend does not open");
	ops->info(be, &info);
	snprintf(path, sizeof(info.path), "%s", info.path);
	snprintf(ret_why, why_bytes, "%s", ops->last_error(be));
	ops->close(be);
	setenv("WEFT_CUBLASLT", "", 1);
	return info.device_bytes_free;
}

static void no_library(void)
{
	char path[32], why[256];
	uint64_t want = free_after_open("", path, why, sizeof(why)), got;

	ok(!*why, "a backend that wants no cuBLASLt says nothing of it: %s", why);
	got = free_after_open("/nonexistent/libcublasLt.so", path, why, sizeof(why));
	ok(strstr(why, "/nonexistent/libcublasLt.so") && !strstr(path, "cublaslt"),
	   "one that finds none says so, and opens: %s, %s", path, why);
	ok(got == want, "and keeps no memory for it: %llu bytes free, %llu",
	   (unsigned long long)got, (unsigned long long)want);
}

/* --- pieces of two sizes -----------------------------------------------------------------------------*/

#define MIB ((size_t)1 << 20)

/* One of the two pieces is lost for want of pinned memory and comes back smaller than the other: what
 * travels through them afterwards must fit both. */
static void unequal_pieces(void)
{
	struct wk_open_options opt = {.n_threads = 1};
	struct wk_backend *be = NULL;
	char why[256];
	const struct wk_ops *ops = wk_module_load("cuda", why, sizeof(why));
	uint32_t *data = malloc(40 * MIB), *got = calloc(40, MIB);
	struct wk_buf *buf;

	if (!ops || !data || !got || ops->open(&opt, &be) || ops->buf_new(be, 40 * MIB, &buf))
		bail_out("the backend does not open");
	for (uint32_t i = 0; i < 10 * MIB; i++)
		data[i] = i * 2654435761u;
	ok(!ops->buf_write(be, buf, 0, data, 12 * MIB), "12 MiB are written");
	setenv("WEFT_FAKE_CUDA_FAIL", "cuMemHostAlloc:1:2", 1);
	ok(ops->buf_write(be, buf, 0, data, 16 * MIB) == -ENOMEM,
	   "a larger piece is not to be had");
	unsetenv("WEFT_FAKE_CUDA_FAIL");
	ok(!ops->buf_write(be, buf, 0, data, 16 * MIB), "then 16 MiB are written");
	ok(!ops->buf_write(be, buf, 0, data, 40 * MIB) &&
		   !ops->buf_read(be, buf, 0, got, 40 * MIB) && !memcmp(data, got, 40 * MIB),
	   "and 40 MiB, whole");
	ops->buf_free(be, buf);
	ops->close(be);
	free(data);
	free(got);
}

/* --- cases -------------------------------------------------------------------------------------------*/

/* The table's names: what messages call an entry point. `fake` is what the fake driver calls it. */
static const struct {
	const char *name, *fake;
	int may_pass; /* a failure of it harms nothing, or it is not called here */
} calls[] = {
	{"init", "cuInit", 0},
	{"driver_version", "cuDriverGetVersion", 0},
	{"device_count", "cuDeviceGetCount", 0},
	{"device_get", "cuDeviceGet", 0},
	{"device_name", "cuDeviceGetName", 0},
	{"device_attribute", "cuDeviceGetAttribute", 0},
	{"context_retain", "cuDevicePrimaryCtxRetain", 0},
	{"stream_new", "cuStreamCreate", 0},
	{"module_load", "cuModuleLoadData", 0},
	{"function_get", "cuModuleGetFunction", 0},
	{"function_set", "cuFuncSetAttribute", 0},
	{"mem_alloc", "cuMemAlloc", 0},
	{"mem_granularity", "cuMemGetAllocationGranularity", 0},
	{"mem_create", "cuMemCreate", 0},
	{"mem_reserve", "cuMemAddressReserve", 0},
	{"mem_map", "cuMemMap", 0},
	{"mem_access", "cuMemSetAccess", 0},
	{"host_alloc", "cuMemHostAlloc", 0},
	{"host_address", "cuMemHostGetDevicePointer", 0},
	{"copy_to", "cuMemcpyHtoDAsync", 0},
	{"copy_from", "cuMemcpyDtoHAsync", 0},
	{"fill", "cuMemsetD8Async", 0},
	{"stream_wait", "cuStreamSynchronize", 0},
	{"event_new", "cuEventCreate", 0},
	{"event_record", "cuEventRecord", 0},
	{"event_wait", "cuEventSynchronize", 0},
	{"function_is", "cuFuncGetAttribute", 0},
	{"launch", "cuLaunchKernel", 0},
	{"launch", "cuLaunchKernelEx", 1},
	{"capture_begin", "cuStreamBeginCapture", 1},
	/* Without overlap it is tried again, which says what is wrong. */
	{"capture_begin", "cuStreamEndCapture", 1},
	{"capture_begin", "cuGraphInstantiate", 1},
	{"graph_launch", "cuGraphLaunch", 1},
};

static size_t call_of(const char *fake)
{
	size_t i = 0;

	while (strcmp(calls[i].fake, fake))
		i++;
	return i;
}

/* What must come of a call that fails with `code`. */
static void failing(size_t i, unsigned nth, int code, const char *code_name)
{
	int want = code == CU_OUT_OF_MEMORY ? -ENOMEM : -EIO;
	char plan[96], name[64];
	struct answer a = {0};
	bool alive;

	snprintf(plan, sizeof(plan), "%s:%u:%d", calls[i].fake, nth, code);
	alive = ask(plan, &a);
	snprintf(name, sizeof(name), "(%s)", calls[i].name);
	if (code == CU_OUT_OF_MEMORY && calls[i].may_pass && !a.rc) {
		ok(alive, "%s without memory: goes on without", calls[i].fake);
		return;
	}
	ok(alive && a.rc == want && strstr(a.text, name) && strstr(a.text, code_name),
	   "%s, call %u, code %d: %d, %s", calls[i].fake, nth, code, a.rc, a.text);
}

/* An embedding, eight norms and products, a token: all but the first may overlap. */
#define LAUNCHES 18

/* How many of the first `last` launches may be refused as a capture's are; so many graphs follow. */
static unsigned refusable(const char *call, unsigned last, uint32_t token, long replayed)
{
	char plan[64];
	unsigned n = 0;

	/* Of the first three steps only one is captured; elsewhere the same error is one. */
	for (unsigned nth = 1; nth <= last; nth++) {
		struct answer a = {0};

		snprintf(plan, sizeof(plan), "%s:%u:900", call, nth);
		if (!ask(plan, &a) || (a.rc && a.rc != -EIO) ||
		    (!a.rc && (a.token != token || a.replayed != replayed)))
			return 0;
		n += !a.rc;
	}
	return n;
}

/* A capture that is refused, at its end or at any launch in it, is done without. */
static void refused_captures(uint32_t token)
{
	static const char *const plans[] = {"cuStreamEndCapture:1:901", "cuStreamEndCapture:1:904"};

	setenv("WEFT_CUDA_OVERLAP", "0", 1);
	for (size_t i = 0; i < sizeof(plans) / sizeof(*plans); i++) {
		struct answer a = {0};
		bool well = ask(plans[i], &a);

		ok(well && !a.rc && a.token == token && !a.replayed,
		   "%s: goes on without: %d, %s, %ld graphs", plans[i], a.rc, a.text, a.replayed);
	}
	is_int(refusable("cuLaunchKernel", 60, token, 0), LAUNCHES,
	       "as many launches may be refused as a capture has");
	unsetenv("WEFT_CUDA_OVERLAP");
	is_int(refusable("cuLaunchKernelEx", 50, token, STEPS - SENT), 50,
	       "one that is to overlap may be refused anywhere: it is sent again as any other");
}

/* --- launches that overlap ---------------------------------------------------------------------------*/

/* One variable of the environment, or a failure; what comes of it in a few steps, of which some are replayed. */
static void overlap_case(const char *variable, const char *value, uint32_t token, long overlapping,
			 long replayed)
{
	const char *old = getenv(variable);
	char keep[512], plan[64] = "";
	struct answer a = {0};
	bool well;

	snprintf(keep, sizeof(keep), "%s", old ? old : "");
	if (strcmp(variable, "WEFT_FAKE_CUDA_FAIL"))
		setenv(variable, value, 1);
	else
		snprintf(plan, sizeof(plan), "%s", value);
	well = ask(*plan ? plan : NULL, &a);
	if (old)
		setenv(variable, keep, 1);
	else
		unsetenv(variable);
	ok(well && !a.rc && a.token == token && a.overlapping == overlapping &&
		   a.replayed == replayed,
	   "%s=%s: %d, %ld launches overlap, %ld graphs: %s", variable, value, a.rc, a.overlapping,
	   a.replayed, a.text);
}

static void overlaps(const struct answer *well)
{
	const char *fail = "WEFT_FAKE_CUDA_FAIL";
	/* The first step comes as two lists: in the middle of it room is made for what is sampled. */
	const long each = LAUNCHES - 1, sent = SENT * each - 1;
	char old_driver[512];

	is_int(well->overlapping, sent + (STEPS - SENT) * each,
	       "all launches of a list overlap but its first");
	is_int(well->replayed, STEPS - SENT, "all steps are graphs but the first of their kind");
	overlap_case("WEFT_CUDA_OVERLAP", "0", well->token, 0, STEPS - SENT);
	overlap_case("WEFT_FAKE_CUDA_PTX", "80", well->token, 0, STEPS - SENT);
	snprintf(old_driver, sizeof(old_driver), "%s", getenv("WEFT_CUDA_DRIVER"));
	snprintf(strstr(old_driver, ".so.1"), 16, "-old.so.1");
	overlap_case("WEFT_CUDA_DRIVER", old_driver, well->token, 0, STEPS - SENT);
	/* Refused at once, in the middle of a step, by a capture, for a graph: done without from then on, and
	 * never without graphs. */
	overlap_case(fail, "cuLaunchKernelEx:1:801", well->token, 0, STEPS - SENT);
	overlap_case(fail, "cuLaunchKernelEx:1:1", well->token, 0, STEPS - SENT);
	overlap_case(fail, "cuLaunchKernelEx:6:801", well->token, 5, STEPS - SENT);
	overlap_case(fail, "cuStreamEndCapture:1:900", well->token, sent, STEPS - SENT);
	overlap_case(fail, "cuGraphInstantiate:1:801", well->token, sent, STEPS - SENT);
	overlap_case(fail, "cuGraphInstantiate:1:1", well->token, sent, STEPS - SENT);
}

int main(void)
{
	struct answer well = {0};

	if (!fake_device()) {
		skip(1, "no emulated device here");
		return tap_done();
	}
	ok(ask(NULL, &well) && !well.rc, "without a failure all is well: %d, %s", well.rc,
	   well.text);
	refused_captures(well.token);
	overlaps(&well);
	no_library();
	unequal_pieces();
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		failing(i, 1, 719, "CUDA_ERROR_LAUNCH_FAILED");
		failing(i, 1, CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY");
	}
	for (unsigned nth = 2; nth < 20; nth += 4)
		failing(call_of("cuLaunchKernelEx"), nth, 700, "CUDA_ERROR_ILLEGAL_ADDRESS");
	for (unsigned nth = 2; nth < 6; nth++) {
		failing(call_of("cuMemAlloc"), nth, CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY");
		failing(call_of("cuMemHostAlloc"), nth, CU_OUT_OF_MEMORY,
			"CUDA_ERROR_OUT_OF_MEMORY");
	}
	return tap_done();
}
