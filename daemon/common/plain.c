/* SPDX-License-Identifier: Apache-2.0 */
/* plain.c - see plain.h. A terminal obeys the control characters of what it is shown, C1 included. */
#include "daemon/common/plain.h"

#include <stdint.h>

/* The bytes of the character that begins here, 0 if none does. */
static size_t character(const unsigned char *s, size_t n, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t bytes = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	uint32_t c = bytes == 1 ? s[0] : s[0] & (0x7fu >> bytes);

	if (!bytes || bytes > n || s[0] >= 0xf8)
		return 0;
	for (size_t i = 1; i < bytes; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[bytes] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*ret = c;
	return bytes;
}

void plain_text(char *s, size_t bytes)
{
	for (size_t i = 0, n; i < bytes; i += n ? n : 1) {
		uint32_t c = 0;

		n = character((unsigned char *)s + i, bytes - i, &c);
		if (n && c >= 0x20 && (c < 0x7f || c >= 0xa0))
			continue;
		for (size_t k = 0; k < (n ? n : 1); k++)
			s[i + k] = '?';
	}
}
