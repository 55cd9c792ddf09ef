/* Whether the functions of cross/lean.c do what the system's do. Built by tests/lean.rs; the exit status is 0 if they do. */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define pthread_setname_np lean_setname
#define qsort lean_qsort
#define strstr lean_strstr
#define strtoul lean_strtoul
#define strtoull lean_strtoull
#define mbstowcs lean_mbstowcs
#include "../../cross/lean.c"
#undef pthread_setname_np
#undef qsort
#undef strstr
#undef strtoul
#undef strtoull
#undef mbstowcs

extern int pthread_getname_np(pthread_t, char *, size_t);

static int failed;

#define CHECK(what, ...) \
	do { \
		if (!(what)) { \
			printf("line %d: %s: ", __LINE__, #what); \
			printf(__VA_ARGS__); \
			printf("\n"); \
			failed = 1; \
		} \
	} while (0)

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, 1);
}

static void numbers(void)
{
	static const char *texts[] = {"", "0", "7", "08", "10.1", "007", "0x", "0x1f", "0xg", "  42 ", "\t-1", "+5", "-", "--1",
		"4294967295", "4294967296", "18446744073709551615", "18446744073709551616", "-18446744073709551615",
		"99999999999999999999999999", "-99999999999999999999999999", "zz", "fe80", "1_", "\xff", "0b1"};
	static const int bases[] = {0, 8, 10, 16, 36};
	for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
		for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
			const char *text = texts[t];
			char *end, *lean_end;
			errno = 0;
			unsigned long want = strtoul(text, &end, bases[b]);
			int error = errno;
			errno = 0;
			unsigned long got = lean_strtoul(text, &lean_end, bases[b]);
			CHECK(got == want && lean_end == end && errno == error, "%s in base %d: %lu", text, bases[b], got);
			CHECK(lean_strtoull(text, 0, bases[b]) == strtoull(text, 0, bases[b]), "%s in base %d", text, bases[b]);
		}
	}
	CHECK(number("4294967295", 0, 10, 0xffffffff) == 0xffffffff, "where a long has 4 bytes");
	errno = 0;
	CHECK(number("4294967296", 0, 10, 0xffffffff) == 0xffffffff && errno == ERANGE, "where a long has 4 bytes");
}

static void texts(void)
{
	static const char *texts[] = {"", "a", "aa", "ab", "aab", "abab", "options timeout:3", "timeout:", "timeout"};
	size_t count = sizeof texts / sizeof *texts;
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < count; j++) {
			const char *want = strstr(texts[i], texts[j]), *got = lean_strstr(texts[i], texts[j]);
			CHECK(got == want, "%s in %s", texts[j], texts[i]);
		}
		CHECK(lean_mbstowcs(0, texts[i], 0) == mbstowcs(0, texts[i], 0), "%s", texts[i]);
		wchar_t want[4] = {9, 9, 9, 9}, got[4] = {9, 9, 9, 9};
		CHECK(lean_mbstowcs(got, texts[i], 3) == mbstowcs(want, texts[i], 3) && !memcmp(got, want, sizeof got), "%s",
			texts[i]);
	}
}

/* Few kinds of bytes, so that many are equal: the order of those is free, so only the bytes that are compared are looked at. */
static void sorting(void)
{
	unsigned random = 1;
	for (size_t width = 1; width <= 28; width += 9) {
		for (size_t count = 0; count <= 48; count++) {
			unsigned char want[48 * 28], got[48 * 28];
			for (size_t i = 0; i < count * width; i++) {
				random = random * 1664525 + 1013904223;
				want[i] = got[i] = random >> 24 & 15;
			}
			qsort(want, count, width, compare);
			lean_qsort(got, count, width, compare);
			for (size_t i = 0; i < count; i++) {
				CHECK(got[i * width] == want[i * width], "%zu of %zu bytes", count, width);
			}
		}
	}
}

static void names(void)
{
	char name[16] = "";
	CHECK(lean_setname(pthread_self(), "worker-0") == 0, "%d", errno);
	CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0 && !strcmp(name, "worker-0"), "%s", name);
}

int main(void)
{
	numbers();
	texts();
	sorting();
	names();
	return failed;
}
