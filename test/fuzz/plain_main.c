/*-------------------------------------------------------------------------
 *
 * plain_main.c
 *	  Drives a fuzz target where there is no libFuzzer: changes inputs of the
 *	  corpus at random, without looking at what they reach.
 *
 *	run_TARGET CORPUS SECONDS SEED
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <time.h>

#include "fuzz.h"

#define MAX_INPUTS	10000
#define MAX_LENGTH	65536

static uint8 *inputs[MAX_INPUTS];
static size_t lengths[MAX_INPUTS];
static int	ninputs;

static void
read_corpus(const char *path)
{
	DIR		   *dir = opendir(path);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL && ninputs < MAX_INPUTS)
	{
		char		name[MAXPGPATH];
		FILE	   *file;

		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_name[0] == '.' || (file = fopen(name, "rb")) == NULL)
			continue;
		inputs[ninputs] = malloc(MAX_LENGTH);
		lengths[ninputs] = fread(inputs[ninputs], 1, MAX_LENGTH, file);
		ninputs++;
		fclose(file);
	}
	if (dir)
		closedir(dir);
}

int
main(int argc, char **argv)
{
	time_t		until;
	long		runs = 0;
	static uint8 input[MAX_LENGTH];

	if (argc != 4)
		return 2;
	read_corpus(argv[1]);
	if (ninputs == 0)
	{
		fprintf(stderr, "no corpus in %s\n", argv[1]);
		return 1;
	}
	srandom(atoi(argv[3]));
	for (int i = 0; i < ninputs; i++)
		(void) LLVMFuzzerTestOneInput(inputs[i], lengths[i]);
	for (until = time(NULL) + atoi(argv[2]); time(NULL) < until; runs++)
	{
		int			which = random() % ninputs;
		size_t		len = lengths[which];

		memcpy(input, inputs[which], len);
		for (int n = random() % 8; n >= 0 && len > 0; n--)
			input[random() % len] = random() % 4 == 0 ? 0xff : random();
		if (random() % 4 == 0)
			len = random() % (len + 1);
		(void) LLVMFuzzerTestOneInput(input, len);
	}
	printf("%ld runs, seed %s\n", runs, argv[3]);
	return 0;
}
