/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket in hostile hands: hellos of any size and content, with descriptors that nobody
 * asked for, hellos that never come, twice, or too late; rubbish before and after; floods of
 * connections. Each gets a line or a hang-up, costs nothing that stays, and disturbs nobody.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct world *w;

static int descriptors(pid_t pid)
{
	char path[32];
	DIR *d;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* Send these bytes as a first message: the refusal's line, "" for a hang-up without one. */
static const char *first_message(const void *bytes, size_t n, const int *fds, uint32_t n_fds)
{
	static struct wctl_text text;
	int sock = raw_connect(world_socket(w), world_attacker()), got;

	memset(&text, 0, sizeof(text));
	if (sock < 0)
		return NULL;
	if (raw_send(sock, bytes, n, fds, n_fds) == -EPERM) {
		close(sock);
		return "the kernel does not let them through";
	}
	got = raw_recv(sock, &text, sizeof(text), NULL, NULL, RAW_PATIENCE_MS);
	if (got == (int)sizeof(text) && text.head.type == WCTL_REFUSED)
		got = raw_recv(sock, (char[64]){0}, 64, NULL, NULL, RAW_PATIENCE_MS);
	else
		text.text[0] = 0;
	close(sock);
	return got == 0 ? text.text : NULL;
}

static void refused(const char *what, const char *line)
{
	ok(line && *line, "%s: %s", what, line ? line : "NOT REFUSED");
}

static void sizes(void)
{
	struct {
		struct wctl_hello h;
		char more[4096];
	} m = {0};
	static const size_t lengths[] = {1,
					 4,
					 15,
					 16,
					 17,
					 100,
					 sizeof(struct wctl_hello) - 1,
					 sizeof(struct wctl_hello) + 1,
					 1024,
					 sizeof(struct wctl_hello) + 4096};
	char what[64];

	raw_hello_init(&m.h);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		/* Once with the size that it has, once with the size that a hello has. */
		m.h.head.bytes = (uint32_t)lengths[i];
		snprintf(what, sizeof(what), "hello of %zu bytes", lengths[i]);
		refused(what, first_message(&m, lengths[i], NULL, 0));
		m.h.head.bytes = sizeof(m.h);
		snprintf(what, sizeof(what), "%zu bytes that claim to be a hello", lengths[i]);
		refused(what, first_message(&m, lengths[i], NULL, 0));
	}
	ok(first_message(&m, 0, NULL, 0) != NULL, "an empty message is a hang-up");
}

static void fields(void)
{
	struct wctl_hello good, h;

	raw_hello_init(&good);
#define TRY(what, change)                                             \
	do {                                                          \
		h = good;                                             \
		change;                                               \
		refused(what, first_message(&h, sizeof(h), NULL, 0)); \
	} while (0)
	TRY("bad magic", h.head.magic ^= 1);
	TRY("another major", h.head.major++);
	TRY("major 65535", h.head.major = 0xffff);
	TRY("a code", h.head.code = -1);
	TRY("type 0", h.head.type = 0);
	TRY("a reply's type", h.head.type = WCTL_WELCOME);
	TRY("a type of the engine's link", h.head.type = WLINK_ATTACH);
	TRY("type 65535", h.head.type = 0xffff);
	TRY("reserved0", h.reserved0 = 1);
	TRY("first reserved byte", h.reserved[0] = 1);
	TRY("last reserved byte", h.reserved[63] = 0x80);
	TRY("1025 slots", h.slots = 1025);
	TRY("2^31 slots", h.slots = 0x80000000);
	TRY("2^32 - 1 slots", h.slots = 0xffffffff);
	TRY("tx of 2^32 + 1", h.tx_arena_bytes = (UINT64_C(1) << 32) + 1);
	TRY("tx of 2^63", h.tx_arena_bytes = UINT64_C(1) << 63);
	TRY("tx of 2^64 - 1", h.tx_arena_bytes = UINT64_MAX);
	TRY("rx of 2^64 - 4095", h.rx_arena_bytes = UINT64_MAX - 4094);
	TRY("both of 2^64 - 1", h.tx_arena_bytes = h.rx_arena_bytes = UINT64_MAX);
	TRY("a model that is not", strcpy(h.model, "gpt-5"));
	TRY("a model's name without an end", memset(h.model, 'a', sizeof(h.model)));
	TRY("a model's name of control characters", memset(h.model, 27, 20));
#undef TRY
}

