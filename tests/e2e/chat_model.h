/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat_model.h - the folder of a tiny model with random weights that has a tokenizer and a chat
 * template (tests/data/chat), made with `weft model make`.
 */
#ifndef WEFT_TESTS_CHAT_MODEL_H
#define WEFT_TESTS_CHAT_MODEL_H

/* Make it, in a directory that does not exist yet. Ends the program (skip) where files are missing. */
void chat_model_make(const char *dir);
/* A file of tests/data/chat; the path is the callee's, until the next call. */
const char *chat_data(const char *name);

#endif
