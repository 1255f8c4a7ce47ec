/* What a process does to the files below one folder, recorded; and faults on demand. Loaded with LD_PRELOAD.
 *
 * In: VIEWMETER_FAULTS_ROOT (the folder, a real path), VIEWMETER_FAULTS_JOURNAL (the file that takes the records, all
 * processes append to it) and VIEWMETER_FAULTS_CONTROL (a page that the test writes; `struct control`). Out: records
 * (`struct record`, then both paths and the data), each written by one append.
 *
 * Order: an operation is recorded after it was done, and a sync is recorded instead of being done. So a sync covers
 * exactly the writes that had returned before it began, whoever made them: never more than a real one would. Names are
 * made, moved and removed one at a time, so that no folder's record comes after that of what another process put in it.
 * Nothing is kept between calls but the addresses: descriptors may be copied, inherited and closed as anybody likes.
 *
 * Not seen: writes through mmap (of the product only SQLite's -shm files and metrics, which no power cut needs to
 * keep), and what is started without the environment. What cannot be recorded is recorded as UNKNOWN, and the reader
 * of the journal refuses it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FAILED, RENAME, UNLINK, MKDIR, RMDIR, PUNCH, UNKNOWN, LINK };

struct record {
  uint32_t magic;
  uint16_t op;
  uint16_t path_bytes;
  uint16_t other_bytes;
  uint16_t unused;
  uint32_t process;
  uint64_t inode;
  uint64_t offset;
  uint64_t data_bytes;
};

struct control {
  volatile int64_t free_bytes;      /* what files may still grow by; < 0: without bound */
  volatile int64_t clock_offset_ns; /* added to the clock of the day */
  volatile int64_t fail_syncs;      /* so many of the next syncs answer EIO */
  volatile int64_t fail_writes;     /* so many of the next writes answer EIO */
  volatile int64_t sync_delay_us;   /* what a sync takes */
  volatile int64_t refused;         /* what was refused so far, for whatever reason */
  volatile int64_t syncs;           /* syncs that were asked for */
  char path[200];                   /* fail_* only where the path contains this */
  volatile int64_t names_held_by;   /* the thread that changes a name; 0: none */
};

static char root[PATH_MAX];
static size_t root_bytes;
static char journal[PATH_MAX];
static struct control *control;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *folder = getenv("VIEWMETER_FAULTS_ROOT"), *file = getenv("VIEWMETER_FAULTS_JOURNAL");
  const char *page = getenv("VIEWMETER_FAULTS_CONTROL");
  real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  if (folder && file) {
    snprintf(root, sizeof root, "%s", folder);
    snprintf(journal, sizeof journal, "%s", file);
    root_bytes = strlen(root);
  }
  if (page) {
    int handle = (int)syscall(SYS_openat, AT_FDCWD, page, O_RDWR | O_CLOEXEC, 0);
    if (handle >= 0) {
      void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
      if (mapped != MAP_FAILED) control = mapped;
      syscall(SYS_close, handle);
    }
  }
}

/* -- records ------------------------------------------------------------------------------------------------- */

