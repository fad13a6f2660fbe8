/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - read weftd.conf: inih takes the lines apart, tables here say what each key may be.
 *
 * inih neither reports lines to its handler nor empty or repeated sections, so the lines pass
 * through a reader of our own that counts them, opens the sections, and refuses what inih would
 * silently cut or continue (long lines, NUL bytes, indented lines). Everything is collected into a
 * scratch configuration; the caller's is written only when nothing was wrong.
 */
#include "daemon/supervisor/config.h"
#include "daemon/common/plain.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <ini.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES \
	(1 << 20) /* what is larger is something else; weftd does nothing else meanwhile */

enum value_type {
	VALUE_U32,
	VALUE_BYTES,
	VALUE_TEXT,
	VALUE_PATH, /* absolute */
	VALUE_OCTAL,
	VALUE_OFFSET,
	VALUE_MISSING,
	VALUE_BOOL,
	VALUE_CHOICE,
	VALUE_UIDS,
	VALUE_GIDS,
};

struct key {
	const char *name;
	enum value_type type;
	size_t offset, bytes;
	uint64_t min, max;
	const char *choices; /* "a|b" */
};

#define AT(type, field) offsetof(struct type, field), sizeof(((struct type *)0)->field)
#define GIB		(UINT64_C(1) << 30)

/* clang-format off */
static const struct key daemon_keys[] = {
	{"runtime_dir",	     VALUE_PATH,  AT(config_daemon, runtime_dir), 0, 0, NULL},
	{"socket_mode",	     VALUE_OCTAL, AT(config_daemon, socket_mode), 0, 0777, NULL},
	{"drain_seconds",    VALUE_U32,	  AT(config_daemon, drain_seconds), 0, 3600, NULL},
	{"hello_seconds",    VALUE_U32,	  AT(config_daemon, hello_seconds), 1, 60, NULL},
	{"load_seconds",     VALUE_U32,	  AT(config_daemon, load_seconds), 1, 86400, NULL},
	{"step_seconds",     VALUE_U32,	  AT(config_daemon, step_seconds), 1, 3600, NULL},
	{"max_sessions",     VALUE_U32,	  AT(config_daemon, max_sessions), 1, 65536, NULL},
	{"max_region_bytes", VALUE_BYTES, AT(config_daemon, max_region_bytes), 1 << 20, 65536 * GIB, NULL},
	{"max_adapters",     VALUE_U32,	  AT(config_daemon, max_adapters), 0, WSHM_MAX_INSTANCES, NULL},
	{"max_adapter_bytes", VALUE_BYTES, AT(config_daemon, max_adapter_bytes), 1 << 16, 65536 * GIB, NULL},
	{"max_adapters_bytes", VALUE_BYTES, AT(config_daemon, max_adapters_bytes), 1 << 16, 65536 * GIB, NULL},
	{"engine",	     VALUE_PATH,  AT(config_daemon, engine), 0, 0, NULL},
	{"engine_user",	     VALUE_TEXT,  AT(config_daemon, engine_user), 0, 0, NULL},
	{"admin_group",	     VALUE_TEXT,  AT(config_daemon, admin_group), 0, 0, NULL},
	{"state_dir",	     VALUE_PATH,  AT(config_daemon, state_dir), 0, 0, NULL},
	{0},
};
/* An engine ends at once over a number that it does not take, so the ranges are its own: WK_MOST_ROWS
 * (max_batch_tokens, prefill_chunk) and SCHED_MAX_SEQS (max_seqs). */