/* First of all: refusals are logged at a limited rate. */
static void forged(void)
{
	struct wctl_hello h;

	raw_hello_init(&h);
	strcpy(h.model, "x\" event=forged uid=0 why=\"y");
	refused("a model's name that means to add to the log",
		first_message(&h, sizeof(h), NULL, 0));
	ok(world_logged(w, "event=refused"), "the refusal is logged");
	ok(!world_logged(w, "event=forged"), "without a field that the client has made up");
}

static void small_and_odd(void)
{
	struct wctl_hello h;
	struct raw r;

	raw_hello_init(&h);
	h.slots = 3;
	h.tx_arena_bytes = 1;
	h.rx_arena_bytes = 4097;
	h.features = UINT64_MAX;
	h.minor = 0xffff;
	is_int(raw_open_hello(&r, world_socket(w), world_attacker(), &h), 0,
	       "odd sizes are rounded up, unknown features and a newer minor are let be");
	is_int(r.slots, 4, "3 slots become 4");
	is_int(r.welcome.params.tx_arena_bytes, 4096, "one byte becomes a page");
	is_int(r.welcome.params.rx_arena_bytes, 8192, "a page and a byte become two pages");
	is_int(r.welcome.features & ~(WCTL_FEATURE_FILES | WCTL_FEATURE_DOMAIN), 0,
	       "no feature is promised that is not there");
	raw_close(&r);
	raw_hello_init(&h);
	h.slots = 1024;
	is_int(raw_open_hello(&r, world_socket(w), world_attacker(), &h), 0, "1,024 slots");
	ok(r.welcome.params.tx_arena_bytes >= 1024 * (WSHM_MAX_DESC + 4096),
	   "and by default room for as many requests");
	raw_close(&r);
}

/* Nothing is left of anybody else: no connection, no session, no region that is still to be looked at. */
static void only_the_neighbour(void)
{
	world_number_becomes(w, "connections_without_hello", 0, RAW_PATIENCE_MS);
	world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS);
	world_number_becomes(w, "regions_dead", 0, RAW_PATIENCE_MS);
}

static void extra_descriptors(void)
{
	struct wctl_hello h;
	int fds[64], before;
	uint32_t counts[] = {1, 2, 7, 8, 9, 64};
	char what[64];

	raw_hello_init(&h);
	only_the_neighbour();
	before = descriptors(world_daemon(w));
	for (int i = 0; i < 64; i++)
		fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		snprintf(what, sizeof(what), "hello with %u descriptors", counts[i]);
		refused(what, first_message(&h, sizeof(h), fds, counts[i]));
	}
	/* Descriptors with what is no message at all, and after a good hello. */
	first_message(&h, 3, fds, 64);
	struct raw r;
	struct wctl_head head = {WCTL_MAGIC, WCTL_COMPLAIN, WSHM_MAJOR, sizeof(head), 0};

	if (!raw_open(&r, world_socket(w), world_attacker(), 2)) {
		ok(raw_send(r.sock, &head, sizeof(head), fds, 5) == -EPERM ||
			   raw_ended(&r, RAW_PATIENCE_MS),
		   "descriptors after the hello end the session: %s", r.refusal.text);
	}
	raw_close(&r);
	for (int i = 0; i < 64; i++)
		close(fds[i]);
	only_the_neighbour();
	int after = descriptors(world_daemon(w));

	ok(after <= before + 1, "weftd has kept none of them (%d before, %d after)", before, after);
}

