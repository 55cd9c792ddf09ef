/*
 * What is asked of libc, in less code than musl has for it; the sizes are those on MIPS. The programs' own code has no need
 * of these: std names its threads, and the others are parts of getaddrinfo. tests/lean.rs compares them with the system's.
 */

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

/*
 * musl can name any thread, for which it writes a file whose path it prints: its printf with floating-point numbers is
 * 16 KB, and nothing else in the programs needs it. std names the thread that asks, and no other.
 */
int pthread_setname_np(pthread_t thread, const char *name)
{
	if (!pthread_equal(thread, pthread_self())) return EINVAL;
	return prctl(PR_SET_NAME, (unsigned long)name, 0UL, 0UL, 0UL) ? errno : 0;
}

/* For the few addresses of a name (musl takes at most 48): each is moved to where it belongs. musl's has 2 KB. */
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

/* For the options of /etc/resolv.conf and the lines of /etc/hosts, which are short. musl's has 1.5 KB. */
char *strstr(const char *text, const char *wanted)
{
	size_t length = strlen(wanted);
	for (;; text++) {
		if (!strncmp(text, wanted, length)) return (char *)text;
		if (!*text) return 0;
	}
}

/* For the numbers in those, and in addresses. musl's reads every kind of number from every kind of stream, in 3 KB. */
static unsigned long long number(const char *text, char **end, int base, unsigned long long most)
{
	const char *at = text + strspn(text, " \t\n\v\f\r");
	int negative = *at == '-', too_large = 0;
	unsigned long long value = 0;
	at += negative || *at == '+';
	if ((base == 0 || base == 16) && at[0] == '0' && (at[1] == 'x' || at[1] == 'X') && isxdigit((unsigned char)at[2])) {
		at += 2;
		base = 16;
	}
	if (base == 0) base = *at == '0' ? 8 : 10;
	const char *first = at;
	for (;; at++) {
		int letter = (unsigned char)*at;
		int digit = isdigit(letter) ? letter - '0' : isalpha(letter) ? tolower(letter) - 'a' + 10 : INT_MAX;
		if (digit >= base) break;
		too_large |= __builtin_mul_overflow(value, (unsigned long long)base, &value);
		too_large |= __builtin_add_overflow(value, (unsigned long long)digit, &value) || value > most;
	}
	if (end) *end = (char *)(at == first ? text : at);
	if (too_large) {
		errno = ERANGE;
		return most;
	}
	return negative ? -value : value;
}

unsigned long strtoul(const char *restrict text, char **restrict end, int base)
{
	return number(text, end, base, ULONG_MAX);
}

unsigned long long strtoull(const char *restrict text, char **restrict end, int base)
{
	return number(text, end, base, ULLONG_MAX);
}

/* Asked only whether a name is text, which in the locale that the programs are in everything is. musl's has 1 KB. */
size_t mbstowcs(wchar_t *restrict wide, const char *restrict text, size_t room)
{
	size_t length = strlen(text), i;
	if (!wide) return length;
	for (i = 0; i < room && i <= length; i++) wide[i] = (unsigned char)text[i];
	return length < room ? length : room;
}