static const struct key model_keys[] = {
	{"path",	     VALUE_PATH,   AT(config_model, path), 0, 0, NULL},
	{"backend",	     VALUE_CHOICE, AT(config_model, backend), 0, 0, "cpu|ref|cuda|auto"},
	{"deterministic",    VALUE_CHOICE, AT(config_model, deterministic), 0, 0, "on|off"},
	{"dummy_weights",    VALUE_CHOICE, AT(config_model, dummy_weights), 0, 0, "on|off"},
	{"threads",	     VALUE_U32,	   AT(config_model, threads), 1, 256, NULL},
	{"kv_bytes",	     VALUE_BYTES,  AT(config_model, kv_bytes), 1 << 16, 65536 * GIB, NULL},
	{"max_batch_tokens", VALUE_U32,	   AT(config_model, max_batch_tokens), 1, 2048, NULL},
	{"max_seqs",	     VALUE_U32,	   AT(config_model, max_seqs), 1, 64, NULL},
	{"prefill_chunk",    VALUE_U32,	   AT(config_model, prefill_chunk), 1, 2048, NULL},
	{"poll",	     VALUE_CHOICE, AT(config_model, poll), 0, 0, "always|adaptive"},
	{0},
};
static const struct key adapter_keys[] = {
	{"model",		  VALUE_TEXT,	 AT(config_adapter, model), 0, 0, NULL},
	{"path",		  VALUE_PATH,	 AT(config_adapter, path), 0, 0, NULL},
	{"activation_offset",	  VALUE_OFFSET,	 AT(config_adapter, activation_offset), 0, 0, NULL},
	{"on_missing_invocation", VALUE_MISSING, AT(config_adapter, on_missing), 0, 0, NULL},
	{0},
};
static const struct key tenant_keys[] = {
	{"uid",		      VALUE_UIDS,  AT(config_tenant, uids), 0, 0, NULL},
	{"gid",		      VALUE_GIDS,  AT(config_tenant, gids), 0, 0, NULL},
	{"default",	      VALUE_BOOL,  AT(config_tenant, is_default), 0, 0, NULL},
	{"max_sessions",      VALUE_U32,   AT(config_tenant, max_sessions), 1, 65536, NULL},
	{"max_region_bytes",  VALUE_BYTES, AT(config_tenant, max_region_bytes), 1 << 16, 65536 * GIB, NULL},
	{"max_in_flight",     VALUE_U32,   AT(config_tenant, quota.max_in_flight), 1, 1 << 20, NULL},
	{"max_queued_tokens", VALUE_U32,   AT(config_tenant, quota.max_queued_tokens), 1, UINT32_MAX, NULL},
	{"max_rate",	      VALUE_U32,   AT(config_tenant, quota.max_rate), 0, 1000000, NULL},
	{"weight",	      VALUE_U32,   AT(config_tenant, quota.weight), 1, 1000, NULL},
	{0},
};
/* clang-format on */

#define MAX_KEYS 24u

/* One section of the file that is being read. */
struct section {
	const struct key *keys;	    /* NULL: unknown, its keys are skipped */
	void *base;		    /* borrowed from the scratch configuration */
	struct config_origin *seen; /* [MAX_KEYS] where each key was set */
	bool *faulty;		    /* something in it was refused; NULL: nobody asks */
};

struct parse {
	struct config *out;
	struct config_report *report;
	const char *file;
	FILE *in;
	int line;
	char *text; /* getline's buffer */
	size_t text_bytes;
	struct section section;
	struct config_origin daemon_seen[MAX_KEYS];
	struct config_origin model_at[WCTL_MAX_MODELS], model_seen[WCTL_MAX_MODELS][MAX_KEYS];
	struct config_origin adapter_at[CONFIG_MAX_ADAPTERS];
	struct config_origin adapter_seen[CONFIG_MAX_ADAPTERS][MAX_KEYS];
	struct config_origin tenant_at[CONFIG_MAX_TENANTS];
	struct config_origin tenant_seen[CONFIG_MAX_TENANTS][MAX_KEYS];
	/* Of a section in which something was refused, what it lacks may be just that. */
	bool model_faulty[WCTL_MAX_MODELS], adapter_faulty[CONFIG_MAX_ADAPTERS];
	bool tenant_faulty[CONFIG_MAX_TENANTS];
};

