/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_moved.c - a reload takes a uid out of a tenant. Whoever has mapped that tenant's index sees
 * nothing more there, with an open session or after it; its open session is the other tenant's from then
 * on. Those who stay lose neither cache nor pins nor a request, wherever engine and weftd are killed.
 *
 * Of tenant a are root, who stays, and MOVES. What a request yields is compared with the same request
 * before anything has moved.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOVES  65531u
#define OTHER  65532u
#define PROMPT 200u
#define LONG   4000u

static const char together[] = "[tenant a]\nuid = 0, 65531\n[tenant b]\nuid = 65532\n";
static const char apart[] = "[tenant a]\nuid = 0\n[tenant b]\nuid = 65531, 65532\n";
static const char alone[] = "[tenant a]\nuid = 0\n";

static struct world *w;
static uint32_t long_tokens; /* of a long answer */

/* --- clients --------------------------------------------------------------------------------------*/

static struct weft *open_as(uid_t uid)
{
	struct weft *s;

	if (seteuid(uid))
		bail_out("seteuid");
	s = world_open(w);
	if (seteuid(0))
		bail_out("seteuid");
	return s;
}

static void raw_as(struct raw *r, uid_t uid, uint64_t features)
{
	struct wctl_hello h;

	raw_hello_init(&h);
	h.slots = 4;
	h.features = features;
	if (raw_open_hello(r, world_socket(w), uid, &h))
		bail_out(r->refusal.text);
}

/* Prompt number k; no two begin alike. */
static const uint32_t *prompt(uint32_t k)
{
	static uint32_t tokens[PROMPT];

	for (uint32_t i = 0; i < PROMPT; i++)
		tokens[i] = (k * 37 + i * (k + 3) + i / 7) % 190;
	return tokens;
}

static struct weft_request *begin(struct weft *s, uint32_t k, uint32_t max_tokens)
{
	struct weft_submit_options o;
	struct weft_request *r;
	struct weft_error e;

	weft_submit_options_init(&o);
	o.prompt = prompt(k);
	o.n_prompt = PROMPT;
	o.max_tokens = max_tokens;
	o.ignore_eos = 1;
	o.temperature = 0.9f;
	o.has_seed = 1;
	o.seed = 5 + k;
	o.logprobs = 1;
	if (weft_submit(s, &r, &o, &e) < 0)
		bail_out(e.message);
	return r;
}

struct answer {
	struct weft_result res;
	uint32_t n, tokens[LONG];
	float logprobs[LONG];
};

static void end(struct weft_request *r, struct answer *ret)
{
	const uint32_t *tokens;
	const struct weft_logprob *lp;

	for (int64_t have = 0, now; (now = weft_wait(r, 0, (uint32_t)have, 120000)) > have;)
		have = now;
	memset(ret, 0, sizeof(*ret));
	ret->res.size = sizeof(ret->res);
	weft_result(r, &ret->res);
	tokens = weft_tokens(r, 0, &ret->n);
	memcpy(ret->tokens, tokens, ret->n * sizeof(*tokens));
	for (uint32_t i = 0; i < ret->n; i++)
		ret->logprobs[i] = weft_logprobs(r, 0, i, &lp) > 0 ? lp->logprob : 1;
	weft_free(r);
}

static bool same(const struct answer *a, const struct answer *b)
{
	return a->res.status == WEFT_OK && b->res.status == WEFT_OK && a->n == b->n &&
	       !memcmp(a->tokens, b->tokens, sizeof(a->tokens)) &&
	       !memcmp(a->logprobs, b->logprobs, sizeof(a->logprobs));
}

/* Compute prompt k to its last token; what of it was found. */
static uint32_t ask(struct weft *s, uint32_t k)
{
	struct answer a;

	end(begin(s, k, 1), &a);
	if (a.res.status != WEFT_OK)
		bail_out(weft_status_name(a.res.status));
	return a.res.cached_tokens;
}

/* As weft_probe() says; or -errno. */
static int probe_once(struct weft *s, uint32_t k)
{
	struct weft_probe p = {.size = sizeof(p)};
	int rc = weft_probe(s, NULL, prompt(k), PROMPT, &p);

	return rc ? rc : (int)p.cached_tokens;
}

/* Once there is an engine that says it. */
static int probe(struct weft *s, uint32_t k)
{
	uint64_t until = raw_now_ns() + RAW_PATIENCE_MS * UINT64_C(1000000);
	int have;

	while ((have = probe_once(s, k)) == -EAGAIN && raw_now_ns() < until)
		raw_pause_us(500);
	return have;
}

