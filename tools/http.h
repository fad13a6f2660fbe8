/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.h - one request and one answer of HTTP/1.1 over a connection that somebody else has
 * accepted: just enough for a scrape.
 */
#ifndef WEFT_TOOLS_HTTP_H
#define WEFT_TOOLS_HTTP_H

#include <stdbool.h>
#include <stdio.h>

enum http_request {
	HTTP_NONE,	  /* nothing whole within five seconds and 8 KiB */
	HTTP_METHOD,	  /* neither GET nor HEAD */
	HTTP_PATH,	  /* of something else */
	HTTP_GET_METRICS, /* a query behind it is ignored */
	HTTP_HEAD_METRICS,
};

/* Read to the end of the head of a request. */
enum http_request http_read(int fd);
/* status: "200 OK". head: without the text. 0, or 1 after a message. */
int http_answer(FILE *to, const char *status, const char *text, bool head);

#endif