static void report(struct parse *p, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void report(struct parse *p, const char *file, int line, const char *fmt, ...)
{
	struct config_report *r = p->report;
	size_t room = sizeof(r->text) - r->bytes;
	char text[512];
	va_list ap;
	int n;

	r->errors++;
	if (p->section.faulty)
		*p->section.faulty = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (line)
		n = snprintf(r->text + r->bytes, room, "%s:%d: %s\n", file, line, text);
	else
		n = snprintf(r->text + r->bytes, room, "%s: %s\n", file, text);
	if (n > 0 && (size_t)n < room) {
		plain_text(r->text + r->bytes, (size_t)n - 1);
		r->bytes += (size_t)n;
	} else {
		r->text[r->bytes] = 0; /* full: the count still tells */
	}
}

static void origin_set(struct config_origin *o, const struct parse *p)
{
	snprintf(o->file, sizeof(o->file), "%s", p->file);
	o->line = p->line;
}

/* --- sections -------------------------------------------------------------------------------------*/

static void tenant_defaults(struct config_tenant *t)
{
	t->max_sessions = 64;
	t->max_region_bytes = GIB;
	t->quota = (struct wlink_quota){
		.max_in_flight = 1024,
		.max_queued_tokens = 1 << 20,
		.max_rate = 0,
		.weight = 100,
	};
}

static void open_model(struct parse *p, const char *name)
{
	struct config *c = p->out;

	for (uint32_t i = 0; i < c->n_models; i++)
		if (!strcmp(c->models[i].name, name)) {
			report(p, p->file, p->line, "[model %s] stands already in %s:%d", name,
			       p->model_at[i].file, p->model_at[i].line);
			return;
		}
	if (c->n_models == WCTL_MAX_MODELS) {
		report(p, p->file, p->line, "more than %u models", WCTL_MAX_MODELS);
		return;
	}
	origin_set(&p->model_at[c->n_models], p);
	strcpy(c->models[c->n_models].name, name);
	p->section = (struct section){model_keys, &c->models[c->n_models],
				      p->model_seen[c->n_models], &p->model_faulty[c->n_models]};
	c->n_models++;
}

static void open_adapter(struct parse *p, const char *name)
{
	struct config *c = p->out;

	for (uint32_t i = 0; i < c->n_adapters; i++)
		if (!strcmp(c->adapters[i].name, name)) {
			report(p, p->file, p->line, "[adapter %s] stands already in %s:%d", name,
			       p->adapter_at[i].file, p->adapter_at[i].line);
			return;
		}
	if (c->n_adapters == CONFIG_MAX_ADAPTERS) {
		report(p, p->file, p->line, "more than %u adapters", CONFIG_MAX_ADAPTERS);
		return;
	}
	origin_set(&p->adapter_at[c->n_adapters], p);
	strcpy(c->adapters[c->n_adapters].name, name);
	p->section =
		(struct section){adapter_keys, &c->adapters[c->n_adapters],
				 p->adapter_seen[c->n_adapters], &p->adapter_faulty[c->n_adapters]};
	c->n_adapters++;
}

static void open_tenant(struct parse *p, const char *name)
{
	struct config *c = p->out;

	for (uint32_t i = 0; i < c->n_tenants; i++)
		if (!strcmp(c->tenants[i].name, name)) {
			report(p, p->file, p->line, "[tenant %s] stands already in %s:%d", name,
			       p->tenant_at[i].file, p->tenant_at[i].line);
			return;
		}
	if (c->n_tenants == CONFIG_MAX_TENANTS) {
		report(p, p->file, p->line, "more than %u tenants", CONFIG_MAX_TENANTS);
		return;
	}
	origin_set(&p->tenant_at[c->n_tenants], p);
	strcpy(c->tenants[c->n_tenants].name, name);
	tenant_defaults(&c->tenants[c->n_tenants]);
	p->section =
		(struct section){tenant_keys, &c->tenants[c->n_tenants],
				 p->tenant_seen[c->n_tenants], &p->tenant_faulty[c->n_tenants]};
	c->n_tenants++;
}

/* line: "[kind name] ; comment". Afterwards p->section is the open one, or unknown. */
static void open_section(struct parse *p, char *line)
{
	char *end = strchr(line, ']'), *kind, *name;

	p->section = (struct section){0};
	if (!end || (end[1 + strspn(end + 1, " \t\r\n")] &&
		     !strchr(";#", end[1 + strspn(end + 1, " \t\r\n")]))) {
		report(p, p->file, p->line, "a section is written [NAME]");
		return;
	}
	*end = 0;
	kind = line + 1 + strspn(line + 1, " \t");
	name = kind + strcspn(kind, " \t");
	if (*name) {
		*name++ = 0;
		name += strspn(name, " \t");
	}
	for (char *t = name + strlen(name); t > name && strchr(" \t", t[-1]);)
		*--t = 0;
	if (!strcmp(kind, "daemon") && !*name) {
		p->section = (struct section){daemon_keys, &p->out->daemon, p->daemon_seen, NULL};
	} else if (!strcmp(kind, "model") || !strcmp(kind, "tenant") || !strcmp(kind, "adapter")) {
		if (!config_name_ok(name))
			report(p, p->file, p->line,
			       "[%s NAME] needs a name of 1 to %u letters, digits and ._-:/", kind,
			       WCTL_NAME_BYTES - 1);
		else if (*kind == 'm')
			open_model(p, name);
		else if (*kind == 'a')
			open_adapter(p, name);
		else
			open_tenant(p, name);
	} else {
		report(p, p->file, p->line,
		       "unknown section [%.60s%s%.60s] (known: daemon, model NAME, "
		       "adapter NAME, tenant NAME)",
		       kind, *name ? " " : "", name);
	}
}

/* --- values ---------------------------------------------------------------------------------------*/

static bool choice_ok(const char *choices, const char *value)
{
	size_t n = strlen(value);

	for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
		if (strcspn(c, "|") == n && !strncmp(c, value, n))
			return true;
	return false;
}

static void set_ranges(struct parse *p, const struct key *k, void *at, const char *value)
{
	bool groups = k->type == VALUE_GIDS;
	int err = config_ranges(value, groups, at);

	if (err == -ENOENT)
		report(p, p->file, p->line, "%s: no such %s in \"%s\"", k->name,
		       groups ? "group" : "user", value);
	else if (err == -E2BIG)
		report(p, p->file, p->line, "%s: more than %u items", k->name, CONFIG_MAX_RANGES);
	else if (err)
		report(p, p->file, p->line,
		       "%s: \"%s\" is no list of numbers, ranges (1000-1999) and names", k->name,
		       value);
}

static void set_text(struct parse *p, const struct key *k, char *at, const char *value)
{
	if (k->type == VALUE_PATH && *value != '/')
		report(p, p->file, p->line, "%s: \"%s\" is no absolute path", k->name, value);
	else if (k->type == VALUE_CHOICE && !choice_ok(k->choices, value))
		report(p, p->file, p->line, "%s: \"%s\" is not one of %s", k->name, value,
		       k->choices);
	else if (strlen(value) >= k->bytes)
		report(p, p->file, p->line, "%s: longer than %zu bytes", k->name, k->bytes - 1);
	else
		strcpy(at, value);
}

static void set_number(struct parse *p, const struct key *k, void *at, const char *value)
{
	char *end;
	uint64_t v = 0;
	int err;

	if (k->type == VALUE_BYTES) {
		err = config_bytes(value, k->min, k->max, &v);
	} else if (k->type == VALUE_OCTAL) {
		v = strtoul(value, &end, 8);
		err = *value < '0' || *value > '7' || *end || v > k->max ? -EINVAL : 0;
	} else {
		err = config_u64(value, k->min, k->max, &v);
	}
	if (err && k->type == VALUE_OCTAL)
		report(p, p->file, p->line, "%s: \"%s\" is no mode such as 0660", k->name, value);
	else if (err)
		report(p, p->file, p->line, "%s: \"%s\" is no number from %llu to %llu%s", k->name,
		       value, (unsigned long long)k->min, (unsigned long long)k->max,
		       k->type == VALUE_BYTES ? " (K, M, G, T may follow)" : "");
	else if (k->bytes == sizeof(uint64_t))
		*(uint64_t *)at = v;
	else
		*(uint32_t *)at = (uint32_t)v;
}

static void set_value(struct parse *p, const struct key *k, void *at, const char *value)
{
	switch (k->type) {
	case VALUE_UIDS:
	case VALUE_GIDS:
		set_ranges(p, k, at, value);
		break;
	case VALUE_BOOL:
		if (!strcmp(value, "yes") || !strcmp(value, "no"))
			*(bool *)at = *value == 'y';
		else
			report(p, p->file, p->line, "%s: \"%s\" is not yes or no", k->name, value);
		break;
	case VALUE_OFFSET:
		if (config_i32(value, CONFIG_MAX_OFFSET, at))
			report(p, p->file, p->line, "%s: \"%s\" is no number from %d to %d",
			       k->name, value, -CONFIG_MAX_OFFSET, CONFIG_MAX_OFFSET);
		break;
	case VALUE_MISSING:
		if (config_on_missing(value, at))
			report(p, p->file, p->line, "%s: \"%s\" is not one of error|base|append",
			       k->name, value);
		break;
	case VALUE_TEXT:
	case VALUE_PATH:
	case VALUE_CHOICE:
		set_text(p, k, at, value);
		break;
	default:
		set_number(p, k, at, value);
	}
}

/* inih's handler: returns nonzero, errors are collected here. Its section name is not used: inih
 * cuts it after 49 characters. */
static int on_key(void *arg, const char *section, const char *name, const char *value)
{
	struct parse *p = arg;
	struct section *s = &p->section;
	uint32_t i = 0;

	if (!s->keys)
		return 1; /* said already when the section was opened */
	while (s->keys[i].name && strcmp(s->keys[i].name, name))
		i++;
	if (!s->keys[i].name) {
		report(p, p->file, p->line, "unknown key \"%s\"", name);
	} else if (s->seen[i].line) {
		report(p, p->file, p->line, "%s is set already in %s:%d", name, s->seen[i].file,
		       s->seen[i].line);
	} else {
		origin_set(&s->seen[i], p);
		if (!*value)
			report(p, p->file, p->line, "%s has no value", name);
		else
			set_value(p, &s->keys[i], (char *)s->base + s->keys[i].offset, value);
	}
	return 1;
}

/* --- lines ----------------------------------------------------------------------------------------*/

/* Judge one line; what inih shall not see is emptied. */
static void judge_line(struct parse *p, size_t bytes, int room)
{
	char *s = p->text + strspn(p->text, " \t");

	if (strlen(p->text) != bytes) {
		report(p, p->file, p->line, "a NUL byte");
	} else if (!*s || strchr(";#\r\n", *s)) {
		/* nothing */
	} else if (bytes >= (size_t)room) {
		report(p, p->file, p->line, "longer than %d bytes", room - 2);
	} else if (*s == '[') {
		open_section(p, s);
	} else if (!strpbrk(s, "=:")) {
		report(p, p->file, p->line, "neither [section] nor key = value");
	} else if (!p->section.keys && !p->report->errors) {
		report(p, p->file, p->line, "a key before any [section]");
	} else {
		/* Indented lines would continue the value before them. */
		memmove(p->text, s, strlen(s) + 1);
		return;
	}
	strcpy(p->text, "\n");
}

static char *read_line(char *buf, int room, void *arg)
{
	struct parse *p = arg;
	ssize_t n = getline(&p->text, &p->text_bytes, p->in);

	if (n < 0) {
		if (!feof(p->in)) /* an error, or no memory for the line */
			report(p, p->file, 0, "cannot be read: %s", strerror(errno));
		return NULL;
	}
	p->line++;
	if (p->text_bytes < 2)
		return NULL; /* cannot be: getline's buffers are larger */
	judge_line(p, (size_t)n, room);
	strcpy(buf, p->text);
	return buf;
}

/* A reload reads it while everybody is served: a pipe would hold weftd until somebody writes, a device
 * for ever. */
static FILE *open_regular(struct parse *p, const char *file)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	FILE *in = NULL;

	if (fd < 0 || fstat(fd, &st))
		report(p, file, 0, "cannot be opened: %s", strerror(errno));
	else if (!S_ISREG(st.st_mode))
		report(p, file, 0, "is no regular file");
	else if (st.st_size > MAX_FILE_BYTES)
		report(p, file, 0, "has more than %d bytes", MAX_FILE_BYTES);
	else if (!(in = fdopen(fd, "r")))
		report(p, file, 0, "cannot be opened: %s", strerror(errno));
	if (fd >= 0 && !in)
		close(fd);
	return in;
}

