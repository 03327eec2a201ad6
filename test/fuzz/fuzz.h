/*-------------------------------------------------------------------------
 *
 * fuzz.h
 *	  What the fuzz targets share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_H
#define FUZZ_H

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* A finding, for the fuzzer as for the plain driver. */
static inline void
must(bool condition, const char *what)
{
	if (!condition)
	{
		fprintf(stderr, "fuzz: %s\n", what);
		abort();
	}
}

#endif
