/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idx_write.c - the engine opens a domain's idx region, says what the domain's clients need to
 * compute keys, and lists the adapters. Tables are in idx_table.c, tails in idx_tail.c.
 *
 * The writer belongs to the thread that opened it. What it stores is never read back.
 *
 * Ordering guarantees (partners in idx_read.c):
 *   - who has seen an engine's stamp, read secret, root, instances or tails, and sees the same stamp
 *     again, has read what that engine wrote and nothing of another one (Y1, Y2);
 *   - a record read between two equal even versions is the one that was written under that version:
 *     whoever sees a word of a later one also sees that the version is odd or later (V1 to V4).
 */
#include "shm/idx_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Nothing is in the region, and readers have been told before it went. */
static int wipe(struct wshm_idx_writer *w)
{
	struct wshm_idx_ctl *ctl = idx_writer_ctl(w);

	/* Y1: pairs with Y2 in idx_engine() */
	ord_store_seq(&ctl->engine, UINT64_C(0));
	/* E1: pairs with E4 in wshm_idx_enter() */
	ord_store_seq(&ctl->table, UINT64_C(0));
	ord_store(&ctl->n_instances, 0);
	return fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, WSHM_IDX_OFF_INSTANCES,
			 WSHM_IDX_BYTES - WSHM_IDX_OFF_INSTANCES)
		       ? -errno
		       : 0;
}

static void publish_secret(struct wshm_idx_writer *w, const uint8_t secret[WSHM_SECRET_BYTES],
			   const struct wshm_root *root)
{
	struct wshm_idx_ctl *ctl = idx_writer_ctl(w);
	uint64_t words[24];

	static_assert(sizeof(words) == WSHM_SECRET_BYTES && sizeof(words) == sizeof(ctl->secret),
		      "ABI");
	memcpy(words, secret, sizeof(words));
	for (uint32_t i = 0; i < 24; i++)
		ord_store_release(&ctl->secret[i],
				  words[i]); /* V1: pairs with V2 in read_words() */
	explicit_bzero(words, sizeof(words));
	/* V1: pairs with V2 in read_words() */
	ord_store_release(&ctl->root[0], root->model[0]);
	ord_store_release(&ctl->root[1], root->model[1]);  /* V1: pairs with V2 in read_words() */
	ord_store_release(&ctl->root[2], root->exactness); /* V1: pairs with V2 in read_words() */
}

int wshm_idx_writer_open(struct wshm_idx_writer **ret, int fd,
			 const uint8_t secret[WSHM_SECRET_BYTES], const struct wshm_root *root)
{
	struct wshm_idx_writer *w;
	int rc = wshm_region_check(fd, WSHM_IDX_BYTES);

	if (rc)
		return rc;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	rc = w->fd < 0 ? -errno
		       : wshm_map(fd, WSHM_IDX_BYTES, PROT_READ | PROT_WRITE, (void **)&w->base);
	if (rc)
		goto fail;
	w->links = calloc(WSHM_IDX_TAILS, sizeof(*w->links));
	w->heads = calloc(WSHM_IDX_HEADS, sizeof(*w->heads));
	rc = w->links && w->heads ? wipe(w) : -ENOMEM;
	if (!rc)
		rc = idx_table_init(w, &w->cur, WSHM_IDX_LOG2_MIN);
	if (rc)
		goto fail;
	publish_secret(w, secret, root);
	/* Larger than any that an earlier engine has used: it took longer to start than to count
	 * the few tables that there can be. */
	w->generation = now_us();
	idx_table_publish(w);
	/* Y1: pairs with Y2 in idx_engine() */
	ord_store_release(&idx_writer_ctl(w)->engine, w->generation);
	*ret = w;
	return 0;
fail:
	wshm_idx_writer_close(w);
	return rc;
}

void wshm_idx_writer_close(struct wshm_idx_writer *w)
{
	if (!w)
		return;
	if (w->base) {
		/* Nobody keeps it true from now on. */
		ord_store(&idx_writer_ctl(w)->engine, UINT64_C(0));
		ord_store(&idx_writer_ctl(w)->table, UINT64_C(0));
		munmap(w->base, WSHM_IDX_BYTES);
	}
	if (w->fd >= 0)
		close(w->fd);
	idx_table_fini(&w->cur);
	idx_table_fini(&w->next);
	idx_table_forget_retired(w);
	free(w->links);
	free(w->heads);
	free(w);
}

uint64_t wshm_idx_epoch(const struct wshm_idx_writer *w)
{
	return w->generation;
}

/* --- instances -------------------------------------------------------------------------------------*/

/* Field by field: neither padding nor what lies behind the name's end is anybody's business. */
static void instance_words(uint64_t words[WSHM_IDX_INSTANCE_WORDS], const struct wshm_instance *in)
{
	struct wshm_instance clean;

	memset(&clean, 0, sizeof(clean));
	memcpy(clean.name, in->name, strnlen(in->name, sizeof(clean.name) - 1));
	clean.digest[0] = in->digest[0];
	clean.digest[1] = in->digest[1];
	clean.activated = in->activated;
	clean.rank = in->rank;
	clean.offset = in->offset;
	clean.on_missing = in->on_missing;
	clean.n_invocation =
		in->n_invocation <= WSHM_MAX_INVOCATION ? in->n_invocation : WSHM_MAX_INVOCATION;
	memcpy(clean.invocation, in->invocation, clean.n_invocation * sizeof(uint32_t));
	memcpy(words, &clean, sizeof(clean));
}

void wshm_idx_instance(struct wshm_idx_writer *w, uint32_t index, const struct wshm_instance *in)
{
	struct wshm_idx_instance *s =
		(struct wshm_idx_instance *)(w->base + WSHM_IDX_OFF_INSTANCES);
	uint64_t words[WSHM_IDX_INSTANCE_WORDS] = {0};
	uint32_t version = idx_writer_version(w);

	if (index >= WSHM_MAX_INSTANCES)
		return;
	s += index;
	if (in)
		instance_words(words, in);
	ord_store(&s->version, version - 1);
	/* V1: pairs with V2 in read_words() */
	ord_store_release(&s->present, in ? 1u : 0u);
	for (uint32_t i = 0; i < WSHM_IDX_INSTANCE_WORDS; i++)
		ord_store_release(&s->words[i], words[i]); /* V1: pairs with V2 in read_words() */
	/* V3: pairs with V4 in wshm_idx_at() */
	ord_store_release(&s->version, version);
	if (in && index >= w->n_instances) {
		w->n_instances = index + 1;
		ord_store(&idx_writer_ctl(w)->n_instances, w->n_instances);
	}
}
