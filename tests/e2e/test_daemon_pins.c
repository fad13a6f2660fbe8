/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins and drops as weftd keeps and hands them on: to the right domain, again to the next engine,
 * answered when the engine has answered. The engine is the fake one.
 */
#include "tests/e2e/daemon_harness.h"
#include "tests/tap.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char conf[] = "[model m]\npath = /fake/ok\n"
			   "[tenant ours]\nuid = 0\n[tenant theirs]\nuid = 30001\n";

static struct wd d;
static json_t *last; /* reply */

#define ask(...) wd_ask(&d, &last, __VA_ARGS__)

static const char *error(void)
{
	return wd_error(last);
}

static long pinned(const char *field)
{
	return (long)json_integer_value(json_object_get(json_object_get(last, "pin"), field));
}

/* What the engine has of a pin: "domain n tokens", or "none". */
static const char *in_engine(long id)
{
	static char text[100];
	json_t *j = wd_status(&d), *it;
	size_t i;

	strcpy(text, "none");
	json_array_foreach(
		json_object_get(json_object_get(json_array_get(json_object_get(j, "engines"), 0),
						"engine"),
				"pins"),
		i, it)
	{
		if (json_integer_value(json_object_get(it, "id")) == id)
			snprintf(text, sizeof(text), "%d %d %s",
				 (int)json_integer_value(json_object_get(it, "domain")),
				 (int)json_integer_value(json_object_get(it, "n")),
				 json_string_value(json_object_get(it, "tokens")));
	}
	json_decref(j);
	return text;
}

static const char *expected(int domain, const uint32_t *tokens, uint32_t n)
{
	static char text[100];
	uint64_t h = 1469598103934665603u;

	for (uint32_t i = 0; i < n; i++)
		for (int b = 0; b < 32; b += 8)
			h = (h ^ (uint8_t)(tokens[i] >> b)) * 1099511628211u;
	snprintf(text, sizeof(text), "%d %u %016llx", domain, n, (unsigned long long)h);
	return text;
}

/* A field of a pin as weftd lists it. */
static const char *listed(long id, const char *field)
{
	static char text[300];
	json_t *it, *v;
	size_t i;

	strcpy(text, "");
	ask("{'cmd':'cache-pins'}");
	json_array_foreach(json_object_get(last, "pins"), i, it)
	{
		if (json_integer_value(json_object_get(it, "id")) != id)
			continue;
		v = json_object_get(it, field);
		if (json_is_string(v))
			snprintf(text, sizeof(text), "%s", json_string_value(v));
		else
			snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(v));
	}
	return text;
}

static int wait_for(long id, const char *field, const char *value)
{
	for (int ms = 0; ms < WD_PATIENCE_MS && strcmp(listed(id, field), value); ms += 20)
		wd_sleep_ms(20);
	return !strcmp(listed(id, field), value);
}

static void kill_engine(void)
{
	long starts = wd_engine_int(&d, 0, "starts");

	kill((pid_t)wd_engine_int(&d, 0, "pid"), SIGKILL);
	if (!wd_engine_wait(&d, 0, "starts", starts + 1, WD_PATIENCE_MS))
		bail_out("the engine was not started again");
}

static const uint32_t prefix[] = {1,  2,  4000000000u, 4, 5,  6,  7,  8, 9,
				  10, 11, 12,	       3, 14, 15, 16, 17};

#define PREFIX "[1,2,4000000000,4,5,6,7,8,9,10,11,12,3,14,15,16,17]"