static void read_file(struct parse *p, const char *file)
{
	p->file = file;
	p->line = 0;
	p->section = (struct section){0};
	p->in = open_regular(p, file);
	if (!p->in)
		return;
	if (ini_parse_stream(read_line, p, on_key, p) == -2)
		report(p, file, 0, "out of memory");
	fclose(p->in);
	p->in = NULL;
}

static _Thread_local int
	list_error; /* glob() hands on nothing of the caller's, and keeps no errno */

static int is_error(const char *path, int error)
{
	(void)path;
	list_error = error;
	return error != ENOENT;
}

static void read_drop_ins(struct parse *p, const char *path)
{
	char dir[PATH_MAX], pattern[PATH_MAX + 16];
	glob_t g;
	int rc;

	if (strlen(path) >= sizeof(dir))
		return; /* opening it has failed already */
	strcpy(dir, path);
	snprintf(pattern, sizeof(pattern), "%s/conf.d/*.conf", dirname(dir));
	rc = glob(pattern, 0, is_error, &g);
	/* Without them tenants and adapters would seem to have been removed. */
	if (rc && rc != GLOB_NOMATCH)
		report(p, pattern, 0, "cannot be listed: %s",
		       rc == GLOB_NOSPACE ? "out of memory" : strerror(list_error));
	if (rc)
		return;
	for (size_t i = 0; i < g.gl_pathc; i++)
		read_file(p, g.gl_pathv[i]);
	globfree(&g);
}

