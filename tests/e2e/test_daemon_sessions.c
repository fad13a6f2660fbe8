/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: hello, welcome, attached, gone; every kind of bad hello gets one clear line. */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct wd d;

static void test_good_hello(void)
{
	struct wctl_hello h;
	struct wd_client c;
	struct stat st;

	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "a session opens");
	is_str(c.welcome.tenant, "default", "tenant default");
	is_str(c.welcome.model.name, "m", "the model's name");
	is_int(c.welcome.params.slots, 8, "as many slots as wanted");
	is_int(c.welcome.params.rx_arena_bytes, 1 << 16, "results as large as wanted");
	ok(wd_state_wait(&c, WSHM_ENGINE_RUNNING, WD_PATIENCE_MS), "the engine has it");
	is_int(fcntl(c.fds[1], F_GETFL) & O_ACCMODE, O_RDONLY, "rx is read-only");
	is_int(fstat(c.fds[1], &st) ? -1 : (int)(st.st_mode & 0777), 0600, "rx has mode 0600");
	is_int(wd_engine_int(&d, 0, "engine.attached"), 1, "one is attached");
	is_int(wd_daemon_int(&d, "sessions"), 1, "one is open");
	wd_close(&c);
	ok(wd_engine_wait(&d, 0, "engine.attached", 0, WD_PATIENCE_MS),
	   "closed: the engine lets go");
	ok(wd_daemon_wait(&d, "sessions", 0, WD_PATIENCE_MS), "and nothing is left");
	ok(wd_daemon_wait(&d, "region_bytes", 0, WD_PATIENCE_MS), "nor any memory");
}

/* What a client can read of its session tells nothing of how many others there were. */
static void test_numbers(void)
{
	uint64_t before = 0, id;
	struct wctl_hello h;
	struct wd_client c;
	int opened = 0, near = 0;

	wd_hello_init(&h);
	for (int i = 0; i < 8; i++) {
		opened += !wd_open(&c, &d, &h);
		id = c.welcome.session_id;
		near += id - before + 16 <= 32;
		before = id;
		wd_close(&c);
	}
	is_int(opened, 8, "eight sessions, one after the other");
	is_int(near, 0, "their numbers are not counted up");
}

static void test_defaults(void)
{
	struct wctl_hello h;
	struct wd_client c;

	wd_hello_init(&h);
	h.slots = h.tx_arena_bytes = h.rx_arena_bytes = 0;
	is_int(wd_open(&c, &d, &h), 0, "a hello of zeros opens");
	is_int(c.welcome.params.slots, 64, "64 slots");
	wd_close(&c);
	h.slots = 5;
	h.tx_arena_bytes = 5000;
	is_int(wd_open(&c, &d, &h), 0, "odd sizes open");
	is_int(c.welcome.params.slots, 8, "5 slots become 8");
	is_int(c.welcome.params.tx_arena_bytes, 8192, "5000 bytes become two pages");
	wd_close(&c);
	h.features = UINT64_MAX;
	is_int(wd_open(&c, &d, &h), 0, "unknown features are ignored");
	is_int(c.welcome.features, WCTL_FEATURE_FILES | WCTL_FEATURE_DOMAIN, "and not granted");
	wd_close(&c);
}

static void refused(const struct wctl_hello *h, const char *text, const char *what)
{
	struct wd_client c;

	is_int(wd_open(&c, &d, h), -EACCES, "refused: %s", what);
	ok(strstr(c.text.text, text), "it says: %s", c.text.text);
	is_int(wd_recv(&c, WD_PATIENCE_MS), 0, "and hangs up");
	wd_close(&c);
}

