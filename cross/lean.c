/*
 * What is asked of libc, in less code than musl has for it. The numbers are those of MIPS.
 */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>

/*
 * musl can name any thread, for which it writes a file whose path it prints: its printf with floating-point numbers is
 * 16 KB on MIPS, and nothing else in the programs needs it. std names the thread that asks, and no other.
 */
int pthread_setname_np(pthread_t thread, const char *name)
{
	if (!pthread_equal(thread, pthread_self())) return EINVAL;
	return prctl(PR_SET_NAME, (unsigned long)name, 0UL, 0UL, 0UL) ? errno : 0;
}

/*
 * musl sorts in little memory and without recursion, in 2 KB. Nobody here sorts anything by it but getaddrinfo, the few
 * addresses (48 at most) of a name: each is moved to where it belongs.
 */
void qsort(void *base, size_t count, size_t width, int (*compare)(const void *, const void *))
{
	char *first = base;
	for (size_t sorted = 1; sorted < count; sorted++) {
		for (char *at = first + sorted * width; at > first && compare(at - width, at) > 0; at -= width) {
			for (size_t i = 0; i < width; i++) {
				char byte = at[i];
				at[i] = at[i - width];
				at[i - width] = byte;
			}
		}
	}
}
