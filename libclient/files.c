/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - the model's text files, which the daemon hands out as one sealed memfd.
 *
 * Asked for on the control socket the first time. The answer is taken by whoever reads the socket next
 * (wc_session_listen()), under the session's lock, which nobody holds while waiting: other threads submit
 * and wait meanwhile. One question at a time is under way for a session, whoever asks; all that wait for it
 * get its answer, also one that comes after a waiter has given up. What is mapped then stays as it is until
 * the session is closed.
 */
#include "libclient/private.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_NS (5 * NS_PER_SEC) /* a daemon answers at once, or is stuck */
#define LOOK_MS	  10		   /* between looks: another thread may have taken the answer */

/* One thread's wait. */
struct asking {
	bool asked;
	uint32_t answers;  /* w->files_answers when it asked */
	int64_t answer_by; /* once asked */
	int64_t loaded_by;
};

/* Under the lock: the daemon's answer has come; fd -1: without one. The descriptor is taken over. */
void wc_files_answer(struct weft *w, int code, int fd)
{
	bool wanted = w->files_asked && !w->files.base;

	w->files_asked = false;
	w->files_answers++;
	w->files_code = code < 0 ? code : -EPROTO;
	w->files_unsound = !code;
	if (wanted && !code && fd >= 0)
		w->files_code = wshm_files_open(&w->files, fd);
	if (fd >= 0)
		close(fd);
}

static int answered(struct weft *w, struct weft_error *error)
{
	if (w->files_unsound)
		return wc_fail(error, w->files_code,
			       "the daemon's copy of the model's files is not sealed or of another "
			       "version; not mapped");
	return wc_fail(error, w->files_code,
		       "model %s has no text files in its folder that the daemon could read",
		       w->link->welcome.model.name);
}

/* Under the lock: ask, unless somebody has. 0, or -ECONNRESET: the daemon has just gone. */
static int ask(struct weft *w, struct asking *a)
{
	struct wctl_head h;

	if (!w->files_asked) {
		wctl_head_init(&h, WCTL_FILES, sizeof(h), 0);
		if (wctl_send(w->link->sock, &h, sizeof(h), NULL, 0) < 0) {
			wc_session_down(w);
			return -ECONNRESET;
		}
		w->files_asked = true;
	}
	if (!a->asked)
		a->answer_by = wc_now_ns() + ANSWER_NS;
	if (!a->asked)
		a->answers = w->files_answers;
	a->asked = true;
	return 0;
}

/* Under the lock: 1 when the files are there, 0: look again soon, or -errno with *error set. */
static int look(struct weft *w, struct asking *a, struct weft_error *error)
{
	if (!w->files.base && w->state == SESSION_UP)
		wc_session_listen(w);
	if (w->files.base)
		return 1;
	if (w->state == SESSION_DEAD)
		return wc_fail(error, -ECONNRESET, "ask for the model's files: the daemon is gone");
	if (w->state == SESSION_DOWN) {
		*a = (struct asking){.loaded_by = wc_now_ns() + w->wait_ready_ms * NS_PER_MS};
		return 0;
	}
	if (a->asked && a->answers != w->files_answers)
		return answered(w, error);
	/* An engine that is loading has not read them yet. */
	if (wshm_rx_engine_state(wshm_client_rx_ctl(&w->link->c)) == WSHM_ENGINE_STARTING)
		return wc_now_ns() < a->loaded_by ? 0
						  : wc_fail(error, -ETIMEDOUT,
							    "ask for the model's files: the model "
							    "%s is not loaded yet; "
							    "see the daemon's log",
							    w->link->welcome.model.name);
	if (!(w->link->welcome.features & WCTL_FEATURE_FILES))
		return wc_fail(error, -EOPNOTSUPP,
			       "the daemon hands out no files of models: it is older than libweft");
	if (ask(w, a) < 0)
		return 0;
	return wc_now_ns() < a->answer_by
		       ? 0
		       : wc_fail(error, -ETIMEDOUT, "ask for the model's files: no answer");
}

/* Without the lock: until there may be something to read. The socket may be closed meanwhile, and the
 * number be another's; then the wait is as long as it happens to be. */
static void pause_for(struct weft *w, int sock, bool down)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};

	if (!down)
		poll(&p, 1, LOOK_MS);
	else
		nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * NS_PER_MS}, NULL);
	if (down)
		wc_session_check(w, false, wc_now_ns() + LOOK_MS * NS_PER_MS);
}

int weft_model_file(struct weft *w, const char *name, const char **ret, size_t *ret_bytes,
		    struct weft_error *error)
{
	struct asking a = {.loaded_by = wc_now_ns() + w->wait_ready_ms * NS_PER_MS};
	char model[WCTL_NAME_BYTES];
	int r;

	if (wc_session_forked(w))
		return wc_fail(error, -EOWNERDEAD, "the session belongs to the parent process");
	for (;;) {
		bool down;
		int sock;

		pthread_mutex_lock(&w->lock);
		r = look(w, &a, error);
		down = w->state == SESSION_DOWN;
		sock = w->link->sock;
		memcpy(model, w->link->welcome.model.name, sizeof(model));
		pthread_mutex_unlock(&w->lock);
		if (r)
			break;
		pause_for(w, sock, down); /* a session that is over shows at the next look */
	}
	if (r < 0)
		return r;
	/* Constant from here on: no lock is needed. */
	r = wshm_files_find(&w->files, name, ret, ret_bytes);
	return r ? wc_fail(error, r, "model %.63s has no %.60s", model, name) : 0;
}