static void test_bad_hellos(void)
{
	struct wctl_hello h;

	wd_hello_init(&h);
	h.slots = 1025;
	refused(&h, "1025 slots", "too many slots");
	wd_hello_init(&h);
	h.slots = UINT32_MAX;
	refused(&h, "4294967295 slots", "absurd slots");
	wd_hello_init(&h);
	h.tx_arena_bytes = UINT64_MAX;
	refused(&h, "18446744073709551615", "absurd tx");
	wd_hello_init(&h);
	h.rx_arena_bytes = (UINT64_C(1) << 32) + 1;
	refused(&h, "at most", "rx one byte beyond the limit");
	wd_hello_init(&h);
	h.reserved[63] = 1;
	refused(&h, "reserved", "a reserved byte");
	wd_hello_init(&h);
	h.reserved0 = 1;
	refused(&h, "reserved", "a reserved field");
	wd_hello_init(&h);
	memset(h.model, 'x', sizeof(h.model));
	refused(&h, "without an end", "an endless model name");
	wd_hello_init(&h);
	strcpy(h.model, "other");
	refused(&h, "no model \"other\"", "an unknown model");
	wd_hello_init(&h);
	h.head.major = 7;
	refused(&h, "protocol 7", "another version");
}

static void send_and_expect(const void *msg, uint32_t bytes, const int *fds, uint32_t n_fds,
			    const char *text, const char *what)
{
	struct wd_client c = {.sock = wd_connect(&d), .fds = {-1, -1, -1, -1, -1, -1}};

	if (wctl_send(c.sock, msg, bytes, fds, n_fds) == -EPERM) {
		ok(n_fds, "not let through by the kernel: %s", what);
	} else {
		is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_REFUSED, "refused: %s", what);
		ok(strstr(c.text.text, text), "it says: %s", c.text.text);
	}
	wd_close(&c);
}

static void test_bad_messages(void)
{
	struct wctl_hello h;
	struct wctl_head head;
	char junk[4096] = {0};
	int fds[2] = {0, 0};
	struct wd_client c = {.fds = {-1, -1, -1, -1, -1, -1}};

	wd_hello_init(&h);
	send_and_expect(&h, sizeof(h), fds, 2, "descriptors", "a hello with descriptors");
	wctl_head_init(&head, WCTL_HELLO, sizeof(head), 0);
	send_and_expect(&head, sizeof(head), NULL, 0, "another size", "a short hello");
	wctl_head_init(&head, WCTL_COMPLAIN, sizeof(head), 0);
	send_and_expect(&head, sizeof(head), NULL, 0, "before the hello", "a complaint first");
	wctl_head_init(&head, WLINK_READY, sizeof(head), 0);
	send_and_expect(&head, sizeof(head), NULL, 0, "type 48", "an engine's message");
	wctl_head_init(&head, WCTL_MODELS, sizeof(head), 0);
	send_and_expect(&head, sizeof(head), fds, 1, "descriptors", "models with a descriptor");
	send_and_expect(junk, sizeof(junk), NULL, 0, "malformed", "junk");

	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "after all that a good hello opens");
	wctl_send(c.sock, &h, sizeof(h), NULL, 0);
	is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_BYE, "a second hello ends the session");
	wd_close(&c);
}

static void test_models(void)
{
	struct wd_client c = {.sock = wd_connect(&d), .fds = {-1, -1, -1, -1, -1, -1}};
	struct wctl_models m;
	struct wctl_head head;

	wctl_head_init(&head, WCTL_MODELS, sizeof(head), 0);
	wctl_send(c.sock, &head, sizeof(head), NULL, 0);
	is_int(wctl_recv(c.sock, &m, sizeof(m), NULL, NULL), sizeof(m), "models without a hello");
	ok(m.n == 1 && m.models[0].vocab == 100 && m.models[0].ready, "one, with its figures");
	for (int i = 0; i < 20; i++)
		wctl_send(c.sock, &head, sizeof(head), NULL, 0);
	for (int i = 0; i < 15; i++)
		wctl_recv(c.sock, &m, sizeof(m), NULL, NULL);
	is_int(wd_recv(&c, WD_PATIENCE_MS), WCTL_REFUSED, "but not for ever");
	wd_close(&c);
}

