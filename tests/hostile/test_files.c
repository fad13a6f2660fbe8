/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model's text files in hostile hands: asked for too early, too often, with descriptors, without
 * reading an answer; and the descriptor itself, which must not be written, resized, punched, mapped to
 * write, opened anew to write or made writable by another user.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"
#include "shm/wshm_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct world *w;
static const struct wctl_head question = {WCTL_MAGIC, WCTL_FILES, WSHM_MAJOR, sizeof(question), 0};

/* Ask; the descriptor, or the code of the answer. */
static int ask(struct raw *r)
{
	struct wctl_head answer = {0};
	uint32_t n_fds = 1;
	int fd = -1, got;

	if (raw_send(r->sock, &question, sizeof(question), NULL, 0))
		return -EPIPE;
	got = raw_recv(r->sock, &answer, sizeof(answer), &fd, &n_fds, RAW_PATIENCE_MS);
	if (got != (int)sizeof(answer) || answer.type != WCTL_FILE_SET)
		return -EPROTO;
	return answer.code ? answer.code : fd;
}

static void attack(int fd)
{
	char path[40], byte = 0;
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ok(write(fd, "x", 1) < 0, "it cannot be written");
	ok(ftruncate(fd, 0) < 0 && ftruncate(fd, 1 << 24) < 0, "nor resized");
	ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0, "nor punched");
	ok(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED,
	   "nor mapped to write");
	again = open(path, O_RDWR);
	ok(again < 0 || write(again, "x", 1) < 0, "nor written through a new descriptor");
	if (again >= 0)
		close(again);
	/* Where the test is root so is weftd: then chmod is its owner's. The seal holds all the same. */
	(void)!fchmod(fd, 0666);
	again = open(path, O_RDWR);
	ok(again < 0 || (write(again, "x", 1) < 0 && ftruncate(again, 0) < 0), "nor after chmod");
	if (again >= 0)
		close(again);
	ok(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0, "no seal is added");
	ok(pread(fd, &byte, 1, 0) == 1 && byte == 'W', "it is as it was");
	lseek(fd, 1000, SEEK_SET);
}

static void descriptor(void)
{
	struct raw a, b;
	struct wshm_files f;
	int fd, other;

	if (raw_open(&a, world_socket(w), world_attacker(), 2) ||
	    raw_open(&b, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	fd = ask(&a);
	ok(fd >= 0, "the files are handed out");
	if (fd < 0)
		bail_out("no files");
	attack(fd);
	other = ask(&b);
	is_int(wshm_files_open(&f, other), 0, "another client's copy is whole");
	wshm_files_close(&f);
	is_int(lseek(other, 0, SEEK_CUR), 0, "and its position is its own");
	close(fd);
	close(other);
	raw_close(&a);
	raw_close(&b);
}

static void too_often(void)
{
	struct raw r;
	int answers = 0, fd;

	if (raw_open(&r, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	while ((fd = ask(&r)) >= 0) {
		close(fd);
		answers++;
	}
	is_int(answers, WCTL_MAX_FILES_ASKED, "so many answers in one session");
	ok(raw_ended(&r, RAW_PATIENCE_MS), "then it is over: %s", r.refusal.text);
	raw_close(&r);
}

static void too_early(void)
{
	int sock = raw_connect(world_socket(w), world_attacker()), got;
	struct wctl_text text = {0};

	raw_send(sock, &question, sizeof(question), NULL, 0);
	got = raw_recv(sock, &text, sizeof(text), NULL, NULL, RAW_PATIENCE_MS);
	ok(got == (int)sizeof(text) && text.head.type == WCTL_REFUSED, "before the hello: %s",
	   text.text);
	close(sock);
}

static void odd(void)
{
	struct {
		struct wctl_head head;
		char more[16];
	} m = {.head = question};
	struct raw r;
	int fd = open("/dev/null", O_RDONLY);

	m.head.bytes = sizeof(m);
	if (raw_open(&r, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	raw_send(r.sock, &m, sizeof(m), NULL, 0);
	ok(raw_ended(&r, RAW_PATIENCE_MS), "a question of another size: %s", r.refusal.text);
	raw_close(&r);
	if (raw_open(&r, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	ok(raw_send(r.sock, &question, sizeof(question), &fd, 1) == -EPERM ||
		   raw_ended(&r, RAW_PATIENCE_MS),
	   "a question with a descriptor");
	raw_close(&r);
	close(fd);
}

/* Nobody reads: descriptors are on their way until the sockets are closed. */
static void unread(const struct neighbours *n)
{
	static struct raw r[16];
	int opened = 0;

	for (; opened < 16; opened++) {
		if (raw_open(&r[opened], world_socket(w), world_attacker(), 1))
			break;
		for (uint32_t k = 0; k < 2 * WCTL_MAX_FILES_ASKED; k++)
			raw_send(r[opened].sock, &question, sizeof(question), NULL, 0);
	}
	ok(opened >= 4, "%d sessions that read no answer", opened);
	ok(neighbours_advance(n, 3, RAW_PATIENCE_MS), "the neighbours go on");
	while (opened--)
		raw_close(&r[opened]);
}

int main(void)
{
	struct neighbours *n;

	w = world_start(&(struct world_options){0});
	n = neighbours_start(w, 1);
	descriptor();
	too_often();
	too_early();
	odd();
	unread(n);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
