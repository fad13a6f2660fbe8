/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_desc.c - descriptors written byte by byte from the msgpack specification: what is accepted,
 * what is refused, with which code and which key.
 */
#include "shm/wshm.h"
#include "tests/tap.h"

#include <errno.h>
#include <math.h>

/* key 3: [0, 4], the shortest valid descriptor's only pair */
#define PROMPT "\x03\x92\x00\x04"

static struct wshm_desc d;
static uint32_t key;

static int decode(const char *bytes, uint32_t n)
{
	key = 999;
	return wshm_desc_decode(&d, (const uint8_t *)bytes, n, &key);
}

/* Literals may hold zero bytes. */
#define GOOD(bytes, what) is_int(decode(bytes, sizeof(bytes) - 1), 0, "accepted: %s", what)
#define BAD(bytes, rc, at, what)                                                   \
	do {                                                                       \
		is_int(decode(bytes, sizeof(bytes) - 1), rc, "refused: %s", what); \
		is_int(key, at, "  blamed on key %d", at);                         \
	} while (0)

static void test_defaults(void)
{
	GOOD("\x81" PROMPT, "a prompt alone");
	ok(d.prompt.off == 0 && d.prompt.tokens == 4, "the prompt");
	ok(d.model[0] == 0 && d.adapter[0] == 0, "the engine's model, no adapter");
	ok(d.n == 1 && d.max_tokens == 128 && d.min_tokens == 0, "one sample of at most 128");
	ok(d.temperature == 1 && d.top_k == 0 && d.top_p == 1 && d.min_p == 0, "plain sampling");
	ok(d.repetition == 1 && d.presence == 0 && d.frequency == 0, "no penalty");
	ok(!d.has_seed && !d.ignore_eos && d.priority == 0 && d.timeout_ms == 0, "nothing else");
	ok(d.n_resume + d.n_stop_tokens + d.n_stop_seqs + d.n_bias == 0, "no lists");
	ok(d.logprobs == WSHM_NO_LOGPROBS && d.prompt_logprobs == WSHM_NO_LOGPROBS,
	   "no log-probabilities");
	is_int(key, 999, "no key is blamed");
}

static void test_values(void)
{
	GOOD("\x84" PROMPT "\x01\xa5llama\x02\xa0\x0f\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
	     "names and seed");
	is_str(d.model, "llama", "model");
	is_str(d.adapter, "", "an empty name is no name");
	ok(d.has_seed && d.seed == UINT64_MAX, "the largest seed");

	GOOD("\x83\x12\x94\x07\xca\x3f\x80\x00\x00\xcd\x01\x00\xca\xff\x80\x00\x00" PROMPT
	     "\x11\x92\x91\x01\x92\x02\xcc\x80",
	     "bias and stop sequences");
	ok(d.n_bias == 2 && d.bias[0].token == 7 && d.bias[0].value == 1 &&
		   d.bias[1].token == 256 && d.bias[1].value == -INFINITY,
	   "bias, minus infinity included");
	ok(d.n_stop_seqs == 2 && d.stop_seqs[0].n == 1 && d.stop_seqs[0].tokens[0] == 1 &&
		   d.stop_seqs[1].n == 2 && d.stop_seqs[1].tokens[1] == 128,
	   "stop sequences");

	GOOD("\x86" PROMPT "\x05\x02\x04\x92\x92\x00\x00\x92\x08\x01\x06\x10\x07\x10\x08\xca"
	     "\x42\xc8\x00\x00",
	     "two samples resumed");
	ok(d.n == 2 && d.n_resume == 2 && d.resume[1].off == 8 && d.resume[1].tokens == 1,
	   "where the delivered tokens are");
	ok(d.max_tokens == 16 && d.min_tokens == 16 && d.temperature == 100, "limits");

	GOOD("\x85" PROMPT "\x13\xc3\x14\x00\x15\x14\x16\xd0\x9c", "flags and priority");
	ok(d.ignore_eos && d.logprobs == 0 && d.prompt_logprobs == 20 && d.priority == -100,
	   "their values");
	GOOD("\x82" PROMPT "\x16\xe0", "priority -32 in one byte");
	is_int(d.priority, -32, "is -32");
}