/* What weftd says to the last of 17 connections without a hello, and then to the first. */
static void pending(char last[WCTL_TEXT_BYTES], char first[WCTL_TEXT_BYTES])
{
	struct wd_client many[17];

	for (int i = 0; i < 17; i++) {
		many[i] = WD_CLIENT_NONE;
		many[i].sock = wd_connect(&d);
	}
	is_int(wd_recv(&many[16], WD_PATIENCE_MS), WCTL_REFUSED,
	       "the 17th connection without a hello is refused");
	strcpy(last, many[16].text.text);
	for (int i = 1; i < 17; i++)
		wd_close(&many[i]);
	is_int(wd_recv(&many[0], WD_PATIENCE_MS), WCTL_REFUSED, "no hello: refused");
	strcpy(first, many[0].text.text);
	wd_close(&many[0]);
}

/* Silence, and too many who are silent. */
static void test_pending(void)
{
	char last[WCTL_TEXT_BYTES] = "", first[WCTL_TEXT_BYTES] = "";

	/* If it took so long to connect that the first was too late already, there was room: again. */
	for (int i = 0; i < 20 && !strstr(last, "too many"); i++)
		pending(last, first);
	ok(strstr(last, "too many"), "it says: %s", last);
	ok(strstr(first, "no hello within 2 seconds"), "the first hears: %s", first);
}

/* A client that asks and never reads is dropped; weftd goes on. */
static void test_not_reading(void)
{
	struct wctl_head head;
	struct wctl_hello h;
	struct wd_client c, good;
	int sent = 0;

	wd_hello_init(&h);
	is_int(wd_open(&c, &d, &h), 0, "a session that will not read");
	wctl_head_init(&head, WCTL_MODELS, sizeof(head), 0);
	for (int tries = 0; sent < 100000 && tries < WD_PATIENCE_MS;) {
		int rc = wctl_send(c.sock, &head, sizeof(head), NULL, 0);

		if (rc == -EPIPE || rc == -ECONNRESET)
			break;
		if (rc == -EAGAIN) {
			tries++;
			wd_sleep_ms(1);
		}
		sent += !rc;
	}
	ok(wd_daemon_wait(&d, "dropped", 1, WD_PATIENCE_MS), "is dropped");
	is_int(wd_open(&good, &d, &h), 0, "others are served");
	wd_close(&good);
	wd_close(&c);
}

static void test_killed_at_each_step(void)
{
	struct wctl_hello h;
	struct wctl_head head;
	struct wd_client c;
	int step;

	wd_hello_init(&h);
	for (step = 0; step < 24; step++) {
		pid_t pid = fork();

		if (!pid) {
			c.sock = wd_connect(&d);
			if (step % 6 == 1)
				wctl_send(c.sock, &h.head, sizeof(h.head) / 2, NULL, 0);
			if (step % 6 == 2) {
				wctl_head_init(&head, WCTL_MODELS, sizeof(head), 0);
				wctl_send(c.sock, &head, sizeof(head), NULL, 0);
			}
			if (step % 6 == 3)
				wctl_send(c.sock, &h, sizeof(h), NULL, 0);
			if (step % 6 >= 4)
				wd_open(&c, &d, &h);
			if (step % 6 == 5)
				wd_state_wait(&c, WSHM_ENGINE_RUNNING, 1000);
			kill(getpid(), SIGKILL);
		}
		waitpid(pid, NULL, 0);
	}
	ok(wd_daemon_wait(&d, "sessions", 0, WD_PATIENCE_MS),
	   "clients killed at each step leave no session");
	ok(wd_daemon_wait(&d, "connections_without_hello", 0, WD_PATIENCE_MS), "and no connection");
	ok(wd_daemon_wait(&d, "region_bytes", 0, WD_PATIENCE_MS), "and no memory");
	is_int(wd_engine_int(&d, 0, "starts"), 1, "and the engine never noticed");
}

int main(int argc, char **argv)
{
	wd_engine_or_test(argc, argv);
	wd_start(&d, "[daemon]\nhello_seconds = 2\n[model m]\npath = /fake/ok\n");
	test_good_hello();
	test_numbers();
	test_defaults();
	test_bad_hellos();
	test_bad_messages();
	test_models();
	test_pending();
	test_not_reading();
	test_killed_at_each_step();
	is_int(wd_stop(&d), 0, "SIGTERM: exit 0");
	return tap_done();
}
