/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_leak.c - can a tenant tell what another one has asked? In every trial a victim asks for one of
 * two prompts, and an attacker of another tenant, who knows one of them, tries to find out which: by
 * the time to the first token and to the end, the time in forward passes, the wait in the queue,
 * cached_tokens, its own index, the order in which two requests of its own come through, what has
 * become of its own older prompts, and all of that together.
 *
 *   class 0   the victim asks for a prompt that the attacker does not ask for
 *   class 1   the victim asks for the very prompt that the attacker then asks for
 *
 * Both are of the same length, and trials of both are mixed at random, so the load is the same. In
 * half of them the victim has ended before, in the others it is computing just then; in half of
 * them the victim uses an adapter, in half of them the attacker does. The pool is so small that both
 * lose older blocks all the time.
 *
 * A measure that tells nothing has an area under its ROC curve of 1/2; the estimate from n trials of
 * each class scatters by sqrt(1 / (6 n)). A check fails beyond 5.5 of these, which chance does once
 * in 25 million checks; from FULL_SIZE trials of each class on, of which half have the measures that
 * take a request of their own, beyond 0.02, five of these. The same attacker inside the victim's
 * tenant is the control: it must succeed.
 *
 * WEFT_TRIALS sets the number of trials of each class.
 *
 * What this cannot show, because it is load and not content: how much the victim asks for, whether it
 * uses some adapter at all (an adapter that nobody has used for long may have to be brought back into
 * the pool, whoever asks next), and how much the victim's own hits save it.
 */
#include "daemon/common/err.h"
#include "tests/e2e/adapter_files.h"
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"
#include "tools/model_make.h"

#include <math.h>
#include <unistd.h>

#define PROMPT	  400u
#define VOCAB	  512u
#define POOL	  2000u /* blocks */
#define BLOCK	  5120u /* bytes */
#define REMEMBERS 20u	/* trials, for the fate of older prompts */
#define FULL_SIZE 20000u

static const uint32_t invocation[] = {500, 501};

enum measure {
	FIRST_TOKEN,
	LAST_TOKEN,
	FORWARD,
	QUEUED,
	CACHED,
	INDEX,
	ORDER,
	DIFFERENCE,
	OLDER,
	N_MEASURES,
};

static const char *const names[N_MEASURES] = {
	"time to the first token",
	"time to the last token",
	"time in forward passes",
	"time in the queue",
	"cached_tokens",
	"the prompt in the attacker's index",
	"which of two requests comes first",
	"by how much",
	"older prompts of its own in its index",
};

struct trial {
	int class;
	double x[N_MEASURES];
};

struct arena {
	struct eh h;
	struct eh_session *victim, *stranger, *insider;
	struct wshm_idx_reader index[2]; /* of the tenants 0 and 1 */
	uint32_t older[REMEMBERS][PROMPT];
	uint64_t x;
};

/* --- one trial --------------------------------------------------------------------------------------*/

static void random_prompt(struct arena *a, uint32_t *prompt)
{
	for (uint32_t i = 0; i < PROMPT; i++)
		prompt[i] = eh_random(&a->x) % 500;
	memcpy(prompt + PROMPT - 20, invocation, sizeof(invocation));
}

static void ask(struct arena *a, struct eh_session *s, const uint32_t *prompt, struct eh_req *ret)
{
	struct wshm_desc d;

	eh_desc(&d);
	d.max_tokens = 2;
	if (eh_random(&a->x) % 2)
		memcpy(d.adapter, "act", 4);
	eh_submit(s, &d, prompt, PROMPT, NULL, ret);
}

/* Look all the time: a sleep's end would be noise. */
static uint64_t spin(const struct eh_req *r, uint32_t tokens)
{
	uint64_t until = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);

	while (eh_state(r) != WSHM_SLOT_ENDED && eh_count(r, 0) < tokens)
		if (eh_now_ns() > until)
			bail_out("a request does not end");
	return eh_now_ns();
}

