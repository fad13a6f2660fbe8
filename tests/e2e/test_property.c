/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_property.c - reuse is invisible: random requests to a real engine, each answer compared, bit
 * for bit, with a model that has no cache.
 *
 * In rounds: each has an engine with a model, a chunk size, a batch size and a pool of its own,
 * mostly so small that sequences are preempted and blocks and adapters evicted all the time. Three
 * tenants send growing conversations for the base model, LoRAs and activated LoRAs, many at once;
 * requests are cancelled, given up and resumed, adapters are unloaded, by force or not, and others loaded
 * under their names, prefixes are pinned, for one tenant or for all, unpinned and dropped, and now and
 * then a client dies or the engine is killed. Whatever a request was told to have been
 * reused must have been computed by its own tenant, for the same tokens and adapters.
 *
 * WEFT_REQUESTS sets the number of requests (10,000), WEFT_SEED the seed of the first round; each
 * round prints its own, and WEFT_SEED=that WEFT_REQUESTS=1 repeats it alone.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/e2e/reuse_model.h"
#include "tests/e2e/traffic.h"
#include "tests/tap.h"

#include <errno.h>
#include <unistd.h>

#define ROUND_REQUESTS 500
#define MAX_FLIGHT     48
#define N_TENANTS      3
#define N_SESSIONS     5 /* of the tenants 0, 1, 2, 0, 1 */
#define SLOTS	       64
#define MAX_GIVEN_UP   8
#define MAX_PINS       3

static const char *const models[] = {"llama", "mistral-window", "qwen3", "granite"};
#define N_MODELS (sizeof(models) / sizeof(*models))

static struct tr_world worlds[N_MODELS];

/* A request in flight. */
struct op {
	struct tr_request r;
	struct eh_req req;
	uint64_t id;
	uint32_t tenant;
	int version;	/* of its name, when it was submitted; -1: not loaded */
	bool disturbed; /* its name was unloaded or loaded since */
	bool cancelled;
	bool is_resumed;
	uint32_t resumed[WSHM_MAX_SAMPLES]; /* tokens of each answer */
};

struct round {
	uint64_t seed;
	struct tr_world *w;
	struct tr_source source;
	struct eh h;
	struct eh_session *sessions[N_SESSIONS];
	struct reuse *reuse;
	int version[TR_NAMES]; /* loaded now; -1: none */
	struct op ops[MAX_FLIGHT];
	uint32_t n_ops, window, n_given_up;
	struct eh_req given_up[MAX_GIVEN_UP];
	int64_t pins[MAX_PINS];
	uint32_t n_pins;
	bool pinned; /* ever */
	struct tr_request burst[MAX_FLIGHT];
	char args[4][24];
};

static struct {
	uint64_t deaths, pins, crowded_out, resumed, requests, compared, cut_short, refused,
		disturbed, kills, reloads, busy;
	uint64_t prompt_tokens, cached_tokens, wrong, preemptions, evicted, adapters_evicted, ahead;
} total;

static uint64_t next_id;

/* --- adapters ---------------------------------------------------------------------------------------*/

static void disturb(struct round *rd, int name)
{
	for (uint32_t i = 0; i < rd->n_ops; i++)
		if (rd->ops[i].r.name == name)
			rd->ops[i].disturbed = true;
}

/* All that the request can leave in the cache, with version v of its name. */
static void remember(struct round *rd, const struct op *op, int v)
{
	struct tr_meaning m;
	const struct plain_result *want;

	tr_meaning(rd->w, &op->r, v, &m);
	if (m.status || op->r.d.no_cache)
		return;
	want = plain_run(rd->w->plain, &op->r.d, m.adapter, m.prompt, m.n);
	for (uint32_t k = 0; k < want->n; k++) {
		uint32_t tokens[TR_MAX_PROMPT + 8 + TR_MAX_TOKENS];

		memcpy(tokens, m.prompt, m.n * sizeof(*tokens));
		memcpy(tokens + m.n, want->tokens + (size_t)k * want->max_tokens,
		       want->count[k] * sizeof(*tokens));
		reuse_add(rd->reuse, &(struct reuse_seq){
					     .domain = op->tenant,
					     .adapter = want->instance,
					     .activation = want->activation,
					     .tokens = tokens,
					     .n = m.n + want->count[k] - 1,
					     .owner = op->id,
				     });
	}
}

