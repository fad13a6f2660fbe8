/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.c - an adapter from its two files, into an image, into blocks of the pool.
 *
 * The configuration says which linears there must be and of which rank; for each its pair of
 * tensors is taken, checked, digested and packed, and a tensor of anything else is refused by its
 * name. The image has the form that the adapter takes in the pool:
 *
 *	block 0                     block 1
 *	+---------+---------+----+  +---------+-----
 *	| piece   | piece   |free|  | piece   | ...		pieces at multiples of WK_POOL_ALIGN
 *	+---------+---------+----+  +---------+-----
 *
 * A piece never straddles blocks, since the blocks of an adapter lie anywhere. Pieces are of a few
 * sizes, so each goes into the first of the last few blocks that has room for it.
 *
 * An adapter is made by one thread and then belongs to the thread that owns the backend.
 */
#define XXH_STATIC_LINKING_ONLY /* the digest's state lies in the loader */
#include <xxhash.h>

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/adapter_private.h"
#include "daemon/engine/model/json_file.h"
#include "daemon/engine/model/model_private.h"
#include "daemon/engine/model/safetensors.h"

#define OPEN_BLOCKS 8 /* that are looked at for room */

struct part {
	struct wk_lora_part lora; /* without its pieces */
	uint32_t first_piece, n_pieces;
	const struct st_tensor *a, *b; /* while loading */
};

/* Where a piece lies in the image, and so in the adapter's blocks. */
struct piece {
	uint32_t block;
	size_t offset; /* in the block */
};

struct adapter {
	struct wshm_instance instance;
	struct part *parts; /* owner */
	uint32_t n_parts;
	double row_flops;     /* of all parts: asked for each sequence of each pass */
	struct piece *pieces; /* owner */
	uint32_t n_pieces;
	size_t block_bytes;
	uint32_t n_blocks;
	uint8_t *image; /* owner: n_blocks of block_bytes; what no piece covers is never touched */
	size_t *used;	/* owner: bytes of each block, up to the end of its last piece */
	struct wk_lora *lora; /* owner; NULL while it has no place */
};

struct loader {
	struct adapter *a;
	const struct model *m;
	const char *name;
	struct adapter_config config;
	struct st_set set;
	XXH3_state_t digest;
	struct weft_err *err;
};

/* --- linears -------------------------------------------------------------------------------------*/

void adapter_linear_shape(const struct model_config *c, enum adapter_linear which,
			  struct adapter_linear_shape *ret)
{
	const uint32_t n_q = c->n_heads * c->head_dim, n_kv = c->n_kv_heads * c->head_dim;
	const struct adapter_linear_shape shapes[ADAPTER_N_LINEARS] = {
		[ADAPTER_Q] = {"self_attn.q_proj", MODEL_SITE_QKV, 0, n_q, c->hidden},
		[ADAPTER_K] = {"self_attn.k_proj", MODEL_SITE_QKV, n_q, n_kv, c->hidden},
		[ADAPTER_V] = {"self_attn.v_proj", MODEL_SITE_QKV, n_q + n_kv, n_kv, c->hidden},
		[ADAPTER_O] = {"self_attn.o_proj", MODEL_SITE_O, 0, c->hidden, n_q},
		[ADAPTER_GATE] = {"mlp.gate_proj", MODEL_SITE_GATE_UP, 0, c->ffn, c->hidden},
		[ADAPTER_UP] = {"mlp.up_proj", MODEL_SITE_GATE_UP, c->ffn, c->ffn, c->hidden},
		[ADAPTER_DOWN] = {"mlp.down_proj", MODEL_SITE_DOWN, 0, c->hidden, c->ffn},
	};

	*ret = shapes[which];
}

static size_t aligned(size_t bytes)
{
	return (bytes + WK_POOL_ALIGN - 1) / WK_POOL_ALIGN * WK_POOL_ALIGN;
}

size_t adapter_piece_bytes(const struct wk_ops *ops, const struct wk_backend *be,
			   const struct model_config *c)
{
	struct adapter_linear_shape s;
	size_t most = 0;

	for (int i = 0; i < ADAPTER_N_LINEARS; i++) {
		size_t bytes;

		adapter_linear_shape(c, (enum adapter_linear)i, &s);
		bytes = aligned(ops->lora_piece_bytes(be, s.n, s.k));
		most = bytes > most ? bytes : most;
	}
	return most;
}

