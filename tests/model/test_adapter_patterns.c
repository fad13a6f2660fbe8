/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapter_patterns.c - patterns match what Python's re matches, or are not supported.
 *
 * tests/oracle/make_patterns.py made the list: written and random patterns, and for each name
 * whether re matches it as a whole, and after a dot, as peft asks.
 */
#include "tests/model/adapted.h"
#include "tests/tap.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

static uint32_t wrong, matches, refused;

static void check(const char *pattern, json_t *names, const char *want, bool suffix)
{
	json_t *name;
	size_t i;

	json_array_foreach(names, i, name)
	{
		uint64_t budget = 1000000;
		int got = adapter_pattern_match(pattern, json_string_value(name), suffix, &budget);

		matches += got == 1;
		if (got == want[i] - '0')
			continue;
		wrong++;
		diag("\"%s\" and \"%s\", %s: %d", pattern, json_string_value(name),
		     suffix ? "suffix" : "whole", got);
	}
}

static void test_all(json_t *root)
{
	json_t *names = json_object_get(root, "names"), *row;
	size_t i;

	json_array_foreach(json_object_get(root, "patterns"), i, row)
	{
		const char *pattern = json_string_value(json_array_get(row, 0));
		const char *why = adapter_pattern_check(pattern);

		if (why) {
			refused++;
			diag("\"%s\": %s", pattern, why);
			continue;
		}
		check(pattern, names, json_string_value(json_array_get(row, 1)), false);
		check(pattern, names, json_string_value(json_array_get(row, 2)), true);
	}
	is_int(wrong, 0, "%zu patterns match as in Python", i);
	ok(matches > 1000, "%u matches among them", matches);
	ok(refused <= 2, "%u not supported", refused);
}

static void test_budget(void)
{
	uint64_t budget = 50;

	is_int(adapter_pattern_match("(((a*)*b*)*c*)*d", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true,
				     &budget),
	       -E2BIG, "more work than there is a budget for");
	is_int((long long)budget, 0, "which is used up");
}

int main(void)
{
	const char *src = getenv("WEFT_SRC");
	char path[PATH_MAX];
	json_t *root;

	snprintf(path, sizeof(path), "%s/tests/data/adapters/patterns.json", src ? src : ".");
	root = json_load_file(path, 0, NULL);
	if (!root)
		bail_out(path);
	test_all(root);
	test_budget();
	json_decref(root);
	return tap_done();
}