static void load(struct round *rd, int name, int version)
{
	const struct tr_name *n = &rd->w->names[name];
	const struct wshm_instance *want = plain_instance(rd->w->plain, n->plain[version]);
	struct wlink_adapter_reply reply;

	disturb(rd, name);
	eh_adapter_load(&rd->h, n->dir[version], n->name, n->offset[version], n->missing, &reply);
	if (reply.head.code || reply.instance.digest[0] != want->digest[0] ||
	    reply.instance.digest[1] != want->digest[1]) {
		diag("loading %s: %d %s", n->dir[version], reply.head.code, reply.text);
		total.wrong++;
		return;
	}
	rd->version[name] = version;
	/* Those that wait in the ring may be admitted for this one. */
	for (uint32_t i = 0; i < rd->n_ops; i++)
		if (rd->ops[i].r.name == name)
			remember(rd, &rd->ops[i], version);
}

/* Another version, or none for a while. */
static void reload(struct round *rd)
{
	struct tr_source *s = &rd->source;
	int name = (int)tr_below(s, TR_NAMES), old = rd->version[name];
	struct wlink_adapter_reply reply;
	bool force = tr_chance(s, 50);

	/* Often one that is most likely in use. */
	if (rd->n_ops && rd->ops[rd->n_ops - 1].r.name >= 0 && tr_chance(s, 50)) {
		name = rd->ops[rd->n_ops - 1].r.name;
		old = rd->version[name];
	}
	total.reloads++;
	if (old < 0) {
		load(rd, name, (int)tr_below(s, TR_VERSIONS));
		return;
	}
	if (force)
		disturb(rd, name);
	eh_adapter_unload(&rd->h, rd->w->names[name].name, force, &reply);
	if (reply.head.code == -EBUSY && !force) {
		uint32_t users = rd->n_given_up;

		for (uint32_t i = 0; i < rd->n_ops; i++)
			users += rd->ops[i].r.name == name;
		if (!users) {
			diag("%s is in use, by nobody", rd->w->names[name].name);
			total.wrong++;
		}
		total.busy++;
		return;
	}
	if (reply.head.code) {
		diag("unloading: %d %s", reply.head.code, reply.text);
		total.wrong++;
	}
	disturb(rd, name);
	rd->version[name] = -1;
	if (tr_chance(s, 80))
		load(rd, name, (int)tr_below(s, TR_VERSIONS));
}

/* --- checking ---------------------------------------------------------------------------------------*/

static void wrong(struct round *rd, const struct op *op, const char *what)
{
	const struct wshm_slot *s = eh_slot(&op->req);

	if (total.wrong++ > 5)
		return;
	diag("%s: request %llu, tenant %u, %s version %d%s%s, prompt %u, n %u, status %u, cached "
	     "%u, "
	     "activation %lld",
	     what, (unsigned long long)op->id, op->tenant,
	     op->r.name < 0 ? "base" : rd->w->names[op->r.name].name, op->version,
	     op->disturbed ? " disturbed" : "", op->r.d.no_cache ? " no_cache" : "", op->r.n,
	     op->r.d.n, eh_status(&op->req), ord_load(&s->cached_tokens), (long long)s->activation);
}

static void check_reuse(struct round *rd, const struct op *op, const struct tr_meaning *m,
			const struct plain_result *want)
{
	uint32_t cached = ord_load(&eh_slot(&op->req)->cached_tokens), most;
	const struct reuse_seq seq = {
		.domain = op->tenant,
		.adapter = want->instance,
		.activation = want->activation,
		.tokens = m->prompt,
		.n = m->n,
		.owner = op->id,
	};

	most = reuse_longest(rd->reuse, &seq, op->is_resumed ? m->n : m->n - 1);
	if (op->r.d.no_cache || op->r.d.prompt_logprobs != WSHM_NO_LOGPROBS)
		most = 0;
	if (cached > most) {
		diag("reused %u positions of at most %u", cached, most);
		wrong(rd, op, "reused what nobody computed");
	}
	total.prompt_tokens += m->n;
	total.cached_tokens += cached;
}

/* As version v of its name (or the base model) would have it? */
static bool check_as(struct round *rd, const struct op *op, int v)
{
	uint32_t status = eh_status(&op->req);
	const struct plain_result *want;
	struct tr_meaning m;
	bool partial = (status == WSHM_CANCELLED && op->cancelled) ||
		       (status == WSHM_UNLOADED && op->disturbed && op->r.name >= 0);

	tr_meaning(rd->w, &op->r, v, &m);
	if (m.status)
		return m.status == status;
	if (partial && !eh_slot(&op->req)->n_samples)
		return true; /* before it was admitted: there is nothing in its slot */
	want = plain_run(rd->w->plain, &op->r.d, m.adapter, m.prompt, m.n);
	if (eh_slot(&op->req)->invocation != m.invocation) {
		diag("invocation %u, not %u", eh_slot(&op->req)->invocation, m.invocation);
		return false;
	}
	if (!plain_same_from(&op->req, want, op->r.n, partial, op->resumed))
		return false;
	check_reuse(rd, op, &m, want);
	total.compared += !partial;
	total.cut_short += partial;
	return true;
}

