/* Finds and connects to the service, and says in one line why not. */
#include "client.h"

enum { MAX_FD_DIGITS = 7 };

/* Returns what strerror(3) says, in the same words with every library. */
static const char *reason(int error) {
    return error == ENAMETOOLONG ? "AF_UNIX path too long"
           : error == ENOTCONN   ? "Transport endpoint is not connected"
           : error == ENOTSOCK   ? "Socket operation on non-socket"
                                 : strerror(error);
}

/* What opens the sandbox, a filter of system calls (seccomp(2)), of the agent that is running, by its variables. */
static char *sandbox_hint(void) {
    static const struct {
        const char *name, *opens, *variables[MAX_AGENT_VARIABLES + 1];
    } agents[] = AGENTS;
    for (size_t i = 0; i < sizeof agents / sizeof *agents; i++)
        for (const char *const *name = agents[i].variables; *name != NULL; name++)
            if (variable(*name) != NULL)
                return format("; the sandbox of %s forbids it: %s opens it", agents[i].name, agents[i].opens);
    return "; a sandbox forbids it: that of an agent? build-ctl agents tells what opens it";
}

/* Names the group that a user of the host is not in, from the file alone: NSS is not for a static program. */
static char *group_hint(const char *path) {
    struct stat status;
    char entry[1024], name[sizeof entry];
    unsigned gid;
    FILE *groups = stat(path, &status) == 0 ? fopen("/etc/group", "re") : NULL;
    while (groups != NULL && fgets(entry, sizeof entry, groups) != NULL)
        if (sscanf(entry, "%[^:]:%*[^:]:%u", name, &gid) == 2 && gid == status.st_gid)
            return format("; you are not in its group %s: build-ctl doctor tells more", name);
    return "; build-ctl doctor tells more";
}

static char *refusal_of(const char *path, int error) {
    bool contained = access("/run/.containerenv", F_OK) == 0 || access("/.dockerenv", F_OK) == 0 || getenv("container");
    const char *hint = error == EPERM    ? sandbox_hint() /* the modes of files give EACCES */
                       : error != EACCES ? ""
                       : contained       ? "; in a container, --group-add keep-groups is needed"
                                         : group_hint(path);
    return format("cannot connect to build-service: %s (%s%s)", reason(error), path, hint);
}

/* Returns a connected descriptor, or the negative errno. */
static int connected(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    return connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? fd : -errno;
}

/* Returns a descriptor of the socket that was inherited, which must be connected to somebody who listens, or -1. */
static int inherited(const char *number, char **refusal) {
    struct sockaddr_un address;
    socklen_t size = sizeof(int), room = sizeof address;
    char byte;
    *refusal = "BUILD_SERVICE_FD must be the number of a descriptor";
    if (number[strspn(number, "0123456789")] != '\0' || strlen(number) > MAX_FD_DIGITS)
        return -1;
    int domain = AF_UNIX, type = SOCK_STREAM, fd = fcntl(atoi(number), F_DUPFD_CLOEXEC, 3);
    bool is_socket = fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
                     getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
                     (domain != AF_UNIX || getpeername(fd, (struct sockaddr *)&address, &room) == 0);
    bool is_stream = domain == AF_UNIX && type == SOCK_STREAM;
    bool is_quiet = is_socket && is_stream && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
    if (is_quiet && errno == EAGAIN && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == 0)
        return fd; /* a service says nothing unasked */
    *refusal = format("cannot connect to build-service: %s (BUILD_SERVICE_FD=%s)",
                      !is_socket   ? reason(errno)
                      : !is_stream ? "it is no stream socket of AF_UNIX"
                      : is_quiet   ? reason(errno)
                                   : "the connection was used, or is closed: it serves one build", number);
    return -1;
}

/* Connects to the socket at `path`, without one over $BUILD_SERVICE_FD, else at $BUILD_SERVICE_SOCKET, else at usual
   ones. Returns the descriptor, or with the line for the user -1, NO_SOCKET where there is none. */
int connect_to_service(const char *path, char **refusal) {
    const char *candidates[DEFAULTS + 2] = {DEFAULT_SOCKETS}, *runtime = variable("XDG_RUNTIME_DIR"), *hint = "";
    if (path == NULL && variable("BUILD_SERVICE_FD") != NULL)
        return inherited(variable("BUILD_SERVICE_FD"), refusal);
    candidates[DEFAULTS] = runtime == NULL ? NULL : format("%s/build-service/build-service.sock", runtime);
    path = path != NULL ? path : variable("BUILD_SERVICE_SOCKET");
    *refusal = NULL;
    for (size_t i = 0; path != NULL ? i == 0 : candidates[i] != NULL; i++) {
        int fd = connected(path != NULL ? path : candidates[i]);
        if (fd >= 0)
            return fd;
        if (fd != -ENOENT && fd != -ENOTDIR && *refusal == NULL)
            *refusal = refusal_of(path != NULL ? path : candidates[i], -fd);
    }
    if (*refusal != NULL)
        return -1;
    if (path == NULL && (access("/run/.containerenv", F_OK) == 0 || variable("container") != NULL))
        hint = " (start the container with " MOUNT ")";
    *refusal = format("build-service socket not found at %s%s", path != NULL ? path : candidates[DEFAULTS - 1], hint);
    return NO_SOCKET;
}
