/* SPDX-License-Identifier: Apache-2.0 */
/*
 * private.h - the parts of a tokenizer, and how text passes through them.
 *
 *   text -> raw added tokens -> normalizers -> normalized added tokens -> pre-tokenizers -> BPE
 *   (added.c)                   (normalize.c)  (added.c)                  (split.c)        (bpe.c)
 *
 * A struct weft_tokenizer is constant once it is open. What an encoding writes is a wt_scratch, of
 * which the tokenizer keeps those that nobody uses; a mutex guards that list and nothing else.
 */
#ifndef WEFT_TEXT_PRIVATE_H
#define WEFT_TEXT_PRIVATE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <jansson.h>
#include <pcre2.h>
#include <pthread.h>
#include <stdbool.h>

#include "libclient/text/weft_text.h"

/* Limits on what a file may ask for; far above any tokenizer in use. */
#define WT_MAX_FILE_BYTES    (64u << 20)
#define WT_MAX_VOCAB	     (1u << 21)
#define WT_MAX_MERGES	     (1u << 22)
#define WT_MAX_ADDED	     (1u << 16)
#define WT_MAX_TOKEN_BYTES   4096u
#define WT_MAX_STEPS	     16u
#define WT_MAX_AFFIX	     64u
#define WT_MAX_PATTERN_BYTES 4096u

/* --- buffers, UTF-8 (utf8.c) ------------------------------------------------------------------*/

struct wt_buf {
	char *p; /* owner */
	size_t n, room;
};

struct wt_ids {
	uint32_t *p; /* owner */
	size_t n, room;
};

int wt_buf_add(struct wt_buf *b, const void *p, size_t n);
int wt_buf_reserve(struct wt_buf *b, size_t more);
int wt_ids_grow(struct wt_ids *ids);
static inline int wt_ids_add(struct wt_ids *ids, uint32_t id)
{
	if (ids->n == ids->room && wt_ids_grow(ids))
		return -ENOMEM;
	ids->p[ids->n++] = id;
	return 0;
}

/*
 * The length of the well-formed character at p (1..4), or minus the length of the maximal ill-formed
 * part there; 0: the n bytes are the beginning of a character.
 */
int wt_utf8_length(const unsigned char *p, size_t n);
/* Of well-formed text. */
uint32_t wt_utf8_next(const char *p, size_t n, int *ret_length);
uint32_t wt_utf8_last(const char *p, size_t n);
int wt_utf8_put(char *p, uint32_t c);
bool wt_utf8_valid(const char *p, size_t n);
/* Append p with its ill-formed parts as U+FFFD. */
int wt_buf_add_lossy(struct wt_buf *b, const char *p, size_t n);
/* Unicode's White_Space; letters, marks, digits and connectors; numbers of all kinds. */
bool wt_is_space(uint32_t c);
bool wt_is_word(uint32_t c);
bool wt_is_number(uint32_t c);
/* The alphabet that stands for bytes in byte-level vocabularies. */
uint32_t wt_byte_char(unsigned char b);
/* The bytes that text stands for, into p (at least n of room): how many, or -1: not all of it is
 * in the alphabet. */
int wt_byte_decode(char *p, const char *text, size_t n);

