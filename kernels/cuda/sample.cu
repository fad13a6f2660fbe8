/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.cu - from a row of logits to a token and its log-probabilities: a thread block for each.
 *
 * Weights are exp((logit - max) / temperature) in fixed point, WEIGHT_BITS after the point, so that
 * their sums are whole numbers: the same whatever the order, and every decision is exact in them. The
 * last token that the filters keep (its place in the order: logit descending, id ascending) is found
 * by digits of the logit's bits, largest first, counting tokens (top_k) or weight (top_p). The draw
 * walks the kept tokens in ascending id until the sum passes u of the total.
 *
 * A row is read several times, by one multiprocessor: what that takes is its loads' latency over how many of
 * them are under way, so a thread asks for 64 bytes before it looks at any (visit()).
 */
#include "kernels/cuda/device.cuh"

#define THREADS	    512
#define WARPS	    (THREADS / 32)
#define WEIGHT_BITS 40
#define NO_TOKEN    0xffffffffu
#define AT_ONCE	    4 /* loads of 16 bytes that a thread has under way */

typedef unsigned long long count_t;

/* By their bits: NVRTC has none of C's headers. */
WK_DEVICE float plus_infinity(void)
{
	return __uint_as_float(0x7f800000);
}

WK_DEVICE float not_a_number(void)
{
	return __uint_as_float(0x7fc00000);
}

/* The place of a token in the order; ids above `id` of the same key are behind it. */
struct place {
	uint32_t key, id;
};

/* Amounts by a digit, in two words: there is no addition to 64 bits in shared memory, only a loop of
 * comparisons, which hundreds of threads at the same few digits would spend a step's time in. */
struct bins {
	uint32_t lo[256], hi[256];
};

struct shared_state {
	struct bins bins;
	count_t sums[WARPS];
	float maxima[WARPS];
	uint32_t ids[WARPS];
	struct place top[KA_MAX_LOGPROBS];
	uint32_t n_top, bad, digit, found;
	count_t left;
};

/* Larger logits have larger keys; the two zeros have one. */
WK_DEVICE uint32_t key_of(float logit)
{
	uint32_t u = __float_as_uint(logit + 0.0f);

	return u & 0x80000000 ? ~u : u | 0x80000000;
}

WK_DEVICE float logit_of(uint32_t key)
{
	return __uint_as_float(key & 0x80000000 ? key & 0x7fffffff : ~key);
}

/*
 * f(logit, id) for tokens from .. end - 1 that are this thread's, in no order: `me` of `of` threads that
 * share them. from is a multiple of four. Rows of any model are aligned; others go a token at a time.
 */
template <class F>
WK_DEVICE void visit(const float *logits, uint32_t from, uint32_t end, uint32_t me, uint32_t of,
		     F f)
{
	const uint32_t four = 4 * of;
	uint32_t whole = (uint64_t)logits % 16 || end < from ? from : from + (end - from) / 4 * 4;
	uint32_t i = from + 4 * me;

	for (; i < whole && whole - i > (AT_ONCE - 1) * four; i += AT_ONCE * four) {
		float4 v[AT_ONCE];

#pragma unroll
		for (uint32_t j = 0; j < AT_ONCE; j++)
			v[j] = wk_load_floats(logits + i + j * four);
#pragma unroll
		for (uint32_t j = 0; j < AT_ONCE; j++) {
			f(v[j].x, i + j * four);
			f(v[j].y, i + j * four + 1);
			f(v[j].z, i + j * four + 2);
			f(v[j].w, i + j * four + 3);
		}
	}
	/* The rest is less than one round: a token at a time, without a copy of f for each of many. */
#pragma unroll 1
	for (uint32_t j = 0; i + j < whole; j = j == 3 ? (i += four, 0) : j + 1)
		f(logits[i + j], i + j);
#pragma unroll 1
	for (i = whole + me; i < end; i += of)
		f(logits[i], i);
}

/* A row with what it is drawn by. */
struct row {
	const float *logits;
	uint32_t n;
	float max, inv_temp;
};

WK_DEVICE float weight(const struct row &r, float logit)
{
	return expf((logit - r.max) * r.inv_temp);
}

WK_DEVICE count_t fixed(float w)
{
	return (count_t)((double)w * (double)(1ull << WEIGHT_BITS));
}