static bool answers_as_base(struct round *rd, const struct op *op, int v)
{
	struct tr_meaning m;

	tr_meaning(rd->w, &op->r, v, &m);
	return m.invocation == WSHM_INVOCATION_BASE;
}

static void check(struct round *rd, const struct op *op)
{
	uint32_t status = eh_status(&op->req);
	uint64_t instance = eh_slot(&op->req)->adapter_instance;

	total.disturbed += op->disturbed;
	/* Pins leave a quarter of the pool, which may not do for the largest adapter. */
	if (status == WSHM_TOO_BIG && rd->pinned) {
		total.crowded_out++;
		return;
	}
	if (op->r.name < 0) {
		if (!check_as(rd, op, 0))
			wrong(rd, op, "base model");
		return;
	}
	if (!op->disturbed) {
		if (op->version < 0 && status != WSHM_NO_ADAPTER && status != WSHM_CANCELLED)
			wrong(rd, op, "served without its adapter");
		total.refused += op->version < 0;
		if (op->version >= 0 && !check_as(rd, op, op->version))
			wrong(rd, op, "adapter");
		return;
	}
	if (status == WSHM_NO_ADAPTER || status == WSHM_NO_INVOCATION)
		return;
	for (int v = 0; v < TR_VERSIONS; v++)
		if (!instance ? eh_slot(&op->req)->n_samples == 0 || answers_as_base(rd, op, v)
			      : plain_instance(rd->w->plain, rd->w->names[op->r.name].plain[v])
						->digest[0] == instance) {
			if (!check_as(rd, op, v))
				wrong(rd, op, "adapter, loaded or unloaded meanwhile");
			return;
		}
	wrong(rd, op, "an adapter that never had its name");
}

/* --- traffic ----------------------------------------------------------------------------------------*/

/* Think of a request; where it will be answered the conversation goes on. */
static void prepare(struct round *rd, struct tr_request *r)
{
	struct tr_meaning m;
	const struct plain_result *want;
	int version;

	tr_next(&rd->source, r);
	r->d.adapter[0] = 0;
	if (r->name >= 0)
		snprintf(r->d.adapter, sizeof(r->d.adapter), "%s", rd->w->names[r->name].name);
	version = r->name < 0 ? 0 : rd->version[r->name];
	if (version < 0)
		return;
	tr_meaning(rd->w, r, version, &m);
	if (m.status)
		return;
	want = plain_run(rd->w->plain, &r->d, m.adapter, m.prompt, m.n);
	if (tr_chance(&rd->source, 60))
		tr_answered(&rd->source, r, want->tokens, want->count[0]);
}

/* As libweft does after a daemon has died: the request again, with the tokens that were delivered. */
static void resume(struct round *rd, struct op *op, const uint32_t **tokens)
{
	const struct plain_result *want;
	struct tr_meaning m;
	uint32_t all;

	if (op->version < 0 || !tr_chance(&rd->source, 5))
		return;
	tr_meaning(rd->w, &op->r, op->version, &m);
	if (m.status)
		return;
	want = plain_run(rd->w->plain, &op->r.d, m.adapter, m.prompt, m.n);
	/* One that has all its answers ends at once, without what it asks about its prompt. */
	all = op->r.d.prompt_logprobs == WSHM_NO_LOGPROBS;
	op->is_resumed = true;
	op->r.d.n_resume = op->r.d.n;
	op->r.d.instance = want->instance; /* as the slot said; 0 where the base model answered */
	for (uint32_t k = 0; k < want->n; k++) {
		op->resumed[k] = tr_below(&rd->source, want->count[k] + all);
		op->r.d.resume[k].tokens = op->resumed[k];
		tokens[k] = want->tokens + (size_t)k * want->max_tokens;
	}
	total.resumed++;
}

static struct eh_session *session_of(struct round *rd, uint32_t tenant)
{
	uint32_t other = tenant + N_TENANTS;

