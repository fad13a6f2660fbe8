/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_metrics.c - `weft metrics`: what weftd and its engines count, as Prometheus reads it.
 *
 * One question through the admin socket, one text: to standard output, to a file (for the text
 * collector of node_exporter; it changes as a whole or not at all), or as the answer to one HTTP
 * request on standard input (for a socket that systemd or inetd listens on: weft itself opens
 * none). Everything is weft_*; what vLLM's metrics mean too stands once more under their names, so
 * that dashboards made for them go on.
 */
#include "tools/admin_client.h"
#include "tools/http.h"
#include "tools/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *output;
static int http;

static const struct cli_option options[] = {
	ADMIN_OPTIONS,
	{"output", 'o', "FILE", cli_set_str, &output, "write this file, as a whole or not at all"},
	{"http", 0, NULL, NULL, &http, "answer the one HTTP request on standard input"},
};

static const struct cli_command command = {
	"metrics",
	"",
	"Print the counters of the daemon and its engines in Prometheus' text format.",
	options,
	sizeof(options) / sizeof(*options),
	0,
};

/* The text, freed by the caller; NULL after a message. */
static char *collect(size_t *ret_bytes)
{
	json_t *j = admin_do(json_pack("{s:s}", "cmd", "status"), ADMIN_QUICK, false);
	char *text = NULL;
	FILE *to;

	if (!j)
		return NULL;
	to = open_memstream(&text, ret_bytes);
	if (to)
		metrics_write(to, j);
	json_decref(j);
	if (!to || fclose(to)) {
		free(text);
		cli_fail("out of memory");
		return NULL;
	}
	return text;
}

static int write_all(FILE *f, const char *text, size_t n)
{
	if (!f)
		return errno;
	return (fwrite(text, 1, n, f) != n) | (fclose(f) != 0) ? errno : 0;
}

/* Beside the file first: whoever reads it finds the old text or the new one. A device, or a pipe, stays one. */
static int write_file(const char *path, const char *text, size_t n)
{
	size_t room = strlen(path) + 32;
	char *beside = malloc(room);
	struct stat was;
	FILE *f;
	int err = 0;

	if (!stat(path, &was) && !S_ISREG(was.st_mode)) {
		free(beside);
		err = write_all(fopen(path, "we"), text, n);
		return err ? cli_fail("write %s: %s", path, strerror(err)) : 0;
	}

	if (!beside)
		return cli_fail("out of memory");
	snprintf(beside, room, "%s.%ld.tmp", path, (long)getpid());
	f = fopen(beside, "wxe");
	err = write_all(f, text, n);
	if (!err && rename(beside, path))
		err = errno;
	if (err && f)
		unlink(beside);
	free(beside);
	return err ? cli_fail("write %s: %s", path, strerror(err)) : 0;
}

/* A scrape that finds no daemon is answered too: 503, and why on standard error. */
static int answer_http(void)
{
	enum http_request r = http_read(STDIN_FILENO);
	size_t n = 0;
	char *text;
	int rc;

	if (r == HTTP_NONE) {
		http_answer(stdout, "400 Bad Request", "no request came\n", false);
		return cli_fail("no HTTP request on standard input");
	}
	if (r == HTTP_METHOD)
		return http_answer(stdout, "405 Method Not Allowed", "only GET and HEAD\n", false);
	if (r == HTTP_PATH)
		return http_answer(stdout, "404 Not Found", "only GET /metrics is here\n", false);
	text = collect(&n);
	rc = http_answer(stdout, text ? "200 OK" : "503 Service Unavailable",
			 text ? text : "weftd cannot be asked\n", r == HTTP_HEAD_METRICS);
	free(text);
	return rc;
}

int cmd_metrics(int argc, char **argv)
{
	size_t n = 0;
	char *text;
	int rc;

	cli_parse(&command, argc, argv);
	if (http && output)
		return cli_usage("--http and --output exclude each other");
	if (http)
		return answer_http();
	text = collect(&n);
	if (!text)
		return 1;
	rc = output ? write_file(output, text, n) : 0;
	if (!output)
		cli_print(stdout, text, n);
	free(text);
	return rc;
}
