/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_idx.c - the index of a domain, one thread: what is put is found, what is removed is not, in
 * any order and through every growth, against a plain array; instances; tails against a plain list.
 */
#include "tests/shm/idx_world.h"
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static void test_region(void)
{
	int fd = wshm_idx_new(5), ro = wshm_open_read_only(fd), seals = fcntl(fd, F_GET_SEALS);
	struct wshm_idx_reader r = {0};
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_instance in;
	struct wshm_root root;
	struct wshm_key key = {1, 2};

	ok(fd >= 0 && ro >= 0, "a region");
	ok(seals & F_SEAL_SHRINK && seals & F_SEAL_GROW && seals & F_SEAL_SEAL, "it is sealed");
	ok(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, ro, 0) == MAP_FAILED, "read-only for clients");
	is_int(wshm_idx_reader_open(&r, ro), 0, "a reader opens it before any engine");
	ok(!wshm_idx_secret(&r, secret, &root), "no secret yet");
	is_int(idx_world_look(&r, &key), WSHM_N_TIERS, "nothing is found");
	is_int(wshm_idx_at(&r, 0, &in), -ENOENT, "no instance");
	is_int(wshm_idx_tail_rows(&r, &key, &(struct wshm_identity){.unadapted = 16},
				  (uint32_t[]){1}, 1),
	       0, "no tail");
	wshm_idx_reader_close(&r);
	wshm_idx_reader_close(&r);
	ok(pwrite(fd, "x", 1, 8) == 1 && wshm_idx_reader_open(&r, ro) == -EPROTO,
	   "a header of another version is refused");
	close(fd);
	close(ro);
	fd = memfd_create("idx", MFD_ALLOW_SEALING);
	ok(!ftruncate(fd, WSHM_IDX_BYTES) && wshm_idx_reader_open(&r, fd) == -EPROTO,
	   "an unsealed one is refused");
	close(fd);
}

static void test_basic(void)
{
	struct wshm_key k[3] = {idx_world_key(1), idx_world_key(2), idx_world_key(3)};
	uint8_t secret[WSHM_SECRET_BYTES], tiers[3];
	struct wshm_root root = {0};
	struct idx_world x;

	idx_world_open(&x);
	ok(wshm_idx_secret(&x.r, secret, &root) && !memcmp(secret, idx_world_secret, 192) &&
		   !memcmp(&root, &idx_world_root, sizeof(root)),
	   "secret and root can be read");
	wshm_idx_put(x.w, &k[0], WSHM_TIER_DEVICE);
	wshm_idx_put(x.w, &k[1], WSHM_TIER_DISK);
	wshm_idx_lookup(&x.r, k, 3, tiers);
	ok(tiers[0] == WSHM_TIER_DEVICE && tiers[1] == WSHM_TIER_DISK && tiers[2] == WSHM_N_TIERS,
	   "three keys: device, disk, none");
	wshm_idx_put(x.w, &k[0], WSHM_TIER_HOST);
	wshm_idx_remove(x.w, &k[1]);
	wshm_idx_remove(x.w, &k[2]);
	wshm_idx_lookup(&x.r, k, 3, tiers);
	ok(tiers[0] == WSHM_TIER_HOST && tiers[1] == WSHM_N_TIERS && tiers[2] == WSHM_N_TIERS,
	   "moved to another tier; removed; removed without being there");
	wshm_idx_writer_close(x.w);
	ok(!wshm_idx_secret(&x.r, secret, &root), "an engine that closed leaves no secret");
	is_int(idx_world_look(&x.r, &k[0]), WSHM_N_TIERS, "and nothing to find");
	x.w = NULL;
	idx_world_restart(&x);
	is_int(idx_world_look(&x.r, &k[0]), WSHM_N_TIERS, "the next one begins with nothing");
	wshm_idx_put(x.w, &k[0], WSHM_TIER_DISK);
	is_int(idx_world_look(&x.r, &k[0]), WSHM_TIER_DISK, "the old mapping reads the new one's");
	idx_world_close(&x);
}

