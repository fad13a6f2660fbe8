/* SPDX-License-Identifier: Apache-2.0 */
/* state_file.h - JSON in the state directory: whole or absent, weftd's own to read and write. */
#ifndef WEFT_SUPERVISOR_STATE_FILE_H
#define WEFT_SUPERVISOR_STATE_FILE_H

#include <jansson.h>

#define STATE_NAME_BYTES 48

/* Replace it: written to NAME.new, synced, renamed. 0 or -errno; then the old one stands. */
int state_file_save(int dir_fd, const char *name, const json_t *j);
/* NULL and *why, which is NULL if there is no such file. */
json_t *state_file_load(int dir_fd, const char *name, const char **why);

#endif