WK_DEVICE bool kept(const struct place &last, uint32_t key, uint32_t id)
{
	return key > last.key || (key == last.key && id <= last.id);
}

/* The amount of a token: 1, or its weight if it lies before `within` and reaches min_p. */
struct amount {
	struct place within;
	bool by_count;
	float min_p;
};

WK_DEVICE count_t amount_of(const struct amount &m, const struct row &r, float logit, uint32_t id)
{
	float w;

	if (m.by_count)
		return 1;
	if (!kept(m.within, key_of(logit), id))
		return 0;
	w = weight(r, logit);
	return w >= m.min_p ? fixed(w) : 0;
}

WK_DEVICE count_t warp_total(count_t v)
{
	for (int i = 16; i; i >>= 1)
		v += __shfl_xor_sync(WK_ALL, v, i);
	return v;
}

/* The same for all threads. Barriers before and after. */
WK_DEVICE count_t block_total(count_t v, struct shared_state *s)
{
	count_t sum = 0;

	v = warp_total(v);
	__syncthreads();
	if (threadIdx.x % 32 == 0)
		s->sums[threadIdx.x / 32] = v;
	__syncthreads();
	for (int i = 0; i < WARPS; i++)
		sum += s->sums[i];
	return sum;
}

WK_DEVICE count_t total(const struct amount &m, const struct row &r, struct shared_state *s)
{
	count_t sum = 0;

	visit(r.logits, 0, r.n, threadIdx.x, THREADS,
	      [&](float logit, uint32_t i) { sum += amount_of(m, r, logit, i); });
	return block_total(sum, s);
}

/* Maximum; whether there is a NaN or +Inf, or nothing finite. */
WK_DEVICE bool row_max(const float *logits, uint32_t n, struct shared_state *s, float *ret_max)
{
	float max = -plus_infinity();
	uint32_t nan = 0;

	visit(logits, 0, n, threadIdx.x, THREADS, [&](float v, uint32_t) {
		nan |= v != v;
		max = v > max ? v : max;
	});
	for (int i = 16; i; i >>= 1) {
		max = fmaxf(max, __shfl_xor_sync(WK_ALL, max, i));
		nan |= __shfl_xor_sync(WK_ALL, nan, i);
	}
	__syncthreads();
	if (threadIdx.x == 0)
		s->bad = 0;
	if (threadIdx.x % 32 == 0)
		s->maxima[threadIdx.x / 32] = max;
	__syncthreads();
	if (nan && threadIdx.x % 32 == 0)
		s->bad = 1;
	for (int i = 0; i < WARPS; i++)
		max = fmaxf(max, s->maxima[i]);
	__syncthreads();
	*ret_max = max;
	return !s->bad && max > -plus_infinity() && max < plus_infinity();
}

/*
 * The token, in ascending id among those that match `key` (all: any key), at which the running
 * amount reaches `target` >= 1. A warp sums a stretch of the row; the one in whose stretch it lies
 * walks it.
 */
WK_DEVICE uint32_t walk(const struct amount &m, const struct row &r, bool all, uint32_t key,
			count_t target, struct shared_state *s)
{
	uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	uint32_t stretch = ((r.n + WARPS - 1) / WARPS + 31) / 32 * 32, at = warp * stretch;
	uint32_t end = at + stretch < r.n ? at + stretch : r.n;
	count_t sum = 0, before = 0;

	visit(r.logits, at, end, lane, 32, [&](float logit, uint32_t i) {
		if (all || key_of(logit) == key)
			sum += amount_of(m, r, logit, i);
	});
	sum = warp_total(sum);
	__syncthreads();
	if (lane == 0)
		s->sums[warp] = sum;
	if (threadIdx.x == 0)
		s->found = 0;
	__syncthreads();
	for (uint32_t w = 0; w < warp; w++)
		before += s->sums[w];
	if (before < target && target - before <= sum)
		for (; at < end; at += 32) {
			uint32_t i = at + lane;
			count_t v = 0, up;
			uint32_t here;

			if (i < end && (all || key_of(r.logits[i]) == key))
				v = amount_of(m, r, r.logits[i], i);
			for (int d = 1; d < 32; d *= 2) {
				up = __shfl_up_sync(WK_ALL, v, d);
				v += lane >= (uint32_t)d ? up : 0;
			}
			here = __ballot_sync(WK_ALL, before + v >= target);
			if (here) {
				if (lane == 0)
					s->found = at + __ffs(here) - 1;
				break;
			}
			before += __shfl_sync(WK_ALL, v, 31);
		}
	__syncthreads();
	return s->found;
}