static void put(int op, uint64_t inode, uint64_t offset, const char *path, const char *other, const void *data,
                size_t data_bytes) {
  int before = errno;
  struct record head = {0x564d4a31, (uint16_t)op, (uint16_t)(path ? strlen(path) : 0),
                        (uint16_t)(other ? strlen(other) : 0), 0, (uint32_t)getpid(), inode, offset, data_bytes};
  struct iovec parts[4] = {{&head, sizeof head},
                           {(void *)path, head.path_bytes},
                           {(void *)other, head.other_bytes},
                           {(void *)data, data_bytes}};
  size_t all = sizeof head + head.path_bytes + head.other_bytes + data_bytes;
  int handle = (int)syscall(SYS_openat, AT_FDCWD, journal, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (handle < 0 || syscall(SYS_writev, handle, parts, 4) != (ssize_t)all) {
    static const char said[] = "faults: the journal cannot be written; the process ends\n";
    syscall(SYS_write, 2, said, sizeof said - 1);
    abort();
  }
  syscall(SYS_close, handle);
  errno = before;
}

static int inside(const char *path) {
  return root_bytes && strncmp(path, root, root_bytes) == 0 && (path[root_bytes] == '/' || path[root_bytes] == 0);
}

/* The path of an open file below the root, from `root` on; NULL for every other one. */
static const char *path_of(int fd, char *buffer) {
  char link[64];
  if (!root_bytes || fd < 0) return NULL;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t bytes = syscall(SYS_readlink, link, buffer, PATH_MAX - 1);
  if (bytes <= 0) return NULL;
  buffer[bytes] = 0;
  return inside(buffer) ? buffer + root_bytes : NULL;
}

/* The path that an argument names, absolute where it is below the root; NULL where it is elsewhere. */
static const char *named(int folder, const char *path, char *buffer) {
  char base[PATH_MAX];
  if (!root_bytes || !path) return NULL;
  if (path[0] == '/') {
    snprintf(buffer, PATH_MAX, "%s", path);
  } else {
    if (folder == AT_FDCWD) {
      if (syscall(SYS_getcwd, base, sizeof base) < 0) return NULL;
    } else {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
      ssize_t bytes = syscall(SYS_readlink, link, base, sizeof base - 1);
      if (bytes <= 0) return NULL;
      base[bytes] = 0;
    }
    int bytes = snprintf(buffer, PATH_MAX, "%s/%s", base, path);
    if (bytes < 0 || bytes >= PATH_MAX) return NULL;
  }
  return inside(buffer) ? buffer + root_bytes : NULL;
}

static int stat_of(int fd, struct stat *found) { return (int)syscall(SYS_fstat, fd, found); }

/* -- faults -------------------------------------------------------------------------------------------------- */

static int chosen(const char *path) { return !control->path[0] || (path && strstr(path, control->path)); }

static int refuse(volatile int64_t *left, const char *path) {
  if (!control || *left <= 0 || !chosen(path)) return 0;
  if (__sync_fetch_and_sub(left, 1) <= 0) {
    __sync_fetch_and_add(left, 1);
    return 0;
  }
  __sync_fetch_and_add(&control->refused, 1);
  errno = EIO;
  return 1;
}

/* How much of `wanted` bytes of growth there is room for. */
static int64_t grant(int64_t wanted) {
  if (!control || wanted <= 0) return wanted;
  for (;;) {
    int64_t there = control->free_bytes;
    if (there < 0) return wanted;
    int64_t given = wanted < there ? wanted : there;
    if (__sync_bool_compare_and_swap(&control->free_bytes, there, there - given)) {
      if (given < wanted) __sync_fetch_and_add(&control->refused, 1);
      return given;
    }
  }
}

/* -- writes -------------------------------------------------------------------------------------------------- */

static ssize_t write_at(int fd, const void *data, size_t bytes, off_t offset, int positioned) {
  char buffer[PATH_MAX];
  struct stat now;
  const char *path = path_of(fd, buffer);
  if (!path || stat_of(fd, &now) != 0 || !S_ISREG(now.st_mode))
    return positioned ? syscall(SYS_pwrite64, fd, data, bytes, offset) : syscall(SYS_write, fd, data, bytes);
  if (control && refuse(&control->fail_writes, path)) return -1;
  int appends = (int)syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND;
  off_t from = positioned ? offset : appends ? now.st_size : (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
  int64_t growth = (int64_t)from + (int64_t)bytes - (int64_t)now.st_size;
  int64_t given = grant(growth);
  if (growth > 0 && given < growth) {
    if ((int64_t)bytes - (growth - given) <= 0) {
      errno = ENOSPC;
      return -1;
    }
    bytes -= (size_t)(growth - given); /* a short write, as a disk that gets full answers */
  }
  ssize_t done = positioned ? syscall(SYS_pwrite64, fd, data, bytes, offset) : syscall(SYS_write, fd, data, bytes);
  if (done > 0) put(WRITE, now.st_ino, (uint64_t)from, NULL, NULL, data, (size_t)done);
  return done;
}

ssize_t write(int fd, const void *data, size_t bytes) { return write_at(fd, data, bytes, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return write_at(fd, data, bytes, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return write_at(fd, data, bytes, offset, 1); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  char buffer[PATH_MAX];
  if (!path_of(fd, buffer)) return syscall(SYS_writev, fd, parts, count);
  ssize_t all = 0;
  for (int i = 0; i < count; i++) {
    ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
    if (done < 0) return all ? all : -1;
    all += done;
    if ((size_t)done < parts[i].iov_len) break;
  }
  return all;
}

static int cut_to(int fd, off_t bytes) {
  char buffer[PATH_MAX];
  struct stat now;
  const char *path = path_of(fd, buffer);
  if (!path || stat_of(fd, &now) != 0) return (int)syscall(SYS_ftruncate, fd, bytes);
  int done = (int)syscall(SYS_ftruncate, fd, bytes); /* a hole takes no room */
  if (done == 0) put(TRUNCATE, now.st_ino, (uint64_t)bytes, NULL, NULL, NULL, 0);
  return done;
}

int ftruncate(int fd, off_t bytes) { return cut_to(fd, bytes); }
int ftruncate64(int fd, off_t bytes) { return cut_to(fd, bytes); }

static int allocate(int fd, int mode, off_t offset, off_t bytes) {
  char buffer[PATH_MAX];
  struct stat now;
  const char *path = path_of(fd, buffer);
  if (path && stat_of(fd, &now) == 0) {
    int64_t growth = (mode & FALLOC_FL_KEEP_SIZE) ? 0 : (int64_t)offset + bytes - now.st_size;
    if (growth > 0 && grant(growth) < growth) {
      errno = ENOSPC;
      return -1;
    }
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
    if (done != 0) return done;
    if (mode & FALLOC_FL_PUNCH_HOLE) {
      put(PUNCH, now.st_ino, (uint64_t)offset, NULL, NULL, &bytes, sizeof bytes);
    } else if (mode == 0) {
      if (growth > 0) put(TRUNCATE, now.st_ino, (uint64_t)(offset + bytes), NULL, NULL, NULL, 0);
    } else if (mode != FALLOC_FL_KEEP_SIZE) {
      put(UNKNOWN, now.st_ino, 0, path, "fallocate", NULL, 0);
    }
    return done;
  }
  return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) { return allocate(fd, mode, offset, bytes); }
int fallocate64(int fd, int mode, off_t offset, off_t bytes) { return allocate(fd, mode, offset, bytes); }
int posix_fallocate(int fd, off_t offset, off_t bytes) { return allocate(fd, 0, offset, bytes) ? errno : 0; }
int posix_fallocate64(int fd, off_t offset, off_t bytes) { return allocate(fd, 0, offset, bytes) ? errno : 0; }

ssize_t sendfile(int out, int in, off_t *offset, size_t bytes) {
  char buffer[PATH_MAX];
  const char *path = path_of(out, buffer);
  if (path) { /* callers fall back on read and write */
    errno = EINVAL;
    return -1;
  }
  return syscall(SYS_sendfile, out, in, offset, bytes);
}
ssize_t sendfile64(int out, int in, off_t *offset, size_t bytes) { return sendfile(out, in, offset, bytes); }

ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t bytes, unsigned flags) {
  char buffer[PATH_MAX];
  if (path_of(out, buffer)) {
    errno = EXDEV;
    return -1;
  }
  return syscall(SYS_copy_file_range, in, in_at, out, out_at, bytes, flags);
}

/* -- syncs --------------------------------------------------------------------------------------------------- */

static int sync_file(int fd, int number) {
  char buffer[PATH_MAX];
  struct stat now;
  const char *path = path_of(fd, buffer);
  if (!path || stat_of(fd, &now) != 0) return (int)syscall(number, fd);
  if (control) {
    __sync_fetch_and_add(&control->syncs, 1);
    if (control->sync_delay_us > 0) {
      struct timespec pause = {control->sync_delay_us / 1000000, (control->sync_delay_us % 1000000) * 1000};
      syscall(SYS_nanosleep, &pause, NULL);
    }
    if (refuse(&control->fail_syncs, path)) {
      put(SYNC_FAILED, now.st_ino, 0, path, NULL, NULL, 0);
      return -1;
    }
  }
  put(SYNC, now.st_ino, 0, path, NULL, NULL, 0);
  return 0;
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }
int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags) {
  return (int)syscall(SYS_sync_file_range, fd, offset, bytes, flags); /* promises nothing */
}

/* -- names --------------------------------------------------------------------------------------------------- */

/* Begin to change a name. Who holds them for a second was killed, and holds nothing. */
static void hold_names(void) {
  int before = errno;
  int64_t me = syscall(SYS_gettid);
  for (int waits = 0; control && !__sync_bool_compare_and_swap(&control->names_held_by, 0, me); waits++) {
    struct timespec pause = {0, 100000};
    if (waits < 10000) syscall(SYS_nanosleep, &pause, NULL);
    else control->names_held_by = 0;
  }
  errno = before;
}

/* End it: what was done is recorded. */
static void let_names_go(void) {
  if (control) __sync_bool_compare_and_swap(&control->names_held_by, (int64_t)syscall(SYS_gettid), 0);
}

static int open_at(int folder, const char *path, int flags, mode_t mode) {
  char buffer[PATH_MAX];
  const char *name = (flags & (O_CREAT | O_TRUNC)) && !(flags & O_PATH) ? named(folder, path, buffer) : NULL;
  if (!name || (flags & O_TMPFILE) == O_TMPFILE) return (int)syscall(SYS_openat, folder, path, flags, mode);
  struct stat before;
  int new = syscall(SYS_newfstatat, folder, path, &before, 0) != 0;
  if (new && grant(1) < 1) {
    errno = ENOSPC;
    return -1;
  }
  hold_names();
  int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
  struct stat now;
  if (fd >= 0 && stat_of(fd, &now) == 0 && S_ISREG(now.st_mode)) {
    if (new) put(CREATE, now.st_ino, 0, name, NULL, NULL, 0);
    else if ((flags & O_TRUNC) && before.st_size) put(TRUNCATE, now.st_ino, 0, NULL, NULL, NULL, 0);
  }
  let_names_go();
  return fd;
}

#define MODE_OF(flags)                             \
  mode_t mode = 0;                                 \
  if ((flags) & (O_CREAT | __O_TMPFILE)) {         \
    va_list rest;                                  \
    va_start(rest, flags);                         \
    mode = (mode_t)va_arg(rest, unsigned);         \
    va_end(rest);                                  \
  }

int open(const char *path, int flags, ...) { MODE_OF(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE_OF(flags) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE_OF(flags) return open_at(folder, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static int make_folder(int folder, const char *path, mode_t mode) {
  char buffer[PATH_MAX];
  const char *name = named(folder, path, buffer);
  if (name && grant(1) < 1) {
    errno = ENOSPC;
    return -1;
  }
  hold_names();
  int done = (int)syscall(SYS_mkdirat, folder, path, mode);
  struct stat now;
  if (done == 0 && name && syscall(SYS_newfstatat, folder, path, &now, 0) == 0)
    put(MKDIR, now.st_ino, 0, name, NULL, NULL, 0);
  let_names_go();
  return done;
}

int mkdir(const char *path, mode_t mode) { return make_folder(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return make_folder(folder, path, mode); }

static int remove_name(int folder, const char *path, int flags) {
  char buffer[PATH_MAX];
  const char *name = named(folder, path, buffer);
  hold_names();
  int done = (int)syscall(SYS_unlinkat, folder, path, flags);
  if (done == 0 && name) put(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, name, NULL, NULL, 0);
  let_names_go();
  return done;
}

int unlink(const char *path) { return remove_name(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return remove_name(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
  struct stat found;
  int folder = syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(found.st_mode);
  return remove_name(AT_FDCWD, path, folder ? AT_REMOVEDIR : 0);
}
int unlinkat(int folder, const char *path, int flags) { return remove_name(folder, path, flags); }

static int move(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  char one[PATH_MAX], two[PATH_MAX];
  const char *name = named(from_folder, from, one), *other = named(to_folder, to, two);
  hold_names();
  int done = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  if (done == 0 && (name || other)) {
    if (name && other && !(flags & RENAME_EXCHANGE)) put(RENAME, 0, 0, name, other, NULL, 0);
    else put(UNKNOWN, 0, 0, name ? name : other, "rename across the root", NULL, 0);
  }
  let_names_go();
  return done;
}

int rename(const char *from, const char *to) { return move(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return move(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return move(a, from, b, to, flags); }

static int second_name(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  char one[PATH_MAX], two[PATH_MAX];
  const char *name = named(from_folder, from, one), *other = named(to_folder, to, two);
  hold_names();
  int done = (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  if (done == 0 && other) put(name ? LINK : UNKNOWN, 0, 0, name ? name : other, name ? other : "link", NULL, 0);
  let_names_go();
  return done;
}

int link(const char *from, const char *to) { return second_name(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return second_name(a, from, b, to, flags); }

/* -- the clock of the day ------------------------------------------------------------------------------------ */

int clock_gettime(clockid_t clock, struct timespec *now) {
  int done = real_clock_gettime ? real_clock_gettime(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
  if (done == 0 && control && control->clock_offset_ns && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t all = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + control->clock_offset_ns;
    now->tv_sec = all / 1000000000;
    now->tv_nsec = all % 1000000000;
  }
  return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec found;
  (void)zone;
  {
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
  }
  return 0;
}

time_t time(time_t *out) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (out) *out = found.tv_sec;
  return found.tv_sec;
}
