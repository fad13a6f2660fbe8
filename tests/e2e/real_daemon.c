/* SPDX-License-Identifier: Apache-2.0 */
/* real_daemon.c - see real_daemon.h. */
#include "tests/e2e/real_daemon.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *env_or(const char *name, const char *otherwise)
{
	const char *v = getenv(name);

	return v && *v ? v : otherwise;
}

void real_daemon_init(struct real_daemon *d, const char *fixture, const char *conf)
{
	char path[400];

	memset(d, 0, sizeof(*d));
	d->conf = conf;
	snprintf(d->model, sizeof(d->model), "%s/tests/data/models/%s", env_or("WEFT_SRC", "."),
		 fixture);
	snprintf(path, sizeof(path), "%s/config.json", d->model);
	if (access(path, R_OK))
		skip_all("no fixture models");
	snprintf(path, sizeof(path), "%s/weftd", env_or("WEFT_BUILD", "build"));
	if (access(path, X_OK))
		skip_all("weftd is not built");
	strcpy(d->dir, "/tmp/weft-real-XXXXXX");
	if (!mkdtemp(d->dir))
		bail_out("no temporary directory");
	snprintf(path, sizeof(path), "%s/run", d->dir);
	mkdir(path, 0700);
	snprintf(d->socket, sizeof(d->socket), "%s/run/weftd.sock", d->dir);
}

static void write_conf(const struct real_daemon *d, const char *path)
{
	FILE *f = fopen(path, "w");
	char *model = realpath(d->model, NULL);

	if (!f || !model)
		bail_out("cannot write the configuration");
	fprintf(f, "[model tiny]\npath = %s\n%s", model, d->conf ? d->conf : "");
	fclose(f);
	free(model);
}

static void show_log(const struct real_daemon *d)
{
	char path[100], line[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", d->dir);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		diag("%s", line);
	}
	if (f)
		fclose(f);
}

int real_daemon_start(struct real_daemon *d)
{
	char conf[100], run[100], log[100], program[300];
	struct stat st;

	snprintf(conf, sizeof(conf), "%s/weftd.conf", d->dir);
	snprintf(run, sizeof(run), "%s/run", d->dir);
	snprintf(log, sizeof(log), "%s/log", d->dir);
	snprintf(program, sizeof(program), "%s/weftd", env_or("WEFT_BUILD", "build"));
	write_conf(d, conf);
	unlink(d->socket);
	d->pid = fork();
	if (!d->pid) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		dup2(fd, 1);
		dup2(fd, 2);
		execl(program, program, "--foreground", "--runtime-dir", run, "--config", conf,
		      (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 6000; i++) {
		if (!stat(d->socket, &st))
			return 0;
		if (waitpid(d->pid, NULL, WNOHANG) == d->pid)
			break;
		usleep(10000);
	}
	show_log(d);
	return -1;
}

void real_daemon_kill(struct real_daemon *d)
{
	kill(d->pid, SIGKILL);
	waitpid(d->pid, NULL, 0);
	d->pid = 0;
}

int real_daemon_fini(struct real_daemon *d)
{
	char command[120];
	int status = 0;

	if (d->pid) {
		kill(d->pid, SIGTERM);
		waitpid(d->pid, &status, 0);
	}
	snprintf(command, sizeof(command), "rm -rf '%s'", d->dir);
	if (system(command))
		diag("%s is left", d->dir);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