static long test_pin(void)
{
	long id;

	ok(ask("{'cmd':'cache-pin','public':true,'tokens':" PREFIX "}"), "a public prefix");
	id = pinned("id");
	is_int(pinned("pinned_tokens"), 16, "of which one block is pinned");
	is_str(in_engine(id), expected(-1, prefix, 17), "the engine has these tokens and domain");
	ok(!ask("{'cmd':'cache-pin','public':true,'tokens':" PREFIX "}") &&
		   strstr(error(), "holds these tokens already"),
	   "not twice");
	ok(ask("{'cmd':'cache-pin','tenant':'theirs','tokens':" PREFIX "}"),
	   "for a tenant, who has no session yet, it is another one");
	is_str(in_engine(pinned("id")), expected(1, prefix, 17), "in its domain");
	ok(ask("{'cmd':'cache-unpin','id':%ld}", id), "the first is unpinned");
	is_str(listed(id, "state"), "", "and gone");
	is_str(in_engine(id), "none", "from the engine, too");
	ok(!ask("{'cmd':'cache-unpin','id':%ld}", id) && strstr(error(), "no pin"), "not twice");
	return id + 1;
}

static void test_requests(void)
{
	static const struct {
		const char *line, *why;
	} bad[] = {
		{"{'cmd':'cache-pin','tokens':[1]}", "several tenants"},
		{"{'cmd':'cache-pin','tokens':[1],'tenant':'nobody'}", "no tenant \"nobody\""},
		{"{'cmd':'cache-pin','tokens':[1],'tenant':'ours','public':true}", "either"},
		{"{'cmd':'cache-pin','tokens':[],'public':true}", "a list of 1 to"},
		{"{'cmd':'cache-pin','public':true}", "a list of 1 to"},
		{"{'cmd':'cache-pin','tokens':[1,-1],'public':true}", "token 1 is no id"},
		{"{'cmd':'cache-pin','tokens':[4294967296],'public':true}", "token 0 is no id"},
		{"{'cmd':'cache-pin','tokens':['1'],'public':true}", "token 0 is no id"},
		{"{'cmd':'cache-pin','tokens':[1],'pubic':true}", "unknown field"},
		{"{'cmd':'cache-pin','tokens':[1],'public':true,'model':'x'}", "no model"},
		{"{'cmd':'cache-unpin','id':0}", "a pin's number"},
		{"{'cmd':'cache-unpin'}", "a pin's number"},
		{"{'cmd':'cache-drop'}", "either all"},
		{"{'cmd':'cache-drop','public':false,'all':false}", "either all"},
		{"{'cmd':'cache-drop','tenant':'ours','public':true}", "either all"},
		{"{'cmd':'cache-drop','tenant':'ours','all':true}", "either all"},
		{"{'cmd':'cache-drop','all':true,'public':true}", "either all"},
		{"{'cmd':'cache-pin','public':true,'tokens':[13]}", "no room"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ok(!ask("%s", bad[i].line) && strstr(error(), bad[i].why), "refused (%s): %s",
		   bad[i].why, bad[i].line);
}

/* As many tokens as a pin may have, and one more: lines of hundreds of KiB. */
static void test_large(void)
{
	enum { MOST = 131072 };
	static uint32_t tokens[MOST + 1];
	char *line = malloc(8 * (MOST + 1) + 100);
	long id;

	for (int more = 0; more < 2; more++) {
		size_t n = (size_t)sprintf(line,
					   "{\"cmd\":\"cache-pin\",\"public\":true,\"tokens\":[");

		for (uint32_t i = 0; i < MOST + (uint32_t)more; i++) {
			tokens[i] = i % 100000;
			n += (size_t)sprintf(line + n, "%s%u", i ? "," : "", tokens[i]);
		}
		strcpy(line + n, "]}");
		json_decref(last);
		last = wd_admin(&d, line);
		if (more) {
			ok(strstr(error(), "a list of 1 to"), "one more is refused");
			continue;
		}
		id = pinned("id");
		is_int(pinned("pinned_tokens"), MOST, "131072 tokens are pinned");
		is_str(in_engine(id), expected(-1, tokens, MOST), "all of them");
		ask("{'cmd':'cache-unpin','id':%ld}", id);
	}
	free(line);
}

static void test_restart(long id)
{
	kill_engine();
	ok(wait_for(id, "state", "pinned"), "the next engine is given the pin");
	is_str(in_engine(id), expected(1, prefix, 17), "with its tokens and domain");
}

/* The longest line that may be meant, in numbers of ten digits, and one that is too long. */
static void test_lines(void)
{
	size_t room = 3u << 20, n;
	char *line = malloc(room);

	n = (size_t)sprintf(line, "{\"cmd\":\"cache-pin\",\"public\":true,\"tokens\":[");
	for (int i = 0; i < 131072; i++)
		n += (size_t)sprintf(line + n, "%s4294967295", i ? "," : "");
	strcpy(line + n, "]}");
	json_decref(last);
	last = wd_admin(&d, line);
	is_int(pinned("pinned_tokens"), 131072, "a line of %zu bytes", n);
	ask("{'cmd':'cache-unpin','id':%ld}", pinned("id"));
	memset(line, ' ', room);
	line[room - 1] = 0;
	json_decref(last);
	last = wd_admin(&d, line);
	ok(strstr(error(), "2 MiB"), "one of 3 MiB is refused");
	free(line);
}

/* Another connection, which waits. */
static int begin(const char *line)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/admin.sock", d.dir);
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) ||
	    write(sock, line, strlen(line)) != (ssize_t)strlen(line))
		bail_out("admin.sock");
	return sock;
}

