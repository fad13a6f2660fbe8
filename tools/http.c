/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - see http.h. Holds no state. */
#include "tools/http.h"

#include "tools/cli.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES 8192u
#define WAIT_MS	   5000

static int ms_left(const struct timespec *from)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return WAIT_MS -
	       (int)((now.tv_sec - from->tv_sec) * 1000 + (now.tv_nsec - from->tv_nsec) / 1000000);
}

static enum http_request request_of(const char *head)
{
	static const char path[] = "/metrics";
	enum http_request r;

	if (!strncmp(head, "GET ", 4))
		r = HTTP_GET_METRICS;
	else if (!strncmp(head, "HEAD ", 5))
		r = HTTP_HEAD_METRICS;
	else
		return HTTP_METHOD;
	head = strchr(head, ' ') + 1;
	if (strncmp(head, path, sizeof(path) - 1))
		return HTTP_PATH;
	head += sizeof(path) - 1;
	return *head == ' ' || *head == '?' ? r : HTTP_PATH;
}

enum http_request http_read(int fd)
{
	char head[HEAD_BYTES + 1];
	struct timespec from;
	size_t have = 0;

	clock_gettime(CLOCK_MONOTONIC, &from);
	/* All of it: a connection that is closed with bytes unread is reset, and the answer lost. */
	while (have < HEAD_BYTES) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int left = ms_left(&from);
		ssize_t n;

		if (left <= 0 || !poll(&p, 1, left))
			return HTTP_NONE;
		n = read(fd, head + have, HEAD_BYTES - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return HTTP_NONE;
		have += (size_t)n;
		head[have] = 0;
		if (strstr(head, "\r\n\r\n") || strstr(head, "\n\n"))
			return request_of(head);
	}
	return HTTP_NONE;
}

int http_answer(FILE *to, const char *status, const char *text, bool head)
{
	fprintf(to,
		"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
		"Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
		status, strlen(text), head ? "" : text);
	return fflush(to) ? cli_fail("write the answer: %s", strerror(errno)) : 0;
}