/* --- the whole ------------------------------------------------------------------------------------*/

static bool in_ranges(const struct config_ranges *r, uint32_t id)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (id >= r->range[i].first && id <= r->range[i].last)
			return true;
	return false;
}

static bool ranges_overlap(const struct config_ranges *a, const struct config_ranges *b,
			   uint32_t *ret)
{
	for (uint32_t i = 0; i < a->n; i++)
		for (uint32_t k = 0; k < b->n; k++)
			if (a->range[i].first <= b->range[k].last &&
			    b->range[k].first <= a->range[i].last) {
				*ret = a->range[i].first > b->range[k].first ? a->range[i].first
									     : b->range[k].first;
				return true;
			}
	return false;
}

static void check_pair(struct parse *p, uint32_t earlier, uint32_t later)
{
	const struct config_tenant *a = &p->out->tenants[earlier], *b = &p->out->tenants[later];
	const struct config_origin *at = &p->tenant_at[later];
	uint32_t id;

	if (ranges_overlap(&a->uids, &b->uids, &id))
		report(p, at->file, at->line, "[tenant %s] and [tenant %s] both claim uid %u",
		       b->name, a->name, id);
	if (ranges_overlap(&a->gids, &b->gids, &id))
		report(p, at->file, at->line, "[tenant %s] and [tenant %s] both claim gid %u",
		       b->name, a->name, id);
	if (a->is_default && b->is_default)
		report(p, at->file, at->line, "[tenant %s] and [tenant %s] are both the default",
		       b->name, a->name);
}

