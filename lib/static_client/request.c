/* The request: what to run, and what of this process the build gets as a child of it would. */
#include "client.h"

/* Writes a JSON string in ASCII, behind `before`; a byte that is not UTF-8 becomes a lone surrogate (PEP 383). */
static void put(FILE *line, const char *before, const char *string) {
    fprintf(line, "%s\"", before);
    for (size_t size; *string != '\0'; string += size > 0 ? size : 1) {
        uint32_t code;
        if ((size = character(string, &code)) == 0)
            code = 0xDC00 | (unsigned char)*string;
        if (code >= ' ' && code <= '~')
            fprintf(line, code == '"' || code == '\\' ? "\\%c" : "%c", (int)code);
        else if (code < 0x10000)
            fprintf(line, "\\u%04x", code);
        else
            fprintf(line, "\\u%04x\\u%04x", 0xD800 | (code - 0x10000) >> 10, 0xDC00 | (code & 0x3FF));
    }
    fputs("\"", line);
}

/* Tells whether the build gets stdin: not where it is /dev/null there too, nor a terminal that others have. Who reads a
   terminal from the background is stopped (credentials(7)), but only in the session whose terminal it is; a build,
   which is in another, would take what is typed for the shell. */
static bool is_input(void) {
    struct stat status;
    if (fstat(0, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3))
        return false;
    pid_t owner = isatty(0) ? tcgetpgrp(0) : -1;
    return owner < 0 || owner == getpgrp(); /* a terminal that does not control this process may be read at any time */
}

static int put_descriptors(FILE *line, const char *mode, int descriptors[3]) {
    static const char *const names[] = {"stdin", "stdout", "stderr"};
    struct stat out, err;
    int count = 0;
    for (int fd = 0; fd < 3; fd++)
        if (fd == 0 ? is_input() : mode == NULL ? isatty(fd) : strcmp(mode, "pass") == 0) {
            put(line, count == 0 ? ",\"descriptors\":[" : ",", names[fd]);
            descriptors[count++] = fd;
        }
    fputs(count > 0 ? "]" : "", line);
    bool both_stay = (count == 0 || descriptors[count - 1] == 0) && fstat(1, &out) == 0 && fstat(2, &err) == 0;
    if (both_stay && out.st_dev == err.st_dev && out.st_ino == err.st_ino)
        fputs(",\"merge_output\":true", line);
    return count;
}

/* Niceness and the soft limits that are set: the service keeps what bounds the build more than it does itself. */
static void put_bounds(FILE *line) {
    static const struct {
        int number;
        const char *name;
    } known[] = {{RLIMIT_AS, "as"}, {RLIMIT_CORE, "core"}, {RLIMIT_CPU, "cpu"}, {RLIMIT_DATA, "data"},
                 {RLIMIT_FSIZE, "fsize"}, {RLIMIT_NOFILE, "nofile"}, {RLIMIT_STACK, "stack"}};
    int niceness = getpriority(PRIO_PROCESS, 0);
    struct rlimit limit;
    if (niceness > 0)
        fprintf(line, ",\"niceness\":%d", niceness);
    fputs(",\"limits\":{", line);
    for (size_t i = 0, shown = 0; i < sizeof known / sizeof *known; i++)
        if (getrlimit(known[i].number, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
            fprintf(line, "%s\"%s\":%llu", shown++ > 0 ? "," : "", known[i].name, (unsigned long long)limit.rlim_cur);
    fputs("}", line);
}

/* Returns a path of mountinfo, where blanks and backslashes are three octal digits behind a backslash (proc(5)). */
static char *unescaped(char *path) {
    unsigned code;
    for (char *at = path; (at = strchr(at, '\\')) != NULL; at++)
        if (strspn(at + 1, "01234567") >= 3 && sscanf(at + 1, "%3o", &code) == 1) {
            *at = (char)code;
            memmove(at + 1, at + 4, strlen(at + 4) + 1);
        }
    return path;
}

/* Adds the mount that the descriptor lies in, where it can be told. */
static void put_mount(FILE *line, int fd) {
    char device[64], *entry = NULL, *root, *point, *type, *path = format("/proc/self/fdinfo/%d", fd);
    size_t room = 0;
    int number = -1;
    FILE *file = fopen(path, "re");
    while (file != NULL && number < 0 && getline(&entry, &room, file) > 0)
        sscanf(entry, "mnt_id: %d", &number);
    file = number < 0 ? NULL : fopen("/proc/self/mountinfo", "re");
    while (file != NULL && getline(&entry, &room, file) > 0)
        if (atoi(entry) == number && (type = strstr(entry, " - ")) != NULL &&
            sscanf(entry, "%*d %*d %63s %ms %ms", device, &root, &point) == 3) {
            type[3 + strcspn(type + 3, " \n")] = '\0';
            put(line, ",\"mount\":{\"device\":", device);
            put(line, ",\"file_system\":", type + 3);
            put(line, ",\"point\":", unescaped(point));
            put(line, ",\"root\":", unescaped(root));
            fputs("}", line);
            return;
        }
}

/* Adds where the directory is to this side's kernel: what the service compares its own with, and finds it by. */
static void put_location(FILE *line) {
    struct stat status;
    int fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return;
    fprintf(line, ",\"location\":{\"device\":\"%u:%u\"", major(status.st_dev), minor(status.st_dev));
    fprintf(line, ",\"inode\":\"%llu\"", (unsigned long long)status.st_ino);
    put_mount(line, fd);
    fputs("}", line);
}

/* Returns the request's line; sets which descriptors go along with it, and how many. */
char *request_of(const struct options *options, size_t *length, int descriptors[3], int *count) {
    char *request, *directory = getcwd(NULL, 0);
    if (directory == NULL)
        give_up("build-cli: cannot tell the current directory: %s", strerror(errno));
    mode_t mask = umask(0);
    umask(mask);
    FILE *line = checked(open_memstream(&request, length));
    put(line, "{\"schema_version\":\"1\",\"cwd\":", directory);
    put(line, ",\"command\":", options->command[0]);
    fputs(",\"args\":[", line);
    for (char **word = options->command + 1; *word != NULL; word++)
        put(line, word == options->command + 1 ? "" : ",", *word);
    fputs("]", line);
    if (options->timeout_sec > 0)
        fprintf(line, ",\"timeout_sec\":%ld", options->timeout_sec);
    if (options->request_id != NULL)
        put(line, ",\"request_id\":", options->request_id);
    fputs(",\"env\":{", line);
    for (size_t i = 0; i < options->variables; i++) {
        put(line, i > 0 ? "," : "", options->env[i].name);
        put(line, ":", options->env[i].value);
    }
    const char *beside = options->fallback == NULL ? "" : ",\"beside\"";
    fprintf(line, "},\"umask\":\"%04o\",\"features\":[\"details\",\"stopped\"%s]", (unsigned)mask & 0777, beside);
    *count = put_descriptors(line, options->stdio, descriptors);
    put_bounds(line);
    put_location(line);
    fputs("}\n", line);
    if (fclose(line) != 0)
        checked(NULL);
    if (*length > MAX_REQUEST_BYTES)
        give_up("invalid request: longer than %d bytes", MAX_REQUEST_BYTES);
    return request;
}