/* An engine dies with all that it has said; weftd clears up. */
static void test_clear(void)
{
	struct wshm_instance in = {.name = "x"};
	uint8_t secret[WSHM_SECRET_BYTES];
	struct wshm_root root;
	struct wshm_key key;
	struct idx_world x;

	idx_world_open(&x);
	for (uint32_t i = 0; i < 5000; i++) {
		key = idx_world_key(i);
		wshm_idx_put(x.w, &key, WSHM_TIER_DEVICE);
	}
	wshm_idx_instance(x.w, 0, &in);
	is_int(wshm_idx_clear(x.fd), 0, "cleared");
	ok(!wshm_idx_secret(&x.r, secret, &root), "no secret");
	is_int(idx_world_look(&x.r, &key), WSHM_N_TIERS, "no entry");
	is_int(wshm_idx_find(&x.r, "x", &in), -ENOENT, "no instance");
	ok(idx_world_bytes(&x) <= 3 * WSHM_PAGE, "and nearly no memory (%u bytes)",
	   (unsigned)idx_world_bytes(&x));
	idx_world_restart(&x);
	wshm_idx_put(x.w, &key, WSHM_TIER_HOST);
	is_int(idx_world_look(&x.r, &key), WSHM_TIER_HOST, "the next engine serves the mapping");
	idx_world_close(&x);
}

/* Keys 0..n-1 against a plain array of tiers. */
static uint32_t wrong(struct idx_world *x, const uint8_t *map, uint32_t n)
{
	struct wshm_key keys[64];
	uint8_t tiers[64];
	uint32_t bad = 0;

	for (uint32_t at = 0; at < n; at += 64) {
		for (uint32_t i = 0; i < 64; i++)
			keys[i] = idx_world_key(at + i);
		wshm_idx_lookup(&x->r, keys, 64, tiers);
		for (uint32_t i = 0; i < 64; i++)
			bad += tiers[i] != map[at + i];
	}
	return bad;
}

#define RANDOM_KEYS (1u << 17)

static void test_random(void)
{
	static uint8_t map[RANDOM_KEYS];
	uint32_t bad = 0, growths = 0, full;
	uint64_t rng = 7, epoch;
	struct idx_world x;

	idx_world_open(&x);
	memset(map, WSHM_N_TIERS, sizeof(map));
	epoch = wshm_idx_epoch(x.w);
	for (uint32_t i = 0; i < 1500000; i++) {
		/* The range of keys widens and narrows, and with it the share of removals. */
		uint32_t n = 64 + (i < 1000000 ? i / 8 : (1500000 - i) / 8);
		uint32_t k = pair_random(&rng) % n;
		struct wshm_key key = idx_world_key(k);

		if (pair_random(&rng) % 8 < 5) {
			map[k] = pair_random(&rng) % WSHM_N_TIERS;
			wshm_idx_put(x.w, &key, map[k]);
		} else {
			map[k] = WSHM_N_TIERS;
			wshm_idx_remove(x.w, &key);
		}
		/* What a table in growth could not place shows in the next one. */
		bad += idx_world_look(&x.r, &key) != map[k];
		if (wshm_idx_epoch(x.w) != epoch) {
			epoch = wshm_idx_epoch(x.w);
			growths++;
			bad += wrong(&x, map, RANDOM_KEYS);
		}
	}
	full = wrong(&x, map, RANDOM_KEYS);
	diag("%u growths", growths);
	ok(growths >= 6, "the table has grown");
	is_int(bad, 0, "each change is seen at once, and everything after each growth");
	is_int(full, 0, "and at the end");
	idx_world_close(&x);
}

/* Far more than fits: no harm, nothing wrong; and a mirror that has room again is used again. */
static void test_full(void)
{
	uint32_t n = 9u << 18, found = 0, bad = 0;
	struct idx_world x;
	struct wshm_key key;

	idx_world_open(&x);
	for (uint32_t i = 0; i < n; i++) {
		key = idx_world_key(i);
		wshm_idx_put(x.w, &key, i % WSHM_N_TIERS);
	}
	for (uint32_t i = 0; i < n; i += 7) {
		uint32_t tier;

		key = idx_world_key(i);
		tier = idx_world_look(&x.r, &key);
		found += tier != WSHM_N_TIERS;
		bad += tier != WSHM_N_TIERS && tier != i % WSHM_N_TIERS;
	}
	diag("%.1f%% of what was put is in a full table", 700.0 * found / n);
	ok(found > n / 7 * 0.85, "a full region takes no more, but keeps what it has");
	is_int(bad, 0, "and none of it is wrong");
	for (uint32_t i = 0; i < n; i++) {
		key = idx_world_key(i);
		wshm_idx_remove(x.w, &key);
	}
	key = idx_world_key(n);
	wshm_idx_put(x.w, &key, WSHM_TIER_HOST);
	is_int(idx_world_look(&x.r, &key), WSHM_TIER_HOST, "emptied, it takes entries again");
	while (wshm_idx_reclaim(x.w, UINT64_MAX, 1))
		;
	ok(idx_world_bytes(&x) < (UINT64_C(18) << 20),
	   "the smaller tables' pages are given back (%u MiB left)",
	   (unsigned)(idx_world_bytes(&x) >> 20));
	idx_world_close(&x);
}