/* Exact: each time the low word wraps, whoever wrapped it carries one. */
WK_DEVICE void add(struct bins *b, uint32_t digit, count_t v)
{
	uint32_t lo = (uint32_t)v, hi = (uint32_t)(v >> 32);
	uint32_t sum = atomicAdd(&b->lo[digit], lo) + lo;

	hi += sum < lo;
	if (hi)
		atomicAdd(&b->hi[digit], hi);
}

WK_DEVICE count_t in_bin(const struct bins *b, uint32_t digit)
{
	return (count_t)b->hi[digit] << 32 | b->lo[digit];
}

/* The first place in the order at which the amount reaches `target` (1 .. the total). */
WK_DEVICE struct place select(const struct amount &m, const struct row &r, count_t target,
			      struct shared_state *s)
{
	struct place last = {0, 0};
	uint32_t mask = 0;
	count_t each;

	for (int shift = 24; shift >= 0; shift -= 8) {
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < 256; i += THREADS)
			s->bins.lo[i] = s->bins.hi[i] = 0;
		__syncthreads();
		visit(r.logits, 0, r.n, threadIdx.x, THREADS, [&](float logit, uint32_t i) {
			uint32_t key = key_of(logit);
			count_t v = (key & mask) == last.key ? amount_of(m, r, logit, i) : 0;

			if (v)
				add(&s->bins, key >> shift & 255, v);
		});
		__syncthreads();
		if (threadIdx.x == 0) {
			uint32_t d = 255;

			while (d && in_bin(&s->bins, d) < target)
				target -= in_bin(&s->bins, d--);
			s->digit = d;
			s->left = target;
		}
		__syncthreads();
		last.key |= s->digit << shift;
		mask |= 255u << shift;
		target = s->left;
	}
	/* Tokens of one key have one weight: the rest of the amount is a whole number of them. */
	each = m.by_count ? 1 : fixed(weight(r, logit_of(last.key)));
	target = (target + each - 1) / each * each;
	last.id = walk(m, r, false, last.key, target, s);
	return last;
}

WK_DEVICE bool ahead(const struct place &a, const struct place &b)
{
	return a.key > b.key || (a.key == b.key && a.id < b.id);
}

/* The first n in the order, sorted; by thread 0 in the end, they are few. */
WK_DEVICE void report_top(const struct row &r, uint32_t n, double lse, struct ka_sampled *out,
			  struct shared_state *s)
{
	const struct amount count = {{0, NO_TOKEN}, true, 0};
	struct place last;

	n = n < r.n ? n : r.n;
	last = select(count, r, n, s);
	if (threadIdx.x == 0)
		s->n_top = 0;
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < r.n; i += THREADS) {
		uint32_t key = key_of(r.logits[i]), at;

		if (!kept(last, key, i))
			continue;
		at = atomicAdd(&s->n_top, 1u);
		if (at < KA_MAX_LOGPROBS)
			s->top[at] = {key, i};
	}
	__syncthreads();
	if (threadIdx.x != 0)
		return;
	for (uint32_t i = 1; i < n; i++) {
		struct place t = s->top[i];
		uint32_t j = i;

		for (; j && ahead(t, s->top[j - 1]); j--)
			s->top[j] = s->top[j - 1];
		s->top[j] = t;
	}
	for (uint32_t i = 0; i < n; i++) {
		out->top_tokens[i] = s->top[i].id;
		out->top_logprobs[i] = (float)(r.logits[s->top[i].id] - lse);
	}
}

/* A copy of the row with bias, then penalties. A token may have several biases: they are added in
 * their order, by whoever has the first. */
