/*-------------------------------------------------------------------------
 *
 * killat.c
 *	  Kills the receiver at a chosen step of what it does to its files.
 *
 * Preloaded into a server (LD_PRELOAD), with MULTISITE_KILL_AT naming a file.
 * While that file exists, calls of the receiver that change something below
 * pg_wal are numbered, from 1, and written down in the file's name + ".log";
 * a write that goes on with the one before, in the same file, is one with it.
 * At the call whose number is in the file the process is killed, by SIGKILL:
 * before the call, or after half of it if that is a write of some length.
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

static long number;
static char last[4200];

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

/* True if this is the call at which to die. */
static bool
is_chosen(const char *call, const char *path)
{
	const char *control = getenv("MULTISITE_KILL_AT");
	char		what[4200];
	char		log_name[4200];
	long		chosen = 0;
	FILE	   *file;

	if (control == NULL || strstr(path, "pg_wal") == NULL || !is_receiver())
		return false;
	file = fopen(control, "r");
	if (file == NULL)
	{
		number = 0;
		return false;
	}
	if (fscanf(file, "%ld", &chosen) != 1)
		chosen = 0;
	fclose(file);

	snprintf(what, sizeof(what), "%s %s", call, strstr(path, "pg_wal"));
	if (number > 0 && strcmp(call, "write") == 0 && strcmp(what, last) == 0)
		return false;
	strcpy(last, what);
	number++;
	snprintf(log_name, sizeof(log_name), "%s.log", control);
	file = fopen(log_name, "a");
	if (file)
	{
		fprintf(file, "%ld %s\n", number, what);
		fclose(file);
	}
	return number == chosen;
}

static bool
is_chosen_fd(const char *call, int fd)
{
	char		name[64];
	char		path[4096];
	ssize_t		len;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	len = readlink(name, path, sizeof(path) - 1);
	if (len < 0)
		return false;
	path[len] = '\0';
	return is_chosen(call, path);
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
	if (is_chosen_fd("write", fd))
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
fsync(int fd)
{
	if (is_chosen_fd("sync", fd))
		die();
	return REAL(fsync)(fd);
}

int
fdatasync(int fd)
{
	if (is_chosen_fd("sync", fd))
		die();
	return REAL(fdatasync)(fd);
}

int
ftruncate(int fd, off_t len)
{
	if (is_chosen_fd("truncate", fd))
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
	if (is_chosen("rename", from))
		die();
	return REAL(rename)(from, to);
}

int
unlink(const char *path)
{
	if (is_chosen("unlink", path))
		die();
	return REAL(unlink)(path);
}