static void after_hello(void)
{
	struct wctl_hello h;
	struct wctl_head head;
	uint8_t rubbish[2048];
	uint32_t x = 12345;
	struct raw r;

	raw_hello_init(&h);
	if (raw_open(&r, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	raw_submit(&r, 0, 1, 1, 5, 300);
	raw_send(r.sock, &h, sizeof(h), NULL, 0);
	ok(raw_ended(&r, RAW_PATIENCE_MS), "a second hello ends the session: %s", r.refusal.text);
	raw_close(&r);
	for (int i = 0; i < 50; i++) {
		if (raw_open(&r, world_socket(w), world_attacker(), 2))
			bail_out("a raw client is refused");
		for (size_t k = 0; k < sizeof(rubbish); k++)
			rubbish[k] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
		if (i % 2) { /* as far as the head goes, well-formed */
			head = (struct wctl_head){WCTL_MAGIC, (uint16_t)(x >> 8), WSHM_MAJOR,
						  (uint32_t)(16 + i * 8), 0};
			memcpy(rubbish, &head, sizeof(head));
		}
		raw_send(r.sock, rubbish, (size_t)(16 + i * 8), NULL, 0);
		if (!raw_ended(&r, RAW_PATIENCE_MS))
			ok(0, "rubbish number %d after the hello does not end the session", i);
		raw_close(&r);
	}
	/* What is allowed, as often as a socket takes it. */
	if (raw_open(&r, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	for (int i = 0; i < 3000; i++) {
		head = (struct wctl_head){WCTL_MAGIC, i & 1 ? WCTL_COMPLAIN : WCTL_MODELS,
					  WSHM_MAJOR, sizeof(head), 0};
		raw_send(r.sock, &head, sizeof(head), NULL, 0);
	}
	ok(raw_ended(&r, RAW_PATIENCE_MS) || raw_alive(&r, 0, 1),
	   "three thousand questions without reading an answer");
	raw_close(&r);
}

static void silent(const struct neighbours *n)
{
	uint64_t start = raw_now_ns();
	int sock[64];
	struct wctl_text text;
	int ended = 0;

	/* Connections that say nothing: a few are listened to, for hello_seconds. */
	for (int i = 0; i < 64; i++)
		sock[i] = raw_connect(world_socket(w), world_attacker());
	ok(neighbours_advance(n, 3, RAW_PATIENCE_MS),
	   "a flood of silent connections: the neighbours go on");
	for (int i = 0; i < 64; i++) {
		int got = 1;

		while (sock[i] >= 0 && got > 0)
			got = raw_recv(sock[i], &text, sizeof(text), NULL, NULL, RAW_PATIENCE_MS);
		ended += got == 0 || sock[i] < 0;
		close(sock[i]);
	}
	is_int(ended, 64, "each is hung up on in the end");
	ok(raw_now_ns() - start < UINT64_C(60000000000), "and that is soon");
	/* And as fast as they can be made and dropped. */
	for (int i = 0; i < 2000; i++) {
		int s = raw_connect(world_socket(w), world_attacker());

		if (s >= 0)
			close(s);
	}
	ok(neighbours_advance(n, 2, RAW_PATIENCE_MS), "two thousand connections made and dropped");
}

/* Well-behaved, but every session is dropped right after the hello, unread. */
static void unread(void)
{
	struct wctl_hello h;

	raw_hello_init(&h);
	for (int i = 0; i < 200; i++) {
		int s = raw_connect(world_socket(w), world_attacker());

		if (s >= 0) {
			raw_send(s, &h, sizeof(h), NULL, 0);
			close(s);
		}
	}
	ok(world_number_becomes(w, "sessions", 1, RAW_PATIENCE_MS),
	   "two hundred welcomes that nobody reads");
}

int main(void)
{
	struct neighbours *n;

	w = world_start(&(struct world_options){.daemon = "hello_seconds = 2"});
	n = neighbours_start(w, 1);
	forged();
	sizes();
	fields();
	small_and_odd();
	extra_descriptors();
	after_hello();
	silent(n);
	unread();
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