/* What weft_probe() does for the base model: blocks in the domain's own index. */
static uint32_t probe(const struct arena *a, uint32_t tenant, const uint32_t *prompt)
{
	uint8_t secret[WSHM_SECRET_BYTES], tiers[PROMPT / WSHM_BLOCK_TOKENS];
	struct wshm_key parent, keys[PROMPT / WSHM_BLOCK_TOKENS];
	const struct wshm_identity base = {{0, 0}, WSHM_BLOCK_TOKENS};
	struct wshm_root root;
	uint32_t n = 0;

	if (!wshm_idx_secret(&a->index[tenant], secret, &root))
		bail_out("the index is not published");
	wshm_key_root(&parent, secret, &root);
	for (uint32_t i = 0; i < PROMPT / WSHM_BLOCK_TOKENS; i++) {
		wshm_key_block(&keys[i], secret, &parent, &base, prompt + i * WSHM_BLOCK_TOKENS);
		parent = keys[i];
	}
	wshm_idx_lookup(&a->index[tenant], keys, PROMPT / WSHM_BLOCK_TOKENS, tiers);
	while (n < PROMPT / WSHM_BLOCK_TOKENS && tiers[n] < WSHM_N_TIERS)
		n++;
	return n;
}

static void time_one(struct arena *a, struct eh_session *s, const uint32_t *prompt, double *x)
{
	const struct wshm_slot *slot;
	uint64_t asked, first, last;
	struct eh_req r;

	asked = eh_now_ns();
	ask(a, s, prompt, &r);
	first = spin(&r, 1);
	last = spin(&r, 2);
	if (!eh_wait(&r) || eh_status(&r))
		bail_out("a request failed");
	slot = eh_slot(&r);
	x[FIRST_TOKEN] = (double)(first - asked);
	x[LAST_TOKEN] = (double)(last - asked);
	x[FORWARD] = (double)ord_load(&slot->forward_ns);
	x[QUEUED] = (double)(ord_load(&slot->t_start_ns) - slot->t_arrival_ns);
	x[CACHED] = ord_load(&slot->cached_tokens);
	eh_release(&r);
}

/* Beside one that nobody has asked before, which is sent first. */
static void race(struct arena *a, struct eh_session *s, const uint32_t *prompt, double *x)
{
	uint32_t other[PROMPT];
	struct eh_req r, o;
	int64_t ahead;

	random_prompt(a, other);
	ask(a, s, other, &o);
	ask(a, s, prompt, &r);
	if (!eh_wait(&r) || !eh_wait(&o) || eh_status(&r) || eh_status(&o))
		bail_out("a request failed");
	ahead = (int64_t)ord_load(&eh_slot(&o)->t_first_ns) -
		(int64_t)ord_load(&eh_slot(&r)->t_first_ns);
	x[ORDER] = ahead > 0;
	x[DIFFERENCE] = (double)ahead;
	memcpy(a->older[eh_random(&a->x) % REMEMBERS], other, sizeof(other));
	eh_release(&r);
	eh_release(&o);
}

static void attack(struct arena *a, struct eh_session *s, const uint32_t *prompt, double *x)
{
	for (int m = 0; m < N_MEASURES; m++)
		x[m] = NAN;
	x[INDEX] = probe(a, s->tenant, prompt);
	x[OLDER] = probe(a, s->tenant, a->older[eh_random(&a->x) % REMEMBERS]);
	if (eh_random(&a->x) % 2)
		time_one(a, s, prompt, x);
	else
		race(a, s, prompt, x);
}

static void run_trial(struct arena *a, struct eh_session *attacker, struct trial *t)
{
	uint32_t known[PROMPT], unknown[PROMPT];
	bool overlap = attacker == a->stranger && eh_random(&a->x) % 2;
	struct eh_req v;

	random_prompt(a, known);
	random_prompt(a, unknown);
	ask(a, a->victim, t->class ? known : unknown, &v);
	if (!overlap)
		spin(&v, 2);
	else
		while (eh_state(&v) == WSHM_SLOT_FREE || eh_state(&v) == WSHM_SLOT_QUEUED)
			;
	attack(a, attacker, known, t->x);
	if (!eh_wait(&v) || eh_status(&v))
		bail_out("the victim's request failed");
	eh_release(&v);
}