	return rd->sessions[other < N_SESSIONS && tr_chance(&rd->source, 50) ? other : tenant];
}

static void submit(struct round *rd, const struct tr_request *r)
{
	struct op *op = &rd->ops[rd->n_ops++];
	const uint32_t *tokens[WSHM_MAX_SAMPLES];

	*op = (struct op){.r = *r, .id = ++next_id, .tenant = r->talk % N_TENANTS};
	if (tr_chance(&rd->source, 10))
		op->tenant = tr_below(&rd->source, N_TENANTS);
	op->version = r->name < 0 ? 0 : rd->version[r->name];
	resume(rd, op, tokens);
	eh_submit(session_of(rd, op->tenant), &op->r.d, op->r.prompt, op->r.n, tokens, &op->req);
	total.requests++;
	if (op->version >= 0)
		remember(rd, op, op->version);
}

static void op_remove(struct round *rd, uint32_t i)
{
	eh_release(&rd->ops[i].req);
	rd->ops[i] = rd->ops[--rd->n_ops];
}

/* Released while it runs: the slot is the client's again once the engine says FREE. */
static void give_up(struct round *rd, uint32_t i)
{
	struct eh_req *r = &rd->given_up[rd->n_given_up++];

	*r = rd->ops[i].req;
	op_remove(rd, i);
	r->s->busy[r->slot] = true;
}

static void take_back(struct round *rd)
{
	for (uint32_t i = rd->n_given_up; i-- > 0;) {
		struct eh_req *r = &rd->given_up[i];

		if (wshm_slot_generation(eh_slot(r)) != r->generation ||
		    wshm_slot_state(eh_slot(r)) != WSHM_SLOT_FREE)
			continue;
		r->s->busy[r->slot] = false;
		*r = rd->given_up[--rd->n_given_up];
	}
}

static void __attribute__((noreturn)) stuck(struct round *rd, const struct op *op)
{
	wrong(rd, op, "does not end");
	diag("state %u, %u in flight, round WEFT_SEED=%llu", eh_state(&op->req), rd->n_ops,
	     (unsigned long long)rd->seed);
	diag("%s", eh_report(&rd->h));
	eh_kill(&rd->h);
	bail_out("a request does not end");
}

/* Take what has ended; wait for one if there is no other way. */
static void harvest(struct round *rd, uint32_t below)
{
	while (rd->n_ops > below) {
		bool any = false;

		for (uint32_t i = rd->n_ops; i-- > 0;) {
			if (eh_state(&rd->ops[i].req) != WSHM_SLOT_ENDED)
				continue;
			check(rd, &rd->ops[i]);
			op_remove(rd, i);
			any = true;
		}
		if (!any && !eh_wait(&rd->ops[0].req))
			stuck(rd, &rd->ops[0]);
	}
}

static void count_status(struct round *rd)
{
	static const char *const keys[] = {
		"\"preemptions\":", "\"evicted\":", "\"adapters_evicted\":", "\"steps_ahead\":"};
	uint64_t *sums[] = {&total.preemptions, &total.evicted, &total.adapters_evicted,
			    &total.ahead};
	const char *text = eh_report(&rd->h);

	for (int i = 0; i < 4; i++) {
		const char *at = strstr(text, keys[i]);

		*sums[i] += at ? strtoull(at + strlen(keys[i]), NULL, 10) : 0;
	}
}

/* A client dies with all that it has, and another one comes. */
static void die(struct round *rd)
{
	uint32_t which = tr_below(&rd->source, N_SESSIONS);
	struct eh_session *s = rd->sessions[which];

	for (uint32_t i = rd->n_ops; i-- > 0;)
		if (rd->ops[i].req.s == s)
			rd->ops[i] = rd->ops[--rd->n_ops];
	for (uint32_t i = rd->n_given_up; i-- > 0;)
		if (rd->given_up[i].s == s)
			rd->given_up[i] = rd->given_up[--rd->n_given_up];
	eh_close(s);
	rd->sessions[which] = eh_open(&rd->h, which % N_TENANTS, SLOTS, 4 << 20);
	total.deaths++;
}