static void check_tenants(struct parse *p)
{
	struct config *c = p->out;

	for (uint32_t i = 0; i < c->n_tenants; i++) {
		const struct config_tenant *t = &c->tenants[i];

		if (!t->uids.n && !t->gids.n && !t->is_default && !p->tenant_faulty[i])
			report(p, p->tenant_at[i].file, p->tenant_at[i].line,
			       "[tenant %s] has neither uid, gid nor default = yes", t->name);
		for (uint32_t k = 0; k < i; k++)
			check_pair(p, k, i);
	}
	if (!c->n_tenants) {
		strcpy(c->tenants[0].name, "default");
		tenant_defaults(&c->tenants[0]);
		c->tenants[0].is_default = true;
		c->n_tenants = 1;
	}
}

/* None at all is no error: weftd as it is installed serves nobody yet, and says so. */
static void check_models(struct parse *p)
{
	struct config *c = p->out;

	for (uint32_t i = 0; i < c->n_models; i++)
		if (!c->models[i].path[0] && !p->model_faulty[i])
			report(p, p->model_at[i].file, p->model_at[i].line,
			       "[model %s] has no path", c->models[i].name);
}

static void check_adapter(struct parse *p, uint32_t index)
{
	struct config_adapter *a = &p->out->adapters[index];
	const struct config_origin *at = &p->adapter_at[index];
	bool known = false;

	if (!a->path[0])
		report(p, at->file, at->line, "[adapter %s] has no path", a->name);
	if (!a->model[0] && p->out->n_models == 1)
		strcpy(a->model, p->out->models[0].name);
	for (uint32_t i = 0; i < p->out->n_models; i++)
		known |= !strcmp(p->out->models[i].name, a->model);
	if (!a->model[0])
		report(p, at->file, at->line,
		       "[adapter %s] has no model, and there is not just one", a->name);
	else if (!known)
		report(p, at->file, at->line, "[adapter %s]: there is no [model %s]", a->name,
		       a->model);
}

