/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h - the daemon's status as Prometheus' text. */
#ifndef WEFT_TOOLS_METRICS_H
#define WEFT_TOOLS_METRICS_H

#include <jansson.h>
#include <stdio.h>

/* status: weftd's reply to "status". An engine that says nothing has weft_engine_up 0 and no more. */
void metrics_write(FILE *to, const json_t *status);

#endif