/* The beginning of a conversation, kept in a tenant's domain or for all. */
static void pin(struct round *rd)
{
	struct tr_source *s = &rd->source;
	uint32_t talk = tr_below(s, TR_CONVERSATIONS), n = s->talks[talk].n, tokens;
	uint32_t domain = tr_chance(s, 50) ? EH_PUBLIC : talk % N_TENANTS;
	int64_t number;

	if (n > 100)
		n = 100;
	if (!n || rd->n_pins == MAX_PINS)
		return;
	reuse_add(rd->reuse, &(struct reuse_seq){
				     .domain = domain == EH_PUBLIC ? REUSE_PUBLIC : domain,
				     .activation = UINT64_MAX,
				     .tokens = s->talks[talk].tokens,
				     .n = n,
				     .owner = ++next_id,
			     });
	number = eh_pin(&rd->h, domain, s->talks[talk].tokens, n, &tokens);
	total.pins++;
	if (number < 0)
		return; /* beside what is pinned there was no room */
	rd->pins[rd->n_pins++] = number;
	rd->pinned = true;
	if (tokens > n) {
		diag("%u tokens pinned, not %u", tokens, n);
		total.wrong++;
	}
}

static void operate(struct round *rd)
{
	struct tr_source *s = &rd->source;

	if (tr_chance(s, 50))
		pin(rd);
	else if (rd->n_pins)
		eh_unpin(&rd->h, rd->pins[--rd->n_pins]);
	else
		eh_drop(&rd->h, tr_chance(s, 50) ? UINT32_MAX : tr_below(s, N_TENANTS));
}

static void mischief(struct round *rd)
{
	struct tr_source *s = &rd->source;

	if (rd->n_ops && tr_chance(s, 6)) {
		struct op *op = &rd->ops[tr_below(s, rd->n_ops)];

		op->cancelled = true;
		eh_cancel(&op->req);
	}
	if (rd->n_ops && rd->n_given_up < MAX_GIVEN_UP && tr_chance(s, 2))
		give_up(rd, tr_below(s, rd->n_ops));
	if (tr_chance(s, 3))
		reload(rd);
	if (tr_chance(s, 1))
		operate(rd);
	if (tr_below(s, 200) == 0)
		die(rd);
	if (tr_below(s, 250) == 0) {
		count_status(rd);
		eh_kill(&rd->h);
		eh_restart(&rd->h);
		rd->n_pins = 0; /* weftd would pin again; the harness does not */
		total.kills++;
	}
	if (tr_chance(s, 3))
		rd->window = 1 + tr_below(s, MAX_FLIGHT - 1);
}

/* Many requests at once, so that they meet each other, and mischief between them. */
static void burst(struct round *rd, uint32_t *done)
{
	uint32_t n = 1 + tr_below(&rd->source, rd->window);

	take_back(rd);
	harvest(rd, MAX_FLIGHT - n < rd->n_ops / 2 ? MAX_FLIGHT - n : rd->n_ops / 2);
	for (uint32_t i = 0; i < n; i++)
		prepare(rd, &rd->burst[i]);
	for (uint32_t i = 0; i < n; i++) {
		submit(rd, &rd->burst[i]);
		mischief(rd);
	}
	*done += n;
}

/* --- rounds -----------------------------------------------------------------------------------------*/

static void start(struct round *rd)
{
	static const uint32_t chunks[] = {1, 15, 16, 17, 256}, rows[] = {7, 17, 64, 256};
	struct tr_source *s = &rd->source;
	uint32_t blocks = tr_chance(s, 60) ? 60 + tr_below(s, 80) : 800;

	eh_init(&rd->h, rd->w->model_dir);
	snprintf(rd->args[0], sizeof(rd->args[0]), "%u", chunks[tr_below(s, 5)]);
	snprintf(rd->args[1], sizeof(rd->args[1]), "%u", rows[tr_below(s, 4)]);
	snprintf(rd->args[2], sizeof(rd->args[2]), "%llu",
		 (unsigned long long)(blocks * plain_block_bytes(rd->w->plain)));
	eh_arg(&rd->h, "--threads");
	eh_arg(&rd->h, tr_chance(s, 75) ? "1" : "2");
	eh_arg(&rd->h, "--prefill-chunk");
	eh_arg(&rd->h, rd->args[0]);
	eh_arg(&rd->h, "--max-batch-tokens");
	eh_arg(&rd->h, rd->args[1]);
	eh_arg(&rd->h, "--kv-bytes");
	eh_arg(&rd->h, rd->args[2]);
	/* In some, every free block holds NaN. */
	if (tr_chance(s, 25))
		setenv("WEFT_TEST_POISON_FREE", "1", 1);
	else
		unsetenv("WEFT_TEST_POISON_FREE");
	/* In some, passes are queued before the results of the last are known. */
	if (tr_chance(s, 50))
		setenv("WEFT_TEST_AHEAD", "1", 1);
	else
		unsetenv("WEFT_TEST_AHEAD");
	rd->h.supervise = false;
	eh_start(&rd->h);
	for (uint32_t i = 0; i < N_TENANTS; i++)
		eh_domain(&rd->h, i);
	eh_domain(&rd->h, EH_PUBLIC);
	for (int i = 0; i < TR_NAMES; i++)
		load(rd, i, (int)tr_below(s, TR_VERSIONS));
	for (uint32_t i = 0; i < N_SESSIONS; i++)
		rd->sessions[i] = eh_open(&rd->h, i % N_TENANTS, SLOTS, 4 << 20);
	rd->window = 1 + tr_below(s, MAX_FLIGHT - 1);
	rd->reuse = reuse_new();
}

