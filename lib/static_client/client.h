/* build-cli in C, for images without Python: what its parts give each other. It speaks docs/PROTOCOL.md; its reference
   is lib/buildcore/caller, which has the same options, messages and exit codes. names.h is made from the library. */
#define _GNU_SOURCE
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

const char *variable(const char *name); /* of the environment; NULL for an empty one */
bool is_among(const char *name, const char *const *names, const char *const *beginnings); /* both end with NULL */
void append(const char ***list, const char *string); /* to a list that NULL ends, or that is NULL */
size_t character(const char *at, uint32_t *code);    /* the length of the one that begins there, in UTF-8; 0 for none */
void *checked(void *memory);                         /* the same, and not NULL */
char *format(const char *format, ...) __attribute__((format(printf, 1, 2)));
void write_all(int fd, const char *bytes, size_t length); /* ends the program where that fails */
#define say(text) write_all(2, text, strlen(text))
#define give_up(...) (say(format(__VA_ARGS__)), say("\n"), exit(1))

struct options {
    const char *socket_path, *request_id, *fallback, *stdio;
    long timeout_sec; /* 0 for none */
    struct variable {
        const char *name, *value;
        bool asked; /* for by name, not sent by custom */
    } *env;
    size_t variables;
    char **command;
};
const char *parse(struct options *options, char **words);
int connect_to_service(const char *path, char **refusal);
char *request_of(const struct options *options, size_t *length, int descriptors[3], int *count);

enum { ENV_LEFT_OUT, PATHS_LEFT, PATH_MAPPING, LISTS, NO_SOCKET = -2 };
struct event {
    enum { NOTHING, OUTPUT, STOPPED, EXIT } kind;
    const char *data; /* of OUTPUT: `length` bytes for the descriptor `fd` */
    size_t length;
    int fd, code; /* of EXIT, as all below */
    long long timeout_sec;
    bool timed_out, beside, not_compared;
    const char *message, **lists[LISTS]; /* the service's own line; names */
};
const char *read_event(char *line, size_t length, struct event *event);

void catch_signals(int connection);
void request_is_sent(void);
void await_input(void);
void stop(void);
void finish(void);
_Noreturn void die_by(int signum);
void tell(const struct event *end, const struct options *options);
