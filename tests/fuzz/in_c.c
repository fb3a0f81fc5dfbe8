/* Reads streams of events with the client in C: each comes in behind its length in 4 bytes, the first the highest; what
   was made of it goes out as lines, with one that says `end` behind them. tests/fuzz/in_c.py reads these. */
#include "client.h"

void die_by(int signum) { exit(128 + signum); }

static void show(const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        printf("%02x", (unsigned char)bytes[i]);
}

static void show_list(const char **list) {
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        printf(i > 0 ? "," : "");
        show(list[i], strlen(list[i]));
    }
    free(list);
}

static bool show_event(char *line, size_t length) {
    struct event event;
    const char *wrong = read_event(line, length, &event);
    if (wrong != NULL)
        printf("wrong %s\n", wrong);
    else if (event.kind == OUTPUT) {
        printf("output %d ", event.fd);
        show(event.data, event.length);
        printf("\n");
    } else if (event.kind == STOPPED)
        printf("stopped\n");
    else if (event.kind == EXIT) {
        printf("exit %d %d %d %d %lld ", event.code, event.timed_out, event.beside, event.not_compared, event.timeout_sec);
        show(event.message, event.beside ? strlen(event.message) : 0);
        for (int i = 0; i < LISTS; i++) {
            printf(";");
            show_list(event.lists[i]);
        }
        printf("\n");
    }
    return wrong == NULL && event.kind != EXIT;
}

int main(void) {
    unsigned char size[4];
    while (fread(size, 1, 4, stdin) == 4) {
        size_t length = (size_t)size[0] << 24 | (size_t)size[1] << 16 | (size_t)size[2] << 8 | size[3];
        char *data = checked(malloc(length + 1));
        if (fread(data, 1, length, stdin) != length)
            return 1;
        char *line = data, *end;
        bool goes_on = true;
        while (goes_on && (end = memchr(line, '\n', length - (size_t)(line - data))) != NULL) {
            char *alone = checked(malloc((size_t)(end - line) + 1)); /* so that a sanitizer knows where it ends */
            memcpy(alone, line, (size_t)(end - line));
            alone[end - line] = '\0';
            goes_on = show_event(alone, (size_t)(end - line));
            free(alone);
            line = end + 1;
        }
        free(data);
        printf("end\n");
        fflush(stdout);
    }
    return 0;
}