static void run_round(uint64_t seed)
{
	static struct round rd;
	uint64_t wrong_before = total.wrong;

	memset(&rd, 0, sizeof(rd));
	rd.seed = seed;
	rd.w = &worlds[seed % N_MODELS];
	tr_source_init(&rd.source, rd.w, seed);
	start(&rd);
	for (uint32_t done = 0; done < ROUND_REQUESTS; burst(&rd, &done))
		;
	harvest(&rd, 0);
	count_status(&rd);
	if (rd.h.offences) {
		diag("a session was ended");
		total.wrong++;
	}
	if (total.wrong != wrong_before)
		diag("in round WEFT_SEED=%llu: %s, chunk %s, rows %s, pool %s bytes",
		     (unsigned long long)seed, rd.w->model_dir, rd.args[0], rd.args[1], rd.args[2]);
	eh_stop(&rd.h);
	reuse_free(rd.reuse);
	plain_forget(rd.w->plain);
}

int main(void)
{
	const char *wanted = getenv("WEFT_REQUESTS"), *given = getenv("WEFT_SEED");
	uint64_t n = wanted ? strtoull(wanted, NULL, 10) : 10000;
	uint64_t seed = given ? strtoull(given, NULL, 10) : eh_now_ns() / 1000 % 1000000000;
	char base[] = "/tmp/weft-property-XXXXXX";

	if (!mkdtemp(base))
		bail_out("no temporary folder");
	for (uint32_t i = 0; i < N_MODELS; i++)
		tr_world_init(&worlds[i], models[i], base);
	diag("WEFT_SEED=%llu", (unsigned long long)seed);
	while (total.requests < n)
		run_round(seed++);
	diag("%llu requests: %llu compared in full, %llu cut short, %llu adapter not loaded, "
	     "%llu during a reload",
	     (unsigned long long)total.requests, (unsigned long long)total.compared,
	     (unsigned long long)total.cut_short, (unsigned long long)total.refused,
	     (unsigned long long)total.disturbed);
	diag("%llu clients died", (unsigned long long)total.deaths);
	diag("%llu kills, %llu reloads (%llu refused), %llu preemptions, %llu nodes and %llu "
	     "adapters "
	     "evicted",
	     (unsigned long long)total.kills, (unsigned long long)total.reloads,
	     (unsigned long long)total.busy, (unsigned long long)total.preemptions,
	     (unsigned long long)total.evicted, (unsigned long long)total.adapters_evicted);
	diag("%llu resumed by their clients; %llu pins, beside which %llu requests found no room",
	     (unsigned long long)total.resumed, (unsigned long long)total.pins,
	     (unsigned long long)total.crowded_out);
	ok(total.crowded_out <= total.requests / 50, "few of which there were");
	is_int(total.wrong, 0, "every answer is that of a model without a cache");
	ok(total.compared > total.requests / 2, "most requests ran to their end");
	ok(total.cached_tokens > total.prompt_tokens / (WSHM_KEY_BITS == 128 ? 10 : 100),
	   "much was reused (%llu of %llu positions)", (unsigned long long)total.cached_tokens,
	   (unsigned long long)total.prompt_tokens);
	if (n >= 5000) {
		ok(total.preemptions > 0, "sequences were preempted");
		ok(total.ahead > 0, "passes were queued ahead (%llu)",
		   (unsigned long long)total.ahead);
		ok(total.evicted > 1000, "blocks were evicted");
		ok(total.adapters_evicted > 100, "adapters left the pool and came back");
		ok(total.kills > 10, "the engine was killed");
		ok(total.busy > 0 && total.disturbed > 50, "adapters were unloaded while in use");
	}
	for (uint32_t i = 0; i < N_MODELS; i++)
		tr_world_fini(&worlds[i]);
	rmdir(base);
	return tap_done();
}