static void check_adapters(struct parse *p)
{
	for (uint32_t i = 0; i < p->out->n_adapters; i++)
		if (!p->adapter_faulty[i])
			check_adapter(p, i);
	if (p->out->n_adapters > p->out->daemon.max_adapters)
		report(p, p->adapter_at[p->out->daemon.max_adapters].file,
		       p->adapter_at[p->out->daemon.max_adapters].line,
		       "more adapters than max_adapters = %u", p->out->daemon.max_adapters);
}

static void daemon_defaults(struct config_daemon *d)
{
	strcpy(d->runtime_dir, RUNTIME_DIR_DEFAULT);
	strcpy(d->engine_user, "weft");
	strcpy(d->admin_group, "weft-admin");
	d->socket_mode = 0666;
	d->drain_seconds = 30;
	d->hello_seconds = 5;
	d->load_seconds = 600;
	d->step_seconds = 30;
	d->max_sessions = 256;
	d->max_region_bytes = 16 * GIB;
	d->max_adapters = 64;
	d->max_adapter_bytes = 4 * GIB;
	d->max_adapters_bytes = 16 * GIB;
}

int config_load(struct config *ret, const char *path, struct config_report *report_out)
{
	struct parse *p = calloc(1, sizeof(*p));
	int err = 0;

	*report_out = (struct config_report){0};
	if (!p)
		return -ENOMEM;
	p->report = report_out;
	p->out = calloc(1, sizeof(*p->out));
	if (!p->out) {
		free(p);
		return -ENOMEM;
	}
	daemon_defaults(&p->out->daemon);
	read_file(p, path);
	read_drop_ins(p, path);
	p->section = (struct section){0};
	check_models(p);
	check_adapters(p);
	check_tenants(p);
	if (report_out->errors)
		err = -EINVAL;
	else
		*ret = *p->out;
	free(p->text);
	free(p->out);
	free(p);
	return err;
}

int config_tenant_of(const struct config *c, uid_t uid, const gid_t *gids, uint32_t n_gids)
{
	for (uint32_t i = 0; i < c->n_tenants; i++)
		if (in_ranges(&c->tenants[i].uids, uid))
			return (int)i;
	for (uint32_t i = 0; i < c->n_tenants; i++)
		for (uint32_t k = 0; k < n_gids; k++)
			if (in_ranges(&c->tenants[i].gids, gids[k]))
				return (int)i;
	for (uint32_t i = 0; i < c->n_tenants; i++)
		if (c->tenants[i].is_default)
			return (int)i;
	return -ENOENT;
}