/* The mirror follows between two steps. */
static bool probe_becomes(struct weft *s, uint32_t k, int want)
{
	uint64_t until = raw_now_ns() + RAW_PATIENCE_MS * UINT64_C(1000000);
	int have;

	while ((have = probe_once(s, k)) != want && raw_now_ns() < until)
		raw_pause_us(500);
	if (have != want)
		diag("prompt %u: %d tokens, not %d", k, have, want);
	return have == want;
}

static bool has_begun(struct weft_request *r)
{
	return weft_wait(r, 0, 3, RAW_PATIENCE_MS) > 3;
}

/* --- a spy: an index that it has mapped ------------------------------------------------------------*/

struct spy {
	int fd; /* owner */
	struct wshm_idx_reader r;
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_root root;
};

static void spy_map(struct spy *s, int fd)
{
	s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (s->fd < 0 || wshm_idx_reader_open(&s->r, s->fd))
		bail_out("the index cannot be mapped");
}

/* The engine is about to write it. */
static void spy_on(struct spy *s, int fd)
{
	spy_map(s, fd);
	for (int i = 0; i < RAW_PATIENCE_MS && !wshm_idx_secret(&s->r, s->secret, &s->root); i++)
		raw_pause_us(1000);
}

static void spy_off(struct spy *s)
{
	wshm_idx_reader_close(&s->r);
	close(s->fd);
}

/* Blocks of prompt k in its table, by the secret that it knows, whether an engine says so or not. */
static uint32_t spy_blocks(const struct spy *s, uint32_t k)
{
	const struct wshm_identity base = {{0, 0}, WSHM_BLOCK_TOKENS};
	struct wshm_key parent, key;
	const uint32_t *tokens = prompt(k);
	uint32_t n = 0;
	uint8_t tier;

	wshm_key_root(&parent, s->secret, &s->root);
	for (uint32_t i = 0; i < PROMPT / WSHM_BLOCK_TOKENS; i++) {
		wshm_key_block(&key, s->secret, &parent, &base, tokens + i * WSHM_BLOCK_TOKENS);
		wshm_idx_lookup(&s->r, &key, 1, &tier);
		n += tier != WSHM_N_TIERS;
		parent = key;
	}
	return n;
}

static bool spy_sees_an_engine(const struct spy *s)
{
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_root root;

	return wshm_idx_secret(&s->r, secret, &root);
}

/* Of every byte in the file. */
static uint64_t spy_digest(const struct spy *s)
{
	static uint64_t page[512];
	uint64_t h = 1469598103934665603u;

	for (off_t at = 0; (at = lseek(s->fd, at, SEEK_DATA)) >= 0; at += sizeof(page)) {
		if (pread(s->fd, page, sizeof(page), at) != (ssize_t)sizeof(page))
			bail_out("the index cannot be read");
		for (uint32_t i = 0; i < 512; i++)
			h = (h ^ page[i] ^ (uint64_t)at) * 1099511628211u;
	}
	return h;
}

/* --- the rest of the world -------------------------------------------------------------------------*/

static void read_secret(const char *tenant, uint8_t ret[WSHM_SECRET_BYTES])
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/state/tenant-%s.secret", world_dir(w), tenant);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, ret, WSHM_SECRET_BYTES) != WSHM_SECRET_BYTES)
		bail_out("a secret cannot be read");
	close(fd);
}

static bool secret_is(const char *tenant, const uint8_t want[WSHM_SECRET_BYTES])
{
	uint8_t now[WSHM_SECRET_BYTES];

	read_secret(tenant, now);
	return !memcmp(now, want, sizeof(now));
}

static void admin_ok(const char *line, const char *what)
{
	json_t *j = world_admin(w, line);

	ok(json_is_true(json_object_get(j, "ok")), "%s", what);
	json_decref(j);
}

static void pin(uint32_t k)
{
	char line[4096] = "{\"cmd\":\"cache-pin\",\"tenant\":\"a\",\"tokens\":[";
	const uint32_t *tokens = prompt(k);

	for (uint32_t i = 0; i < PROMPT; i++)
		sprintf(line + strlen(line), "%u%s", tokens[i], i + 1 < PROMPT ? "," : "]}");
	admin_ok(line, "a prefix of tenant a is pinned");
}

/* The index that a session was sent: its file, or -1; into *m what came with it. */
static int sent_index(struct raw *r, struct wctl_domain *m)
{
	uint32_t n_fds = 1;
	int fd = -1, n = raw_recv(r->sock, m, sizeof(*m), &fd, &n_fds, RAW_PATIENCE_MS);

	return n == (int)sizeof(*m) && m->head.type == WCTL_DOMAIN && n_fds == 1 ? fd : -1;
}

static int said_bye(struct raw *r)
{
	struct wctl_text t = {0};
	int n = raw_recv(r->sock, &t, sizeof(t), NULL, NULL, RAW_PATIENCE_MS);

	return n == (int)sizeof(t) && t.head.type == WCTL_BYE ? t.head.code : 0;
}

