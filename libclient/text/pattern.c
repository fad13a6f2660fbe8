/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pattern.c - what a file searches text for: literals, and regular expressions by PCRE2.
 *
 * The files' expressions are written for another engine; regex.c says them again for PCRE2. Both
 * files and texts are outside input: expressions are short, and matching has limits. PCRE2's own hold
 * for one place of the text, so an expression could be slow at each of a million places, or look
 * through all the text from each: what a whole text may take is bounded by processor time, which is
 * looked at between matches, and a search stops on its way to be asked.
 */
#include "libclient/text/private.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int compile(struct wt_pattern *p, const struct wt_buf *b, const char *regex, size_t bytes,
		   struct weft_error *error)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_SIZE where;
	int code;

	if (!context)
		return wt_fail(error, -ENOMEM, "out of memory");
	/* Whatever this PCRE2 was built for. */
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	p->code = pcre2_compile((PCRE2_SPTR)b->p, b->n,
				PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
					PCRE2_USE_OFFSET_LIMIT,
				&code, &where, context);
	pcre2_compile_context_free(context);
	bytes = bytes > 120 ? 120 : bytes;
	if (!p->code && code == PCRE2_ERROR_UNKNOWN_UNICODE_PROPERTY)
		return wt_fail(error, -EOPNOTSUPP,
			       "unsupported in a regular expression: a property in %.*s",
			       (int)bytes, regex);
	if (!p->code)
		return wt_fail(error, -EINVAL, "a regular expression cannot be compiled: %.*s",
			       (int)bytes, regex);
	/* Without JIT on this machine matching is slower, and the same. */
	pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
	return 0;
}

int wt_pattern_compile(struct wt_pattern *p, const char *regex, size_t bytes,
		       struct weft_error *error)
{
	struct wt_buf b = {0};
	int r;

	if (bytes > WT_MAX_PATTERN_BYTES)
		return wt_fail(error, -EFBIG, "a regular expression of %zu bytes; at most %u",
			       bytes, WT_MAX_PATTERN_BYTES);
	r = wt_regex_translate(&b, regex, bytes, error);
	r = r ? r : compile(p, &b, regex, bytes, error);
	free(b.p);
	return r;
}

int wt_pattern_read(struct wt_pattern *p, json_t *o, struct weft_error *error)
{
	json_t *text = json_object_get(o, "String"), *regex = json_object_get(o, "Regex");

	if (json_is_string(regex))
		return wt_pattern_compile(p, json_string_value(regex), json_string_length(regex),
					  error);
	if (!json_is_string(text) || !json_string_length(text))
		return wt_fail(error, -EINVAL,
			       "a pattern must be a non-empty \"String\" or \"Regex\"");
	if (json_string_length(text) > WT_MAX_PATTERN_BYTES)
		return wt_fail(error, -EFBIG, "a pattern of %zu bytes; at most %u",
			       json_string_length(text), WT_MAX_PATTERN_BYTES);
	p->bytes = json_string_length(text);
	p->text = malloc(p->bytes);
	if (!p->text)
		return wt_fail(error, -ENOMEM, "out of memory");
	memcpy(p->text, json_string_value(text), p->bytes);
	return 0;
}

void wt_pattern_fini(struct wt_pattern *p)
{
	free(p->text);
	pcre2_code_free(p->code);
	*p = (struct wt_pattern){0};
}

/* --- patience ------------------------------------------------------------------------------------*/

/* Published expressions take 0.1 us a byte; sanitizers make that fifty times as much. */
#define PATIENCE_NS	     5000000000u
#define PATIENCE_NS_PER_BYTE 2000u
#define LATER		     32u /* matches between two looks at the clock */
#define SLOW_NS		     10000000u

static uint64_t processor_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* There is time for a text of so many bytes more. */
static void be_patient(struct wt_patience *p, size_t bytes)
{
	if (!p->end_ns) {
		p->last_ns = processor_ns();
		p->end_ns = p->last_ns + PATIENCE_NS;
		p->every = p->left = 1;
	}
	p->end_ns += bytes * PATIENCE_NS_PER_BYTE;
}

static bool is_patient(struct wt_patience *p)
{
	uint64_t now;

	if (--p->left)
		return true;
	now = processor_ns();
	if (now - p->last_ns > SLOW_NS)
		p->every = 1;
	else if (p->every < LATER)
		p->every *= 2;
	p->left = p->every;
	p->last_ns = now;
	return now < p->end_ns;
}

/* --- matching ------------------------------------------------------------------------------------*/

/* How many places a search may try at once: each may look through all that is left. */
static size_t places_at_once(size_t left)
{
	size_t n = ((size_t)1 << 28) / (left + 1);

	return n < 16 ? 16 : n;
}

/* pcre2_match() from m->at on, in stretches of the places where a match may begin. */
static int match(const struct wt_matches *m, struct wt_scratch *s)
{
	size_t at = m->at, last;
	int r;

	for (;;) {
		last = at + places_at_once(m->bytes - at);
		pcre2_set_offset_limit(s->context, last < m->bytes ? last : PCRE2_UNSET);
		r = pcre2_match(m->pattern->code, (PCRE2_SPTR)m->text, m->bytes, at,
				PCRE2_NO_UTF_CHECK, s->match, s->context);
		if (!is_patient(&s->patience))
			return PCRE2_ERROR_MATCHLIMIT;
		if (r != PCRE2_ERROR_NOMATCH || last >= m->bytes)
			return r;
		at = last + 1;
		while (at < m->bytes && ((unsigned char)m->text[at] & 0xc0) == 0x80)
			at++;
	}
}

static int search(struct wt_matches *m, struct wt_scratch *s, size_t *start, size_t *end)
{
	const PCRE2_SIZE *at;
	int r;

	if (m->pattern->text) {
		const char *hit = memmem(m->text + m->at, m->bytes - m->at, m->pattern->text,
					 m->pattern->bytes);

		if (!hit)
			return 0;
		*start = (size_t)(hit - m->text);
		*end = *start + m->pattern->bytes;
		return 1;
	}
	if (!m->at)
		be_patient(&s->patience, m->bytes);
	r = match(m, s);
	if (r == PCRE2_ERROR_NOMATCH)
		return 0;
	if (r < 0)
		return r == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -ELOOP;
	at = pcre2_get_ovector_pointer(s->match);
	*start = at[0];
	*end = at[1];
	/* \K in a lookahead can end a match before it starts, or before where it was sought. */
	return *start < m->at || *end < *start ? -ELOOP : 1;
}

int wt_matches_next(struct wt_matches *m, struct wt_scratch *s, size_t *start, size_t *end)
{
	while (m->at <= m->bytes) {
		int len = 1, r = search(m, s, start, end);

		if (r <= 0)
			return r;
		if (*start < *end || m->last_end != *end) {
			m->at = m->last_end = *end;
			return 1;
		}
		/* An empty match right after a match does not count. */
		if (m->at < m->bytes)
			wt_utf8_next(m->text + m->at, m->bytes - m->at, &len);
		m->at += (size_t)len;
	}
	return 0;
}
