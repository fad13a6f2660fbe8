/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - weftd's command line (man/weftd.8). */
#include "daemon/common/standard.h"
#include "daemon/supervisor/weftd.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char usage[] =
	"Usage: weftd [OPTION]...\n"
	"Serve large language models to the programs of this machine.\n\n"
	"  --config FILE      configuration (default " CONFIG_DEFAULT ")\n"
	"  --runtime-dir DIR  sockets and locks, instead of the configuration's runtime_dir\n"
	"  --engine PATH      weft-engine to start (default: $WEFT_ENGINE, else beside weftd)\n"
	"  --foreground       stay in the foreground (a service manager wants this)\n"
	"  --check            read the configuration, look for the files that it names, say OK or\n"
	"                     everything that is wrong\n"
	"  --version, --help\n\n"
	"SIGTERM drains and stops; a second one stops at once. SIGHUP reads tenants and adapters "
	"again.\n";

/* As the user who will read them. 0, or -EINVAL: it is said what is missing. */
static int check_files(const struct config *c)
{
	struct weft_err err = {0};
	uid_t uid;
	int rc = privilege_engine_user(c->daemon.engine_user, &uid, &err);

	if (!rc)
		rc = privilege_become(c->daemon.engine_user, uid);
	if (rc)
		fprintf(stderr, "%s\n", err.code ? err.message : strerror(-rc));
	return rc || config_look(c, stderr) ? -EINVAL : 0;
}

static int check(const char *file)
{
	struct config_report *report = calloc(1, sizeof(*report));
	struct config *c = calloc(1, sizeof(*c));
	int rc = report && c ? config_load(c, file, report) : -ENOMEM;

	if (!rc)
		rc = check_files(c);
	if (!rc && !c->n_models)
		fprintf(stderr, "%s: no [model NAME] section: nobody would be served\n", file);
	if (!rc)
		printf("OK: %u models, %u adapters, %u tenants\n", c->n_models, c->n_adapters,
		       c->n_tenants);
	else
		fprintf(stderr, "%s", rc == -EINVAL ? report->text : "out of memory\n");
	free(report);
	free(c);
	return rc ? 1 : 0;
}

/*
 * Leave the terminal: the parent returns when the child serves, with its exit code when it fails. Of
 * what the caller had open only the log stays: a pipe's other end would wait for ever.
 */
static int go_background(int *ret_ready)
{
	int pipes[2];
	char byte;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid) {
		close(pipes[1]);
		_exit(read(pipes[0], &byte, 1) == 1 ? 0 : 1);
	}
	if (pipes[1] > STDERR_FILENO + 1)
		syscall(SYS_close_range, STDERR_FILENO + 1, pipes[1] - 1, 0);
	syscall(SYS_close_range, pipes[1] + 1, ~0u, 0);
	setsid();
	*ret_ready = pipes[1];
	return 0;
}

static void say_ready(int ready)
{
	int null;

	if (ready < 0)
		return;
	(void)!write(ready, "r", 1);
	close(ready);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return;
	/* Standard error stays: it is the log. */
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	close(null);
}

static int serve(const struct weftd_options *options)
{
	struct weftd *d = calloc(1, sizeof(*d));
	struct weft_err err = {0};
	int ready = -1, rc;

	if (!d)
		return 1;
	if (!options->foreground && go_background(&ready)) {
		perror("weftd");
		free(d);
		return 1;
	}
	rc = weftd_start(d, options, &err);
	if (rc) {
		fprintf(stderr, "weftd: %s\n", err.message);
		rc = 1;
	} else {
		say_ready(ready);
		rc = weftd_run(d);
		if (rc < 0)
			log_line(LOG_LEVEL_ERROR, "event=loop error=\"%s\"", strerror(-rc));
	}
	weftd_fini(d);
	free(d);
	return rc ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"runtime-dir", required_argument, NULL, 'r'},
		{"engine", required_argument, NULL, 'e'},
		{"foreground", no_argument, NULL, 'f'},
		{"check", no_argument, NULL, 'k'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct weftd_options options = {.config_file = CONFIG_DEFAULT};
	bool only_check = false;
	int c;

	standard_open();
	log_set_name("weftd");
	while ((c = getopt_long(argc, argv, "c:fh", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			options.config_file = optarg;
			break;
		case 'r':
			options.runtime_dir = optarg;
			break;
		case 'e':
			options.engine = optarg;
			break;
		case 'f':
			options.foreground = true;
			break;
		case 'k':
			only_check = true;
			break;
		case 'v':
			printf("weftd %s\n", WEFT_VERSION);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fprintf(stderr, "Try weftd --help.\n");
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "weftd: unexpected argument \"%s\". Try weftd --help.\n",
			argv[optind]);
		return 2;
	}
	return only_check ? check(options.config_file) : serve(&options);
}