/* --- what the trials say ----------------------------------------------------------------------------*/

struct ranked {
	double x;
	int label; /* the trial's class; in ranks_of() its number */
};

static int compare(const void *a, const void *b)
{
	double x = ((const struct ranked *)a)->x, y = ((const struct ranked *)b)->x;

	return (x > y) - (x < y);
}

/* Area under the ROC curve: how often a trial of class 1 has more than one of class 0, ties half. */
static double area(struct ranked *r, uint32_t n)
{
	double ranks = 0, n1 = 0;

	qsort(r, n, sizeof(*r), compare);
	for (uint32_t i = 0, end; i < n; i = end) {
		for (end = i; end < n && r[end].x == r[i].x; end++)
			;
		for (uint32_t k = i; k < end; k++)
			if (r[k].label) {
				ranks += (i + 1 + end) / 2.0;
				n1++;
			}
	}
	return (ranks - n1 * (n1 + 1) / 2) / (n1 * (n - n1));
}

/* Of those n trials that have the measure; *ret_n: how many. */
static double area_of(const struct trial *t, uint32_t n, enum measure m, uint32_t *ret_n)
{
	struct ranked *r = calloc(n, sizeof(*r));
	double result;

	*ret_n = 0;
	for (uint32_t i = 0; i < n; i++)
		if (!isnan(t[i].x[m]))
			r[(*ret_n)++] = (struct ranked){t[i].x[m], t[i].class};
	result = area(r, *ret_n);
	free(r);
	return result;
}

/*
 * All measures together: the discriminant of Fisher's. In half of the trials the attacker has timed
 * one request, in half of them raced two: each kind has measures of its own, and so weights of its
 * own. A trial's score is how much likelier class 1 is than class 0 if the measures are normal with
 * one covariance, so scores of both kinds can be compared.
 */
enum { TIMED, RACED, N_KINDS };

struct weights {
	double weight[N_KINDS][N_MEASURES], middle[N_KINDS][N_MEASURES];
};

static int kind_of(const struct trial *t)
{
	return isnan(t->x[FIRST_TOKEN]) ? RACED : TIMED;
}

/* What a trial does not have is the middle: no reason for either class. */
static double have(const struct trial *t, int m)
{
	return isnan(t->x[m]) ? 0 : t->x[m];
}

/* Each measure as its rank among all trials that have it, from 0 to 1, less 1/2: one trial that waited
 * long for the processor is then no further out than any other. This does not look at the classes. */
static struct trial *ranks_of(const struct trial *t, uint32_t n)
{
	struct trial *result = calloc(n, sizeof(*result));
	struct ranked *r = calloc(n, sizeof(*r));

	memcpy(result, t, n * sizeof(*result));
	for (int m = 0; m < N_MEASURES; m++) {
		uint32_t k = 0;

		for (uint32_t i = 0; i < n; i++)
			if (!isnan(t[i].x[m]))
				r[k++] = (struct ranked){t[i].x[m], (int)i};
		qsort(r, k, sizeof(*r), compare);
		for (uint32_t i = 0, end; i < k; i = end) {
			for (end = i; end < k && r[end].x == r[i].x; end++)
				;
			for (uint32_t j = i; j < end; j++)
				result[r[j].label].x[m] = (i + end) / 2.0 / k - 0.5;
		}
	}
	free(r);
	return result;
}

/* a x = b by elimination; a is positive definite, so no pivot is looked for. x replaces b. */
static void solve(double a[N_MEASURES][N_MEASURES], double *b)
{
	for (int i = 0; i < N_MEASURES; i++)
		for (int k = i + 1; k < N_MEASURES; k++) {
			double f = a[k][i] / a[i][i];

			for (int j = i; j < N_MEASURES; j++)
				a[k][j] -= f * a[i][j];
			b[k] -= f * b[i];
		}
	for (int i = N_MEASURES - 1; i >= 0; i--) {
		for (int j = i + 1; j < N_MEASURES; j++)
			b[i] -= a[i][j] * b[j];
		b[i] /= a[i][i];
	}
}

