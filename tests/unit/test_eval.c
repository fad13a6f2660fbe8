/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_eval.c - what weft eval counts: differences between passes and right answers. A daemon that
 * is right shows no difference, so these are made by hand.
 */
#include "tests/tap.h"
#include "tools/eval.h"

#include <string.h>

static uint32_t abc[] = {7, 8, 9}, abd[] = {7, 8, 10}, zbc[] = {1, 8, 9};

static void test_different(void)
{
	struct eval_case cases[4] = {0};
	struct eval e = {.cases = cases, .n_cases = 4};

	for (int i = 0; i < 3; i++)
		for (int p = 0; p < EVAL_PASSES; p++)
			cases[i].answers[p] = (struct eval_answer){abc, 3};
	ok(eval_count_different(&e, EVAL_COLD) == 0 && eval_count_different(&e, EVAL_WARM) == 0,
	   "the same answers, an empty one among them");
	cases[0].answers[EVAL_COLD].ids = abd;
	ok(eval_count_different(&e, EVAL_COLD) == 1, "another last token");
	ok(eval_count_different(&e, EVAL_WARM) == 0, "in that pass only");
	cases[1].answers[EVAL_COLD].ids = zbc;
	ok(eval_count_different(&e, EVAL_COLD) == 2, "another first token");
	cases[2].answers[EVAL_COLD].n = 2;
	ok(eval_count_different(&e, EVAL_COLD) == 3, "a shorter answer");
	cases[3].answers[EVAL_COLD] = (struct eval_answer){abc, 1};
	ok(eval_count_different(&e, EVAL_COLD) == 4, "an answer where there was none");
}

static void test_accuracy(void)
{
	struct eval_case cases[5] = {
		{.set = 0, .arm = 0, .right = 1}, {.set = 0, .arm = 0},
		{.set = 0, .arm = 1, .right = 1}, {.set = 1, .arm = 1},
		{.set = 0, .arm = 0, .right = 1},
	};
	struct eval e = {.cases = cases, .n_cases = 5};

	ok(eval_accuracy(&e, 0, 0) > 66.6 && eval_accuracy(&e, 0, 0) < 66.7, "two of three");
	ok(eval_accuracy(&e, 1, 0) == 100 && eval_accuracy(&e, 1, 1) == 0,
	   "sets and arms are counted apart");
	ok(eval_accuracy(&e, 0, 1) == 0, "of nothing, nothing is right");
}

static void test_names(void)
{
	struct eval_set sets[2] = {{.task = (char[]){"topic"}}, {.task = (char[]){"urgency"}}};
	struct eval e = {.sets = sets, .n_sets = 2, .arms = {NULL, "a-*-b", "one"}, .n_arms = 3};
	char name[EVAL_MAX_NAME];

	ok(!eval_adapter(&e, 0, 0, name), "the base model has no name");
	is_str(eval_adapter(&e, 1, 1, name), "a-urgency-b", "the task stands for the star");
	is_str(eval_adapter(&e, 2, 0, name), "one", "a name without a star");
}

int main(void)
{
	test_different();
	test_accuracy();
	test_names();
	return tap_done();
}