static int says(int sock, const char *text)
{
	char reply[1024];
	ssize_t n = recv(sock, reply, sizeof(reply) - 1, 0);

	reply[n < 0 ? 0 : n] = 0;
	close(sock);
	return strstr(reply, text) != NULL;
}

static void test_waiting(long id)
{
	static const char line[] = "{\"cmd\":\"cache-pin\",\"public\":true,\"tokens\":[14,1]}\n";
	int sock = begin(line);

	/* Some numbers further on: those that were refused had one, too. */
	for (int more = 0; !strcmp(listed(id + 1 + more % 50, "state"), ""); more++)
		if (more > 50 * 1000)
			bail_out("the pin is not listed");
	do
		id++;
	while (!strcmp(listed(id, "state"), ""));
	is_str(listed(id, "state"), "computing", "a pin that takes its time");
	ok(ask("{'cmd':'cache-unpin','id':%ld}", id), "is unpinned meanwhile");
	ok(says(sock, "unpinned before"), "who asked for it is told");
	is_str(in_engine(id), "none", "the engine has let it go");
	ok(ask("{'cmd':'status'}"), "its late answer harms nobody");
	is_int(wd_engine_int(&d, 0, "starts"), 2, "it was not taken for nonsense");
	sock = begin(line);
	ok(wait_for(id + 1, "state", "computing"), "another");
	kill_engine();
	ok(wait_for(id + 1, "state", "computing"), "is computed anew by the next engine");
	ok(ask("{'cmd':'cache-unpin','id':%ld}", id + 1), "unpinned");
	ok(says(sock, "unpinned before"), "its administrator has waited all the time");
	close(begin(line));
	ok(wait_for(id + 2, "state", "computing"), "one whose administrator has hung up");
	ok(ask("{'cmd':'cache-unpin','id':%ld}", id + 2), "is kept until it is unpinned");
}

static void test_drop(void)
{
	ok(ask("{'cmd':'cache-drop','tenant':'theirs'}"), "a domain is dropped");
	is_int(json_integer_value(json_object_get(last, "blocks")), 7, "its blocks");
	is_str(json_string_value(json_object_get(last, "tenant")), "theirs",
	       "and the reply says so");
	ok(ask("{'cmd':'cache-drop','all':true}"), "everything");
	is_int(json_integer_value(json_object_get(last, "blocks")), 99, "all blocks");
	ok(json_is_true(json_object_get(last, "all")) &&
		   json_is_false(json_object_get(last, "public")),
	   "and says so");
	ok(ask("{'cmd':'cache-drop','public':true}") &&
		   json_is_true(json_object_get(last, "public")) &&
		   json_is_false(json_object_get(last, "all")),
	   "the public domain");
	ok(ask("{'cmd':'cache-drop','tenant':'ours'}"), "a domain without a session yet");
	is_int(json_integer_value(json_object_get(last, "blocks")), 0, "has nothing");
}