static void learn_kind(const struct trial *t, uint32_t n, int kind, struct weights *ret)
{
	double mean[2][N_MEASURES] = {{0}}, within[N_MEASURES][N_MEASURES] = {{0}}, count[2] = {0};

	for (uint32_t i = 0; i < n; i++)
		if (kind_of(&t[i]) == kind) {
			count[t[i].class]++;
			for (int m = 0; m < N_MEASURES; m++)
				mean[t[i].class][m] += have(&t[i], m);
		}
	for (int m = 0; m < N_MEASURES; m++) {
		mean[0][m] /= count[0];
		mean[1][m] /= count[1];
		ret->weight[kind][m] = mean[1][m] - mean[0][m];
		ret->middle[kind][m] = (mean[0][m] + mean[1][m]) / 2;
		within[m][m] = 1e-6; /* a measure that never varies has no weight */
	}
	for (uint32_t i = 0; i < n; i++)
		for (int m = 0; m < N_MEASURES && kind_of(&t[i]) == kind; m++)
			for (int k = 0; k < N_MEASURES; k++)
				within[m][k] += (have(&t[i], m) - mean[t[i].class][m]) *
						(have(&t[i], k) - mean[t[i].class][k]) /
						(count[0] + count[1]);
	solve(within, ret->weight[kind]);
}

static double score(const struct trial *t, const struct weights *w)
{
	int kind = kind_of(t);
	double sum = 0;

	for (int m = 0; m < N_MEASURES; m++)
		sum += w->weight[kind][m] * (have(t, m) - w->middle[kind][m]);
	return sum;
}

/*
 * What one half of the trials, every other one, teaches is tried on the other half. Not also the
 * other way round: both figures would come from the same product of the two halves' differences, so
 * that their mean would scatter as much as each of them.
 */
static double area_together(const struct trial *raw, uint32_t n)
{
	struct trial *t = ranks_of(raw, n), *half = calloc(n / 2 + 1, sizeof(*half));
	struct ranked *r = calloc(n, sizeof(*r));
	struct weights w;
	double result;

	for (uint32_t i = 0; i < n / 2; i++)
		half[i] = t[2 * i];
	for (int kind = 0; kind < N_KINDS; kind++)
		learn_kind(half, n / 2, kind, &w);
	for (uint32_t i = 0; i < n / 2; i++)
		r[i] = (struct ranked){score(&t[2 * i + 1], &w), t[2 * i + 1].class};
	result = area(r, n / 2);
	free(half);
	free(r);
	free(t);
	return result;
}

/* --- setting up -------------------------------------------------------------------------------------*/

static struct trial *run(struct arena *a, struct eh_session *attacker, uint32_t n)
{
	struct trial *t = calloc(2 * n, sizeof(*t));
	uint32_t of_class[2] = {n, n};

	for (uint32_t i = 0; i < 2 * n; i++) {
		/* Drawn from what is left of each: as many of one as of the other in the end. */
		t[i].class = eh_random(&a->x) % (of_class[0] + of_class[1]) >= of_class[0];
		of_class[t[i].class]--;
		run_trial(a, attacker, &t[i]);
	}
	return t;
}

static void start(struct arena *a, const char *model, const char *adapter)
{
	const struct af_adapter spec = {.linears = AF_ALL,
					.rank = 8,
					.alpha = 8,
					.seed = 4,
					.n_invocation = 2,
					.invocation = {500, 501}};
	const struct model_make_options make = {
		.dir = model, .shape = "tiny", .arch = "llama", .seed = 3, .quiet = true};
	static char bytes[24];
	struct weft_err err = {0};

	if (model_make(&make, &err))
		bail_out(err.message);
	af_write(adapter, model, &spec);
	snprintf(bytes, sizeof(bytes), "%u", POOL * BLOCK);
	eh_init(&a->h, model);
	eh_arg(&a->h, "--threads");
	eh_arg(&a->h, "1");
	/* In pieces, so that who has less to compute comes through first. */
	eh_arg(&a->h, "--prefill-chunk");
	eh_arg(&a->h, "64");
	eh_arg(&a->h, "--kv-bytes");
	eh_arg(&a->h, bytes);
	eh_domain(&a->h, 0);
	eh_domain(&a->h, 1);
	eh_start(&a->h);
	if (eh_adapter_load(&a->h, adapter, "act", 0, WSHM_MISSING_ERROR, NULL))
		bail_out("the adapter cannot be loaded");
	a->victim = eh_open(&a->h, 0, 4, 1 << 20);
	a->insider = eh_open(&a->h, 0, 4, 1 << 20);
	a->stranger = eh_open(&a->h, 1, 4, 1 << 20);
	for (uint32_t i = 0; i < 2; i++)
		if (wshm_idx_reader_open(&a->index[i], eh_idx_reader_fd(&a->h, i)))
			bail_out("no reader");
	a->x = eh_now_ns() | 1;
}

