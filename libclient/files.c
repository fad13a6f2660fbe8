/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - the model's text files, which the daemon hands out as one sealed memfd.
 *
 * Asked for on the control socket the first time, under the session's lock: so nobody else reads the
 * answer, and a thread that looks after the session meanwhile waits for it, for a moment as a rule.
 * What is mapped then stays as it is until the session is closed.
 */
#include "libclient/private.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_NS (5 * NS_PER_SEC) /* a daemon answers at once, or is stuck */

static int lost(struct weft *w, struct weft_error *error)
{
	wc_session_down(w);
	return wc_fail(error, -ECONNRESET, "ask for the model's files: the daemon went away");
}

/* The answer, whatever else comes before it. The descriptor, or -errno with *error set. */
static int receive(struct weft *w, struct weft_error *error)
{
	int64_t deadline = wc_now_ns() + ANSWER_NS;
	union {
		struct wctl_head head;
		struct wctl_text text;
		struct wctl_models models;
	} m;

	for (;;) {
		int fd = -1, r;
		uint32_t n_fds = 1;

		r = wc_link_recv(w->link->sock, &m, sizeof(m), &fd, &n_fds, deadline);
		if (r == -ETIMEDOUT)
			return wc_fail(error, r, "ask for the model's files: no answer");
		if (r < 0 || m.head.type == WCTL_BYE)
			return lost(w, error);
		if (m.head.type == WCTL_FILE_SET && !m.head.code && n_fds == 1)
			return fd;
		if (n_fds)
			close(fd);
		if (m.head.type == WCTL_FILE_SET)
			return wc_fail(error, m.head.code < 0 ? m.head.code : -EPROTO,
				       "model %s has no text files in its folder that the daemon "
				       "could read",
				       w->link->welcome.model.name);
	}
}

/* Under the lock. */
static int ask(struct weft *w, struct weft_error *error)
{
	struct wctl_head h;
	int fd, r;

	if (!(w->link->welcome.features & WCTL_FEATURE_FILES))
		return wc_fail(error, -EOPNOTSUPP,
			       "the daemon hands out no files of models: it is older than libweft");
	wctl_head_init(&h, WCTL_FILES, sizeof(h), 0);
	r = wctl_send(w->link->sock, &h, sizeof(h), NULL, 0);
	if (r < 0)
		return lost(w, error);
	fd = receive(w, error);
	if (fd < 0)
		return fd;
	r = wshm_files_open(&w->files, fd);
	close(fd);
	return r ? wc_fail(error, r,
			   "the daemon's copy of the model's files is not sealed or of another "
			   "version; not mapped")
		 : 0;
}

/* Under the lock: does a daemon answer, and has its engine read the files? */
static bool is_up(struct weft *w)
{
	return w->state == SESSION_UP &&
	       wshm_rx_engine_state(wshm_client_rx_ctl(&w->link->c)) != WSHM_ENGINE_STARTING;
}

/* The lock is given up meanwhile: a new daemon takes a moment, and its engine as long as it loads. */
static int wait_up(struct weft *w, int64_t deadline, struct weft_error *error)
{
	int r;

	pthread_mutex_unlock(&w->lock);
	r = wc_session_check(w, false);
	if (!r && wc_now_ns() < deadline)
		nanosleep(&(struct timespec){.tv_nsec = 10 * NS_PER_MS}, NULL);
	else
		r = wc_fail(error, r ? r : -ETIMEDOUT,
			    "ask for the model's files: the daemon is gone");
	pthread_mutex_lock(&w->lock);
	return r;
}

int weft_model_file(struct weft *w, const char *name, const char **ret, size_t *ret_bytes,
		    struct weft_error *error)
{
	int64_t deadline = wc_now_ns() + w->reconnect_ms * NS_PER_MS;
	char model[WCTL_NAME_BYTES];
	int r = 0;

	if (wc_session_forked(w))
		return wc_fail(error, -EOWNERDEAD, "the session belongs to the parent process");
	pthread_mutex_lock(&w->lock);
	while (!w->files.base && !r) {
		r = is_up(w) ? ask(w, error) : wait_up(w, deadline, error);
		if (r == -ECONNRESET && w->state == SESSION_DOWN)
			r = 0; /* it has just gone: the next one is asked */
	}
	memcpy(model, w->link->welcome.model.name, sizeof(model));
	pthread_mutex_unlock(&w->lock);
	if (r)
		return r;
	/* Constant from here on: no lock is needed. */
	r = wshm_files_find(&w->files, name, ret, ret_bytes);
	return r ? wc_fail(error, r, "model %.63s has no %.60s", model, name) : 0;
}