/* --- instances ---------------------------------------------------------------------------------------*/

static struct wshm_instance make_instance(uint32_t n)
{
	struct wshm_instance in = {.digest = {n * 3 + 1, n}, .rank = 8 + n, .offset = -(int)n};

	snprintf(in.name, sizeof(in.name), "adapter-%u", n);
	in.activated = n % 2;
	in.on_missing = n % 3;
	in.n_invocation = n % (WSHM_MAX_INVOCATION + 1);
	for (uint32_t i = 0; i < in.n_invocation; i++)
		in.invocation[i] = n + i;
	return in;
}

static void test_instances(void)
{
	struct wshm_instance in, got;
	struct idx_world x;
	uint32_t bad = 0;

	idx_world_open(&x);
	for (uint32_t i = 0; i < WSHM_MAX_INSTANCES; i++) {
		in = make_instance(i);
		wshm_idx_instance(x.w, i, &in);
	}
	in = make_instance(9);
	wshm_idx_instance(x.w, WSHM_MAX_INSTANCES, &in);
	for (uint32_t i = 0; i < WSHM_MAX_INSTANCES; i++) {
		in = make_instance(i);
		bad += wshm_idx_at(&x.r, i, &got) || memcmp(&in, &got, sizeof(in));
		memset(&got, 0, sizeof(got));
		bad += wshm_idx_find(&x.r, in.name, &got) || memcmp(&in, &got, sizeof(in));
	}
	is_int(bad, 0, "all instances are read as written, by index and by name");
	is_int(wshm_idx_at(&x.r, WSHM_MAX_INSTANCES, &got), -ENOENT, "none beyond");
	is_int(wshm_idx_find(&x.r, "adapter", &got), -ENOENT, "no prefix of a name");
	is_int(wshm_idx_find(&x.r, "", &got), -ENOENT, "no empty name");
	is_int(wshm_idx_find(&x.r,
			     "0123456789012345678901234567890123456789012345678901234567890123",
			     &got),
	       -ENOENT, "no name that is too long");
	wshm_idx_instance(x.w, 5, NULL);
	is_int(wshm_idx_at(&x.r, 5, &got), -ENOENT, "one that went is gone");
	is_int(wshm_idx_find(&x.r, "adapter-5", &got), -ENOENT, "by name too");
	ok(!wshm_idx_find(&x.r, "adapter-6", &got), "its neighbour is there");
	memset(&in, 0xa5, sizeof(in));
	memcpy(in.name, "dirty", 6);
	in.n_invocation = 1;
	in.on_missing = 0;
	wshm_idx_instance(x.w, 5, &in);
	ok(!wshm_idx_at(&x.r, 5, &got) && !got.name[6] && !got.name[62] && !got.invocation[1] &&
		   !got.reserved,
	   "nothing of the engine's memory but what was meant");
	idx_world_restart(&x);
	is_int(wshm_idx_find(&x.r, "adapter-6", &got), -ENOENT, "a new engine has none");
	idx_world_close(&x);
}

/* --- tails -------------------------------------------------------------------------------------------*/

#define TAILS 300u

struct plain_tail {
	bool live;
	uint32_t handle, parent, rows;
	struct wshm_identity id;
	uint32_t tokens[WSHM_IDX_TAIL_ROWS];
};

static struct wshm_identity random_identity(uint64_t *rng)
{
	struct wshm_identity id = {{0, 0}, WSHM_BLOCK_TOKENS};

	if (pair_random(rng) % 2) {
		id.adapter[0] = 1 + pair_random(rng) % 2;
		id.adapter[1] = pair_random(rng) % 2;
		id.unadapted = pair_random(rng) % 15;
	}
	return id;
}

/* Written from the definition: position by position, token and whose row it is. */
static uint32_t plain_rows(const struct plain_tail *t, const struct wshm_identity *id,
			   const uint32_t *tokens, uint32_t n)
{
	uint32_t i = 0;

	while (i < n && i < t->rows && t->tokens[i] == tokens[i]) {
		uint64_t mine[2] = {0, 0}, its[2] = {0, 0};

		if (i >= id->unadapted)
			memcpy(mine, id->adapter, sizeof(mine));
		if (i >= t->id.unadapted)
			memcpy(its, t->id.adapter, sizeof(its));
		if (memcmp(mine, its, sizeof(mine)))
			break;
		i++;
	}
	return i;
}

