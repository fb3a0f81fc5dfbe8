/* Characters of UTF-8, names in lists, and lines for the user. */
#include "client.h"

const char *variable(const char *name) {
    const char *value = getenv(name);
    return value == NULL || *value == '\0' ? NULL : value;
}

bool is_among(const char *name, const char *const *names, const char *const *beginnings) {
    for (; *names != NULL; names++)
        if (strcmp(name, *names) == 0)
            return true;
    while (*beginnings != NULL && strncmp(name, *beginnings, strlen(*beginnings)) != 0)
        beginnings++;
    return *beginnings != NULL;
}

void append(const char ***list, const char *string) {
    size_t count = 0;
    while (*list != NULL && (*list)[count] != NULL)
        count++;
    *list = checked(realloc(*list, (count + 2) * sizeof **list));
    memcpy(*list + count, (const char *[]){string, NULL}, 2 * sizeof **list);
}

size_t character(const char *at, uint32_t *code) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)*at;
    size_t length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    *code = first < 0x80 ? first : first & (0xFFu >> (length + 1));
    for (size_t i = 1; i < length; *code = *code << 6 | ((unsigned char)at[i++] & 0x3F))
        if (((unsigned char)at[i] & 0xC0) != 0x80) /* a NUL at the end is none either */
            return 0;
    bool is_surrogate = *code >= 0xD800 && *code < 0xE000, is_early = first >= 0x80 && first < 0xC2;
    return is_early || first > 0xF4 || *code < least[length] || *code > 0x10FFFF || is_surrogate ? 0 : length;
}

void *checked(void *memory) {
    if (memory == NULL)
        give_up("build-cli: %s", strerror(ENOMEM));
    return memory;
}

char *format(const char *format, ...) {
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    return vasprintf(&text, format, arguments) < 0 ? checked(NULL) : text;
}

void write_all(int fd, const char *bytes, size_t length) {
    static int failed;
    for (ssize_t written; length > 0; bytes += written, length -= (size_t)written) {
        while ((written = write(fd, bytes, length)) < 0 && errno == EAGAIN) /* somebody else made it non-blocking */
            poll(&(struct pollfd){fd, POLLOUT, 0}, 1, -1);
        if (written < 0 && errno == EPIPE)
            die_by(SIGPIPE);
        if (written < 0 && failed++ > 0)
            exit(1);
        if (written < 0)
            give_up("build-cli: %s", strerror(errno));
    }
}