static void test_form(void)
{
	uint8_t big[WSHM_MAX_DESC + 1] = {0};

	BAD("", -EBADMSG, 0, "nothing");
	BAD("\x80", -EBADMSG, 3, "no prompt");
	BAD("\x91\x00", -EBADMSG, 0, "an array");
	BAD("\x81" PROMPT "\x00", -EBADMSG, 0, "a trailing byte");
	BAD("\x82" PROMPT, -EBADMSG, 0, "fewer pairs than stated");
	BAD("\x8f" PROMPT, -EBADMSG, 0, "more pairs than bytes");
	BAD("\xde\x00\x01" PROMPT, -EBADMSG, 0, "map16 for one pair");
	BAD("\xdf\x00\x00\x00\x01" PROMPT, -EBADMSG, 0, "map32");
	BAD("\xdf\xff\xff\xff\xff", -EBADMSG, 0, "map32 of 2^32 - 1 pairs");
	BAD("\x82" PROMPT PROMPT, -EBADMSG, 3, "a key twice");
	BAD("\x82" PROMPT "\x1a\x00", -EBADMSG, 26, "unknown key 26");
	BAD("\x82" PROMPT "\x00\x00", -EBADMSG, 0, "unknown key 0");
	BAD("\x82" PROMPT "\xcc\xff\x00", -EBADMSG, 255, "unknown key 255");
	BAD("\x82" PROMPT "\xa1n\x01", -EBADMSG, 0, "a key that is a string");
	BAD("\x82" PROMPT "\xff\x01", -EBADMSG, 0, "a negative key");
	BAD("\x82" PROMPT "\x05\xcc\x02", -EBADMSG, 5, "2 in two bytes");
	BAD("\x82" PROMPT "\x06\xcd\x00\xff", -EBADMSG, 6, "255 in three bytes");
	BAD("\x82" PROMPT "\x06\xce\x00\x00\xff\xff", -EBADMSG, 6, "65535 in five bytes");
	BAD("\x82" PROMPT "\x0f\xcf\x00\x00\x00\x00\xff\xff\xff\xff", -EBADMSG, 15,
	    "2^32 - 1 in nine bytes");
	BAD("\x82" PROMPT "\x05\xd0\x02", -EBADMSG, 5, "2 in a signed form");
	BAD("\x82" PROMPT "\x16\xd0\xe0", -EBADMSG, 22, "-32 in two bytes");
	BAD("\x82" PROMPT "\x16\xd1\xff\x9c", -EBADMSG, 22, "-100 in three bytes");
	BAD("\x82" PROMPT "\x16\xd3\xff\xff\xff\xff\xff\xff\xff\x9c", -EBADMSG, 22,
	    "-100 in nine bytes");
	BAD("\x82" PROMPT "\x01\xd9\x01x", -EBADMSG, 1, "str8 for one byte");
	BAD("\x82" PROMPT "\x01\xda\x00\x01x", -EBADMSG, 1, "str16 for one byte");
	BAD("\x82" PROMPT "\x01\xa5lla", -EBADMSG, 1, "a string over the end");
	BAD("\x82" PROMPT "\x01\xc4\x01x", -EBADMSG, 1, "bin for a name");
	BAD("\x82" PROMPT "\x01\xc0", -EBADMSG, 1, "nil for a name");
	BAD("\x82" PROMPT "\x08\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", -EBADMSG, 8, "a float64");
	BAD("\x82" PROMPT "\x08\x01", -EBADMSG, 8, "an integer for a float");
	BAD("\x82" PROMPT "\x05\xca\x3f\x80\x00\x00", -EBADMSG, 5, "a float for an integer");
	BAD("\x82" PROMPT "\x13\x01", -EBADMSG, 19, "1 for true");
	BAD("\x82" PROMPT "\x05\xd4\x00\x00", -EBADMSG, 5, "fixext");
	BAD("\x82" PROMPT "\x05\xc7\x00\x00", -EBADMSG, 5, "ext8");
	BAD("\x82" PROMPT "\x05\xc1", -EBADMSG, 5, "the byte that msgpack never uses");
	BAD("\x82" PROMPT "\x10\xdc\x00\x01\x05", -EBADMSG, 16, "array16 for one element");
	BAD("\x82" PROMPT "\x10\xdd\xff\xff\xff\xff", -EBADMSG, 16, "array32 of 2^32 - 1");
	BAD("\x82" PROMPT "\x10\xdc\xff\xff\x05", -EBADMSG, 16, "more elements than bytes");
	BAD("\x82" PROMPT "\x11\x91\x91\x91\x05", -EBADMSG, 17, "a fourth level");
	BAD("\x82" PROMPT "\x12\x91\x05", -EBADMSG, 18, "bias: a token without a value");
	BAD("\x81\x03\x91\x00", -EBADMSG, 3, "a span of one");
	BAD("\x81\x03\x93\x00\x04\x00", -EBADMSG, 3, "a span of three");
	is_int(wshm_desc_decode(&d, big, sizeof(big), &key), -EBADMSG, "refused: 4097 bytes");
	is_int(wshm_desc_decode(&d, big, UINT32_MAX, &key), -EBADMSG,
	       "refused: 2^32 - 1 bytes, unread");
}

