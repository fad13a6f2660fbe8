/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - a model from its folder: tensors found by name, checked, packed, digested.
 *
 * The configuration says which tensors there must be and of which shapes; each is taken once, in
 * one fixed order (so that the digest does not depend on how the files are cut), and what is left
 * over at the end is refused by its name. Packing (in the backend) reads the mapped files, so the
 * data is never copied as a whole.
 *
 * A model belongs to the thread that owns its backend; the files are closed before this returns.
 */
#define XXH_STATIC_LINKING_ONLY /* the digest's state lies on the stack */
#include <xxhash.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/common/err.h"
#include "daemon/engine/model/adapter.h"
#include "daemon/engine/model/dummy.h"
#include "daemon/engine/model/model_private.h"
#include "daemon/engine/model/safetensors.h"

struct loader {
	struct model *m;
	struct st_set set; /* empty with dummy weights */
	struct dummy dummy;
	XXH3_state_t digest;
	const struct model_open_options *opt;
	uint64_t done, total;
	struct weft_err *err;
};

#define NAME_BYTES 128

/* --- tensors -------------------------------------------------------------------------------------*/

static int __attribute__((format(printf, 3, 4)))
fail_tensor(struct loader *l, const struct st_tensor *t, const char *fmt, ...)
{
	char why[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return err_set(l->err, -EINVAL, "%s/%s: tensor \"%s\": %s", l->opt->dir, t->file, t->name,
		       why);
}

static int check_shape(struct loader *l, const struct st_tensor *t, uint32_t n, uint32_t k)
{
	if (k && (t->n_dims != 2 || t->shape[0] != n || t->shape[1] != k))
		return fail_tensor(l, t, "shape [%llu, %llu] in %u dimensions, must be [%u, %u]",
				   (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
				   t->n_dims, n, k);
	if (!k && (t->n_dims != 1 || t->shape[0] != n))
		return fail_tensor(l, t, "shape [%llu] in %u dimensions, must be [%u]",
				   (unsigned long long)t->shape[0], t->n_dims, n);
	return 0;
}

static void digest_tensor(struct loader *l, const struct st_tensor *t)
{
	uint64_t head[3] = {t->dtype, t->n_dims, t->shape[0]};

	XXH3_128bits_update(&l->digest, t->name, strlen(t->name) + 1);
	XXH3_128bits_update(&l->digest, head, sizeof(head));
	XXH3_128bits_update(&l->digest, t->data, t->bytes);
}

/* The tensor of this name, of shape [n, k] (k 0: a vector of n), now taken. */
static int take(struct loader *l, const char *name, uint32_t n, uint32_t k, struct st_tensor **ret)
{
	struct st_tensor *t =
		l->opt->dummy ? dummy_take(&l->dummy, name, n, k) : safetensors_find(&l->set, name);
	int r;

	if (!t)
		return err_set(l->err, -EINVAL, "%s: tensor \"%s\" is missing", l->opt->dir, name);
	r = check_shape(l, t, n, k);
	if (r)
		return r;
	t->used = true;
	if (!l->opt->dummy)
		safetensors_advise(t, true);
	digest_tensor(l, t);
	*ret = t;
	return 0;
}

static void let_go(struct loader *l, const struct st_tensor *t)
{
	l->done += t->bytes;
	if (l->opt->dummy)
		dummy_let_go(&l->dummy);
	else
		safetensors_advise(t, false);
	if (l->opt->progress)
		l->opt->progress(l->opt->progress_arg, l->done, l->total);
}

/* --- weights and vectors -------------------------------------------------------------------------*/

struct part {
	const char *name; /* after the layer's prefix */
	uint32_t n;
};

/* Stack the tensors prefix.part.weight into one packed weight with k inputs. */
static int load_weight(struct loader *l, const char *prefix, const struct part *parts,
		       uint32_t n_parts, uint32_t k, enum wk_pack pack, struct wk_weight **ret)
{
	struct wk_weight_part wp[3];
	struct st_tensor *t[3];
	struct model *m = l->m;
	char name[NAME_BYTES];
	int r, bad = 0;

	for (uint32_t i = 0; i < n_parts; i++) {
		snprintf(name, sizeof(name), "%s%s.weight", prefix, parts[i].name);
		r = take(l, name, parts[i].n, k, &t[i]);
		if (r)
			return r;
		wp[i] = (struct wk_weight_part){t[i]->data, t[i]->dtype, parts[i].n};
	}
	r = m->ops->weight_new(m->be, wp, n_parts, k, pack, ret);
	for (uint32_t i = 0; r == -EDOM && !bad && i < n_parts; i++)
		bad = safetensors_check_finite(l->opt->dir, t[i], l->err);
	if (bad)
		return bad;
	if (r)
		return err_set(l->err, r, "%s/%s: tensor \"%s\": cannot pack: %s (%s)", l->opt->dir,
			       t[0]->file, t[0]->name, m->ops->last_error(m->be), strerror(-r));
	m->weight_bytes += m->ops->weight_bytes(*ret);
	for (uint32_t i = 0; i < n_parts; i++)
		let_go(l, t[i]);
	return 0;
}

static int buffer_new(struct model *m, size_t bytes, struct wk_buf **ret, struct weft_err *err)
{
	int r = m->ops->buf_new(m->be, bytes, ret);

	if (r) /* which names the bytes */
		err_set(err, r, "%s", m->ops->last_error(m->be));
	return r;
}

/* A buffer with these contents; *ret is set, and owned by the model, even if filling it fails. */
static int buffer_filled(struct model *m, const void *data, size_t bytes, struct wk_buf **ret,
			 struct weft_err *err)
{
	int r = buffer_new(m, bytes, ret, err);

	if (r)
		return r;
	r = m->ops->buf_write(m->be, *ret, 0, data, bytes);
	return r ? err_set(err, r, "cannot write to a buffer of %zu bytes: %s", bytes,
			   m->ops->last_error(m->be))
		 : 0;
}

/* The vectors prefix.part.suffix one after the other, as fp32. */
static int load_vector(struct loader *l, const char *prefix, const char *suffix,
		       const struct part *parts, uint32_t n_parts, struct wk_buf **ret)
{
	struct model *m = l->m;
	uint32_t n = 0, at = 0;
	char name[NAME_BYTES];
	struct st_tensor *t;
	float *v;
	int r = 0;

	for (uint32_t i = 0; i < n_parts; i++)
		n += parts[i].n;
	v = malloc(n * sizeof(*v));
	if (!v)
		return err_set(l->err, -ENOMEM, "%s: out of memory", l->opt->dir);
	for (uint32_t i = 0; !r && i < n_parts; i++) {
		snprintf(name, sizeof(name), "%s%s.%s", prefix, parts[i].name, suffix);
		r = take(l, name, parts[i].n, 0, &t);
		r = r ? r : safetensors_check_finite(l->opt->dir, t, l->err);
		if (!r) {
			safetensors_read(t, v + at);
			at += parts[i].n;
			let_go(l, t);
		}
	}
	r = r ? r : buffer_filled(m, v, n * sizeof(*v), ret, l->err);
	m->weight_bytes += n * sizeof(*v);
	free(v);
	return r;
}

static int load_norm(struct loader *l, const char *prefix, const char *name, uint32_t n,
		     struct wk_buf **ret)
{
	struct part part = {name, n};

	return load_vector(l, prefix, "weight", &part, 1, ret);
}

/* --- layers --------------------------------------------------------------------------------------*/

static int load_attention(struct loader *l, const char *prefix, struct model_layer *y)
{
	const struct model_config *c = &l->m->config;
	const uint32_t n_q = c->n_heads * c->head_dim, n_kv = c->n_kv_heads * c->head_dim;
	const struct part qkv[] = {
		{"self_attn.q_proj", n_q}, {"self_attn.k_proj", n_kv}, {"self_attn.v_proj", n_kv}};
	const struct part o = {"self_attn.o_proj", c->hidden};
	int r;

	r = load_norm(l, prefix, "input_layernorm", c->hidden, &y->attn_norm);
	r = r ? r : load_weight(l, prefix, qkv, 3, c->hidden, WK_PACK_PLAIN, &y->qkv);
	if (!r && c->qkv_bias)
		r = load_vector(l, prefix, "bias", qkv, 3, &y->qkv_bias);
	if (!r && c->qk_norm)
		r = load_norm(l, prefix, "self_attn.q_norm", c->head_dim, &y->q_norm);
	if (!r && c->qk_norm)
		r = load_norm(l, prefix, "self_attn.k_norm", c->head_dim, &y->k_norm);
	r = r ? r : load_weight(l, prefix, &o, 1, n_q, WK_PACK_PLAIN, &y->o);
	if (!r && c->o_bias)
		r = load_vector(l, prefix, "bias", &o, 1, &y->o_bias);
	return r;
}

static int load_mlp(struct loader *l, const char *prefix, struct model_layer *y)
{
	const struct model_config *c = &l->m->config;
	const struct part gate_up[] = {{"mlp.gate_proj", c->ffn}, {"mlp.up_proj", c->ffn}};
	const struct part down = {"mlp.down_proj", c->hidden};
	int r;

	r = load_norm(l, prefix, "post_attention_layernorm", c->hidden, &y->mlp_norm);
	r = r ? r : load_weight(l, prefix, gate_up, 2, c->hidden, WK_PACK_GATE_UP, &y->gate_up);
	return r ? r : load_weight(l, prefix, &down, 1, c->ffn, WK_PACK_PLAIN, &y->down);
}

/* Old Llama files carry the inverse frequencies; they follow from the configuration. */
static void skip_inv_freq(struct loader *l, const char *prefix)
{
	char name[NAME_BYTES];
	struct st_tensor *t;

	snprintf(name, sizeof(name), "%sself_attn.rotary_emb.inv_freq", prefix);
	t = safetensors_find(&l->set, name);
	if (t)
		t->used = true;
}

static int load_layers(struct loader *l)
{
	struct model *m = l->m;
	char prefix[NAME_BYTES / 2];
	int r = 0;

	m->layers = calloc(m->config.n_layers, sizeof(*m->layers));
	if (!m->layers)
		return err_set(l->err, -ENOMEM, "%s: out of memory", l->opt->dir);
	for (uint32_t i = 0; !r && i < m->config.n_layers; i++) {
		snprintf(prefix, sizeof(prefix), "model.layers.%u.", i);
		r = load_attention(l, prefix, &m->layers[i]);
		r = r ? r : load_mlp(l, prefix, &m->layers[i]);
		skip_inv_freq(l, prefix);
	}
	return r;
}

/* A tied head may be there all the same, but then it must be the embedding. */
static int check_tied_head(struct loader *l)
{
	struct st_tensor *head = safetensors_find(&l->set, "lm_head.weight");
	struct st_tensor *embed = safetensors_find(&l->set, "model.embed_tokens.weight");

	if (!head)
		return 0;
	if (head->dtype != embed->dtype || head->bytes != embed->bytes ||
	    memcmp(head->data, embed->data, head->bytes))
		return fail_tensor(l, head,
				   "differs from the embedding, but config.json says "
				   "tie_word_embeddings");
	head->used = true;
	return 0;
}

static int load_tensors(struct loader *l)
{
	struct model *m = l->m;
	const struct part embed = {"model.embed_tokens", m->config.vocab};
	const struct part head = {"lm_head", m->config.vocab};
	int r;

	r = load_weight(l, "", &embed, 1, m->config.hidden, WK_PACK_PLAIN, &m->embed);
	r = r ? r : load_layers(l);
	r = r ? r : load_norm(l, "", "model.norm", m->config.hidden, &m->final_norm);
	if (!r && m->config.tied_head)
		r = check_tied_head(l);
	else if (!r)
		r = load_weight(l, "", &head, 1, m->config.hidden, WK_PACK_PLAIN, &m->head);
	for (uint32_t i = 0; !r && i < l->set.n_tensors; i++)
		if (!l->set.tensors[i].used)
			r = fail_tensor(l, &l->set.tensors[i],
					"unknown; a %s of this configuration has no such tensor",
					m->config.model_type);
	return r;
}

/* --- digest --------------------------------------------------------------------------------------*/

/* What the configuration adds to the weights. Tokens that end a text change no KV: left out. */
static void digest_config(struct loader *l)
{
	const struct model_config *c = &l->m->config;
	char text[1024];
	int n;

	n = snprintf(
		text, sizeof(text),
		"weft model 1: %s %u %u %u %u %u %u %u %u eps %.9g tied %d bias %d %d %d qk %d "
		"window %u %u scale %.9g %.9g %.9g %.9g rope %d %.17g %.17g %.17g %.17g %u yarn "
		"%.17g %.17g %.17g %d",
		c->model_type, c->n_layers, c->hidden, c->n_heads, c->n_kv_heads, c->head_dim,
		c->ffn, c->vocab, c->max_positions, c->norm_eps, c->tied_head, c->qkv_bias,
		c->o_bias, c->mlp_bias, c->qk_norm, c->window, c->window_from_layer,
		c->embedding_scale, c->residual_scale, c->attention_scale, c->logits_scale, c->rope,
		c->rope_theta, c->rope_factor, c->rope_low_freq, c->rope_high_freq,
		c->rope_original, c->yarn_beta_fast, c->yarn_beta_slow, c->yarn_attention_factor,
		c->yarn_truncate);
	XXH3_128bits_update(&l->digest, text, (size_t)n);
}

static void finish_digest(struct loader *l)
{
	XXH128_canonical_t out;

	XXH128_canonicalFromHash(&out, XXH3_128bits_digest(&l->digest));
	memcpy(l->m->digest, out.digest, sizeof(l->m->digest));
}

/* --- buffers -------------------------------------------------------------------------------------*/

static uint32_t padded(uint32_t n, uint32_t elem_bytes, uint32_t align_bytes)
{
	uint32_t per = align_bytes > elem_bytes ? align_bytes / elem_bytes : 1;

	return (n + per - 1) / per * per;
}

static int make_buffers(struct model *m, struct weft_err *err)
{
	const struct model_config *c = &m->config;
	const uint32_t n_q = c->n_heads * c->head_dim, n_kv = c->n_kv_heads * c->head_dim;
	struct wk_info info;
	size_t rows;
	uint32_t x;
	int r;

	m->ops->info(m->be, &info);
	x = info.x_bytes;
	rows = info.max_rows;
	m->h_stride = padded(c->hidden, 4, info.align_bytes);
	m->x_stride = padded(c->hidden > n_q ? c->hidden : n_q, x, info.align_bytes);
	m->q_stride = padded(n_q, x, info.align_bytes);
	m->y_stride = padded(n_q + 2 * n_kv, 4, info.align_bytes);
	m->ffn_stride = padded(c->ffn, x, info.align_bytes);
	m->logits_stride = padded(c->vocab, 4, info.align_bytes);
	r = buffer_new(m, rows * m->h_stride * 4, &m->h, err);
	r = r ? r : buffer_new(m, rows * m->x_stride * x, &m->x, err);
	r = r ? r : buffer_new(m, rows * m->q_stride * x, &m->q, err);
	r = r ? r : buffer_new(m, rows * m->y_stride * 4, &m->y, err);
	r = r ? r : buffer_new(m, rows * m->ffn_stride * x, &m->ffn, err);
	return r ? r : buffer_new(m, (size_t)WK_MAX_OUT * m->logits_stride * 4, &m->logits, err);
}

static int make_rope(struct model *m, struct weft_err *err)
{
	const size_t bytes = m->config.head_dim / 2 * sizeof(float);
	float inv_freq[128]; /* head_dim <= 256 */

	model_rope(&m->config, inv_freq, &m->rope_scale);
	return buffer_filled(m, inv_freq, bytes, &m->inv_freq, err);
}

/* --- open and close ------------------------------------------------------------------------------*/

static int load(struct loader *l)
{
	struct model *m = l->m;
	int r;

	m->kv = (struct wk_kv_shape){
		.n_layers = m->config.n_layers,
		.n_kv_heads = m->config.n_kv_heads,
		.head_dim = m->config.head_dim,
		.min_block_bytes = (uint32_t)adapter_piece_bytes(m->ops, m->be, &m->config),
	};
	XXH3_128bits_reset(&l->digest);
	digest_config(l);
	r = l->opt->dummy ? dummy_open(&l->dummy, l->opt->dir, &m->config, l->err)
			  : safetensors_open(l->opt->dir, &l->set, l->err);
	l->total = l->opt->dummy ? dummy_bytes(&m->config) : 0;
	for (uint32_t i = 0; i < l->set.n_tensors; i++)
		l->total += l->set.tensors[i].bytes;
	r = r ? r : load_tensors(l);
	if (!r)
		finish_digest(l);
	safetensors_close(&l->set);
	dummy_close(&l->dummy);
	r = r ? r : make_rope(m, l->err);
	return r ? r : make_buffers(m, l->err);
}

int model_open_config(const struct wk_ops *ops, struct wk_backend *be,
		      const struct model_open_options *opt, const struct model_config *config,
		      struct model **ret, struct weft_err *err)
{
	struct model *m = calloc(1, sizeof(*m));
	struct loader *l = aligned_alloc(64, (sizeof(*l) + 63) / 64 * 64);
	int r;

	if (m)
		m->dir = strdup(opt->dir);
	if (!m || !m->dir || !l) {
		if (m)
			free(m->dir);
		free(m);
		free(l);
		return err_set(err, -ENOMEM, "%s: out of memory", opt->dir);
	}
	memset(l, 0, sizeof(*l));
	m->ops = ops;
	m->be = be;
	m->config = *config;
	l->m = m;
	l->opt = opt;
	l->err = err;
	r = load(l);
	free(l);
	if (r) {
		err_one_line(err);
		model_close(m);
		return r;
	}
	*ret = m;
	return 0;
}

int model_open(const struct wk_ops *ops, struct wk_backend *be,
	       const struct model_open_options *opt, struct model **ret, struct weft_err *err)
{
	struct model_config config;
	int r = model_config_read(opt->dir, &config, err);

	return r ? r : model_open_config(ops, be, opt, &config, ret, err);
}

static void layer_fini(struct model *m, struct model_layer *y)
{
	m->ops->weight_free(m->be, y->qkv);
	m->ops->weight_free(m->be, y->o);
	m->ops->weight_free(m->be, y->gate_up);
	m->ops->weight_free(m->be, y->down);
	m->ops->buf_free(m->be, y->attn_norm);
	m->ops->buf_free(m->be, y->mlp_norm);
	m->ops->buf_free(m->be, y->qkv_bias);
	m->ops->buf_free(m->be, y->o_bias);
	m->ops->buf_free(m->be, y->q_norm);
	m->ops->buf_free(m->be, y->k_norm);
}

static void activations_fini(struct model *m)
{
	struct wk_buf *const buffers[] = {m->final_norm, m->inv_freq, m->h,   m->x,
					  m->q,		 m->y,	      m->ffn, m->logits};

	for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
		m->ops->buf_free(m->be, buffers[i]);
}

void model_close(struct model *m)
{
	if (!m)
		return;
	for (uint32_t i = 0; m->layers && i < m->config.n_layers; i++)
		layer_fini(m, &m->layers[i]);
	m->ops->weight_free(m->be, m->embed);
	m->ops->weight_free(m->be, m->head);
	activations_fini(m);
	free(m->layers);
	free(m->dir);
	free(m);
}

/* --- small questions -----------------------------------------------------------------------------*/

const struct model_config *model_config_of(const struct model *m)
{
	return &m->config;
}

void model_digest(const struct model *m, uint8_t ret[16])
{
	memcpy(ret, m->digest, sizeof(m->digest));
}

uint64_t model_weight_bytes(const struct model *m)
{
	return m->weight_bytes;
}

size_t model_block_bytes(const struct model *m)
{
	return m->ops->kv_block_bytes(m->be, &m->kv);
}

int model_pool_new(struct model *m, uint32_t n_blocks, struct wk_buf **ret, struct weft_err *err)
{
	size_t bytes = model_block_bytes(m);
	struct wk_buf *pool;
	int r;

	if (!n_blocks || __builtin_mul_overflow(bytes, (size_t)n_blocks, &bytes))
		return err_set(err, -EINVAL, "a KV pool of %u blocks", n_blocks);
	r = buffer_new(m, bytes, &pool, err);
	if (r)
		return r;
	r = m->ops->kv_bind(m->be, &m->kv, pool, n_blocks);
	if (r) {
		err_set(err, r, "KV pool of %u blocks: %s", n_blocks, m->ops->last_error(m->be));
		m->ops->buf_free(m->be, pool);
		return r;
	}
	*ret = pool;
	return 0;
}

void model_pool_free(struct model *m, struct wk_buf *pool)
{
	m->ops->buf_free(m->be, pool);
}