WK_DEVICE void adjust(const struct ka_sampling &a, const struct ka_sample &p, const float *from,
		      float *to)
{
	const struct ka_bias *bias = a.bias + p.bias;

	for (uint32_t i = threadIdx.x; i < a.vocab; i += THREADS)
		to[i] = from[i];
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < p.n_bias; i += THREADS) {
		uint32_t token = bias[i].token;
		bool first = token < a.vocab;

		for (uint32_t j = 0; first && j < i; j++)
			first = bias[j].token != token;
		for (uint32_t j = i; first && j < p.n_bias; j++)
			if (bias[j].token == token)
				to[token] += bias[j].value;
	}
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < p.n_counts; i += THREADS) {
		const struct ka_count c = a.counts[p.counts + i];
		float v;

		if (c.token >= a.vocab)
			continue;
		v = to[c.token];
		if (p.repetition != 1 && (c.in_prompt || c.in_output))
			v = v > 0 ? v / p.repetition : v * p.repetition;
		if (c.in_output)
			v -= p.presence + p.frequency * c.in_output;
		to[c.token] = v;
	}
	__syncthreads();
}

/* The lowest id of the largest logit. */
WK_DEVICE uint32_t arg_max(const struct row &r, struct shared_state *s)
{
	uint32_t id = NO_TOKEN;

	visit(r.logits, 0, r.n, threadIdx.x, THREADS, [&](float logit, uint32_t i) {
		if (logit == r.max && i < id)
			id = i;
	});
	for (int i = 16; i; i >>= 1) {
		uint32_t other = __shfl_xor_sync(WK_ALL, id, i);

		id = other < id ? other : id;
	}
	__syncthreads();
	if (threadIdx.x % 32 == 0)
		s->ids[threadIdx.x / 32] = id;
	__syncthreads();
	for (int i = 0; i < WARPS; i++)
		id = s->ids[i] < id ? s->ids[i] : id;
	return id;
}

WK_DEVICE uint32_t draw(const struct row &r, const struct ka_sample &p, struct shared_state *s)
{
	struct amount m = {{0, NO_TOKEN}, true, 0};
	count_t sum, target;

	if (p.top_k && p.top_k < r.n)
		m.within = select(m, r, p.top_k, s);
	m.by_count = false;
	if (p.top_p < 1) {
		sum = total(m, r, s);
		target = (count_t)ceil((double)p.top_p * (double)sum);
		target = target > sum ? sum : target ? target : 1;
		m.within = select(m, r, target, s);
	}
	m.min_p = p.min_p;
	sum = total(m, r, s);
	target = (count_t)((double)p.uniform * (double)sum) + 1;
	return walk(m, r, true, 0, target > sum ? sum : target, s);
}

/* The token, the same for all threads; all that is known of it in *out. */
WK_DEVICE uint32_t sample(const struct ka_sampling &a, const struct ka_sample &p,
			  struct ka_sampled *out, struct shared_state *s)
{
	const float *logits = a.logits + (uint64_t)p.row * a.stride;
	const struct amount all = {{0, NO_TOKEN}, false, 0};
	struct row r = {logits, a.vocab, 0, 1};
	uint32_t token = p.given;
	double lse;

	for (uint32_t i = threadIdx.x; i < KA_MAX_LOGPROBS; i += THREADS) {
		out->top_tokens[i] = NO_TOKEN;
		out->top_logprobs[i] = -plus_infinity();
	}
	if (threadIdx.x == 0) {
		out->token = 0;
		out->logprob = not_a_number();
	}
	if (!row_max(logits, a.vocab, s, &r.max))
		return 0;
	lse = r.max + log((double)total(all, r, s) / (double)(1ull << WEIGHT_BITS));
	if (p.n_top)
		report_top(r, p.n_top, lse, out, s);
	if (token == NO_TOKEN) {
		if (p.n_bias || p.n_counts) {
			float *to = a.scratch + (uint64_t)blockIdx.x * a.stride;

			adjust(a, p, logits, to);
			r.logits = to;
			if (!row_max(to, a.vocab, s, &r.max))
				return 0;
		}
		r.inv_temp = p.inv_temp;
		token = p.inv_temp < plus_infinity() ? draw(r, p, s) : arg_max(r, s);
	}
	if (threadIdx.x == 0) {
		out->token = token;
		if (token < a.vocab)
			out->logprob = (float)(logits[token] - lse);
	}
	return token;
}

WK_KERNEL(wk_sample, (THREADS), struct ka_sampling)
{
	__shared__ struct shared_state state;
	const struct ka_sample p = a.samples[blockIdx.x];

	uint32_t token = sample(a, p, a.out + p.out, &state);

	/* The next step may name it: results go to the host, and are not read here. */
	if (threadIdx.x == 0)
		a.drawn[blockIdx.x] = token;
}
