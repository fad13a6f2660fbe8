/* SPDX-License-Identifier: Apache-2.0 */
/* config_value.c - the texts of single values: numbers, sizes, lists of users and groups. */
#include "daemon/supervisor/config.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

/* Digits only: strtoull would take signs, blanks and other bases. */
static int digits(const char **text, uint64_t *ret)
{
	const char *p = *text;
	uint64_t v = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return -EINVAL;
	*text = p;
	*ret = v;
	return 0;
}

int config_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v;

	if (digits(&text, &v) || *text || v < min || v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

int config_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	uint64_t v, factor = 1;

	if (digits(&text, &v))
		return -EINVAL;
	if (*text) {
		const char *s = strchr(suffixes, *text);

		if (!s || text[1])
			return -EINVAL;
		factor = UINT64_C(1) << (10 * (s - suffixes + 1));
	}
	if (__builtin_mul_overflow(v, factor, &v) || v < min || v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

int config_i32(const char *text, int32_t limit, int32_t *ret)
{
	bool negative = *text == '-';
	uint64_t v;

	if (config_u64(negative || *text == '+' ? text + 1 : text, 0, (uint64_t)limit, &v))
		return -EINVAL;
	*ret = negative ? -(int32_t)v : (int32_t)v;
	return 0;
}

bool config_name_ok(const char *s)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-:/";

	return *s && strlen(s) < WCTL_NAME_BYTES && s[strspn(s, allowed)] == 0;
}

static const char *const missing_names[] = {"error", "base", "append"};

int config_on_missing(const char *text, uint32_t *ret)
{
	for (uint32_t i = WSHM_MISSING_ERROR; i <= WSHM_MISSING_APPEND; i++)
		if (!strcmp(text, missing_names[i])) {
			*ret = i;
			return 0;
		}
	return -EINVAL;
}

const char *config_on_missing_name(uint32_t on_missing)
{
	return on_missing <= WSHM_MISSING_APPEND ? missing_names[on_missing] : "?";
}

static int name_to_id(const char *name, bool groups, uint32_t *ret)
{
	if (groups) {
		struct group *g = getgrnam(name);

		if (!g)
			return -ENOENT;
		*ret = g->gr_gid;
	} else {
		struct passwd *p = getpwnam(name);

		if (!p)
			return -ENOENT;
		*ret = p->pw_uid;
	}
	return 0;
}

/* ID, ID-ID or a name. The last number is (uid_t)-1, which is nobody's. */
static int one_range(char *item, bool groups, struct config_range *ret)
{
	const char *p = item;
	uint64_t first, last;
	int err;

	if (*item < '0' || *item > '9') {
		if (!*item)
			return -EINVAL;
		err = name_to_id(item, groups, &ret->first);
		ret->last = ret->first;
		return err;
	}
	if (digits(&p, &first))
		return -EINVAL;
	last = first;
	if (*p == '-') {
		p++;
		if (digits(&p, &last))
			return -EINVAL;
	}
	if (*p || first > last || last >= UINT32_MAX)
		return -EINVAL;
	*ret = (struct config_range){(uint32_t)first, (uint32_t)last};
	return 0;
}

static char *trim(char *s)
{
	size_t n;

	s += strspn(s, " \t");
	n = strlen(s);
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		s[--n] = 0;
	return s;
}

int config_ranges(const char *text, bool groups, struct config_ranges *ret)
{
	struct config_ranges out = {0};
	char copy[CONFIG_TEXT_BYTES], *rest = copy, *item;

	if (strlen(text) >= sizeof(copy))
		return -E2BIG;
	strcpy(copy, text);
	while ((item = strsep(&rest, ","))) {
		int err;

		if (out.n == CONFIG_MAX_RANGES)
			return -E2BIG;
		err = one_range(trim(item), groups, &out.range[out.n]);
		if (err)
			return err;
		out.n++;
	}
	*ret = out;
	return 0;
}
