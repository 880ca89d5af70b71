// Runs in a container with CAP_SYS_PTRACE: looks at every process that appears in its PID namespace,
// as early and as often as it can, for a way to the file argv[1] of the host and for rights that it
// does not have itself. Ends when /stop is there.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long long rights(int pid) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    int file = open(path, O_RDONLY);
    ssize_t got = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    text[got > 0 ? got : 0] = 0;
    char *line = strstr(text, "CapPrm:");
    return line ? strtoull(line + 7, NULL, 16) : 0;
}

static int reaches(int pid, const char *what, const char *marker) {
    char path[64], up[4096];
    struct stat found;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
    int dir = open(path, O_PATH | O_DIRECTORY);
    if (dir < 0) return 0;
    snprintf(up, sizeof up, "../../../../../../../..%s", marker);
    if (!fstatat(dir, marker + 1, &found, 0) || !fstatat(dir, up, &found, 0))
        printf("reached the host by %s of %d\n", what, pid);
    close(dir);
    return 1;
}

int main(int count, char **words) {
    int self = getpid(), last = self, seen = 0;
    unsigned long long mine = rights(self);
    if (count < 2) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("looking");
    while (access("/stop", F_OK)) {
        for (int pid = last > self + 3 ? last - 2 : self + 1; pid < last + 8; pid++) {
            if (!reaches(pid, "root", words[1])) continue;
            reaches(pid, "cwd", words[1]);
            if (rights(pid) & ~mine) printf("%d has rights that the container has not\n", pid);
            for (int fd = 0; fd < 40; fd++) {
                char name[16];
                snprintf(name, sizeof name, "fd/%d", fd);
                reaches(pid, name, words[1]);
            }
            if (pid > last) last = pid, seen++;
        }
    }
    printf("saw %d\n", seen);
    return 0;
}
