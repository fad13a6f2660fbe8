/* SPDX-License-Identifier: Apache-2.0 */
/* text_files.h - the files of a model's folder that programs need to speak to it in text. */
#ifndef WEFT_ENGINE_TEXT_FILES_H
#define WEFT_ENGINE_TEXT_FILES_H

/*
 * Copy tokenizer.json and the like into the empty memfd (wshm_files.h) and close it. A model without
 * them is served all the same; a file that is there and cannot be copied is left out, with a line in
 * the log.
 */
void text_files_send(const char *dir, int fd);

#endif