static void test_ranges(void)
{
	BAD("\x81\x03\x92\x02\x04", -ERANGE, 3, "prompt not aligned");
	BAD("\x81\x03\x92\x00\x00", -ERANGE, 3, "empty prompt");
	BAD("\x81\x03\x92\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00", -ERANGE, 3, "2^32 tokens");
	BAD("\x82" PROMPT "\x05\x00", -ERANGE, 5, "n 0");
	BAD("\x82" PROMPT "\x05\x11", -ERANGE, 5, "n 17");
	BAD("\x82" PROMPT "\x06\x00", -ERANGE, 6, "max_tokens 0");
	BAD("\x82" PROMPT "\x07\xcc\x81", -ERANGE, 7, "min_tokens over the default max_tokens");
	BAD("\x83" PROMPT "\x07\x03\x06\x02", -ERANGE, 7, "min_tokens over max_tokens");
	BAD("\x82" PROMPT "\x08\xca\xbf\x80\x00\x00", -ERANGE, 8, "temperature -1");
	BAD("\x82" PROMPT "\x08\xca\x42\xc8\x00\x01", -ERANGE, 8, "temperature just over 100");
	BAD("\x82" PROMPT "\x08\xca\x7f\xc0\x00\x00", -ERANGE, 8, "temperature NaN");
	BAD("\x82" PROMPT "\x08\xca\x7f\x80\x00\x01", -ERANGE, 8, "temperature signalling NaN");
	BAD("\x82" PROMPT "\x08\xca\x7f\x80\x00\x00", -ERANGE, 8, "temperature infinity");
	BAD("\x82" PROMPT "\x0a\xca\x00\x00\x00\x00", -ERANGE, 10, "top_p 0");
	BAD("\x82" PROMPT "\x0a\xca\x80\x00\x00\x00", -ERANGE, 10, "top_p -0");
	BAD("\x82" PROMPT "\x0a\xca\x3f\x80\x00\x01", -ERANGE, 10, "top_p just over 1");
	BAD("\x82" PROMPT "\x0b\xca\x3f\x80\x00\x01", -ERANGE, 11, "min_p just over 1");
	BAD("\x82" PROMPT "\x0c\xca\x00\x00\x00\x00", -ERANGE, 12, "repetition 0");
	BAD("\x82" PROMPT "\x0c\xca\x41\x20\x00\x01", -ERANGE, 12, "repetition just over 10");
	BAD("\x82" PROMPT "\x0d\xca\xc1\x20\x00\x01", -ERANGE, 13, "presence just under -10");
	BAD("\x82" PROMPT "\x0e\xca\x41\x20\x00\x01", -ERANGE, 14, "frequency just over 10");
	BAD("\x82" PROMPT "\x12\x92\x00\xca\x7f\x80\x00\x00", -ERANGE, 18, "bias infinity");
	BAD("\x82" PROMPT "\x12\x92\x00\xca\xff\xc0\x00\x00", -ERANGE, 18, "bias NaN");
	BAD("\x82" PROMPT "\x14\x15", -ERANGE, 20, "21 alternatives");
	BAD("\x82" PROMPT "\x15\x15", -ERANGE, 21, "21 alternatives of the prompt");
	BAD("\x82" PROMPT "\x16\x65", -ERANGE, 22, "priority 101");
	BAD("\x82" PROMPT "\x16\xd0\x9b", -ERANGE, 22, "priority -101");
	BAD("\x82" PROMPT "\x16\xd3\x80\x00\x00\x00\x00\x00\x00\x00", -ERANGE, 22,
	    "priority -2^63");
	BAD("\x82" PROMPT "\x16\xcf\xff\xff\xff\xff\xff\xff\xff\xff", -ERANGE, 22,
	    "priority 2^64 - 1");
	BAD("\x82" PROMPT "\x11\x91\x90", -ERANGE, 17, "an empty stop sequence");
	BAD("\x82" PROMPT "\x04\x92\x92\x00\x00\x92\x00\x00", -ERANGE, 4, "two resumed of one");
	BAD("\x83" PROMPT "\x06\x01\x04\x91\x92\x00\x02", -ERANGE, 4,
	    "more delivered than max_tokens");
	BAD("\x82" PROMPT "\x01\xa2x\n", -ERANGE, 1, "a line feed in a name");
	BAD("\x82" PROMPT "\x01\xa2x\x00", -ERANGE, 1, "a zero byte in a name");
	BAD("\x82" PROMPT "\x01\xa1\x7f", -ERANGE, 1, "DEL in a name");
}

