/* What a build had otherwise than its caller sent it: the lines that tell of it. */
#include "client.h"

/* Tells of what does not show, or changes how the text around it shows: controls, formats, separators, private use. */
static bool is_unprintable(uint32_t code) {
    return code < ' ' || (code >= 0x7F && code <= 0xA0) || code == 0xAD || (code >= 0x2000 && code <= 0x200F) ||
           (code >= 0x2028 && code <= 0x202F) || (code >= 0x205F && code <= 0x206F) || code == 0x3000 ||
           (code >= 0xE000 && code <= 0xF8FF) || code == 0xFEFF || (code >= 0xFFF0 && code < 0xFFFC) || code >= 0xE0000;
}

/* Escapes what does not show, as Python would. */
static char *printable(const char *string) {
    size_t size;
    char *shown = checked(malloc(strlen(string) * 10 + 1)), *to = shown;
    for (; *string != '\0'; string += size > 0 ? size : 1) {
        uint32_t code;
        size = character(string, &code);
        const char *escaped = size == 0      ? "\\udc%02x"
                              : code == '\t' ? "\\t" : code == '\n' ? "\\n" : code == '\r' ? "\\r"
                              : code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x";
        if (size > 0 && !is_unprintable(code))
            to = (char *)memcpy(to, string, size) + size;
        else
            to += sprintf(to, escaped, size == 0 ? (unsigned char)*string : code);
    }
    *to = '\0';
    return shown;
}

/* Returns the names as part of a line: what there is room for, then how many more; NULL without any. */
static char *listed(const char **names) {
    char *line = NULL;
    size_t more = 0, room = MAX_NAMES_CHARS;
    for (; names != NULL && *names != NULL; names++) {
        char *name = printable(*names);
        more += more > 0 || strlen(name) + 2 > room;
        room -= more > 0 ? 0 : strlen(name) + 2;
        if (more == 0)
            line = line == NULL ? name : format("%s, %s", line, name);
    }
    if (more > 0)
        line = line != NULL ? format("%s and %zu more", line, more) : format("%zu with long names", more);
    return line;
}

/* Tells whether a name that was sent is `name` in an event, where a byte that is no UTF-8 is a question mark. */
static bool is_on_the_wire(const char *sent, const char *name) {
    uint32_t code;
    for (size_t size; *sent != '\0' && *name != '\0'; sent += size > 0 ? size : 1, name += size > 0 ? size : 1) {
        size = character(sent, &code);
        if (size == 0 ? *name != '?' : strncmp(sent, name, size) != 0)
            return false;
    }
    return *sent == *name;
}

/* Tells the caller, in a line for each kind. */
void tell(const struct event *end, const struct options *options) {
    static const char *const quiet[] = QUIET, *const quiet_prefixes[] = QUIET_PREFIXES;
    const char **mapping = end->lists[PATH_MAPPING], **kept = NULL;
    for (const char **name = end->lists[ENV_LEFT_OUT]; name != NULL && *name != NULL; name++)
        for (const struct variable *each = options->env; each < options->env + options->variables; each++)
            if (is_on_the_wire(each->name, *name) && (each->asked || !is_among(each->name, quiet, quiet_prefixes)))
                append(&kept, each->name);
    char *variables = listed(kept), *paths = listed(end->lists[PATHS_LEFT]);
    if (variables != NULL)
        say(format("build-cli: the host kept these variables from the build: %s"
                   " (build.environment there decides; build-ctl doctor shows it)\n", variables));
    if (paths != NULL && mapping != NULL && mapping[1] != NULL && mapping[2] == NULL)
        say(format("build-cli: paths of the container are left in what the host got: %s (%s here is %s there)\n", paths,
                   printable(mapping[0]), printable(mapping[1])));
    if (end->not_compared)
        say("build-cli: the host could not tell whether the directory of the build was this one\n");
}