/* --- the tests ------------------------------------------------------------------------------------*/

enum { LONG_STAYS = 1, LONG_MOVES, BEFORE, AFTER, PINNED, OF_B, AFTER_KILL, AFTER_RESTART };

static struct weft *stays, *moves;
static struct answer ref_stays, ref_moves, got;
static struct spy gone; /* the index of a, mapped by MOVES before it moved; no session any more */
static uint8_t a_before[WSHM_SECRET_BYTES], a_after[WSHM_SECRET_BYTES];

static void prepare(void)
{
	struct raw r;

	stays = open_as(0);
	moves = open_as(MOVES);
	raw_as(&r, MOVES, 0);
	spy_on(&gone, r.index_fd);
	raw_close(&r);
	end(begin(stays, LONG_STAYS, long_tokens), &ref_stays);
	end(begin(stays, LONG_MOVES, long_tokens), &ref_moves);
	ask(stays, BEFORE);
	pin(PINNED);
	ok(probe_becomes(moves, BEFORE, PROMPT - 1), "both are of one tenant");
	is_int(spy_blocks(&gone, BEFORE), PROMPT / WSHM_BLOCK_TOKENS,
	       "and an index that is still mapped when its session is over shows what is cached");
	read_secret("a", a_before);
	ok(!memcmp(a_before, gone.secret, sizeof(a_before)), "with the secret in it");
}

static void check_sessions(struct raw *knows, struct raw *old, struct raw *other, struct spy *ret_b)
{
	struct pollfd p = {other->sock, POLLIN, 0};
	struct wctl_domain m;
	struct stat own, theirs;
	int fd = sent_index(knows, &m);

	ok(fd >= 0, "an open session is sent an index");
	is_str(m.tenant, "b", "of the tenant that it is of now");
	ok(!fstat(fd, &own) && !fstat(other->index_fd, &theirs) && own.st_ino == theirs.st_ino,
	   "the one that this tenant has had");
	is_int(said_bye(old), -ESTALE, "one that does not know what that is is ended");
	is_int(poll(&p, 1, 0), 0, "the other tenant's sessions are told nothing");
	spy_on(ret_b, fd);
	close(fd);
}

/* A uid goes from a to b while everybody is busy. */
static void test_move(void)
{
	struct raw knows, old, other;
	struct weft_request *of_stays, *of_moves;
	struct spy b, a;
	uint64_t digest;

	raw_as(&knows, MOVES, WCTL_FEATURE_DOMAIN);
	raw_as(&old, MOVES, 0);
	raw_as(&other, OTHER, WCTL_FEATURE_DOMAIN);
	of_stays = begin(stays, LONG_STAYS, long_tokens);
	of_moves = begin(moves, LONG_MOVES, long_tokens);
	ok(has_begun(of_stays) && has_begun(of_moves), "two requests run");
	ok(world_reload(w, apart), "a uid is moved");
	ok(!spy_sees_an_engine(&gone), "what it has mapped says that there is nothing");
	check_sessions(&knows, &old, &other, &b);
	ok(probe_becomes(stays, BEFORE, PROMPT - 1), "who stays sees all that was cached");
	digest = spy_digest(&gone);
	is_int(ask(stays, AFTER), 0, "and asks for something new");
	ok(probe_becomes(stays, AFTER, PROMPT - 1), "which shows");
	is_int(spy_digest(&gone), digest, "but not in what the other has mapped");
	is_int(spy_blocks(&gone, AFTER) + spy_blocks(&gone, BEFORE), 0, "where nothing is left");
	is_int(probe(moves, BEFORE) + probe(moves, AFTER), 0, "nor in its session's new index");
	is_int(ask(moves, BEFORE), 0, "nor in what its requests find");
	ok(probe_becomes(moves, BEFORE, PROMPT - 1), "until it has computed that itself");
	is_int(spy_blocks(&b, BEFORE), PROMPT / WSHM_BLOCK_TOKENS, "for its new tenant");
	ask(moves, OF_B);
	is_int(probe(stays, OF_B), 0, "of which the old one sees nothing");
	end(of_stays, &got);
	ok(same(&got, &ref_stays) && !got.res.resubmitted,
	   "a request of who stays was not disturbed");
	end(of_moves, &got);
	ok(same(&got, &ref_moves) && !got.res.resubmitted,
	   "one of who moves went on as the other tenant's");
	read_secret("a", a_after);
	ok(memcmp(a_before, a_after, sizeof(a_after)), "the old tenant has another secret");
	raw_close(&old);
	raw_as(&old, 0, 0);
	spy_on(&a, old.index_fd);
	ok(!memcmp(a.secret, a_after, sizeof(a_after)), "which its next session sees");
	admin_ok("{\"cmd\":\"cache-drop\",\"tenant\":\"a\"}", "its cache is dropped");
	ok(probe_becomes(stays, PINNED, PROMPT - 1) && probe_becomes(stays, BEFORE, 0),
	   "but for what was pinned before");
	spy_off(&a);
	spy_off(&b);
	raw_close(&knows);
	raw_close(&old);
	raw_close(&other);
	world_same(w);
}

