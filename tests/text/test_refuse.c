/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_refuse.c - what is not known is refused by name, what is wrong is refused with a reason; and
 * the file that the wrong ones are made from is accepted.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"

#include <errno.h>
#include <unistd.h>

static char dir[] = "/tmp/weft-text-XXXXXX";

static int open_json(const char *json, const char *config, struct weft_error *e)
{
	struct weft_tokenizer *t;
	char path[64];
	int r;

	for (int i = 0; i < 2; i++) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s", dir,
			 i ? "tokenizer_config.json" : "tokenizer.json");
		f = fopen(path, "w");
		if (!f || fputs(i ? config : json, f) < 0 || fclose(f))
			bail_out(path);
	}
	e->message[0] = 0;
	r = weft_tokenizer_open(&t, dir, e);
	if (!r)
		weft_tokenizer_close(t);
	return r;
}

static void refused(const char *json, const char *config, int code, const char *word)
{
	struct weft_error e;
	int r = open_json(json, config, &e);

	if (!ok(r == code && strstr(e.message, word), "refused: %s", word))
		diag("%d, \"%s\" of %s", r, e.message, json);
}

#define MODEL(rest)                                                                         \
	"\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a " \
	"b\"]" rest "}"
#define FILE_OF(parts) "{" parts MODEL("") "}"

static void part(const char *name, const char *value, const char *word)
{
	char json[1024];

	snprintf(json, sizeof(json), "{\"%s\":%s,%s}", name, value, MODEL(""));
	refused(json, "{}", -EOPNOTSUPP, word);
}

static void test_names(void)
{
	part("normalizer", "{\"type\":\"BertNormalizer\"}", "BertNormalizer");
	part("normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}", "Nmt");
	part("pre_tokenizer", "{\"type\":\"Whitespace\"}", "Whitespace");
	part("pre_tokenizer",
	     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
	     "\"Digits\"}]}",
	     "Digits after ByteLevel");
	part("pre_tokenizer",
	     "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},\"behavior\":\"Isolated\"}",
	     "class within a class");
	part("decoder", "{\"type\":\"WordPiece\"}", "WordPiece");
	part("decoder",
	     "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]"
	     "}",
	     "ByteFallback after Fuse");
	part("post_processor", "{\"type\":\"BertProcessing\"}", "BertProcessing");
	refused("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "{}", -EOPNOTSUPP,
		"WordPiece");
	refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "{}", -EOPNOTSUPP, "Unigram");
	refused("{" MODEL(",\"dropout\":0.1") "}", "{}", -EOPNOTSUPP, "dropout");
	refused("{" MODEL(",\"continuing_subword_prefix\":\"##\"") "}", "{}", -EOPNOTSUPP,
		"continuing_subword_prefix");
}

static void test_wrong(void)
{
	refused("{", "{}", -EINVAL, "not valid JSON");
	refused("{\"model\":{},\"model\":{}}", "{}", -EINVAL, "duplicate");
	refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "{}",
		-EINVAL, "merge 0");
	refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "{}",
		-EINVAL, "twice");
	refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}}", "{}",
		-EINVAL, "must be 0 to");
	refused(FILE_OF("\"added_tokens\":[{\"id\":1,\"content\":\"x\"}],"), "{}", -EINVAL,
		"twice");
	refused(FILE_OF("\"added_tokens\":[{\"id\":9,\"content\":\"a\"}],"), "{}", -EINVAL,
		"has id 9");
	refused(FILE_OF("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
			"{\"SpecialToken\":{\"id\":\"q\"}}],\"special_tokens\":{}},"),
		"{}", -EINVAL, "no ids");
	refused(FILE_OF("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},"
			"\"content\":\"\"},"),
		"{}", -EINVAL, "\"(\" without \")\"");
	refused(FILE_OF("\"added_tokens\":[{\"id\":3,\"content\":\"x\"}],"),
		"{\"added_tokens_decoder\":{\"3\":{\"content\":\"y\"}}}", -EINVAL, "another in");
}

int main(void)
{
	struct weft_error e;
	char path[64];

	if (!mkdtemp(dir))
		bail_out("mkdtemp");
	is_int(open_json(FILE_OF("\"added_tokens\":[{\"id\":3,\"content\":\"x\"}],"),
			 "{\"added_tokens_decoder\":{\"3\":{\"content\":\"x\"},\"4\":{\"content\":"
			 "\"y\"}}}",
			 &e),
	       0, "a right file is accepted");
	is_int(open_json(FILE_OF(""), "{\"model_max_length\":1000000000000000019884624838656}", &e),
	       0, "as is a config with the integer that is usual for no limit: %s", e.message);
	test_names();
	test_wrong();
	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir);
	unlink(path);
	rmdir(dir);
	return tap_done();
}