static void random_tokens(uint64_t *rng, uint32_t *tokens)
{
	for (uint32_t i = 0; i < WSHM_IDX_TAIL_ROWS; i++)
		tokens[i] = pair_random(rng) % 8 ? 5 : 6;
}

static void tail_turn(struct idx_world *x, struct plain_tail *t, uint64_t *rng)
{
	struct wshm_key parent;

	if (!t->live) {
		t->live = true;
		t->rows = 0;
		t->parent = pair_random(rng) % 20;
		t->id = random_identity(rng);
		random_tokens(rng, t->tokens);
		parent = idx_world_key(t->parent);
		t->handle = wshm_idx_tail_new(x->w, &parent, &t->id);
	} else if (t->rows == WSHM_IDX_TAIL_ROWS || !(pair_random(rng) % 8)) {
		wshm_idx_tail_free(x->w, t->handle);
		t->live = false;
	} else {
		t->rows += 1 + pair_random(rng) % (WSHM_IDX_TAIL_ROWS - t->rows);
		wshm_idx_tail_set(x->w, t->handle, t->tokens, t->rows);
	}
}

static void test_tails(void)
{
	static struct plain_tail plain[TAILS];
	uint32_t bad = 0, hits = 0, want, got;
	uint64_t rng = 11;
	struct idx_world x;

	idx_world_open(&x);
	for (uint32_t turn = 0; turn < 200000; turn++) {
		uint32_t tokens[WSHM_IDX_TAIL_ROWS], parent = pair_random(&rng) % 21;
		uint32_t n = pair_random(&rng) % 16;
		struct wshm_identity id = random_identity(&rng);
		struct wshm_key key = idx_world_key(parent);

		tail_turn(&x, &plain[pair_random(&rng) % TAILS], &rng);
		random_tokens(&rng, tokens);
		want = 0;
		for (uint32_t i = 0; i < TAILS; i++) {
			uint32_t rows = plain[i].live && plain[i].parent == parent
						? plain_rows(&plain[i], &id, tokens, n)
						: 0;

			want = rows > want ? rows : want;
		}
		got = wshm_idx_tail_rows(&x.r, &key, &id, tokens, n);
		bad += got != want;
		hits += want > 0;
	}
	ok(hits > 10000, "the tails are asked for often (%u hits)", hits);
	is_int(bad, 0, "the longest agreeing tail is found, always");
	idx_world_close(&x);
}

static void test_tails_full(void)
{
	struct wshm_identity id = {.unadapted = WSHM_BLOCK_TOKENS};
	struct wshm_key parent = idx_world_key(1);
	uint32_t tokens[1] = {9}, n = 0, tail, last = 0, bad = 0;
	struct idx_world x;

	idx_world_open(&x);
	while ((tail = wshm_idx_tail_new(x.w, &parent, &id)) != WSHM_NO_TAIL) {
		last = tail;
		n++;
	}
	is_int(n, WSHM_IDX_TAILS, "as many tails as there is room for");
	wshm_idx_tail_set(x.w, WSHM_NO_TAIL, tokens, 1);
	wshm_idx_tail_free(x.w, WSHM_NO_TAIL);
	wshm_idx_tail_set(x.w, last, tokens, 1);
	is_int(wshm_idx_tail_rows(&x.r, &parent, &id, tokens, 1), 1, "the newest is found first");
	for (tail = 0; tail < n; tail++)
		wshm_idx_tail_free(x.w, tail);
	wshm_idx_tail_free(x.w, last);
	is_int(wshm_idx_tail_rows(&x.r, &parent, &id, tokens, 1), 0, "all gone");
	for (tail = 0; tail < n; tail++)
		bad += wshm_idx_tail_new(x.w, &parent, &id) == WSHM_NO_TAIL;
	bad += wshm_idx_tail_new(x.w, &parent, &id) != WSHM_NO_TAIL;
	is_int(bad, 0, "and all can be had again, each once");
	idx_world_close(&x);
}

int main(void)
{
	test_region();
	test_basic();
	test_clear();
	test_random();
	test_full();
	test_instances();
	test_tails();
	test_tails_full();
	return tap_done();
}