/* Back, and the engine is killed before it can have done much about it. */
static void test_engine_killed(void)
{
	struct weft_request *of_stays, *of_moves;
	struct spy b;
	struct raw r;
	pid_t before = world_engine(w);

	raw_as(&r, MOVES, 0);
	spy_on(&b, r.index_fd);
	raw_close(&r);
	of_stays = begin(stays, LONG_STAYS, long_tokens);
	of_moves = begin(moves, LONG_MOVES, long_tokens);
	ok(has_begun(of_stays) && has_begun(of_moves), "two requests run again");
	ok(world_reload(w, together), "the uid is moved back");
	kill(before, SIGKILL);
	ok(world_wait_engine(w, before, RAW_PATIENCE_MS) > 0, "and the engine is killed");
	end(of_stays, &got);
	ok(same(&got, &ref_stays) && !got.res.resubmitted, "no request is lost");
	end(of_moves, &got);
	ok(same(&got, &ref_moves) && !got.res.resubmitted, "or another than it was");
	ask(stays, AFTER_KILL);
	ok(probe_becomes(moves, AFTER_KILL, PROMPT - 1), "they are of one tenant again");
	ok(probe_becomes(stays, PINNED, PROMPT - 1), "which has its pins");
	ok(!spy_sees_an_engine(&b) && !spy_blocks(&b, OF_B),
	   "and what b had shows nothing any more");
	spy_off(&b);
	spy_map(&b, gone.fd);
	ok(!spy_sees_an_engine(&b), "nor what a had at first, though the uid is back");
	spy_off(&b);
}

/* weftd is killed after a move, and during the next. */
static void test_daemon_killed(void)
{
	uint64_t digest;
	struct raw r;
	struct spy a;

	weft_close(moves);
	raw_as(&r, MOVES, 0);
	spy_on(&a, r.index_fd);
	raw_close(&r);
	ok(world_reload(w, apart), "moved once more");
	read_secret("a", a_after);
	kill(world_daemon(w), SIGKILL);
	world_wait_exit(w, RAW_PATIENCE_MS);
	world_restart_daemon(w);
	ok(secret_is("a", a_after), "a weftd that is killed then leaves the new secret");
	ask(stays, AFTER_RESTART);
	ok(probe_becomes(stays, AFTER_RESTART, PROMPT - 1), "who stays goes on");
	ok(!spy_sees_an_engine(&a) && !spy_blocks(&a, AFTER_RESTART), "the other sees none of it");
	spy_off(&a);

	/* The configuration is another one when weftd starts again: who has left knows the secret. */
	ok(world_reload(w, together), "moved back");
	raw_as(&r, MOVES, 0);
	spy_on(&a, r.index_fd);
	raw_close(&r);
	kill(world_daemon(w), SIGKILL);
	world_wait_exit(w, RAW_PATIENCE_MS);
	world_tenants(w, apart);
	world_restart_daemon(w);
	ok(secret_is("a", a.secret), "moved while weftd was not there: the secret is the same");
	digest = spy_digest(&a);
	ask(stays, AFTER);
	ok(probe_becomes(stays, AFTER, PROMPT - 1), "who stays goes on again");
	ok(spy_digest(&a) == digest && !spy_blocks(&a, AFTER),
	   "and it is of no use to who has nothing mapped but what nobody writes");
	spy_off(&a);
}

static void test_nobody(void)
{
	struct raw r;

	raw_as(&r, MOVES, WCTL_FEATURE_DOMAIN);
	ok(world_reload(w, alone), "a tenant is removed");
	is_int(said_bye(&r), -EACCES, "and its uids have none: their sessions end");
	is_int(probe(stays, AFTER), PROMPT - 1, "others notice nothing");
	raw_close(&r);
}

int main(void)
{
	struct world_options o = {.tenants = together, .may_die = true};

	if (geteuid())
		skip_all("needs root, to become other users");
	long_tokens = LONG / world_slowness();
	w = world_start(&o);
	prepare();
	test_move();
	test_engine_killed();
	test_daemon_killed();
	test_nobody();
	spy_off(&gone);
	admin_ok("{\"cmd\":\"cache-unpin\",\"id\":1}", "the prefix is unpinned");
	weft_close(stays);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