/* Lists and names at their longest, and one more. */
static void test_longest(void)
{
	char b[WSHM_MAX_DESC];
	uint32_t n;

	memcpy(b, "\x82" PROMPT "\x01\xd9\x7f", 8);
	memset(b + 8, 'm', 200);
	is_int(decode(b, 8 + 127), 0, "accepted: a name of 127 bytes");
	is_int(strlen(d.model), 127, "all of it");
	b[7] = (char)0x80;
	is_int(decode(b, 8 + 128), -ERANGE, "refused: a name of 128");

	memcpy(b, "\x82" PROMPT "\x10\xdc\x00\x40", 9);
	memset(b + 9, 5, 100);
	is_int(decode(b, 9 + 64), 0, "accepted: 64 stop tokens");
	b[8] = 0x41;
	is_int(decode(b, 9 + 65), -ERANGE, "refused: 65");

	memcpy(b, "\x82" PROMPT "\x11\xdc\x00\x10", 9);
	for (n = 9; n < 9 + 16 * 2; n += 2)
		memcpy(b + n, "\x91\x05", 2);
	is_int(decode(b, n), 0, "accepted: 16 stop sequences");
	memcpy(b + n, "\x91\x05", 2);
	b[8] = 0x11;
	is_int(decode(b, n + 2), -ERANGE, "refused: 17");

	memcpy(b, "\x82" PROMPT "\x11\x91\xdc\x00\x20", 10);
	memset(b + 10, 5, 40);
	is_int(decode(b, 10 + 32), 0, "accepted: a stop sequence of 32");
	b[9] = 0x21;
	is_int(decode(b, 10 + 33), -ERANGE, "refused: 33");

	memcpy(b, "\x82" PROMPT "\x12\xdc\x02\x00", 9);
	for (n = 9; n < 9 + 256 * 6; n += 6)
		memcpy(b + n, "\x05\xca\x00\x00\x00\x00", 6);
	is_int(decode(b, n), 0, "accepted: 256 biases");
	memcpy(b + n, "\x05\xca\x00\x00\x00\x00", 6);
	b[8] = 0x02;
	is_int(decode(b, n + 6), -ERANGE, "refused: 257");

	memcpy(b, "\x82" PROMPT "\x04\xdc\x00\x11", 9);
	for (n = 9; n < 9 + 17 * 3; n += 3)
		memcpy(b + n, "\x92\x00\x00", 3);
	is_int(decode(b, n), -ERANGE, "refused: 17 resumed samples");
}

int main(void)
{
	test_defaults();
	test_values();
	test_form();
	test_ranges();
	test_longest();
	return tap_done();
}
