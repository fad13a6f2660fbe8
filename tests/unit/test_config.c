/* SPDX-License-Identifier: Apache-2.0 */
/* weftd.conf: what is accepted, and that everything else is refused with file and line. */
#include "daemon/supervisor/config.h"
#include "tests/tap.h"

#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/weft-config-XXXXXX";
static struct config conf;
static struct config_report report;

static const char *file_at(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void put_bytes(const char *name, const char *text, size_t n)
{
	FILE *f = fopen(file_at(name), "w");

	if (!f || fwrite(text, 1, n, f) != n || fclose(f))
		bail_out("cannot write a file");
}

static void put(const char *name, const char *text)
{
	put_bytes(name, text, strlen(text));
}

static int load(const char *text)
{
	put("weftd.conf", text);
	memset(&conf, 0xee, sizeof(conf));
	return config_load(&conf, file_at("weftd.conf"), &report);
}

#define MODEL "[model m]\npath = /m\n"

static void test_full(void)
{
	static const char text[] = "; a comment\n# another\n"
				   "[daemon]\n"
				   "runtime_dir = /run/x   ; of our own\n"
				   "  socket_mode = 0660\n"
				   "drain_seconds=7\r\n"
				   "max_sessions = 12\n"
				   "max_region_bytes = 3G\n"
				   "[model granite-8b/v2]\n"
				   "path = /srv/models/with blanks = and signs\n"
				   "backend = ref\npoll = always\nthreads = 2\nkv_bytes = 512M\n"
				   "max_batch_tokens = 512\nmax_seqs = 64\nprefill_chunk = 128\n"
				   "[model second]\npath: /srv/second\n"
				   "[tenant lab]\n"
				   "uid = 1000, 2000-2999 ,root\ngid = 50\n"
				   "max_sessions = 3\nmax_region_bytes = 64K\nmax_in_flight = 9\n"
				   "max_queued_tokens = 4294967295\nmax_rate = 5\nweight = 1000\n"
				   "[tenant rest]\ndefault = yes\n";

	if (!ok(!load(text), "a full file is accepted"))
		diag("%s", report.text);
	is_int(report.errors, 0, "without errors");
	is_str(conf.daemon.runtime_dir, "/run/x", "a comment after a value ends it");
	is_int(conf.daemon.socket_mode, 0660, "modes are octal; indented lines are lines");
	is_int(conf.daemon.drain_seconds, 7, "blanks and carriage returns do not matter");
	is_int(conf.daemon.max_region_bytes, 3ll << 30, "3G");
	is_int(conf.daemon.hello_seconds, 5, "what is not said has its default");
	is_int(conf.n_models, 2, "two models");
	is_str(conf.models[0].name, "granite-8b/v2", "a name with signs");
	is_str(conf.models[0].path, "/srv/models/with blanks = and signs", "a path with signs");
	is_str(conf.models[0].backend, "ref", "backend");
	is_str(conf.models[0].poll, "always", "poll");
	is_int(conf.models[0].kv_bytes, 512ll << 20, "512M");
	is_int(conf.models[0].threads, 2, "threads");
	is_int(conf.models[0].max_batch_tokens, 512, "max_batch_tokens");
	is_int(conf.models[0].max_seqs, 64, "max_seqs");
	is_int(conf.models[0].prefill_chunk, 128, "prefill_chunk");
	is_int(conf.models[1].threads, 0, "of the second everything is the engine's to choose");
	is_int(conf.n_tenants, 2, "two tenants");
	is_int(conf.tenants[0].uids.n, 3, "a number, a range and a name");
	is_int(conf.tenants[0].uids.range[1].last, 2999, "the range's end");
	is_int(conf.tenants[0].uids.range[2].first, 0, "root is 0");
	is_int(conf.tenants[0].quota.max_queued_tokens, UINT32_MAX, "the largest number");
	is_int(conf.tenants[0].quota.weight, 1000, "the largest weight");
	is_int(conf.tenants[0].max_region_bytes, 65536, "64K");
	is_int(conf.tenants[1].quota.weight, 100, "a normal weight by default");
}

static void test_tenant_of(void)
{
	const gid_t groups[] = {7, 50};

	is_int(config_tenant_of(&conf, 1000, NULL, 0), 0, "by a single uid");
	is_int(config_tenant_of(&conf, 2000, NULL, 0), 0, "the first of a range");
	is_int(config_tenant_of(&conf, 2999, NULL, 0), 0, "the last of a range");
	is_int(config_tenant_of(&conf, 3000, NULL, 0), 1, "the next is the default's");
	is_int(config_tenant_of(&conf, 3000, groups, 2), 0, "by the second group");
	is_int(config_tenant_of(&conf, 3000, groups, 1), 1, "not by the first");
	ok(!load(MODEL "[tenant a]\nuid = 5\n"), "no default");
	is_int(config_tenant_of(&conf, 6, NULL, 0), -ENOENT, "then others are nobody's");
	ok(!load(MODEL), "no tenant at all");
	is_int(config_tenant_of(&conf, 6, NULL, 0), 0, "then all are of one");
	is_str(conf.tenants[0].name, "default", "called default");
}

/* Refused for so many errors, with this text in the report. Nothing may be written to the caller's. */
static void refused_for(const char *text, uint32_t errors, const char *message)
{
	unsigned char *p = (unsigned char *)&conf;
	int rc = load(text), untouched = 1;

	for (size_t i = 0; i < sizeof(conf); i++)
		untouched &= p[i] == 0xee;
	if (!ok(rc == -EINVAL && untouched && report.errors == errors &&
			strstr(report.text, message),
		"refused: %s", message))
		diag("rc %d, %u errors, report: %s", rc, report.errors, report.text);
}

/* One error, one line. */
static void refused(const char *text, const char *message)
{
	refused_for(text, 1, message);
}

static void test_refusals(void)
{
	char line[600] = MODEL "backend = ", *end = line + strlen(line);

	is_int(load(""), 0, "a file without a model is one of a weftd that serves nobody yet");
	is_int(conf.n_models, 0, "and has none");
	refused("[model m]\n", ":1: [model m] has no path");
	refused("[model m]\npth = /m\n", ":2: unknown key \"pth\"");
	refused("[model m]\npath /m\n", ":2: neither [section] nor key = value");
	refused_for("[model m]\n[model n]\n[tenant t]\n", 3, ":2: [model n] has no path");
	refused("[adapter a]\npath = /a\n", "[adapter a] has no model, and there is not just one");
	refused("[adapter a]\npath = /a\nmodel = m\n", "there is no [model m]");
	refused("[model m]\npath = m\n", ":2: path: \"m\" is no absolute path");
	refused("[model]\npath = /m\n", ":1: [model NAME] needs a name");
	refused("[model a b]\npath = /m\n", ":1: [model NAME] needs a name");
	refused("[model "
		"0123456789012345678901234567890123456789012345678901234567890123]\npath = /m\n",
		":1: [model NAME] needs a name");
	refused(MODEL MODEL, ":3: [model m] stands already in ");
	refused(MODEL "path = /n\n", ":3: path is set already in ");
	refused(MODEL "thread = 1\n", ":3: unknown key \"thread\"");
	refused(MODEL "threads = 0\n", ":3: threads: \"0\" is no number from 1 to 256");
	refused(MODEL "max_seqs = 65\n", ":3: max_seqs: \"65\" is no number from 1 to 64");
	refused(MODEL "max_batch_tokens = 2049\n",
		":3: max_batch_tokens: \"2049\" is no number from 1 to 2048");
	refused(MODEL "prefill_chunk = 2049\n",
		":3: prefill_chunk: \"2049\" is no number from 1 to 2048");
	refused(MODEL "threads = 257\n", ":3: threads");
	refused(MODEL "threads = -1\n", ":3: threads");
	refused(MODEL "threads = 1x\n", ":3: threads");
	refused(MODEL "threads = 0x10\n", ":3: threads");
	refused(MODEL "threads = 18446744073709551617\n", ":3: threads");
	refused(MODEL "threads =\n", ":3: threads has no value");
	refused(MODEL "kv_bytes = 1GB\n", ":3: kv_bytes");
	refused(MODEL "kv_bytes = 1g\n", ":3: kv_bytes");
	refused(MODEL "kv_bytes = 99999999999T\n", ":3: kv_bytes");
	refused(MODEL "backend = gpu\n", ":3: backend: \"gpu\" is not one of cpu|ref|cuda|auto");
	refused(MODEL "backend = cp\n", ":3: backend");
	refused(MODEL "poll = cpu\n", ":3: poll");
	refused(MODEL "[daemon]\nsocket_mode = 0888\n", ":4: socket_mode");
	refused(MODEL "[daemon]\nsocket_mode = 1777\n", ":4: socket_mode");
	refused(MODEL "[daemon]\nruntime_dir = run\n", "no absolute path");
	refused(MODEL "[demon]\n", ":3: unknown section [demon]");
	refused(MODEL "[daemon x]\n", ":3: unknown section [daemon x]");
	refused(MODEL "[daemon\n", ":3: a section is written [NAME]");
	refused(MODEL "[daemon] max\n", ":3: a section is written [NAME]");
	refused("threads = 1\n" MODEL, ":1: a key before any [section]");
	refused(MODEL "threads\n", ":3: neither [section] nor key = value");
	refused(MODEL "[tenant t]\n", ":3: [tenant t] has neither uid");
	refused(MODEL "[tenant t]\ndefault = true\n", ":4: default: \"true\" is not yes or no");
	refused(MODEL "[tenant t]\nuid = 5-4\n", ":4: uid");
	refused(MODEL "[tenant t]\nuid = 5,,6\n", ":4: uid");
	refused(MODEL "[tenant t]\nuid = 4294967295\n", ":4: uid");
	refused(MODEL "[tenant t]\nuid = no-such-user-here\n", "no such user");
	refused(MODEL "[tenant t]\ngid = no-such-group-here\n", "no such group");
	refused(MODEL "[tenant t]\ndefault = yes\nweight = 0\n", ":5: weight");
	refused(MODEL "[tenant t]\nuid = 1-9\n[tenant u]\nuid = 9\n",
		":5: [tenant u] and [tenant t] both claim uid 9");
	refused(MODEL "[tenant t]\ngid = 3\n[tenant u]\ngid = 1-5\n", "both claim gid 3");
	refused(MODEL "[tenant t]\ndefault = yes\n[tenant u]\ndefault = yes\n",
		"are both the default");
	memset(end, 'x', 400);
	strcpy(end + 400, "\n");
	refused(line, ":3: longer than");
	refused_for(MODEL "threads = 0\npoll = 1\n[x]\n", 3, ":3: threads");
	ok(strstr(report.text, ":4: poll") && strstr(report.text, ":5: unknown"),
	   "each by its line");
}

static void test_nul(void)
{
	static const char text[] = MODEL "threads = 1\0zzz\n";

	put_bytes("weftd.conf", text, sizeof(text) - 1);
	is_int(config_load(&conf, file_at("weftd.conf"), &report), -EINVAL,
	       "a NUL byte is refused");
	ok(strstr(report.text, ":3: a NUL byte"), "by its line");
}

static void test_many(void)
{
	char *text = calloc(1, 1 << 20);
	size_t n = 0;

	for (int i = 0; i < 17; i++)
		n += (size_t)sprintf(text + n, "[model m%d]\npath = /m\n", i);
	refused(text, "more than 16 models");
	n = (size_t)sprintf(text, MODEL);
	for (int i = 0; i < 65; i++)
		n += (size_t)sprintf(text + n, "[tenant t%d]\nuid = %d\n", i, i);
	refused(text, "more than 64 tenants");
	n = (size_t)sprintf(text, MODEL "[tenant t]\nuid = 0");
	for (int i = 1; i < 33; i++)
		n += (size_t)sprintf(text + n, ",%d", i);
	strcpy(text + n, "\n");
	refused(text, "more than 32 items");
	n = 0;
	for (int i = 0; i < 5000; i++)
		n += (size_t)sprintf(text + n, "nonsense line %d\n", i);
	is_int(load(text), -EINVAL, "more errors than the report holds");
	ok(report.errors >= 5000, "all are counted");
	ok(report.bytes < sizeof(report.text) && strlen(report.text) == report.bytes,
	   "the report stays within its size");
	free(text);
}

static void test_drop_ins(void)
{
	char path[160];

	mkdir(file_at("conf.d"), 0755);
	put("conf.d/20-second.conf", "[model b]\npath = /b\n");
	put("conf.d/10-first.conf", "[model a]\npath = /a\n[daemon]\nmax_sessions = 4\n");
	put("conf.d/ignored.txt", "nonsense\n");
	ok(!load("[daemon]\ndrain_seconds = 1\n" MODEL), "drop-ins are read");
	is_int(conf.n_models, 3, "all of them");
	is_str(conf.models[1].name, "a", "in the order of their names");
	ok(conf.daemon.max_sessions == 4 && conf.daemon.drain_seconds == 1,
	   "[daemon] may be spread over them");
	refused("[daemon]\nmax_sessions = 3\n" MODEL,
		"10-first.conf:4: max_sessions is set already");
	snprintf(path, sizeof(path), "%s:1: [model b] stands already in ", "conf.d/20-second.conf");
	refused("[model b]\npath = /m\n", path);
	unlink(file_at("conf.d/10-first.conf"));
	unlink(file_at("conf.d/20-second.conf"));
}

/* What is there under the name of a drop-in, and is none. */
static void test_odd_files(void)
{
	char large[1100], path[160];

	snprintf(path, sizeof(path), "%s", file_at("conf.d/odd.conf"));
	alarm(60); /* for whoever would read on */
	ok(!mkfifo(path, 0644), "a pipe");
	refused(MODEL, "odd.conf: is no regular file");
	unlink(path);
	ok(!symlink("/dev/zero", path), "a device");
	refused(MODEL, "odd.conf: is no regular file");
	unlink(path);
	mkdir(path, 0755);
	refused(MODEL, "odd.conf: is no regular file");
	rmdir(path);
	memset(large, '#', sizeof(large));
	put_bytes("conf.d/odd.conf", large, sizeof(large));
	ok(!load(MODEL), "a long comment is one");
	ok(!truncate(path, (1 << 20) + 1), "but there is an end to it");
	refused(MODEL, "odd.conf: has more than 1048576 bytes");
	unlink(path);
	unlink(file_at("conf.d/ignored.txt"));
	ok(!rmdir(file_at("conf.d")) && !load(MODEL), "no folder of drop-ins is none");
	ok(!symlink("conf.d", file_at("conf.d")), "one that cannot be read");
	refused(MODEL, "conf.d/*.conf: cannot be listed: Too many levels of symbolic links");
	unlink(file_at("conf.d"));
	mkdir(file_at("conf.d"), 0755);
	alarm(0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void test_adapters(void)
{
	char text[16384] = "[daemon]\nmax_adapters = 300\n" MODEL;

	ok(!load("[daemon]\nmax_adapters = 2\nmax_adapter_bytes = 1M\nmax_adapters_bytes = 3M\n"
		 "state_dir = /s\n"
		 "[adapter guard]\npath = /a\n" MODEL
		 "[adapter rag/v2]\nmodel = m\npath = /b\nactivation_offset = -3\n"
		 "on_missing_invocation = append\n"),
	   "two adapters, one before its model");
	is_int(conf.n_adapters, 2, "are two");
	is_str(conf.adapters[0].model, "m", "of the only model, unless it is named");
	is_int(conf.adapters[0].on_missing, WSHM_MISSING_ERROR, "a missing invocation is an error");
	is_int(conf.adapters[0].activation_offset, 0, "no offset");
	is_str(conf.adapters[1].name, "rag/v2", "the second");
	is_str(conf.adapters[1].path, "/b", "its path");
	is_int(conf.adapters[1].activation_offset, -3, "its offset");
	is_int(conf.adapters[1].on_missing, WSHM_MISSING_APPEND, "what it does without invocation");
	is_int(conf.daemon.max_adapters, 2, "max_adapters");
	is_int(conf.daemon.max_adapter_bytes, 1 << 20, "max_adapter_bytes");
	is_int(conf.daemon.max_adapters_bytes, 3 << 20, "max_adapters_bytes");
	is_str(conf.daemon.state_dir, "/s", "state_dir");
	ok(!load(MODEL "[adapter a]\npath = /a\nactivation_offset = +65536\n"
		       "on_missing_invocation = base\n"),
	   "the largest offset");
	is_int(conf.adapters[0].activation_offset, 65536, "with a sign");
	is_int(conf.adapters[0].on_missing, WSHM_MISSING_BASE, "base");
	is_int(conf.daemon.max_adapter_bytes, 4ll << 30, "weights of 4 GiB by default");

	refused(MODEL "[adapter a]\n", ":3: [adapter a] has no path");
	refused(MODEL "[adapter a]\npath = a\n", "no absolute path");
	refused(MODEL "[adapter a]\npath = /a\nmodel = n\n", "there is no [model n]");
	refused(MODEL "[model n]\npath = /n\n[adapter a]\npath = /a\n",
		"and there is not just one");
	refused(MODEL "[adapter a]\npath = /a\n[adapter a]\n", ":5: [adapter a] stands already");
	refused(MODEL "[adapter]\npath = /a\n", "[adapter NAME] needs a name");
	refused(MODEL "[adapter a b]\npath = /a\n", "[adapter NAME] needs a name");
	refused(MODEL "[adapter a]\npath = /a\nactivation_offset = 65537\n", "-65536 to 65536");
	refused(MODEL "[adapter a]\npath = /a\nactivation_offset = --1\n", "-65536 to 65536");
	refused(MODEL "[adapter a]\npath = /a\nactivation_offset = -\n", "-65536 to 65536");
	refused(MODEL "[adapter a]\npath = /a\non_missing_invocation = none\n",
		"not one of error|base|append");
	refused(MODEL "[adapter a]\npath = /a\nweight = 3\n", "unknown key \"weight\"");
	refused("[daemon]\nmax_adapters = 1\n" MODEL
		"[adapter a]\npath = /a\n[adapter b]\npath = /b\n",
		":7: more adapters than max_adapters = 1");
	for (int i = 0; i < 257; i++)
		sprintf(text + strlen(text), "[adapter a%d]\npath = /a\n", i);
	refused(text, "more than 256 adapters");
}

/* A terminal obeys control characters, C1 as one byte of Latin-1 or two of UTF-8; JSON takes no broken UTF-8. */
static void test_harmless(void)
{
	is_int(load("[daemon]\na\033[31mb = 1\nc\302\233d = 1\ne\233f = 1\ng\303\244h = 1\n" MODEL),
	       -EINVAL, "keys with control characters");
	ok(strstr(report.text, ":2: unknown key \"a?[31mb\"\n"), "one byte");
	ok(strstr(report.text, ":3: unknown key \"c??d\"\n"), "two");
	ok(strstr(report.text, ":4: unknown key \"e?f\"\n"), "no UTF-8");
	ok(strstr(report.text, ":5: unknown key \"g\303\244h\"\n"), "a letter stays");
}

/* The lines of config_look() after the folder's name, faults counted. */
static uint32_t look(char *text, size_t bytes)
{
	FILE *f = fmemopen(text, bytes, "w");
	uint32_t n;

	if (!f)
		bail_out("fmemopen");
	n = config_look(&conf, f);
	fclose(f);
	return n;
}

static void make_folder(const char *name)
{
	if (mkdir(file_at(name), 0700))
		bail_out("mkdir");
}

static void test_look(void)
{
	char text[2048], all[1024], want[256];

	snprintf(all, sizeof(all),
		 "[model m]\npath = %s/m\n[model n]\npath = %s/n\ndummy_weights = on\n"
		 "[adapter a]\nmodel = m\npath = %s/a\n[adapter b]\nmodel = m\npath = "
		 "%s/weftd.conf\n",
		 dir, dir, dir, dir);
	make_folder("m");
	make_folder("n");
	make_folder("n/config.json");
	make_folder("a");
	put("a/adapter_config.json", "");
	ok(!load(all), "a configuration");
	is_int(look(text, sizeof(text)), 5, "a folder that lacks both files, and so on");
	snprintf(want, sizeof(want), "[model m]: %s/m/config.json: No such file or directory\n",
		 dir);
	ok(strstr(text, want), "no config.json");
	ok(strstr(text, "m/model.safetensors: No such file"), "no weights");
	ok(strstr(text, "n/config.json: is no regular file"), "a folder in its place");
	ok(!strstr(text, "n/model.safetensors"), "made up weights are of no file");
	ok(strstr(text, "[adapter a]: ") &&
		   strstr(text, "a/adapter_model.safetensors: No such file"),
	   "an adapter without weights");
	ok(strstr(text, "[adapter b]: ") && strstr(text, "/weftd.conf: is no folder"), "a file");
	put("m/config.json", "");
	put("m/model.safetensors.index.json", "");
	put("a/adapter_model.safetensors", "");
	is_int(look(text, sizeof(text)), 2, "an index stands for shards");
	put("m/model.safetensors", "");
	is_int(look(text, sizeof(text)), 3, "a file beside it is one too many");
	ok(strstr(text, "/m: has both model.safetensors and model.safetensors.index.json"),
	   "and is named");
	unlink(file_at("m/model.safetensors"));
	unlink(file_at("m/model.safetensors.index.json"));
	make_folder("m/model.safetensors.index.json");
	is_int(look(text, sizeof(text)), 3, "an index that is a folder");
	ok(strstr(text, "m/model.safetensors.index.json: is no regular file"), "is none");
}

int main(void)
{
	if (!mkdtemp(dir))
		bail_out("mkdtemp");
	test_full();
	ok(!load("[model m]\npath = /m\n[tenant lab]\nuid=1000,2000-2999\ngid = 50\n[tenant r]\n"
		 "default = yes\n"),
	   "two tenants");
	test_tenant_of();
	test_refusals();
	test_nul();
	test_many();
	test_adapters();
	test_drop_ins();
	test_odd_files();
	test_harmless();
	test_look();
	is_int(config_load(&conf, "/nonexistent/weftd.conf", &report), -EINVAL, "no file");
	ok(strstr(report.text, "No such file"), "is said");
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return tap_done();
}