int wt_fail(struct weft_error *error, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* --- vocabulary and merges (vocab.c) -------------------------------------------------------------*/

struct wt_token {
	uint32_t text, text_bytes; /* offset in the arena; as the file spells it; zero-terminated */
	uint32_t raw, raw_bytes;   /* what it matches in pre-tokenized text */
	uint8_t there, special;
	uint8_t renamed; /* an added token that decodes to its normalized text */
	uint8_t kind;	 /* enum wt_spelling */
};

/* How a token's text is to be found; each spelling has a name space of its own. */
enum wt_spelling {
	WT_PLAIN,    /* as pre-tokenized text has it */
	WT_VERBATIM, /* at byte level, but not of the byte alphabet: BPE cannot make it */
	WT_ADDED,    /* an added token that the model's own vocabulary does not have */
};

struct wt_merge {
	uint64_t pair; /* left << 32 | right; UINT64_MAX: free */
	uint32_t rank, id;
};

struct wt_vocab {
	struct wt_token *tokens; /* owner; [n] */
	uint32_t n, room;
	struct wt_buf arena;
	uint32_t *slots; /* owner; hash of raw bytes -> id; a power of two */
	uint32_t slots_mask;
	struct wt_merge *merges; /* owner */
	uint32_t merges_mask;
	uint32_t bytes[256]; /* id of each byte: byte level, or <0x..>; WEFT_NO_TOKEN */
	uint32_t unknown;
	bool byte_level, byte_fallback, fuse_unknown, ignore_merges;
};

int wt_vocab_read(struct wt_vocab *v, json_t *model, bool byte_level, struct weft_error *error);
/* Merges into special tokens are left out, so text cannot make one. After added tokens. */
int wt_vocab_read_merges(struct wt_vocab *v, json_t *model, struct weft_error *error);
void wt_vocab_fini(struct wt_vocab *v);
/* Enter a token of an id that is free. */
int wt_vocab_add(struct wt_vocab *v, uint32_t id, const char *text, size_t bytes, bool added,
		 struct weft_error *error);
uint32_t wt_vocab_find_raw(const struct wt_vocab *v, const char *p, size_t n,
			   enum wt_spelling kind);
/* By the file's spelling. */
uint32_t wt_vocab_find(const struct wt_vocab *v, const char *text, size_t n);
const struct wt_merge *wt_vocab_merge(const struct wt_vocab *v, uint32_t left, uint32_t right);

/* Append the expression that means in PCRE2's syntax what `regex` means in Oniguruma's (regex.c). */
int wt_regex_translate(struct wt_buf *b, const char *regex, size_t bytes, struct weft_error *error);

/* --- patterns (pattern.c) ------------------------------------------------------------------------*/

struct wt_pattern {
	char *text; /* owner; a literal, or NULL */
	size_t bytes;
	pcre2_code *code; /* owner, or NULL */
};

struct wt_scratch;

int wt_pattern_compile(struct wt_pattern *p, const char *regex, size_t bytes,
		       struct weft_error *error);
int wt_pattern_read(struct wt_pattern *p, json_t *o, struct weft_error *error);
void wt_pattern_fini(struct wt_pattern *p);

/* Matches one after another, as the format's own engine finds them. */
struct wt_matches {
	const struct wt_pattern *pattern;
	const char *text;
	size_t bytes, at;
	size_t last_end; /* SIZE_MAX: none yet */
};
/* 1 with a match, 0 at the end, or -errno. */
int wt_matches_next(struct wt_matches *m, struct wt_scratch *s, size_t *start, size_t *end);

/* --- steps ---------------------------------------------------------------------------------------*/

enum wt_kind {
	WT_FORM, /* NFC, NFD, NFKC, NFKD */
	WT_PREPEND,
	WT_REPLACE,
	WT_LOWERCASE,
	WT_SPLIT,
	WT_BYTE_LEVEL,
	WT_DIGITS,
	WT_METASPACE,
	WT_BYTE_FALLBACK,
	WT_FUSE,
	WT_STRIP,
};

enum wt_behavior { WT_REMOVED, WT_ISOLATED, WT_WITH_PREVIOUS, WT_WITH_NEXT, WT_CONTIGUOUS };
enum wt_prepend { WT_NEVER, WT_FIRST, WT_ALWAYS };

/* One step of a normalizer, pre-tokenizer or decoder: which fields count depends on kind. */
struct wt_step {
	enum wt_kind kind;
	struct wt_pattern pattern;
	char *content; /* owner */
	size_t content_bytes;
	int form; /* utf8proc options */
	enum wt_behavior behavior;
	enum wt_prepend prepend;
	bool invert, regex, prefix_space, individual, split;
	uint32_t start, stop;
};

struct wt_steps {
	struct wt_step step[WT_MAX_STEPS];
	uint32_t n;
};

int wt_normalizer_read(struct wt_steps *steps, json_t *o, struct weft_error *error);
int wt_splitter_read(struct wt_steps *steps, json_t *o, struct weft_error *error);
int wt_decoder_read(struct wt_steps *steps, json_t *o, struct weft_error *error);
void wt_steps_fini(struct wt_steps *steps);
/* A new step of a kind, or NULL with *error set. */
struct wt_step *wt_steps_add(struct wt_steps *steps, enum wt_kind kind, struct weft_error *error);
/* Read o's "type", and for a Sequence call read for each of o[list]. 1: not a sequence; name set. */
typedef int (*wt_read_fn)(struct wt_steps *steps, json_t *o, struct weft_error *error);
int wt_read_sequence(struct wt_steps *steps, json_t *o, const char *what, const char *list,
		     wt_read_fn read, const char **ret_type, struct weft_error *error);
int wt_read_string(json_t *o, const char *key, char **ret, size_t *ret_bytes,
		   struct weft_error *error);
/* A boolean, or `otherwise` where there is none. */
bool wt_read_bool(json_t *o, const char *key, bool otherwise);
int wt_read_metaspace(struct wt_step *s, json_t *o, struct weft_error *error);

/* Normalized text: *p, *n are replaced by bytes of the scratch's, valid until the next call. */
int wt_normalize(const struct wt_steps *steps, struct wt_scratch *s, const char **p, size_t *n);

/* --- added tokens (added.c) ----------------------------------------------------------------------*/

struct wt_added {
	uint32_t id;
	bool single_word, lstrip, rstrip, normalized, special;
	char *text; /* owner; to be found: normalized where that is asked for */
	size_t bytes;
};

struct wt_finder {
	const struct wt_added **sorted; /* owner; borrowed tokens */
	uint32_t n;
	bool first[256]; /* bytes that begin a token */
};

int wt_finder_init(struct wt_finder *f, const struct wt_added *added, uint32_t n, bool normalized);
void wt_finder_fini(struct wt_finder *f);
/* The longest token at p, or NULL. */
const struct wt_added *wt_finder_at(const struct wt_finder *f, const char *p, size_t n);

/* --- files (tokenizer.c) -------------------------------------------------------------------------*/

/* dir/name, whose path is put into `path`: a heap copy of it. -ENOENT: no such file. */
int wt_read_file(const char *dir, const char *name, char *path, size_t room, char **ret,
		 size_t *ret_bytes, struct weft_error *error);
/* The object in it. */
/* The same of bytes; where: what messages call them. */
int wt_parse_json(const char *where, const char *text, size_t bytes, json_t **ret,
		  struct weft_error *error);
int wt_read_json(const char *dir, const char *name, json_t **ret, struct weft_error *error);

/* --- the whole -----------------------------------------------------------------------------------*/

struct weft_tokenizer {
	struct wt_vocab vocab;
	struct wt_added *added; /* owner */
	uint32_t n_added;
	struct wt_finder raw, normalized;
	struct wt_steps normalizer, splitter, decoder;
	bool no_decoder;
	uint32_t prefix[WT_MAX_AFFIX], suffix[WT_MAX_AFFIX];
	uint32_t n_prefix, n_suffix;
	uint32_t bos, eos, pad, unknown;
	pthread_mutex_t lock;	 /* guards idle; held for a few instructions */
	struct wt_scratch *idle; /* owner; a list */
};

/* A pre-token's ids, remembered. The key is compared whole: a hash picks the entry only. */
#define WT_CACHE_KEY	 23u
#define WT_CACHE_IDS	 8u
#define WT_CACHE_ENTRIES (1u << 14)
struct wt_cached {
	uint8_t bytes; /* 0: free */
	char key[WT_CACHE_KEY];
	uint8_t n;
	uint32_t ids[WT_CACHE_IDS];
};

struct wt_symbol {
	uint32_t id;
	int32_t prev, next; /* -1: none */
};

struct wt_candidate {
	uint32_t rank, at, id;
};

struct wt_range {
	size_t start, end;
};

/* Processor time that a text's matches may take (pattern.c); all zero before the first. */
struct wt_patience {
	uint64_t end_ns, last_ns;
	uint32_t every, left; /* matches between two looks at the clock; until the next */
};

/* What one encoding writes: one thread's at a time. */
struct wt_scratch {
	struct wt_scratch *next;
	struct weft_tokenizer *t; /* borrowed */
	struct wt_ids *out;	  /* borrowed during an encoding */
	bool parse_special;
	const char *guard; /* borrowed; see wt_encode_guarded(); NULL: none */
	pcre2_match_data *match;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
	struct wt_patience patience;
	struct wt_buf text, unguarded, norm[2], step[WT_MAX_STEPS];
	int32_t *points; /* owner; code points while normalizing */
	size_t points_room;
	struct wt_symbol *symbols; /* owner */
	struct wt_candidate *heap; /* owner */
	size_t n_heap, heap_room, symbols_room;
	struct wt_cached *cache; /* owner; [WT_CACHE_ENTRIES] */
};

/*
 * As weft_encode(), and the character `guard` (WT_GUARD_BYTES of UTF-8) in the text keeps added tokens
 * from being found across it, and is gone before the text is cut and merged.
 */
#define WT_GUARD_BYTES 3u
int wt_encode_guarded(struct weft_tokenizer *t, const char *text, size_t bytes, uint32_t flags,
		      const char *guard, uint32_t **ret_ids, size_t *ret_n,
		      struct weft_error *error);
/* Would WEFT_PARSE_SPECIAL find a special token in it? 1, 0 or -errno. Valid UTF-8. */
int wt_holds_special(struct weft_tokenizer *t, const char *text, size_t bytes);

struct wt_scratch *wt_scratch_new(struct weft_tokenizer *t);
void wt_scratch_free(struct wt_scratch *s);

/* Cut text by the pre-tokenizers from `step` on and encode the pieces. first: the text's beginning. */
int wt_split(struct wt_scratch *s, uint32_t step, const char *p, size_t n, bool first);
/* The tokens of one pre-token, appended to s->out. */
int wt_bpe(struct wt_scratch *s, const char *p, size_t n);

#endif
