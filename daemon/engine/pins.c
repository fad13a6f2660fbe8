/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pins.c - prefixes that the operator publishes: computed once, and never evicted.
 *
 * A pin is computed like any request, fairly and preemptibly, of the domain's tenant (the public
 * domain has one of its own), in a session that the engine makes for itself: its regions have no
 * client. When the request's one token is drawn, the prefix stands in the cache and is pinned
 * there.
 *
 *   control: PIN -> queue; the first one's session is opened      --mail--> core: compute
 *                                         <--mail-- core: ended; pinned, or why not
 *   control: PINNED, detach, the next one
 *
 * One at a time, so that answers come in order. A job belongs to the thread that has its mail; the
 * queue is the control thread's, the list of pins the core thread's.
 */
#include "daemon/engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is pinned is lost to everyone else: this much of the pool stays. */
#define LEAVE_OF_POOL 4 /* a quarter */

/* --- control thread ------------------------------------------------------------------------------*/

static int read_tokens(struct pin_job *job, int fd)
{
	uint64_t bytes = (uint64_t)job->n_tokens * sizeof(uint32_t);
	struct stat st;

	if (!job->n_tokens || fstat(fd, &st) || (uint64_t)st.st_size < bytes)
		return -EPROTO;
	job->tokens = malloc(bytes);
	if (!job->tokens)
		return -ENOMEM;
	return pread(fd, job->tokens, bytes, 0) == (ssize_t)bytes ? 0 : -EIO;
}

static void job_fail(struct pin_job *job, int code, const char *text)
{
	job->reply.head.code = code;
	snprintf(job->reply.text, sizeof(job->reply.text), "%s", text);
}

struct pin_job *pin_job_new(const struct wlink_pin *msg, int fd)
{
	struct pin_job *job = calloc(1, sizeof(*job));
	int rc;

	if (!job)
		return NULL;
	wctl_head_init(&job->reply.head, WLINK_PINNED, sizeof(job->reply), 0);
	job->reply.pin_id = msg->pin_id;
	job->number = msg->domain == WLINK_PUBLIC ? DOMAIN_PUBLIC : msg->domain + 1;
	job->n_tokens = msg->n_tokens;
	rc = read_tokens(job, fd);
	if (rc)
		job_fail(job, rc, "the tokens cannot be read");
	return job;
}

void pin_job_free(struct pin_job *job)
{
	if (!job)
		return;
	free(job->tokens);
	free(job);
}

/* --- core thread ----------------------------------------------------------------------------------*/

static struct pin **find_pin(struct engine *e, uint64_t id)
{
	struct pin **at = &e->pins;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

static void job_done(struct engine *e, struct pin_job *job)
{
	struct mail *mail = mail_new(MAIL_PIN_DONE);

	if (!mail)
		abort(); /* weftd would wait for ever; a restart is better */
	job->request = NULL;
	mail->object = job;
	mail_send(&e->to_control, mail);
}

/* May it be tried at all? */
static bool acceptable(struct engine *e, struct pin_job *job)
{
	struct cache_stats stats;

	cache_stats(e->cache, NULL, &stats);
	if (job->reply.head.code)
		return false;
	if (*find_pin(e, job->reply.pin_id))
		job_fail(job, -EEXIST, "a pin of this number exists");
	else if (e->draining)
		job_fail(job, -ESHUTDOWN, "the engine is draining");
	else if (job->n_tokens >= e->config->max_positions)
		job_fail(job, -E2BIG, "the prefix is longer than the model's positions");
	else if (stats.pinned + blocks_for(job->n_tokens) >
		 e->blocks.n - e->blocks.n / LEAVE_OF_POOL)
		job_fail(job, -ENOSPC, "pins would take more than three quarters of the cache");
	for (uint32_t i = 0; i < job->n_tokens && !job->reply.head.code; i++)
		if (job->tokens[i] >= e->config->vocab)
			job_fail(job, -EINVAL, "a token is beyond the vocabulary");
	return !job->reply.head.code;
}

void pin_start(struct engine *e, struct pin_job *job)
{
	const struct wlink_quota quota = {.weight = 100};
	struct session *s = job->session;

	if (job->number == DOMAIN_PUBLIC && !tenant_get(e, DOMAIN_PUBLIC) &&
	    tenant_set(e, DOMAIN_PUBLIC, "public", &quota))
		job_fail(job, -ENOMEM, "out of memory");
	if (s) {
		session_attach(e, s, WLINK_RESUME_NONE);
		if (s->over)
			job_fail(job, -ENOENT, "the engine does not know this domain");
	}
	if (!acceptable(e, job) || !s) {
		job_done(e, job);
		return;
	}
	s->pin = job;
	job->request = admit_internal(e, s, job->tokens, job->n_tokens);
	if (job->request)
		return;
	s->pin = NULL;
	job_fail(job, -ENOMEM, "out of memory");
	job_done(e, job);
}

static void keep(struct engine *e, struct pin_job *job)
{
	struct domain *d = domain_find(e, job->number);
	struct pin *p = calloc(1, sizeof(*p));

	if (p)
		p->pin = cache_pin_new(d->cache, job->tokens, job->n_tokens, &job->reply.tokens);
	if (!p || !p->pin) {
		free(p);
		job_fail(job, -ENOMEM, "out of memory");
		return;
	}
	p->id = job->reply.pin_id;
	p->next = e->pins;
	e->pins = p;
}

void pin_ended(struct engine *e, struct session *s, enum wshm_status status, uint32_t detail)
{
	struct pin_job *job = s->pin;

	s->pin = NULL;
	if (status == WSHM_OK)
		keep(e, job);
	else if (status == WSHM_CANCELLED)
		job_fail(job, -ECANCELED, "it was unpinned before it was computed");
	else if (status == WSHM_TOO_BIG)
		job_fail(job, -ENOSPC, "the cache has no room for it beside what is pinned");
	else
		job_fail(job, -EIO, "the prefix could not be computed");
	(void)detail;
	job_done(e, job);
}

void pin_drop(struct engine *e, uint64_t id)
{
	struct pin **at = find_pin(e, id), *p = *at;

	for (struct session *s = e->sessions; s && !p; s = s->next)
		if (s->pin && s->pin->reply.pin_id == id) {
			request_end(e, s->pin->request, WSHM_CANCELLED, 0);
			return;
		}
	if (!p)
		return;
	*at = p->next;
	cache_pin_free(p->pin);
	free(p);
}
