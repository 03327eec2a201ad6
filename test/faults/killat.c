/*-------------------------------------------------------------------------
 *
 * killat.c
 *	  Kills the receiver at a chosen step of what it does to its files.
 *
 * Preloaded into a server (LD_PRELOAD), with MULTISITE_KILL_AT naming a file.
 * While that file exists, calls of the receiver that change something below
 * pg_wal are written down in the file's name + ".log"; a write that goes on
 * with a large one before is one with that.  The file has a line such as
 *
 *		2 write pg_wal/multisite/state
 *
 * and at the second call that begins with these words the process is killed,
 * by SIGKILL: before the call, or after half of it if that is a write of some
 * length.  Writes of no more than eight bytes are called "connect".  (fsync
 * does not count: what is not synced yet outlives a process.)
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define LARGE 65536

static bool armed;				/* the file was there */
static long matches;
static char last[4200];			/* the large write before, and its end */
static off_t last_end;

#define REAL(name) ((__typeof__(name) *) dlsym(RTLD_NEXT, #name))

static bool
is_receiver(void)
{
	char		title[256];
	FILE	   *file = fopen("/proc/self/cmdline", "r");
	size_t		len;

	if (file == NULL)
		return false;
	len = fread(title, 1, sizeof(title) - 1, file);
	title[len] = '\0';
	fclose(file);
	return strstr(title, "multisite receiver") != NULL;
}

/* True if this is the call at which to die; len and offset are a write's. */
static bool
is_chosen(const char *call, const char *path, size_t len, off_t offset)
{
	const char *control = getenv("MULTISITE_KILL_AT");
	char		what[4200];
	char		log_name[4200];
	char		chosen[4200] = "";
	char	   *words;
	long		occurrence;
	FILE	   *file;

	if (control == NULL || strstr(path, "pg_wal") == NULL || !is_receiver())
		return false;
	file = fopen(control, "r");
	if (file == NULL)
	{
		armed = false;
		return false;
	}
	if (fgets(chosen, sizeof(chosen), file) == NULL)
		chosen[0] = '\0';
	fclose(file);
	chosen[strcspn(chosen, "\n")] = '\0';

	snprintf(what, sizeof(what), "%s %s", call, strstr(path, "pg_wal"));
	if (!armed)
	{
		armed = true;
		matches = 0;
		last[0] = '\0';
	}
	if (offset == last_end && strcmp(what, last) == 0)
	{
		last_end += len;
		return false;
	}
	strcpy(last, len >= LARGE ? what : "");
	last_end = offset + len;
	snprintf(log_name, sizeof(log_name), "%s.log", control);
	file = fopen(log_name, "a");
	if (file)
	{
		fprintf(file, "%s\n", what);
		fclose(file);
	}
	occurrence = strtol(chosen, &words, 10);
	if (*words != ' ' || strncmp(what, words + 1, strlen(words + 1)) != 0)
		return false;
	return ++matches == occurrence;
}

static bool
is_chosen_fd(const char *call, int fd, size_t len, off_t offset)
{
	char		name[64];
	char		path[4096];
	ssize_t		path_len;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	path_len = readlink(name, path, sizeof(path) - 1);
	if (path_len < 0)
		return false;
	path[path_len] = '\0';
	return is_chosen(call, path, len, offset);
}

static void
die(void)
{
	kill(getpid(), SIGKILL);
	pause();
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	if (is_chosen_fd(len > 8 ? "write" : "connect", fd, len, offset))
	{
		if (len > 512)
			(void) !REAL(pwrite)(fd, data, len / 2, offset);
		die();
	}
	return REAL(pwrite)(fd, data, len, offset);
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
	return pwrite(fd, data, len, offset);
}

int
ftruncate(int fd, off_t len)
{
	if (is_chosen_fd("truncate", fd, 0, -1))
		die();
	return REAL(ftruncate)(fd, len);
}

int
ftruncate64(int fd, off64_t len)
{
	return ftruncate(fd, len);
}

int
rename(const char *from, const char *to)
{
	/* by its old name, if that is ours, since the new one says less */
	if (is_chosen("rename", from, 0, -1))
		die();
	return REAL(rename)(from, to);
}

int
unlink(const char *path)
{
	if (is_chosen("unlink", path, 0, -1))
		die();
	return REAL(unlink)(path);
}
