/* SPDX-License-Identifier: Apache-2.0 */
/* chat_model.c - see chat_model.h. */
#include "tests/e2e/chat_model.h"
#include "tests/tap.h"

#include <unistd.h>

static const char *env_or(const char *name, const char *otherwise)
{
	const char *v = getenv(name);

	return v && *v ? v : otherwise;
}

const char *chat_data(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/tests/data/chat/%s", env_or("WEFT_SRC", "."), name);
	return path;
}

void chat_model_make(const char *dir)
{
	char command[1400];

	if (access(chat_data("tokenizer.json"), R_OK))
		skip_all("no fixture of a chat model");
	snprintf(command, sizeof(command),
		 "'%s/weft' model make --quiet '%s' > /dev/null && cp '%s' '%s'",
		 env_or("WEFT_BUILD", "build"), dir, chat_data("tokenizer.json"), dir);
	if (system(command))
		bail_out("weft model make");
	snprintf(command, sizeof(command), "cp '%s' '%s'", chat_data("tokenizer_config.json"), dir);
	if (system(command))
		bail_out("cannot copy the tokenizer");
}