/* --- tensors -------------------------------------------------------------------------------------*/

static int __attribute__((format(printf, 3, 4)))
fail_tensor(struct loader *l, const char *tensor, const char *fmt, ...)
{
	char why[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return err_set(l->err, -EINVAL, "%s/" ADAPTER_WEIGHTS_NAME ": tensor \"%.100s\": %s",
		       l->name, tensor, why);
}

static void tensor_name(char ret[ADAPTER_MAX_NAME], uint32_t layer, const char *linear, char which)
{
	snprintf(ret, ADAPTER_MAX_NAME, "base_model.model.model.layers.%u.%s.lora_%c.weight", layer,
		 linear, which);
}

/* Every tensor must be of a linear that this model has. Asked before what is missing, since a name
 * that is a little off is both, and this names it as the file does. */
static int check_names(struct loader *l)
{
	struct adapter_linear_shape s;
	char name[ADAPTER_MAX_NAME];
	struct st_tensor *t;

	for (uint32_t i = 0; i < l->m->config.n_layers; i++)
		for (int w = 0; w < 2 * ADAPTER_N_LINEARS; w++) {
			adapter_linear_shape(&l->m->config, (enum adapter_linear)(w / 2), &s);
			tensor_name(name, i, s.name, w % 2 ? 'B' : 'A');
			t = safetensors_find(&l->set, name);
			if (t)
				t->used = true;
		}
	for (uint32_t i = 0; i < l->set.n_tensors; i++)
		if (!l->set.tensors[i].used)
			return fail_tensor(l, l->set.tensors[i].name,
					   "unknown; no linear of a %s of this configuration is "
					   "called so",
					   l->m->config.model_type);
	return 0;
}

/* One of the two tensors of a linear, of shape [n, k]. */
static int take(struct loader *l, const char *name, uint32_t n, uint32_t k, bool wanted,
		const struct st_tensor **ret)
{
	const struct st_tensor *t = safetensors_find(&l->set, name);

	*ret = t;
	if (!t)
		return wanted ? fail_tensor(l, name,
					    "missing; " ADAPTER_CONFIG_NAME " targets its module")
			      : 0;
	if (!wanted)
		return fail_tensor(l, name, "not among the target_modules of " ADAPTER_CONFIG_NAME);
	if (t->n_dims != 2 || t->shape[0] != n || t->shape[1] != k)
		return fail_tensor(l, name, "shape [%llu, %llu] in %u dimensions, must be [%u, %u]",
				   (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
				   t->n_dims, n, k);
	return 0;
}

static int take_linear(struct loader *l, uint32_t layer, enum adapter_linear which)
{
	struct adapter *a = l->a;
	struct part *p = &a->parts[a->n_parts];
	char name[ADAPTER_MAX_NAME];
	struct adapter_linear_shape s;
	struct adapter_module mod;
	int r;

	adapter_linear_shape(&l->m->config, which, &s);
	r = adapter_config_module(&l->config, layer, s.name, &mod, l->err);
	if (r)
		return r;
	tensor_name(name, layer, s.name, 'A');
	r = take(l, name, mod.rank, s.k, mod.targeted, &p->a);
	tensor_name(name, layer, s.name, 'B');
	r = r ? r : take(l, name, s.n, mod.rank, mod.targeted, &p->b);
	if (r || !mod.targeted)
		return r;
	p->lora = (struct wk_lora_part){
		.site = MODEL_SITE(layer, s.site),
		.col = s.col,
		.n = s.n,
		.k = s.k,
		.rank = mod.rank,
		.scale = mod.scale,
	};
	p->first_piece = a->n_pieces;
	p->n_pieces = (mod.rank + WK_LORA_CUT - 1) / WK_LORA_CUT;
	a->n_pieces += p->n_pieces;
	if (mod.rank > a->instance.rank)
		a->instance.rank = mod.rank;
	a->n_parts++;
	a->row_flops += 2.0 * mod.rank * ((double)s.n + s.k);
	return 0;
}

static int take_all(struct loader *l)
{
	const uint32_t n_layers = l->m->config.n_layers;
	int r = 0;

	l->a->parts = calloc((size_t)n_layers * ADAPTER_N_LINEARS, sizeof(*l->a->parts));
	if (!l->a->parts)
		return err_set(l->err, -ENOMEM, "%s: out of memory", l->name);
	r = check_names(l);
	for (uint32_t i = 0; !r && i < n_layers; i++)
		for (int w = 0; !r && w < ADAPTER_N_LINEARS; w++)
			r = take_linear(l, i, (enum adapter_linear)w);
	if (!r && !l->a->n_parts)
		r = err_set(l->err, -EINVAL,
			    "%s/" ADAPTER_CONFIG_NAME ": target_modules: no linear of this model",
			    l->name);
	return r;
}

/* --- digest --------------------------------------------------------------------------------------*/

static void digest_u64(struct loader *l, uint64_t v)
{
	XXH3_128bits_update(&l->digest, &v, sizeof(v));
}

static void digest_instance(struct loader *l)
{
	static const char tag[] = "weft adapter 1";
	const struct wshm_instance *in = &l->a->instance;

	XXH3_128bits_reset(&l->digest);
	XXH3_128bits_update(&l->digest, tag, sizeof(tag));
	digest_u64(l, in->activated);
	digest_u64(l, (uint64_t)(int64_t)in->offset);
	digest_u64(l, in->n_invocation);
	XXH3_128bits_update(&l->digest, in->invocation, in->n_invocation * sizeof(*in->invocation));
}

static void digest_part(struct loader *l, const struct part *p)
{
	uint32_t scale;

	memcpy(&scale, &p->lora.scale, sizeof(scale));
	digest_u64(l, p->lora.site);
	digest_u64(l, p->lora.col);
	digest_u64(l, p->lora.rank);
	digest_u64(l, scale);
	digest_u64(l, p->a->dtype);
	digest_u64(l, p->b->dtype);
	XXH3_128bits_update(&l->digest, p->a->data, p->a->bytes);
	XXH3_128bits_update(&l->digest, p->b->data, p->b->bytes);
}

/* Neither the digest nor its low half may be 0: those mean the base model. */
static void finish_digest(struct loader *l)
{
	XXH128_hash_t h = XXH3_128bits_digest(&l->digest);

	l->a->instance.digest[0] = h.low64 ? h.low64 : 1;
	l->a->instance.digest[1] = h.high64;
}

/* --- image ---------------------------------------------------------------------------------------*/

static size_t piece_bytes(const struct model *m, const struct part *p)
{
	return aligned(m->ops->lora_piece_bytes(m->be, p->lora.n, p->lora.k));
}

/* Say where a piece goes; at[] has the bytes taken in the last blocks. */
static void put_piece(struct adapter *a, struct piece *piece, size_t bytes, size_t *at)
{
	uint32_t first = a->n_blocks > OPEN_BLOCKS ? a->n_blocks - OPEN_BLOCKS : 0, b = first;

	while (b < a->n_blocks && a->block_bytes - at[b % OPEN_BLOCKS] < bytes)
		b++;
	if (b == a->n_blocks) {
		at[b % OPEN_BLOCKS] = 0;
		a->n_blocks++;
	}
	piece->block = b;
	piece->offset = at[b % OPEN_BLOCKS];
	at[b % OPEN_BLOCKS] += bytes;
}

static int lay_out(struct loader *l)
{
	struct adapter *a = l->a;
	size_t at[OPEN_BLOCKS];

	a->pieces = calloc(a->n_pieces, sizeof(*a->pieces));
	if (!a->pieces)
		return err_set(l->err, -ENOMEM, "%s: out of memory", l->name);
	for (uint32_t i = 0; i < a->n_parts; i++) {
		const struct part *p = &a->parts[i];
		size_t bytes = piece_bytes(l->m, p);

		if (bytes > a->block_bytes)
			return err_set(l->err, -EINVAL,
				       "%s: a block of the pool has %zu bytes, a piece takes %zu",
				       l->name, a->block_bytes, bytes);
		for (uint32_t j = 0; j < p->n_pieces; j++)
			put_piece(a, &a->pieces[p->first_piece + j], bytes, at);
	}
	a->used = calloc(a->n_blocks, sizeof(*a->used));
	a->image = calloc(a->n_blocks, a->block_bytes);
	if (!a->used || !a->image)
		return err_set(l->err, -ENOMEM, "%s: no memory for %u blocks of %zu bytes", l->name,
			       a->n_blocks, a->block_bytes);
	return 0;
}

/* Say which value the backend could not take; `where` begins with the matrix, "A" or "B". */
static int fail_pack(struct loader *l, const struct part *p, int code, const char *where)
{
	const struct st_tensor *t = *where == 'B' ? p->b : p->a;

	if (code == -EDOM) {
		int r = safetensors_check_finite(l->name, t, l->err);

		return r ? r
			 : fail_tensor(l, t->name, "too large a value for this machine: %s", where);
	}
	return err_set(l->err, code, "%s/" ADAPTER_WEIGHTS_NAME ": tensor \"%s\": cannot pack: %s",
		       l->name, t->name, strerror(-code));
}

static int pack_part(struct loader *l, const struct part *p)
{
	const struct wk_lora_source src = {
		.a = p->a->data,
		.b = p->b->data,
		.a_dtype = p->a->dtype,
		.b_dtype = p->b->dtype,
		.rank = p->lora.rank,
		.n = p->lora.n,
		.k = p->lora.k,
	};
	const size_t bytes = piece_bytes(l->m, p);
	struct adapter *a = l->a;

	for (uint32_t i = 0; i < p->n_pieces; i++) {
		const struct piece *at = &a->pieces[p->first_piece + i];
		uint8_t *dst = a->image + at->block * a->block_bytes + at->offset;
		char where[64] = "";
		int r;

		r = l->m->ops->lora_pack(l->m->be, &src, i * WK_LORA_CUT, dst, where);
		if (r)
			return fail_pack(l, p, r, where);
		if (at->offset + bytes > a->used[at->block])
			a->used[at->block] = at->offset + bytes;
	}
	return 0;
}

static int pack_all(struct loader *l)
{
	int r;

	r = lay_out(l);
	digest_instance(l);
	for (uint32_t i = 0; !r && i < l->a->n_parts; i++) {
		struct part *p = &l->a->parts[i];

		digest_part(l, p);
		r = pack_part(l, p);
		p->a = p->b = NULL;
	}
	finish_digest(l);
	return r;
}

/* --- open and close ------------------------------------------------------------------------------*/

static int load(struct loader *l, const struct adapter_source *src)
{
	struct wshm_instance *in = &l->a->instance;
	char where[PATH_MAX];
	json_t *root;
	int r;

	snprintf(where, sizeof(where), "%s/" ADAPTER_CONFIG_NAME, l->name);
	r = json_object_read_fd(where, src->config_fd, ADAPTER_MAX_CONFIG_BYTES, &root, l->err);
	r = r ? r
	      : adapter_config_parse(l->name, root, &l->m->config, l->m->dir, &l->config, l->err);
	if (r)
		return r;
	in->activated = l->config.activated;
	in->n_invocation = l->config.n_invocation;
	memcpy(in->invocation, l->config.invocation, sizeof(in->invocation));
	/* A plain LoRA has nothing to be missing or to count from. */
	in->offset = in->activated ? src->offset : 0;
	in->on_missing = in->activated ? src->on_missing : WSHM_MISSING_ERROR;
	r = safetensors_open_fd(l->name, ADAPTER_WEIGHTS_NAME, src->weights_fd, &l->set, l->err);
	r = r ? r : take_all(l);
	r = r ? r : pack_all(l);
	safetensors_close(&l->set);
	adapter_config_fini(&l->config);
	return r;
}

int adapter_open(const struct model *m, size_t block_bytes, const struct adapter_source *src,
		 struct adapter **ret, struct weft_err *err)
{
	struct adapter *a = calloc(1, sizeof(*a));
	struct loader *l = aligned_alloc(64, (sizeof(*l) + 63) / 64 * 64);
	int r;

	if (!a || !l) {
		free(a);
		free(l);
		return err_set(err, -ENOMEM, "%s: out of memory", src->name);
	}
	memset(l, 0, sizeof(*l));
	a->block_bytes = block_bytes;
	l->a = a;
	l->m = m;
	l->name = src->name;
	l->err = err;
	r = load(l, src);
	free(l);
	if (r) {
		err_one_line(err);
		adapter_close(a);
		return r;
	}
	*ret = a;
	return 0;
}

int adapter_open_dir(const struct model *m, size_t block_bytes, const char *dir,
		     const struct adapter_source *settings, struct adapter **ret,
		     struct weft_err *err)
{
	struct adapter_source src = {.config_fd = -1, .weights_fd = -1};
	size_t bytes;
	int r;

	if (settings)
		src = *settings;
	src.name = dir;
	r = src.config_fd = model_file_open(dir, ADAPTER_CONFIG_NAME, &bytes, err);
	if (r < 0)
		return r;
	r = src.weights_fd = model_file_open(dir, ADAPTER_WEIGHTS_NAME, &bytes, err);
	if (r >= 0) {
		r = adapter_open(m, block_bytes, &src, ret, err);
		close(src.weights_fd);
	}
	close(src.config_fd);
	return r;
}

void adapter_close(struct adapter *a)
{
	if (!a)
		return;
	free(a->parts);
	free(a->pieces);
	free(a->image);
	free(a->used);
	free(a);
}

/* --- in the pool ---------------------------------------------------------------------------------*/

static int make_lora(struct adapter *a, struct model *m, const uint32_t *blocks)
{
	struct wk_lora_part *parts = calloc(a->n_parts, sizeof(*parts));
	uint64_t *offsets = calloc(a->n_pieces, sizeof(*offsets));
	int r = parts && offsets ? 0 : -ENOMEM;

	for (uint32_t i = 0; !r && i < a->n_pieces; i++)
		offsets[i] =
			(uint64_t)blocks[a->pieces[i].block] * a->block_bytes + a->pieces[i].offset;
	for (uint32_t i = 0; !r && i < a->n_parts; i++) {
		parts[i] = a->parts[i].lora;
		parts[i].pieces = offsets + a->parts[i].first_piece;
	}
	r = r ? r : m->ops->lora_new(m->be, parts, a->n_parts, &a->lora);
	free(parts);
	free(offsets);
	return r;
}

int adapter_place_some(struct adapter *a, struct model *m, struct wk_buf *pool,
		       const uint32_t *blocks, uint32_t *at, int64_t *bytes)
{
	if (!*at)
		adapter_remove(a, m);
	for (; *at < a->n_blocks; ++*at) {
		size_t used = a->used[*at];
		int r;

		if (*bytes <= 0)
			return 0;
		r = m->ops->buf_write(m->be, pool, (size_t)blocks[*at] * a->block_bytes,
				      a->image + *at * a->block_bytes, used);
		if (r)
			return r;
		*bytes -= (int64_t)used;
	}
	return make_lora(a, m, blocks) ?: 1;
}

int adapter_place(struct adapter *a, struct model *m, struct wk_buf *pool, const uint32_t *blocks)
{
	int64_t all = INT64_MAX;
	uint32_t at = 0;
	int r = adapter_place_some(a, m, pool, blocks, &at, &all);

	return r < 0 ? r : 0;
}

void adapter_remove(struct adapter *a, struct model *m)
{
	m->ops->lora_free(m->be, a->lora);
	a->lora = NULL;
}

const struct wk_lora *adapter_lora(const struct adapter *a)
{
	return a->lora;
}

/* --- small questions -----------------------------------------------------------------------------*/

const struct wshm_instance *adapter_instance(const struct adapter *a)
{
	return &a->instance;
}

const struct wk_lora_part *adapter_part(const struct adapter *a, uint32_t i)
{
	return i < a->n_parts ? &a->parts[i].lora : NULL;
}

uint32_t adapter_blocks(const struct adapter *a)
{
	return a->n_blocks;
}

double adapter_row_flops(const struct adapter *a)
{
	return a->row_flops;
}

uint64_t adapter_bytes(const struct adapter *a)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < a->n_blocks; i++)
		bytes += a->used[i];
	return bytes;
}