static void stop(struct arena *a, const char *model, const char *adapter)
{
	static const char *const files[] = {"config.json", "generation_config.json",
					    "model.safetensors"};
	char path[300];

	for (uint32_t i = 0; i < 2; i++)
		wshm_idx_reader_close(&a->index[i]);
	eh_stop(&a->h);
	af_remove(adapter);
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", model, files[i]);
		unlink(path);
	}
	rmdir(model);
}

/* An area from that many trials of both classes, if nothing is to be learnt from them. */
static void near_half(double found, uint32_t trials, bool full, const char *what)
{
	double sigma = sqrt(1 / (3.0 * trials)), within = full ? 0.02 : 5.5 * sigma;

	ok(fabs(found - 0.5) <= within, "%s: area %.3f, within %.3f of 1/2 (%.1f sigma)", what,
	   found, within, (found - 0.5) / sigma);
}

static void judge(const struct trial *t, uint32_t n)
{
	bool full = n >= FULL_SIZE;
	uint32_t trials;
	double found;

	near_half(area_together(t, 2 * n), n, full, "all together");
	for (int m = 0; m < N_MEASURES; m++) {
		found = area_of(t, 2 * n, (enum measure)m, &trials);
		near_half(found, trials, full, names[m]);
	}
}

/* The attacker inside the victim's tenant. Of a few times one: a machine that stands still again and again
 * spoils whatever has to do with time. */
static void control(struct arena *a, uint32_t n)
{
	double found[N_MEASURES] = {0}, together = 0;
	uint32_t have;

	for (int tries = 0; tries < 5 && (together < 0.99 || found[FORWARD] > 0.1); tries++) {
		struct trial *t = run(a, a->insider, n);

		for (int m = 0; m < N_MEASURES; m++) {
			found[m] = area_of(t, 2 * n, (enum measure)m, &have);
			diag("control, %s: %.3f", names[m], found[m]);
		}
		together = area_together(t, 2 * n);
		free(t);
	}
	ok(found[CACHED] >= 0.99, "the control sees it in cached_tokens");
	ok(found[INDEX] >= 0.99, "and in the index");
	ok(found[FORWARD] <= 0.1, "and in the time of forward passes");
	ok(together >= 0.99, "and in all together");
}

int main(void)
{
	const char *wanted = getenv("WEFT_TRIALS");
	uint32_t n = wanted ? (uint32_t)strtoul(wanted, NULL, 10) : 400, n_control = 100;
	char base[] = "/tmp/weft-leak-XXXXXX", model[64], adapter[64];
	static struct arena a;
	struct trial *t;

	if (!mkdtemp(base))
		bail_out("no temporary folder");
	snprintf(model, sizeof(model), "%s/model", base);
	snprintf(adapter, sizeof(adapter), "%s/act", base);
	start(&a, model, adapter);
	/* Where nearly all keys collide little is reused, and the index says yes to everything. */
	if (WSHM_KEY_BITS == 128)
		control(&a, n_control);
	t = run(&a, a.stranger, n);
	judge(t, n);
	/* What collides is not kept, so that there is little to evict. */
	if (WSHM_KEY_BITS == 128)
		ok(eh_number(&a.h, "cache.evicted") > POOL, "blocks were evicted meanwhile");
	free(t);
	stop(&a, model, adapter);
	rmdir(base);
	return tap_done();
}
