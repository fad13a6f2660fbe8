/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standard.h - descriptors 0, 1 and 2 of a program whose caller has closed them. The next file or
 * socket to be opened would get such a number, and what is meant for the terminal would be written
 * into it. So each is opened on /dev/null, the wrong way round: using it fails as it would have.
 */
#ifndef WEFT_COMMON_STANDARD_H
#define WEFT_COMMON_STANDARD_H

#include <fcntl.h>
#include <unistd.h>

/* First of all in main(). */
static inline void standard_open(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
			_exit(1);
}

#endif
