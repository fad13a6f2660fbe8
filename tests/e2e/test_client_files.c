/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's text files from a real daemon: they are the folder's bytes, a tokenizer opened from them is
 * the folder's, they outlast the engine and the daemon, and a model without any says so.
 */
#include "libclient/text/weft_text.h"
#include "tests/e2e/chat_model.h"
#include "tests/e2e/real_daemon.h"
#include "tests/tap.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct weft *open_session(const struct real_daemon *d)
{
	struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;
	struct weft_error e = {0};
	struct weft *w;

	o.socket = d->socket;
	if (weft_open(&w, &o, &e)) {
		diag("%s", e.message);
		bail_out("no session");
	}
	return w;
}

static void same_as_folder(struct weft *w, const char *name)
{
	FILE *f = fopen(chat_data(name), "rb");
	char *want = malloc(1 << 20);
	size_t n = f && want ? fread(want, 1, 1 << 20, f) : 0, bytes = 0;
	struct weft_error e = {0};
	const char *p = "";

	is_int(weft_model_file(w, name, &p, &bytes, &e), 0, "%s is handed out", name);
	ok(n && bytes == n && !memcmp(p, want, n) && !p[n], "as it stands in the folder");
	if (f)
		fclose(f);
	free(want);
}

/* The texts and ids of the oracle. */
static void encode(struct weft *w)
{
	json_t *root = json_load_file(chat_data("oracle.json"), 0, NULL), *item;
	struct weft_tokenizer *t = NULL;
	struct weft_error e = {0};
	size_t i, wrong = 0;

	is_int(weft_tokenizer_open_served(&t, w, &e), 0, "a tokenizer of them: %s", e.message);
	if (!t)
		return;
	json_array_foreach(json_object_get(root, "encode"), i, item)
	{
		json_t *text = json_array_get(item, 0), *ids = json_array_get(item, 1);
		uint32_t *got;
		size_t n;

		if (weft_encode(t, json_string_value(text), json_string_length(text), 0, &got, &n,
				&e)) {
			wrong++;
			continue;
		}
		wrong += n != json_array_size(ids);
		for (size_t k = 0; k < n && k < json_array_size(ids); k++)
			wrong += got[k] != json_integer_value(json_array_get(ids, k));
		weft_text_free(got);
	}
	ok(i > 4 && !wrong, "%zu texts have the ids of the oracle", i);
	weft_tokenizer_close(t);
	json_decref(root);
}

static void forked(struct weft *w)
{
	pid_t pid = fork();
	const char *p;
	size_t n;
	int status;

	if (!pid)
		_exit(weft_model_file(w, "tokenizer.json", &p, &n, NULL) == -EOWNERDEAD ? 0 : 1);
	waitpid(pid, &status, 0);
	is_int(status, 0, "a child has no session to ask in");
}

static void with_files(void)
{
	struct real_daemon d;
	struct weft *w, *again;
	struct weft_error e = {0};
	const char *p;
	size_t n;

	real_daemon_init(&d, "llama", NULL);
	snprintf(d.model, sizeof(d.model), "%s/model", d.dir);
	chat_model_make(d.model);
	if (real_daemon_start(&d))
		bail_out("weftd");
	w = open_session(&d);
	again = open_session(&d);
	same_as_folder(w, "tokenizer.json");
	same_as_folder(w, "tokenizer_config.json");
	is_int(weft_model_file(w, "chat_template.jinja", &p, &n, &e), -ENOENT, "%s", e.message);
	is_int(weft_model_file(w, "config.json", &p, &n, &e), -ENOENT, "%s", e.message);
	is_int(weft_model_file(w, "../../run/weftd.sock", &p, &n, &e), -ENOENT, "no path is one");
	for (int i = 0; i < 100; i++)
		if (weft_model_file(w, "tokenizer.json", &p, &n, &e))
			bail_out(e.message);
	ok(1, "a hundred times in one session");
	encode(w);
	forked(w);
	real_daemon_kill(&d);
	is_int(weft_model_file(w, "tokenizer.json", &p, &n, &e), 0, "what is there stays there");
	if (real_daemon_start(&d))
		bail_out("weftd");
	same_as_folder(again, "tokenizer.json");
	weft_close(w);
	weft_close(again);
	is_int(real_daemon_fini(&d), 0, "weftd ends in order");
}

static void without_files(void)
{
	struct weft_tokenizer *t = NULL;
	struct weft_error e = {0};
	struct real_daemon d;
	struct weft *w;
	const char *p;
	size_t n;

	real_daemon_init(&d, "llama", NULL);
	if (real_daemon_start(&d))
		bail_out("weftd");
	w = open_session(&d);
	is_int(weft_model_file(w, "tokenizer.json", &p, &n, &e), -ENOENT, "%s", e.message);
	is_int(weft_tokenizer_open_served(&t, w, &e), -ENOENT, "%s", e.message);
	ok(!t, "no tokenizer then");
	weft_close(w);
	real_daemon_fini(&d);
}

int main(void)
{
	with_files();
	without_files();
	return tap_done();
}