/* A prefix that ends the engine must not do so for ever. */
static void test_poison(long id)
{
	long starts = wd_engine_int(&d, 0, "starts");

	ok(!ask("{'cmd':'cache-pin','public':true,'tokens':[15]}") &&
		   strstr(error(), "ended each time"),
	   "a prefix that ends the engine is given up");
	ok(wd_engine_wait(&d, 0, "starts", starts + 2, WD_PATIENCE_MS), "after the second time");
	ok(wait_for(id, "state", "pinned"), "the others are pinned");
}

static void path_of(char ret[128], const char *file)
{
	snprintf(ret, 128, "%s/state/%s", d.dir, file);
}

static void put(const char *file, const char *text)
{
	char path[128];
	FILE *f;

	path_of(path, file);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		bail_out(path);
}

/* weftd ends, by force or in order, and pins go on; but not those that have been released. */
static void test_weftd_restart(void)
{
	char path[128], file[40];
	struct stat st;
	long id, other;

	ok(ask("{'cmd':'cache-pin','public':true,'tokens':" PREFIX "}"), "a public pin");
	id = pinned("id");
	ok(ask("{'cmd':'cache-pin','tenant':'ours','tokens':[7,8]}"), "and one to be released");
	other = pinned("id");
	ok(ask("{'cmd':'cache-unpin','id':%ld}", other), "which it is");
	snprintf(file, sizeof(file), "pin-%ld.json", id);
	path_of(path, file);
	is_int(stat(path, &st) ? -1 : (int)(st.st_mode & 07777), 0600, "the pin's file, mode 0600");
	snprintf(file, sizeof(file), "pin-%ld.json", other);
	path_of(path, file);
	ok(access(path, F_OK), "the other has none");
	kill(d.pid, SIGKILL);
	wd_wait(&d);
	put("pin-900.json", "{\"model\":\"m\",\"tenant\":\"\",\"tokens\":[1,");
	put("pin-901.json", "{\"model\":\"m\",\"tenant\":\"nobody\",\"tokens\":[1]}");
	put("pin-902.json", "{\"model\":\"m\",\"tenant\":\"\",\"tokens\":[1,-1]}");
	put("pin-903.json", "{\"model\":\"m\",\"tenant\":\"\",\"tokens\":[13]}");
	put("pin-0904.json", "no name that weftd gives");
	wd_restart(&d);
	ok(wait_for(id, "state", "pinned"), "after weftd was killed the pin is there");
	is_str(in_engine(id), expected(-1, prefix, 17), "with its tokens and domain");
	is_str(listed(other, "state"), "", "the released one is not");
	ok(wd_logged(&d, "pin=900 event=pin-file why=\"it is damaged\""), "a torn file is named");
	ok(wd_logged(&d, "pin=901 event=pin-left"), "and one whose tenant is gone");
	ok(wd_logged(&d, "pin=902 event=pin-file why=\"it is damaged\""), "and one with no token");
	ok(wait_for(903, "why", "no room"),
	   "one that the engine refuses is listed with its reason");
	ok(ask("{'cmd':'cache-pin','tenant':'ours','tokens':[9]}"), "a new one");
	is_int(pinned("id"), 904, "gets a number that none has had");
	ok(ask("{'cmd':'cache-unpin','id':%ld}", id), "the old one is released");
	kill(d.pid, SIGTERM);
	is_int(wd_wait(&d), 0, "weftd ends");
	wd_restart(&d);
	ok(wait_for(904, "state", "pinned"), "the last pin is there");
	is_str(listed(id, "state"), "", "and the released one is not");
}

int main(int argc, char **argv)
{
	long id;

	wd_engine_or_test(argc, argv);
	wd_start(&d, conf);
	id = test_pin();
	test_requests();
	test_large();
	test_lines();
	test_restart(id);
	test_waiting(id);
	test_drop();
	test_poison(id);
	test_weftd_restart();
	json_decref(last);
	is_int(wd_stop(&d), 0, "stopped");
	return tap_done();
}
